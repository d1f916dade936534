//! Connections: accepted through [`Env`], served by hyper, bounded.

use std::{future::Future, pin::pin};

use axum::{Extension, Router};
use env::{Connection, Env, Listener, Task};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::sync::watch;
use tracing::Instrument;

use super::timer::EnvTimer;
use crate::limits::{
    ACCEPT_PAUSE, HTTP_CONNECTION_TIME, HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX,
    HTTP_HEAD_TIMEOUT, HTTP_HEADERS_MAX, HTTP_REQUEST_TIMEOUT,
};

/// The answers of one connection that may go on for longer than a connection lives. Whoever gives
/// one sees to it that it ends where its client does not read.
#[derive(Debug, Clone, Default)]
pub(super) struct LongAnswers {
    open: watch::Sender<u32>,
}

/// An answer that goes on until this is dropped.
#[derive(Debug)]
pub(super) struct LongAnswer {
    open: watch::Sender<u32>,
}

impl LongAnswers {
    pub(super) fn begin(&self) -> LongAnswer {
        self.open.send_modify(|open| *open += 1);
        LongAnswer { open: self.open.clone() }
    }

    /// Completes once none is open.
    async fn ended(&self) {
        // The sender is `self`, so the wait does not end for want of one.
        let mut open = self.open.subscribe();
        let _ended = open.wait_for(|open| *open == 0).await;
    }
}

impl Drop for LongAnswer {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}

/// Serves connections until `stop` completes, then finishes the requests in flight.
///
/// Above [`HTTP_CONNECTIONS_MAX`] further connections wait to be accepted. Dropping the future
/// ends every connection at once.
pub async fn serve(env: Env, listener: Listener, router: Router, stop: impl Future<Output = ()>) {
    let stopping = watch::Sender::new(false);
    let timer = EnvTimer::new(env.clone());
    let mut open: FuturesUnordered<Task<()>> = FuturesUnordered::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_ended) = open.next() => {}
            accepted = listener.accept(), if open.len() < HTTP_CONNECTIONS_MAX => match accepted {
                Ok(connection) => {
                    let long = LongAnswers::default();
                    let service = router.clone().layer(Extension(long.clone()));
                    let served = one(env.clone(), connection, service, long, timer.clone(), stopping.subscribe());
                    let id = u64::from_le_bytes(env.random_array());
                    let span = tracing::info_span!(
                        "session",
                        id = %format_args!("{id:016x}"),
                        protocol = "http"
                    );
                    open.push(env.spawn("http connection", served.instrument(span)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    env.sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stopping.send_replace(true);
    while open.next().await.is_some() {}
}

/// One connection, to its end. It has a longest life, so that a client that reads nothing
/// cannot hold it for ever.
async fn one(
    env: Env,
    connection: Connection,
    router: Router,
    long: LongAnswers,
    timer: EnvTimer,
    mut stopping: watch::Receiver<bool>,
) {
    let mut served = pin!(
        http1::Builder::new()
            .timer(timer)
            .header_read_timeout(HTTP_HEAD_TIMEOUT)
            .max_buf_size(HTTP_HEAD_BYTES_MAX)
            .max_headers(HTTP_HEADERS_MAX)
            .serve_connection(TokioIo::new(connection.stream), TowerToHyperService::new(router),)
    );
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => Some(ended),
        // An error means that the sender is gone, and with it the server: stop as well.
        _ = stopping.wait_for(|stopping| *stopping) => None,
        () = env.sleep(HTTP_CONNECTION_TIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            let ended = tokio::select! {
                biased;
                ended = served.as_mut() => Some(ended),
                _ = stopping.wait_for(|stopping| *stopping) => None,
                () = long.ended() => None,
            };
            if ended.is_some() {
                return;
            }
            match env.timeout(HTTP_REQUEST_TIMEOUT, served).await {
                Ok(ended) => ended,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %connection.peer, %error, "HTTP connection ended early");
    }
}
