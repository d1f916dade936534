//! The store contract: FoundationDB's semantics, and three engines that keep exactly them.
//!
//! A [`Database`] hands out [`Transaction`]s: ordered byte keys, strictly serializable with
//! optimistic conflict detection, read-your-writes, atomic operations, versionstamps, watches,
//! and FoundationDB's limits ([`limits`]). Code above never learns which engine it runs on:
//!
//! - **memory** ([`Database::memory`]): ordered maps, with faults to inject. For unit tests and
//!   the simulation.
//! - **embedded** ([`embedded::Embedded`]): one process, one directory, `fjall` below.
//! - **fdb** (module `fdb`, feature `fdb`): a FoundationDB cluster.
//!
//! Memory and embedded share one resolver, one commit sequencer and one read-your-writes
//! overlay (folder `local/`), so that they differ in storage alone. One conformance suite
//! (`tests/conformance/`) runs on all three.
//!
//! Architecture invariants:
//! - There is one retry loop, [`Database::run`]. Its closure can run again and can have
//!   committed unseen, so it does no IO but the store's, reads no clock, sends nothing.
//! - A read version is never cached from one transaction to the next.
//! - No lock is held across an await.
//!
//! Deliberately absent: key selectors, tenants, `set_read_version`.

mod atomic;
mod check;
mod counts;
mod database;
pub mod embedded;
mod error;
mod faults;
#[cfg(feature = "fdb")]
pub mod fdb;
mod large_values;
pub mod limits;
mod local;
mod range;
mod subspace;
mod transaction;
pub mod tuple;
mod versionstamp;
mod watch;

pub use atomic::AtomicOp;
pub use counts::Counts;
pub use database::{AtEnd, Database, Locality, Priority, RetryPolicy};
pub use error::{AsKvError, Class, Error, OpenError};
pub use faults::{FaultHandle, Faults, Probability, Reach};
pub use large_values::LargeValues;
pub use range::{Direction, Isolation, KeyValue, Prefetch, RangeQuery};
pub use subspace::Subspace;
pub use transaction::{Committed, RangePages, Transaction};
pub use versionstamp::Versionstamp;
pub use watch::Watch;

/// What most operations of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
