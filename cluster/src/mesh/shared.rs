//! What the mesh's tasks share: the peers, and the connections to them.
//!
//! Invariants:
//! - A link stands for one certificate of the roster. When its epoch changes, the link and its
//!   connections stay; when the certificate goes, both go.
//! - A link has at most two lines, one that we dialled and one that we accepted. A new one takes
//!   the place of an old one of its side: whoever dials again has lost the old one.
//! - No future is awaited and no service called while the lock is held.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use env::{Env, Task};
use quinn::{VarInt, rustls::pki_types::CertificateDer};
use tokio::sync::{Notify, watch};

use super::{
    MeshCounts, MeshError, Peer, Peers, Service,
    accept::Address,
    counts::{Counter, Counters},
    link, serve,
    trust::{Strangers, Trust},
};
use crate::{
    Epoch,
    limits::{MESH_BACKLOG_MAX, MESH_DATAGRAM_BYTES_MAX, MESH_PEERS_MAX},
};

/// Why a connection is closed, for who reads a packet trace.
pub(super) const UNKNOWN: VarInt = VarInt::from_u32(1);
const REPLACED: VarInt = VarInt::from_u32(2);
pub(super) const CLOSING: VarInt = VarInt::from_u32(3);
const ENDED: VarInt = VarInt::from_u32(4);

/// A peer's certificate: what it is known by.
pub(super) type Certificate = Arc<[u8]>;

/// What every task of the mesh holds.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) trust: Trust,
    pub(super) strangers: Arc<Strangers>,
    pub(super) service: Arc<dyn Service>,
    pub(super) counters: Counters,
    /// Rung when a line comes or goes, a handshake fails, or the roster changes.
    pub(super) changed: Notify,
    own: watch::Receiver<Option<Epoch>>,
    roster: watch::Receiver<Arc<Peers>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// What the links were made from.
    roster: Arc<Peers>,
    links: BTreeMap<Certificate, Link>,
    /// Which certificate an epoch has.
    epochs: BTreeMap<Epoch, Certificate>,
    next_line: u64,
}

#[derive(Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Ended,
}

/// What there is to one peer.
struct Link {
    epoch: Epoch,
    peer: Peer,
    dialling: Dialling,
    lines: Vec<Attached>,
    backlog: VecDeque<Bytes>,
    /// Rung when the dialler may have something to do.
    wake: Arc<Notify>,
    /// Dials while the link exists.
    _dialler: Task<()>,
}

/// Whether we connect by ourselves. Once we have a reason, we keep it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialling {
    /// The peer connects to us.
    Left,
    /// We connect, and connect again.
    Wanted,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialled,
    Accepted,
}

/// A connection to a peer.
pub(super) struct Line {
    pub(super) id: u64,
    pub(super) side: Side,
    pub(super) connection: quinn::Connection,
    certificate: Certificate,
    epoch: AtomicU64,
}

impl Line {
    /// Whose certificate it is now.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

struct Attached {
    line: Arc<Line>,
    _serving: Task<()>,
}

impl Link {
    fn line(&self) -> Option<&Arc<Line>> {
        // The newest first: an older one may be to a path that is gone.
        self.lines.iter().rev().map(|attached| &attached.line).find(|line| line.is_open())
    }

    fn want(&mut self) {
        self.dialling = Dialling::Wanted;
        self.wake.notify_one();
    }

    fn close(self, code: VarInt) {
        for attached in self.lines {
            attached.line.connection.close(code, &[]);
        }
    }
}

impl Shared {
    pub(super) fn new(
        env: Env,
        endpoint: quinn::Endpoint,
        trust: Trust,
        strangers: Arc<Strangers>,
        service: Arc<dyn Service>,
        (own, roster): Watched,
    ) -> Arc<Self> {
        let (counters, changed, state) = (Counters::default(), Notify::new(), Mutex::default());
        Arc::new(Self {
            env,
            endpoint,
            trust,
            strangers,
            service,
            counters,
            changed,
            own,
            roster,
            state,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the mesh's state")
    }

    /// The state, made from the newest roster: whoever is told of a new peer may send to it at once,
    /// and who passed a handshake by the newest roster is in the links.
    fn lock_fresh(self: &Arc<Self>) -> MutexGuard<'_, State> {
        let state = self.lock();
        if Arc::ptr_eq(&state.roster, &self.roster.borrow()) {
            return state;
        }
        drop(state);
        self.reconcile();
        self.lock()
    }

    /// Takes the roster and our own epoch for what they are now.
    fn reconcile(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.phase == Phase::Ended {
            return;
        }
        let own = *self.own.borrow();
        state.roster = Arc::clone(&self.roster.borrow());
        let roster = effective(own, self.trust.certificate(), &state.roster);
        let mut before = mem::take(&mut state.links);
        state.epochs.clear();
        for (epoch, peer) in roster {
            let known = before.remove_entry(peer.certificate.as_slice());
            let (certificate, mut link) =
                known.unwrap_or_else(|| self.new_link(epoch, peer.clone()));
            if link.peer.address != peer.address {
                link.peer = peer;
                link.wake.notify_one();
            }
            link.epoch = epoch;
            for attached in &link.lines {
                attached.line.epoch.store(epoch.0, Ordering::Relaxed);
            }
            if own.is_some_and(|own| own < epoch) {
                link.want();
            }
            state.epochs.insert(epoch, Arc::clone(&certificate));
            state.links.insert(certificate, link);
        }
        for link in before.into_values() {
            self.drop_backlog(&link);
            link.close(UNKNOWN);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn new_link(self: &Arc<Self>, epoch: Epoch, peer: Peer) -> (Certificate, Link) {
        let certificate = Certificate::from(peer.certificate.as_slice());
        let wake = Arc::new(Notify::new());
        let dialler = link::dial(Arc::clone(self), Arc::clone(&certificate), Arc::clone(&wake));
        let link = Link {
            epoch,
            peer,
            dialling: Dialling::Left,
            lines: Vec::new(),
            backlog: VecDeque::new(),
            wake,
            _dialler: self.env.spawn("mesh-dial", dialler),
        };
        (certificate, link)
    }

    fn drop_backlog(&self, link: &Link) {
        self.counters.datagrams_dropped.add(link.backlog.len() as u64);
    }

    /// Where to dial the peer with this certificate, if that is up to us now.
    pub(super) fn dial_target(&self, certificate: &[u8]) -> Option<Peer> {
        let state = self.lock();
        let link = state.links.get(certificate)?;
        let wanted = link.dialling == Dialling::Wanted && link.line().is_none();
        wanted.then(|| link.peer.clone())
    }

    /// Takes up a connection whose handshake is done; closes it if its peer is not in the roster.
    /// What waited for a connection is sent.
    pub(super) fn attach(
        self: &Arc<Self>,
        connection: quinn::Connection,
        side: Side,
    ) -> Attachment {
        let Some(shown) = shown_certificate(&connection) else {
            connection.close(UNKNOWN, &[]);
            return Attachment::Stranger;
        };
        let mut state = self.lock_fresh();
        let State { links, next_line, .. } = &mut *state;
        let Some((certificate, link)) = links
            .get_key_value(shown.as_ref())
            .map(|(certificate, _)| Arc::clone(certificate))
            .and_then(|certificate| links.get_mut(&certificate).map(|link| (certificate, link)))
        else {
            connection.close(UNKNOWN, &[]);
            return Attachment::Stranger;
        };
        if let Some(older) = link.lines.iter().position(|attached| attached.line.side == side) {
            link.lines.remove(older).line.connection.close(REPLACED, &[]);
        }
        let epoch = AtomicU64::new(link.epoch.0);
        let line = Arc::new(Line { id: *next_line, side, connection, certificate, epoch });
        *next_line += 1;
        for datagram in link.backlog.drain(..) {
            self.hand_over(&line, datagram);
        }
        let serving = serve::serve(Arc::clone(self), Arc::clone(&line));
        let serving = self.env.spawn("mesh-connection", serving);
        link.lines.push(Attached { line, _serving: serving });
        drop(state);
        self.counters.connections_opened.add_one();
        self.changed.notify_waiters();
        Attachment::Attached
    }

    /// Forgets a connection that is over.
    pub(super) fn detach(&self, line: &Line) {
        line.connection.close(ENDED, &[]);
        let mut state = self.lock();
        if let Some(link) = state.links.get_mut(&line.certificate) {
            link.lines.retain(|attached| attached.line.id != line.id);
            link.wake.notify_one();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn send(self: &Arc<Self>, to: Epoch, datagram: Bytes) {
        debug_assert!(
            datagram.len() <= MESH_DATAGRAM_BYTES_MAX,
            "a datagram of {} bytes",
            datagram.len()
        );
        let dropped = &self.counters.datagrams_dropped;
        if datagram.len() > MESH_DATAGRAM_BYTES_MAX {
            return dropped.add_one();
        }
        let mut state = self.lock_fresh();
        let Some(link) = state.link(to) else {
            drop(state);
            self.strangers.met();
            return dropped.add_one();
        };
        if let Some(line) = link.line() {
            let line = Arc::clone(line);
            drop(state);
            return self.hand_over(&line, datagram);
        }
        link.want();
        if link.backlog.len() < MESH_BACKLOG_MAX {
            link.backlog.push_back(datagram);
        } else {
            dropped.add_one();
        }
    }

    fn hand_over(&self, line: &Line, datagram: Bytes) {
        // Over its room the stack would drop older ones, silently.
        let fits = line.connection.datagram_send_buffer_space() >= datagram.len();
        if fits && line.connection.send_datagram(datagram).is_ok() {
            self.counters.datagrams_sent.add_one();
        } else {
            self.counters.datagrams_dropped.add_one();
        }
    }

    /// Counts a handshake that came to nothing.
    pub(super) fn failed(&self, counter: &Counter) {
        counter.add_one();
        self.changed.notify_waiters();
    }

    /// A connection to the peer, as soon as there is one.
    pub(super) async fn line(self: &Arc<Self>, to: Epoch) -> Result<Arc<Line>, MeshError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(line) = self.line_now(to)? {
                return Ok(line);
            }
            changed.await;
        }
    }

    fn line_now(self: &Arc<Self>, to: Epoch) -> Result<Option<Arc<Line>>, MeshError> {
        let mut state = self.lock_fresh();
        if state.phase == Phase::Ended {
            return Err(MeshError::Closed);
        }
        let Some(link) = state.link(to) else {
            self.strangers.met();
            return Err(MeshError::Unknown(to));
        };
        let line = link.line().map(Arc::clone);
        if line.is_none() {
            link.want();
        }
        Ok(line)
    }

    /// What is known about where a connection attempt comes from.
    pub(super) fn address_of(&self, incoming: &quinn::Incoming) -> Address {
        if !incoming.remote_address_validated() {
            return Address::Unvalidated;
        }
        // A socket for both protocols shows IPv4 in IPv6's clothes.
        let from = incoming.remote_address().ip().to_canonical();
        let is_peers = |link: &Link| link.peer.address.ip().to_canonical() == from;
        if self.lock().links.values().any(is_peers) { Address::Peer } else { Address::Stranger }
    }

    pub(super) fn counts(&self) -> MeshCounts {
        let lines = self.lock().links.values().map(|link| link.lines.len()).sum::<usize>();
        self.counters.read(lines as u64)
    }

    /// The epochs that have a link.
    #[cfg(test)]
    pub(super) fn links(&self) -> Vec<Epoch> {
        self.lock().epochs.keys().copied().collect()
    }

    /// Closes every connection, and takes up none any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.phase = Phase::Ended;
        state.epochs.clear();
        for link in mem::take(&mut state.links).into_values() {
            self.drop_backlog(&link);
            link.close(CLOSING);
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    fn link(&mut self, epoch: Epoch) -> Option<&mut Link> {
        self.links.get_mut(self.epochs.get(&epoch)?)
    }
}

/// What became of a connection whose handshake was good.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    Attached,
    /// Its peer has left the roster since.
    Stranger,
}

/// Our own epoch, and the roster.
pub(super) type Watched = (watch::Receiver<Option<Epoch>>, watch::Receiver<Arc<Peers>>);

/// Follows the roster and our own epoch.
pub(super) async fn follow(shared: Arc<Shared>, (mut own, mut roster): Watched) {
    loop {
        shared.reconcile();
        tokio::select! {
            biased;
            () = changed(&mut roster) => {}
            () = changed(&mut own) => {}
        }
    }
}

/// Where nobody can change it any more, what was said last holds.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending().await
    }
}

/// The peers of a roster: everyone but us, each certificate with its highest epoch.
fn effective(own: Option<Epoch>, certificate: &[u8], roster: &Peers) -> Peers {
    let mut highest = BTreeMap::new();
    for (epoch, peer) in roster {
        if Some(*epoch) != own && peer.certificate != certificate {
            highest.insert(peer.certificate.as_slice(), *epoch);
        }
    }
    if highest.len() > MESH_PEERS_MAX {
        let (peers, max) = (highest.len(), MESH_PEERS_MAX);
        tracing::warn!(peers, max, "more peers than the mesh connects; the newest are left out");
    }
    let mut epochs: Vec<_> = highest.into_values().collect();
    epochs.sort_unstable();
    epochs.truncate(MESH_PEERS_MAX);
    epochs.into_iter().map(|epoch| (epoch, roster[&epoch].clone())).collect()
}

/// The certificate that the peer proved to own.
fn shown_certificate(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    shown.into_iter().next()
}
