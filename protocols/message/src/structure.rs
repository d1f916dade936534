//! What a scan yields: plain owned data that the store maps to its records one to one.

use std::ops::Range;

use crate::envelope::Envelope;
use crate::header::{Coverage, HeaderIndex};
use crate::thread::Threading;

/// All that is kept of a message besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The message's length in octets.
    pub size: u64,
    /// The message's own header block with its blank line, as it came: the first bytes of the
    /// message, up to the limit. Shorter than `structure.root.header` only over the limit.
    pub header_block: Vec<u8>,
    /// Where the fields of `header_block` are.
    pub header_index: HeaderIndex,
    /// Envelope and part tree.
    pub structure: Structure,
    /// Message ids and base subject.
    pub threading: Threading,
    /// The first text, decoded, blanks collapsed, at most 256 characters (RFC 8621 §4.1.4).
    pub preview: String,
    /// The `Date` field as seconds since 1970-01-01T00:00:00Z; `None` if absent or not a date.
    pub sent_at: Option<i64>,
    /// Whether a client should offer something to download (RFC 8621 §4.1.4 `hasAttachment`).
    pub has_attachment: bool,
    /// What was seen of lines and octets.
    pub text_facts: TextFacts,
}

/// What was seen of a message's lines and octets; SMTP and IMAP choose their transport by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextFacts {
    /// Lines of the whole message; a last line without a line end counts.
    pub lines: u64,
    /// The longest line in octets, without its line end.
    pub max_line_len: u64,
    /// An octet above 127 was seen.
    pub has_8bit: bool,
    /// An octet 0 was seen.
    pub has_nul: bool,
    /// A CR that no LF follows was seen.
    pub has_bare_cr: bool,
    /// An LF that no CR precedes was seen.
    pub has_bare_lf: bool,
}

/// A message: its envelope and its part tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// The envelope, from the header block that is `root.header`.
    pub envelope: Envelope,
    /// The outermost part: header and body of the message itself.
    pub root: Part,
}

/// One part of the tree. All ranges are offsets into the whole (outermost) message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The header block with the blank line that ends it.
    pub header: Range<u64>,
    /// The body, without the line end that belongs to the delimiter after it.
    pub body: Range<u64>,
    /// Lines of the body; a last line without a line end counts.
    pub lines: u64,
    /// Octets of the body after transfer decoding, exactly what [`crate::TransferDecoder`] yields
    /// (JMAP `size`, IMAP `BINARY.SIZE`); the raw octets for an unknown encoding and for
    /// multiparts and messages.
    pub decoded_size: u64,
    /// The effective type: defaults applied, and never `multipart` or `message/rfc822` and
    /// `message/global` unless `content` says so too.
    pub content_type: ContentType,
    /// `Content-Transfer-Encoding`; for multiparts and messages what the field says, though their
    /// body is never encoded.
    pub transfer_encoding: TransferEncoding,
    /// `Content-ID` as in the field, angle brackets included.
    pub content_id: Option<String>,
    /// `Content-Description` as in the field, encoded words not decoded.
    pub description: Option<String>,
    /// `Content-MD5`.
    pub md5: Option<String>,
    /// `Content-Disposition`.
    pub disposition: Option<Disposition>,
    /// The tags of `Content-Language`.
    pub language: Vec<String>,
    /// `Content-Location`, blanks inside removed (RFC 2557 §4.4.1).
    pub location: Option<String>,
    /// Whether the fields above come from all of the header block or from a kept beginning.
    pub header_coverage: Coverage,
    /// What the body consists of.
    pub content: Content,
}

/// What a part's body consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Octets.
    Leaf,
    /// Parts, at least one.
    Multipart(Vec<Part>),
    /// A whole message.
    Message(Box<Structure>),
}

/// `Content-Type` (RFC 2045 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType {
    /// Lower case, like `text`.
    pub kind: String,
    /// Lower case, like `plain`.
    pub subtype: String,
    /// In order, each name once.
    pub params: Vec<Param>,
}

/// `Content-Disposition` (RFC 2183).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// Lower case, like `attachment`.
    pub kind: String,
    /// In order, each name once.
    pub params: Vec<Param>,
}

/// A parameter, RFC 2231 continuations joined, charsets and encoded words decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Lower case, like `charset`.
    pub name: String,
    /// UTF-8.
    pub value: String,
}

/// `Content-Transfer-Encoding` (RFC 2045 §6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TransferEncoding {
    /// `7bit`, the default.
    #[default]
    SevenBit,
    /// `8bit`.
    EightBit,
    /// `binary`.
    Binary,
    /// `quoted-printable`.
    QuotedPrintable,
    /// `base64`.
    Base64,
    /// Another one, lower case; its body cannot be decoded.
    Other(String),
}

impl TransferEncoding {
    /// The encoding's name in lower case.
    pub fn as_str(&self) -> &str {
        match self {
            Self::SevenBit => "7bit",
            Self::EightBit => "8bit",
            Self::Binary => "binary",
            Self::QuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
            Self::Other(name) => name,
        }
    }
}

impl ContentType {
    /// A type without parameters; both names in lower case.
    pub fn new(kind: &str, subtype: &str) -> Self {
        Self { kind: kind.to_owned(), subtype: subtype.to_owned(), params: Vec::new() }
    }

    /// Whether this is `kind/subtype`, both in lower case.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    /// The parameter of that name in lower case.
    pub fn param(&self, name: &str) -> Option<&str> {
        param(&self.params, name)
    }
}

impl Disposition {
    /// The parameter of that name in lower case.
    pub fn param(&self, name: &str) -> Option<&str> {
        param(&self.params, name)
    }
}

impl Part {
    /// Octets of the body as it is in the message.
    pub fn size(&self) -> u64 {
        self.body.end - self.body.start
    }

    /// The file name: the disposition's `filename`, else the type's `name`.
    pub fn file_name(&self) -> Option<&str> {
        self.disposition
            .as_ref()
            .and_then(|disposition| disposition.param("filename"))
            .or_else(|| self.content_type.param("name"))
    }
}

fn param<'a>(params: &'a [Param], name: &str) -> Option<&'a str> {
    params.iter().find(|param| param.name == name).map(|param| param.value.as_str())
}
