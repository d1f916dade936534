//! The network in memory: hosts with one address each, streams and datagrams between them.
//!
//! Invariants:
//! - A loopback or unspecified address means the host that uses it; no other host reaches what
//!   listens on a loopback address.
//! - A stream delivers its bytes in order, and whole unless it is reset; a datagram arrives whole or
//!   not at all, once or (where that is asked for) twice, and may overtake another.
//! - What one direction between two hosts is [cut](NetworkHandle::cut), datagrams are lost, and
//!   streams stand still until the cut is over: nobody learns of it but by waiting.
//! - Iteration and choice follow ordered maps and the network's own randomness.
//!
//! Deliberately absent: bandwidth, and damage to bytes.

mod datagrams;
mod pipe;
mod rules;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use env::{BoxFuture, Connection, Listen, Listener, Monotonic, Stream};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::{clock::Clock, host::Life, limits, random::SplitMix64};
use datagrams::Inbox;
use pipe::Direction;
use rules::Rules;

pub use rules::{Latency, Loss, NetworkHandle};

/// The first port that is given to whoever asks for none in particular (RFC 6335 §6).
const EPHEMERAL_PORT_FIRST: u16 = 49_152;

/// A host's address and one of its local addresses.
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

/// What listens or receives at a place, and for whom.
struct Binding<T> {
    number: u64,
    owner: Life,
    to: T,
}

type Bound<T> = BTreeMap<Place, Binding<T>>;

/// The network of a world.
pub(crate) struct Network {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    random: SplitMix64,
    rules: Rules,
    listeners: Bound<mpsc::Sender<Connection>>,
    sockets: Bound<Arc<Inbox>>,
    next_port: u16,
    next_binding: u64,
    streams: Vec<Live>,
    /// How many streams there are before the dead among them are forgotten.
    streams_full: usize,
}

/// One direction of a stream that may still be in use.
struct Live {
    from: IpAddr,
    to: IpAddr,
    direction: Weak<Direction>,
}

impl State {
    /// When something arrives that is sent now; none where it does not.
    fn arrival(&mut self, now: Monotonic, from: IpAddr, to: IpAddr) -> Option<Monotonic> {
        let latency = self.rules.latency_between(from, to);
        let spread = latency.max.saturating_sub(latency.min);
        let spread = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX - 1);
        let jitter = Duration::from_micros(self.random.below(spread + 1));
        (!self.rules.is_cut(from, to)).then(|| now + latency.min + jitter)
    }

    fn add_stream(&mut self, from: IpAddr, to: IpAddr, direction: &Arc<Direction>) {
        if self.streams.len() >= self.streams_full {
            self.streams.retain(|live| live.direction.strong_count() > 0);
            self.streams_full = (2 * self.streams.len()).max(64);
        }
        self.streams.push(Live { from, to, direction: Arc::downgrade(direction) });
    }

    fn streams_between(&self, from: IpAddr, to: IpAddr) -> Vec<Arc<Direction>> {
        let live = self.streams.iter().filter(|live| live.from == from && live.to == to);
        live.filter_map(|live| live.direction.upgrade()).collect()
    }
}

impl Network {
    pub(crate) fn new(clock: Clock, random: SplitMix64, latency: Latency) -> Arc<Self> {
        let state = State {
            random,
            rules: Rules::new(latency),
            listeners: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_port: EPHEMERAL_PORT_FIRST,
            next_binding: 0,
            streams: Vec::new(),
            streams_full: 64,
        };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the network")
    }

    fn arrival(&self, from: IpAddr, to: IpAddr) -> Option<Monotonic> {
        self.lock().arrival(self.clock.now(), from, to)
    }

    pub(crate) fn listen(
        self: &Arc<Self>,
        owner: &Life,
        address: SocketAddr,
    ) -> io::Result<Listener> {
        let (sender, waiting) = mpsc::channel(limits::BACKLOG_MAX);
        let (place, number) = {
            let state = &mut *self.lock();
            state.next_binding += 1;
            let binding = Binding { number: state.next_binding, owner: owner.clone(), to: sender };
            bind(&mut state.listeners, &mut state.next_port, address, binding)?
        };
        let waiting = AsyncMutex::new(waiting);
        Ok(Listener::new(Listening { network: Arc::clone(self), place, number, waiting }))
    }

    /// Opens a stream: one way there, one way back. Where either is cut, it is tried again.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        owner: &Life,
        to: SocketAddr,
    ) -> io::Result<Stream> {
        let place = Place::of(owner.address(), to);
        let deadline = self.clock.now() + limits::CONNECT_TIME_MAX;
        let mut pause = limits::CONNECT_PAUSE;
        loop {
            if let Some(arrival) = self.arrival(owner.address(), place.machine) {
                self.clock.sleep_until(arrival).await;
                if let Some(answer) = self.arrival(place.machine, owner.address()) {
                    let accepted = self.enter_backlog(owner, place);
                    // A refusal has to travel as well.
                    self.clock.sleep_until(answer).await;
                    return Ok(Box::new(accepted?));
                }
            }
            let again = self.clock.now() + pause;
            self.clock.sleep_until(again.min(deadline)).await;
            if again >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            pause *= 2;
        }
    }

    fn enter_backlog(self: &Arc<Self>, owner: &Life, to: Place) -> io::Result<pipe::End> {
        let (ours, refused) = {
            let state = &mut *self.lock();
            let bound = find(&state.listeners, to).ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = pipe::pair(self, owner, &bound.owner);
            let peer = SocketAddr::new(source(owner.address(), to), state.next_port);
            let directions = theirs.directions();
            let connection = Connection { stream: Box::new(theirs), peer, local: to.address };
            let refused = bound.to.try_send(connection).err();
            state.next_port = port_after(state.next_port);
            let (here, there) = (owner.address(), to.machine);
            if here != there {
                state.add_stream(here, there, &directions.0);
                state.add_stream(there, here, &directions.1);
            }
            (ours, refused)
        };
        // A full backlog would let a real client try again for minutes; here it is told at once.
        // The refused end is dropped here, where nobody holds the network.
        if refused.is_some() { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(ours) }
    }
}

/// What is bound where `to` leads, for whoever still lives.
fn find<T>(bound: &Bound<T>, to: Place) -> Option<&Binding<T>> {
    let found = to.bindings().iter().find_map(|place| bound.get(place));
    found.filter(|binding| binding.owner.is_alive())
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
    address: SocketAddr,
    binding: Binding<T>,
) -> io::Result<(Place, u64)> {
    let machine = binding.owner.address();
    let mut place = Place::of(machine, address);
    if place.machine != machine {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    // What an incarnation that has ended still holds is free.
    let taken = |place: &Place| bound.get(place).is_some_and(|held| held.owner.is_alive());
    if address.port() == 0 {
        let free = (EPHEMERAL_PORT_FIRST..=u16::MAX).find(|_| {
            place.address.set_port(*next_port);
            *next_port = port_after(*next_port);
            !taken(&place)
        });
        free.ok_or(io::ErrorKind::AddrInUse)?;
    } else if taken(&place) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let number = binding.number;
    bound.insert(place, binding);
    Ok((place, number))
}

/// Gives an address back, if nobody else has taken it since.
fn unbind<T>(bound: &mut Bound<T>, place: Place, number: u64) -> Option<Binding<T>> {
    let ours = bound.get(&place).is_some_and(|held| held.number == number);
    if ours { bound.remove(&place) } else { None }
}

/// A listening socket.
struct Listening {
    network: Arc<Network>,
    place: Place,
    number: u64,
    waiting: AsyncMutex<mpsc::Receiver<Connection>>,
}

impl Listen for Listening {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let connection = self.waiting.lock().await.recv().await;
            connection.ok_or_else(|| io::ErrorKind::NetworkDown.into())
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.place.address)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Its clients see the end of the stream, once the lock is free.
        let unbound = unbind(&mut self.network.lock().listeners, self.place, self.number);
        drop(unbound);
    }
}

#[cfg(test)]
mod tests;
