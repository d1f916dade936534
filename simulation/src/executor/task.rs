//! One task: a future, and the incarnation of a host that it belongs to.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use env::BoxFuture;

use super::Core;
use crate::host::{HostCell, Life};

pub(crate) struct Task {
    core: Arc<Core>,
    life: Life,
    id: u64,
    name: &'static str,
    queued: AtomicBool,
    aborted: AtomicBool,
    /// Out of its place while it is polled, and gone once the task has ended.
    future: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Task {
    pub(super) fn new(
        core: &Arc<Core>,
        life: Life,
        id: u64,
        name: &'static str,
        future: BoxFuture<'static, ()>,
    ) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            life,
            id,
            name,
            queued: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            future: Mutex::new(Some(future)),
        })
    }

    pub(super) fn host(&self) -> &Arc<HostCell> {
        &self.life.host
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn is_of_living_host(&self) -> bool {
        self.life.is_alive()
    }

    /// Ends the task as soon as it is its turn.
    pub(crate) fn abort(self: &Arc<Self>) {
        self.aborted.store(true, Relaxed);
        Arc::clone(self).wake();
    }

    fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.future.lock().expect("nothing panics while it holds a future").take()
    }

    /// Drops the future, if it is not being polled.
    pub(crate) fn end(&self) {
        let future = self.take();
        // A destructor that panics is as bad as a task that does, and must not end the world.
        let _panicked = catch_unwind(AssertUnwindSafe(|| drop(future)));
    }

    /// Polls once; tells what it said where it panicked.
    pub(super) fn poll(self: &Arc<Self>) -> Option<String> {
        self.queued.store(false, Relaxed);
        let mut future = self.take()?;
        if self.aborted.load(Relaxed) {
            self.life.host.remove_task(self.id);
            return caught(|| drop(future)).err();
        }
        let waker = Waker::from(Arc::clone(self));
        let polled = caught(|| future.as_mut().poll(&mut Context::from_waker(&waker)));
        match polled {
            Ok(Poll::Pending) if self.is_of_living_host() => {
                *self.future.lock().expect("nothing panics while it holds a future") = Some(future);
                None
            }
            Ok(_) => {
                self.life.host.remove_task(self.id);
                caught(|| drop(future)).err()
            }
            Err(message) => {
                self.life.host.remove_task(self.id);
                let _second = caught(|| drop(future));
                Some(message)
            }
        }
    }
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "a panic without words".to_owned())
    })
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Relaxed) {
            let core = Arc::clone(&self.core);
            core.enqueue(self);
        }
    }
}
