//! Where mail is from: what its domains say of a client, a sender and a message, and saying so of
//! our own mail.
//!
//! - [`Judge`]: iprev and SPF (RFC 7208) of a connection and its sender; DKIM (RFC 6376), ARC (RFC 8617) and
//!   DMARC (RFC 9989) of a message; all of it as `Authentication-Results` (RFC 8601).
//! - [`Signer`]: DKIM signatures and ARC seals; [`SigningKey`]: their keys.
//! - [`Srs`]: senders of forwarded mail.
//! - [`reports`]: what domains tell each other of mail in their name.
//!
//! Everything that is asked of the world goes through [`dns::Resolver`] and [`env::Env`], so that it runs in
//! a simulation. A message streams through a [`Digester`], which keeps its header and hashes its body:
//! its size costs no memory. What bounds the rest is in [`limits`].
//!
//! Invariants: no message, record or report makes it panic; private keys and secrets are never shown.
//!
//! Deliberately absent: the store (keys and what was reported are the node's to keep), what to do with a
//! verdict (the node's policy), SHA-1 (RFC 8301), ADSP and Sender ID.

mod arc;
mod canon;
mod digest;
mod dkim;
mod dmarc;
pub mod domain;
mod iprev;
mod judge;
mod key;
pub mod limits;
pub mod reports;
mod results;
mod sign;
mod spf;
mod srs;
mod tags;

pub use arc::{ArcError, ArcResult, ArcSet, ArcVerdict};
pub use digest::{Digest, Digester, Purpose};
pub use dkim::{DkimError, DkimResult, DkimVerdict};
pub use dmarc::{
    Alignment, DmarcRecord, DmarcResult, DmarcVerdict, FailureOptions, Override, Policy, Psd,
};
pub use iprev::{IprevResult, IprevVerdict};
pub use judge::{Connection, Judge, ReportsWanted, Verdicts};
pub use key::Algorithm;
pub use sign::{DkimKey, KeyError, SignError, Signer, SigningKey};
pub use spf::{SpfResult, SpfVerdict};
pub use srs::{Original, Srs, SrsError, Token};
