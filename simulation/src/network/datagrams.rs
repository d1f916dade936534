//! Datagram sockets: what does not fit a socket's queue, has nobody to receive it, is sent into a
//! cut, or has bad luck, is lost.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use env::{BoxFuture, DatagramIo, Datagrams, Monotonic};

use super::{Binding, Network, Place, bind, find, source, unbind};
use crate::{
    executor::Sleep,
    host::Life,
    limits::{DATAGRAM_BYTES_MAX, DATAGRAMS_MAX},
};

/// One datagram on its way.
#[derive(Clone)]
struct Datagram {
    from: SocketAddr,
    bytes: Arc<[u8]>,
}

/// What is on its way to a socket or has arrived, in the order of arrival.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    datagrams: BTreeMap<(Monotonic, u64), Datagram>,
    next_number: u64,
    reader: Option<Waker>,
    arriving: Option<(Monotonic, Pin<Box<Sleep>>)>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().expect("no code panics while it receives")
    }

    fn put(&self, arrival: Monotonic, datagram: Datagram) {
        let mut waiting = self.lock();
        if waiting.datagrams.len() >= DATAGRAMS_MAX {
            return;
        }
        waiting.next_number += 1;
        let number = waiting.next_number;
        waiting.datagrams.insert((arrival, number), datagram);
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

struct Socket {
    network: Arc<Network>,
    owner: Life,
    place: Place,
    number: u64,
    inbox: Arc<Inbox>,
}

impl Network {
    pub(crate) fn datagrams(
        self: &Arc<Self>,
        owner: &Life,
        address: SocketAddr,
    ) -> io::Result<Datagrams> {
        let inbox = Arc::<Inbox>::default();
        let (place, number) = {
            let state = &mut *self.lock();
            state.next_binding += 1;
            let to = Arc::clone(&inbox);
            let binding = Binding { number: state.next_binding, owner: owner.clone(), to };
            bind(&mut state.sockets, &mut state.next_port, address, binding)?
        };
        let (network, owner) = (Arc::clone(self), owner.clone());
        Ok(Datagrams::new(Socket { network, owner, place, number, inbox }))
    }
}

impl DatagramIo for Socket {
    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !self.owner.is_alive() {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let here = self.place.machine;
        let to = Place::of(here, to);
        let now = self.network.clock.now();
        let mut state = self.network.lock();
        let arrival = state.arrival(now, here, to.machine);
        let loss = state.rules.loss.per_mille;
        // Nothing is drawn where nothing is lost.
        let lost = loss > 0 && state.random.below(1000) < loss;
        let Some(arrival) = arrival.filter(|_| !lost) else { return Ok(bytes.len()) };
        let twice = state.rules.duplication_per_mille;
        let again = if twice > 0 && state.random.below(1000) < twice {
            state.arrival(now, here, to.machine)
        } else {
            None
        };
        // UDP tells nobody of a socket that is not there, or is full.
        let inbox = find(&state.sockets, to).map(|binding| Arc::clone(&binding.to));
        drop(state);
        if let Some(inbox) = inbox {
            let from = SocketAddr::new(source(here, to), self.place.address.port());
            let datagram = Datagram { from, bytes: bytes.into() };
            for arrival in [Some(arrival), again].into_iter().flatten() {
                inbox.put(arrival, datagram.clone());
            }
        }
        Ok(bytes.len())
    }

    /// A simulated socket never makes its sender wait.
    fn writable(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let clock = &self.network.clock;
        let mut waiting = self.inbox.lock();
        let Some((arrival, number)) = waiting.datagrams.keys().next().copied() else {
            waiting.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if clock.now() < arrival {
            // One that is sent later may arrive before it.
            waiting.reader = Some(cx.waker().clone());
            if waiting.arriving.as_ref().is_none_or(|(at, _)| *at != arrival) {
                waiting.arriving = Some((arrival, Box::pin(clock.sleep_until(arrival))));
            }
            if let Some((_, sleep)) = &mut waiting.arriving
                && sleep.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
        }
        waiting.arriving = None;
        let Some(datagram) = waiting.datagrams.remove(&(arrival, number)) else {
            return Poll::Pending;
        };
        let taken = datagram.bytes.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&datagram.bytes[..taken]);
        Poll::Ready(Ok((taken, datagram.from)))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.place.address)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let unbound = unbind(&mut self.network.lock().sockets, self.place, self.number);
        drop(unbound);
    }
}
