//! What the network does to what it carries, and the handle that changes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::Network;
use crate::limits::RETRANSMISSION_MAX;

/// How long bytes are on their way, one way: evenly spread from `min` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// At least.
    pub min: Duration,
    /// At most; not below `min`.
    pub max: Duration,
}

impl Latency {
    /// Bytes arrive at once.
    pub const NONE: Self = Self { min: Duration::ZERO, max: Duration::ZERO };
}

/// How many of a thousand datagrams are lost on their way. Streams lose nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Of a thousand; 1,000 cuts every machine off from every other, as far as datagrams go.
    pub per_mille: u64,
}

impl Loss {
    /// Everything arrives.
    pub const NONE: Self = Self { per_mille: 0 };
}

/// What is done to what is carried.
pub(super) struct Rules {
    latency: Latency,
    /// Between two hosts, where that is another.
    apart: BTreeMap<(IpAddr, IpAddr), Latency>,
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    pub(super) loss: Loss,
    pub(super) duplication_per_mille: u64,
}

impl Rules {
    pub(super) fn new(latency: Latency) -> Self {
        Self {
            latency,
            apart: BTreeMap::new(),
            cuts: BTreeSet::new(),
            loss: Loss::NONE,
            duplication_per_mille: 0,
        }
    }

    pub(super) fn latency_between(&self, from: IpAddr, to: IpAddr) -> Latency {
        match self.apart.is_empty() {
            true => self.latency,
            false => self.apart.get(&(from, to)).copied().unwrap_or(self.latency),
        }
    }

    pub(super) fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&(from, to))
    }
}

/// Changes what the network does. Clones change the same network.
#[derive(Clone)]
pub struct NetworkHandle {
    network: Arc<Network>,
}

impl NetworkHandle {
    pub(crate) fn new(network: Arc<Network>) -> Self {
        Self { network }
    }

    /// Carries nothing from one host to another from now on; the other direction stays as it is.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.network.lock().rules.cuts.insert((from, to));
    }

    /// Carries everything again in this direction.
    pub fn heal(&self, from: IpAddr, to: IpAddr) {
        if self.network.lock().rules.cuts.remove(&(from, to)) {
            self.release(from, to);
        }
    }

    /// Whether nothing is carried from one host to another.
    pub fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.network.lock().rules.is_cut(from, to)
    }

    /// Ends every cut.
    pub fn heal_all(&self) {
        let cuts = std::mem::take(&mut self.network.lock().rules.cuts);
        for (from, to) in cuts {
            self.release(from, to);
        }
    }

    /// Lets go on what stood still.
    fn release(&self, from: IpAddr, to: IpAddr) {
        let stalled = self.network.lock().streams_between(from, to);
        for direction in stalled {
            let Some(arrival) = self.network.arrival(from, to) else { return };
            let most = u64::try_from(RETRANSMISSION_MAX.as_micros()).unwrap_or(u64::MAX - 1);
            let again = Duration::from_micros(self.network.lock().random.below(most + 1));
            direction.release(arrival + again);
        }
    }

    /// Resets every stream between two hosts, as a box between them does that has lost its memory.
    /// Tells how many directions that were.
    pub fn reset_streams(&self, one: IpAddr, other: IpAddr) -> usize {
        let mut streams = self.network.lock().streams_between(one, other);
        streams.extend(self.network.lock().streams_between(other, one));
        let now = self.network.clock.now();
        for direction in &streams {
            direction.reset(now);
        }
        streams.len()
    }

    /// How many streams a host has with others that either end still holds.
    pub fn connections_of(&self, host: IpAddr) -> usize {
        let state = self.network.lock();
        let live = state.streams.iter().filter(|live| live.to == host);
        live.filter(|live| live.direction.strong_count() > 0).count()
    }

    /// How long everything takes, where nothing else is said of two hosts.
    pub fn latency(&self) -> Latency {
        self.network.lock().rules.latency
    }

    /// How long it takes from one host to another.
    pub fn latency_between(&self, from: IpAddr, to: IpAddr) -> Latency {
        self.network.lock().rules.latency_between(from, to)
    }

    /// Everything takes this long from now on, where nothing else is said of two hosts.
    pub fn set_latency(&self, latency: Latency) {
        self.network.lock().rules.latency = latency;
    }

    /// What goes from one host to another takes this long from now on, or as long as everything.
    pub fn set_latency_between(&self, from: IpAddr, to: IpAddr, latency: Option<Latency>) {
        let apart = &mut self.network.lock().rules.apart;
        match latency {
            Some(latency) => apart.insert((from, to), latency),
            None => apart.remove(&(from, to)),
        };
    }

    /// Loses datagrams from now on.
    pub fn set_loss(&self, loss: Loss) {
        self.network.lock().rules.loss = loss;
    }

    /// How many datagrams are lost.
    pub fn loss(&self) -> Loss {
        self.network.lock().rules.loss
    }

    /// How many of a thousand datagrams arrive twice.
    pub fn duplication(&self) -> u64 {
        self.network.lock().rules.duplication_per_mille
    }

    /// Delivers this many of a thousand datagrams twice from now on.
    pub fn set_duplication(&self, per_mille: u64) {
        self.network.lock().rules.duplication_per_mille = per_mille;
    }
}
