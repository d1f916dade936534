//! Removes bytes that nothing needs: the blob crate's sweeper, by one node at a time.

use blob::sweep::{Progress, Sweeper};
use cluster::work::{Done, Held, Kind, Worker, zone::Item};
use env::{BoxFuture, Env};

use super::after;
use crate::limits;

pub(super) struct BlobSweep {
    sweeper: Sweeper,
    env: Env,
}

impl BlobSweep {
    pub(super) fn new(sweeper: Sweeper, env: Env) -> Self {
        Self { sweeper, env }
    }
}

impl Worker for BlobSweep {
    fn kind(&self) -> Kind {
        Kind::BlobSweep
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, _held: &'a Held, _item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let now = self.env.wall();
            let progress = self.sweeper.round(now).await.map_err(|error| error.to_string())?;
            let due = match progress {
                Progress::More => now,
                Progress::Done => after(now, limits::BLOB_SWEEP_INTERVAL),
            };
            Ok(Done::Again { due, payload: Vec::new() })
        })
    }
}
