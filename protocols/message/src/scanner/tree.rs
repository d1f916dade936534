//! The part tree while it grows: a stack of open parts, the innermost last.
//!
//! Invariants: the stack is never empty before [`Tree::finish`]; all but the innermost open part
//! are multiparts or messages; there is an open part inside an open message.

use crate::envelope::Envelope;
use crate::header::Coverage;
use crate::limits::{ADDRESSES_MAX, Limits};
use crate::mime::MimeFields;
use crate::preview::{Capture, Rank};
use crate::structure::{Content, ContentType, Part, Structure, TransferEncoding};
use crate::transfer::{Count, TransferDecoder};

/// A position in the message: octets and lines before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) offset: u64,
    pub(super) lines: u64,
}

/// A delimiter line that was recognised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delimiter {
    /// The multipart's place on the stack.
    level: usize,
    kind: DelimiterKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DelimiterKind {
    Next,
    Close,
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    limits: Limits,
    stack: Vec<Open>,
    /// Multiparts on the stack whose delimiters are looked for.
    delimited: usize,
    parts: usize,
    inner_header_bytes_left: usize,
    addresses_left: usize,
    /// The best preview so far.
    preview: Option<(Rank, String)>,
    header_block: Vec<u8>,
    finished: Option<Structure>,
}

/// What a finished tree consists of.
pub(super) struct Finished {
    pub(super) structure: Structure,
    pub(super) header_block: Vec<u8>,
    pub(super) preview: String,
}

/// A part whose end has not been seen.
#[derive(Clone, Debug)]
struct Open {
    role: Role,
    header_start: u64,
    state: State,
}

/// What an open part is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The root of the message itself or of one inside it.
    MessageRoot,
    /// A part of a multipart.
    Child(DefaultType),
}

/// The type of a part without a usable `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DefaultType {
    /// RFC 2045 §5.2.
    TextPlain,
    /// RFC 2046 §5.1.5: in a digest.
    Message,
}

#[derive(Clone, Debug)]
enum State {
    Header { kept: Vec<u8>, bytes_max: usize, coverage: Coverage },
    Body(Box<Body>),
}

#[derive(Clone, Debug)]
struct Body {
    start: Mark,
    coverage: Coverage,
    content_type: ContentType,
    fields: MimeFields,
    /// Of a message's root only.
    envelope: Option<Envelope>,
    kind: BodyKind,
}

#[derive(Clone, Debug)]
enum BodyKind {
    Leaf(Leaf),
    Multipart { boundary: Vec<u8>, phase: Phase, children: Vec<Part>, preamble: Option<Capture> },
    Message(Option<Box<Structure>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preamble,
    Parts,
    /// After the close delimiter, or over the limit of parts.
    Done,
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    /// Counts the decoded octets, where they are not the raw ones.
    decoder: Option<TransferDecoder>,
    decoded: Count,
    capture: Option<Capture>,
}

impl Leaf {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(decoder) = &mut self.decoder {
            decoder.push_into(bytes, &mut self.decoded);
        }
        if let Some(capture) = &mut self.capture {
            capture.push(bytes);
        }
    }
}

impl Tree {
    pub(super) fn new(limits: Limits) -> Self {
        let mut tree = Self {
            stack: Vec::new(),
            delimited: 0,
            parts: 0,
            inner_header_bytes_left: limits.inner_headers_bytes_max,
            addresses_left: ADDRESSES_MAX,
            preview: None,
            header_block: Vec::new(),
            finished: None,
            limits,
        };
        tree.open(Role::MessageRoot, 0);
        tree
    }

    /// Whether a header block is being read.
    pub(super) fn in_header(&self) -> bool {
        matches!(self.top().state, State::Header { .. })
    }

    /// Whether any line can be a delimiter.
    pub(super) fn expects_delimiters(&self) -> bool {
        self.delimited > 0
    }

    /// Octets of the header block or body that is being read.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let top = self.stack.last_mut().expect("the stack is never empty");
        match &mut top.state {
            State::Header { kept, bytes_max, coverage } => {
                let room = *bytes_max - kept.len();
                if bytes.len() > room {
                    *coverage = Coverage::Truncated;
                }
                if *coverage == Coverage::Whole {
                    kept.extend_from_slice(bytes);
                } else {
                    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
            }
            State::Body(body) => match &mut body.kind {
                BodyKind::Leaf(leaf) => leaf.push(bytes),
                BodyKind::Multipart { phase: Phase::Preamble, preamble: Some(capture), .. } => {
                    capture.push(bytes);
                }
                BodyKind::Multipart { .. } | BodyKind::Message(_) => {}
            },
        }
    }

    /// The delimiter that a line is, if it is one: the innermost multipart's that matches.
    ///
    /// The whole line must match but for blanks at its end. RFC 2046 §5.1.1 would let anything
    /// follow the boundary, but mailers make inner boundaries by adding to the outer one.
    pub(super) fn delimiter(&self, line: &[u8]) -> Option<Delimiter> {
        let line = line.strip_prefix(b"--")?.trim_ascii_end();
        self.stack.iter().enumerate().rev().find_map(|(level, open)| {
            let boundary = open.boundary()?;
            let kind = if line == boundary {
                DelimiterKind::Next
            } else if line.strip_suffix(b"--") == Some(boundary) {
                DelimiterKind::Close
            } else {
                return None;
            };
            Some(Delimiter { level, kind })
        })
    }

    /// Ends the parts inside the delimiter's multipart at `end`.
    pub(super) fn delimit(&mut self, delimiter: Delimiter, end: Mark) {
        while self.stack.len() > delimiter.level + 1 {
            self.close_top(end);
        }
        let full = self.parts >= self.limits.parts_max;
        let next = match delimiter.kind {
            DelimiterKind::Next if !full => Phase::Parts,
            DelimiterKind::Next | DelimiterKind::Close => Phase::Done,
        };
        if let Some(phase) = self.top_phase() {
            *phase = next;
        }
        if next == Phase::Done {
            self.delimited -= 1;
        }
    }

    /// Opens the part that starts after the delimiter line, if one does.
    pub(super) fn after_delimiter(&mut self, start: Mark) {
        if self.top_phase().is_some_and(|phase| *phase == Phase::Parts) {
            let digest = self.top().is_digest();
            let default = if digest { DefaultType::Message } else { DefaultType::TextPlain };
            self.open(Role::Child(default), start.offset);
        }
    }

    /// The header block that is being read ends at `end`, where the body starts.
    pub(super) fn end_header(&mut self, end: Mark) {
        let level = self.stack.len();
        let top = self.stack.last_mut().expect("the stack is never empty");
        let State::Header { kept, coverage, .. } = &mut top.state else { return };
        let (kept, coverage) = (std::mem::take(kept), *coverage);
        let role = top.role;
        let start = Mark { offset: end.offset.max(top.header_start), lines: end.lines };

        let block = match coverage {
            Coverage::Whole => kept.as_slice(),
            // The last line kept is cut.
            Coverage::Truncated => &kept[..memchr::memrchr(b'\n', &kept).map_or(0, |lf| lf + 1)],
        };
        let mut fields = MimeFields::new(block);
        let envelope =
            (role == Role::MessageRoot).then(|| Envelope::new(block, &mut self.addresses_left));
        let (content_type, mut kind) = self.body_kind(role, &mut fields);
        match &mut kind {
            BodyKind::Leaf(leaf) => self.prepare_leaf(leaf, &content_type, &fields),
            BodyKind::Multipart { .. } => self.delimited += 1,
            BodyKind::Message(_) => {}
        }
        let opens_message = matches!(kind, BodyKind::Message(_));
        let body = Body { start, coverage, content_type, fields, envelope, kind };
        self.stack[level - 1].state = State::Body(Box::new(body));
        if level == 1 {
            self.header_block = kept;
        } else {
            self.inner_header_bytes_left = self.inner_header_bytes_left.saturating_sub(kept.len());
        }
        if opens_message {
            self.open(Role::MessageRoot, start.offset);
        }
    }

    /// Ends the message.
    pub(super) fn finish(mut self, end: Mark) -> Finished {
        while !self.stack.is_empty() {
            self.close_top(end);
        }
        Finished {
            structure: self.finished.expect("the last part closed is the root"),
            header_block: self.header_block,
            preview: self.preview.map(|(_, text)| text).unwrap_or_default(),
        }
    }

    fn top(&self) -> &Open {
        self.stack.last().expect("the stack is never empty")
    }

    fn top_phase(&mut self) -> Option<&mut Phase> {
        match &mut self.stack.last_mut()?.state {
            State::Body(body) => match &mut body.kind {
                BodyKind::Multipart { phase, .. } => Some(phase),
                BodyKind::Leaf(_) | BodyKind::Message(_) => None,
            },
            State::Header { .. } => None,
        }
    }

    fn open(&mut self, role: Role, header_start: u64) {
        let bytes_max = match role {
            Role::MessageRoot if self.stack.is_empty() => self.limits.top_header_bytes_max,
            Role::MessageRoot => {
                self.limits.nested_header_bytes_max.min(self.inner_header_bytes_left)
            }
            Role::Child(_) => self.limits.part_header_bytes_max.min(self.inner_header_bytes_left),
        };
        self.parts += 1;
        self.stack.push(Open {
            role,
            header_start,
            state: State::Header { kept: Vec::new(), bytes_max, coverage: Coverage::Whole },
        });
    }

    /// The effective type and what the body is read as. A multipart without a boundary is
    /// text/plain, like any type that is not valid (RFC 2045 §5.2); a composite that is too deep,
    /// or encoded against RFC 2045 §6.4, is opaque.
    fn body_kind(&self, role: Role, fields: &mut MimeFields) -> (ContentType, BodyKind) {
        let declared = fields.content_type.take().unwrap_or_else(|| match role {
            Role::Child(DefaultType::Message) => ContentType::new("message", "rfc822"),
            Role::Child(DefaultType::TextPlain) | Role::MessageRoot => {
                ContentType::new("text", "plain")
            }
        });
        let leaf = BodyKind::Leaf(Leaf::default());
        let opaque = || ContentType::new("application", "octet-stream");
        let room = self.stack.len() < self.limits.depth_max && self.parts < self.limits.parts_max;
        if declared.kind == "multipart" {
            let Some(boundary) = fields.boundary.take() else {
                return (ContentType::new("text", "plain"), leaf);
            };
            if !room {
                return (opaque(), leaf);
            }
            // RFC 2045 §6.4: a multipart is never encoded, whatever its header says.
            if is_encoded(&fields.transfer_encoding) {
                fields.transfer_encoding = TransferEncoding::SevenBit;
            }
            let preamble = (self.stack.len() == 1).then(|| Capture::new(Rank::Preamble));
            let (phase, children) = (Phase::Preamble, Vec::new());
            return (declared, BodyKind::Multipart { boundary, phase, children, preamble });
        }
        if declared.is("message", "rfc822") || declared.is("message", "global") {
            if !room || is_encoded(&fields.transfer_encoding) {
                return (opaque(), leaf);
            }
            return (declared, BodyKind::Message(None));
        }
        (declared, leaf)
    }

    fn prepare_leaf(&self, leaf: &mut Leaf, content_type: &ContentType, fields: &MimeFields) {
        if is_encoded(&fields.transfer_encoding) {
            leaf.decoder = TransferDecoder::new(&fields.transfer_encoding);
        }
        let attached = fields.disposition.as_ref().is_some_and(|found| found.kind == "attachment");
        let nested = self.stack.iter().skip(1).any(|open| open.role == Role::MessageRoot);
        let rank = match (content_type.is("text", "html"), nested) {
            _ if attached && self.stack.len() > 1 => return,
            (true, false) => Rank::Html,
            (true, true) => Rank::NestedHtml,
            _ if !content_type.is("text", "plain") => return,
            (false, false) => Rank::Plain,
            (false, true) => Rank::NestedPlain,
        };
        leaf.capture = self.wants(rank).then(|| Capture::new(rank));
    }

    fn wants(&self, rank: Rank) -> bool {
        self.preview.as_ref().is_none_or(|(best, _)| rank < *best)
    }

    fn take_preview(
        &mut self,
        capture: &Capture,
        encoding: &TransferEncoding,
        content_type: &ContentType,
    ) {
        if self.wants(capture.rank) {
            let text = capture.preview(encoding, content_type);
            if !text.is_empty() {
                self.preview = Some((capture.rank, text));
            }
        }
    }

    /// Ends the innermost part at `end`; in its header, ends that, which may open a message
    /// inside: callers repeat until the stack is as short as they want it.
    fn close_top(&mut self, end: Mark) {
        if self.in_header() {
            return self.end_header(end);
        }
        let Some(Open { role, header_start, state: State::Body(body) }) = self.stack.pop() else {
            return;
        };
        let Body { start, coverage, mut content_type, fields, envelope, kind } = *body;
        let range = start.offset..end.offset.max(start.offset);
        let mut decoded_size = range.end - range.start;
        let content = match kind {
            BodyKind::Leaf(mut leaf) => {
                if let Some(decoder) = leaf.decoder.take() {
                    decoder.finish_into(&mut leaf.decoded);
                    decoded_size = leaf.decoded.0;
                }
                if let Some(capture) = leaf.capture {
                    self.take_preview(&capture, &fields.transfer_encoding, &content_type);
                }
                Content::Leaf
            }
            BodyKind::Multipart { phase, children, preamble, .. } => {
                if phase != Phase::Done {
                    self.delimited -= 1;
                }
                if children.is_empty() {
                    content_type = ContentType::new("text", "plain");
                    if let Some(capture) = preamble {
                        self.take_preview(&capture, &fields.transfer_encoding, &content_type);
                    }
                    Content::Leaf
                } else {
                    Content::Multipart(children)
                }
            }
            BodyKind::Message(nested) => {
                Content::Message(nested.expect("there is an open part inside an open message"))
            }
        };
        let lines = if range.is_empty() { 0 } else { end.lines.saturating_sub(start.lines) };
        let part = Part {
            header: header_start..start.offset,
            body: range,
            lines,
            decoded_size,
            content_type,
            transfer_encoding: fields.transfer_encoding,
            content_id: fields.content_id,
            description: fields.description,
            md5: fields.md5,
            disposition: fields.disposition,
            language: fields.language,
            location: fields.location,
            header_coverage: coverage,
            content,
        };
        self.attach(role, envelope.unwrap_or_default(), part);
    }

    fn attach(&mut self, role: Role, envelope: Envelope, part: Part) {
        let Some(parent) = self.stack.last_mut() else {
            self.finished = Some(Structure { envelope, root: part });
            return;
        };
        let State::Body(body) = &mut parent.state else { return };
        match (&mut body.kind, role) {
            (BodyKind::Multipart { children, .. }, Role::Child(_)) => children.push(part),
            (BodyKind::Message(nested), Role::MessageRoot) => {
                *nested = Some(Box::new(Structure { envelope, root: part }));
            }
            _ => debug_assert!(false, "a part's role fits its parent"),
        }
    }
}

impl Open {
    /// The boundary of a multipart that is not done.
    fn boundary(&self) -> Option<&[u8]> {
        match &self.state {
            State::Body(body) => match &body.kind {
                BodyKind::Multipart { boundary, phase: Phase::Preamble | Phase::Parts, .. } => {
                    Some(boundary)
                }
                _ => None,
            },
            State::Header { .. } => None,
        }
    }

    fn is_digest(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.content_type.is("multipart", "digest"))
    }
}

fn is_encoded(encoding: &TransferEncoding) -> bool {
    match encoding {
        TransferEncoding::SevenBit | TransferEncoding::EightBit | TransferEncoding::Binary => false,
        TransferEncoding::QuotedPrintable
        | TransferEncoding::Base64
        | TransferEncoding::Other(_) => true,
    }
}
