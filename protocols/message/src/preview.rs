//! The preview (RFC 8621 §4.1.4): the beginning of the best text of a message.
//!
//! While the scanner passes a text part that may become the preview, the part's first bytes are
//! kept in a [`Capture`]; at the part's end only the 256 characters made from it stay.

use mail_parser::decoders::html::html_to_text;

use crate::limits::{PREVIEW_CHARS_MAX, PREVIEW_HTML_BYTES_MAX, PREVIEW_PLAIN_BYTES_MAX};
use crate::structure::{ContentType, TransferEncoding};
use crate::text::charset_text;
use crate::transfer::TransferDecoder;

/// What a text is worth as a preview; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Plain,
    Html,
    /// In a message inside the message: what a forwarded message without words of its own has.
    NestedPlain,
    NestedHtml,
    /// The body of a multipart in which no part was found.
    Preamble,
}

impl Rank {
    fn bytes_max(self) -> usize {
        match self {
            Self::Plain | Self::NestedPlain | Self::Preamble => PREVIEW_PLAIN_BYTES_MAX,
            Self::Html | Self::NestedHtml => PREVIEW_HTML_BYTES_MAX,
        }
    }
}

/// The kept beginning of a text part.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    pub(crate) rank: Rank,
    bytes: Vec<u8>,
}

impl Capture {
    pub(crate) fn new(rank: Rank) -> Self {
        Self { rank, bytes: Vec::new() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = self.rank.bytes_max() - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The preview made from what was kept; empty if there are no visible characters.
    pub(crate) fn preview(
        &self,
        encoding: &TransferEncoding,
        content_type: &ContentType,
    ) -> String {
        let mut decoded = Vec::new();
        let Some(mut decoder) = TransferDecoder::new(encoding) else { return String::new() };
        decoder.push(&self.bytes, &mut decoded);
        decoder.finish(&mut decoded);
        let mut text = charset_text(content_type.param("charset").unwrap_or_default(), &decoded);
        if self.bytes.len() == self.rank.bytes_max() {
            // The cut may have gone through a character.
            text.truncate(text.trim_end_matches('\u{FFFD}').len());
        }
        match self.rank {
            Rank::Html | Rank::NestedHtml => {
                let preview = collapse(&html_to_text(&text));
                if preview.is_empty() { collapse(&html_to_text(&headless(&text))) } else { preview }
            }
            Rank::Plain | Rank::NestedPlain | Rank::Preamble => collapse(&text),
        }
    }
}

/// The HTML with its `head` tags made unknown ones: a head that is never closed would hide the
/// whole text.
fn headless(html: &str) -> String {
    let lower = html.to_ascii_lowercase();
    let mut out = String::with_capacity(html.len());
    let mut copied = 0;
    for (at, tag) in lower.match_indices("<head") {
        out.push_str(&html[copied..at]);
        out.push_str("<x-head");
        copied = at + tag.len();
    }
    out.push_str(&html[copied..]);
    out
}

/// One blank for blanks and controls, nothing for what only pads (newsletters fill up previews
/// with invisible characters); at most [`PREVIEW_CHARS_MAX`] characters.
fn collapse(text: &str) -> String {
    let mut out = String::new();
    let mut chars = 0;
    let mut blank = false;
    for c in text.chars() {
        if matches!(c, '\u{AD}' | '\u{34F}' | '\u{200B}' | '\u{FEFF}') {
            continue;
        }
        if c.is_whitespace() || c.is_control() {
            blank = chars > 0;
            continue;
        }
        let needed = 1 + usize::from(blank);
        if chars + needed > PREVIEW_CHARS_MAX {
            break;
        }
        if blank {
            out.push(' ');
            blank = false;
        }
        out.push(c);
        chars += needed;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn preview(rank: Rank, encoding: TransferEncoding, charset: &str, body: &[u8]) -> String {
        let mut content_type = ContentType::new("text", "plain");
        content_type
            .params
            .push(crate::Param { name: "charset".to_owned(), value: charset.to_owned() });
        let mut capture = Capture::new(rank);
        for chunk in body.chunks(7) {
            capture.push(chunk);
        }
        capture.preview(&encoding, &content_type)
    }

    #[test]
    fn plain_text() {
        let check = |encoding, charset, body: &[u8], expected| {
            assert_eq!(preview(Rank::Plain, encoding, charset, body), expected);
        };
        check(TransferEncoding::SevenBit, "", b" a\r\n\r\n b\tc\0 ", "a b c");
        check(TransferEncoding::QuotedPrintable, "iso-8859-1", b"caf=E9 =\r\nx", "café x");
        check(TransferEncoding::Base64, "utf-8", b"R3LDvMOf\r\nZQ==", "Grüße");
        check(TransferEncoding::Other("x-uue".into()), "", b"M1234", "");
        check(TransferEncoding::SevenBit, "", "a\u{200B}\u{AD} b".as_bytes(), "a b");
    }

    #[test]
    fn html_is_stripped() {
        let body = b"<html><head><style>p { color: red }</style><title>t</title></head>\
            <body><p>Hello <b>you</b> &amp; me</p><script>var x;</script></body></html>";
        let found = preview(Rank::Html, TransferEncoding::SevenBit, "", body);
        assert!(found.contains("Hello you & me"), "{found:?}");
        assert!(!found.contains("color") && !found.contains("var x"), "{found:?}");
    }

    #[test]
    fn a_head_that_is_not_closed_hides_nothing() {
        let body = b"<HTML><HEAD><style>p {}</style><BODY><p>Hello</p><p>you</p></body>";
        assert_eq!(preview(Rank::Html, TransferEncoding::SevenBit, "", body), "Hello you");
    }

    #[test]
    fn length_is_in_characters() {
        let long = "ü ".repeat(PREVIEW_PLAIN_BYTES_MAX);
        let found = preview(Rank::Plain, TransferEncoding::EightBit, "utf-8", long.as_bytes());
        assert!((PREVIEW_CHARS_MAX - 1..=PREVIEW_CHARS_MAX).contains(&found.chars().count()));
        let wide = "日".repeat(200);
        let cut = format!("{}{wide}", " ".repeat(PREVIEW_PLAIN_BYTES_MAX - 4));
        let found = preview(Rank::Plain, TransferEncoding::EightBit, "utf-8", cut.as_bytes());
        assert_eq!(found, "日");
    }

    proptest! {
        #[test]
        fn anything_is_taken(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            html in "(<|>|&|;|#|/|!|-|script|style|[a-z0-9 ]|\\PC){0,80}",
            charset in proptest::sample::select(&[
                "", "utf-8", "utf-7", "utf-16", "utf-16le", "utf-16be", "iso-2022-jp", "shift_jis",
                "gb18030", "gb2312", "big5", "euc-kr", "euc-jp", "koi8-r", "iso-8859-15",
                "windows-1251", "macintosh", "ibm850", "tis-620",
            ][..]),
        ) {
            for rank in [Rank::Plain, Rank::Html] {
                for body in [body.as_slice(), html.as_bytes()] {
                    let found = preview(rank, TransferEncoding::Binary, charset, body);
                    prop_assert!(found.chars().count() <= PREVIEW_CHARS_MAX);
                }
            }
        }
    }
}
