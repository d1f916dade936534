//! Whole nodes in one deterministic process: virtual time, seeded chance, a network in memory.
//!
//! A [`Simulation`] is one thread's worth of world. Its [machines](Simulation::machine) are
//! [`env::Env`]s; whatever runs on them (a node, a client) runs unchanged, sees a clock that jumps
//! to the next timer as soon as nothing else can happen, and reaches other machines over streams
//! and datagrams that cost [latency](Latency) and nothing else.
//!
//! Invariants:
//! - Nothing of the world outside reaches what runs on a machine's `Env`: one thread, a clock
//!   that starts at a fixed time, randomness from the [`Seed`] alone.
//! - The same seed and the same program give the same [`Trace`], as long as the program draws on
//!   its `Env` alone.
//! - Every queue of the network has a bound ([`limits`]).
//!
//! Deliberately absent today: faults of the network and of machines (see `README.md`). Faults of
//! the store are `kv`'s.
//!
//! Architecture invariant: nothing depends on this crate. Its randomness is no secret; a node in
//! production has [`env::Env::system`].

mod clock;
pub mod limits;
mod network;
mod random;
mod simulated;
mod trace;

use std::{
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use env::Env;

pub use clock::EPOCH;
pub use network::{Latency, Loss};
pub use trace::{Event, Trace};

use crate::{clock::Clock, network::Network, random::SplitMix64, simulated::Simulated};

/// What everything random in a simulation follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// A world: its time, its chance, its network, and the one thread that it runs on.
pub struct Simulation {
    runtime: tokio::runtime::Runtime,
    clock: Clock,
    network: Arc<Network>,
    random: Mutex<SplitMix64>,
}

impl Simulation {
    /// A new world at virtual time zero, [`EPOCH`] on every wall clock.
    pub fn new(seed: Seed, latency: Latency) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without threads and sockets needs nothing that can be missing");
        let clock = Clock::new(runtime.handle().clone());
        let mut random = SplitMix64::new(seed);
        let network = Network::new(clock.clone(), random.split(), latency);
        Self { runtime, clock, network, random: Mutex::new(random) }
    }

    /// A machine with one address besides its loopback, and with randomness of its own: what one
    /// machine draws does not change what another does. Machines are made in the same order in
    /// every run.
    pub fn machine(&self, address: IpAddr) -> Env {
        let random = self.random.lock().expect("no code panics while it draws").split();
        Env::new(Simulated::new(address, self.clock.clone(), random, Arc::clone(&self.network)))
    }

    /// Loses datagrams from now on.
    pub fn set_loss(&self, loss: Loss) {
        self.network.set_loss(loss);
    }

    /// Runs `main` to its end, and with it every task of every machine. Tasks that are left stand
    /// still until the next call.
    ///
    /// Where nothing can happen any more and no timer is set, this hangs, as a program on a real
    /// machine would: give `main` a timeout.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        self.runtime.block_on(main)
    }
}
