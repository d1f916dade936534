//! Incremental decoding of content transfer encodings (RFC 2045 §6).
//!
//! Lenient: what is not of the encoding is skipped (base64) or kept as it is (quoted-printable),
//! and reported as [`Decoded::Damaged`] at the end. Memory is bounded by
//! [`QP_BLANKS_MAX`](crate::limits::QP_BLANKS_MAX).

use crate::limits::QP_BLANKS_MAX;
use crate::structure::TransferEncoding;

/// A streaming decoder for one body; the result does not depend on how the input is split.
#[derive(Clone, Debug)]
pub struct TransferDecoder {
    engine: Engine,
    decoded: Decoded,
}

/// How a decoding went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The input was well-formed.
    Clean,
    /// The input had octets that are not of the encoding; what could be decoded was.
    Damaged,
}

#[derive(Clone, Debug)]
enum Engine {
    Identity,
    Base64 { group: u32, sextets: u8 },
    QuotedPrintable { blanks: Vec<u8>, escape: Escape },
}

/// Where the quoted-printable decoder is after a `=`.
#[derive(Clone, Copy, Debug)]
enum Escape {
    None,
    Equals,
    Hex(u8),
    /// Blanks between `=` and the line end that makes it a soft line break.
    Blank,
    Cr,
}

/// Where decoded octets go: a buffer, or only a count of them.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts octets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count(pub(crate) u64);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }
}

const NOT_BASE64: u8 = 0xFF;

/// The value of every octet in the base64 alphabet, or [`NOT_BASE64`].
static BASE64_VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NOT_BASE64; 256];
    let mut value = 0;
    while value < alphabet.len() {
        values[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    values
};

impl TransferDecoder {
    /// The decoder for an encoding; `None` for an unknown one (IMAP `UNKNOWN-CTE`).
    pub fn new(encoding: &TransferEncoding) -> Option<Self> {
        let engine = match encoding {
            TransferEncoding::SevenBit | TransferEncoding::EightBit | TransferEncoding::Binary => {
                Engine::Identity
            }
            TransferEncoding::QuotedPrintable => {
                Engine::QuotedPrintable { blanks: Vec::new(), escape: Escape::None }
            }
            TransferEncoding::Base64 => return Some(Self::base64()),
            TransferEncoding::Other(_) => return None,
        };
        Some(Self { engine, decoded: Decoded::Clean })
    }

    /// The decoder for base64.
    pub fn base64() -> Self {
        Self { engine: Engine::Base64 { group: 0, sextets: 0 }, decoded: Decoded::Clean }
    }

    /// Decodes the next encoded octets; appends to `out` at most as many (and the few held back).
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.push_into(bytes, out);
    }

    /// Ends the body: appends what was held back.
    pub fn finish(self, out: &mut Vec<u8>) -> Decoded {
        self.finish_into(out)
    }

    pub(crate) fn push_into(&mut self, bytes: &[u8], out: &mut impl Sink) {
        match &mut self.engine {
            Engine::Identity => out.put(bytes),
            Engine::Base64 { group, sextets } => {
                push_base64(group, sextets, &mut self.decoded, bytes, out);
            }
            Engine::QuotedPrintable { blanks, escape } => {
                for &byte in bytes {
                    push_quoted(blanks, escape, &mut self.decoded, byte, out);
                }
            }
        }
    }

    pub(crate) fn finish_into(mut self, out: &mut impl Sink) -> Decoded {
        match self.engine {
            Engine::Identity => {}
            Engine::Base64 { group, sextets } => {
                if sextets == 1 {
                    self.decoded = Decoded::Damaged;
                }
                put_partial(group, sextets, out);
            }
            // Blanks at the end of the last line go, like those at the end of any line.
            Engine::QuotedPrintable { escape, .. } => {
                if let Escape::Hex(digit) = escape {
                    self.decoded = Decoded::Damaged;
                    out.put(&[b'=', digit]);
                }
            }
        }
        self.decoded
    }
}

fn push_base64(
    group: &mut u32,
    sextets: &mut u8,
    decoded: &mut Decoded,
    bytes: &[u8],
    out: &mut impl Sink,
) {
    for &byte in bytes {
        let value = BASE64_VALUES[usize::from(byte)];
        if value != NOT_BASE64 {
            *group = *group << 6 | u32::from(value);
            *sextets += 1;
            if *sextets == 4 {
                let [_, a, b, c] = group.to_be_bytes();
                out.put(&[a, b, c]);
                (*group, *sextets) = (0, 0);
            }
        } else if byte == b'=' {
            // Bodies glued together by mailers go on after the padding.
            if *sextets == 1 {
                *decoded = Decoded::Damaged;
            }
            put_partial(*group, *sextets, out);
            (*group, *sextets) = (0, 0);
        } else if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            *decoded = Decoded::Damaged;
        }
    }
}

/// Puts the whole octets of an incomplete group.
fn put_partial(group: u32, sextets: u8, out: &mut impl Sink) {
    match sextets {
        2 => out.put(&[(group >> 4) as u8]),
        3 => out.put(&[(group >> 10) as u8, (group >> 2) as u8]),
        _ => {}
    }
}

fn push_quoted(
    blanks: &mut Vec<u8>,
    escape: &mut Escape,
    decoded: &mut Decoded,
    byte: u8,
    out: &mut impl Sink,
) {
    *escape = match (*escape, byte) {
        (Escape::None, _) => return push_plain(blanks, escape, byte, out),
        (Escape::Equals | Escape::Blank | Escape::Cr, b'\n') => Escape::None,
        (Escape::Equals | Escape::Blank, b'\r') => Escape::Cr,
        (Escape::Equals | Escape::Blank, b' ' | b'\t') => Escape::Blank,
        (Escape::Equals, _) if byte.is_ascii_hexdigit() => Escape::Hex(byte),
        (Escape::Hex(high), _) if byte.is_ascii_hexdigit() => {
            out.put(&[hex_value(high) << 4 | hex_value(byte)]);
            Escape::None
        }
        (broken, _) => {
            *decoded = Decoded::Damaged;
            match broken {
                Escape::Equals => out.put(b"="),
                Escape::Hex(digit) => out.put(&[b'=', digit]),
                Escape::Blank => out.put(b"= "),
                Escape::None | Escape::Cr => {}
            }
            *escape = Escape::None;
            return push_plain(blanks, escape, byte, out);
        }
    };
}

fn push_plain(blanks: &mut Vec<u8>, escape: &mut Escape, byte: u8, out: &mut impl Sink) {
    match byte {
        b' ' | b'\t' => {
            if blanks.len() == QP_BLANKS_MAX {
                out.put(blanks);
                blanks.clear();
            }
            blanks.push(byte);
            return;
        }
        // RFC 2045 §6.7 rule 3: blanks before a line end were added in transport.
        b'\r' | b'\n' => blanks.clear(),
        _ if !blanks.is_empty() => {
            out.put(blanks);
            blanks.clear();
        }
        _ => {}
    }
    if byte == b'=' {
        *escape = Escape::Equals;
    } else {
        out.put(&[byte]);
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(encoding: &TransferEncoding, chunks: &[&[u8]]) -> (Vec<u8>, Decoded) {
        let mut decoder = TransferDecoder::new(encoding).expect("known encoding");
        let mut out = Vec::new();
        for chunk in chunks {
            decoder.push(chunk, &mut out);
        }
        let decoded = decoder.finish(&mut out);
        (out, decoded)
    }

    /// Decodes whole and at every split in two.
    fn check(encoding: TransferEncoding, input: &str, expected: &str, how: Decoded) {
        let input = input.as_bytes();
        for split in 0..=input.len() {
            let (out, decoded) = decode(&encoding, &[&input[..split], &input[split..]]);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{input:?} at {split}");
            assert_eq!(decoded, how, "{input:?} at {split}");
        }
    }

    #[test]
    fn base64() {
        let check = |input, expected, how| check(TransferEncoding::Base64, input, expected, how);
        check("", "", Decoded::Clean);
        check("Zg==", "f", Decoded::Clean);
        check("Zm8=", "fo", Decoded::Clean);
        check("Zm9v\r\nYmFy\r\n", "foobar", Decoded::Clean);
        check("Zm8", "fo", Decoded::Clean);
        check("Zg==Zg==", "ff", Decoded::Clean);
        check("Z m-9v", "foo", Decoded::Damaged);
        check("Zm9vY", "foo", Decoded::Damaged);
    }

    #[test]
    fn quoted_printable() {
        let check =
            |input, expected, how| check(TransferEncoding::QuotedPrintable, input, expected, how);
        check("a=3Db", "a=b", Decoded::Clean);
        check("a=\r\nb=\nc= \t\r\nd", "abcd", Decoded::Clean);
        check("a  \r\nb \nc  ", "a\r\nb\nc", Decoded::Clean);
        check("a b\tc", "a b\tc", Decoded::Clean);
        check("=c3=BC", "ü", Decoded::Clean);
        check("50=% =x =4g", "50=% =x =4g", Decoded::Damaged);
        check("a=", "a", Decoded::Clean);
        check("a=4", "a=4", Decoded::Damaged);
        check("a= b", "a= b", Decoded::Damaged);
        check("==41", "=A", Decoded::Damaged);
    }

    #[test]
    fn identity_and_unknown() {
        check(TransferEncoding::Binary, "a=3D\r\n", "a=3D\r\n", Decoded::Clean);
        assert!(TransferDecoder::new(&TransferEncoding::Other("x-uue".into())).is_none());
    }

    #[test]
    fn blanks_held_back_are_bounded() {
        let blanks = vec![b' '; 3 * QP_BLANKS_MAX];
        let (out, _) = decode(&TransferEncoding::QuotedPrintable, &[&blanks, b"x"]);
        assert_eq!(out.len(), blanks.len() + 1);
    }

    proptest! {
        #[test]
        fn base64_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let mut text = Vec::new();
            for group in bytes.chunks(3) {
                let mut word = [0u8; 4];
                word[1..=group.len()].copy_from_slice(group);
                let word = u32::from_be_bytes(word);
                for sextet in 0..=group.len() {
                    text.push(alphabet[(word >> (18 - 6 * sextet)) as usize & 63]);
                }
            }
            prop_assert_eq!(decode(&TransferEncoding::Base64, &[&text]), (bytes, Decoded::Clean));
        }

        #[test]
        fn quoted_printable_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text: String = bytes.iter().map(|byte| format!("={byte:02X}")).collect();
            let decoded = decode(&TransferEncoding::QuotedPrintable, &[text.as_bytes()]);
            prop_assert_eq!(decoded, (bytes, Decoded::Clean));
        }
    }
}
