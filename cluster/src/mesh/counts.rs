//! What the mesh counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened since the mesh started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeshCounts {
    /// Datagrams that were handed to a connection; the network may have lost them.
    pub datagrams_sent: u64,
    /// Datagrams that the service got.
    pub datagrams_received: u64,
    /// Datagrams that were lost on this side: too large, to nobody known, or over a bound.
    pub datagrams_dropped: u64,
    /// Requests that were sent.
    pub requests_sent: u64,
    /// Requests that the service got.
    pub requests_received: u64,
    /// Connections that are open now.
    pub connections: u64,
    /// Connections that were opened, by either side.
    pub connections_opened: u64,
    /// Tries to connect that came to nothing.
    pub dials_failed: u64,
    /// Incoming handshakes that came to nothing: strangers, and too many at once.
    pub handshakes_refused: u64,
    /// Incoming handshakes whose address had to prove itself first, because there were many.
    pub addresses_validated: u64,
}

/// The counters behind [`MeshCounts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) datagrams_sent: Counter,
    pub(super) datagrams_received: Counter,
    pub(super) datagrams_dropped: Counter,
    pub(super) requests_sent: Counter,
    pub(super) requests_received: Counter,
    pub(super) connections_opened: Counter,
    pub(super) dials_failed: Counter,
    pub(super) handshakes_refused: Counter,
    pub(super) addresses_validated: Counter,
}

impl Counters {
    pub(super) fn read(&self, connections: u64) -> MeshCounts {
        MeshCounts {
            datagrams_sent: self.datagrams_sent.read(),
            datagrams_received: self.datagrams_received.read(),
            datagrams_dropped: self.datagrams_dropped.read(),
            requests_sent: self.requests_sent.read(),
            requests_received: self.requests_received.read(),
            connections,
            connections_opened: self.connections_opened.read(),
            dials_failed: self.dials_failed.read(),
            handshakes_refused: self.handshakes_refused.read(),
            addresses_validated: self.addresses_validated.read(),
        }
    }
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
