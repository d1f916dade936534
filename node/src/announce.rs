//! What follows a commit that changed an account: sessions wake, here and elsewhere.

use std::sync::{Arc, OnceLock};

use env::{Env, probe::Planted};
use kv::{Committed, Database};
use mail::{
    AccountId, Interested, ListenerId, ModSeq,
    view::{Growth, ViewCache},
};

use crate::{hub::Hub, upkeep};

/// Tells other nodes of changes; best effort.
pub(crate) trait Elsewhere: Send + Sync + 'static {
    /// Tells the listeners that `account` has changed in the commit of `version`.
    fn tell(&self, listeners: &[ListenerId], account: AccountId, version: ModSeq);
}

/// Tells who waits. Cloning is one reference count.
#[derive(Clone)]
pub struct Announcer {
    hub: Hub,
    views: ViewCache,
    db: Database,
    env: Env,
    elsewhere: Arc<OnceLock<Box<dyn Elsewhere>>>,
}

impl Announcer {
    /// An announcer to the sessions of this node.
    pub fn new(db: Database, env: Env, hub: Hub, views: ViewCache) -> Self {
        Self { hub, views, db, env, elsewhere: Arc::default() }
    }

    /// Tells other nodes as well, from now on.
    pub(crate) fn tell_elsewhere(&self, elsewhere: impl Elsewhere) {
        let set = self.elsewhere.set(Box::new(elsewhere));
        assert!(set.is_ok(), "a node has one mesh");
    }

    /// Announces what one transaction did to `account`, and hands its result on.
    pub fn committed<T>(&self, account: AccountId, committed: Committed<(T, Interested)>) -> T {
        let version = committed.versionstamp.map(|stamp| ModSeq(stamp.version()));
        let (value, interested) = committed.value;
        if let Some(version) = version {
            self.changed(account, version, &interested);
        }
        value
    }

    /// Announces that the commit of `version` changed `account`.
    pub fn changed(&self, account: AccountId, version: ModSeq, interested: &Interested) {
        if env::probe::planted(Planted::LoseWakeups) {
            return;
        }
        self.hub.ring(account, version);
        if self.views.note_commit(account) == Growth::CheckpointDue {
            self.ask_for_checkpoints(account);
        }
        if let Some(elsewhere) = self.elsewhere.get()
            && !interested.listeners.is_empty()
        {
            env::sometimes!("a node tells others of a change");
            elsewhere.tell(&interested.listeners, account, version);
        }
    }

    fn ask_for_checkpoints(&self, account: AccountId) {
        let (db, env) = (self.db.clone(), self.env.clone());
        let asking = async move {
            if let Err(error) = upkeep::ask_for_checkpoints(&db, &env, account).await {
                // Whoever selects a mailbox with a long tail writes its checkpoint.
                tracing::warn!(%account, %error, "checkpoints are not asked for");
            }
        };
        self.env.spawn("ask-for-checkpoints", asking).detach();
    }
}
