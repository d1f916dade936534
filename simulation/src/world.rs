//! A cluster in a simulation: nodes on one store and one bucket, accounts, clients.
//!
//! The nodes are [`node::Node`]s with production's configuration. They share one memory engine, each
//! through a handle with faults of its own, and one model of an S3 service. A supervisor starts a
//! node again that has ended by itself, as a service manager does; what a fault has crashed stays
//! down until that fault, or a workload, starts it.
//!
//! Invariants:
//! - A node's process is one incarnation of its host; what is on its disk (a certificate, the
//!   admin token) stays.
//! - [`World::env`], [`World::db`] and [`World::blobs`] are the world's own, which no fault touches:
//!   they are for preparing and for looking.

mod accounts;
mod process;
pub(crate) mod setup;
mod tls;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use blob::{
    BlobStore,
    s3::model::{Bucket, BucketFaults, BucketLink},
};
use env::{Env, Monotonic, Stream};
use kv::{Database, FaultHandle, Faults};
use node::{admin::Admin, config::Config};
use tokio::sync::{oneshot, watch};

pub use accounts::{Account, DOMAIN, PASSWORD};
pub use process::NodeState;
pub use setup::{Door, Setup};

use crate::{Facts, Host, Loss, NetworkHandle, Random, Schedule, Seed, Simulation, fabric::Fabric};
use tls::TlsFiles;

/// One of a world's nodes: their number counts from 1, as in their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u8);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node-{}", self.0)
    }
}

/// A cluster, its accounts and its clients. Clones are the same world.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

struct Shared {
    fabric: Arc<Fabric>,
    setup: Setup,
    own: Host,
    db: Database,
    bucket: Bucket,
    blobs: BlobStore,
    /// Holds the nodes' folders.
    _data: tempfile::TempDir,
    tls: TlsFiles,
    nodes: Vec<Slot>,
    accounts: Vec<Account>,
    facts: Facts,
    clients: Mutex<BTreeMap<String, Host>>,
    deadline: AtomicU64,
}

/// A node and what is around it, whether it runs or not.
struct Slot {
    id: NodeId,
    host: Host,
    config: Config,
    state: watch::Sender<NodeState>,
    bucket: BucketLink,
    control: Mutex<Control>,
    /// Held by whoever disturbs its process.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The right to disturb a node's process, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    node: NodeId,
    _held: tokio::sync::OwnedMutexGuard<()>,
}

impl Turn {
    /// Whose process.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

/// What is wanted of a node.
struct Control {
    wanted: Wanted,
    /// What the handle to the store does, in this process and the next.
    store: Faults,
    /// The running process's.
    store_handle: Option<FaultHandle>,
    drain: Option<oneshot::Sender<()>>,
    /// What the node calls itself, in the next process.
    name: String,
}

/// Whether a node that has ended by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Running,
    Down,
}

impl Slot {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().expect("no code panics while it holds what is wanted")
    }
}

impl World {
    /// Makes a world and starts its nodes; every one of them serves when this returns.
    ///
    /// # Panics
    /// Where that does not succeed: nothing disturbs it yet.
    pub async fn start(simulation: &Simulation, setup: Setup) -> Self {
        let facts = Facts::new(Arc::clone(&simulation.fabric.core));
        Self::start_noting(simulation, setup, facts).await
    }

    /// The same, with a journal that others note in too.
    pub(crate) async fn start_noting(simulation: &Simulation, setup: Setup, facts: Facts) -> Self {
        simulation.set_schedule(Schedule::Drawn);
        let fabric = Arc::clone(&simulation.fabric);
        let own = fabric.named_host("world", IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)));
        let env = own.env();
        let db = Database::memory(env.clone());
        let bucket = Bucket::new(env.clone());
        let blobs = BlobStore::on_model(bucket.link(), env.clone());
        let data = setup::data_folder();
        let tls = TlsFiles::make(&env, data.path());
        let nodes = (1..=setup.nodes)
            .map(|number| {
                let id = NodeId(number);
                let address = setup::node_address(id);
                Slot {
                    id,
                    host: fabric.named_host(&id.to_string(), address.into()),
                    config: setup::config(id, data.path(), &tls, &setup),
                    state: watch::Sender::new(NodeState::Down),
                    bucket: bucket.link(),
                    control: Mutex::new(Control {
                        wanted: Wanted::Down,
                        store: setup.store.clone(),
                        store_handle: None,
                        drain: None,
                        name: id.to_string(),
                    }),
                    turn: Arc::default(),
                }
            })
            .collect();
        let accounts = accounts::make(&db, &env, setup.accounts).await;
        let shared = Shared {
            fabric,
            deadline: AtomicU64::new(0),
            setup,
            own,
            db,
            bucket,
            blobs,
            _data: data,
            tls,
            nodes,
            accounts,
            facts,
            clients: Mutex::default(),
        };
        let world = Self { shared: Arc::new(shared) };
        for node in world.nodes() {
            world.start_node(node);
            world.until_serving(node).await;
        }
        world.begin();
        world
    }

    /// Sets the deadline from now.
    pub(crate) fn begin(&self) {
        let end = self.now() + self.shared.setup.duration;
        self.shared.deadline.store(crate::executor::nanos(end), Relaxed);
    }

    /// Ends every fault, and starts every node that is down.
    pub fn calm(&self) {
        self.network().heal_all();
        self.network().set_loss(Loss::NONE);
        self.network().set_duplication(0);
        for client in self.clients() {
            client.resume();
        }
        for node in self.nodes() {
            let host = self.host(node);
            host.resume();
            host.spare();
            host.skew(0, 0);
            self.slot(node).control().wanted = Wanted::Running;
            self.store_faults(node, |faults| *faults = self.shared.setup.store.clone());
            self.bucket_faults(node, |faults| *faults = BucketFaults::default());
            if self.state(node) == NodeState::Down {
                self.start_node(node);
            }
        }
    }

    /// How the world was made.
    pub fn setup(&self) -> &Setup {
        &self.shared.setup
    }

    /// The world's seed.
    pub fn seed(&self) -> Seed {
        self.shared.fabric.seed
    }

    /// Chance for whoever is called this; follows from the seed and the name alone.
    pub fn random(&self, name: &str) -> Random {
        Random::named(self.seed(), name)
    }

    /// The world's own environment, which no fault touches. Nothing of a client runs on it.
    pub fn env(&self) -> Env {
        self.shared.own.env()
    }

    /// The store, past every fault.
    pub fn db(&self) -> Database {
        self.shared.db.clone()
    }

    /// The blobs, past every fault of the service but what it keeps.
    pub fn blobs(&self) -> BlobStore {
        self.shared.blobs.clone()
    }

    /// The service that keeps the blobs.
    pub fn bucket(&self) -> &Bucket {
        &self.shared.bucket
    }

    /// What administers the store, past every fault.
    pub fn admin(&self) -> Admin {
        Admin { db: self.db(), env: self.env() }
    }

    /// What was seen so far.
    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    /// The network.
    pub fn network(&self) -> NetworkHandle {
        NetworkHandle::new(Arc::clone(&self.shared.fabric.network))
    }

    /// Virtual time of the world, which no host's clock need agree with.
    pub fn now(&self) -> Monotonic {
        self.shared.fabric.core.now()
    }

    /// When workloads and faults are to end, in the world's time.
    pub fn deadline(&self) -> Monotonic {
        Monotonic::from_start(Duration::from_nanos(self.shared.deadline.load(Relaxed)))
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        self.now() >= self.deadline()
    }

    /// Waits for the deadline.
    pub async fn until_deadline(&self) {
        self.shared.fabric.core.sleep_until(self.deadline()).await;
    }

    /// Waits, in the world's time, for at most as long as the deadline allows.
    pub async fn rest(&self, duration: Duration) {
        let until = (self.now() + duration).min(self.deadline());
        self.shared.fabric.core.sleep_until(until).await;
    }

    /// The accounts.
    pub fn accounts(&self) -> &[Account] {
        &self.shared.accounts
    }

    /// Makes a further account, for one workload's own purpose; 0 bytes of quota are no limit.
    pub async fn add_account(&self, local: &str, quota_bytes: u64) -> Account {
        accounts::add(&self.db(), &self.env(), local, quota_bytes).await
    }

    /// Lets every wall clock go ahead at once, and the store's versions with them, as if so much
    /// time had passed in which nothing happened.
    pub fn pass(&self, time: Duration) {
        let jump_ms = i64::try_from(time.as_millis()).expect("a few days");
        let nodes = self.shared.nodes.iter().map(|slot| slot.host.clone());
        for host in nodes.chain(self.clients()).chain([self.shared.own.clone()]) {
            host.jump(jump_ms);
        }
        self.leap_versions(u64::try_from(time.as_micros()).expect("a few days"));
    }

    /// A client's machine; made where there is none of this name yet.
    pub fn client_host(&self, name: &str) -> Host {
        let mut clients = self.shared.clients.lock().expect("no code panics while it holds them");
        if let Some(host) = clients.get(name) {
            return host.clone();
        }
        let number = u16::try_from(clients.len() + 1).expect("a world has fewer clients");
        let [high, low] = number.to_be_bytes();
        // RFC 2544's addresses: nobody's.
        let address = IpAddr::V4(Ipv4Addr::new(198, 18, high, low));
        let host = self.shared.fabric.named_host(name, address);
        clients.insert(name.to_owned(), host.clone());
        host
    }

    /// Another mail server's machine, which is a client's in every other respect.
    pub(crate) fn peer_host(&self, name: &str, address: Ipv4Addr) -> Host {
        let host = self.shared.fabric.named_host(name, address.into());
        let mut clients = self.shared.clients.lock().expect("no code panics while it holds them");
        clients.insert(name.to_owned(), host.clone());
        host
    }

    /// A client's environment; see [`World::client_host`].
    pub fn client(&self, name: &str) -> Env {
        self.client_host(name).env()
    }

    /// Every client's machine so far.
    pub fn clients(&self) -> Vec<Host> {
        let clients = self.shared.clients.lock().expect("no code panics while it holds them");
        clients.values().cloned().collect()
    }

    /// Where all nodes listen for a protocol, by their numbers, whether they run or not.
    pub fn doors(&self, door: Door) -> Vec<SocketAddr> {
        self.nodes().map(|node| self.door(node, door)).collect()
    }

    /// Where a node listens for a protocol.
    pub fn door(&self, node: NodeId, door: Door) -> SocketAddr {
        door.of(&self.slot(node).config)
    }

    /// Opens a connection and does the TLS handshake, as for [`Door::Imaps`] and
    /// [`Door::Submissions`].
    ///
    /// # Errors
    /// As the network and the handshake report them.
    pub async fn connect_tls(&self, client: &Env, to: SocketAddr) -> io::Result<Stream> {
        let stream = client.connect(to).await?;
        self.shared.tls.handshake(stream).await
    }

    /// Does the TLS handshake on an open connection, as after STARTTLS.
    ///
    /// # Errors
    /// As the handshake reports them.
    pub async fn start_tls(&self, stream: Stream) -> io::Result<Stream> {
        self.shared.tls.handshake(stream).await
    }

    /// The nodes, whether they run or not.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + Send + use<> {
        (1..=self.shared.setup.nodes).map(NodeId)
    }

    /// The nodes that serve.
    pub fn serving(&self) -> Vec<NodeId> {
        self.nodes().filter(|node| self.state(*node) == NodeState::Serving).collect()
    }

    /// What a node does.
    pub fn state(&self, node: NodeId) -> NodeState {
        *self.slot(node).state.borrow()
    }

    /// What a node calls itself.
    pub fn node_name(&self, node: NodeId) -> String {
        self.slot(node).control().name.clone()
    }

    /// Gives a node another name, from its next process on. Its machine is called as before.
    pub fn rename_node(&self, node: NodeId, name: String) {
        self.slot(node).control().name = name;
    }

    /// A node's machine.
    pub fn host(&self, node: NodeId) -> Host {
        self.slot(node).host.clone()
    }

    /// The right to crash, drain, start or pause a node, which one fault or workload has at a time;
    /// none while another one has it.
    pub fn disturb(&self, node: NodeId) -> Option<Turn> {
        let held = Arc::clone(&self.slot(node).turn).try_lock_owned().ok()?;
        Some(Turn { node, _held: held })
    }

    /// Changes what a node's handle to the store does, in this process and the next ones.
    pub fn store_faults(&self, node: NodeId, change: impl FnOnce(&mut Faults)) {
        let mut control = self.slot(node).control();
        change(&mut control.store);
        if let Some(handle) = &control.store_handle {
            handle.set(control.store.clone());
        }
    }

    /// Skips versions of the store, as a recovery does: every transaction under way is too old.
    pub fn leap_versions(&self, versions: u64) {
        self.shared.db.leap_versions(versions);
    }

    /// Changes what the S3 service does to a node.
    pub fn bucket_faults(&self, node: NodeId, change: impl FnOnce(&mut BucketFaults)) {
        self.slot(node).bucket.update(change);
    }

    fn slot(&self, node: NodeId) -> &Slot {
        &self.shared.nodes[usize::from(node.0) - 1]
    }
}
