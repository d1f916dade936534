//! Hosts: machines with a name and an address, which can crash, pause, and have clocks that are off.
//!
//! An [`Env`] belongs to one incarnation of a host. When that ends, its tasks are dropped wherever
//! they wait, its streams are reset, its listeners and sockets are gone, and whatever still holds
//! the `Env` does nothing any more. A paused host's tasks stand still: what arrives waits, as for a
//! process that is stopped, and its timers fire late.
//!
//! Deliberately absent: the crash of a whole machine as its peers see it, without resets. Cut the
//! host off first.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use env::Env;
use tokio::sync::watch;

use crate::{
    clock::HostClock, executor::Task, fabric::Fabric, random::SplitMix64, simulated::Simulated,
};

/// A machine of the simulated world. Clones are the same machine.
#[derive(Clone)]
pub struct Host {
    cell: Arc<HostCell>,
    fabric: Arc<Fabric>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.cell.name)
    }
}

impl Host {
    pub(crate) fn new(cell: Arc<HostCell>, fabric: Arc<Fabric>) -> Self {
        Self { cell, fabric }
    }

    /// What it is called.
    pub fn name(&self) -> Arc<str> {
        self.cell.name()
    }

    /// Where it is.
    pub fn address(&self) -> IpAddr {
        self.cell.address
    }

    /// The current incarnation's environment; that of the last one where the host is down.
    pub fn env(&self) -> Env {
        let life =
            Life { host: Arc::clone(&self.cell), number: self.cell.incarnation.load(Relaxed) };
        Env::new(Simulated::new(life, Arc::clone(&self.fabric)))
    }

    /// Whether it has an incarnation that lives, be it paused.
    pub fn is_up(&self) -> bool {
        self.cell.is_up.load(Relaxed)
    }

    /// Ends what runs on it, at whatever await it stands.
    pub fn crash(&self) {
        self.cell.crash();
    }

    /// Crashes it before the `polls`-th poll of its tasks from now.
    pub fn crash_after(&self, polls: u64) {
        self.cell.polls_left.store(polls.max(1), Relaxed);
    }

    /// Takes back what [`Host::crash_after`] has set.
    pub fn spare(&self) {
        self.cell.polls_left.store(u64::MAX, Relaxed);
    }

    /// Begins a new incarnation; what was left of the last one crashes.
    pub fn restart(&self) -> Env {
        self.crash();
        self.cell.revive();
        self.env()
    }

    /// Completes once the incarnation that lives now has crashed; at once where none lives.
    pub async fn crashed(&self) {
        let mut life = self.cell.life.subscribe();
        let incarnation = self.cell.incarnation.load(Relaxed);
        // The sender lives as long as the host.
        let _ended = life.wait_for(|it| !it.up || it.incarnation != incarnation).await;
    }

    /// Stops its tasks until [`Host::resume`].
    pub fn pause(&self) {
        self.cell.paused.store(true, Relaxed);
    }

    /// Lets its tasks go on.
    pub fn resume(&self) {
        self.cell.paused.store(false, Relaxed);
        let parked = std::mem::take(&mut self.cell.lock().parked);
        self.fabric.core.enqueue_all(parked);
    }

    /// Whether its tasks are stopped.
    pub fn is_paused(&self) -> bool {
        self.cell.paused.load(Relaxed)
    }

    /// Makes its clocks go `drift_ppm` parts in a million too fast (too slow where negative), and
    /// its wall clock jump by `jump_ms`. Timers that are set keep their moment.
    pub fn skew(&self, drift_ppm: i32, jump_ms: i64) {
        let now = self.fabric.core.now();
        self.cell.lock().clock.skew(now, drift_ppm, jump_ms);
    }

    /// Makes its wall clock jump, whatever its drift.
    pub(crate) fn jump(&self, jump_ms: i64) {
        self.cell.lock().clock.jump(jump_ms);
    }

    /// The tasks that it has now, by their names.
    pub fn tasks(&self) -> BTreeMap<&'static str, u64> {
        let mut tasks = BTreeMap::new();
        for task in self.cell.lock().tasks.values() {
            *tasks.entry(task.name()).or_default() += 1;
        }
        tasks
    }

    /// How often its tasks have been polled.
    pub fn polls(&self) -> u64 {
        self.cell.polls.load(Relaxed)
    }
}

/// One incarnation of a host.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) host: Arc<HostCell>,
    pub(crate) number: u64,
}

impl Life {
    pub(crate) fn is_alive(&self) -> bool {
        self.host.is_alive(self.number)
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.host.address
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vital {
    incarnation: u64,
    up: bool,
}

/// What a host's handles, tasks and sockets share.
pub(crate) struct HostCell {
    name: Arc<str>,
    address: IpAddr,
    number: u32,
    incarnation: AtomicU64,
    is_up: AtomicBool,
    paused: AtomicBool,
    polls: AtomicU64,
    polls_left: AtomicU64,
    life: watch::Sender<Vital>,
    state: Mutex<State>,
}

struct State {
    clock: HostClock,
    random: SplitMix64,
    tasks: BTreeMap<u64, Arc<Task>>,
    /// Ready, and waiting for the host to go on.
    parked: Vec<Arc<Task>>,
}

impl HostCell {
    pub(crate) fn new(name: Arc<str>, address: IpAddr, number: u32, random: SplitMix64) -> Self {
        let clock = HostClock::default();
        let state = State { clock, random, tasks: BTreeMap::new(), parked: Vec::new() };
        Self {
            name,
            address,
            number,
            incarnation: AtomicU64::new(0),
            is_up: AtomicBool::new(true),
            paused: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            polls_left: AtomicU64::new(u64::MAX),
            life: watch::Sender::new(Vital { incarnation: 0, up: true }),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a host")
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn is_alive(&self, incarnation: u64) -> bool {
        self.incarnation.load(Relaxed) == incarnation && self.is_up.load(Relaxed)
    }

    pub(crate) fn clock<T>(&self, with: impl FnOnce(&HostClock) -> T) -> T {
        with(&self.lock().clock)
    }

    pub(crate) fn fill_random(&self, bytes: &mut [u8]) {
        self.lock().random.fill(bytes);
    }

    /// Whether the incarnation takes tasks.
    pub(crate) fn add_task(&self, incarnation: u64, task: &Arc<Task>) -> bool {
        let alive = self.is_alive(incarnation);
        if alive {
            self.lock().tasks.insert(task.id(), Arc::clone(task));
        }
        alive
    }

    pub(crate) fn remove_task(&self, id: u64) {
        let removed = self.lock().tasks.remove(&id);
        drop(removed);
    }

    pub(crate) fn park_if_paused(&self, task: &Arc<Task>) -> bool {
        let paused = self.paused.load(Relaxed);
        if paused {
            self.lock().parked.push(Arc::clone(task));
        }
        paused
    }

    /// Counts a poll that is to come; whether the host is to crash instead.
    pub(crate) fn count_poll(&self) -> bool {
        self.polls.fetch_add(1, Relaxed);
        match self.polls_left.load(Relaxed) {
            u64::MAX => false,
            left => {
                self.polls_left.store(left - 1, Relaxed);
                left <= 1
            }
        }
    }

    /// Ends the incarnation, and drops its tasks in the order in which they were started.
    pub(crate) fn crash(&self) {
        if !self.is_up.swap(false, Relaxed) {
            return;
        }
        self.polls_left.store(u64::MAX, Relaxed);
        self.paused.store(false, Relaxed);
        let (tasks, parked) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.parked))
        };
        drop(parked);
        for task in tasks.into_values() {
            task.end();
        }
        self.life.send_modify(|life| life.up = false);
    }

    fn revive(&self) {
        let incarnation = self.incarnation.fetch_add(1, Relaxed) + 1;
        self.is_up.store(true, Relaxed);
        self.life.send_replace(Vital { incarnation, up: true });
    }
}
