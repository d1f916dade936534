//! P5: no reference points to a missing blob; no unreferenced blob outlives its grace.
//!
//! Looks, lets the grace time pass, and looks again: whatever nobody needed at first has to be gone.
//! Meanwhile the queue goes on, and lets go of bytes that are in their grace time at the end.

use std::{collections::BTreeSet, time::Duration};

use blob::{BlobName, references};
use env::BoxFuture;
use kv::Transaction;

use crate::{Check, Property, Violation, World};

/// More than the grace time, and than the time between two looks at everything.
const GRACE: Duration = Duration::from_hours(25);

/// Two sweeps.
const SWEEPS: Duration = Duration::from_secs(130);

/// Names and references that are read at once.
const PAGE: usize = 1_000;

pub(super) struct Bytes;

impl Check for Bytes {
    fn name(&self) -> &'static str {
        "bytes"
    }

    fn property(&self) -> Property {
        Property::P5
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let looked = async {
                let (stored_before, needed_before) = (stored(world).await?, needed(world).await?);
                let free: BTreeSet<_> = stored_before.difference(&needed_before).cloned().collect();
                world.pass(GRACE);
                world.env().sleep(SWEEPS).await;
                Ok::<_, String>((free, needed(world).await?, stored(world).await?))
            };
            let (free, needed, stored) = match looked.await {
                Ok(looked) => looked,
                Err(error) => return vec![Violation::new(Property::World, error)],
            };
            let violation = |what: String| Violation::new(Property::P5, what);
            let missing = needed
                .difference(&stored)
                .map(|name| violation(format!("{name:?} is needed, and its bytes are gone")));
            let left = stored
                .difference(&needed)
                .filter(|name| free.contains(*name))
                .map(|name| violation(format!("{name:?} is kept, and nobody needs it")));
            missing.chain(left).collect()
        })
    }
}

pub(super) async fn needed(world: &World) -> Result<BTreeSet<BlobName>, String> {
    let mut needed = BTreeSet::new();
    let mut after = None;
    loop {
        let behind = after.as_ref();
        let read = |tx: Transaction| async move { references::page(&tx, behind, PAGE).await };
        let page = world.db().run(read).await.map_err(|error| error.to_string())?;
        needed.extend(page.found.iter().map(|(id, _)| BlobName::of(id)));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(needed),
        }
    }
}

async fn stored(world: &World) -> Result<BTreeSet<BlobName>, String> {
    let mut stored = BTreeSet::new();
    let mut after = None;
    loop {
        let page = world.blobs().list(after.as_ref(), PAGE).await;
        let page = page.map_err(|error| error.to_string())?;
        stored.extend(page.names);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(stored),
        }
    }
}
