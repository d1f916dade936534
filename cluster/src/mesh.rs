//! The mesh: QUIC between nodes, for what is fast and may be lost.
//!
//! A datagram wakes a peer up; a request asks it something and gets frames back. Both make things
//! fast and decide nothing: what must be true is in the store.
//!
//! Trust comes from the store as well. Each life of a node has an [`Identity`] of its own, and
//! registers its certificate with its epoch in one transaction. The roster of these registrations
//! arrives through a `watch`, and a handshake succeeds only with a certificate that is in it. Who a
//! peer is follows from its certificate, never from what it says.
//!
//! - Of two nodes the one with the lower epoch connects to the other as soon as it sees it: the
//!   newer one already knows the older one. The newer one connects only when it has something to
//!   send first. If both do at once, both connections stay and either serves.
//! - Whoever was called answers a good handshake with a greeting, an empty stream. In TLS 1.3 a
//!   client is done before the server has looked at its certificate; before the greeting, nothing
//!   is sent that a refusal would lose.
//! - A peer that leaves the roster is cut off at once, and one that comes again with a new epoch is
//!   connected to at once.
//!
//! Invariants:
//! - [`Mesh::send`] never waits. What a peer can make this node hold has a bound
//!   ([`limits`]): datagrams, streams, frames, handshakes, connections.
//! - Everything reaches the world through [`Env`], so the mesh runs in the simulation as it is.
//!
//! Deliberately absent: delivery. A datagram is sent once, to a peer that may not get it.

mod accept;
mod counts;
mod endpoint;
mod identity;
mod link;
mod request;
mod runtime;
mod serve;
mod shared;
mod trust;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use env::{BoxFuture, Env, Task};
use tokio::sync::watch;

pub use counts::MeshCounts;
pub use identity::Identity;
pub use request::{Reply, ReplySender};

use crate::{Epoch, limits};
use shared::{CLOSING, Shared};
use trust::{Strangers, Trust};

/// How to reach a node, as it registered in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where its mesh listens.
    pub address: SocketAddr,
    /// Its certificate in DER, as [`Identity::certificate`] gave it.
    pub certificate: Vec<u8>,
}

/// The roster: every registered node. It may hold this node too. Where two epochs have one
/// certificate (a node that registered again), the higher one is meant.
pub type Peers = BTreeMap<Epoch, Peer>;

/// What a node does for its peers.
pub trait Service: Send + Sync + 'static {
    /// A wake-up. Called on the mesh's task: must be quick.
    fn datagram(&self, from: Epoch, bytes: Bytes);

    /// Answers a request with frames, and ends the answer with [`ReplySender::finish`]. The future
    /// is dropped when the peer hangs up or has received the end.
    fn request(&self, from: Epoch, request: Bytes, reply: ReplySender) -> BoxFuture<'static, ()>;
}

/// A node's connections to its peers. Dropping it ends them; [`Mesh::close`] says goodbye first.
pub struct Mesh {
    shared: Arc<Shared>,
    runtime: Arc<runtime::Runtime>,
    socket: Arc<runtime::Socket>,
    address: SocketAddr,
    tasks: Mutex<Vec<Task<()>>>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Mesh").field(&self.address).finish()
    }
}

impl Mesh {
    /// Binds `listen` and serves whoever is in `peers`. `own` is this node's epoch, once it has
    /// one: it registers with an address, so it listens before it is registered.
    ///
    /// # Errors
    /// As binding the socket fails: address in use, permission denied.
    pub async fn start(
        env: Env,
        listen: SocketAddr,
        identity: Identity,
        own: watch::Receiver<Option<Epoch>>,
        peers: watch::Receiver<Arc<Peers>>,
        service: Arc<dyn Service>,
    ) -> io::Result<Self> {
        let strangers = Arc::new(Strangers::new(env.clone()));
        let trust = Trust::new(&env, identity, peers.clone(), Arc::clone(&strangers));
        let runtime = Arc::new(runtime::Runtime::new(env.clone()));
        let (endpoint, socket) = endpoint::bind(&env, listen, &trust, Arc::clone(&runtime)).await?;
        let address = endpoint.local_addr()?;
        let watched = (own, peers);
        let shared = Shared::new(env.clone(), endpoint, trust, strangers, service, watched.clone());
        let tasks = vec![
            env.spawn("mesh-roster", shared::follow(Arc::clone(&shared), watched)),
            env.spawn("mesh-accept", accept::accept(Arc::clone(&shared))),
        ];
        Ok(Self { shared, runtime, socket, address, tasks: Mutex::new(tasks) })
    }

    /// Where this node listens, with the real port where port 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a datagram of at most [`limits::MESH_DATAGRAM_BYTES_MAX`] bytes, once, and never
    /// waits. Without a connection a few datagrams are kept until there is one. What is lost on
    /// this side is counted ([`MeshCounts::datagrams_dropped`]).
    pub fn send(&self, to: Epoch, datagram: Bytes) {
        self.shared.send(to, datagram);
    }

    /// Asks a peer. The answer's first frame has to come within
    /// [`limits::MESH_FIRST_FRAME_TIMEOUT`]; a service that may have nothing to say for long says
    /// so with an empty frame.
    ///
    /// # Errors
    /// [`MeshError`]. The peer may have got the request all the same, unless it is
    /// [`MeshError::Unknown`], [`MeshError::TooLarge`] or [`MeshError::Closed`].
    pub async fn request(&self, to: Epoch, request: Bytes) -> Result<Reply, MeshError> {
        request::request(&self.shared, to, &request).await
    }

    /// Completes when someone was met whom the roster lacks: a peer that connects, or an epoch that
    /// is sent to. A membership that reads the roster now lets a new node in without a wait. At
    /// most every [`limits::MESH_STRANGER_INTERVAL`], because anyone may be the stranger.
    pub async fn stranger(&self) {
        self.shared.strangers.notify.notified().await;
    }

    /// What has happened so far.
    pub fn counts(&self) -> MeshCounts {
        self.shared.counts()
    }

    /// Says goodbye to every peer, for at most [`limits::MESH_CLOSE_TIMEOUT`], and ends. The port is
    /// free afterwards. Nothing is sent or asked any more; a second call finds nothing to do.
    pub async fn close(&self) {
        self.shared.end();
        self.shared.endpoint.close(CLOSING, &[]);
        let goodbye = self.shared.endpoint.wait_idle();
        // A peer that does not answer learns of it by its idle timeout.
        let _in_time = self.shared.env.timeout(limits::MESH_CLOSE_TIMEOUT, goodbye).await;
        let tasks = self.take_tasks();
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ended = task.await;
        }
        self.runtime.end().await;
        self.socket.close();
    }

    fn take_tasks(&self) -> Vec<Task<()>> {
        std::mem::take(&mut *self.tasks.lock().expect("no code panics while it holds the tasks"))
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.shared.end();
        drop(self.take_tasks());
        drop(self.runtime.end());
        self.socket.close();
    }
}

/// Why a request has no answer, or an answer no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// The epoch is not in the roster, or no longer.
    #[error("node {0} is not known")]
    Unknown(Epoch),
    /// The request or the frame is larger than what the mesh carries.
    #[error("{bytes} bytes are more than the {max} that the mesh carries at once")]
    TooLarge {
        /// What there is.
        bytes: usize,
        /// What there may be.
        max: usize,
    },
    /// No connection, or no first frame, in time.
    #[error("the node did not answer in time")]
    TimedOut,
    /// The connection was lost.
    #[error("the connection to the node was lost")]
    Lost,
    /// The peer broke its answer off, or did not take the request.
    #[error("the node broke its answer off")]
    Cut,
    /// The peer no longer wants the answer.
    #[error("the node no longer wants the answer")]
    HungUp,
    /// This mesh is closed.
    #[error("the mesh is closed")]
    Closed,
}

#[cfg(test)]
mod tests;
