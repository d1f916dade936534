//! Nodes to test with, and a service that does what it is told.

use std::{future::Future, time::Duration};

use tokio::sync::mpsc;

use super::super::*;

/// Longer than anything here takes: what hangs fails by this.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    Env::system().timeout(PATIENCE, future).await.expect("it happens in time")
}

pub(super) struct Node {
    pub(super) epoch: Epoch,
    pub(super) mesh: Mesh,
    pub(super) datagrams: mpsc::UnboundedReceiver<(Epoch, Bytes)>,
    /// One for each answer that ended, however.
    pub(super) ended: mpsc::UnboundedReceiver<()>,
    certificate: Vec<u8>,
    own: watch::Sender<Option<Epoch>>,
    roster: watch::Sender<Arc<Peers>>,
}

impl Node {
    pub(super) async fn start(epoch: u64) -> Self {
        Self::start_at(epoch, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn start_at(epoch: u64, address: SocketAddr) -> Self {
        let mut node = Self::start_unregistered(epoch, address).await;
        node.register(node.epoch);
        node
    }

    /// A node that peers may know, and that does not know its own epoch.
    pub(super) async fn unregistered(epoch: u64) -> Self {
        Self::start_unregistered(epoch, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn start_unregistered(epoch: u64, address: SocketAddr) -> Self {
        let env = Env::system();
        let identity = Identity::generate(&env);
        let certificate = identity.certificate().to_vec();
        let (own, own_watch) = watch::channel(None);
        let (roster, roster_watch) = watch::channel(Arc::default());
        let (heard, datagrams) = mpsc::unbounded_channel();
        let (ending, ended) = mpsc::unbounded_channel();
        let service = Arc::new(Obedient { heard, ending });
        let mesh = Mesh::start(env, address, identity, own_watch, roster_watch, service);
        let mesh = mesh.await.unwrap();
        Self { epoch: Epoch(epoch), mesh, datagrams, ended, certificate, own, roster }
    }

    pub(super) fn register(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.own.send_replace(Some(epoch));
    }

    pub(super) fn peer(&self) -> (Epoch, Peer) {
        let certificate = self.certificate.clone();
        (self.epoch, Peer { address: self.mesh.local_address(), certificate })
    }

    /// Sets the roster.
    pub(super) fn know(&self, peers: &[(Epoch, Peer)]) {
        self.roster.send_replace(Arc::new(peers.iter().cloned().collect()));
    }

    pub(super) async fn datagram(&mut self) -> (Epoch, Bytes) {
        patiently(self.datagrams.recv()).await.expect("the mesh keeps its service")
    }

    /// Waits until the mesh has come to a state.
    pub(super) async fn until(&self, state: impl Fn(&MeshCounts) -> bool) {
        patiently(async {
            loop {
                let mut changed = std::pin::pin!(self.mesh.shared.changed.notified());
                changed.as_mut().enable();
                if state(&self.mesh.counts()) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

/// Everyone's roster has everyone.
pub(super) fn introduce(nodes: &[&Node]) {
    let peers: Vec<_> = nodes.iter().map(|node| node.peer()).collect();
    for node in nodes {
        node.know(&peers);
    }
}

/// All frames of an answer.
pub(super) async fn ask(mesh: &Mesh, to: Epoch, what: &str) -> Result<Vec<Bytes>, MeshError> {
    patiently(async {
        let mut reply = mesh.request(to, what.to_owned().into()).await?;
        let mut frames = Vec::new();
        while let Some(frame) = reply.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    })
    .await
}

struct Obedient {
    heard: mpsc::UnboundedSender<(Epoch, Bytes)>,
    ending: mpsc::UnboundedSender<()>,
}

/// Tells of its end.
struct Ending(mpsc::UnboundedSender<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        // The test may be over.
        let _unheard = self.0.send(());
    }
}

impl Service for Obedient {
    fn datagram(&self, from: Epoch, bytes: Bytes) {
        // The test may be over.
        let _unheard = self.heard.send((from, bytes));
    }

    fn request(&self, from: Epoch, request: Bytes, reply: ReplySender) -> BoxFuture<'static, ()> {
        let ending = Ending(self.ending.clone());
        Box::pin(async move {
            let _ending = ending;
            // A peer that is gone is what some tests want.
            let _sent = obey(from, &request, reply).await;
        })
    }
}

async fn obey(from: Epoch, request: &[u8], mut reply: ReplySender) -> Result<(), MeshError> {
    let text = std::str::from_utf8(request).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["frames", count, bytes] => {
            let frame = Bytes::from(vec![7; bytes.parse().unwrap()]);
            for _ in 0..count.parse::<usize>().unwrap() {
                reply.send(frame.clone()).await?;
            }
        }
        ["who"] => reply.send(from.to_string().into()).await?,
        ["silence"] => {
            reply.send(Bytes::new()).await?;
            std::future::pending::<()>().await;
        }
        ["flood"] => loop {
            reply.send(vec![7; 1000].into()).await?;
        },
        ["lie"] => {
            reply.send_raw(Bytes::from_static(&[0xff; 4])).await?;
            std::future::pending::<()>().await;
        }
        ["half"] => reply.send_raw(Bytes::from_static(&[0, 0, 0, 9, b'x'])).await?,
        ["forget"] => {
            reply.send(Bytes::from_static(b"and no end")).await?;
            return Ok(());
        }
        ["panic"] => panic!("as planned"),
        _ => reply.send(request.len().to_string().into()).await?,
    }
    reply.finish();
    Ok(())
}
