//! Mail messages, understood as their bytes stream by.
//!
//! [`Scanner`] takes a message in pieces of any size and yields, in bounded memory, all that IMAP
//! (`ENVELOPE`, `BODYSTRUCTURE`, `BODY[…]` by byte range) and JMAP (`Email` properties) ask for
//! later: [`Scanned`]. The message's bytes are not needed again but to be sent.
//!
//! Architecture invariants:
//! - No IO and no clock; no error either: any byte sequence is storable mail. What is broken or
//!   over a bound of [`limits`] becomes a coarser structure.
//! - The result does not depend on how the bytes were split.
//! - Ranges are offsets into the whole message; a part lies within its parent, parts of one
//!   multipart follow each other.
//! - Every string in the result is UTF-8 without CR, LF and NUL; header text that is not UTF-8 is
//!   read as windows-1252, whose 256 bytes map one to one, so nothing is lost.
//!
//! Standards: RFC 5322 (and RFC 6532's UTF-8), RFC 2045–2047, 2183, 2231, 2557, 3282 (header
//! fields), RFC 9051 §2.3.5, §6.4.5, §7.5.2 (envelope, sections, body structure), RFC 5256 §2.1
//! (base subject), RFC 8621 §4.1 (preview, attachments).
//!
//! Deliberately absent: S/MIME, uuencode, TNEF, and building messages.

pub mod limits;

mod address;
mod attachment;
mod date;
mod encoded_word;
mod envelope;
mod header;
mod mime;
mod preview;
mod scanner;
mod section;
mod structure;
mod text;
mod thread;
mod transfer;

pub use address::{Address, parse_addresses};
pub use date::parse_date;
pub use encoded_word::decode_encoded_words;
pub use envelope::Envelope;
pub use header::{
    Coverage, Field, Fields, HeaderField, HeaderIndex, Selection, select_fields, unfold,
};
pub use limits::Limits;
pub use scanner::Scanner;
pub use section::{SectionText, lookup, resolve};
pub use structure::{
    Content, ContentType, Disposition, Param, Part, Scanned, Structure, TextFacts, TransferEncoding,
};
pub use text::{charset_text, header_text};
pub use thread::{Threading, base_subject, message_ids};
pub use transfer::{Decoded, TransferDecoder};
