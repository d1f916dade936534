//! Timers, in the order of their deadlines and, where these are equal, of their setting.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
};

use super::Core;

/// A deadline and a number that no other timer has.
type Key = (u64, u64);

#[derive(Default)]
pub(super) struct Timers {
    set: BTreeMap<Key, Waker>,
    next_number: u64,
}

impl Timers {
    fn add(&mut self, deadline: u64, waker: Waker) -> Key {
        self.next_number += 1;
        let key = (deadline, self.next_number);
        self.set.insert(key, waker);
        key
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.set.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    pub(super) fn pop_due(&mut self, now: u64) -> Option<Waker> {
        let first = self.set.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// Completes at a moment of virtual time.
pub(crate) struct Sleep {
    core: Arc<Core>,
    deadline: u64,
    key: Option<Key>,
}

impl Sleep {
    pub(super) fn new(core: Arc<Core>, deadline: u64) -> Self {
        Self { core, deadline, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.core.now.load(Relaxed) >= this.deadline {
            if let Some(key) = this.key.take() {
                this.core.timers().set.remove(&key);
            }
            return Poll::Ready(());
        }
        let mut timers = this.core.timers();
        let known = this.key.and_then(|key| timers.set.get_mut(&key));
        match known {
            Some(waker) => waker.clone_from(cx.waker()),
            None => this.key = Some(timers.add(this.deadline, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.core.timers().set.remove(&key);
            drop(waker);
        }
    }
}
