//! Writes the checkpoints of accounts whose logs have grown.

use cluster::work::{Done, Held, Kind, Worker, zone::Item};
use env::BoxFuture;
use mail::{
    AccountId, StoreError,
    view::{ViewCache, ViewError},
};

use crate::{limits, services::Services};

pub(super) struct ViewCheckpoint {
    views: ViewCache,
}

impl ViewCheckpoint {
    pub(super) fn new(services: &Services) -> Self {
        Self { views: services.views.clone() }
    }
}

impl Worker for ViewCheckpoint {
    fn kind(&self) -> Kind {
        Kind::ViewCheckpoint
    }

    fn zones_at_once(&self) -> usize {
        limits::CHECKPOINTS_AT_ONCE
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, held: &'a Held, _item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let account = held.zone.parse().map(AccountId);
            let account = account.map_err(|_| format!("{} is no account's id", held.zone))?;
            match self.views.checkpoint_account(account).await {
                Ok(()) => {
                    env::sometimes!("wrote the checkpoints of an account");
                    Ok(Done::Finished)
                }
                Err(ViewError::Store(StoreError::NoAccount(_))) => Ok(Done::Finished),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}
