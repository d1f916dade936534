//! This node among the others: its membership, what it hears of, and its share of the work.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    ClusterError, Epoch, Membership, Registration, Standing,
    membership::registry::{Activity, Wish},
    mesh::{Identity, Mesh, Peer, Peers as Known, ReplySender, Service},
    wake::{self, Ears, Heard, Watching},
    work::{Runner, RunnerSettings, Worker},
};
use env::{BoxFuture, Env, Task};
use kv::Database;
use mail::{AccountId, ListenerId, ModSeq};
use tokio::sync::watch;

use crate::{
    admin::cluster::Answering,
    announce::Elsewhere,
    config::{Config, Wakeups},
    hub::Hub,
};

/// The release that a node registers with.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What makes a process one of several.
pub(crate) struct Peers {
    pub(crate) membership: Membership,
    pub(crate) ears: Ears,
    pub(crate) mesh: Option<Arc<Mesh>>,
    /// What other nodes are answered with.
    pub(crate) answering: Answering,
    /// Keeps the mesh's roster equal to the membership's.
    _roster: Option<Task<()>>,
}

/// Why a node is not one of several.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The store does not let it register.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The mesh has no socket.
    #[error("cannot listen on {address} for the mesh: {source}")]
    Mesh {
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Peers {
    /// Registers the node and begins to listen; what is heard rings in `hub`.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(crate) async fn join(
        db: &Database,
        env: &Env,
        config: &Config,
        hub: &Hub,
    ) -> Result<Self, JoinError> {
        let answering = Answering::default();
        let link = match config.listen.mesh.first() {
            Some(address) if config.cluster.wakeups == Wakeups::Mesh => {
                Some(Link::open(env, *address, hub, &answering).await?)
            }
            _ => None,
        };
        let advertised = match config.cluster.advertise.as_str() {
            "" => link.as_ref().map(|link| link.mesh.local_address().to_string()),
            address => Some(address.to_owned()),
        };
        let registration = Registration {
            name: config.node_name(),
            release: RELEASE.to_owned(),
            address: advertised.filter(|_| link.is_some()).unwrap_or_default(),
            certificate: link.as_ref().map(|link| link.certificate.clone()).unwrap_or_default(),
            admin_address: config.listen.http.first().map(ToString::to_string).unwrap_or_default(),
            time_to_live: Duration::from_millis(config.cluster.time_to_live_ms),
        };
        let membership = Membership::join(db.clone(), env.clone(), registration).await?;
        let watching = match config.cluster.wakeups {
            Wakeups::Mesh | Wakeups::Watch => Watching::Bell,
            Wakeups::Poll => Watching::Nothing,
        };
        let hub = hub.clone();
        let hear = Arc::new(move |heard| match heard {
            Heard::Changed(account, version) => hub.ring(account, version),
            Heard::Anything => hub.ring_all(),
        });
        let ears = Ears::open(db, env, &membership, watching, hear);
        let (mesh, roster) = match link {
            Some(link) => {
                let roster = env.spawn("mesh-roster", introduce(link.own, link.peers, &membership));
                (Some(Arc::new(link.mesh)), Some(roster))
            }
            None => (None, None),
        };
        Ok(Self { membership, ears, mesh, answering, _roster: roster })
    }

    /// Whether administrators want the node to stand aside.
    pub(crate) fn is_to_stand_aside(&self) -> bool {
        *self.membership.wish().borrow() == Wish::Drain
    }

    /// Waits while administrators want the node to stand aside.
    pub(crate) async fn until_wanted(&self) -> Wanted {
        tracing::warn!("this node is drained: it serves when it is told to (undrain)");
        self.membership.show_activity(Activity::Drained);
        // The senders go with the membership, which is ours.
        let mut wish = self.membership.wish();
        tokio::select! {
            biased;
            () = self.superseded() => Wanted::Never,
            _ = wish.wait_for(|wish| *wish == Wish::Serve) => Wanted::Now,
        }
    }

    /// Waits until another process has the node's name.
    pub(crate) async fn superseded(&self) {
        let mut standing = self.membership.standing();
        let _superseded = standing.wait_for(|it| *it == Standing::Superseded).await;
    }

    /// Takes a share of the work.
    pub(crate) fn work(&self, db: &Database, env: &Env, workers: Vec<Arc<dyn Worker>>) -> Runner {
        self.membership.show_activity(Activity::Serving);
        Runner::start(db, env, &self.membership, RunnerSettings::default(), workers)
    }
}

/// What becomes of a node that stands aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is to serve.
    Now,
    /// Another process has its name.
    Never,
}

/// The mesh, before the node is registered.
struct Link {
    mesh: Mesh,
    certificate: Vec<u8>,
    own: watch::Sender<Option<Epoch>>,
    peers: watch::Sender<Arc<Known>>,
}

impl Link {
    async fn open(
        env: &Env,
        address: SocketAddr,
        hub: &Hub,
        answering: &Answering,
    ) -> Result<Self, JoinError> {
        let identity = Identity::generate(env);
        let certificate = identity.certificate().to_vec();
        let (own, peers) = (watch::Sender::new(None), watch::Sender::default());
        let service = Arc::new(Served { hub: hub.clone(), answering: answering.clone() });
        let mesh = Mesh::start(
            env.clone(),
            address,
            identity,
            own.subscribe(),
            peers.subscribe(),
            service,
        )
        .await
        .map_err(|source| JoinError::Mesh { address, source })?;
        Ok(Self { mesh, certificate, own, peers })
    }
}

/// What this node does for others.
struct Served {
    hub: Hub,
    answering: Answering,
}

impl Service for Served {
    fn datagram(&self, _from: Epoch, bytes: Bytes) {
        for (account, version) in wake::decode(bytes) {
            self.hub.ring(account, version);
        }
    }

    fn request(&self, _from: Epoch, request: Bytes, reply: ReplySender) -> BoxFuture<'static, ()> {
        Box::pin(self.answering.clone().answer(request, reply))
    }
}

/// Tells the mesh who this node is and who the others are.
fn introduce(
    own: watch::Sender<Option<Epoch>>,
    peers: watch::Sender<Arc<Known>>,
    membership: &Membership,
) -> impl Future<Output = ()> + use<> {
    let (mut standing, mut roster) = (membership.standing(), membership.roster());
    async move {
        loop {
            let epoch = match *standing.borrow_and_update() {
                Standing::Member(epoch) => Some(epoch),
                Standing::Lost | Standing::Superseded => None,
            };
            own.send_if_modified(|held| std::mem::replace(held, epoch) != epoch);
            let known: Known = roster
                .borrow_and_update()
                .iter()
                .filter_map(|(epoch, node)| {
                    let address = node.record.address.parse().ok()?;
                    Some((*epoch, Peer { address, certificate: node.record.certificate.clone() }))
                })
                .collect();
            peers.send_if_modified(|held| {
                let changed = **held != known;
                if changed {
                    *held = Arc::new(known);
                }
                changed
            });
            let gone = tokio::select! {
                biased;
                changed = standing.changed() => changed.is_err(),
                changed = roster.changed() => changed.is_err(),
            };
            if gone {
                return;
            }
        }
    }
}

/// Tells other nodes of changes over the mesh.
pub(crate) struct OverMesh {
    /// The node's: a delivery that outlives the node does not keep the socket.
    mesh: Weak<Mesh>,
    standing: watch::Receiver<Standing>,
}

impl OverMesh {
    pub(crate) fn new(mesh: &Arc<Mesh>, membership: &Membership) -> Self {
        Self { mesh: Arc::downgrade(mesh), standing: membership.standing() }
    }
}

impl Elsewhere for OverMesh {
    fn tell(&self, listeners: &[ListenerId], account: AccountId, version: ModSeq) {
        let Some(mesh) = self.mesh.upgrade() else { return };
        let datagram = wake::encode(&[(account, version)]);
        for epoch in listeners.iter().map(|listener| Epoch::from(*listener)) {
            if *self.standing.borrow() != Standing::Member(epoch) {
                mesh.send(epoch, datagram.clone());
            }
        }
    }
}
