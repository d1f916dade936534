//! The crate's bounds, each with its reason.

use std::time::Duration;

// ---- The mesh ----------------------------------------------------------------------------------

/// Peers that a node connects to; further ones (the newest) are left to the store's slow path. Each
/// costs a task, a connection and its keep-alive.
pub const MESH_PEERS_MAX: usize = 512;

/// Connections that exist at once, whatever state they are in: two a peer (both sides may have
/// connected), the handshakes under way, and as many again that are being buried.
pub const MESH_CONNECTIONS_MAX: usize = 2 * MESH_PEERS_MAX + 2 * MESH_HANDSHAKES_MAX;

/// Incoming handshakes under way. Each costs some 30 KiB and two signatures, to whoever can send a
/// datagram here.
pub const MESH_HANDSHAKES_MAX: usize = 64;

/// Incoming handshakes under way above which an address has to show that it receives what is sent
/// to it (RFC 9000 §8.1.2): a fleet that starts at once stays below, a forged flood does not.
pub const MESH_HANDSHAKES_UNVALIDATED_MAX: usize = 16;

/// Incoming handshakes under way above which only the addresses of peers get another, so that
/// strangers cannot take every place.
pub const MESH_HANDSHAKES_STRANGERS_MAX: usize = 32;

/// Bytes that are kept of one connection attempt before it is looked at: a few packets, since the
/// first flight is one.
pub const MESH_INCOMING_BYTES_MAX: u64 = 16 * 1024;

/// Requests that a peer may have open here on one connection; more wait at the peer.
pub const MESH_STREAMS_MAX: u32 = 32;

/// Bytes that a peer may send on one stream ahead of its reader. At half a millisecond there and
/// back that is 64 MB/s, and a reader that is slow makes its peer wait, not this node grow.
pub const MESH_STREAM_WINDOW_BYTES: u32 = 32 * 1024;

/// Bytes that a peer may send on all streams of a connection ahead of their readers: every stream's
/// window, the peer's and ours, so that one slow reader never stops the others.
pub const MESH_CONNECTION_WINDOW_BYTES: u32 = 2 * MESH_STREAMS_MAX * MESH_STREAM_WINDOW_BYTES;

/// Bytes that are kept for one peer until it has acknowledged them.
pub const MESH_SEND_WINDOW_BYTES: u64 = 1024 * 1024;

/// Bytes of one frame of an answer: a page of sessions or some hundred lines of a log.
pub const MESH_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one request: a question with its arguments, never a body of data.
pub const MESH_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one datagram: QUIC's smallest packet that every path carries (1,200, RFC 9000 §14) less
/// what the packet and the frame around it take (38).
pub const MESH_DATAGRAM_BYTES_MAX: usize = 1_150;

/// Bytes of datagrams that wait in one direction of a connection. A peer that does not take them
/// loses them, which costs it a look at its inbox.
pub const MESH_DATAGRAM_BUFFER_BYTES: usize = 256 * 1024;

/// Datagrams that wait for a connection to one peer: what a handshake's few milliseconds bring.
pub const MESH_BACKLOG_MAX: usize = 64;

/// A connection is over when nothing came for so long. Somewhat above a membership's time-to-live
/// of 5 s, so that a pause which the cluster forgives costs no connection.
pub const MESH_IDLE_TIMEOUT: Duration = Duration::from_secs(6);

/// A silent connection sends something this often: two may be lost within the idle timeout.
pub const MESH_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How long a handshake may take, ours or a stranger's. Several lost packets within a data centre.
pub const MESH_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The first guess of the time there and back. QUIC's 333 ms is for the world; nodes of one cluster
/// share a store that would not work at that, and a lost first packet is sent again after twice it.
pub const MESH_ROUND_TRIP_GUESS: Duration = Duration::from_millis(50);

/// How long a request waits for its connection and the first frame of its answer.
pub const MESH_FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take to send its request, once it has opened a stream for it.
pub const MESH_REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait after the first failure to connect; it doubles up to [`MESH_BACKOFF_MAX`], and each is
/// shortened by chance, by at most half.
pub const MESH_BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait between two tries to connect. A connection that lived shorter counts as a
/// failure, so that nobody is called in a tight loop.
pub const MESH_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The shortest time between two hints that the roster may be out of date. Anyone who can reach the
/// port can cause one, and each may cost a read of the store.
pub const MESH_STRANGER_INTERVAL: Duration = Duration::from_millis(200);

/// How long closing waits for peers to hear of it.
pub const MESH_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
