//! Accepting connections: as many as the node has places for ([`crate::sessions`]).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use env::{
    Connection, Listener, Task,
    probe::{self, Planted},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tracing::Instrument;

use crate::{
    imap, limits,
    metrics::{Protocol, RefusedReason},
    services::Services,
    sessions::{Place, Sessions},
    smtp,
    transport::Transport,
};

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
                    let entered = if services.blocks(protocol, peer) {
                        Err(RefusedReason::Blocked)
                    } else {
                        sessions.enter(&services.env, protocol, peer)
                    };
                    match entered {
                        Ok(place) => open.push(start(&services, place, connection, protocol)),
                        Err(reason) => {
                            services.metrics.connection_refused(protocol, reason);
                            // A refusal is short, but not for a client that does not listen:
                            // beyond this many, clients are hung up on.
                            if refusals.len() < limits::REFUSALS_MAX {
                                refusals.push(refuse(&services, connection, protocol, reason));
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
    let session = Arc::clone(place.session());
    let span = tracing::info_span!(
        "session",
        id = %format_args!("{:016x}", session.id),
        protocol = protocol.as_str(),
        peer = %session.peer
    );
    let env = services.env.clone();
    let transport = Transport::of_session(env.clone(), connection.stream, Arc::clone(&session));
    let services_here = services.clone();
    let serve = async move {
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
    let serving = async move {
        let _place = place;
        let overdue = async {
            session.asked_to_end().await;
            // Boxed, so that it is no part of every idle session.
            Box::pin(env.sleep(limits::SESSION_GOODBYE_TIME)).await;
        };
        tokio::select! {
            biased;
            () = serve => {}
            () = overdue => tracing::info!("cut off: the client does not take its goodbye"),
        }
    };
    if probe::planted(Planted::LeaveTasks) {
        services.env.spawn("left", std::future::pending::<()>()).detach();
    }
    services.env.spawn("session", serving.instrument(span))
}

/// Says why in the protocol's own words, where it can be said in clear.
fn refuse(
    services: &Services,
    connection: Connection,
    protocol: Protocol,
    reason: RefusedReason,
) -> Task<()> {
    let text: &'static [u8] = match protocol {
        Protocol::Smtp | Protocol::Submission | Protocol::Lmtp
            if reason == RefusedReason::Blocked =>
        {
            b"421 4.7.1 This address is blocked for now\r\n"
        }
        Protocol::Imap if reason == RefusedReason::Blocked => {
            b"* BYE [UNAVAILABLE] This address is blocked for now\r\n"
        }
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
