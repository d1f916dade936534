//! Keeps the node's interests in the store equal to what its sessions wait for.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
};

use env::{Env, Monotonic};
use kv::Database;
use mail::{AccountId, interest};
use tokio::sync::{Notify, oneshot};

use super::{Hear, Heard};
use crate::{ClusterError, Epoch, Fence, Membership, Standing, limits};

/// Accounts that sessions of this node wait for.
pub(super) struct Interests {
    db: Database,
    env: Env,
    membership: Membership,
    hear: Hear,
    accounts: Mutex<BTreeMap<AccountId, Account>>,
    /// An account has come that is not written.
    wanted: Notify,
}

struct Account {
    /// Sessions that wait for it.
    users: usize,
    /// The epoch that is known to hear of it.
    written: Option<Epoch>,
    /// When its last session went.
    free_since: Monotonic,
    /// Those who wait until it is written.
    waiting: Vec<oneshot::Sender<()>>,
}

/// A session's interest in an account.
pub struct Interest {
    interests: Arc<Interests>,
    account: AccountId,
}

impl Interest {
    /// Waits until changes of the account are heard. Whoever looks at the log after this, and then
    /// at each wake-up, misses none.
    pub async fn heard(&self) {
        loop {
            let written = {
                let current = self.interests.membership.fence().epoch();
                let mut accounts = self.interests.accounts_held();
                let Some(account) = accounts.get_mut(&self.account) else { return };
                if account.written == Some(current) {
                    return;
                }
                let (sender, written) = oneshot::channel();
                account.waiting.push(sender);
                written
            };
            self.interests.wanted.notify_one();
            let _written_or_asked_again = written.await;
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let now = self.interests.env.monotonic();
        let mut accounts = self.interests.accounts_held();
        let Some(account) = accounts.get_mut(&self.account) else { return };
        account.users -= 1;
        account.free_since = now;
        if account.users == 0 && account.written.is_none() {
            accounts.remove(&self.account);
        }
    }
}

/// One transaction's worth of changes.
#[derive(Default)]
struct Batch {
    listen: Vec<AccountId>,
    unlisten: Vec<AccountId>,
}

impl Interests {
    pub(super) fn new(db: &Database, env: &Env, membership: &Membership, hear: Hear) -> Self {
        Self {
            db: db.clone(),
            env: env.clone(),
            membership: membership.clone(),
            hear,
            accounts: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    pub(super) fn listen(this: &Arc<Self>, account: AccountId) -> Interest {
        match this.accounts_held().entry(account) {
            Entry::Occupied(held) => held.into_mut().users += 1,
            Entry::Vacant(vacant) => {
                let free_since = Monotonic::default();
                let (written, waiting) = (None, Vec::new());
                vacant.insert(Account { users: 1, written, free_since, waiting });
            }
        }
        Interest { interests: Arc::clone(this), account }
    }

    pub(super) fn accounts(&self) -> usize {
        self.accounts_held().len()
    }

    fn accounts_held(&self) -> MutexGuard<'_, BTreeMap<AccountId, Account>> {
        self.accounts.lock().expect("no code panics while it holds the accounts")
    }

    /// Writes what is wanted and clears what is not, until it is dropped.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut standing = self.membership.standing();
        let mut known = self.membership.fence().epoch();
        loop {
            let standing_now = *standing.borrow_and_update();
            if let Standing::Member(epoch) = standing_now {
                match self.write_all().await {
                    Ok(()) if epoch != known => {
                        // Changes of the time between the epochs were told to nobody.
                        known = epoch;
                        env::sometimes!("a node listens under another epoch");
                        (self.hear)(Heard::Anything);
                    }
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(%error, "interests cannot be written");
                        self.env.sleep(limits::STORE_PAUSE).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.wanted.notified() => {}
                changed = standing.changed() => if changed.is_err() { return },
                () = self.env.sleep(limits::INTEREST_LINGER / 2) => {}
            }
        }
    }

    async fn write_all(&self) -> Result<(), ClusterError> {
        loop {
            let fence = self.membership.fence();
            let batch = self.next_batch(fence.epoch());
            if batch.listen.is_empty() && batch.unlisten.is_empty() {
                return Ok(());
            }
            let result = self.write(&fence, &batch).await;
            self.note(&batch, fence.epoch(), result.is_ok());
            result?;
        }
    }

    fn next_batch(&self, epoch: Epoch) -> Batch {
        let now = self.env.monotonic();
        let mut batch = Batch::default();
        for (id, account) in self.accounts_held().iter_mut() {
            if batch.listen.len() + batch.unlisten.len() == limits::INTERESTS_PER_TRANSACTION {
                break;
            }
            let lingered = now.saturating_since(account.free_since) >= limits::INTEREST_LINGER;
            match account.users {
                0 if account.written == Some(epoch) && !lingered => {}
                // Of an ended epoch, settled by others; or not to be heard any more.
                0 => {
                    // A session that comes from now on waits for it to be written again.
                    account.written = None;
                    batch.unlisten.push(*id);
                }
                _ if account.written == Some(epoch) => {}
                _ => batch.listen.push(*id),
            }
        }
        batch
    }

    async fn write(&self, fence: &Fence, batch: &Batch) -> Result<(), ClusterError> {
        let listener = fence.epoch().into();
        self.db
            .run(|tx| async move {
                fence.check(&tx).await?;
                for account in &batch.listen {
                    interest::listen(&tx, *account, listener);
                }
                for account in &batch.unlisten {
                    interest::unlisten(&tx, *account, listener);
                }
                Ok(())
            })
            .await
    }

    fn note(&self, batch: &Batch, epoch: Epoch, done: bool) {
        let mut accounts = self.accounts_held();
        for id in &batch.unlisten {
            if let Some(account) = accounts.get_mut(id)
                && account.users == 0
            {
                if done {
                    accounts.remove(id);
                } else {
                    account.written = Some(epoch);
                }
            }
        }
        for id in batch.listen.iter().filter(|_| done) {
            if let Some(account) = accounts.get_mut(id) {
                account.written = Some(epoch);
                for waiting in account.waiting.drain(..) {
                    // Whoever does not wait any more has gone.
                    let _gone = waiting.send(());
                }
            }
        }
    }
}
