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

/// How often a world looks at its nodes' tasks.
pub const TASKS_LOOK_PERIOD: std::time::Duration = std::time::Duration::from_secs(1);

/// Tasks that a node starts once and keeps: nine that look after itself and its place among others, five of
/// signing, judging and abuse control, one a listener (seven), one a kind of work (nine), and four of the
/// mesh.
pub const TASKS_OF_A_NODE: u64 = 34;

/// Tasks for each peer in the mesh: one that dials, and two for each of two connections, because both
/// may call at once.
pub const TASKS_PER_PEER: u64 = 5;

/// Tasks for each connection of a client: its session, and bytes that it is putting.
pub const TASKS_PER_CONNECTION: u64 = 2;

/// Tasks besides, of a node that nobody asks for anything: one zone of each kind of work, which comes due
/// by the hour.
pub const TASKS_AT_REST: u64 = 4;

/// Tasks besides, of a node at work: connections of the mesh whose peer has died or that are ending, what
/// dead nodes held, zones, deliveries. Measured: at most 12.
pub const TASKS_AT_WORK: u64 = 40;

/// How long a world may take to come to rest once its faults have ended: longer than every retry,
/// and than the longest wait that a client has.
pub const SETTLE_TIME: std::time::Duration = std::time::Duration::from_secs(180);
