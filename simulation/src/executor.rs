//! The one thread that a world runs on: its tasks, its timers, its time.
//!
//! Time stands still while anything can run, and then jumps to the next timer. Which of the ready
//! tasks runs next is either first come, first served, or drawn from the seed.
//!
//! Invariants:
//! - A task belongs to one incarnation of one host. It is polled only while that host runs, and
//!   its future is dropped when that incarnation ends.
//! - No lock is held while a future is polled or dropped.
//! - The order of everything follows from the order of spawns and the seed; that in which one step
//!   wakes several tasks does not count.

mod task;
mod timers;

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use env::{BoxFuture, Monotonic};

pub(crate) use task::Task;
pub(crate) use timers::Sleep;

use crate::{
    host::{HostCell, Life},
    limits::POLLS_WITHOUT_TIME_MAX,
    random::SplitMix64,
    trace::Tracer,
};
use timers::Timers;

/// How the next task is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// First come, first served.
    #[default]
    Fair,
    /// Drawn from the seed, among those that have waited longest.
    Drawn,
}

/// Of how many that have waited longest the next is drawn: enough to put any two in either order,
/// and none waits for ever.
const DRAWN_FROM: u64 = 8;

thread_local! {
    static CURRENT: RefCell<Option<Arc<HostCell>>> = const { RefCell::new(None) };
}

/// The host whose code runs now.
pub(crate) fn current_host() -> Option<Arc<HostCell>> {
    CURRENT.with_borrow(Clone::clone)
}

/// What tasks and timers share.
pub(crate) struct Core {
    /// Nanoseconds since the world began.
    now: AtomicU64,
    polls: AtomicU64,
    /// What has run when, folded: two runs of one seed have the same at every moment.
    digest: AtomicU64,
    ready: Mutex<Ready>,
    timers: Mutex<Timers>,
    hosts: Mutex<Vec<Arc<HostCell>>>,
    panics: Mutex<Vec<Panicked>>,
    next_task: AtomicU64,
    tracer: OnceLock<Tracer>,
}

/// A task that panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// When, in virtual time.
    pub at: Monotonic,
    /// On which host.
    pub host: Arc<str>,
    /// Which task.
    pub task: &'static str,
    /// What it said.
    pub message: String,
}

struct Ready {
    queue: VecDeque<Runnable>,
    /// Woken by the step that was made last. Some of `tokio::sync` wakes in an order that it draws
    /// from the process's own chance, so they are put into an order of ours first.
    woken: Vec<Runnable>,
    schedule: Schedule,
    random: SplitMix64,
}

enum Runnable {
    Main,
    Task(Arc<Task>),
}

impl Runnable {
    fn id(&self) -> u64 {
        match self {
            Self::Main => u64::MAX,
            Self::Task(task) => task.id(),
        }
    }
}

impl Ready {
    fn pop(&mut self) -> Option<Runnable> {
        if self.woken.len() > 1 {
            self.woken.sort_unstable_by_key(Runnable::id);
        }
        self.queue.extend(self.woken.drain(..));
        if self.schedule == Schedule::Drawn && self.queue.len() > 1 {
            let among = DRAWN_FROM.min(self.queue.len() as u64);
            let chosen = usize::try_from(self.random.below(among)).unwrap_or(0);
            // Those before it keep their order.
            return self.queue.remove(chosen);
        }
        self.queue.pop_front()
    }
}

impl Core {
    pub(crate) fn new(random: SplitMix64) -> Arc<Self> {
        let ready =
            Ready { queue: VecDeque::new(), woken: Vec::new(), schedule: Schedule::Fair, random };
        Arc::new(Self {
            now: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            digest: AtomicU64::new(0),
            ready: Mutex::new(ready),
            timers: Mutex::default(),
            hosts: Mutex::default(),
            panics: Mutex::default(),
            next_task: AtomicU64::new(0),
            tracer: OnceLock::new(),
        })
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().expect("nothing panics while it holds the queue")
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().expect("nothing panics while it holds the timers")
    }

    pub(crate) fn set_schedule(&self, schedule: Schedule) {
        self.ready().schedule = schedule;
    }

    pub(crate) fn now(&self) -> Monotonic {
        Monotonic::from_start(Duration::from_nanos(self.now.load(Relaxed)))
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Relaxed)
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.load(Relaxed)
    }

    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.get()
    }

    /// Writes what happens from now on; the first tracer stays.
    pub(crate) fn trace(&self, tracer: Tracer) {
        let _first_stays = self.tracer.set(tracer);
    }

    pub(crate) fn panics(&self) -> Vec<Panicked> {
        self.panics.lock().expect("nothing panics while it holds the list").clone()
    }

    pub(crate) fn sleep_until(self: &Arc<Self>, deadline: Monotonic) -> Sleep {
        Sleep::new(Arc::clone(self), nanos(deadline))
    }

    pub(crate) fn add_host(&self, host: impl FnOnce(u32) -> Arc<HostCell>) -> Arc<HostCell> {
        let mut hosts = self.hosts.lock().expect("nothing panics while it holds the hosts");
        let number = u32::try_from(hosts.len()).expect("a world has fewer hosts");
        let host = host(number);
        hosts.push(Arc::clone(&host));
        host
    }

    /// Starts a task; one of an incarnation that has ended is never polled.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        life: &Life,
        name: &'static str,
        future: BoxFuture<'static, ()>,
    ) -> Arc<Task> {
        let id = self.next_task.fetch_add(1, Relaxed);
        let task = Task::new(self, life.clone(), id, name, future);
        if life.host.add_task(life.number, &task) {
            Arc::clone(&task).wake();
        } else {
            task.end();
        }
        task
    }

    fn enqueue(&self, task: Arc<Task>) {
        self.ready().woken.push(Runnable::Task(task));
    }

    /// Lets what waited for a paused host run.
    pub(crate) fn enqueue_all(&self, tasks: Vec<Arc<Task>>) {
        self.ready().woken.extend(tasks.into_iter().map(Runnable::Task));
    }

    /// Runs `main` to its end, and with it every task.
    pub(crate) fn run<T>(self: &Arc<Self>, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let waker = Arc::new(MainWaker {
            core: Arc::clone(self),
            queued: std::sync::atomic::AtomicBool::new(true),
        });
        self.ready().woken.push(Runnable::Main);
        let main_waker = Waker::from(Arc::clone(&waker));
        let mut since_time = 0_u64;
        loop {
            let next = self.ready().pop();
            match next {
                Some(Runnable::Main) => {
                    waker.queued.store(false, Relaxed);
                    let polled = main.as_mut().poll(&mut Context::from_waker(&main_waker));
                    if let Poll::Ready(value) = polled {
                        return value;
                    }
                }
                Some(Runnable::Task(task)) => self.run_task(&task),
                None => {
                    since_time = 0;
                    self.advance();
                    continue;
                }
            }
            since_time += 1;
            assert!(
                since_time < POLLS_WITHOUT_TIME_MAX,
                "something spins at {:?}: time has not moved for {since_time} polls",
                self.now()
            );
        }
    }

    fn run_task(self: &Arc<Self>, task: &Arc<Task>) {
        let host = task.host();
        if !task.is_of_living_host() {
            task.end();
            return;
        }
        if host.park_if_paused(task) {
            return;
        }
        if host.count_poll() {
            host.crash();
            return;
        }
        self.polls.fetch_add(1, Relaxed);
        self.fold(u64::from(host.number()) << 40 | task.id());
        if let Some(tracer) = self.tracer() {
            tracer.step(self.now.load(Relaxed), &host.name(), task.name(), task.id());
        }
        CURRENT.with_borrow_mut(|current| *current = Some(Arc::clone(host)));
        let panicked = task.poll();
        CURRENT.with_borrow_mut(|current| *current = None);
        if let Some(message) = panicked {
            let panicked =
                Panicked { at: self.now(), host: host.name(), task: task.name(), message };
            self.panics.lock().expect("nothing panics while it holds the list").push(panicked);
        }
    }

    fn fold(&self, what: u64) {
        let now = self.now.load(Relaxed);
        let folded = (self.digest.load(Relaxed) ^ what ^ now.rotate_left(32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        self.digest.store(folded, Relaxed);
    }

    /// Jumps to the next timer.
    fn advance(&self) {
        let due = self.timers().next_deadline();
        let due = due.expect("nothing can happen any more: every task waits, and no timer is set");
        self.now.fetch_max(due, Relaxed);
        loop {
            let fired = self.timers().pop_due(due);
            match fired {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Drops every future of every host.
    pub(crate) fn end(&self) {
        let hosts =
            std::mem::take(&mut *self.hosts.lock().expect("nothing panics while it holds them"));
        for host in &hosts {
            host.crash();
        }
        let left = {
            let mut ready = self.ready();
            (std::mem::take(&mut ready.queue), std::mem::take(&mut ready.woken))
        };
        drop(left);
    }
}

pub(crate) fn nanos(point: Monotonic) -> u64 {
    u64::try_from(point.since_start().as_nanos()).unwrap_or(u64::MAX)
}

struct MainWaker {
    core: Arc<Core>,
    queued: std::sync::atomic::AtomicBool,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Relaxed) {
            self.core.ready().woken.push(Runnable::Main);
        }
    }
}
