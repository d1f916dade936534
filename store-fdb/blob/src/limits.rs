//! The blob store's bounds, each with its reason.

use std::time::Duration;

/// Bytes of one stored chunk, and so of memory for one read or write of any blob. A power of two
/// times BLAKE3's chunk of 1,024, as its tree demands.
pub const CHUNK_BYTES: usize = 128 * 1024;

/// Bytes of one blob: 16,384 chunks, whose hashes fit one header record.
pub const BLOB_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// How long a blob without references is kept, in milliseconds.
pub const GRACE_MS: i64 = 86_400_000;

/// How long after its put has begun a blob may get its first reference, in milliseconds: longer
/// than any upload takes, and so much shorter than [`GRACE_MS`] that nodes whose wall clocks differ
/// by hours still agree on what is too late.
pub const ADOPT_WITHIN_MS: i64 = GRACE_MS / 2;

/// Blobs that one transaction of the sweeper looks at: about four reads each, far from a
/// transaction's life even where each takes some milliseconds.
pub const SWEEP_PAGE: usize = 64;

/// Removals that one sweeper has under way at once: enough to hide the service's latency, few
/// enough to leave it to those who wait.
pub const SWEEP_REMOVALS: usize = 8;

/// Names that a scan asks for at once: what S3 answers at most.
pub const SWEEP_LIST: usize = 1_000;

/// References that a scan reads in one transaction, about 100 bytes each.
pub const SWEEP_REFERENCES: usize = 1_000;

/// Pages of a scan between two looks at what is due, so that a long scan delays nothing.
pub const SWEEP_SCAN_PAGES: usize = 16;

/// How long the sweeper rests after a failure, at first.
pub const SWEEP_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// How long the sweeper rests after many failures: a service that is back is used soon.
pub const SWEEP_BACKOFF_MAX: Duration = Duration::from_mins(5);

/// Blobs of a store that are looked for in a bucket without a mark before it is taken for the
/// store's: a wrong bucket holds none, and a copy that was cut off lacks a stretch of the ids,
/// which so many, spread over all of them, do not miss.
pub const BINDING_SAMPLE: u8 = 32;

/// Marks of stores that are looked at in one bucket: one, and those that do not belong there.
#[cfg(feature = "s3")]
pub(crate) const MARKS_MAX: usize = 8;

/// Stored blobs of which the share that nobody needs is judged. Of fewer, a crash in the middle of
/// as many deliveries may leave any share; and fewer are soon put again.
pub const ORPHANS_JUDGED_MIN: u64 = 100;

/// The share of stored blobs, in percent, from which on it is not believed that nobody needs them:
/// what is let go in order is due and no orphan, so an orphan is the rare trace of a crash. Where
/// nearly all look like it, the references are another store's, or lost.
pub const ORPHANS_PERCENT_MAX: u64 = 90;

/// Blobs that one step of an audit reads: bounds the time between two signs of progress.
pub const AUDIT_VERIFY: usize = 16;

/// Bytes of an object that one request reads: four chunks, so that most messages are one request
/// and a large one is not hundreds. Also the memory of one reader.
pub const WINDOW_BYTES: u64 = 4 * 128 * 1024;

/// Bytes of one part of an upload, and so of memory for one writer: S3's least. The largest blob
/// has 411 parts, and S3 takes 10,000.
pub const PART_BYTES: usize = 5 * 1024 * 1024;

/// Names that S3 lists at once.
#[cfg(feature = "s3")]
pub(crate) const S3_LIST_MAX: usize = 1_000;

/// Bytes of one listing: about 4 KiB a name, of which S3 needs a tenth.
#[cfg(feature = "s3")]
pub(crate) const S3_LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of an answer that is a few words of XML.
#[cfg(feature = "s3")]
pub(crate) const S3_REPLY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an error code that is told further; S3's longest has half of that.
#[cfg(feature = "s3")]
pub(crate) const S3_CODE_BYTES_MAX: usize = 64;

/// Bytes of a file of credentials.
#[cfg(feature = "s3")]
pub(crate) const S3_CREDENTIALS_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a file of certificate authorities: several times what a whole system trusts.
#[cfg(feature = "s3")]
pub(crate) const S3_CA_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes that were put and are on their way into the cache: some hundred messages, in memory only
/// while the disk is behind.
#[cfg(feature = "s3")]
pub(crate) const S3_CACHE_BEHIND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Pieces that are written into the cache at one go: handing one over to where it may block costs
/// as much as writing it.
#[cfg(feature = "s3")]
pub(crate) const S3_CACHE_BEHIND_PIECES: usize = 32;

/// Bytes that are hashed for a signature where others wait: less than a millisecond's work.
#[cfg(feature = "s3")]
pub(crate) const S3_INLINE_HASH_BYTES: usize = 64 * 1024;
