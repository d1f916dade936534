//! The bounds of the simulated network, each with its reason.

/// Bytes on their way in one direction of a stream before its writer waits: about what Linux
/// gives a fresh TCP connection, so that writers that never wait on a laptop wait here.
pub const STREAM_BYTES_MAX: usize = 64 * 1024;

/// Segments on their way in one direction of a stream: a writer of single bytes is bounded too.
pub const STREAM_SEGMENTS_MAX: usize = 1024;

/// Connections that wait to be accepted; Tokio's own listeners ask for as many.
pub const BACKLOG_MAX: usize = 1024;

/// Datagrams that wait to be received; more are lost, as in a full socket buffer.
pub const DATAGRAMS_MAX: usize = 1024;

/// Bytes of one datagram: what UDP over IPv4 carries.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Polls that may follow each other without time moving on: a world of hundreds of tasks needs some
/// thousands, so this many are a loop that never ends.
pub const POLLS_WITHOUT_TIME_MAX: u64 = 20_000_000;

/// How long a connection is tried where nothing comes back: Linux gives up after 127 seconds.
pub const CONNECT_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(127);

/// The first pause of a connection's tries, which doubles (RFC 6298 §2.1).
pub const CONNECT_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// What was sent into a cut arrives at most this long after the cut is over: the sender tries again
/// ever more seldom.
pub const RETRANSMISSION_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// How long a world may take to come to rest once its faults have ended: longer than every retry,
/// and than the longest wait that a client has.
pub const SETTLE_TIME: std::time::Duration = std::time::Duration::from_secs(180);
