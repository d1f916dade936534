//! A newtype for every id, so that no two kinds can be confused.

use std::{fmt, num::NonZeroU32};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// An account. Never reused.
    AccountId(u64)
}
id! {
    /// A mailbox within its account. Dense, never reused.
    MailboxId(u32)
}
id! {
    /// An email within its account. Dense, never reused. RFC 8474 `EMAILID`.
    EmailId(u32)
}
id! {
    /// A thread within its account: the id of the thread's first email. RFC 8474 `THREADID`.
    ThreadId(u32)
}
id! {
    /// A mailbox's `UIDVALIDITY`, never zero (RFC 9051 §2.3.1.1).
    UidValidity(u32)
}
id! {
    /// A modification sequence: the commit version of the transaction that made the change.
    ///
    /// Versions stay below 2⁶³ for 290,000 years at FoundationDB's million a second, as RFC 7162
    /// §3.1 demands. Also used as a position in an account's log, because no reader can see one
    /// transaction of a version without the others of it.
    ModSeq(u64)
}

impl Default for ModSeq {
    /// Before every commit.
    fn default() -> Self {
        Self(0)
    }
}

/// A message's unique identifier within its mailbox (RFC 9051 §2.3.1.1), never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(NonZeroU32);

impl Uid {
    /// The smallest UID.
    pub const MIN: Self = Self(NonZeroU32::MIN);

    /// `None` for zero, which is no UID.
    pub const fn new(uid: u32) -> Option<Self> {
        match NonZeroU32::new(uid) {
            Some(uid) => Some(Self(uid)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one attempt at an operation, so that a retry after an unknown commit finds what the
/// first try did instead of doing it twice. Random; drawn once, outside the retry loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId([u8; 16]);

impl OperationId {
    /// Draws a new id.
    pub fn random(env: &env::Env) -> Self {
        Self(env.random_array())
    }

    /// An id that follows from what is done, so that whoever does it again has the same.
    pub const fn of(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes, as they stand in its key.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
