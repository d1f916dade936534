//! The network in memory: machines with one address each, streams and datagrams between them.
//!
//! Invariants:
//! - A loopback or unspecified address means the machine that uses it; no other machine reaches
//!   what listens on a loopback address.
//! - A stream delivers its bytes whole and in order; a datagram arrives whole or not at all.
//! - Iteration and choice follow ordered maps and the network's own randomness.
//!
//! Deliberately absent: reordering, partitions and resets.

mod datagrams;
mod pipe;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use env::{BoxFuture, Connection, Listen, Listener, Monotonic, Stream};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::{clock::Clock, limits, random::SplitMix64};
use datagrams::Datagram;

/// The first port that is given to whoever asks for none in particular (RFC 6335 §6).
const EPHEMERAL_PORT_FIRST: u16 = 49_152;

/// How long bytes are on their way, one way: evenly spread from `min` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// At least.
    pub min: Duration,
    /// At most; not below `min`.
    pub max: Duration,
}

impl Latency {
    /// Bytes arrive at once.
    pub const NONE: Self = Self { min: Duration::ZERO, max: Duration::ZERO };
}

/// How many of a thousand datagrams are lost on their way. Streams lose nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Of a thousand; 1,000 cuts every machine off from every other, as far as datagrams go.
    pub per_mille: u64,
}

impl Loss {
    /// Everything arrives.
    pub const NONE: Self = Self { per_mille: 0 };
}

/// A machine's address and one of its local addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    machine: IpAddr,
    address: SocketAddr,
}

impl Place {
    /// What `address` means to `machine`.
    fn of(machine: IpAddr, address: SocketAddr) -> Self {
        let ip = address.ip();
        let own = ip.is_loopback() || ip.is_unspecified();
        Self { machine: if own { machine } else { ip }, address }
    }

    /// Where something may be bound that `self` reaches, the most particular first.
    fn bindings(self) -> [Self; 3] {
        let port = self.address.port();
        let any = |ip| Self { address: SocketAddr::new(ip, port), ..self };
        [self, any(Ipv4Addr::UNSPECIFIED.into()), any(Ipv6Addr::UNSPECIFIED.into())]
    }
}

/// What listens or receives where.
type Bound<T> = BTreeMap<Place, mpsc::Sender<T>>;

/// The network of a world.
pub(crate) struct Network {
    clock: Clock,
    latency: Latency,
    state: Mutex<State>,
}

struct State {
    random: SplitMix64,
    listeners: Bound<Connection>,
    sockets: Bound<Datagram>,
    next_port: u16,
    loss: Loss,
}

impl State {
    fn loses_datagram(&mut self) -> bool {
        // Nothing is drawn where nothing is lost: those worlds stay what they were.
        self.loss != Loss::NONE && self.random.below(1000) < self.loss.per_mille
    }
}

impl Network {
    pub(crate) fn new(clock: Clock, random: SplitMix64, latency: Latency) -> Arc<Self> {
        let (listeners, sockets) = (BTreeMap::new(), BTreeMap::new());
        let state =
            State { random, listeners, sockets, next_port: EPHEMERAL_PORT_FIRST, loss: Loss::NONE };
        Arc::new(Self { clock, latency, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the network")
    }

    pub(crate) fn set_loss(&self, loss: Loss) {
        self.lock().loss = loss;
    }

    /// When something arrives that is sent now.
    fn arrival(&self) -> Monotonic {
        let spread = self.latency.max.saturating_sub(self.latency.min);
        let spread = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX - 1);
        let jitter = Duration::from_micros(self.lock().random.below(spread + 1));
        self.clock.now() + self.latency.min + jitter
    }

    pub(crate) fn listen(
        self: &Arc<Self>,
        machine: IpAddr,
        address: SocketAddr,
    ) -> io::Result<Listener> {
        let (sender, waiting) = mpsc::channel(limits::BACKLOG_MAX);
        let place = {
            let state = &mut *self.lock();
            bind(&mut state.listeners, &mut state.next_port, machine, address, sender)?
        };
        let waiting = AsyncMutex::new(waiting);
        Ok(Listener::new(Listening { network: Arc::clone(self), place, waiting }))
    }

    /// Opens a stream: one way there, one way back.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        machine: IpAddr,
        to: SocketAddr,
    ) -> io::Result<Stream> {
        let place = Place::of(machine, to);
        self.clock.sleep_until(self.arrival()).await;
        let accepted = self.enter_backlog(machine, place);
        // A refusal has to travel as well.
        self.clock.sleep_until(self.arrival()).await;
        Ok(Box::new(accepted?))
    }

    fn enter_backlog(self: &Arc<Self>, machine: IpAddr, to: Place) -> io::Result<pipe::End> {
        let (ours, theirs) = pipe::pair(self);
        let state = &mut *self.lock();
        let backlog = find(&state.listeners, to).ok_or(io::ErrorKind::ConnectionRefused)?;
        let peer = SocketAddr::new(source(machine, to), state.next_port);
        let connection = Connection { stream: Box::new(theirs), peer, local: to.address };
        // A full backlog would let a real client try again for minutes; here it is told at once.
        backlog.try_send(connection).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        state.next_port = port_after(state.next_port);
        Ok(ours)
    }
}

/// What is bound where `to` leads.
fn find<T>(bound: &Bound<T>, to: Place) -> Option<&mpsc::Sender<T>> {
    to.bindings().iter().find_map(|place| bound.get(place))
}

/// The address that whoever is at `to` sees of `machine`.
fn source(machine: IpAddr, to: Place) -> IpAddr {
    if to.address.ip().is_loopback() { to.address.ip() } else { machine }
}

fn port_after(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(EPHEMERAL_PORT_FIRST)
}

/// Takes an address; where its port is 0, the next one that is free.
fn bind<T>(
    bound: &mut Bound<T>,
    next_port: &mut u16,
    machine: IpAddr,
    address: SocketAddr,
    sender: mpsc::Sender<T>,
) -> io::Result<Place> {
    let mut place = Place::of(machine, address);
    if place.machine != machine {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    if address.port() == 0 {
        let free = (EPHEMERAL_PORT_FIRST..=u16::MAX).find(|_| {
            place.address.set_port(*next_port);
            *next_port = port_after(*next_port);
            !bound.contains_key(&place)
        });
        free.ok_or(io::ErrorKind::AddrInUse)?;
    } else if bound.contains_key(&place) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    bound.insert(place, sender);
    Ok(place)
}

/// A listening socket.
struct Listening {
    network: Arc<Network>,
    place: Place,
    waiting: AsyncMutex<mpsc::Receiver<Connection>>,
}

impl Listen for Listening {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let connection = self.waiting.lock().await.recv().await;
            Ok(connection.expect("the network keeps the sender until this is dropped"))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.place.address)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Its clients see the end of the stream.
        self.network.lock().listeners.remove(&self.place);
    }
}

#[cfg(test)]
mod tests;
