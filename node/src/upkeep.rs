//! What has to be done for a store from time to time, by whichever node: kinds of work.
//!
//! Each kind's zones have one item each, which comes again and again. A node that starts puts in
//! what is missing.

mod accounts;
mod blobs;
mod views;

use std::{sync::Arc, time::Duration};

use cluster::work::{self, Kind, Worker};
use env::{Env, Timestamp};
use kv::{Database, Priority};
use mail::{AccountId, StoreError};

use self::{
    accounts::{AccountWalk, Chore},
    blobs::BlobSweep,
    views::ViewCheckpoint,
};
use crate::{
    guard::GuardSweep, judging::tell::Teller, limits, outbound, services::Services,
    signing::rotation::Rotation,
};

/// The zone of work that no more than one node does at a time.
const WHOLE: &str = "all";

/// The id of a zone's only item.
const ONLY: &[u8] = b"";

/// What this node can do.
pub(crate) fn workers(services: &Services, sweeper: blob::sweep::Sweeper) -> Vec<Arc<dyn Worker>> {
    let walk = |chore| AccountWalk::new(services, chore);
    vec![
        Arc::new(BlobSweep::new(sweeper, services.env.clone())),
        Arc::new(walk(Chore::TrimLog)),
        Arc::new(walk(Chore::SweepOperations)),
        Arc::new(ViewCheckpoint::new(services)),
        Arc::new(outbound::Sender::new(services)),
        Arc::new(outbound::TlsReporter::new(services)),
        Arc::new(Teller::new(services)),
        Arc::new(Rotation::new(services)),
        Arc::new(GuardSweep::new(background(services), services.env.clone())),
    ]
}

/// Puts in the items that come again and again, where they are missing.
pub(crate) async fn seed(db: &Database, env: &Env) -> Result<(), StoreError> {
    let whole = [Kind::BlobSweep, Kind::TlsReports, Kind::DmarcReports, Kind::GuardSweep];
    let mut zones: Vec<_> = whole.into_iter().map(|kind| (kind, WHOLE.to_owned())).collect();
    for share in 0..limits::ACCOUNT_SHARES {
        zones.push((Kind::LogTrim, share.to_string()));
        zones.push((Kind::OperationSweep, share.to_string()));
    }
    let (zones, now) = (&zones, env.wall());
    db.run(|tx| async move {
        for (kind, zone) in zones {
            work::enqueue_into_empty(&tx, *kind, zone, now, ONLY, &[]).await?;
        }
        Ok(())
    })
    .await
}

/// Asks for a round of checkpoints of an account, of whichever node.
pub(crate) async fn ask_for_checkpoints(
    db: &Database,
    env: &Env,
    account: AccountId,
) -> Result<(), StoreError> {
    let (zone, now) = (&account.0.to_string(), env.wall());
    db.run(|tx| async move {
        work::enqueue_into_empty(&tx, Kind::ViewCheckpoint, zone, now, ONLY, &[]).await
    })
    .await
}

/// The store, for what can wait where it is busy.
pub(crate) fn background(services: &Services) -> Database {
    services.db.counted_apart().with_priority(Priority::Background)
}

fn after(now: Timestamp, delay: Duration) -> Timestamp {
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(now.unix_ms().saturating_add(delay))
}
