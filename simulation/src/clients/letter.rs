//! Messages that prove themselves: the last line says what all that was sent before it hashes to, so
//! that whoever reads one can tell that it is what was sent.

use blob::BlobHash;

/// How every letter begins, below what servers put above it.
pub const BEGINS: &str = "From: <sender@remote.test>\r\n";

/// How the last line begins.
const SUM: &str = "sum ";

/// What a report to a sender has, which no letter has.
const REPORT: &str = "Content-Type: multipart/report";

/// A letter with its last line.
pub fn sealed(letter: String) -> String {
    let sum = BlobHash::of(letter.as_bytes());
    format!("{letter}{SUM}{sum}\r\n")
}

/// What is wrong with a message as it was read; a report proves nothing.
///
/// # Errors
/// What is wrong.
pub fn judge(bytes: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not the text that was sent")?;
    let Some((_, letter)) = text.split_once(BEGINS) else {
        return if text.contains(REPORT) { Ok(()) } else { Err("it has no beginning") };
    };
    let (letter, sum) = letter.rsplit_once(SUM).ok_or("it has no end")?;
    let told = sum.strip_suffix("\r\n").ok_or("it breaks off")?;
    let sent = BlobHash::of(format!("{BEGINS}{letter}").as_bytes());
    if sent.to_string() == told { Ok(()) } else { Err("it is not what was sent") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_bit_anywhere_in_a_letter_is_seen() {
        let letter = sealed(format!("{BEGINS}Subject: s1m1\r\n\r\nfor keeper-1\r\n"));
        let read = format!("Received: from somewhere\r\n{letter}").into_bytes();
        assert_eq!(judge(&read), Ok(()));
        for at in read.len() - letter.len()..read.len() {
            let mut wrong = read.clone();
            wrong[at] ^= 1;
            assert!(judge(&wrong).is_err(), "byte {at}");
            assert!(judge(&read[..at]).is_err(), "cut before byte {at}");
        }
        assert_eq!(judge(b"Content-Type: multipart/report; boundary=x\r\n\r\n"), Ok(()));
    }
}
