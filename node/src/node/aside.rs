//! A node that does not serve yet: its store is away, or administrators want it to stand aside.
//! Meanwhile its HTTP port says so.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use env::{Env, Task};
use tokio::sync::watch;

use super::{StartError, bind, join, publish};
use crate::{
    admin::{Admin, cluster::OwnNode, fsck::Checker, token::AdminToken},
    config::Config,
    http::{self, HttpParts, Phase, Readiness},
    limits,
    metrics::{Metrics, Protocol},
    peers::{Peers, Wanted},
    sessions::Sessions,
    settings::Settings,
    stop::Stop,
    stores::{OpenStores, Stores},
};

/// How standing aside came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// The node is to serve.
    Wanted,
    /// It is to end.
    Ended,
    /// Another process has its name.
    Superseded,
}

/// Opens the stores, and waits where FoundationDB is away: a node that ended instead would be
/// started again and again, and tell less. `None` where `end` came first.
pub(super) async fn open(
    config: &Config,
    env: &Env,
    mut end: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<OpenStores>, StartError> {
    let begun = env.monotonic();
    let (mut waiting, mut told) = (None, begun);
    loop {
        let opening = OpenStores::open(&config.data, &config.store, &config.blobs, env);
        let opened = tokio::select! {
            biased;
            () = end.as_mut() => return Ok(None),
            opened = Box::pin(opening) => opened,
        };
        let error = match opened {
            Err(error) if error.is_store_away() => error,
            opened => {
                if let Some(waiting) = waiting {
                    tracing::info!("FoundationDB answers");
                    Waiting::end(waiting).await;
                }
                return opened.map(Some);
            }
        };
        let now = env.monotonic();
        if waiting.is_none() {
            tracing::warn!(%error, "waiting for FoundationDB");
            waiting = Some(Waiting::begin(config, env).await?);
        } else if now.saturating_since(told) >= limits::STORE_WAIT_TOLD {
            let seconds = now.saturating_since(begun).as_secs();
            tracing::warn!(seconds, "still waiting for FoundationDB");
            told = now;
        }
        tokio::select! {
            biased;
            () = end.as_mut() => return Ok(None),
            () = env.sleep(limits::STORE_WAIT_PAUSE) => {}
        }
    }
}

/// The HTTP ports of a node whose store is away: live and not ready.
struct Waiting {
    env: Env,
    stop: Stop,
    serving: Vec<Task<()>>,
}

impl Waiting {
    async fn begin(config: &Config, env: &Env) -> Result<Self, StartError> {
        let (stop, router) = (Stop::new(), http::waiting_router(env.clone()));
        let mut serving = Vec::new();
        for address in &config.listen.http {
            let listener = bind(env, Protocol::Http, *address).await?;
            serving.push(serve(env, listener, router.clone(), &stop));
        }
        Ok(Self { env: env.clone(), stop, serving })
    }

    /// Gives the ports back.
    async fn end(self) {
        self.stop.stop();
        // Health checks are over at once; whoever holds a connection open is cut off.
        let _cut_off = self.env.timeout(limits::CLOSE_TIMEOUT, join(self.serving)).await;
    }
}

/// Waits while administrators want the node to stand aside. Meanwhile it can be administered and
/// asked, and nothing else.
pub(super) async fn stand_aside(
    peers: &Peers,
    stores: &Stores,
    config: &Config,
    env: &Env,
    token: &AdminToken,
    end: impl Future<Output = ()>,
) -> Result<Aside, StartError> {
    let readiness = Readiness::new();
    readiness.enter(Phase::Drained);
    let settings = watch::Sender::new(Arc::new(Settings::of(config)));
    let parts = HttpParts {
        env: env.clone(),
        metrics: Metrics::new(env.clone()),
        readiness,
        admin: Admin { db: stores.db.clone(), env: env.clone() },
        checker: Checker::new(stores.blobs.clone()),
        resolver: None,
        backup: stores.backup.clone(),
        fleet: OwnNode::new(env, Sessions::new(settings.subscribe()), peers.membership.clone()),
        token: token.clone(),
    };
    let stop = Stop::new();
    let mut serving = Vec::new();
    for (index, address) in config.listen.http.iter().enumerate() {
        let listener = bind(env, Protocol::Http, *address).await?;
        if let Some(address) = listener.local_address().ok().filter(|_| index == 0) {
            publish(&config.data, address)?;
        }
        serving.push(serve(env, listener, http::router(parts.clone()), &stop));
    }
    let ended = tokio::select! {
        biased;
        () = end => Aside::Ended,
        wanted = peers.until_wanted() => match wanted {
            Wanted::Now => Aside::Wanted,
            Wanted::Never => Aside::Superseded,
        },
    };
    stop.stop();
    // What was asked for is answered, so that whoever undrained the node hears of it.
    let patience = Duration::from_secs(config.limits.shutdown_seconds);
    let patience = patience.saturating_sub(limits::CLOSE_RESERVE).max(patience / 2);
    let _cut_off = env.timeout(patience, join(serving)).await;
    Ok(ended)
}

fn serve(env: &Env, listener: env::Listener, router: Router, stop: &Stop) -> Task<()> {
    let mut stopping = stop.listen();
    let stop = async move { stopping.requested().await };
    env.spawn("http", http::serve(env.clone(), listener, router, stop))
}
