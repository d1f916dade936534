//! Bytes as hexadecimal digits, as ids and keys are shown and taken.

use std::fmt::Write;

/// Two lower-case digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a String takes everything");
        digits
    })
}

/// The bytes of an even number of digits, upper or lower case; `None` for anything else.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|it| it.is_ascii_hexdigit());
    let bytes = is_hex.then(|| text.as_bytes().chunks(2))?;
    bytes.map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_they_are_written() {
        assert_eq!(hex(&[0x00, 0x7f, 0xff]), "007fff");
        assert_eq!(unhex("007fFF"), Some(vec![0x00, 0x7f, 0xff]));
        assert_eq!(unhex(""), Some(Vec::new()));
        for wrong in ["f", "0g", "+1", "ää"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
