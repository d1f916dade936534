//! Streams, listeners and datagrams, boxed so that a simulated network can stand behind them.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

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

/// What a datagram socket must be able to do. Any number of tasks may send at once; one receives.
pub trait DatagramIo: Send + Sync + 'static {
    /// Sends one datagram, or says [`io::ErrorKind::WouldBlock`].
    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize>;
    /// Completes once sending is worth another try.
    fn writable(&self) -> BoxFuture<'_, io::Result<()>>;
    /// Receives one datagram, or wakes the task that asked last.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>>;
    /// The bound address, with the real port where port 0 was asked for.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Datagrams")
    }
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
        loop {
            match self.try_send_to(bytes, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                sent => return sent,
            }
        }
    }

    /// Sends one datagram if that takes no waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`], or as the operating system reports them.
    pub fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.inner.try_send_to(bytes, to)
    }

    /// Completes once sending is worth another try.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub async fn writable(&self) -> io::Result<()> {
        self.inner.writable().await
    }

    /// Receives one datagram into `buffer`; what does not fit is cut off. One task at a time.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_receive(cx, buffer)).await
    }

    /// As [`Datagrams::receive`]; wakes the task that asked last.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.inner.poll_receive(cx, buffer)
    }

    /// The bound address.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_address()
    }
}
