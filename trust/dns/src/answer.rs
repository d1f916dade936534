//! What a lookup gives: records and how far they may be trusted, or why there are none.

use std::time::Duration;

/// Records, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The records, in the order of the answer; at most [`crate::limits::RECORDS_MAX`].
    pub records: T,
    /// Whether all of it is proven, aliases on the way included.
    pub security: Security,
    /// The name that has the records: the one asked for, or the last of its aliases.
    pub canonical: String,
    /// Whether the name asked for itself is proven, whatever is so of what its alias leads to.
    ///
    /// RFC 7672 §2.2.2: a host that is a secure alias of an insecure name may still have TLSA
    /// records under its own name.
    pub alias_security: Security,
    /// How long this may be kept.
    pub ttl: Duration,
}

impl<T> Answer<T> {
    /// The same answer with other records.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        let Self { records, security, canonical, alias_security, ttl } = self;
        Answer { records: change(records), security, canonical, alias_security, ttl }
    }
}

/// What DNSSEC says (RFC 4033 §5). What it refutes is [`LookupError::Bogus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Security {
    /// Not signed, or nobody looked.
    #[default]
    Insecure,
    /// Proven from a trust anchor.
    Secure,
}

/// A mail exchanger (RFC 5321 §5.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mx {
    /// The lower, the sooner it is tried.
    pub preference: u16,
    /// A host; empty for "no mail here" (null MX, RFC 7505 §3).
    pub exchange: String,
}

/// What a server's certificate is held against (RFC 6698 §2.1), as numbers, because an unknown one
/// is not an error but a record that does not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tlsa {
    /// Certificate usage: 2 is DANE-TA, 3 is DANE-EE.
    pub usage: u8,
    /// Selector: 0 is the certificate, 1 its public key.
    pub selector: u8,
    /// Matching type: 0 is the bytes, 1 their SHA-256, 2 their SHA-512.
    pub matching: u8,
    /// What has to match.
    pub data: Vec<u8>,
}

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such name (NXDOMAIN).
    #[error("no such name")]
    NoName {
        /// Whether that is proven.
        security: Security,
    },
    /// The name has no records of this kind.
    #[error("no records of this kind")]
    NoRecords {
        /// Whether that is proven.
        security: Security,
    },
    /// Nobody answered, or not with an answer. It may work later.
    #[error("temporary failure: {0}")]
    Temporary(Unavailable),
    /// The answer is refuted by DNSSEC: somebody forged it, or the zone is broken.
    #[error("refuted by DNSSEC")]
    Bogus,
    /// What was asked for cannot be a name.
    #[error("not a domain name")]
    BadName,
}

impl LookupError {
    /// Whether there is nothing there, and not just no answer.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::NoName { .. } | Self::NoRecords { .. })
    }
}

/// What made a lookup fail for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No server answered in time.
    #[error("no answer in time")]
    TimedOut,
    /// The servers answered that they failed or do not want to (SERVFAIL, REFUSED, …).
    #[error("the servers failed")]
    ServersFailed,
    /// The servers could not be reached.
    #[error("the servers cannot be reached")]
    Unreachable,
    /// What the servers sent is not an answer.
    #[error("the answer is garbled")]
    Garbled,
    /// Aliases or delegations led on and on ([`crate::limits`]).
    #[error("the answer leads too far")]
    TooFar,
}
