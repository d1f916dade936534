//! Wake-ups within a node: sessions learn that an account's log has grown.
//!
//! A hint only: a session that is woken reads the log, and one that is not reads it at its next
//! command. What other nodes commit rings here too: by a datagram, and by this node's inbox.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use mail::{AccountId, ModSeq};
use tokio::sync::watch;

/// The node's bell for each account that has sessions. Cloning is one reference count.
#[derive(Clone, Default)]
pub struct Hub {
    /// Each with the version of the newest change that it was rung for.
    bells: Arc<Mutex<HashMap<AccountId, watch::Sender<u64>>>>,
}

/// A session's ear for one account.
pub struct Wakeups {
    hub: Hub,
    account: AccountId,
    /// Given up in `drop` alone, under the hub's lock: two that go at once must not each count
    /// the other as staying.
    bell: Option<watch::Receiver<u64>>,
}

impl Hub {
    /// Listens for changes of `account` from now on.
    pub fn listen(&self, account: AccountId) -> Wakeups {
        let mut bells = self.bells.lock().expect("no code panics while it holds the bells");
        let sender = bells.entry(account).or_insert_with(|| watch::Sender::new(0));
        Wakeups { hub: self.clone(), account, bell: Some(sender.subscribe()) }
    }

    /// Wakes the sessions of `account`, unless they were woken for this change or a later one. To
    /// be called after the commit, whose version this is.
    pub fn ring(&self, account: AccountId, version: ModSeq) {
        let bells = self.bells.lock().expect("no code panics while it holds the bells");
        if let Some(bell) = bells.get(&account) {
            bell.send_if_modified(|newest| {
                let newer = version.0 > *newest;
                *newest = version.0.max(*newest);
                newer
            });
        }
    }

    /// Wakes every session.
    pub fn ring_all(&self) {
        let bells = self.bells.lock().expect("no code panics while it holds the bells");
        for bell in bells.values() {
            bell.send_modify(|_newest| {});
        }
    }

    /// Accounts that have sessions.
    pub fn accounts(&self) -> usize {
        self.bells.lock().expect("no code panics while it holds the bells").len()
    }
}

impl Wakeups {
    /// Waits for the next change. Several changes at once are one wake-up.
    pub async fn changed(&mut self) {
        let Some(bell) = &mut self.bell else { return std::future::pending().await };
        if bell.changed().await.is_err() {
            // The sender lives in the hub as long as a receiver does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        let mut bells = self.hub.bells.lock().expect("no code panics while it holds the bells");
        drop(self.bell.take());
        if bells.get(&self.account).is_some_and(|bell| bell.receiver_count() == 0) {
            bells.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn listeners_are_woken_and_forgotten() {
        let hub = Hub::default();
        let mut first = hub.listen(AccountId(1));
        let mut second = hub.listen(AccountId(1));
        hub.ring(AccountId(2), ModSeq(7));
        hub.ring(AccountId(1), ModSeq(7));
        first.changed().await;
        second.changed().await;
        drop(first);
        assert_eq!(hub.accounts(), 1);
        hub.ring(AccountId(1), ModSeq(8));
        second.changed().await;
        hub.ring_all();
        second.changed().await;
        hub.ring(AccountId(1), ModSeq(8));
        hub.ring(AccountId(1), ModSeq(7));
        assert!(second.changed().now_or_never().is_none(), "told twice");
        drop(second);
        assert_eq!(hub.accounts(), 0);
    }
}
