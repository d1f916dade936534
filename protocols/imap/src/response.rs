//! Untagged responses as types (RFC 9051 §7). What can be constructed is valid on the wire.

pub(crate) mod code;
pub(crate) mod fetch;
pub(crate) mod list;
pub(crate) mod search;
pub(crate) mod structure;

pub use code::{CopyUid, NewKeywords, ResponseCode};
pub use fetch::{FetchItem, FetchLiteral, FetchUpdate, LiteralItem};
pub use list::{
    ChildInfo, ListAttribute, ListEntry, MailboxStatus, Namespace, Namespaces, StatusValue,
};
pub use search::SearchOutcome;
pub use structure::{Address, BodyExtension, BodyPart, BodyStructure, Envelope, Media};

use crate::flag::Flag;
use crate::ids::SeqNo;
use crate::text::Text;
use crate::wire::Writer;

/// An untagged response of the driver. CAPABILITY, ENABLED, ID, RECENT, BYE and the results of
/// SEARCH are written by the session.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// `* OK`
    Ok(Option<ResponseCode>, Text),
    /// `* NO`: a warning.
    No(Option<ResponseCode>, Text),
    /// `* BAD`
    Bad(Option<ResponseCode>, Text),
    /// `* LIST`. As an answer to SELECT it is only sent in sessions of IMAP4rev2.
    List(ListEntry),
    /// `* LSUB`
    Lsub(ListEntry),
    /// `* NAMESPACE`
    Namespace(Namespaces),
    /// `* STATUS`
    Status(MailboxStatus),
    /// `* FLAGS`
    Flags(Vec<Flag>),
    /// `* n EXISTS`, with `* 0 RECENT` behind it where IMAP4rev1 asks for that.
    Exists(u32),
    /// `* n EXPUNGE`
    Expunge(SeqNo),
    /// `* n FETCH`
    Fetch(FetchUpdate),
}

/// `code` in brackets, if there is one, and the text.
pub(crate) fn write_text(w: &mut Writer<'_>, code: Option<&ResponseCode>, text: &Text) {
    if let Some(code) = code {
        w.raw("[");
        code.write(w);
        w.raw("] ");
    }
    w.text(text);
}

impl Response {
    /// Writes the response with its line end. FETCH and EXISTS depend on the session and are
    /// written there.
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.raw("* ");
        match self {
            Self::Ok(code, text) => {
                w.raw("OK ");
                write_text(w, code.as_ref(), text);
            }
            Self::No(code, text) => {
                w.raw("NO ");
                write_text(w, code.as_ref(), text);
            }
            Self::Bad(code, text) => {
                w.raw("BAD ");
                write_text(w, code.as_ref(), text);
            }
            Self::List(entry) => {
                w.raw("LIST ");
                entry.write(w);
            }
            Self::Lsub(entry) => {
                w.raw("LSUB ");
                entry.write(w);
            }
            Self::Namespace(spaces) => {
                w.raw("NAMESPACE ");
                spaces.write(w);
            }
            Self::Status(status) => {
                w.raw("STATUS ");
                status.write(w);
            }
            Self::Flags(flags) => {
                w.raw("FLAGS (");
                w.flags(flags);
                w.raw(")");
            }
            Self::Exists(count) => w.raw_fmt(format_args!("{count} EXISTS")),
            Self::Expunge(seq) => w.raw_fmt(format_args!("{seq} EXPUNGE")),
            Self::Fetch(update) => {
                w.raw_fmt(format_args!("{} FETCH (", update.seq));
                for (index, item) in update.items.iter().enumerate() {
                    w.raw(if index == 0 { "" } else { " " });
                    item.write(w);
                }
                w.raw(")");
            }
        }
        w.raw("\r\n");
    }
}
