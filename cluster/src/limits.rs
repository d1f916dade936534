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

/// Rows that one transaction of a count, a list or a check reads; a page of the store holds about
/// 64 KiB of them, whatever this says.
pub const ROWS_PER_SLICE: usize = 1_000;

/// Items of a zone among which a check looks for the one that a failure was noted for.
pub const ITEMS_PER_SEARCH: usize = 10_000;
