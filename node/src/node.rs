//! A node's life: start, serve, drain.

mod aside;
mod error;

use std::{
    future::{self, Future},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use blob::sweep::{SweepSettings, Sweeper};
use cluster::{
    ClusterError, Membership,
    membership::registry::{Activity, Wish},
    work::{Lags, Runner},
};
use env::{Env, Listener, Task};
use tokio::sync::watch;

use crate::{
    admin::{
        Admin,
        cluster::{Fleet, OwnNode, Wired},
        endpoint,
        fsck::Checker,
        token::AdminToken,
    },
    config::{Config, WithoutTls},
    http::{self, HttpParts, Phase, Readiness},
    hub::Hub,
    limits,
    metrics::{ClusterSource, Protocol},
    peers::{JoinError, OverMesh, Peers},
    server,
    services::Services,
    sessions::Sessions,
    settings::{self, Settings},
    stop::Stop,
    stores::{OpenStores, Stores},
    tls::{self, Tls, TlsError},
    upkeep,
};
use aside::Aside;
pub use error::StartError;

/// A running node. Dropping it ends every session at once; [`Node::drain`] is the gentle way.
pub struct Node {
    services: Services,
    stop: Stop,
    /// HTTP stops last: it tells that the node drains.
    stop_http: Stop,
    readiness: Readiness,
    /// Accept loops; each ends after its last session.
    loops: Vec<Task<()>>,
    http_loops: Vec<Task<()>>,
    _housekeeping: Task<()>,
    _tickets: Task<()>,
    _certificates: Task<()>,
    _settings: Task<()>,
    _signing: Task<()>,
    _load: Task<()>,
    _seen: Task<()>,
    _guard: [Task<()>; 2],
    peers: Peers,
    runner: Runner,
    http_addresses: Vec<SocketAddr>,
    /// Where the node has opened its stores itself.
    open: Option<OpenStores>,
}

/// What came of a start.
pub enum Started {
    /// Every port accepts.
    Serving(Box<Node>),
    /// The node was told to end before that, and has left.
    Ended,
}

/// Why a node is to end though nobody has told its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Administrators want it to stand aside.
    Drain,
    /// Another process has its name.
    Superseded,
}

impl Node {
    /// Starts a node on the stores that its configuration names. When this returns, every port
    /// accepts. Where FoundationDB cannot be reached it waits: health checks are told so meanwhile.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, env: Env) -> Result<Self, StartError> {
        match Self::start_unless(config, env, future::pending()).await? {
            Started::Serving(node) => Ok(*node),
            Started::Ended => unreachable!("what is pending does not end"),
        }
    }

    /// The same, unless `end` completes while the node waits for its store, or until administrators
    /// want it to serve: then it leaves.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_unless(
        config: Config,
        env: Env,
        end: impl Future<Output = ()>,
    ) -> Result<Started, StartError> {
        let mut end = pin!(end);
        let Some(open) = aside::open(&config, &env, end.as_mut()).await? else {
            return Ok(Started::Ended);
        };
        let stores = open.stores().clone();
        match Box::pin(Self::start_on_unless(stores, config, env, end)).await {
            Ok(Started::Serving(mut node)) => {
                node.open = Some(open);
                Ok(Started::Serving(node))
            }
            ended => {
                close(open).await;
                ended
            }
        }
    }

    /// Starts a node on the given stores.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on(stores: Stores, config: Config, env: Env) -> Result<Self, StartError> {
        match Box::pin(Self::start_on_unless(stores, config, env, future::pending())).await? {
            Started::Serving(node) => Ok(*node),
            Started::Ended => unreachable!("what is pending does not end"),
        }
    }

    /// The same, unless `end` completes while administrators want the node to stand aside: then it
    /// leaves.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on_unless(
        stores: Stores,
        config: Config,
        env: Env,
        end: impl Future<Output = ()>,
    ) -> Result<Started, StartError> {
        let tls = shown(&stores, &config, &env).await?;
        let token = AdminToken::load_or_create(&config.data, &env)?;
        let hub = Hub::default();
        let peers = Peers::join(&stores.db.counted_apart(), &env, &config, &hub).await?;
        if peers.is_to_stand_aside() {
            match aside::stand_aside(&peers, &stores, &config, &env, &token, end).await? {
                Aside::Wanted => {}
                Aside::Ended => {
                    leave(&env, peers).await;
                    withdraw(&config);
                    return Ok(Started::Ended);
                }
                // Whoever has the name may have published its address already.
                Aside::Superseded => {
                    leave(&env, peers).await;
                    return Err(StartError::Superseded);
                }
            }
        }
        let node = Self::serve(stores, config, env, tls, token, (hub, peers)).await?;
        Ok(Started::Serving(Box::new(node)))
    }

    /// Serves, as one of those that are registered.
    async fn serve(
        stores: Stores,
        config: Config,
        env: Env,
        tls: Tls,
        token: AdminToken,
        (hub, peers): (Hub, Peers),
    ) -> Result<Self, StartError> {
        let stop = Stop::new();
        let backup = stores.backup.clone();
        let heard = (hub, peers.ears.clone());
        let services = Services::new(stores, config, env.clone(), tls, stop.listen(), heard)?;
        if let Some(mesh) = &peers.mesh {
            services.announcer.tell_elsewhere(OverMesh::new(mesh, &peers.membership));
        }
        let readiness = Readiness::new();
        // What the node does by itself is not counted as what clients cost.
        let own_db = services.db.counted_apart();
        let (db, blobs) = (upkeep::background(&services), services.blobs.clone());
        let sweeper = Sweeper::new(env.clone(), db, blobs, SweepSettings::default());
        services.metrics.watch_sweeper(sweeper.counts());
        let sessions = Sessions::new(services.settings.subscribe());
        let own = OwnNode::new(&env, sessions.clone(), peers.membership.clone());
        peers.answering.begin(&own);
        let fleet: Arc<dyn Fleet> = match &peers.mesh {
            Some(mesh) => Wired::new(env.clone(), own, Arc::clone(mesh)),
            None => own,
        };
        let parts = HttpParts {
            fleet,
            env: env.clone(),
            metrics: services.metrics.clone(),
            readiness: readiness.clone(),
            admin: Admin { db: services.db.clone(), env: env.clone() },
            checker: Checker::new(services.blobs.clone()),
            resolver: Some(services.resolver.clone()),
            backup,
            token,
        };
        upkeep::seed(&own_db, &env)
            .await
            .map_err(|error| JoinError::from(ClusterError::from(error)))?;
        let salt_key = cluster::salt::salt_key(&own_db, &env).await;
        let salt_key = salt_key.map_err(|error| JoinError::from(ClusterError::from(error)))?;
        services.auth.share_salt_key(salt_key);
        let runner = peers.work(&own_db, &env, upkeep::workers(&services, sweeper));
        let lags = runner.lags();
        services.metrics.watch_cluster(ClusterSource {
            membership: peers.membership.clone(),
            ears: peers.ears.clone(),
            lags: lags.clone(),
        });
        services.metrics.watch_certificates(services.tls.clone());
        let certificates = tls::follow(
            env.clone(),
            own_db.clone(),
            services.tls.clone(),
            peers.membership.certificates(),
        );
        let load = show_load(services.clone(), peers.membership.clone(), sessions.clone(), lags);
        let follow = settings::follow(
            services.config.clone(),
            peers.membership.settings(),
            services.settings.clone(),
        );
        let signing = services.signing.clone().follow(peers.membership.dkim_keys());
        let mut node = Self {
            _housekeeping: env.spawn("housekeeping", housekeeping(services.clone())),
            _settings: env.spawn("settings", follow),
            _signing: env.spawn("signing", signing),
            _tickets: env.spawn("tickets", share_tickets(services.clone())),
            _certificates: env.spawn("certificates", certificates),
            _load: env.spawn("load", load),
            _seen: env.spawn("dmarc-seen", services.seen.clone().keep_writing()),
            _guard: services.guard.start(),
            runner,
            peers,
            services,
            stop,
            stop_http: Stop::new(),
            readiness,
            loops: Vec::new(),
            http_loops: Vec::new(),
            http_addresses: Vec::new(),
            open: None,
        };
        node.listen(parts, sessions).await?;
        node.readiness.enter(Phase::Ready);
        Ok(node)
    }

    async fn listen(
        &mut self,
        http_parts: HttpParts,
        sessions: Sessions,
    ) -> Result<(), StartError> {
        let listen = &self.services.config.listen;
        let ports = [
            (Protocol::Smtp, &listen.smtp),
            (Protocol::Submission, &listen.submission),
            (Protocol::Submissions, &listen.submissions),
            (Protocol::Lmtp, &listen.lmtp),
            (Protocol::Imap, &listen.imap),
            (Protocol::Imaps, &listen.imaps),
        ];
        let env = &self.services.env;
        // All are bound before any is served: a node that lacks a port does not start.
        let mut bound = Vec::new();
        for (protocol, addresses) in ports {
            for address in addresses {
                bound.push((protocol, bind(env, protocol, *address).await?));
            }
        }
        let mut http_bound = Vec::new();
        for address in &listen.http {
            http_bound.push(bind(env, Protocol::Http, *address).await?);
        }
        for (protocol, listener) in bound {
            let serving =
                server::accept(self.services.clone(), sessions.clone(), listener, protocol);
            self.loops.push(env.spawn("listener", serving));
        }
        for listener in http_bound {
            if let Ok(address) = listener.local_address() {
                self.http_addresses.push(address);
            }
            let router = http::router(http_parts.clone());
            let mut stopping = self.stop_http.listen();
            let stop = async move { stopping.requested().await };
            self.http_loops
                .push(env.spawn("http", http::serve(env.clone(), listener, router, stop)));
        }
        if let Some(address) = self.http_addresses.first() {
            publish(&self.services.config.data, *address)?;
        }
        Ok(())
    }

    /// What administers this node's store.
    pub fn admin(&self) -> Admin {
        Admin { db: self.services.db.clone(), env: self.services.env.clone() }
    }

    /// What is in force of the settings that all nodes share, now and later.
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.services.settings.subscribe()
    }

    /// What the node was told.
    pub fn config(&self) -> &Config {
        &self.services.config
    }

    /// Reads the certificate and the key again; connections from now on get the new ones.
    ///
    /// # Errors
    /// [`TlsError`]; the old ones stay in use.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        self.services.tls.reload()
    }

    /// Completes when the node is to end, for whatever reason but a signal.
    pub async fn asked_to_end(&self) -> Ending {
        let mut wish = self.peers.membership.wish();
        // The senders are ours.
        tokio::select! {
            biased;
            () = self.peers.superseded() => Ending::Superseded,
            _ = wish.wait_for(|wish| *wish == Wish::Drain) => Ending::Drain,
        }
    }

    /// Serves until `shutdown` completes, then drains.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.drain().await;
    }

    /// Stops accepting, lets what is in flight finish, tells clients, and closes the store; at
    /// most [`crate::config::Limits::shutdown_seconds`].
    pub async fn drain(mut self) {
        self.readiness.enter(Phase::Draining);
        self.peers.membership.show_activity(Activity::Draining);
        self.stop.stop();
        let env = self.services.env.clone();
        let whole = Duration::from_secs(self.services.config.limits.shutdown_seconds);
        let patience = whole.saturating_sub(limits::CLOSE_RESERVE).max(whole / 2);
        let (loops, runner) = (std::mem::take(&mut self.loops), self.runner);
        let ended = env.timeout(patience, async {
            // What is on its way to another server is waited for and noted: otherwise it would go again.
            futures_util::future::join(join(loops), runner.stop()).await;
            // A delivery outlives a session that broke off.
            self.services.deliverer.finished().await;
            self.services.seen.flush().await;
            self.stop_http.stop();
            join(std::mem::take(&mut self.http_loops)).await;
        });
        if ended.await.is_err() {
            tracing::warn!("sessions were cut off at the end of the shutdown time");
        }
        leave(&env, self.peers).await;
        if !self.http_addresses.is_empty() {
            withdraw(&self.services.config);
        }
        if let Some(open) = self.open.take() {
            close(open).await;
        }
    }
}

/// The certificates that the node shows: its own, and the store's.
async fn shown(stores: &Stores, config: &Config, env: &Env) -> Result<Tls, StartError> {
    let tls = match (&config.tls, config.without_tls) {
        (Some(files), _) => Tls::from_files(env, &files.certificate, &files.key)?,
        (None, WithoutTls::SelfSigned) => {
            let mut names = vec![config.hostname.clone()];
            names.extend(["localhost", "127.0.0.1"].map(str::to_owned));
            names.dedup();
            Tls::self_signed(env, &config.data, &names)?
        }
        (None, WithoutTls::Store) => Tls::without_files(env, &config.hostname),
    };
    let stored = cluster::certificates::all(&stores.db.counted_apart()).await;
    tls.share(&stored.map_err(|error| JoinError::from(ClusterError::from(error)))?);
    if tls.is_empty() { Err(StartError::NoCertificate) } else { Ok(tls) }
}

fn publish(data: &std::path::Path, address: SocketAddr) -> Result<(), StartError> {
    endpoint::publish(data, address)
        .map_err(|source| StartError::Data { path: data.to_owned(), source })
}

fn withdraw(config: &Config) {
    if let Err(error) = endpoint::withdraw(&config.data) {
        tracing::warn!(%error, "cannot withdraw the admin address");
    }
}

async fn close(open: OpenStores) {
    if let Err(error) = open.close().await {
        // Whatever was acknowledged is in the journal already.
        tracing::error!(%error, "the store did not close cleanly");
    }
}

/// Ends the node's epoch, and so gives back what it has claimed.
async fn leave(env: &Env, peers: Peers) {
    let leaving = async {
        if let Some(mesh) = &peers.mesh {
            mesh.close().await;
        }
        if let Err(error) = peers.membership.leave().await {
            tracing::warn!(%error, "this node's end is not noted");
        }
    };
    if env.timeout(limits::LEAVE_RESERVE, leaving).await.is_err() {
        tracing::warn!("left without a word: others will find this node dead");
    }
}

/// Waits for tasks; one that panicked has ended as well.
async fn join(tasks: Vec<Task<()>>) {
    for task in tasks {
        let _ended = task.await;
    }
}

async fn bind(env: &Env, protocol: Protocol, address: SocketAddr) -> Result<Listener, StartError> {
    env.listen(address).await.map_err(|source| StartError::Listen { address, protocol, source })
}

/// Keeps the keys of session tickets equal to the store's.
async fn share_tickets(services: Services) {
    let db = services.db.counted_apart();
    loop {
        match cluster::tickets::keys(&db, &services.env).await {
            Ok(keys) => services.tls.share_tickets(keys),
            Err(error) => tracing::warn!(%error, "session tickets keep their keys"),
        }
        services.env.sleep(cluster::tickets::LOOK_PERIOD).await;
    }
}

/// What has to be done from time to time.
async fn housekeeping(services: Services) {
    loop {
        services.env.sleep(limits::HOUSEKEEPING_PERIOD).await;
        match services.auth.sweep().await {
            Ok(swept) => tracing::debug!(swept, "old failure counters removed"),
            Err(error) => tracing::warn!(%error, "old failure counters stay"),
        }
    }
}

/// Has heartbeats tell how much the node does, and how long its own certificate is good.
async fn show_load(services: Services, membership: Membership, sessions: Sessions, lags: Lags) {
    loop {
        membership.show_load(sessions.count(), lags.claimed());
        membership.show_certificate(services.tls.own_until());
        services.env.sleep(limits::LOAD_PERIOD).await;
    }
}
