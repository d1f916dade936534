//! Takes out what abuse control keeps for a time, and the senders that forwarding does, by whichever node.

use std::time::Duration;

use cluster::{
    srs::tokens,
    work::{Done, Held, Kind, Worker, zone::Item},
};
use env::{BoxFuture, Env, Timestamp};
use kv::{Database, Transaction};
use mail::StoreError;

use super::{block, greylist, rate};
use crate::limits;

pub(crate) struct GuardSweep {
    db: Database,
    env: Env,
}

impl GuardSweep {
    pub(crate) fn new(db: Database, env: Env) -> Self {
        Self { db, env }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.env.wall();
        let counters = |tx: Transaction| async move {
            rate::sweep(&tx, now);
            Ok::<_, StoreError>(())
        };
        self.db.run(counters).await?;
        let senders = |tx: Transaction| async move {
            let today = u64::try_from(now.unix_seconds() / 86_400).unwrap_or(0);
            tokens::forget_before(&tx, today.saturating_sub(limits::SRS_TOKEN_DAYS));
            Ok::<_, StoreError>(())
        };
        self.db.run(senders).await?;
        let entries = |tx: Transaction| async move { greylist::sweep(&tx, now).await };
        while self.db.run(entries).await? == greylist::Swept::Some {}
        let mut after = None;
        loop {
            let blocks = |tx: Transaction| async move { block::sweep(&tx, after, now).await };
            after = self.db.run(blocks).await?;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

impl Worker for GuardSweep {
    fn kind(&self) -> Kind {
        Kind::GuardSweep
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, _held: &'a Held, _item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            self.sweep().await.map_err(|error| error.to_string())?;
            let due = after(self.env.wall(), limits::GUARD_SWEEP_PERIOD);
            Ok(Done::Again { due, payload: Vec::new() })
        })
    }
}

fn after(now: Timestamp, delay: Duration) -> Timestamp {
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(now.unix_ms().saturating_add(delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn senders_of_forwards_go_in_their_time() {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let today = u64::try_from(env.wall().unix_seconds() / 86_400).unwrap();
        let last = today - limits::SRS_TOKEN_DAYS;
        for (day, id) in [(today, "a"), (last, "b"), (last - 1, "c")] {
            let keep = |tx| async move {
                tokens::keep(&tx, (day, id), "x@y.example", "example.org", 9).await
            };
            db.run(keep).await.unwrap();
        }
        GuardSweep::new(db.clone(), env).sweep().await.unwrap();
        let left = db.run(|tx| async move { tokens::some(&tx, None).await }).await.unwrap();
        let ids: Vec<_> = left.iter().map(|(_, id, _)| id.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
    }
}
