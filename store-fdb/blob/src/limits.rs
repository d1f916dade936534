//! The blob store's bounds, each with its reason.

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
