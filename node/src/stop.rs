//! Stopping a node: one switch that every session listens to.

use tokio::sync::watch;

/// The switch.
#[derive(Debug)]
pub(crate) struct Stop {
    sender: watch::Sender<bool>,
}

/// A session's view of the switch.
#[derive(Debug, Clone)]
pub(crate) struct Stopping {
    receiver: watch::Receiver<bool>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self { sender: watch::Sender::new(false) }
    }

    pub(crate) fn listen(&self) -> Stopping {
        Stopping { receiver: self.sender.subscribe() }
    }

    /// Tells every session, now and later, that the node stops.
    pub(crate) fn stop(&self) {
        self.sender.send_replace(true);
    }
}

impl Stopping {
    /// Completes when the node is to stop; at once where it is stopping already.
    pub(crate) async fn requested(&mut self) {
        // The switch is dropped only after every session: then, too, it is time to go.
        let _stopped = self.receiver.wait_for(|stopping| *stopping).await;
    }

    pub(crate) fn is_requested(&self) -> bool {
        *self.receiver.borrow()
    }
}
