//! Watches: told when a key's value changes.
//!
//! Invariants: a live watch is told of every change after its transaction's commit, and at once
//! where the value changed between the transaction's view and the moment it went live. It may be
//! told without a change. Their number is bounded, and a dropped [`Watch`] frees its place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{Error, Result, limits::WATCHES_MAX, local::store::BoxFuture};

/// One watch on one key. It becomes live when its transaction commits; dropping it ends it.
#[must_use = "dropping a Watch ends it"]
pub struct Watch {
    kind: Kind,
}

enum Kind {
    Local(Waiting),
    #[cfg_attr(not(feature = "fdb"), expect(dead_code, reason = "only the fdb engine's are these"))]
    Remote(BoxFuture<Result<()>>),
    Refused(Error),
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// Completes when the value has changed from what the transaction saw, or without reason.
    ///
    /// # Errors
    /// [`Error::TooManyWatches`], after which a FoundationDB client may also leave the other watches
    /// of that transaction untold; [`Error::Cancelled`] where the transaction was dropped or did
    /// not commit, or the engine was closed; what FoundationDB's client reports.
    pub async fn changed(self) -> Result<()> {
        match self.kind {
            Kind::Local(mut waiting) => {
                (&mut waiting.receiver).await.unwrap_or(Err(Error::Cancelled))
            }
            Kind::Remote(future) => future.await,
            Kind::Refused(error) => Err(error),
        }
    }

    pub(crate) fn refused(error: Error) -> Self {
        Self { kind: Kind::Refused(error) }
    }

    #[cfg(feature = "fdb")]
    pub(crate) fn remote(future: BoxFuture<Result<()>>) -> Self {
        Self { kind: Kind::Remote(future) }
    }
}

/// Dropped in this order: a watch that goes live between the two finds its channel closed.
struct Waiting {
    receiver: oneshot::Receiver<Result<()>>,
    _slot: Slot,
}

/// A watch's place among [`WATCHES_MAX`].
struct Slot {
    registry: Arc<Registry>,
    key: Bytes,
    number: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.registry.lock();
        open.count -= 1;
        if let Some(watches) = open.live.get_mut(&self.key) {
            watches.retain(|live| live.number != self.number);
            if watches.is_empty() {
                open.live.remove(&self.key);
            }
        }
    }
}

/// The transaction's side of a watch, until it commits.
pub(crate) struct Dormant {
    pub(crate) key: Bytes,
    /// What the transaction saw; `None` where it could not see it (an uncommitted versionstamp).
    pub(crate) expected: Option<Option<Bytes>>,
    pub(crate) delivery: Delivery,
    number: u64,
    sender: oneshot::Sender<Result<()>>,
}

/// Whether a watch will be told, or has been lost to fault injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Told,
    Lost,
}

/// An engine's live watches.
#[derive(Default)]
pub(crate) struct Registry {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    count: usize,
    next_number: u64,
    live: BTreeMap<Bytes, Vec<Live>>,
}

struct Live {
    number: u64,
    delivery: Delivery,
    sender: oneshot::Sender<Result<()>>,
}

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while it holds the watches")
    }

    /// A watch and the transaction's side of it.
    pub(crate) fn open(
        self: &Arc<Self>,
        key: Bytes,
        expected: Option<Option<Bytes>>,
        delivery: Delivery,
    ) -> Result<(Watch, Dormant)> {
        let mut open = self.lock();
        if open.count >= WATCHES_MAX {
            return Err(Error::TooManyWatches);
        }
        open.count += 1;
        open.next_number += 1;
        let number = open.next_number;
        drop(open);
        let (sender, receiver) = oneshot::channel();
        let slot = Slot { registry: Arc::clone(self), key: key.clone(), number };
        let watch = Watch { kind: Kind::Local(Waiting { receiver, _slot: slot }) };
        Ok((watch, Dormant { key, expected, delivery, number, sender }))
    }

    /// Makes a watch live after its transaction's commit. `current` reads the newest value.
    pub(crate) fn activate(
        &self,
        dormant: Dormant,
        current: impl Fn(&[u8]) -> Result<Option<Bytes>>,
    ) {
        let Dormant { key, expected, delivery, number, sender } = dormant;
        let mut open = self.lock();
        // A watch that was dropped before the commit closed its channel and gave its place back;
        // the slot's removal and this check are under the one lock.
        if sender.is_closed() {
            return;
        }
        open.live.entry(key.clone()).or_default().push(Live { number, delivery, sender });
        drop(open);
        // It is live from here on, so a change is either seen now or told later.
        if expected.is_some_and(|expected| current(&key).as_ref() != Ok(&expected)) {
            self.tell(std::iter::once(&key));
        }
    }

    /// Tells the watches of the keys that changed.
    pub(crate) fn tell<'a>(&self, keys: impl Iterator<Item = &'a Bytes>) {
        let mut open = self.lock();
        if open.live.is_empty() {
            return;
        }
        for key in keys {
            let Some(watches) = open.live.get_mut(key) else { continue };
            for told in watches.extract_if(.., |live| live.delivery == Delivery::Told) {
                // Whoever dropped the watch no longer wants to know.
                let _dropped = told.sender.send(Ok(()));
            }
            if watches.is_empty() {
                open.live.remove(key);
            }
        }
    }

    /// Ends every watch with [`Error::Cancelled`].
    pub(crate) fn cancel_all(&self) {
        let ended = std::mem::take(&mut self.lock().live);
        drop(ended);
    }
}
