//! Connecting to one peer, again and again, without haste.

use std::{sync::Arc, time::Duration};

use env::Env;
use tokio::sync::Notify;

use super::{
    Peer, endpoint,
    identity::NAME,
    shared::{Attachment, Certificate, Shared, Side},
};
use crate::limits::{MESH_BACKOFF_MAX, MESH_BACKOFF_MIN, MESH_HANDSHAKE_TIMEOUT};

/// Keeps a connection to the peer while it is up to us. Ends with its link.
pub(super) async fn dial(shared: Arc<Shared>, certificate: Certificate, wake: Arc<Notify>) {
    let mut backoff = Backoff::default();
    loop {
        let Some(peer) = shared.dial_target(&certificate) else {
            wake.notified().await;
            continue;
        };
        let begun = shared.env.monotonic();
        if connect(&shared, &peer).await == Outcome::Failed {
            shared.failed(&shared.counters.dials_failed);
        } else {
            while shared.dial_target(&certificate).is_none() {
                wake.notified().await;
            }
        }
        if shared.env.monotonic() - begun > MESH_HANDSHAKE_TIMEOUT + MESH_BACKOFF_MAX {
            // It lived. What comes now is a new story.
            backoff = Backoff::default();
            continue;
        }
        shared.env.sleep(backoff.next(&shared.env)).await;
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Connected,
    Failed,
}

async fn connect(shared: &Arc<Shared>, peer: &Peer) -> Outcome {
    let config = endpoint::client_config(&shared.env, &shared.trust, &peer.certificate);
    let connecting = match shared.endpoint.connect_with(config, peer.address, NAME) {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::warn!(%error, address = %peer.address, "a peer's address is of no use");
            return Outcome::Failed;
        }
    };
    let greeted = async {
        let connection = connecting.await?;
        // The greeting says no more than that it is there.
        let _greeting = connection.accept_uni().await?;
        Ok::<_, quinn::ConnectionError>(connection)
    };
    match shared.env.timeout(MESH_HANDSHAKE_TIMEOUT, greeted).await {
        Ok(Ok(connection)) => match shared.attach(connection, Side::Dialled) {
            Attachment::Attached => Outcome::Connected,
            Attachment::Stranger => Outcome::Failed,
        },
        Ok(Err(error)) => {
            tracing::debug!(%error, address = %peer.address, "a peer does not let us in");
            Outcome::Failed
        }
        Err(env::Elapsed) => {
            tracing::debug!(address = %peer.address, "a peer does not answer");
            Outcome::Failed
        }
    }
}

/// How long to wait before the next try.
struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: MESH_BACKOFF_MIN }
    }
}

impl Backoff {
    /// The next wait: between half and all of it.
    fn next(&mut self, env: &Env) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(MESH_BACKOFF_MAX);
        let half = whole / 2;
        let half_us = u64::try_from(half.as_micros()).expect("seconds fit");
        half + Duration::from_micros(env.random_below(half_us + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_bound() {
        let (env, mut backoff) = (Env::system(), Backoff::default());
        let mut whole = MESH_BACKOFF_MIN;
        for _ in 0..12 {
            let wait = backoff.next(&env);
            assert!((whole / 2..=whole).contains(&wait), "{wait:?} of {whole:?}");
            whole = (whole * 2).min(MESH_BACKOFF_MAX);
        }
        assert_eq!(whole, MESH_BACKOFF_MAX);
    }
}
