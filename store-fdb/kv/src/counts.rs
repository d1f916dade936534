//! What a database handle has done, for metrics and for tests that bound costs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A snapshot of a handle's counters. Subtract an earlier snapshot to see what an
        /// operation cost. What it reads it counts at once; what it writes, as it commits.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }

            /// Adds a committed transaction's share.
            pub(crate) fn add(&self, counts: &Counts) {
                $(if counts.$name != 0 { self.$name.fetch_add(counts.$name, Relaxed); })*
            }
        }

        impl std::ops::Sub for Counts {
            type Output = Self;
            fn sub(self, earlier: Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }
    };
}

counts! {
    /// Transactions that committed writes.
    transactions_committed,
    /// Transactions that committed without having written.
    transactions_read_only,
    /// Commits refused for a conflict.
    conflicts,
    /// Runs of a [`run`](crate::Database::run) closure beyond the first.
    retries,
    /// Commits whose result is unknown.
    commit_unknown,
    /// Single keys read from the store (a transaction's own writes are not).
    keys_read,
    /// Pages of ranges read from the store.
    range_reads,
    /// Rows that those pages returned.
    rows_read,
    /// Keys set, or changed by an atomic operation.
    keys_written,
    /// Keys cleared one by one.
    keys_cleared,
    /// Ranges cleared.
    ranges_cleared,
    /// Bytes of keys and values written.
    bytes_written,
    /// Bytes of keys and values read.
    bytes_read,
}
