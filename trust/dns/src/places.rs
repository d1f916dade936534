//! Who may ask at the same time. Queries take places, and what strangers make us ask never takes the
//! last ones: whoever sends mail whose names are answered slowly must not keep ours from leaving.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::limits::{LOOKUPS_MAX, MESSAGE_QUERIES_MAX, STRANGERS_QUERIES_MAX};

/// Whom queries are for.
#[derive(Clone, Default)]
pub(crate) enum Share {
    /// For us: mail that leaves, our own records.
    #[default]
    Ours,
    /// For what strangers make us ask.
    Strangers,
    /// The same, for one message.
    Message(Arc<Semaphore>),
}

impl Share {
    pub(crate) fn of_message() -> Self {
        Self::Message(Arc::new(Semaphore::new(MESSAGE_QUERIES_MAX)))
    }
}

/// The places.
pub(crate) struct Places {
    all: Semaphore,
    strangers: Semaphore,
}

/// A place that is taken, until it is dropped.
pub(crate) struct Place<'p> {
    _message: Option<OwnedSemaphorePermit>,
    _stranger: Option<SemaphorePermit<'p>>,
    _any: SemaphorePermit<'p>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(LOOKUPS_MAX, STRANGERS_QUERIES_MAX)
    }
}

impl Places {
    fn new(all: usize, strangers: usize) -> Self {
        Self { all: Semaphore::new(all), strangers: Semaphore::new(strangers) }
    }

    /// Waits for a place. All take them in this order, so that nobody waits in a circle.
    pub(crate) async fn take(&self, share: &Share) -> Place<'_> {
        const OPEN: &str = "nobody closes it";
        let _message = match share {
            Share::Message(own) => Some(Arc::clone(own).acquire_owned().await.expect(OPEN)),
            Share::Ours | Share::Strangers => None,
        };
        let _stranger = match share {
            Share::Ours => None,
            Share::Strangers | Share::Message(_) => {
                Some(self.strangers.acquire().await.expect(OPEN))
            }
        };
        Place { _message, _stranger, _any: self.all.acquire().await.expect(OPEN) }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn strangers_leave_places_for_us() {
        let places = Places::new(3, 2);
        let take = |share: &Share| places.take(share).now_or_never();
        let held = [take(&Share::Strangers), take(&Share::of_message())];
        assert!(held.iter().all(Option::is_some));
        assert!(take(&Share::Strangers).is_none());
        assert!(take(&Share::of_message()).is_none());
        let ours = take(&Share::Ours);
        assert!(ours.is_some());
        assert!(take(&Share::Ours).is_none());
        drop(held);
        assert!(take(&Share::Ours).is_some());
    }

    #[test]
    fn a_message_has_some_places() {
        let places = Places::default();
        let (one, other) = (Share::of_message(), Share::of_message());
        let take = |share: &Share| places.take(share).now_or_never();
        let held: Vec<_> = (0..MESSAGE_QUERIES_MAX).map(|_| take(&one)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(take(&one).is_none());
        assert!(take(&other).is_some());
    }
}
