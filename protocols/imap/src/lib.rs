//! The server side of IMAP4rev2 (RFC 9051) and IMAP4rev1 (RFC 3501) as a session without IO.
//!
//! [`Session`] takes the client's octets and the driver's replies and gives octets to send and
//! [`Call`]s to execute. It owns all wire syntax, the state machine, and the texts; it knows no
//! socket, no clock and no store.
//!
//! Architecture invariants: at most one call is outstanding, and while it is, nothing more is
//! parsed. Every buffer has a bound in [`limits`]. A value that can be constructed is valid on the
//! wire.
//!
//! Deliberately absent so far: QRESYNC, SORT, THREAD, METADATA, ACL, QUOTA, NOTIFY, MULTIAPPEND,
//! CATENATE, COMPRESS, CONTEXT.

mod call;
mod capability;
pub mod command;
mod config;
mod date;
mod flag;
mod ids;
pub mod limits;
mod mailbox;
pub mod mutf7;
pub mod response;
mod sequence;
mod session;
mod text;
mod wire;

pub use call::{Call, CloseMode, Completion, Outcome, Reply};
pub use capability::{Capability, CapabilityList};
pub use config::{ChannelBinding, Config, PlaintextPolicy, TlsInfo, TlsState};
pub use date::{Date, DateTime};
pub use flag::{Flag, Keyword, SYSTEM_FLAGS};
pub use ids::{ModSeq, Numbering, SeqNo, Uid, UidValidity};
pub use mailbox::{Delimiter, MailboxName, SpecialUse};
pub use response::{Response, ResponseCode};
pub use sequence::{IdSet, MessageSet, SequenceSet};
pub use session::{Access, EventRefused, Output, Phase, Session};
pub use text::{Secret, Text, WireString};
pub use wire::Dialect;
