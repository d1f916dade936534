//! What happened when: the thing that two runs of one seed must have in common.

use std::{
    fmt, io,
    sync::{Arc, Mutex},
};

use env::{Env, Monotonic};

/// One entry of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Virtual time since the world began.
    pub at: Monotonic,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14.6} {}", self.at.since_start().as_secs_f64(), self.what)
    }
}

/// A record of events in the order in which they were noted. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Trace {
    env: Env,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Trace {
    /// An empty trace that takes its time from `env`.
    pub fn new(env: Env) -> Self {
        Self { env, events: Arc::default() }
    }

    /// Notes that something happens now.
    pub fn note(&self, what: impl Into<String>) {
        let event = Event { at: self.env.monotonic(), what: what.into() };
        self.events.lock().expect("no code panics while it notes").push(event);
    }

    /// What was noted so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().expect("no code panics while it notes").clone()
    }
}

/// How much of a world is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What was noted as facts.
    Facts,
    /// That, and every step of every task.
    Steps,
}

/// Writes what happens in a world while it happens.
pub struct Tracer {
    detail: Detail,
    /// Gone once it could not be written to.
    to: Mutex<Option<Box<dyn io::Write + Send>>>,
}

impl Tracer {
    /// Writes to `to`.
    pub fn new(detail: Detail, to: impl io::Write + Send + 'static) -> Self {
        Self { detail, to: Mutex::new(Some(Box::new(to))) }
    }

    pub(crate) fn fact(&self, fact: &dyn fmt::Display) {
        self.line(format_args!("{fact}"));
    }

    pub(crate) fn step(&self, now: u64, host: &str, task: &str, number: u64) {
        if self.detail == Detail::Steps {
            let (seconds, nanos) = (now / 1_000_000_000, now % 1_000_000_000);
            self.line(format_args!("{seconds:>6}.{nanos:09} {host} . {task}#{number}"));
        }
    }

    fn line(&self, line: fmt::Arguments<'_>) {
        let mut to = self.to.lock().expect("no code panics while it writes");
        // Whoever reads may have enough.
        if to.as_mut().is_some_and(|to| writeln!(to, "{line}").is_err()) {
            *to = None;
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracer({:?})", self.detail)
    }
}
