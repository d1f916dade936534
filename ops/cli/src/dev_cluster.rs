//! `rookery dev-cluster`: several nodes in one process on one store, for demonstrations and tests.
//!
//! Node N listens at 127.0.0.N, so a name or a list of addresses leads clients to all of them. Lines
//! on standard input act on nodes: `kill N` cuts one off in the middle of whatever it does, as a
//! crash would; `drain N` lets one say goodbye; `start N` starts it again. Each is answered with a
//! line on standard output. A node that administrators drain (`rookery cluster drain`) ends and is
//! started again, as by a supervisor, to stand aside until it is undrained.

mod control;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    task::Poll,
    time::Duration,
};

use env::Env;
use futures_util::future::LocalBoxFuture;
use kv::Faults;
use node::{
    Node, StartError, Started as NodeStarted,
    admin::{self, Admin, AdminError, endpoint, token::AdminToken},
    config::{BlobEngine, Blobs, Config, Engine, PortBase, Store, Wakeups},
    stores::{OpenStores, Stores},
};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::{
    args::DevClusterArgs,
    backend::create_data_folder,
    error::CliError,
    logging,
    output::Output,
    serve::{Request, Signals, dev},
};
use control::{Action, Order};

/// The mesh's port is the HTTP port plus this: the base plus 740.
const MESH_AFTER_HTTP: u16 = 660;

/// How long the ports of a killed node may take to be free.
const PORTS_FREE_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at them.
const PORTS_PAUSE: Duration = Duration::from_millis(20);

/// How long threads that may block are waited for at the very end.
const RUNTIME_END_TIME: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &DevClusterArgs) -> Result<(), CliError> {
    let base = PortBase::new(args.port_base)
        .ok_or_else(|| CliError::Usage("--port-base is out of range".to_owned()))?;
    let first = Config::dev(args.data.clone(), base)?;
    logging::start(&first.log)?;
    let data = match &args.data {
        Some(data) => data.clone(),
        None => first.data.with_file_name("rookery-dev-cluster"),
    };
    create_data_folder(&data)?;
    let (store, blobs) = stores(args)?;
    let sections = args.config.as_deref().map(Config::load).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process { what: "threads", reason: error.to_string() })?;
    let ended = runtime.block_on(async {
        let open = OpenStores::open(&data, &store, &blobs, &Env::system()).await?;
        let stores = open.stores().clone();
        let cluster = Cluster {
            stores,
            data,
            base,
            count: args.nodes,
            wakeups: args.wakeups.into(),
            sections,
            nodes: BTreeMap::new(),
            aside: BTreeMap::new(),
        };
        let served = Box::pin(serve(cluster)).await;
        let closed = open.close().await.map_err(CliError::Close);
        served.and(closed)
    });
    runtime.shutdown_timeout(RUNTIME_END_TIME);
    ended
}

/// What `--store` and `--blobs` name.
fn stores(args: &DevClusterArgs) -> Result<(Store, Blobs), CliError> {
    let (mut store, mut blobs) = (Store::default(), Blobs::default());
    if let Some(named) = &args.store {
        let file = named.strip_prefix("fdb:").filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| CliError::Usage("--store is fdb:CLUSTER_FILE".to_owned()))?;
        (store.engine, store.cluster_file) = (Engine::Fdb, PathBuf::from(file));
    }
    if let Some(named) = &args.blobs {
        let url =
            named.strip_prefix("s3:").and_then(|url| url.trim_end_matches('/').rsplit_once('/'));
        let (endpoint, bucket) =
            url.ok_or_else(|| CliError::Usage("--blobs is s3:URL/BUCKET".to_owned()))?;
        blobs.engine = BlobEngine::S3;
        (blobs.endpoint, blobs.bucket) = (endpoint.to_owned(), bucket.to_owned());
        // Several nodes in one process would count one cache several times.
        blobs.cache_bytes = 0;
    }
    if store.engine == Engine::Fdb && blobs.engine == BlobEngine::Embedded {
        return Err(CliError::Usage("--store fdb:… needs --blobs s3:…".to_owned()));
    }
    Ok((store, blobs))
}

/// The nodes, and what to start one with.
struct Cluster {
    stores: Stores,
    data: PathBuf,
    base: PortBase,
    count: u8,
    wakeups: Wakeups,
    /// A file's, of which some sections hold for every node.
    sections: Option<Config>,
    nodes: BTreeMap<u8, Node>,
    /// Nodes that are being started, and wait until administrators want them to serve.
    aside: BTreeMap<u8, Starting>,
}

/// A node that stands aside.
struct Starting {
    end: oneshot::Sender<()>,
    started: LocalBoxFuture<'static, Result<NodeStarted, StartError>>,
}

impl Starting {
    /// Lets it leave.
    async fn end(self) {
        // It may have come to its end already.
        let _ended = self.end.send(());
        if let Err(error) = self.started.await {
            tracing::warn!(%error, "a node that stood aside did not start");
        }
    }
}

impl Cluster {
    fn config(&self, number: u8) -> Config {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
        let mut config = config(&self.data, self.base, number, address, self.wakeups);
        if let Some(sections) = &self.sections {
            config.limits = sections.limits.clone();
            config.dns = sections.dns.clone();
            config.outbound = sections.outbound.clone();
        }
        config
    }

    /// Starts a node; one that is drained stands aside, and is started further beside the others.
    async fn start(&mut self, number: u8) -> Result<Started, CliError> {
        let config = self.config(number);
        create_data_folder(&config.data)?;
        // Its lines of the log, which all share, are told apart by it.
        let span = tracing::info_span!("node", id = config.cluster.node);
        let env = Env::system_within(span.clone());
        // One token opens all of them.
        AdminToken::load_or_create(&self.data, &env)?.save(&config.data)?;
        let db = self.stores.db.handle_with_faults(env.clone(), Faults::default());
        let admin = Admin { db: db.clone(), env: env.clone() };
        let is_drained = match admin::cluster::node(&admin, &config.cluster.node).await {
            Ok(known) => known.drain,
            Err(AdminError::NoNode(_)) => false,
            Err(error) => return Err(error.into()),
        };
        let stores = Stores { db, ..self.stores.clone() };
        // The command line finds the node that was started last.
        if let Some(address) = config.listen.http.first() {
            endpoint::publish(&self.data, *address)
                .map_err(|source| CliError::File { path: self.data.clone(), source })?;
        }
        if !is_drained {
            let starting = Node::start_on(stores, config, env).instrument(span);
            self.nodes.insert(number, Box::pin(starting).await?);
            return Ok(Started::Serving);
        }
        let (end, ended) = oneshot::channel();
        let ended = async {
            if ended.await.is_err() {
                // A node that is killed does not leave.
                std::future::pending().await
            }
        };
        let started = Node::start_on_unless(stores, config, env, ended).instrument(span);
        let started = Box::pin(started);
        self.aside.insert(number, Starting { end, started });
        Ok(Started::Aside)
    }

    /// Ends a node that was asked to, and starts it again.
    async fn end_as_asked(&mut self, number: u8) -> Result<(), CliError> {
        if let Some(node) = self.nodes.remove(&number) {
            tracing::info!(number, "draining");
            Box::pin(node.drain()).await;
            self.start(number).await?;
        }
        Ok(())
    }

    /// Waits until a killed node lets nobody in any more: its tasks end at their next step.
    async fn until_ports_are_free(&self, number: u8) -> Result<(), String> {
        let env = Env::system();
        let listen = self.config(number).listen;
        let lists = [
            listen.smtp,
            listen.submission,
            listen.submissions,
            listen.lmtp,
            listen.imap,
            listen.imaps,
            listen.http,
        ];
        let free = async {
            for address in lists.concat() {
                while env.listen(address).await.is_err() {
                    env.sleep(PORTS_PAUSE).await;
                }
            }
            for address in listen.mesh {
                while env.datagrams(address).await.is_err() {
                    env.sleep(PORTS_PAUSE).await;
                }
            }
        };
        let freed = env.timeout(PORTS_FREE_WITHIN, free).await;
        freed.map_err(|_| format!("node {number} is killed and holds its ports"))
    }

    async fn act(&mut self, order: Order) -> Result<String, String> {
        let Order { action, node: number } = order;
        if !(1..=self.count).contains(&number) {
            return Err(format!("there is no node {number}"));
        }
        if let Some(starting) = self.aside.remove(&number) {
            if action == Action::Start {
                self.aside.insert(number, starting);
                return Err(format!("node {number} stands aside: undrain it"));
            }
            if action == Action::Drain {
                starting.end().await;
            }
            return Ok(format!("{} {number}", action.done()));
        }
        match (action, self.nodes.remove(&number)) {
            (Action::Start, Some(node)) => {
                self.nodes.insert(number, node);
                Err(format!("node {number} runs"))
            }
            (Action::Start, None) => match self.start(number).await {
                Ok(Started::Serving) => Ok(format!("started {number}")),
                Ok(Started::Aside) => Ok(format!("aside {number}")),
                Err(error) => Err(error.to_string()),
            },
            (Action::Kill | Action::Drain, None) => Err(format!("node {number} does not run")),
            (Action::Kill, Some(node)) => {
                drop(node);
                self.until_ports_are_free(number).await?;
                Ok(format!("killed {number}"))
            }
            (Action::Drain, Some(node)) => {
                Box::pin(node.drain()).await;
                Ok(format!("drained {number}"))
            }
        }
    }

    async fn drain(&mut self) {
        let aside = std::mem::take(&mut self.aside).into_values();
        let ends = futures_util::future::join_all(aside.map(Starting::end));
        let nodes = std::mem::take(&mut self.nodes).into_values();
        let drains = futures_util::future::join_all(nodes.map(|node| Box::pin(node.drain())));
        futures_util::future::join(ends, drains).await;
    }
}

/// Completes when administrators want a node to end.
async fn asked_to_end(nodes: &BTreeMap<u8, Node>) -> u8 {
    let asked: Vec<_> = nodes
        .iter()
        .map(|(number, node)| {
            Box::pin(async move {
                let _why = node.asked_to_end().await;
                *number
            })
        })
        .collect();
    match asked.is_empty() {
        true => std::future::pending().await,
        false => futures_util::future::select_all(asked).await.0,
    }
}

/// Goes on with starting the nodes that stand aside; completes when one serves or fails.
async fn serve_again(aside: &mut BTreeMap<u8, Starting>) -> Result<(u8, Node), StartError> {
    let (number, started) = std::future::poll_fn(|cx| {
        let ready = aside.iter_mut().find_map(|(number, starting)| {
            match starting.started.as_mut().poll(cx) {
                Poll::Ready(started) => Some((*number, started)),
                Poll::Pending => None,
            }
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    aside.remove(&number);
    match started? {
        NodeStarted::Serving(node) => Ok((number, *node)),
        NodeStarted::Ended => unreachable!("it ends only once it is taken out of here"),
    }
}

/// What happens next to a cluster that serves.
enum Event {
    Signal(Request),
    AskedToEnd(u8),
    ServesAgain(Box<Result<(u8, Node), StartError>>),
    Order(Result<Order, String>),
}

/// What came of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Started {
    Serving,
    Aside,
}

/// A development node's configuration at an address of its own.
fn config(data: &Path, base: PortBase, number: u8, address: IpAddr, wakeups: Wakeups) -> Config {
    let data = data.join(format!("node-{number}"));
    let mut config = Config::dev(Some(data), base).expect("a folder is given");
    config.listen.move_to(address);
    let http = config.listen.http.first().expect("a development node has one").port();
    config.listen.mesh = vec![SocketAddr::new(address, http + MESH_AFTER_HTTP)];
    config.cluster.wakeups = wakeups;
    config.cluster.node = format!("node-{number}");
    // All clients come from the same few addresses.
    config.limits.connections_per_address_max = config.limits.connections_max;
    config
}

async fn serve(mut cluster: Cluster) -> Result<(), CliError> {
    // Before anything is started, so that no signal finds a node without its handler.
    let mut signals = Signals::new()?;
    let output = Output::human();
    for number in 1..=cluster.count {
        tokio::select! {
            started = cluster.start(number) => {
                started?;
            }
            () = signals.end() => return Ok(()),
        }
    }
    let accounts = match cluster.nodes.values().next() {
        Some(node) => Some(dev::accounts(&node.admin()).await?),
        None => None,
    };
    for number in 1..=cluster.count {
        let listen = cluster.config(number).listen;
        let shown = accounts.as_ref().filter(|_| number == 1);
        dev::greet(&output, &listen, shown)?;
    }
    output.line(format_args!("all ready"))?;
    let mut orders = control::read();
    loop {
        let Cluster { nodes, aside, .. } = &mut cluster;
        let event = tokio::select! {
            request = signals.next() => Event::Signal(request),
            number = asked_to_end(nodes) => Event::AskedToEnd(number),
            started = serve_again(aside) => Event::ServesAgain(Box::new(started)),
            Some(order) = orders.recv() => Event::Order(order),
        };
        match event {
            Event::Signal(Request::End) => break,
            Event::Signal(Request::Reload) => tracing::info!("nothing to read again"),
            Event::AskedToEnd(number) => cluster.end_as_asked(number).await?,
            Event::ServesAgain(started) => {
                let (number, node) = (*started)?;
                tracing::info!(number, "serves again");
                cluster.nodes.insert(number, node);
            }
            Event::Order(order) => {
                let answer = match order {
                    Ok(order) => cluster.act(order).await,
                    Err(reason) => Err(reason),
                };
                match answer {
                    Ok(done) => output.line(format_args!("{done}"))?,
                    Err(reason) => output.line(format_args!("refused: {reason}"))?,
                }
            }
        }
    }
    tracing::info!("draining");
    tokio::select! {
        () = cluster.drain() => Ok(()),
        () = signals.end() => Err(CliError::Interrupted),
    }
}
