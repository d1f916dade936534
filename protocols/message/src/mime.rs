//! The MIME fields of a part's header (RFC 2045, 2183, 2231, 2557, 3282).
//!
//! Lenient about what mailers get wrong: values with blanks and no quotes, missing semicolons,
//! encoded words where RFC 2231 belongs. A type that cannot be read is text/plain
//! (RFC 2045 §5.2).

use std::collections::BTreeMap;

use crate::encoded_word::decode_encoded_words;
use crate::header::{first, unfold};
use crate::limits::{BOUNDARY_BYTES_MAX, LANGUAGES_MAX, PARAMS_MAX};
use crate::structure::{ContentType, Disposition, Param, TransferEncoding};
use crate::text::{charset_text, header_text};

/// What a part's header says about its body.
#[derive(Clone, Debug)]
pub(crate) struct MimeFields {
    /// `None`: absent or unreadable; the context decides.
    pub(crate) content_type: Option<ContentType>,
    /// The boundary's octets, if there is a usable one.
    pub(crate) boundary: Option<Vec<u8>>,
    pub(crate) transfer_encoding: TransferEncoding,
    pub(crate) content_id: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) md5: Option<String>,
    pub(crate) disposition: Option<Disposition>,
    pub(crate) language: Vec<String>,
    pub(crate) location: Option<String>,
}

impl MimeFields {
    pub(crate) fn new(block: &[u8]) -> Self {
        let text = |name: &str| first(block, name).map(unfold).filter(|text| !text.is_empty());
        let (content_type, boundary) = match first(block, "Content-Type") {
            Some(value) => parse_content_type(value),
            None => (None, None),
        };
        Self {
            content_type,
            boundary,
            transfer_encoding: first(block, "Content-Transfer-Encoding")
                .map(parse_transfer_encoding)
                .unwrap_or_default(),
            content_id: text("Content-ID"),
            description: text("Content-Description"),
            md5: text("Content-MD5"),
            disposition: first(block, "Content-Disposition").and_then(parse_disposition),
            language: text("Content-Language").map(|tags| languages(&tags)).unwrap_or_default(),
            location: text("Content-Location").map(|mut location| {
                location.retain(|c| !c.is_ascii_whitespace());
                location
            }),
        }
    }
}

fn parse_content_type(value: &[u8]) -> (Option<ContentType>, Option<Vec<u8>>) {
    let mut cursor = Cursor { rest: value };
    let Some(kind) = cursor.token() else { return (None, None) };
    if !cursor.eat(b'/') {
        return (None, None);
    }
    let Some(subtype) = cursor.token() else { return (None, None) };
    let params = Params::parse(cursor);
    let boundary = params.octets("boundary").map(|octets| octets.trim_ascii_end().to_vec());
    let content_type = ContentType { kind, subtype, params: params.decode() };
    let usable = |boundary: &Vec<u8>| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len());
    (Some(content_type), boundary.filter(usable))
}

fn parse_disposition(value: &[u8]) -> Option<Disposition> {
    let mut cursor = Cursor { rest: value };
    let kind = cursor.token()?;
    Some(Disposition { kind, params: Params::parse(cursor).decode() })
}

fn parse_transfer_encoding(value: &[u8]) -> TransferEncoding {
    let name = Cursor { rest: value }.token().unwrap_or_default();
    match name.as_str() {
        "" | "7bit" => TransferEncoding::SevenBit,
        "8bit" => TransferEncoding::EightBit,
        "binary" => TransferEncoding::Binary,
        "quoted-printable" => TransferEncoding::QuotedPrintable,
        "base64" => TransferEncoding::Base64,
        _ => TransferEncoding::Other(name),
    }
}

fn languages(tags: &str) -> Vec<String> {
    tags.split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .take(LANGUAGES_MAX)
        .map(str::to_owned)
        .collect()
}

/// A reader of structured field values.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    /// Passes over blanks and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if self.rest.first() != Some(&b'(') {
                return;
            }
            let mut depth = 0usize;
            let mut at = 0;
            while let Some(&byte) = self.rest.get(at) {
                at += 1;
                match byte {
                    b'\\' => at += 1,
                    b'(' => depth += 1,
                    b')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            self.rest = &self.rest[at.min(self.rest.len())..];
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.skip();
        match self.rest.strip_prefix(&[byte]) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A token (RFC 2045 §5.1) in lower case, if there is one.
    fn token(&mut self) -> Option<String> {
        self.skip();
        let end = self.rest.iter().position(|&byte| !is_token(byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then(|| header_text(token).to_ascii_lowercase())
    }

    /// A parameter's value: a quoted string, or all up to the semicolon or comment.
    fn value(&mut self) -> Vec<u8> {
        self.skip();
        if self.rest.first() == Some(&b'"') {
            return self.quoted();
        }
        let mut end = 0;
        while let Some(&byte) = self.rest.get(end) {
            let comment = byte == b'(' && end > 0 && self.rest[end - 1].is_ascii_whitespace();
            if byte == b';' || comment {
                break;
            }
            end += 1;
        }
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        value.trim_ascii_end().to_vec()
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut content = Vec::new();
        let mut at = 1;
        while let Some(&byte) = self.rest.get(at) {
            at += 1;
            match byte {
                b'"' => break,
                // Only what needs it is escaped: old mailers write Windows paths as they are.
                b'\\' if matches!(self.rest.get(at), Some(b'"' | b'\\')) => {
                    content.extend(self.rest.get(at));
                    at += 1;
                }
                b'\r' | b'\n' => {}
                _ => content.push(byte),
            }
        }
        self.rest = &self.rest[at.min(self.rest.len())..];
        content
    }
}

fn is_token(byte: u8) -> bool {
    byte > b' ' && byte != 127 && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

/// Parameters as read: segments of RFC 2231 continuations not yet joined.
struct Params {
    /// In order of first appearance.
    names: Vec<String>,
    plain: BTreeMap<String, Vec<u8>>,
    /// By name and number.
    segments: BTreeMap<(String, u32), Segment>,
}

struct Segment {
    octets: Vec<u8>,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Literal,
    /// `name*=` and `name*N*=`: percent-encoded, the first with charset and language before it.
    Extended,
}

impl Params {
    fn parse(mut cursor: Cursor<'_>) -> Self {
        let mut params =
            Self { names: Vec::new(), plain: BTreeMap::new(), segments: BTreeMap::new() };
        let mut count = 0;
        while !cursor.rest.is_empty() && count < PARAMS_MAX {
            let Some(name) = cursor.token() else {
                // Rubbish between parameters, and the semicolons.
                cursor.rest = cursor.rest.get(1..).unwrap_or_default();
                continue;
            };
            if !cursor.eat(b'=') {
                continue;
            }
            count += 1;
            let value = cursor.value();
            params.add(&name, value);
        }
        params
    }

    fn add(&mut self, written: &str, value: Vec<u8>) {
        let (base, number, form) = split_name(written);
        if base.is_empty() {
            return;
        }
        if !self.names.iter().any(|name| name == base) {
            self.names.push(base.to_owned());
        }
        match number {
            None => {
                self.plain.entry(base.to_owned()).or_insert(value);
            }
            Some(number) => {
                self.segments
                    .entry((base.to_owned(), number))
                    .or_insert(Segment { octets: value, form });
            }
        }
    }

    /// A value's octets before charset decoding: what a boundary is compared by.
    fn octets(&self, name: &str) -> Option<Vec<u8>> {
        match self.joined(name) {
            Some((_, octets)) => Some(octets),
            None => self.plain.get(name).cloned(),
        }
    }

    /// The charset and octets of a parameter in RFC 2231 form: segments from 0 without a gap.
    fn joined(&self, name: &str) -> Option<(String, Vec<u8>)> {
        let mut charset = String::new();
        let mut octets = Vec::new();
        for number in 0.. {
            let Some(segment) = self.segments.get(&(name.to_owned(), number)) else {
                return (number > 0).then_some((charset, octets));
            };
            match segment.form {
                Form::Literal => octets.extend_from_slice(&segment.octets),
                Form::Extended => {
                    let mut text = segment.octets.as_slice();
                    if number == 0 {
                        (charset, text) = split_charset(text);
                    }
                    octets.extend(percent_decode(text));
                }
            }
        }
        None
    }

    fn decode(&self) -> Vec<Param> {
        let decode = |name: &String| {
            let value = match self.joined(name) {
                Some((charset, octets)) if charset.is_empty() => header_text(&octets),
                Some((charset, octets)) => header_text(charset_text(&charset, &octets).as_bytes()),
                None => decode_encoded_words(&header_text(self.plain.get(name)?)),
            };
            Some(Param { name: name.clone(), value })
        };
        self.names.iter().filter_map(decode).collect()
    }
}

/// `name*1*` as name, number and form; a plain name has no number, `name*` is number 0.
fn split_name(written: &str) -> (&str, Option<u32>, Form) {
    let (stem, form) = match written.strip_suffix('*') {
        Some(stem) => (stem, Form::Extended),
        None => (written, Form::Literal),
    };
    match stem.rsplit_once('*') {
        Some((base, number)) => match number.parse() {
            Ok(number) => (base, Some(number), form),
            Err(_) => (written, None, Form::Literal),
        },
        None if form == Form::Extended => (stem, Some(0), form),
        None => (stem, None, form),
    }
}

/// Takes `charset'language'` off an extended value.
fn split_charset(text: &[u8]) -> (String, &[u8]) {
    let mut parts = text.splitn(3, |&byte| byte == b'\'');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_), Some(rest)) => (header_text(charset), rest),
        _ => (String::new(), text),
    }
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|hex| str::from_utf8(hex).ok());
        let digits = hex.filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (byte, digits.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(octet)) => {
                out.push(octet);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(block: &str) -> MimeFields {
        MimeFields::new(block.as_bytes())
    }

    /// `kind/subtype name=value …`, or `-`.
    fn check(value: &str, expected: &str) {
        let shown = match fields(&format!("Content-Type: {value}\r\n")).content_type {
            None => "-".to_owned(),
            Some(found) => {
                let mut shown = format!("{}/{}", found.kind, found.subtype);
                for param in found.params {
                    shown += &format!(" {}={}", param.name, param.value);
                }
                shown
            }
        };
        assert_eq!(shown, expected, "{value:?}");
    }

    #[test]
    fn types_and_params() {
        check("Text/HTML", "text/html");
        check("text/plain; charset=us-ascii (Plain text)", "text/plain charset=us-ascii");
        check(
            "text/plain;\r\n\tcharset=\"utf-8\";format=flowed;",
            "text/plain charset=utf-8 format=flowed",
        );
        check("a/b; name=\"x \\\"y\\\" C:\\z\"", "a/b name=x \"y\" C:\\z");
        check("a/b; name=My File.pdf; x=y", "a/b name=My File.pdf x=y");
        check("a/b; charset=\"x\" name=\"y\"", "a/b charset=x name=y");
        check("a/b;; =x; name ; y = z", "a/b y=z");
        check("(c) a (d) / (e) b", "a/b");
        check("a/b; x=1; X=2", "a/b x=1");
        check("a/b; name=\"open", "a/b name=open");
        for invalid in ["", "text", "text/", "/plain", ";", "text plain"] {
            check(invalid, "-");
        }
    }

    #[test]
    fn rfc_2231() {
        check("a/b; name*0=\"x \"; name*1=y", "a/b name=x y");
        check(
            "a/b; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A",
            "a/b title=This is ***fun***",
        );
        check(
            "a/b; t*1*=%20b%C3; t*0*=utf-8''a; t*2=\"%\"; t*4=lost; t=fallback",
            "a/b t=a b\u{FFFD}%",
        );
        check("a/b; n*=iso-8859-1''%E9; n=e", "a/b n=é");
        check("a/b; n*=%E9", "a/b n=é");
        check("a/b; n*1=x", "a/b");
        check("a/b; n*x=y", "a/b n*x=y");
        check("a/b; name=\"=?utf-8?Q?=C3=A9?=\"", "a/b name=é");
    }

    #[test]
    fn boundaries() {
        let boundary = |value: &str| {
            fields(&format!("Content-Type: multipart/mixed; boundary={value}\r\n")).boundary
        };
        assert_eq!(boundary("\"a b \""), Some(b"a b".to_vec()));
        assert_eq!(boundary("gc0y0pkb9ex (x)"), Some(b"gc0y0pkb9ex".to_vec()));
        assert_eq!(boundary("\"\""), None);
        assert_eq!(boundary(&"x".repeat(BOUNDARY_BYTES_MAX)).map(|b| b.len()), Some(200));
        assert_eq!(boundary(&"x".repeat(BOUNDARY_BYTES_MAX + 1)), None);
    }

    #[test]
    fn other_fields() {
        let found = fields(
            "Content-Transfer-Encoding: BASE64 (really)\r\nContent-ID: <1@x>\r\n\
             Content-Description: =?utf-8?Q?a?=\r\n b\r\nContent-MD5: Q2hlY2s=\r\n\
             Content-Disposition: Attachment; filename=\"a.txt\"; size=3\r\n\
             Content-Language: de, en-US,\r\nContent-Location: http://\r\n x/y\r\n",
        );
        assert_eq!(found.content_type, None);
        assert_eq!(found.transfer_encoding, TransferEncoding::Base64);
        assert_eq!(found.content_id.as_deref(), Some("<1@x>"));
        assert_eq!(found.description.as_deref(), Some("=?utf-8?Q?a?= b"));
        assert_eq!(found.md5.as_deref(), Some("Q2hlY2s="));
        let disposition = found.disposition.expect("has a disposition");
        assert_eq!(disposition.kind, "attachment");
        assert_eq!(disposition.param("filename"), Some("a.txt"));
        assert_eq!(found.language, ["de", "en-US"]);
        assert_eq!(found.location.as_deref(), Some("http://x/y"));
    }

    #[test]
    fn params_are_bounded() {
        let many: String = (0..500).map(|n| format!("; p{n}=1")).collect();
        let found = fields(&format!("Content-Type: a/b{many}\r\n")).content_type;
        assert_eq!(found.expect("readable").params.len(), PARAMS_MAX);
    }

    proptest! {
        #[test]
        fn anything_is_taken(value in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(&b" \t();:\"\\=?*'%/a0b1\xE9\0"[..]),
                any::<u8>(),
            ],
            0..80,
        )) {
            for name in ["Content-Type: a/b;", "Content-Type:", "Content-Disposition: a;"] {
                MimeFields::new(&[name.as_bytes(), &value].concat());
            }
        }
    }
}
