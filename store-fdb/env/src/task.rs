//! Owned tasks: a task ends when its handle is dropped.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use crate::Backend;

/// What a backend returns from `spawn`: a way to abort the task.
pub struct RawTask {
    abort: Box<dyn Fn() + Send + Sync>,
}

impl RawTask {
    /// A task that `abort` ends at its next await.
    pub fn new(abort: impl Fn() + Send + Sync + 'static) -> Self {
        Self { abort: Box::new(abort) }
    }
}

/// A running task. Await it for its value; drop it to abort the task.
#[must_use = "dropping a Task aborts it"]
pub struct Task<T> {
    raw: Option<RawTask>,
    result: oneshot::Receiver<T>,
    /// Goes with the future, however that ends.
    alive: Weak<()>,
}

impl<T> std::fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

impl<T> Task<T> {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        if let Some(raw) = &self.raw {
            (raw.abort)();
        }
    }

    /// Whether the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.alive.strong_count() == 0
    }

    /// Lets the task run to its end with nobody waiting for it. For work that bounds itself and
    /// reports its own errors.
    pub fn detach(mut self) {
        self.raw = None;
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskEnded>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx).map_err(|_| TaskEnded)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort();
    }
}

/// The task was aborted, or it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskEnded;

impl std::fmt::Display for TaskEnded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the task ended without a result")
    }
}

impl std::error::Error for TaskEnded {}

pub(crate) fn spawn<T: Send + 'static>(
    backend: &dyn Backend,
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let (sender, result) = oneshot::channel();
    let running = Arc::new(());
    let alive = Arc::downgrade(&running);
    let raw = backend.spawn(
        name,
        Box::pin(async move {
            let _running = running;
            // Nobody waits where the handle was detached.
            let _unwanted = sender.send(future.await);
        }),
    );
    Task { raw: Some(raw), result, alive }
}
