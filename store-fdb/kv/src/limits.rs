//! Every limit of this crate, each with its reason.

use std::time::Duration;

/// Longest key. FoundationDB's limit.
pub const KEY_BYTES_MAX: usize = 10_000;

/// Longest value. FoundationDB's limit.
pub const VALUE_BYTES_MAX: usize = 100_000;

/// Largest transaction, as [`Transaction::approximate_size`](crate::Transaction::approximate_size)
/// counts. FoundationDB's limit.
pub const TRANSACTION_BYTES_MAX: usize = 10_000_000;

/// How long a transaction may live after its first read. FoundationDB's limit.
pub const TRANSACTION_LIFE: Duration = Duration::from_secs(5);

/// Watches that may be open on one database at once. FoundationDB's default.
pub const WATCHES_MAX: usize = 10_000;

/// How fast versions advance. FoundationDB's rate; resolution of the memory and embedded clocks.
pub const VERSIONS_PER_SECOND: u64 = 1_000_000;

/// [`TRANSACTION_LIFE`] in versions: what the resolver remembers and readers may still see.
pub(crate) const TRANSACTION_LIFE_VERSIONS: u64 = 5 * VERSIONS_PER_SECOND;

/// What one mutation costs beside its bytes. FoundationDB counts its own structure's size;
/// this is at least that in every release, so that what fits here fits there.
pub(crate) const MUTATION_OVERHEAD_BYTES: usize = 48;

/// What one conflict range costs beside its two keys; see [`MUTATION_OVERHEAD_BYTES`].
pub(crate) const CONFLICT_RANGE_OVERHEAD_BYTES: usize = 32;

/// The first byte that an ordinary key may not begin with. FoundationDB's system keys.
pub(crate) const SYSTEM_KEYS: &[u8] = b"\xff";

/// Bytes of keys and values in one page of a range where the query names no number: large
/// enough to make few round trips, small enough to hold hundreds at once.
pub const PAGE_BYTES_DEFAULT: usize = 64 * 1024;

/// First back-off of the retry loop: about one commit's time.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(1);

/// Largest back-off of the retry loop. FoundationDB's default.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// How long the retry loop goes on by default: three lives of a transaction, which a recovery
/// of the cluster usually fits into, and less than any client waits.
pub const RETRY_TIME_MAX: Duration = Duration::from_secs(15);

/// How long an operation waits for a store that a fault cut off, before it reports an error.
pub(crate) const UNREACHABLE_WAIT: Duration = Duration::from_secs(5);

/// Transactions in one commit batch: their number must fit the versionstamp's 16 bits.
pub(crate) const BATCH_TRANSACTIONS_MAX: usize = 10_000;

/// Bytes in one commit batch: bounds the time of one sync, and so every waiter's latency.
pub(crate) const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of commits and large values that may wait for the embedded committer: beyond them
/// writers wait before they hand their bytes over.
pub(crate) const QUEUED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest value of [`LargeValues`](crate::LargeValues): it must fit the queue.
pub const LARGE_VALUE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Longest key of [`LargeValues`](crate::LargeValues), the same as an ordinary key's.
pub const LARGE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX;

/// A large value that took this long came from the disk, not from the system's memory: the disk
/// takes longer, memory a hundredth of it.
pub(crate) const LARGE_READ_SLOW: Duration = Duration::from_millis(1);

/// Large values read where reading may block, after one that was slow: at most one in so many
/// keeps a thread that has other tasks waiting for the disk.
pub(crate) const LARGE_READS_COLD: u32 = 64;

/// Keys in one page of [`LargeValues::scan_prefix`](crate::LargeValues::scan_prefix).
pub const LARGE_SCAN_KEYS_MAX: usize = 10_000;

/// Versions that the embedded engine reserves ahead, an hour's worth: one small write an hour,
/// and a restart begins above everything that was ever handed out.
pub(crate) const VERSIONS_RESERVED: u64 = 3600 * VERSIONS_PER_SECOND;

/// Bytes that may be written while a backup runs: about that much is kept in memory for it.
pub const BACKUP_WRITES_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How often a backup that waits for its taker looks whether so much was written: what a disk writes
/// meanwhile is little beside [`BACKUP_WRITES_BYTES_MAX`].
pub(crate) const BACKUP_CHECK_TIME: Duration = Duration::from_millis(100);

/// About the size of a backup's chunks: large enough for a file or a socket, small enough to
/// check and to hold.
pub(crate) const BACKUP_CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that wait for whoever takes a backup.
pub(crate) const BACKUP_CHUNKS_WAITING_MAX: usize = 4;

/// Bytes of one batch of a restore.
pub(crate) const RESTORE_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Versions that a restore skips at least. The original skips up to [`VERSIONS_RESERVED`] with each
/// opening, so this makes room for 312,000 openings between the backup and the restore: one every ten
/// minutes for six years, or one every five seconds, as a service that cannot start is tried again,
/// for eighteen days. 63 bits have room for eight thousand restores of restores.
pub(crate) const RESTORE_LEAP: u64 = 1 << 50;

/// How many times faster than time versions may have advanced beyond [`RESTORE_LEAP`], and how far
/// two restores of one backup are apart: room for an opening every four seconds.
pub(crate) const RESTORE_RESTART_FACTOR: u64 = 1024;

/// The highest version that a restore begins with: the upper half of the 63 bits that clients take
/// (RFC 7162 §3.1) is left to go on in.
pub(crate) const RESTORE_VERSION_MAX: u64 = 1 << 62;

/// How long one transaction on a FoundationDB cluster may take in all: twice a transaction's
/// life, so that only a cluster that does not answer meets it.
#[cfg(feature = "fdb")]
pub(crate) const FDB_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a cluster file: hundreds of coordinators, of which a cluster has nine.
#[cfg(feature = "fdb")]
pub(crate) const CLUSTER_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of what it has read that a transaction on a FoundationDB cluster keeps, beside the
/// client's own copy: many times what a batch of deliveries reads.
#[cfg(feature = "fdb")]
pub(crate) const REMEMBERED_BYTES_MAX: usize = 1024 * 1024;
