//! FETCH (RFC 9051 §6.4.5, RFC 3501 §6.4.5, RFC 7162 §3.1.4).

use std::fmt;
use std::num::NonZeroU32;

use super::Command;
use super::parser::{Parsed, Parser, SyntaxError};
use super::search::mod_sequence_value;
use crate::ids::{ModSeq, Numbering};
use crate::limits::{FETCH_ITEMS_MAX, HEADER_FIELDS_MAX, PART_DEPTH_MAX};
use crate::response::{LiteralItem, ResponseCode};
use crate::sequence::MessageSet;
use crate::wire::Writer;

/// FETCH or UID FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Kind of the numbers in `set`.
    pub by: Numbering,
    /// Which messages.
    pub set: MessageSet,
    /// What to return, macros expanded, each once. UID FETCH has `Uid` first, and with CHANGEDSINCE
    /// `ModSeq` is there.
    pub items: Vec<FetchAttr>,
    /// Only messages with a higher mod-sequence.
    pub changed_since: Option<ModSeq>,
}

/// What FETCH can return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchAttr {
    /// `UID`
    Uid,
    /// `FLAGS`
    Flags,
    /// `INTERNALDATE`
    InternalDate,
    /// `RFC822.SIZE`
    Rfc822Size,
    /// `MODSEQ`
    ModSeq,
    /// `ENVELOPE`
    Envelope,
    /// `BODY`
    Body,
    /// `BODYSTRUCTURE`
    BodyStructure,
    /// `BODY[section]<partial>` or `BODY.PEEK[…]`
    Section {
        /// Which octets.
        section: Section,
        /// Which of these.
        partial: Option<Partial>,
        /// Whether `\Seen` is set by it.
        peek: Peek,
    },
    /// `BINARY[part]<partial>` or `BINARY.PEEK[…]`: a part without its transfer encoding.
    Binary {
        /// Which part; empty for the whole message.
        part: PartPath,
        /// Which octets once decoded.
        partial: Option<Partial>,
        /// Whether `\Seen` is set by it.
        peek: Peek,
    },
    /// `BINARY.SIZE[part]`
    BinarySize(PartPath),
    /// `RFC822`, `RFC822.HEADER`, `RFC822.TEXT`
    Rfc822(Rfc822Part),
}

/// Whether fetching marks as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// It does not: `.PEEK`.
    Yes,
    /// It sets `\Seen`.
    No,
}

/// The items of RFC 3501 §6.4.5 that are other names for sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rfc822Part {
    /// `RFC822`, as `BODY[]`
    Full,
    /// `RFC822.HEADER`, as `BODY.PEEK[HEADER]`
    Header,
    /// `RFC822.TEXT`, as `BODY[TEXT]`
    Text,
}

impl Rfc822Part {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "RFC822",
            Self::Header => "RFC822.HEADER",
            Self::Text => "RFC822.TEXT",
        }
    }

    /// The section that it names.
    pub fn section(self) -> Section {
        let kind = match self {
            Self::Full => SectionKind::Whole,
            Self::Header => SectionKind::Header,
            Self::Text => SectionKind::Text,
        };
        Section { part: PartPath::default(), kind }
    }
}

/// `<offset.length>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// First octet, from 0.
    pub offset: u64,
    /// Octets at most; not 0.
    pub length: u64,
}

impl Partial {
    /// The range of a string of `total` octets that it selects, cut to what is there.
    pub fn range(self, total: u64) -> std::ops::Range<u64> {
        let start = self.offset.min(total);
        start..self.offset.saturating_add(self.length).min(total).max(start)
    }
}

/// Part number, `1.2.3`; empty for the message itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartPath(Vec<NonZeroU32>);

impl PartPath {
    /// `None` when deeper than [`PART_DEPTH_MAX`].
    pub fn new(numbers: Vec<NonZeroU32>) -> Option<Self> {
        (numbers.len() <= PART_DEPTH_MAX).then_some(Self(numbers))
    }

    /// From the outermost inwards, each counted from 1.
    pub fn numbers(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.0.iter().map(|number| number.get())
    }

    /// Whether this is the message itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PartPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(f, "{dot}{number}")?;
        }
        Ok(())
    }
}

/// What stands in `BODY[…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    part: PartPath,
    kind: SectionKind,
}

/// Which octets of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// The content of the part; of the message itself, header and all.
    Whole,
    /// `HEADER`: of the message, or of the `message/rfc822` that the part is.
    Header,
    /// `HEADER.FIELDS`: only these fields, and the empty line.
    HeaderFields(HeaderFields),
    /// `HEADER.FIELDS.NOT`: all but these fields, and the empty line.
    HeaderFieldsNot(HeaderFields),
    /// `TEXT`: the body of the message, or of the `message/rfc822` that the part is.
    Text,
    /// `MIME`: the header of the part; not of the message itself.
    Mime,
}

impl Section {
    /// `None` for `MIME` without a part number.
    pub fn new(part: PartPath, kind: SectionKind) -> Option<Self> {
        (kind != SectionKind::Mime || !part.is_empty()).then_some(Self { part, kind })
    }

    /// The part.
    pub fn part(&self) -> &PartPath {
        &self.part
    }

    /// Which octets of it.
    pub fn kind(&self) -> &SectionKind {
        &self.kind
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.raw_fmt(format_args!("{}", self.part));
        if !self.part.is_empty() && self.kind != SectionKind::Whole {
            w.raw(".");
        }
        match &self.kind {
            SectionKind::Whole => {}
            SectionKind::Header => w.raw("HEADER"),
            SectionKind::HeaderFields(fields) => fields.write(w, "HEADER.FIELDS ("),
            SectionKind::HeaderFieldsNot(fields) => fields.write(w, "HEADER.FIELDS.NOT ("),
            SectionKind::Text => w.raw("TEXT"),
            SectionKind::Mime => w.raw("MIME"),
        }
    }
}

/// Names of header fields, at least one, as the client wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFields(Vec<String>);

impl HeaderFields {
    /// `None` when there are none, too many, or one is not printable ASCII without colon.
    pub fn new(names: Vec<String>) -> Option<Self> {
        let is_name = |name: &String| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
        };
        let valid = (1..=HEADER_FIELDS_MAX).contains(&names.len()) && names.iter().all(is_name);
        valid.then_some(Self(names))
    }

    /// The names; they are compared without regard to case.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    fn write(&self, w: &mut Writer<'_>, start: &str) {
        w.raw(start);
        for (index, name) in self.0.iter().enumerate() {
            w.raw(if index == 0 { "" } else { " " });
            w.astring(name);
        }
        w.raw(")");
    }
}

impl FetchAttr {
    /// Whether it marks the message as seen (in a mailbox that is selected read-write).
    pub fn sets_seen(&self) -> bool {
        match self {
            Self::Section { peek, .. } | Self::Binary { peek, .. } => *peek == Peek::No,
            Self::Rfc822(part) => *part != Rfc822Part::Header,
            _ => false,
        }
    }

    /// The name under which its octets are returned; `None` where it does not return octets.
    pub fn literal_item(&self) -> Option<LiteralItem> {
        let origin = |partial: &Option<Partial>| partial.map(|partial| partial.offset);
        match self {
            Self::Section { section, partial, .. } => {
                Some(LiteralItem::Section { section: section.clone(), origin: origin(partial) })
            }
            Self::Binary { part, partial, .. } => {
                Some(LiteralItem::Binary { part: part.clone(), origin: origin(partial) })
            }
            Self::Rfc822(part) => Some(LiteralItem::Rfc822(*part)),
            _ => None,
        }
    }
}

pub(super) fn fetch(p: &mut Parser<'_>, by: Numbering) -> Parsed<Command> {
    p.space()?;
    let set = p.message_set()?;
    p.space()?;
    let mut items = Vec::new();
    if by == Numbering::Uid {
        items.push(FetchAttr::Uid);
    }
    if p.peek() == Some(b'(') {
        p.list(|p| {
            let item = attribute(p)?;
            push_item(&mut items, item)
        })?;
    } else if let Some(expanded) = fetch_macro(p) {
        for item in expanded {
            push_item(&mut items, item.clone())?;
        }
    } else {
        let item = attribute(p)?;
        push_item(&mut items, item)?;
    }
    let mut changed_since = None;
    if p.take(" ") {
        p.list(|p| {
            p.expect("CHANGEDSINCE ", "CHANGEDSINCE, the only modifier of FETCH")?;
            changed_since = Some(mod_sequence_value(p)?);
            Ok(())
        })?;
        // RFC 7162 §3.1.4.1: CHANGEDSINCE asks for MODSEQ too.
        push_item(&mut items, FetchAttr::ModSeq)?;
    }
    Ok(Command::Fetch(Fetch { by, set, items, changed_since }))
}

fn push_item(items: &mut Vec<FetchAttr>, item: FetchAttr) -> Parsed<()> {
    if items.contains(&item) {
        return Ok(());
    }
    if items.len() == FETCH_ITEMS_MAX {
        return Err(SyntaxError::no(ResponseCode::Limit, "too many items in FETCH"));
    }
    items.push(item);
    Ok(())
}

const FULL: [FetchAttr; 5] = [
    FetchAttr::Flags,
    FetchAttr::InternalDate,
    FetchAttr::Rfc822Size,
    FetchAttr::Envelope,
    FetchAttr::Body,
];

fn fetch_macro(p: &mut Parser<'_>) -> Option<&'static [FetchAttr]> {
    const ITEMS: &[FetchAttr] = &FULL;
    match () {
        () if p.take("ALL") => Some(&ITEMS[..4]),
        () if p.take("FAST") => Some(&ITEMS[..3]),
        () if p.take("FULL") => Some(ITEMS),
        () => None,
    }
}

fn attribute(p: &mut Parser<'_>) -> Parsed<FetchAttr> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    let name = p.word("an item of FETCH", is_name)?.to_ascii_uppercase();
    let section_follows = p.peek() == Some(b'[');
    Ok(match (name.as_str(), section_follows) {
        ("UID", false) => FetchAttr::Uid,
        ("FLAGS", false) => FetchAttr::Flags,
        ("INTERNALDATE", false) => FetchAttr::InternalDate,
        ("RFC822.SIZE", false) => FetchAttr::Rfc822Size,
        ("MODSEQ", false) => FetchAttr::ModSeq,
        ("ENVELOPE", false) => FetchAttr::Envelope,
        ("BODY", false) => FetchAttr::Body,
        ("BODYSTRUCTURE", false) => FetchAttr::BodyStructure,
        ("RFC822", false) => FetchAttr::Rfc822(Rfc822Part::Full),
        ("RFC822.HEADER", false) => FetchAttr::Rfc822(Rfc822Part::Header),
        ("RFC822.TEXT", false) => FetchAttr::Rfc822(Rfc822Part::Text),
        ("BODY", true) => section_item(p, Peek::No)?,
        ("BODY.PEEK", true) => section_item(p, Peek::Yes)?,
        ("BINARY", true) => {
            FetchAttr::Binary { part: bracketed_part(p)?, partial: partial(p)?, peek: Peek::No }
        }
        ("BINARY.PEEK", true) => {
            FetchAttr::Binary { part: bracketed_part(p)?, partial: partial(p)?, peek: Peek::Yes }
        }
        ("BINARY.SIZE", true) => FetchAttr::BinarySize(bracketed_part(p)?),
        _ => return Err(SyntaxError::bad("unknown item of FETCH")),
    })
}

fn bracketed_part(p: &mut Parser<'_>) -> Parsed<PartPath> {
    p.expect("[", "[")?;
    let part = part_path(p)?;
    p.expect("]", "] behind a part number")?;
    Ok(part)
}

/// A part number and, if `.` and a word follow, the `.` too.
fn part_path(p: &mut Parser<'_>) -> Parsed<PartPath> {
    let mut numbers = Vec::new();
    while p.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        let number = p.number("a part number")?;
        let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
        numbers.push(number.ok_or_else(|| SyntaxError::bad("a part number is out of range"))?);
        if numbers.len() > PART_DEPTH_MAX {
            return Err(SyntaxError::no(ResponseCode::Limit, "a part number is too deep"));
        }
        if !p.take(".") {
            return Ok(PartPath(numbers));
        }
    }
    match numbers.is_empty() || p.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
        true => Ok(PartPath(numbers)),
        false => Err(SyntaxError::bad("a part number ends in a dot")),
    }
}

fn section_item(p: &mut Parser<'_>, peek: Peek) -> Parsed<FetchAttr> {
    p.expect("[", "[")?;
    let part = part_path(p)?;
    let kind = match () {
        // The longest name first.
        () if p.take("HEADER.FIELDS.NOT") => SectionKind::HeaderFieldsNot(header_fields(p)?),
        () if p.take("HEADER.FIELDS") => SectionKind::HeaderFields(header_fields(p)?),
        () if p.take("HEADER") => SectionKind::Header,
        () if p.take("TEXT") => SectionKind::Text,
        () if p.take("MIME") => SectionKind::Mime,
        () => SectionKind::Whole,
    };
    p.expect("]", "the end of a section, ]")?;
    let section = Section::new(part, kind)
        .ok_or_else(|| SyntaxError::bad("MIME needs a part number before it"))?;
    Ok(FetchAttr::Section { section, partial: partial(p)?, peek })
}

fn header_fields(p: &mut Parser<'_>) -> Parsed<HeaderFields> {
    p.space()?;
    let mut names = Vec::new();
    p.list(|p| {
        names.push(p.astring("a header field name")?);
        Ok(())
    })?;
    HeaderFields::new(names)
        .ok_or_else(|| SyntaxError::bad("these are no header field names, or too many"))
}

fn partial(p: &mut Parser<'_>) -> Parsed<Option<Partial>> {
    if !p.take("<") {
        return Ok(None);
    }
    let offset = p.number("the offset of a partial fetch")?;
    p.expect(".", "a dot and the length of a partial fetch")?;
    let length = p.number("the length of a partial fetch")?;
    p.expect(">", "the end of a partial fetch, >")?;
    match length {
        0 => Err(SyntaxError::bad("a partial fetch of no octets")),
        length => Ok(Some(Partial { offset, length })),
    }
}

pub(super) fn write_fetch(w: &mut Writer<'_>, fetch: &Fetch) {
    w.raw_fmt(format_args!("FETCH {} (", fetch.set));
    for (index, item) in fetch.items.iter().enumerate() {
        w.raw(if index == 0 { "" } else { " " });
        write_attribute(w, item);
    }
    w.raw(")");
    if let Some(modseq) = fetch.changed_since {
        w.raw_fmt(format_args!(" (CHANGEDSINCE {modseq})"));
    }
}

fn write_attribute(w: &mut Writer<'_>, item: &FetchAttr) {
    let dot_peek = |peek: &Peek| if *peek == Peek::Yes { ".PEEK" } else { "" };
    let write_partial = |w: &mut Writer<'_>, partial: &Option<Partial>| {
        if let Some(Partial { offset, length }) = partial {
            w.raw_fmt(format_args!("<{offset}.{length}>"));
        }
    };
    match item {
        FetchAttr::Uid => w.raw("UID"),
        FetchAttr::Flags => w.raw("FLAGS"),
        FetchAttr::InternalDate => w.raw("INTERNALDATE"),
        FetchAttr::Rfc822Size => w.raw("RFC822.SIZE"),
        FetchAttr::ModSeq => w.raw("MODSEQ"),
        FetchAttr::Envelope => w.raw("ENVELOPE"),
        FetchAttr::Body => w.raw("BODY"),
        FetchAttr::BodyStructure => w.raw("BODYSTRUCTURE"),
        FetchAttr::Section { section, partial, peek } => {
            w.raw_fmt(format_args!("BODY{}[", dot_peek(peek)));
            section.write(w);
            w.raw("]");
            write_partial(w, partial);
        }
        FetchAttr::Binary { part, partial, peek } => {
            w.raw_fmt(format_args!("BINARY{}[{part}]", dot_peek(peek)));
            write_partial(w, partial);
        }
        FetchAttr::BinarySize(part) => w.raw_fmt(format_args!("BINARY.SIZE[{part}]")),
        FetchAttr::Rfc822(part) => w.raw(part.as_str()),
    }
}
