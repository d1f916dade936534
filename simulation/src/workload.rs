//! What a workload is: something that makes a world work, or suffer.

use std::sync::Arc;

use env::BoxFuture;

use crate::{Random, World};

/// Something that goes on in a world until its deadline. Faults are workloads too.
pub trait Workload: Send + Sync {
    /// A short name; several of one name are told apart by their number.
    fn name(&self) -> &'static str;

    /// Prepares the world, before any fault begins. Workloads are set up one after the other.
    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        let _nothing = world;
        Box::pin(std::future::ready(()))
    }

    /// Goes on until about [`World::deadline`]; at the latest
    /// [`SETTLE_TIME`](crate::limits::SETTLE_TIME) later it is an error. Everything that lives
    /// longer than this has to be a task of a host of its own ([`World::client`]).
    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()>;
}

/// How a workload gets into a world.
#[derive(Clone, Copy)]
pub struct Share {
    /// The workload's name, unique among all.
    pub name: &'static str,
    /// In how many of a thousand worlds it takes part.
    pub per_mille: u64,
    /// Makes it, with chance of its own.
    pub make: fn(&mut Random) -> Arc<dyn Workload>,
}
