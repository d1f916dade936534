//! The streaming scanner: bytes to lines, lines to delimiters, header ends and body octets.
//!
//! A line end is LF or CRLF. At most [`DELIMITER_LINE_BYTES_MAX`] octets of a line are held back,
//! while it may be a delimiter, and the line end before it, which belongs to a delimiter
//! (RFC 2046 §5.1.1); everything else passes through at once. So what a body gets is exactly its
//! octets, and the result does not depend on the split. The tree is in [`tree`].

mod tree;

use memchr::memchr;

use crate::attachment::has_attachment;
use crate::date::parse_date;
use crate::header::{HeaderIndex, first};
use crate::limits::{DELIMITER_LINE_BYTES_MAX, Limits};
use crate::structure::{Scanned, TextFacts};
use crate::thread::Threading;

use tree::{Mark, Tree};

/// Understands a message as its bytes stream by; see the crate's documentation.
///
/// ```
/// let mut scanner = message::Scanner::new(message::Limits::default());
/// scanner.push(b"Subject: Hello\r\n\r");
/// scanner.push(b"\nWorld\r\n");
/// let scanned = scanner.finish();
/// assert_eq!(scanned.structure.envelope.subject.as_deref(), Some("Hello"));
/// assert_eq!(scanned.structure.root.body, 18..25);
/// assert_eq!(scanned.preview, "World");
/// ```
#[derive(Clone, Debug)]
pub struct Scanner {
    tree: Tree,
    /// Octets read, those of `cr` not counted.
    offset: u64,
    /// LFs read.
    lines: u64,
    facts: TextFacts,
    line: Line,
    /// The line end before the current line, not yet passed on.
    last_end: LastEnd,
    /// A CR at the end of the input so far: half a line end, or an octet.
    cr: Cr,
}

/// The line that is being read.
#[derive(Clone, Debug)]
struct Line {
    start: u64,
    /// Octets so far, without the line end.
    len: u64,
    /// The octets held back while `kind` is `Undecided`.
    held: Vec<u8>,
    kind: LineKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineKind {
    /// May be a delimiter.
    Undecided,
    /// Is none; its octets pass through.
    Content,
}

/// The line end before the current line.
#[derive(Clone, Copy, Debug)]
struct LastEnd {
    octets: &'static [u8],
    /// Whether it is passed on if the current line is no delimiter.
    owner: EndOwner,
    /// Length of the line that it ended.
    line_len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndOwner {
    /// It belongs to the header block or body that is being read.
    Content,
    /// It ended a delimiter line or a header block.
    Structure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cr {
    None,
    Held,
}

const LF: &[u8] = b"\n";
const CRLF: &[u8] = b"\r\n";

impl Scanner {
    /// A scanner at the start of a message.
    pub fn new(limits: Limits) -> Self {
        Self {
            tree: Tree::new(limits),
            offset: 0,
            lines: 0,
            facts: TextFacts::default(),
            line: Line {
                start: 0,
                len: 0,
                held: Vec::with_capacity(DELIMITER_LINE_BYTES_MAX),
                kind: LineKind::Undecided,
            },
            last_end: LastEnd { octets: b"", owner: EndOwner::Structure, line_len: 0 },
            cr: Cr::None,
        }
    }

    /// Reads the next bytes of the message; any split gives the same result.
    pub fn push(&mut self, bytes: &[u8]) {
        self.facts.has_8bit = self.facts.has_8bit || !bytes.is_ascii();
        self.facts.has_nul = self.facts.has_nul || memchr(0, bytes).is_some();
        let mut rest = bytes;
        while let Some(lf) = memchr(b'\n', rest) {
            let before = &rest[..lf];
            rest = &rest[lf + 1..];
            if let Some(content) = before.strip_suffix(b"\r") {
                self.release_cr();
                self.content(content);
                self.end_line(CRLF);
            } else if before.is_empty() && self.cr == Cr::Held {
                self.cr = Cr::None;
                self.end_line(CRLF);
            } else {
                self.release_cr();
                self.content(before);
                self.facts.has_bare_lf = true;
                self.end_line(LF);
            }
        }
        if rest.is_empty() {
            return;
        }
        self.release_cr();
        if let Some(content) = rest.strip_suffix(b"\r") {
            self.content(content);
            self.cr = Cr::Held;
        } else {
            self.content(rest);
        }
    }

    /// Ends the message.
    pub fn finish(mut self) -> Scanned {
        self.release_cr();
        if self.line.len > 0 {
            self.finish_line();
        } else {
            self.pass_last_end();
        }
        let end = Mark { offset: self.offset, lines: self.lines + u64::from(self.line.len > 0) };
        self.facts.lines = end.lines;
        self.facts.max_line_len = self.facts.max_line_len.max(self.line.len);
        let tree = self.tree.finish(end);
        let block = tree.header_block.as_slice();
        Scanned {
            size: end.offset,
            header_index: HeaderIndex::new(block, tree.structure.root.header_coverage),
            threading: Threading::new(block),
            sent_at: first(block, "Date").and_then(parse_date),
            has_attachment: has_attachment(&tree.structure.root),
            preview: tree.preview,
            structure: tree.structure,
            header_block: tree.header_block,
            text_facts: self.facts,
        }
    }

    /// A CR that no LF follows is an octet like any other.
    fn release_cr(&mut self) {
        if self.cr == Cr::Held {
            self.cr = Cr::None;
            self.content(b"\r");
        }
    }

    /// Octets of the current line.
    fn content(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.facts.has_bare_cr = self.facts.has_bare_cr || memchr(b'\r', bytes).is_some();
        self.offset += bytes.len() as u64;
        self.line.len += bytes.len() as u64;
        if self.line.kind == LineKind::Content {
            self.tree.pass(bytes);
            return;
        }
        let held = &mut self.line.held;
        let fits = held.len() + bytes.len() <= DELIMITER_LINE_BYTES_MAX;
        let mut start = held.iter().chain(bytes);
        let hyphens = (start.next(), start.next());
        let possible = matches!(hyphens, (Some(b'-'), None | Some(b'-')));
        if fits && possible && self.tree.expects_delimiters() {
            held.extend_from_slice(bytes);
        } else {
            self.decide_content();
            self.tree.pass(bytes);
        }
    }

    /// The current line is no delimiter: passes on what was held back.
    fn decide_content(&mut self) {
        self.line.kind = LineKind::Content;
        self.pass_last_end();
        if !self.line.held.is_empty() {
            self.tree.pass(&self.line.held);
            self.line.held.clear();
        }
    }

    fn pass_last_end(&mut self) {
        if self.last_end.owner == EndOwner::Content {
            self.tree.pass(self.last_end.octets);
        }
        self.last_end.owner = EndOwner::Structure;
    }

    fn end_line(&mut self, end: &'static [u8]) {
        let was_structure = self.finish_line();
        self.facts.max_line_len = self.facts.max_line_len.max(self.line.len);
        self.offset += end.len() as u64;
        self.lines += 1;
        let mut owner = EndOwner::Content;
        let here = Mark { offset: self.offset, lines: self.lines };
        if was_structure == WasDelimiter::Yes {
            self.tree.after_delimiter(here);
            owner = EndOwner::Structure;
        } else if self.line.len == 0 && self.tree.in_header() {
            self.tree.pass(end);
            self.tree.end_header(here);
            owner = EndOwner::Structure;
        }
        self.last_end = LastEnd { octets: end, owner, line_len: self.line.len };
        self.line.start = self.offset;
        self.line.len = 0;
        self.line.kind = LineKind::Undecided;
    }

    /// Decides on a line of which all octets are known.
    fn finish_line(&mut self) -> WasDelimiter {
        if self.line.kind == LineKind::Content {
            return WasDelimiter::No;
        }
        if let Some(delimiter) = self.tree.delimiter(&self.line.held) {
            self.line.held.clear();
            // RFC 2046 §5.1.1: the line end before a delimiter belongs to it.
            let end = Mark {
                offset: self.line.start - self.last_end.octets.len() as u64,
                lines: self.lines.saturating_sub(1) + u64::from(self.last_end.line_len > 0),
            };
            self.tree.delimit(delimiter, end);
            return WasDelimiter::Yes;
        }
        self.decide_content();
        WasDelimiter::No
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WasDelimiter {
    Yes,
    No,
}
