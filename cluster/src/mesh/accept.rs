//! Letting peers in. A stranger costs one handshake, and all of them together a bounded number.

use std::sync::Arc;

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::shared::{Attachment, Shared, Side};
use crate::limits::{
    MESH_CONNECTIONS_MAX, MESH_HANDSHAKE_TIMEOUT, MESH_HANDSHAKES_MAX,
    MESH_HANDSHAKES_STRANGERS_MAX, MESH_HANDSHAKES_UNVALIDATED_MAX,
};

/// Accepts until the endpoint ends.
pub(super) async fn accept(shared: Arc<Shared>) {
    let mut handshakes = FuturesUnordered::new();
    loop {
        let incoming = tokio::select! {
            biased;
            Some(()) = handshakes.next(), if !handshakes.is_empty() => continue,
            incoming = shared.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let arrival = Arrival {
            handshakes: handshakes.len(),
            connections: shared.endpoint.open_connections(),
            address: shared.address_of(&incoming),
        };
        match arrival.admission() {
            Admission::Handshake => handshakes.push(handshake(Arc::clone(&shared), incoming)),
            Admission::Validate => {
                shared.counters.addresses_validated.add_one();
                // The one error is a validated address, which was not asked to validate.
                let _sent = incoming.retry();
            }
            Admission::Refused => {
                shared.failed(&shared.counters.handshakes_refused);
                incoming.refuse();
            }
        }
    }
}

async fn handshake(shared: Arc<Shared>, incoming: quinn::Incoming) {
    let address = incoming.remote_address();
    let outcome = shared.env.timeout(MESH_HANDSHAKE_TIMEOUT, incoming.into_future()).await;
    let attachment = match outcome {
        Ok(Ok(connection)) => shared.attach(connection, Side::Accepted),
        Ok(Err(error)) => {
            tracing::debug!(%error, %address, "a handshake failed");
            Attachment::Stranger
        }
        Err(env::Elapsed) => {
            tracing::debug!(%address, "a handshake took too long");
            Attachment::Stranger
        }
    };
    if attachment == Attachment::Stranger {
        shared.failed(&shared.counters.handshakes_refused);
    }
}

/// What an arriving connection attempt meets.
#[derive(Clone, Copy)]
struct Arrival {
    handshakes: usize,
    connections: usize,
    address: Address,
}

/// What is known about where an attempt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// It may be forged.
    Unvalidated,
    /// Whoever is there receives what is sent there.
    Stranger,
    /// As before, and a peer is there.
    Peer,
}

#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Handshake,
    Validate,
    Refused,
}

impl Arrival {
    fn admission(self) -> Admission {
        let full =
            self.handshakes >= MESH_HANDSHAKES_MAX || self.connections >= MESH_CONNECTIONS_MAX;
        match self.address {
            _ if full => Admission::Refused,
            Address::Unvalidated if self.handshakes >= MESH_HANDSHAKES_UNVALIDATED_MAX => {
                Admission::Validate
            }
            Address::Stranger if self.handshakes >= MESH_HANDSHAKES_STRANGERS_MAX => {
                Admission::Refused
            }
            _ => Admission::Handshake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_room_for_peers_and_forged_addresses_for_both() {
        let admission = |handshakes, connections, address| {
            Arrival { handshakes, connections, address }.admission()
        };
        use Address::{Peer, Stranger, Unvalidated};
        use Admission::{Handshake, Refused, Validate};
        for (handshakes, address, expected) in [
            (0, Unvalidated, Handshake),
            (MESH_HANDSHAKES_UNVALIDATED_MAX, Unvalidated, Validate),
            (MESH_HANDSHAKES_UNVALIDATED_MAX, Stranger, Handshake),
            (MESH_HANDSHAKES_STRANGERS_MAX, Stranger, Refused),
            (MESH_HANDSHAKES_STRANGERS_MAX, Peer, Handshake),
            (MESH_HANDSHAKES_MAX, Peer, Refused),
            (MESH_HANDSHAKES_MAX, Unvalidated, Refused),
        ] {
            assert_eq!(admission(handshakes, 0, address), expected, "{handshakes} {address:?}");
        }
        assert_eq!(admission(0, MESH_CONNECTIONS_MAX, Peer), Refused);
    }
}
