//! The load itself: connections, each working without a pause, between a start and an end.
//!
//! All connections are open before any works. What is measured are the operations that begin
//! within the measured time; each is waited for, and the time ends with the last of them, so that
//! long operations count as much as they took.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use env::{Env, Monotonic, Task};
use tokio::sync::{Semaphore, watch};

use crate::{
    args::CommonArgs,
    failure::{After, Failure, Kind, Tally},
    histogram::Histogram,
    limits::{FAREWELL_TIME, OPEN_TRIES_MAX, RETRY_PAUSE},
    progress::Progress,
};

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// What the server acknowledged or returned: deliveries, messages.
    pub(crate) items: u64,
    /// Bytes of messages sent, or of answers received.
    pub(crate) bytes: u64,
    /// How long it took, where that is not until the operation's end.
    pub(crate) took: Option<Duration>,
}

/// A protocol's client on one connection.
pub(crate) trait Client: Sized + Send + 'static {
    /// What all connections share.
    type Setup: Send + Sync + 'static;

    /// Connects, logs in, and gets ready to work.
    fn open(
        setup: &Self::Setup,
        connection: u64,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// Does the `turn`th operation of all. An idling one ends when `run` says so.
    fn operate(
        &mut self,
        setup: &Self::Setup,
        run: &Run,
        turn: u64,
    ) -> impl Future<Output = Result<Done, Failure>> + Send;

    /// Says goodbye.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// How much and how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) connections: u32,
    pub(crate) opening_max: u32,
    pub(crate) amount: Amount,
    pub(crate) warm_up: Duration,
    pub(crate) timeout: Timeout,
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// After so many operations.
    Count(u64),
    /// After so long.
    Time(Duration),
}

/// How long an operation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// So long.
    Each(Duration),
    /// So long beyond the measured time: it is the operation's nature to last.
    BeyondTheEnd(Duration),
}

impl Plan {
    pub(crate) fn new(common: &CommonArgs) -> Self {
        Self {
            connections: common.connections,
            opening_max: common.opening_max,
            amount: common.count.map_or(Amount::Time(common.duration), Amount::Count),
            warm_up: common.warm_up,
            timeout: Timeout::Each(common.timeout),
        }
    }

    fn opening_time(&self) -> Duration {
        match self.timeout {
            Timeout::Each(time) | Timeout::BeyondTheEnd(time) => time,
        }
    }

    fn operation_time(&self) -> Duration {
        match (self.timeout, self.amount) {
            (Timeout::BeyondTheEnd(time), Amount::Time(measured)) => time + measured,
            (Timeout::Each(time) | Timeout::BeyondTheEnd(time), _) => time,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    WarmUp,
    Measure,
    End,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Open, Self::WarmUp, Self::Measure, Self::End];
}

/// What all connections of a run share, and what came out.
pub(crate) struct Run {
    env: Env,
    plan: Plan,
    phase: AtomicU8,
    phases: watch::Sender<Phase>,
    /// Operations begun, by all connections together.
    turns: AtomicU64,
    /// Measured operations begun.
    tickets: AtomicU64,
    pub(crate) opened: AtomicU64,
    held: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    pub(crate) items: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) latency: Histogram,
    pub(crate) failures: Tally,
    /// When the last measured operation ended, in nanoseconds on the environment's clock.
    last_end_ns: AtomicU64,
}

/// When it was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) started_unix_ms: i64,
    pub(crate) elapsed: Duration,
}

impl Run {
    fn new(env: &Env, plan: Plan) -> Self {
        Self {
            env: env.clone(),
            plan,
            phase: AtomicU8::new(0),
            phases: watch::Sender::new(Phase::Open),
            turns: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            held: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latency: Histogram::new(),
            failures: Tally::default(),
            last_end_ns: AtomicU64::new(0),
        }
    }

    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn enter(&self, phase: Phase) {
        let at = Phase::ALL.iter().position(|each| *each == phase).expect("ALL has every phase");
        self.phase.store(u8::try_from(at).expect("there are four"), Ordering::Release);
        self.phases.send_replace(phase);
    }

    /// The environment's clock.
    pub(crate) fn now(&self) -> Monotonic {
        self.env.monotonic()
    }

    /// Completes when no more operations are to begin.
    pub(crate) async fn ended(&self) {
        let mut phases = self.phases.subscribe();
        let waited = phases.wait_for(|phase| *phase == Phase::End).await;
        waited.map(|_| ()).expect("the sender is a field of this very run");
    }

    /// Counts one session that idles from now on; tells how many do.
    pub(crate) fn hold(&self) -> u64 {
        self.held.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether the next operation is to be done, and whether it is measured.
    fn next(&self) -> Option<Measured> {
        match self.phase() {
            Phase::Open | Phase::WarmUp => Some(Measured::No),
            Phase::End => None,
            Phase::Measure => match self.plan.amount {
                Amount::Time(_) => Some(Measured::Yes),
                Amount::Count(count) => {
                    let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
                    (ticket < count).then_some(Measured::Yes)
                }
            },
        }
    }

    fn succeed(&self, done: Done, began: Monotonic) {
        let now = self.now();
        self.latency.count(done.took.unwrap_or(now - began));
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        self.items.fetch_add(done.items, Ordering::Relaxed);
        self.bytes.fetch_add(done.bytes, Ordering::Relaxed);
        self.note_end(now);
    }

    fn note_end(&self, now: Monotonic) {
        let ns = u64::try_from(now.since_start().as_nanos()).unwrap_or(u64::MAX);
        self.last_end_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// From the start to the last measured operation's end.
    fn elapsed(&self, began: Monotonic) -> Duration {
        let last = Duration::from_nanos(self.last_end_ns.load(Ordering::Relaxed));
        Monotonic::from_start(last) - began
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    Yes,
    No,
}

/// Runs the plan to its end.
pub(crate) async fn run<C: Client>(
    env: &Env,
    plan: Plan,
    setup: C::Setup,
    progress: &Progress,
) -> (Arc<Run>, Span) {
    let run = Arc::new(Run::new(env, plan.clone()));
    let setup = Arc::new(setup);
    let opening = Arc::new(Semaphore::new(plan.opening_max as usize));
    let ready = Arc::new(Semaphore::new(0));
    let workers: Vec<Task<()>> = (0..u64::from(plan.connections))
        .map(|connection| {
            let worker = Worker {
                run: Arc::clone(&run),
                setup: Arc::clone(&setup),
                connection,
                opening: Arc::clone(&opening),
            };
            env.spawn("bench connection", Box::pin(worker.work::<C>(Ready(Arc::clone(&ready)))))
        })
        .collect();
    let all_ready = ready.acquire_many(plan.connections);
    progress.during(&run, Box::pin(async { drop(all_ready.await) })).await;
    if !plan.warm_up.is_zero() {
        run.enter(Phase::WarmUp);
        progress.during(&run, Box::pin(env.sleep(plan.warm_up))).await;
    }
    let started_unix_ms = env.wall().unix_ms();
    let began = env.monotonic();
    run.note_end(began);
    run.enter(Phase::Measure);
    let ends = Box::pin(async {
        let time = match plan.amount {
            Amount::Time(time) => Some(began + time),
            Amount::Count(_) => None,
        };
        let mut workers = workers;
        tokio::select! {
            () = env.sleep_until_any(time) => run.enter(Phase::End),
            () = all_end(&mut workers) => {}
        }
        all_end(&mut workers).await;
    });
    progress.during(&run, ends).await;
    let elapsed = run.elapsed(began);
    (run, Span { started_unix_ms, elapsed })
}

async fn all_end(workers: &mut Vec<Task<()>>) {
    while let Some(worker) = workers.last_mut() {
        // A worker that panicked has said so on standard error, and counts nothing.
        let _ended = worker.await;
        workers.pop();
    }
}

/// Adds one permit when dropped: however a worker ends, nobody waits for it for ever.
struct Ready(Arc<Semaphore>);

impl Drop for Ready {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

struct Worker<S> {
    run: Arc<Run>,
    setup: Arc<S>,
    connection: u64,
    opening: Arc<Semaphore>,
}

impl<S: Send + Sync + 'static> Worker<S> {
    async fn work<C: Client<Setup = S>>(self, ready: Ready) {
        let mut client = self.open::<C>().await;
        if client.is_some() {
            self.run.opened.fetch_add(1, Ordering::Relaxed);
        }
        drop(ready);
        let mut phases = self.run.phases.subscribe();
        if phases.wait_for(|phase| *phase != Phase::Open).await.is_err() {
            return;
        }
        while client.is_some()
            && let Some(measured) = self.run.next()
        {
            client = self.turn(client, measured).await;
        }
        if let Some(client) = client {
            // Nothing depends on how the farewell ends.
            let _said = self.run.env.timeout(FAREWELL_TIME, client.close()).await;
        }
    }

    /// One operation; afterwards the connection, or a new one, or none where none can be had.
    async fn turn<C: Client<Setup = S>>(&self, client: Option<C>, measured: Measured) -> Option<C> {
        let mut client = client?;
        let run = &self.run;
        let turn = run.turns.fetch_add(1, Ordering::Relaxed);
        let began = run.now();
        let time = run.plan.operation_time();
        let done = run.env.timeout(time, client.operate(&self.setup, run, turn)).await;
        let done = done.unwrap_or_else(|_| Err(late("an operation", time)));
        match done {
            Ok(done) => {
                if measured == Measured::Yes {
                    run.succeed(done, began);
                }
                Some(client)
            }
            Err(failure) => {
                // Failures while warming up are failures: what follows is not what was asked for.
                run.failures.note(&failure);
                if measured == Measured::Yes {
                    run.note_end(run.now());
                }
                match failure.after {
                    After::Usable => Some(client),
                    After::Lost => {
                        drop(client);
                        self.open().await
                    }
                }
            }
        }
    }

    async fn open<C: Client<Setup = S>>(&self) -> Option<C> {
        let run = &self.run;
        let time = run.plan.opening_time();
        for attempt in 0..OPEN_TRIES_MAX {
            if attempt > 0 {
                run.env.sleep(RETRY_PAUSE).await;
            }
            if run.phase() == Phase::End {
                return None;
            }
            let _place = self.opening.acquire().await.ok()?;
            let opened = run.env.timeout(time, C::open(&self.setup, self.connection)).await;
            match opened.unwrap_or_else(|_| Err(late("opening a connection", time))) {
                Ok(client) => return Some(client),
                Err(failure) => run.failures.note(&failure),
            }
        }
        None
    }
}

fn late(what: &str, time: Duration) -> Failure {
    Failure::lost(Kind::Timeout, format_args!("{what} took over {} s", time.as_secs_f64()))
}
