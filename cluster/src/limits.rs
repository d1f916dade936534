//! The cluster's bounds, each with its reason.

use std::time::Duration;

/// How long a node's heartbeat may stand still before others declare it dead, unless the
/// configuration says otherwise.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(5);

/// The shortest time-to-live: below it an ordinary pause of a store would kill every node.
pub const TIME_TO_LIVE_MIN: Duration = Duration::from_millis(500);

/// The longest time-to-live: work of a dead node waits as long.
pub const TIME_TO_LIVE_MAX: Duration = Duration::from_secs(60);

/// Heartbeats in one time-to-live: four may fail in a row.
pub const BEATS_PER_LIFE: u32 = 5;

/// A node counts itself as alive for this part of the time-to-live after its last heartbeat began:
/// the rest is for two monotonic clocks that do not run alike.
pub const TRUSTED_TENTHS: u32 = 8;

/// How long a node waits at most before it settles what an ended epoch held: at random, so that
/// one of them does it.
pub const SETTLE_DELAY_MAX: Duration = Duration::from_millis(200);

/// Claims of a dead node that one transaction returns: about six keys each.
pub const CLAIMS_PER_TRANSACTION: usize = 200;

/// Bytes of a node's certificate in its registration.
pub const CERTIFICATE_BYTES_MAX: usize = 4_096;

/// How long after the last session on an account has gone the node goes on to hear of it: clients
/// that come back at once cost no transaction.
pub const INTEREST_LINGER: Duration = Duration::from_secs(60);

/// Interests that one transaction writes or clears: two keys each.
pub const INTERESTS_PER_TRANSACTION: usize = 500;

/// How often a node reads its inbox whatever it was told: a wake-up that was lost on every other
/// way costs this much.
pub const INBOX_PERIOD: Duration = Duration::from_secs(1);

/// How often a worker looks for zones that have come due, where nobody told it of one earlier.
pub const SCAN_PERIOD: Duration = Duration::from_secs(1);

/// Due zones of which a worker picks some at random: so many that several workers seldom pick the
/// same.
pub const ZONES_PER_SCAN: usize = 64;

/// How long before its zone was claimed an item may be due without the zone's record saying so,
/// milliseconds: a message is due when its transfer begins, and most end soon after.
pub const LATE_ITEM_MS: i64 = 10_000;

/// Due items of a zone that are read at once.
pub const ITEMS_PER_READ: usize = 100;

/// How long a worker keeps a zone that has more to do, before others get their turn.
pub const ZONE_TURN: Duration = Duration::from_secs(10);

/// The shortest wait before work that failed is tried again.
pub const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);

/// The longest wait before work that failed is tried again.
pub const RETRY_DELAY_MAX: Duration = Duration::from_hours(1);

/// How long a loop pauses after the store failed.
pub const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Changes of settings that are remembered: years of them, at some hundred bytes each.
pub const SETTING_CHANGES_MAX: u64 = 1_000;

/// Certificates in the store: each node holds all of them, at about 10 kB each.
pub const CERTIFICATES_MAX: usize = 1_000;

/// Bytes of a chain and its key together: they are one value of the store, which may have 100,000.
pub const CERTIFICATE_RECORD_BYTES_MAX: usize = 90_000;

/// Keys of one domain, retired ones included: two algorithms, each with one in use, one that comes
/// and some that were. They are read in one go, at up to 2 kB each.
pub const DKIM_KEYS_PER_DOMAIN_MAX: usize = 16;

/// Zones that domains are spread over for their keys' rotation: so many nodes may share it.
pub const DKIM_SHARES: u64 = 8;

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

/// Rows that one transaction of a count, a list or a check reads; a page of the store holds about
/// 64 KiB of them, whatever this says.
pub const ROWS_PER_SLICE: usize = 1_000;

/// Items of a zone among which a check looks for the one that a failure was noted for.
pub const ITEMS_PER_SEARCH: usize = 10_000;
