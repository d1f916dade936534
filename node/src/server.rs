//! Accepting connections: bounded for the node and for each address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use env::{Connection, Listener, Task};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;
use tracing::Instrument;

use crate::{
    imap, limits,
    metrics::{Protocol, RefusedReason},
    services::Services,
    settings::Settings,
    smtp,
    transport::Transport,
};

/// The node's open sessions. Cloning is one reference count.
#[derive(Clone)]
pub(crate) struct Sessions {
    shared: Arc<Mutex<Open>>,
    settings: watch::Receiver<Arc<Settings>>,
}

#[derive(Default)]
struct Open {
    total: u64,
    by_address: HashMap<IpAddr, u64>,
}

/// One session's place among them; it is free again when this is dropped.
struct Place {
    sessions: Sessions,
    peer: IpAddr,
}

impl Sessions {
    pub(crate) fn new(settings: watch::Receiver<Arc<Settings>>) -> Self {
        Self { shared: Arc::default(), settings }
    }

    fn enter(&self, peer: IpAddr) -> Result<Place, RefusedReason> {
        let peer = network(peer);
        let (total_max, per_address_max) = {
            let limits = &self.settings.borrow().limits;
            (limits.connections_max, limits.connections_per_address_max)
        };
        let mut open = self.shared.lock().expect("no code panics while it counts");
        if open.total >= total_max {
            return Err(RefusedReason::NodeLimit);
        }
        let here = open.by_address.get(&peer).copied().unwrap_or(0);
        if here >= per_address_max {
            return Err(RefusedReason::AddressLimit);
        }
        open.by_address.insert(peer, here + 1);
        open.total += 1;
        Ok(Place { sessions: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sessions.shared.lock().expect("no code panics while it counts");
        open.total -= 1;
        if let Some(here) = open.by_address.get_mut(&self.peer) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&self.peer);
            }
        }
    }
}

/// Accepts on one listener until the node stops, then waits for its sessions.
pub(crate) async fn accept(
    services: Services,
    sessions: Sessions,
    listener: Listener,
    protocol: Protocol,
) {
    let mut stopping = services.stopping.clone();
    let mut open: FuturesUnordered<Task<()>> = FuturesUnordered::new();
    let mut refusals: FuturesUnordered<Task<()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stopping.requested() => break,
            Some(_ended) = open.next() => {}
            Some(_ended) = refusals.next() => {}
            accepted = listener.accept() => match accepted {
                Ok(connection) => {
                    let peer = client_address(connection.peer);
                    match sessions.enter(peer) {
                        Ok(place) => open.push(start(&services, place, connection, protocol)),
                        Err(reason) => {
                            services.metrics.connection_refused(protocol, reason);
                            // A refusal is short, but not for a client that does not listen:
                            // beyond this many, clients are hung up on.
                            if refusals.len() < limits::REFUSALS_MAX {
                                refusals.push(refuse(&services, connection, protocol));
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    services.env.sleep(limits::ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while open.next().await.is_some() {}
}

fn start(
    services: &Services,
    place: Place,
    connection: Connection,
    protocol: Protocol,
) -> Task<()> {
    let peer = client_address(connection.peer);
    let session = u64::from_le_bytes(services.env.random_array());
    let span = tracing::info_span!(
        "session",
        id = %format_args!("{session:016x}"),
        protocol = protocol.as_str(),
        %peer
    );
    let transport = Transport::new(services.env.clone(), connection.stream, peer);
    let services_here = services.clone();
    let serving = async move {
        let _place = place;
        match protocol {
            Protocol::Imap | Protocol::Imaps => {
                Box::pin(imap::serve(services_here, transport, protocol)).await;
            }
            Protocol::Smtp | Protocol::Submission | Protocol::Submissions | Protocol::Lmtp => {
                Box::pin(smtp::serve(services_here, transport, protocol)).await;
            }
            // HTTP has an accept loop of its own.
            Protocol::Http => {}
        }
    };
    services.env.spawn("session", serving.instrument(span))
}

/// Says why in the protocol's own words, where it can be said in clear.
fn refuse(services: &Services, connection: Connection, protocol: Protocol) -> Task<()> {
    let text: &'static [u8] = match protocol {
        Protocol::Smtp | Protocol::Submission | Protocol::Lmtp => {
            b"421 4.7.0 Too many connections, try again later\r\n"
        }
        Protocol::Imap => b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
        Protocol::Submissions | Protocol::Imaps | Protocol::Http => b"",
    };
    let env = services.env.clone();
    services.env.spawn("refusal", async move {
        let mut transport = Transport::new(env.clone(), connection.stream, connection.peer.ip());
        let refusing = async {
            if let Err(error) = transport.write(text).await {
                tracing::debug!(%error, "a refused client did not listen");
            }
            transport.close().await;
        };
        if env.timeout(limits::CLOSE_TIMEOUT, refusing).await.is_err() {
            tracing::debug!("a refused client did not listen");
        }
    })
}

/// The client's address; one that was mapped into IPv6 as the IPv4 that it is.
fn client_address(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

/// What counts as one address: of IPv6 the first 64 bits, because a client has all that share
/// them (RFC 4291 §2.5.4).
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn sessions(total_max: u64, per_address_max: u64) -> Sessions {
        let limits = Limits {
            connections_max: total_max,
            connections_per_address_max: per_address_max,
            ..Limits::default()
        };
        let settings = Settings { limits, log_level: "info".to_owned() };
        Sessions::new(watch::Sender::new(Arc::new(settings)).subscribe())
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let sessions = sessions(3, 2);
        let enter = |peer: &str| sessions.enter(peer.parse().unwrap());
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::2").unwrap();
        assert!(matches!(enter("2001:db8::3"), Err(RefusedReason::AddressLimit)));
        let _third = enter("192.0.2.1").unwrap();
        assert!(matches!(enter("192.0.2.2"), Err(RefusedReason::NodeLimit)));
        drop(first);
        assert!(enter("2001:db8::3").is_ok());
    }
}
