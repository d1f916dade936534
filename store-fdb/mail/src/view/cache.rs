//! A node's views, shared by all its sessions.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use env::{Env, probe::Planted};
use kv::Database;
use tokio::sync::Mutex as AsyncMutex;

use super::{Checkpointed, Freshness, View, ViewError, write_checkpoint};
use crate::{AccountId, MailboxId, limits, mailbox_tree};

/// Mailboxes whose views a node keeps; each costs about 100 bytes and 16 a page.
const VIEWS_MAX: usize = 20_000;

/// Accounts whose log growth a node counts between checkpoint rounds; each costs 12 bytes.
const GROWTH_ACCOUNTS_MAX: usize = 100_000;

/// Requests between two looks at the memory budget.
const REQUESTS_PER_SWEEP: u64 = 256;

/// The views that sessions share. Cloning is one reference count.
#[derive(Clone)]
pub struct ViewCache {
    shared: Arc<Shared>,
}

struct Shared {
    db: Database,
    env: Env,
    budget_bytes: usize,
    entries: Mutex<HashMap<(AccountId, MailboxId), Arc<Entry>>>,
    growth: Mutex<HashMap<AccountId, usize>>,
    requests: AtomicU64,
    loaded_bytes: AtomicU64,
}

#[derive(Default)]
struct Entry {
    latest: AsyncMutex<Option<Arc<View>>>,
    used: AtomicU64,
    checkpointing: AtomicBool,
}

/// What the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Views.
    pub views: usize,
    /// Bytes of loaded pages at the last look.
    pub loaded_bytes: u64,
}

/// How much an account's log has grown since its last round of checkpoints, as far as one node
/// knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// By fewer than [`limits::LOG_TAIL_CHECKPOINT`] entries.
    Small,
    /// By so many: [`ViewCache::checkpoint_account`] is to be called, by whichever node.
    CheckpointDue,
}

impl ViewCache {
    /// A cache that keeps about `budget_bytes` of pages.
    pub fn new(db: Database, env: Env, budget_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                db,
                env,
                budget_bytes,
                entries: Mutex::default(),
                growth: Mutex::default(),
                requests: AtomicU64::new(0),
                loaded_bytes: AtomicU64::new(0),
            }),
        }
    }

    /// The mailbox as of now.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn view(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Arc<View>, ViewError> {
        let request = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        if request % REQUESTS_PER_SWEEP == REQUESTS_PER_SWEEP - 1 {
            self.sweep().await;
        }
        let entry = self.entry(account, mailbox);
        entry.used.store(request, Ordering::Relaxed);
        let mut latest = entry.latest.lock().await;
        let advanced = match latest.as_ref() {
            Some(view) if env::probe::planted(Planted::StaleView) => {
                return Ok(Arc::clone(view));
            }
            Some(view) => view.advance(&self.shared.db).await,
            None => View::open(&self.shared.db, account, mailbox).await,
        };
        let view = match advanced {
            Ok(view) => Arc::new(view),
            Err(ViewError::TooOld(_)) => {
                Arc::new(View::open(&self.shared.db, account, mailbox).await?)
            }
            Err(error) => {
                *latest = None;
                return Err(error);
            }
        };
        *latest = Some(Arc::clone(&view));
        drop(latest);
        if view.tail() >= limits::LOG_TAIL_CHECKPOINT {
            self.checkpoint_soon(&entry, &view);
        }
        Ok(view)
    }

    /// Notes that a transaction of this node added to the account's log. Only a hint: a SELECT that
    /// finds a long tail writes its checkpoint whatever was counted here.
    pub fn note_commit(&self, account: AccountId) -> Growth {
        let mut growth = self.shared.growth.lock().expect("no code panics while it counts");
        if growth.len() >= GROWTH_ACCOUNTS_MAX {
            growth.clear();
        }
        let count = growth.entry(account).or_insert(0);
        *count += 1;
        if *count < limits::LOG_TAIL_CHECKPOINT {
            return Growth::Small;
        }
        growth.remove(&account);
        Growth::CheckpointDue
    }

    /// Writes the checkpoint of every mailbox of an account.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn checkpoint_account(&self, account: AccountId) -> Result<(), ViewError> {
        let tree = self
            .shared
            .db
            .run(|tx| async move { mailbox_tree(&tx, account).await })
            .await
            .map_err(ViewError::from)?;
        for mailbox in tree.iter() {
            match self.view(account, mailbox.id).await {
                Ok(view) => self.checkpoint(&self.entry(account, mailbox.id), &view).await?,
                // Deleted meanwhile.
                Err(ViewError::NoMailbox(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What the cache holds.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            views: self.entries().len(),
            loaded_bytes: self.shared.loaded_bytes.load(Ordering::Relaxed),
        }
    }

    fn checkpoint_soon(&self, entry: &Arc<Entry>, view: &Arc<View>) {
        if entry.checkpointing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (cache, entry, view) = (self.clone(), Arc::clone(entry), Arc::clone(view));
        self.shared
            .env
            .spawn("checkpoint-view", async move {
                if let Err(error) = cache.checkpoint(&entry, &view).await {
                    tracing::warn!(account = %view.account, %error, "checkpoint failed");
                }
                entry.checkpointing.store(false, Ordering::Release);
            })
            .detach();
    }

    async fn checkpoint(&self, entry: &Entry, view: &View) -> Result<(), ViewError> {
        let written = write_checkpoint(&self.shared.db, view).await?;
        let mut latest = entry.latest.lock().await;
        match written {
            Checkpointed::Written(settled) => {
                // A newer view than the one that was written keeps its rows; it stands on the
                // old base, so the next request opens anew on the new one.
                let newest = latest.as_ref().is_none_or(|held| held.as_of <= settled.as_of);
                *latest = newest.then(|| Arc::new(settled));
            }
            Checkpointed::Superseded => *latest = None,
        }
        Ok(())
    }

    fn entry(&self, account: AccountId, mailbox: MailboxId) -> Arc<Entry> {
        Arc::clone(self.entries().entry((account, mailbox)).or_default())
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<(AccountId, MailboxId), Arc<Entry>>> {
        self.shared.entries.lock().expect("no code panics while it holds the map")
    }

    /// Drops the rows of the views that were not used for longest until the rest fits the
    /// budget. Only rows that the checkpoint has are dropped.
    async fn sweep(&self) {
        let mut held: Vec<((AccountId, MailboxId), Arc<Entry>)> =
            self.entries().iter().map(|(key, entry)| (*key, Arc::clone(entry))).collect();
        held.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.used.load(Ordering::Relaxed)));
        let mut bytes = 0;
        for (position, (key, entry)) in held.iter().enumerate() {
            if position >= VIEWS_MAX {
                self.entries().remove(key);
                continue;
            }
            // An entry in use now is not swept now.
            let Ok(latest) = entry.latest.try_lock() else { continue };
            let Some(view) = latest.as_ref() else { continue };
            let loaded = view.loaded_bytes();
            if bytes + loaded > self.shared.budget_bytes {
                bytes += loaded - view.drop_rows();
            } else {
                bytes += loaded;
            }
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.shared.loaded_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl View {
    fn loaded_bytes(&self) -> usize {
        self.slots.iter().filter_map(|slot| slot.loaded()).map(|page| page.bytes()).sum()
    }

    fn drop_rows(&self) -> usize {
        let settled = self.slots.iter().filter(|slot| slot.freshness == Freshness::Checkpoint);
        settled.map(|slot| slot.drop_rows()).sum()
    }
}
