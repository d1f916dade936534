//! Header blocks: cutting them into fields, an index of them, and selecting from them.
//!
//! Works on kept header bytes; a line that is no field (an mbox separator, rubbish) is passed
//! over.

use std::ops::Range;

use crate::limits::HEADER_FIELDS_MAX;
use crate::text::header_text;

/// Whether something was made from all of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// From all of it.
    Whole,
    /// From its beginning only, because of a limit: absence proves nothing.
    Truncated,
}

/// One field of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Where the field starts in the block.
    pub offset: usize,
    /// The whole field, from its name to its last line end.
    pub raw: &'a [u8],
    /// The name as written.
    pub name: &'a [u8],
    /// What follows the colon, folded, with its last line end.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name, in whatever case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a header block, in order; ends at the blank line.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Iterates over the fields of `block`.
    pub fn new(block: &'a [u8]) -> Self {
        Self { block, at: 0 }
    }

    /// The end of the line that starts at `at`, its LF included.
    fn line_end(&self, at: usize) -> usize {
        memchr::memchr(b'\n', &self.block[at..]).map_or(self.block.len(), |lf| at + lf + 1)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let start = self.at;
            if matches!(&self.block[start..], [] | [b'\n', ..] | [b'\r', b'\n', ..]) {
                return None;
            }
            let mut end = self.line_end(start);
            while matches!(self.block.get(end), Some(b' ' | b'\t')) {
                end = self.line_end(end);
            }
            self.at = end;
            let raw = &self.block[start..end];
            if let Some((name, value)) = split_field(raw) {
                return Some(Field { offset: start, raw, name, value });
            }
        }
    }
}

/// Name and value, or `None` where no field name starts the line. RFC 5322 §4.5 allows blanks
/// before the colon.
fn split_field(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', raw)?;
    let name = raw[..colon].trim_ascii_end();
    let valid = !name.is_empty() && name.iter().all(|byte| matches!(byte, 33..=126));
    valid.then_some((name, &raw[colon + 1..]))
}

/// A field's value as text: unfolded (RFC 5322 §2.2.3), trimmed, encoded words kept; see
/// [`header_text`] for 8-bit bytes.
pub fn unfold(value: &[u8]) -> String {
    header_text(value.trim_ascii())
}

/// The value of the first field of that name.
pub(crate) fn first<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    Fields::new(block).find(|field| field.is(name)).map(|field| field.value)
}

/// Where the fields of a header block are, so that they can be cut from the stored bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderIndex {
    /// In the block's order.
    pub fields: Vec<HeaderField>,
    /// `Truncated` when fields are missing at the end: kept bytes or the field limit ran out.
    pub coverage: Coverage,
}

/// One field in a [`HeaderIndex`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// The name as written.
    pub name: String,
    /// Offset of the field's first octet from the start of the block (and the message).
    pub offset: u64,
    /// Octets of the field with its line ends.
    pub len: u64,
}

impl HeaderIndex {
    /// Indexes a header block of which all or the beginning was kept.
    pub fn new(block: &[u8], coverage: Coverage) -> Self {
        let mut index = Self { fields: Vec::new(), coverage };
        for field in Fields::new(block) {
            let cut_off =
                coverage == Coverage::Truncated && field.offset + field.raw.len() == block.len();
            if cut_off || index.fields.len() == HEADER_FIELDS_MAX {
                index.coverage = Coverage::Truncated;
                break;
            }
            index.fields.push(HeaderField {
                name: header_text(field.name),
                offset: field.offset as u64,
                len: field.raw.len() as u64,
            });
        }
        index
    }

    /// The ranges of the selected fields, in the block's order, neighbours joined.
    pub fn select(&self, selection: Selection, names: &[&str]) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for field in &self.fields {
            if !selection.takes(field.name.as_bytes(), names) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end == field.offset => last.end += field.len,
                _ => ranges.push(field.offset..field.offset + field.len),
            }
        }
        ranges
    }
}

/// Which fields a list of names means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those listed (IMAP `HEADER.FIELDS`).
    Only,
    /// All others (IMAP `HEADER.FIELDS.NOT`).
    Except,
}

impl Selection {
    fn takes(self, name: &[u8], names: &[&str]) -> bool {
        let listed = names.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(name));
        listed == (self == Self::Only)
    }
}

/// The selected fields of a header block as they are, and a blank line
/// (RFC 9051 §6.4.5.1: the subset ends with the delimiting blank line).
pub fn select_fields(block: &[u8], selection: Selection, names: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in Fields::new(block).filter(|field| selection.takes(field.name, names)) {
        out.extend_from_slice(field.raw);
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] =
        b"From joe@a Mon\nSubject: a\r\n b\r\n\tc\r\nX-Y : 1\nrubbish\r\nTO:x\r\n\r\nBody: no\r\n";

    fn names(block: &[u8]) -> Vec<(String, String)> {
        Fields::new(block).map(|field| (unfold(field.name), unfold(field.value))).collect()
    }

    #[test]
    fn fields() {
        let expected =
            [("Subject", "a b\tc"), ("X-Y", "1"), ("TO", "x")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(names(BLOCK), expected);
        assert_eq!(names(b""), []);
        assert_eq!(names(b"\nA: b\n"), []);
        assert_eq!(names(b"A: b"), [("A".into(), "b".into())]);
        assert_eq!(names(b" A: b\nC:d\n"), [("C".into(), "d".into())]);
        assert_eq!(names(b": b\na b: c\n"), []);
    }

    #[test]
    fn index_and_block_select_the_same() {
        let index = HeaderIndex::new(BLOCK, Coverage::Whole);
        assert_eq!(index.coverage, Coverage::Whole);
        for (selection, list) in [
            (Selection::Only, &["subject", "to"][..]),
            (Selection::Only, &["none"]),
            (Selection::Except, &["x-y"]),
            (Selection::Except, &[]),
        ] {
            let mut cut = Vec::new();
            for range in index.select(selection, list) {
                cut.extend_from_slice(&BLOCK[range.start as usize..range.end as usize]);
            }
            cut.extend_from_slice(b"\r\n");
            assert_eq!(cut, select_fields(BLOCK, selection, list));
        }
        assert_eq!(
            select_fields(BLOCK, Selection::Only, &["SUBJECT"]),
            b"Subject: a\r\n b\r\n\tc\r\n\r\n"
        );
        assert_eq!(select_fields(b"A: b", Selection::Only, &["a"]), b"A: b\r\n\r\n");
    }

    #[test]
    fn a_truncated_block_does_not_list_its_last_field() {
        let index = HeaderIndex::new(b"A: b\r\nC: d\r\n", Coverage::Truncated);
        assert_eq!(index.fields.len(), 1);
        assert_eq!(index.coverage, Coverage::Truncated);
    }

    #[test]
    fn the_index_is_bounded() {
        let block = b"a:\n".repeat(HEADER_FIELDS_MAX + 1);
        let index = HeaderIndex::new(&block, Coverage::Whole);
        assert_eq!(index.fields.len(), HEADER_FIELDS_MAX);
        assert_eq!(index.coverage, Coverage::Truncated);
        let block = b"a:\n".repeat(HEADER_FIELDS_MAX);
        assert_eq!(HeaderIndex::new(&block, Coverage::Whole).coverage, Coverage::Whole);
    }
}
