//! Numbers of RFC 9051 §2.3.1 as types that cannot hold what the wire cannot carry.

use std::fmt;
use std::num::NonZeroU32;

macro_rules! nonzero_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// `None` for zero, which RFC 9051 does not allow here.
            pub const fn new(value: u32) -> Option<Self> {
                match NonZeroU32::new(value) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The number.
            pub const fn get(self) -> u32 {
                self.0.get()
            }
        }

        impl From<NonZeroU32> for $name {
            fn from(value: NonZeroU32) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

nonzero_id!(
    /// Unique identifier of a message in its mailbox (RFC 9051 §2.3.1.1).
    Uid
);
nonzero_id!(
    /// Message sequence number (RFC 9051 §2.3.1.2).
    SeqNo
);
nonzero_id!(
    /// Unique identifier validity of a mailbox (RFC 9051 §2.3.1.1).
    UidValidity
);

/// Modification sequence (RFC 7162 §3.1): 63 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModSeq(u64);

impl ModSeq {
    /// `None` above 63 bits.
    pub const fn new(value: u64) -> Option<Self> {
        if value <= i64::MAX as u64 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ModSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether numbers in a command or its result are sequence numbers or UIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// Message sequence numbers.
    Sequence,
    /// Unique identifiers: the command came with the `UID` prefix.
    Uid,
}
