//! Whole nodes in one deterministic process: virtual time, seeded chance, a network in memory.
//!
//! A [`Simulation`] is one thread's worth of world. Its [hosts](Simulation::host) have
//! [`env::Env`]s; whatever runs on them (a node, a client) runs unchanged, sees a clock that jumps
//! to the next timer as soon as nothing else can happen, and reaches other hosts over streams
//! and datagrams that cost [latency](Latency) and suffer what [`NetworkHandle`] does to them.
//!
//! A [`World`] is a cluster in a simulation: nodes on one store and one bucket, accounts, clients.
//! [`Workload`]s make it work and make it suffer, [`Fact`]s are what was seen, and [`Check`]s hold
//! both against the design's properties. `README.md` tells more.
//!
//! Invariants:
//! - Nothing of the world outside reaches what runs on a host's `Env`: one thread, a clock
//!   that starts at a fixed time, randomness from the [`Seed`] alone.
//! - The same seed and the same program give the same [`Trace`], as long as the program draws on
//!   its `Env` alone.
//! - Every queue of the network has a bound ([`limits`]).
//!
//! Architecture invariant: nothing depends on this crate. Its randomness is no secret; a node in
//! production has [`env::Env::system`].

mod check;
pub mod checks;
pub mod clients;
mod clock;
pub mod coverage;
mod entropy;
mod executor;
mod fabric;
mod fact;
pub mod faults;
mod host;
mod hunt;
pub mod limits;
mod network;
pub mod plan;
mod play;
mod random;
mod shrink;
mod simulated;
mod trace;
mod workload;
pub mod workloads;
mod world;

use std::{
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use env::{Env, Monotonic};

pub use check::{Check, Property, Violation};
pub use clock::{DRIFT_PPM_MAX, EPOCH};
pub use executor::{Panicked, Schedule};
pub use fact::{Fact, Facts, NodeEvent, RemoteDid, What, WorkStep};
pub use host::Host;
pub use hunt::{Caught, hunt};
pub use network::{Latency, Loss, NetworkHandle};
pub use plan::{Plan, PlanError};
pub use play::{Outcome, play, play_traced, play_with};
pub use random::Random;
pub use shrink::shrink;
pub use trace::{Detail, Event, Trace, Tracer};
pub use workload::{Share, Workload};
pub use world::{Account, DOMAIN, Door, NodeId, NodeState, PASSWORD, Setup, Turn, World};

use crate::{
    clock::Clock, executor::Core, fabric::Fabric, host::HostCell, network::Network,
    random::SplitMix64,
};

/// What everything random in a simulation follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// A world: its time, its chance, its network, and the one thread that it runs on.
pub struct Simulation {
    fabric: Arc<Fabric>,
    random: Mutex<SplitMix64>,
}

impl Simulation {
    /// A new world at virtual time zero, [`EPOCH`] on every wall clock.
    pub fn new(seed: Seed, latency: Latency) -> Self {
        let mut random = SplitMix64::new(seed);
        entropy::install(SplitMix64::named(seed, "entropy"));
        let core = Core::new(SplitMix64::named(seed, "schedule"));
        let clock = Clock::new(Arc::clone(&core));
        let network = Network::new(clock, random.split(), latency);
        let fabric = Arc::new(Fabric { seed, core, network });
        Self { fabric, random: Mutex::new(random) }
    }

    /// A machine with one address besides its loopback, and with randomness of its own: what one
    /// machine draws does not change what another does. Machines are made in the same order in
    /// every run.
    pub fn machine(&self, address: IpAddr) -> Env {
        let random = self.random.lock().expect("no code panics while it draws").split();
        self.fabric.host(&address.to_string(), address, random).env()
    }

    /// A host. Its randomness follows from the seed and its name.
    pub fn host(&self, name: &str, address: IpAddr) -> Host {
        self.fabric.named_host(name, address)
    }

    /// Chooses the next task in this way from now on.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.fabric.core.set_schedule(schedule);
    }

    /// What the network does.
    pub fn network(&self) -> NetworkHandle {
        NetworkHandle::new(Arc::clone(&self.fabric.network))
    }

    /// Loses datagrams from now on.
    pub fn set_loss(&self, loss: Loss) {
        self.network().set_loss(loss);
    }

    /// Virtual time since the world began, which no host's clock need agree with.
    pub fn now(&self) -> Monotonic {
        self.fabric.core.now()
    }

    /// How many steps tasks have made.
    pub fn polls(&self) -> u64 {
        self.fabric.core.polls()
    }

    /// Which steps were made when, folded into a number: two runs that have the same one at some
    /// moment have done the same until then.
    pub fn digest(&self) -> u64 {
        self.fabric.core.digest()
    }

    /// The tasks that panicked so far.
    pub fn panics(&self) -> Vec<Panicked> {
        self.fabric.core.panics()
    }

    /// Runs `main` to its end, and with it every task of every host. Tasks that are left stand
    /// still until the next call.
    ///
    /// # Panics
    /// Where nothing can happen any more (every task waits, and no timer is set), and where
    /// something spins without time moving on.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        self.fabric.core.run(main)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks hold what holds them.
        self.fabric.core.end();
    }
}

impl Fabric {
    fn host(self: &Arc<Self>, name: &str, address: IpAddr, random: SplitMix64) -> Host {
        let cell = self
            .core
            .add_host(|number| Arc::new(HostCell::new(name.into(), address, number, random)));
        Host::new(cell, Arc::clone(self))
    }

    pub(crate) fn named_host(self: &Arc<Self>, name: &str, address: IpAddr) -> Host {
        self.host(name, address, SplitMix64::named(self.seed, name))
    }
}
