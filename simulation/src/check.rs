//! What a check is: one of the design's properties, held against a world that has come to rest.

use std::fmt;

use env::{BoxFuture, Monotonic};

use crate::World;

/// The properties that always hold (design section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// Every message acknowledged with 250 is in each recipient's mailbox once, or in the queue,
    /// or its sender got a report.
    P1,
    /// UIDs become visible in ascending order and are never used again.
    P2,
    /// An idling client learns of a change within the bound; a client that resyncs from any
    /// earlier state converges on the server's state.
    P3,
    /// Counters and quota equal the fold of the state.
    P4,
    /// No reference points to a missing blob; no unreferenced blob outlives its grace.
    P5,
    /// Nobody acts on a claim after its epoch ended.
    P6,
    /// A dead node's work is taken over within the time-to-live plus one scan; a remote duplicate
    /// happens only where the remote's reply was lost, and is counted.
    P7,
    /// No account ever reads another's data without a grant.
    P8,
    /// Every buffer has a bound, a hostile peer cannot exceed it, and no peer causes a panic.
    P9,
    /// Nodes of version N and N+1 run side by side on one store.
    P10,
    /// The world itself went wrong: it did not come to rest, or it could not be looked at.
    World,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// What was found, for whoever has to understand it.
    pub what: String,
    /// When it happened, where that is known.
    pub at: Option<Monotonic>,
}

impl Violation {
    /// A violation that is found in the world's last state.
    pub fn new(property: Property, what: impl Into<String>) -> Self {
        Self { property, what: what.into(), at: None }
    }

    /// A violation that happened at a known moment.
    pub fn at(property: Property, at: Monotonic, what: impl Into<String>) -> Self {
        Self { property, what: what.into(), at: Some(at) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)?;
        match self.at {
            Some(at) => write!(f, " (at {:.6})", at.since_start().as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// Holds one property against a world: its facts, and its store once it has come to rest.
pub trait Check: Send + Sync {
    /// A short name, for reports.
    fn name(&self) -> &'static str;

    /// What it proves.
    fn property(&self) -> Property;

    /// Looks, after the workloads and the faults have ended and the world has settled. Nodes still
    /// run.
    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>>;
}
