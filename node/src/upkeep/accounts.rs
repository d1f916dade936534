//! What is done for every account once a day: a walk over all of them, in shares that several
//! nodes may take. How far a share has come is in its item, so another node goes on there.

use cluster::work::{Done, Held, Kind, Worker, zone::Item};
use env::{BoxFuture, Env, Timestamp};
use kv::Database;
use mail::{
    AccountId, ModSeq, StoreError,
    interest::Remaining,
    view::{ViewCache, ViewError},
};
use prost::Message;

use super::{after, background};
use crate::{deliver::outbound, limits, services::Services};

/// What is done for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    /// Log entries older than [`limits::LOG_LIFE`] go, after checkpoints that do not need them.
    TrimLog,
    /// Records of operations that no retry asks for any more go.
    SweepOperations,
}

/// How far a share has come.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Walked {
    /// The last account that was done; absent before the first.
    #[prost(uint64, optional, tag = "1")]
    account: Option<u64>,
    /// When this walk began, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    begun_ms: i64,
}

pub(super) struct AccountWalk {
    db: Database,
    env: Env,
    views: ViewCache,
    chore: Chore,
}

#[derive(Debug, thiserror::Error)]
enum ChoreError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    View(#[from] ViewError),
}

impl AccountWalk {
    pub(super) fn new(services: &Services, chore: Chore) -> Self {
        let (db, env, views) = (background(services), services.env.clone(), services.views.clone());
        Self { db, env, views, chore }
    }

    /// Does some accounts of a share. Returns when to go on, and where.
    async fn walk(
        &self,
        share: u64,
        mut walked: Walked,
    ) -> Result<(Timestamp, Walked), ChoreError> {
        let end = self.env.monotonic() + limits::ACCOUNT_WALK_TURN;
        if walked.account.is_none() {
            walked.begun_ms = self.env.wall().unix_ms();
        }
        loop {
            let (last, limit) = (walked.account.map(AccountId), limits::ACCOUNTS_PER_READ);
            let ids = self.db.run(|tx| async move { mail::account_ids(&tx, last, limit).await });
            let ids = ids.await?;
            if ids.is_empty() {
                self.conclude(share).await?;
                let begun = Timestamp::from_unix_ms(walked.begun_ms);
                return Ok((after(begun, limits::ACCOUNT_WALK_INTERVAL), Walked::default()));
            }
            for id in ids {
                if id.0 % limits::ACCOUNT_SHARES == share {
                    self.visit(id).await?;
                }
                walked.account = Some(id.0);
                if self.env.monotonic() >= end {
                    return Ok((self.env.wall(), walked));
                }
            }
        }
    }

    /// What is no account's, once a walk.
    async fn conclude(&self, share: u64) -> Result<(), ChoreError> {
        if self.chore == Chore::SweepOperations && share == 0 {
            let now = self.env.wall();
            let forget = |tx| async move {
                outbound::forget_submitted(&tx, now);
                Ok::<_, StoreError>(())
            };
            self.db.run(forget).await?;
        }
        Ok(())
    }

    async fn visit(&self, account: AccountId) -> Result<(), ChoreError> {
        match self.chore {
            Chore::TrimLog => self.trim(account).await,
            Chore::SweepOperations => {
                let now = self.env.wall();
                let sweep = |tx| async move { mail::sweep_operations(&tx, account, now).await };
                while self.db.run(sweep).await? == Remaining::Some {}
                Ok(())
            }
        }
    }

    async fn trim(&self, account: AccountId) -> Result<(), ChoreError> {
        let found = self.db.run(|tx| async move {
            let before = ModSeq(tx.read_version().await?.saturating_sub(limits::LOG_LIFE_VERSIONS));
            let old = mail::reaches_below(&tx, account, before).await?;
            Ok::<_, StoreError>(old.then_some(before))
        });
        let Some(before) = found.await? else { return Ok(()) };
        // From now on no view needs what goes.
        self.views.checkpoint_account(account).await?;
        let trim = |tx| async move { mail::trim_log_some(&tx, account, before).await };
        while self.db.run(trim).await? == Remaining::Some {}
        Ok(())
    }
}

impl Worker for AccountWalk {
    fn kind(&self) -> Kind {
        match self.chore {
            Chore::TrimLog => Kind::LogTrim,
            Chore::SweepOperations => Kind::OperationSweep,
        }
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let share = held.zone.parse().map_err(|_| format!("{} is no share", held.zone))?;
            let walked = Walked::decode(&item.payload[..]).map_err(|error| error.to_string())?;
            let (due, walked) =
                self.walk(share, walked).await.map_err(|error| error.to_string())?;
            Ok(Done::Again { due, payload: walked.encode_to_vec() })
        })
    }
}
