//! Bytes to UTF-8: by a named charset, or, for header text that names none, by what the bytes are.

use mail_parser::decoders::charsets::map::charset_decoder;

/// windows-1252 for 0x80 to 0x9F; the holes are C1 controls, as in the WHATWG table, so that the
/// map stays one to one.
const WINDOWS_1252_C1: [char; 32] = [
    '\u{20AC}', '\u{81}', '\u{201A}', '\u{192}', '\u{201E}', '\u{2026}', '\u{2020}', '\u{2021}',
    '\u{2C6}', '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8D}', '\u{17D}', '\u{8F}',
    '\u{90}', '\u{2018}', '\u{2019}', '\u{201C}', '\u{201D}', '\u{2022}', '\u{2013}', '\u{2014}',
    '\u{2DC}', '\u{2122}', '\u{161}', '\u{203A}', '\u{153}', '\u{9D}', '\u{17E}', '\u{178}',
];

/// Header bytes as text: UTF-8 (RFC 6532) if they are, else windows-1252. CR, LF and NUL are
/// dropped, so that the result is valid in every protocol.
pub fn header_text(bytes: &[u8]) -> String {
    let mut text = undeclared_text(bytes);
    text.retain(|c| !matches!(c, '\r' | '\n' | '\0'));
    text
}

/// Bytes in a named charset as UTF-8. What has no character becomes U+FFFD; an unknown charset
/// and `us-ascii` with high bytes are read as UTF-8 if they are that, else as windows-1252.
pub fn charset_text(charset: &str, bytes: &[u8]) -> String {
    let charset = charset.trim();
    if charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8") {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    if bytes.is_ascii() && ascii_compatible(charset) {
        return undeclared_text(bytes);
    }
    if charset.is_empty() || charset.eq_ignore_ascii_case("us-ascii") {
        return undeclared_text(bytes);
    }
    match charset_decoder(charset.as_bytes()) {
        Some(decode) => decode(bytes),
        None => undeclared_text(bytes),
    }
}

/// The charsets that dominate real mail and map ASCII to itself; others go through their decoder.
fn ascii_compatible(charset: &str) -> bool {
    let lower = charset.to_ascii_lowercase();
    lower.is_empty()
        || lower == "us-ascii"
        || lower.starts_with("iso-8859-")
        || lower.starts_with("windows-125")
}

fn undeclared_text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| windows_1252(byte)).collect(),
    }
}

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9F => WINDOWS_1252_C1[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn header_text_keeps_utf8_and_reads_the_rest_as_windows_1252() {
        assert_eq!(header_text("Grüße".as_bytes()), "Grüße");
        assert_eq!(header_text(b"Gr\xFC\xDFe \x80"), "Grüße €");
        assert_eq!(header_text(b"a\r\n b\0c"), "a bc");
    }

    #[test]
    fn windows_1252_is_one_to_one() {
        let chars: BTreeSet<char> = (0..=255).map(windows_1252).collect();
        assert_eq!(chars.len(), 256);
    }

    #[test]
    fn named_charsets() {
        assert_eq!(charset_text("ISO-8859-1", b"caf\xE9"), "café");
        assert_eq!(charset_text("utf-8", "日本".as_bytes()), "日本");
        assert_eq!(charset_text("Shift_JIS", b"\x93\xFA\x96\x7B"), "日本");
        assert_eq!(charset_text("iso-2022-jp", b"\x1B$BF|K\\\x1B(B"), "日本");
        assert_eq!(charset_text("gb2312", b"\xC4\xE3\xBA\xC3"), "你好");
        assert_eq!(charset_text("koi8-r", b"\xF0\xD2"), "Пр");
        assert_eq!(charset_text("x-no-such", b"caf\xE9"), "café");
        assert_eq!(charset_text("us-ascii", b"caf\xE9"), "café");
    }
}
