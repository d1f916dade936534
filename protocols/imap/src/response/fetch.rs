//! FETCH responses (RFC 9051 §7.5.2): the small items, and the announcements of streamed ones.

use bytes::Bytes;

use crate::command::{PartPath, Rfc822Part, Section};
use crate::date::DateTime;
use crate::flag::Flag;
use crate::ids::{ModSeq, SeqNo, Uid};
use crate::response::structure::{BodyStructure, Envelope, Extensions};
use crate::wire::Writer;

/// A whole FETCH response, for updates of flags above all.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchUpdate {
    /// Of the message.
    pub seq: SeqNo,
    /// In the order in which they are written; at least one.
    pub items: Vec<FetchItem>,
}

/// A data item of a FETCH response. `ModSeq` is left out as long as the client has not enabled
/// CONDSTORE, so drivers may always give it.
#[derive(Clone, Debug, PartialEq)]
pub enum FetchItem {
    /// `UID`
    Uid(Uid),
    /// `FLAGS`
    Flags(Vec<Flag>),
    /// `INTERNALDATE`
    InternalDate(DateTime),
    /// `RFC822.SIZE`, octets.
    Rfc822Size(u64),
    /// `MODSEQ`
    ModSeq(ModSeq),
    /// `ENVELOPE`
    Envelope(Box<Envelope>),
    /// `BODY`: the structure without extension data.
    Body(Box<BodyStructure>),
    /// `BODYSTRUCTURE`
    BodyStructure(Box<BodyStructure>),
    /// `BINARY.SIZE[part]`, octets once decoded.
    BinarySize(PartPath, u64),
    /// A section or part that is small enough to have at hand.
    Octets(LiteralItem, Bytes),
    /// A section or part that the message does not have.
    Nil(LiteralItem),
}

/// Which octets of a message: the name under which FETCH returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiteralItem {
    /// `BODY[section]<origin>`
    Section {
        /// As asked for.
        section: Section,
        /// First octet, where a part was asked for.
        origin: Option<u64>,
    },
    /// `BINARY[part]<origin>`, written as literal8.
    Binary {
        /// As asked for.
        part: PartPath,
        /// First octet, where a part was asked for.
        origin: Option<u64>,
    },
    /// `RFC822`, `RFC822.HEADER`, `RFC822.TEXT` (RFC 3501 §6.4.5).
    Rfc822(Rfc822Part),
}

/// Announces octets that follow as [`crate::Reply::FetchData`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchLiteral {
    /// What they are.
    pub item: LiteralItem,
    /// How many follow, exactly.
    pub length: u64,
}

impl LiteralItem {
    fn write_name(&self, w: &mut Writer<'_>) {
        let origin = match self {
            Self::Section { section, origin } => {
                w.raw("BODY[");
                section.write(w);
                w.raw("]");
                origin
            }
            Self::Binary { part, origin } => {
                w.raw_fmt(format_args!("BINARY[{part}]"));
                origin
            }
            Self::Rfc822(part) => {
                w.raw(part.as_str());
                &None
            }
        };
        if let Some(origin) = origin {
            w.raw_fmt(format_args!("<{origin}>"));
        }
    }

    /// The name and the header of a literal of this length.
    pub(crate) fn write_announcement(&self, w: &mut Writer<'_>, length: u64) {
        self.write_name(w);
        let eight = if matches!(self, Self::Binary { .. }) { "~" } else { "" };
        w.raw_fmt(format_args!(" {eight}{{{length}}}\r\n"));
    }
}

impl FetchItem {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Uid(uid) => w.raw_fmt(format_args!("UID {uid}")),
            Self::Flags(flags) => {
                w.raw("FLAGS (");
                w.flags(flags);
                w.raw(")");
            }
            Self::InternalDate(date) => w.raw_fmt(format_args!("INTERNALDATE \"{date}\"")),
            Self::Rfc822Size(size) => w.raw_fmt(format_args!("RFC822.SIZE {size}")),
            Self::ModSeq(modseq) => w.raw_fmt(format_args!("MODSEQ ({modseq})")),
            Self::Envelope(envelope) => {
                w.raw("ENVELOPE ");
                envelope.write(w);
            }
            Self::Body(structure) => {
                w.raw("BODY ");
                structure.write(w, Extensions::LeftOut);
            }
            Self::BodyStructure(structure) => {
                w.raw("BODYSTRUCTURE ");
                structure.write(w, Extensions::Included);
            }
            Self::BinarySize(part, size) => w.raw_fmt(format_args!("BINARY.SIZE[{part}] {size}")),
            Self::Octets(item, octets) => {
                item.write_announcement(w, octets.len() as u64);
                w.bytes(octets);
            }
            Self::Nil(item) => {
                item.write_name(w);
                w.raw(" NIL");
            }
        }
    }
}
