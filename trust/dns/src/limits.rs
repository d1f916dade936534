//! What bounds a lookup and the memory that answers take.

use std::time::Duration;

/// Queries that one lookup may send, those of validation included: a chain of trust takes about
/// three a label, an alias begins another. More is somebody's maze.
pub const QUERIES_PER_LOOKUP: usize = 100;

/// Lookups that send queries at the same time; more wait. Each holds a socket and a buffer.
pub const LOOKUPS_MAX: usize = 1_000;

/// Of these, queries for what strangers make us ask: names of who sends us mail. The others are there for
/// mail that leaves.
pub const STRANGERS_QUERIES_MAX: usize = 800;

/// Of these, queries for one message. As many as it takes to ask about its authors (`origin`: four
/// domains, eight questions each) or its signatures at once: a question must not wait for
/// one that its sender lets take long.
pub const MESSAGE_QUERIES_MAX: usize = 40;

/// Aliases that a lookup follows. Resolvers in use follow 8 to 16.
pub const ALIASES_MAX: usize = 12;

/// Records of one kind that a caller is given; the rest is left out. No mail domain in use has
/// a tenth of it.
pub const RECORDS_MAX: usize = 512;

/// Bytes of a UDP answer that are asked for: what passes every path in one piece (RFC 9715 §3.1).
pub const UDP_BYTES: u16 = 1_232;

/// Bytes of a UDP answer that are taken, from a server that does not keep to [`UDP_BYTES`].
pub const UDP_BYTES_MAX: usize = 4_096;

/// Datagrams that are not the answer, before a query gives up its socket: somebody is guessing.
pub const STRAY_DATAGRAMS_MAX: usize = 64;

/// An answer that is larger is not cached, so that the cache's size follows from its entries.
pub const CACHED_BYTES_MAX: usize = 8 * 1024;

/// How long an answer is cached at most, whatever it says (RFC 8767 §4 recommends days; a mail
/// server rather sees a changed MX the same day).
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a denial is cached at most (RFC 2308 §5 recommends one to three hours).
pub const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3600);

/// How long a server's failure is remembered (RFC 9520 §3.2: at least a second, at most five minutes).
pub const FAILURE_TTL: Duration = Duration::from_secs(5);

/// Servers that are taken from the settings or from `resolv.conf`.
pub const SERVERS_MAX: usize = 8;

/// Bytes that are read of `resolv.conf` and of a file of trust anchors.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// RRsets whose signature check is remembered.
pub const PROOFS_MAX: usize = 4_096;

/// Rounds over all servers within one lookup.
pub const ROUNDS: usize = 2;

/// How long an update of a zone may take.
pub const UPDATE_TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes of a text that a zone is given: an RSA key of 4,096 bits has 800.
pub const TEXT_BYTES_MAX: usize = 4_096;
