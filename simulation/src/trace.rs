//! What happened when: the thing that two runs of one seed must have in common.

use std::{
    fmt,
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
