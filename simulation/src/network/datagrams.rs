//! Datagram sockets: what does not fit a socket's queue, has nobody to receive it, or has bad luck,
//! is lost.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use env::{BoxFuture, DatagramIo, Datagrams, Monotonic};
use tokio::{sync::mpsc, time::Sleep};

use super::{Network, Place, bind, find, source};
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAMS_MAX};

/// One datagram on its way.
pub(super) struct Datagram {
    arrival: Monotonic,
    from: SocketAddr,
    bytes: Box<[u8]>,
}

struct Socket {
    network: Arc<Network>,
    place: Place,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    queue: mpsc::Receiver<Datagram>,
    /// Taken from the queue, and not yet arrived.
    next: Option<(Datagram, Pin<Box<Sleep>>)>,
}

impl Network {
    pub(crate) fn datagrams(
        self: &Arc<Self>,
        machine: IpAddr,
        address: SocketAddr,
    ) -> io::Result<Datagrams> {
        let (sender, queue) = mpsc::channel(DATAGRAMS_MAX);
        let place = {
            let state = &mut *self.lock();
            bind(&mut state.sockets, &mut state.next_port, machine, address, sender)?
        };
        let inbox = Mutex::new(Inbox { queue, next: None });
        Ok(Datagrams::new(Socket { network: Arc::clone(self), place, inbox }))
    }
}

impl DatagramIo for Socket {
    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let to = Place::of(self.place.machine, to);
        let arrival = self.network.arrival();
        let from = SocketAddr::new(source(self.place.machine, to), self.place.address.port());
        let datagram = Datagram { arrival, from, bytes: bytes.into() };
        let mut state = self.network.lock();
        if state.loses_datagram() {
            return Ok(bytes.len());
        }
        if let Some(inbox) = find(&state.sockets, to) {
            // UDP tells nobody of a full queue.
            let _lost_where_full = inbox.try_send(datagram);
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
        let mut inbox = self.inbox.lock().expect("no code panics while it receives");
        let (datagram, arrived) = match inbox.next.take() {
            Some(next) => next,
            None => {
                let datagram =
                    ready!(inbox.queue.poll_recv(cx)).expect("the network keeps the sender");
                let arrived = self.network.clock.sleep_until(datagram.arrival);
                (datagram, arrived)
            }
        };
        // Kept until it has arrived, so that a receive that is dropped loses nothing.
        let (datagram, arrived) = inbox.next.insert((datagram, arrived));
        ready!(arrived.as_mut().poll(cx));
        let taken = datagram.bytes.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&datagram.bytes[..taken]);
        let from = datagram.from;
        inbox.next = None;
        Poll::Ready(Ok((taken, from)))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.place.address)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.lock().sockets.remove(&self.place);
    }
}
