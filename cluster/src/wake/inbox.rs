//! Reads the node's inbox.

use std::collections::BTreeMap;

use env::{BoxFuture, Env, probe::Planted};
use kv::{Database, Watch};
use mail::{
    AccountId, ModSeq, StoreError,
    interest::{self, Remaining},
};
use tokio::sync::watch;

use super::{Hear, Heard, Watching};
use crate::{Epoch, Membership, Standing, limits};

/// Reads the inbox of the node's present epoch until it is dropped.
pub(super) async fn read(
    db: Database,
    env: Env,
    membership: Membership,
    watching: Watching,
    hear: Hear,
) {
    let mut standing = membership.standing();
    let mut watched: Option<Watched> = None;
    let mut rung = Rung::ByClock;
    loop {
        let standing_now = *standing.borrow_and_update();
        let Standing::Member(epoch) = standing_now else {
            watched = None;
            if standing.changed().await.is_err() {
                return;
            }
            continue;
        };
        if watched.as_ref().is_some_and(|watched| watched.epoch != epoch) {
            watched = None;
        }
        match read_once(&db, epoch, watching == Watching::Bell && watched.is_none()).await {
            Ok(read) => {
                if rung == Rung::ByBell && read.changes.is_empty() {
                    // It was about something that heartbeats look at.
                    membership.hurry();
                }
                for (account, version) in read.changes {
                    if env::probe::planted(Planted::LoseWakeups) {
                        continue;
                    }
                    env::sometimes!("a node finds a change in its inbox");
                    hear(Heard::Changed(account, version));
                }
                if let Some(bell) = read.bell {
                    watched = Some(Watched { epoch, bell: Box::pin(bell.changed()) });
                }
                if read.remaining == Remaining::Some {
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the inbox cannot be read");
                env.sleep(limits::STORE_PAUSE).await;
                continue;
            }
        }
        rung = wait(&env, &mut watched, &mut standing).await;
    }
}

/// A bell that is watched.
struct Watched {
    epoch: Epoch,
    bell: BoxFuture<'static, Result<(), kv::Error>>,
}

/// What made it time to read.
#[derive(PartialEq, Eq)]
enum Rung {
    ByBell,
    ByClock,
}

async fn wait(
    env: &Env,
    watched: &mut Option<Watched>,
    standing: &mut watch::Receiver<Standing>,
) -> Rung {
    let bell = async {
        match watched {
            Some(watched) => (&mut watched.bell).await,
            None => std::future::pending().await,
        }
    };
    let rung = tokio::select! {
        biased;
        rung = bell => rung,
        () = env.sleep(limits::INBOX_PERIOD) => return Rung::ByClock,
        _ = standing.changed() => return Rung::ByClock,
    };
    *watched = None;
    match rung {
        Ok(()) => Rung::ByBell,
        // The clock does without it; another is set with the next read.
        Err(error) => {
            tracing::debug!(%error, "the bell cannot be watched");
            env.sleep(limits::INBOX_PERIOD).await;
            Rung::ByClock
        }
    }
}

struct Read {
    changes: BTreeMap<AccountId, ModSeq>,
    remaining: Remaining,
    bell: Option<Watch>,
}

async fn read_once(db: &Database, epoch: Epoch, watch: bool) -> Result<Read, StoreError> {
    let listener = epoch.into();
    db.run(|tx| async move {
        let bell = watch.then(|| tx.watch(&interest::bell_key(listener)));
        let (changes, remaining) = interest::take_inbox(&tx, listener).await?;
        Ok(Read { changes, remaining, bell })
    })
    .await
}
