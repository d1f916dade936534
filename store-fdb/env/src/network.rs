//! Streams, listeners and datagrams, boxed so that a simulated network can stand behind them.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::BoxFuture;

/// What a byte stream must be able to do.
pub trait StreamIo: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> StreamIo for T {}

/// A connected byte stream.
pub type Stream = Box<dyn StreamIo>;

/// An accepted connection.
pub struct Connection {
    /// The bytes.
    pub stream: Stream,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Our own address on this connection.
    pub local: SocketAddr,
}

/// A listening socket.
pub struct Listener {
    inner: Box<dyn Listen>,
}

/// What a listening socket must be able to do.
pub trait Listen: Send + Sync + 'static {
    /// Waits for the next connection.
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>>;
    /// The bound address, with the real port where port 0 was asked for.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

impl Listener {
    /// A listener over a backend's socket.
    pub fn new(inner: impl Listen) -> Self {
        Self { inner: Box::new(inner) }
    }

    /// Waits for the next connection. Dropping the future loses no connection.
    ///
    /// # Errors
    /// As the operating system reports them; most are passing (out of descriptors).
    pub async fn accept(&self) -> io::Result<Connection> {
        self.inner.accept().await
    }

    /// The bound address.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_address()
    }
}

/// A datagram socket.
#[derive(Clone)]
pub struct Datagrams {
    inner: Arc<dyn DatagramIo>,
}

/// What a datagram socket must be able to do.
pub trait DatagramIo: Send + Sync + 'static {
    /// Sends one datagram.
    fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<usize>>;
    /// Receives one datagram.
    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;
}

impl Datagrams {
    /// A datagram socket over a backend's.
    pub fn new(inner: impl DatagramIo) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.inner.send_to(bytes, to).await
    }

    /// Receives one datagram into `buffer`; what does not fit is cut off.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.receive(buffer).await
    }
}
