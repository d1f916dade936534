//! Datagram sockets: what does not fit a socket's queue, or has nobody to receive it, is lost.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use env::{BoxFuture, DatagramIo, Datagrams, Monotonic};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

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
    inbox: AsyncMutex<Inbox>,
}

struct Inbox {
    queue: mpsc::Receiver<Datagram>,
    /// Taken from the queue, and not yet arrived: a receive that is dropped loses nothing.
    next: Option<Datagram>,
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
        let inbox = AsyncMutex::new(Inbox { queue, next: None });
        Ok(Datagrams::new(Socket { network: Arc::clone(self), place, inbox }))
    }
}

impl Socket {
    fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let to = Place::of(self.place.machine, to);
        let arrival = self.network.arrival();
        let from = SocketAddr::new(source(self.place.machine, to), self.place.address.port());
        let datagram = Datagram { arrival, from, bytes: bytes.into() };
        if let Some(inbox) = find(&self.network.lock().sockets, to) {
            // UDP tells nobody of a full queue.
            let _lost_where_full = inbox.try_send(datagram);
        }
        Ok(bytes.len())
    }

    async fn take(&self, buffer: &mut [u8]) -> (usize, SocketAddr) {
        let mut inbox = self.inbox.lock().await;
        let inbox = &mut *inbox;
        let datagram = match inbox.next.take() {
            Some(datagram) => datagram,
            None => inbox.queue.recv().await.expect("the network keeps the sender"),
        };
        let arrival = datagram.arrival;
        let datagram = inbox.next.insert(datagram);
        self.network.clock.sleep_until(arrival).await;
        let taken = datagram.bytes.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&datagram.bytes[..taken]);
        let from = datagram.from;
        inbox.next = None;
        (taken, from)
    }
}

impl DatagramIo for Socket {
    fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move { self.send(bytes, to) })
    }

    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move { Ok(self.take(buffer).await) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.lock().sockets.remove(&self.place);
    }
}
