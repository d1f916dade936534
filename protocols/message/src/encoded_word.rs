//! RFC 2047 encoded words in header text.
//!
//! Lenient where mailers are known to err: words inside other text, blanks inside a word, and a
//! multi-byte character cut in two by adjacent words of one charset.

use crate::limits::CHARSET_NAME_BYTES_MAX;
use crate::structure::TransferEncoding;
use crate::text::charset_text;
use crate::transfer::TransferDecoder;

/// Decodes the encoded words of a header text; other text stays. Control characters that come out
/// of a word become blanks. Linear in the text's length.
pub fn decode_encoded_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pending = Pending::default();
    let mut rest = text;
    while let Some(at) = rest.find("=?") {
        let candidate = &rest[at..];
        let (word, after) = match EncodedWord::parse(candidate) {
            Ok(parsed) => parsed,
            Err(NoWord::NoEnd) => break,
            Err(NoWord::Malformed) => {
                pending.flush(&mut out);
                out.push_str(&rest[..at + 2]);
                rest = &candidate[2..];
                continue;
            }
        };
        let between = &rest[..at];
        // RFC 2047 §6.2: blanks between two encoded words are not displayed.
        let adjacent = pending.active && between.chars().all(|c| matches!(c, ' ' | '\t'));
        if !adjacent {
            pending.flush(&mut out);
            out.push_str(between);
        }
        pending.add(&word, &mut out);
        rest = after;
    }
    pending.flush(&mut out);
    out.push_str(rest);
    out
}

/// Bytes of adjacent words of one charset, decoded together.
#[derive(Default)]
struct Pending {
    charset: String,
    bytes: Vec<u8>,
    active: bool,
}

impl Pending {
    fn add(&mut self, word: &EncodedWord<'_>, out: &mut String) {
        if !self.charset.eq_ignore_ascii_case(word.charset) {
            self.flush(out);
            self.charset = word.charset.to_owned();
        }
        self.active = true;
        word.decode_into(&mut self.bytes);
    }

    fn flush(&mut self, out: &mut String) {
        self.active = false;
        if self.bytes.is_empty() {
            return;
        }
        let decoded = charset_text(&self.charset, &self.bytes);
        out.extend(decoded.chars().map(|c| if c.is_control() { ' ' } else { c }));
        self.bytes.clear();
    }
}

struct EncodedWord<'a> {
    charset: &'a str,
    encoding: WordEncoding,
    text: &'a str,
}

enum WordEncoding {
    B,
    Q,
}

/// Why there is no word where one seemed to start.
enum NoWord {
    /// Another one may follow.
    Malformed,
    /// No word ends in the rest of the text; telling this apart keeps the search linear.
    NoEnd,
}

impl<'a> EncodedWord<'a> {
    /// `text` starts with `=?`.
    fn parse(text: &'a str) -> Result<(Self, &'a str), NoWord> {
        let (charset, encoding, body) = Self::parse_start(&text[2..]).ok_or(NoWord::Malformed)?;
        let end = body.find("?=").ok_or(NoWord::NoEnd)?;
        Ok((Self { charset, encoding, text: &body[..end] }, &body[end + 2..]))
    }

    /// Charset, encoding, and what follows the third question mark.
    fn parse_start(inner: &'a str) -> Option<(&'a str, WordEncoding, &'a str)> {
        let charset_end =
            inner.bytes().take(CHARSET_NAME_BYTES_MAX + 1).position(|byte| byte == b'?')?;
        let (charset, after) = (&inner[..charset_end], &inner[charset_end + 1..]);
        let encoding = match after.as_bytes().first()? {
            b'b' | b'B' => WordEncoding::B,
            b'q' | b'Q' => WordEncoding::Q,
            _ => return None,
        };
        let body = after[1..].strip_prefix('?')?;
        // RFC 2231 §5: a language may follow the charset.
        let charset = charset.split('*').next().unwrap_or(charset);
        (!charset.is_empty()).then_some((charset, encoding, body))
    }

    fn decode_into(&self, out: &mut Vec<u8>) {
        match self.encoding {
            WordEncoding::B => {
                let mut decoder = TransferDecoder::base64();
                decoder.push(self.text.as_bytes(), out);
                decoder.finish(out);
            }
            WordEncoding::Q => {
                // RFC 2047 §4.2: "_" is a blank; a blank that is written as itself stays one.
                let escaped = self.text.replace(['_', ' '], "=20");
                let mut decoder = TransferDecoder::new(&TransferEncoding::QuotedPrintable)
                    .expect("quoted-printable is a known encoding");
                decoder.push(escaped.as_bytes(), out);
                decoder.finish(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(decode_encoded_words(text), expected, "{text:?}");
    }

    #[test]
    fn words() {
        check("plain text", "plain text");
        check("=?ISO-8859-1?Q?Andr=E9?= Pirard", "André Pirard");
        check("=?utf-8?B?R3LDvMOfZQ==?=", "Grüße");
        check("=?utf-8*en?q?a_b?= c", "a b c");
        check("Re: =?us-ascii?Q?x?= y =?us-ascii?Q?z?=", "Re: x y z");
        check("=?utf-8?Q??=", "");
    }

    #[test]
    fn blanks_between_words_go() {
        check("=?utf-8?Q?a?= \t =?utf-8?Q?b?=", "ab");
        check("=?utf-8?Q?a?= =?iso-8859-1?Q?=E9?=", "aé");
        check("=?utf-8?Q?a?= b =?utf-8?Q?c?=", "a b c");
    }

    #[test]
    fn a_character_cut_in_two_is_joined() {
        check("=?utf-8?Q?=C3?= =?UTF-8?Q?=BC?=", "ü");
        check("=?utf-8?B?w7w=?= =?utf-8?B?w5/Dn2U=?=", "üßße");
    }

    #[test]
    fn broken_words_stay() {
        check("=?utf-8?X?a?=", "=?utf-8?X?a?=");
        check("=?utf-8?Q?a", "=?utf-8?Q?a");
        check("a =? b =?utf-8?Q?c?=", "a =? b c");
        check("=?", "=?");
        check("=??Q?a?=", "=??Q?a?=");
    }

    #[test]
    fn controls_become_blanks() {
        check("=?utf-8?Q?a=0D=0Ab=00c?=", "a  b c");
    }

    #[test]
    fn many_false_starts_take_linear_time() {
        let text = "=?".repeat(200_000);
        check(&text, &text);
    }
}
