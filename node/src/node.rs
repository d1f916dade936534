//! A node's life: start, serve, drain.

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use blob::{
    BlobError,
    binding::BindError,
    sweep::{SweepSettings, Sweeper},
};
use cluster::{
    ClusterError, Membership, Standing,
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
        token::{AdminToken, TokenError},
    },
    config::Config,
    http::{self, HttpParts, Phase, Readiness},
    hub::Hub,
    limits,
    metrics::{ClusterSource, Metrics, Protocol},
    peers::{JoinError, OverMesh, Peers},
    server,
    services::Services,
    sessions::Sessions,
    settings::{self, Settings},
    stop::Stop,
    stores::{OpenStores, Stores},
    tls::{Tls, TlsError},
    upkeep,
};

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
    _settings: Task<()>,
    _load: Task<()>,
    peers: Peers,
    runner: Runner,
    http_addresses: Vec<SocketAddr>,
    /// Where the node has opened its stores itself.
    open: Option<OpenStores>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made or written.
    #[error("{}: {source}", path.display())]
    Data {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] kv::OpenError),
    /// The store belongs to a newer release.
    #[error(transparent)]
    Schema(#[from] mail::schema::SchemaError),
    /// The program was built without what the configuration names.
    #[error("this rookery was built without engine {engine}: build it with --features {feature}")]
    NotBuilt {
        /// As in the configuration.
        engine: &'static str,
        /// Cargo's.
        feature: &'static str,
    },
    /// FoundationDB holds no message bytes.
    #[error("blobs.engine must be \"s3\" where the store is \"fdb\"")]
    BlobsElsewhere,
    /// There is no access key to the blobs.
    #[cfg(feature = "s3")]
    #[error(transparent)]
    Credentials(#[from] blob::s3::CredentialsError),
    /// The blobs do not open.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The bucket is not this store's.
    #[error(transparent)]
    Bucket(#[from] BindError),
    /// The certificate or the key is no good.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin token is no good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The node cannot be one of those that share the store.
    #[error("cannot join the others: {0}")]
    Join(#[from] JoinError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address} for {}: {source}", protocol.as_str())]
    Listen {
        /// Where.
        address: SocketAddr,
        /// For what.
        protocol: Protocol,
        /// What the operating system says.
        source: io::Error,
    },
}

impl StartError {
    /// Whether another socket has an address that the node wants.
    pub fn is_address_in_use(&self) -> bool {
        match self {
            Self::Listen { source, .. } | Self::Join(JoinError::Mesh { source, .. }) => {
                source.kind() == io::ErrorKind::AddrInUse
            }
            _ => false,
        }
    }
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
    /// accepts.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, env: Env) -> Result<Self, StartError> {
        let open = OpenStores::open(&config.data, &config.store, &config.blobs, &env).await?;
        let mut node = Self::start_on(open.stores().clone(), config, env).await?;
        node.open = Some(open);
        Ok(node)
    }

    /// Starts a node on the given stores.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on(stores: Stores, config: Config, env: Env) -> Result<Self, StartError> {
        let tls = match &config.tls {
            Some(files) => Tls::from_files(&env, &files.certificate, &files.key)?,
            None => {
                let names =
                    [config.hostname.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()];
                let mut names: Vec<String> = names.to_vec();
                names.dedup();
                Tls::self_signed(&env, &config.data, &names)?
            }
        };
        let token = AdminToken::load_or_create(&config.data, &env)?;
        let stop = Stop::new();
        let backup = stores.backup.clone();
        let hub = Hub::default();
        let peers = Peers::join(&stores.db.counted_apart(), &env, &config, &hub).await?;
        if peers.is_to_stand_aside() {
            stand_aside(&peers, &stores, &config, &env, &token).await?;
        }
        let heard = (hub, peers.ears.clone());
        let services = Services::new(stores, config, env.clone(), tls, stop.listen(), heard);
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
        let own = OwnNode::new(sessions.clone(), peers.membership.clone());
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
            backup,
            token,
        };
        upkeep::seed(&own_db, &env)
            .await
            .map_err(|error| JoinError::from(ClusterError::from(error)))?;
        let runner = peers.work(&own_db, &env, upkeep::workers(&services, sweeper));
        let lags = runner.lags();
        services.metrics.watch_cluster(ClusterSource {
            membership: peers.membership.clone(),
            ears: peers.ears.clone(),
            lags: lags.clone(),
        });
        let load = show_load(env.clone(), peers.membership.clone(), sessions.clone(), lags);
        let follow = settings::follow(
            services.config.clone(),
            peers.membership.settings(),
            services.settings.clone(),
        );
        let mut node = Self {
            _housekeeping: env.spawn("housekeeping", housekeeping(services.clone())),
            _settings: env.spawn("settings", follow),
            _tickets: env.spawn("tickets", share_tickets(services.clone())),
            _load: env.spawn("load", load),
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
        let (mut wish, mut standing) =
            (self.peers.membership.wish(), self.peers.membership.standing());
        let drain = async { wish.wait_for(|wish| *wish == Wish::Drain).await.is_ok() };
        let superseded =
            async { standing.wait_for(|it| *it == Standing::Superseded).await.is_ok() };
        tokio::select! {
            biased;
            true = superseded => Ending::Superseded,
            true = drain => Ending::Drain,
            else => std::future::pending().await,
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
        let ended = env.timeout(patience, async {
            join(std::mem::take(&mut self.loops)).await;
            // A delivery outlives a session that broke off.
            self.services.deliverer.finished().await;
            self.stop_http.stop();
            join(std::mem::take(&mut self.http_loops)).await;
        });
        if ended.await.is_err() {
            tracing::warn!("sessions were cut off at the end of the shutdown time");
        }
        if env.timeout(limits::LEAVE_RESERVE, leave(self.runner, self.peers)).await.is_err() {
            tracing::warn!("left without a word: others will find this node dead");
        }
        if !self.http_addresses.is_empty()
            && let Err(error) = endpoint::withdraw(&self.services.config.data)
        {
            tracing::warn!(%error, "cannot withdraw the admin address");
        }
        if let Some(open) = self.open.take()
            && let Err(error) = open.close().await
        {
            // Whatever was acknowledged is in the journal already.
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}

/// Waits while administrators want the node to stand aside. Meanwhile it can be administered and
/// asked, and nothing else.
async fn stand_aside(
    peers: &Peers,
    stores: &Stores,
    config: &Config,
    env: &Env,
    token: &AdminToken,
) -> Result<(), StartError> {
    let readiness = Readiness::new();
    readiness.enter(Phase::Drained);
    let settings = watch::Sender::new(Arc::new(Settings::of(config)));
    let parts = HttpParts {
        env: env.clone(),
        metrics: Metrics::new(env.clone()),
        readiness,
        admin: Admin { db: stores.db.clone(), env: env.clone() },
        checker: Checker::new(stores.blobs.clone()),
        backup: stores.backup.clone(),
        fleet: OwnNode::new(Sessions::new(settings.subscribe()), peers.membership.clone()),
        token: token.clone(),
    };
    let stop = Stop::new();
    let mut serving = Vec::new();
    for (index, address) in config.listen.http.iter().enumerate() {
        let listener = bind(env, Protocol::Http, *address).await?;
        if let Some(address) = listener.local_address().ok().filter(|_| index == 0) {
            publish(&config.data, address)?;
        }
        let mut stopping = stop.listen();
        let stop = async move { stopping.requested().await };
        let router = http::router(parts.clone());
        serving.push(env.spawn("http", http::serve(env.clone(), listener, router, stop)));
    }
    peers.until_wanted().await;
    stop.stop();
    // What was asked for is answered, so that whoever undrained the node hears of it.
    let patience = Duration::from_secs(config.limits.shutdown_seconds);
    let _cut_off = env.timeout(patience, join(serving)).await;
    Ok(())
}

fn publish(data: &std::path::Path, address: SocketAddr) -> Result<(), StartError> {
    endpoint::publish(data, address)
        .map_err(|source| StartError::Data { path: data.to_owned(), source })
}

/// Gives back what the node has claimed, and ends its epoch.
async fn leave(runner: Runner, peers: Peers) {
    runner.stop().await;
    if let Some(mesh) = &peers.mesh {
        mesh.close().await;
    }
    if let Err(error) = peers.membership.leave().await {
        tracing::warn!(%error, "this node's end is not noted");
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

/// Has heartbeats tell how much the node does.
async fn show_load(env: Env, membership: Membership, sessions: Sessions, lags: Lags) {
    loop {
        membership.show_load(sessions.count(), lags.claimed());
        env.sleep(limits::LOAD_PERIOD).await;
    }
}
