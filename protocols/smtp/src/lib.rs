//! SMTP (RFC 5321), submission (RFC 6409) and LMTP (RFC 2033), without IO: the server's side here,
//! the client's in [`client`].
//!
//! A [`Session`] takes octets, replies and the time in, and gives [`Output`]s. The driver moves
//! the octets, executes each [`Call`] and answers it with one [`Reply`]; it never sees a reply
//! code. Time is the duration since the session began.
//!
//! Standards: SIZE (RFC 1870), PIPELINING (RFC 2920), CHUNKING and BINARYMIME (RFC 3030),
//! STARTTLS (RFC 3207), DSN (RFC 3461), ENHANCEDSTATUSCODES (RFC 2034, RFC 3463), trace keywords
//! (RFC 3848), AUTH (RFC 4954), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), and where
//! configured REQUIRETLS (RFC 8689), MT-PRIORITY (RFC 6710), DELIVERBY (RFC 2852) and
//! FUTURERELEASE (RFC 4865).
//!
//! Architecture invariant: no IO, no clock, no randomness, no knowledge of the store; memory is
//! bounded by [`limits::BUFFERED_OCTETS_MAX`] whatever a peer sends; the outputs of a session do
//! not depend on how the network cuts its input, but for where replies are flushed.
//!
//! Architecture invariant: message content ends at CRLF.CRLF and nowhere else, and a message
//! with a bare CR or LF is refused, so that no other server can see other messages in it.
//!
//! Deliberately absent: ETRN, EXPN, BURL.

mod address;
mod call;
pub mod client;
mod command;
mod config;
#[cfg(test)]
mod dialogue;
mod dots;
mod dsn;
mod handling;
pub mod limits;
mod response;
mod secret;
mod session;
mod timer;
mod trace;

pub use address::{Address, AddressError, Domain, ForwardPath, HeloName, ReversePath};
pub use call::{
    AuthFailure, Body, Call, Charset, MailFrom, Output, Permanence, QueueId, RcptTo, Refusal,
    Reply, Submitter,
};
pub use config::{
    ChannelBinding, Config, DeliverByOffer, EarlyTalkers, Extensions, FutureRelease, Mechanism,
    Offer, Role, TlsInfo, TlsState,
};
pub use dsn::{EnvelopeId, Notify, NotifyOn, OriginalRecipient, Ret};
pub use handling::{DateTime, DeliverBy, Hold, HoldSeconds, Late, Priority, RequireTls, Trace};
pub use limits::Limits;
pub use secret::Secret;
pub use session::{Offences, Session};
pub use trace::{
    Authentication, Dialect, Encryption, Protocol, TraceInfo, received_header, return_path,
};
