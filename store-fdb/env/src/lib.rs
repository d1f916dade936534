//! The outside world, behind one handle: clock, randomness, spawning, network.
//!
//! Everything in Rookery that reads a clock, draws a random number, starts a task or opens a
//! socket does it through an [`Env`]. Production passes [`Env::system`]; the simulation passes a
//! backend of its own, and the same node runs on virtual time and a simulated network.
//!
//! Architecture invariant: no other crate calls `Instant::now`, `SystemTime::now`, an ambient
//! random number generator, `tokio::spawn` or a socket constructor (`clippy.toml` refuses them).
//!
//! Deliberately absent: the file system. Only the embedded engine touches files, and the
//! simulation runs on the memory engine.

mod instants;
mod network;
pub mod probe;
mod system;
mod task;
mod time;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

pub use instants::Instants;
pub use network::{Connection, DatagramIo, Datagrams, Listen, Listener, Stream, StreamIo};
pub use task::{RawTask, Task, TaskEnded};
pub use time::{Monotonic, Timestamp};

/// A boxed future, as the backends return them.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What an environment must provide. Production has one implementation, the simulation another.
pub trait Backend: Send + Sync + 'static {
    /// Time since this environment began; never goes back.
    fn monotonic(&self) -> Monotonic;
    /// The wall clock. It may jump; nothing is decided by comparing two nodes' wall clocks.
    fn wall(&self) -> Timestamp;
    /// Completes once `duration` has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// Fills `bytes` from a cryptographically secure source (in a simulation: from the seed).
    fn fill_random(&self, bytes: &mut [u8]);
    /// Starts `future` and returns a handle that can abort it.
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> task::RawTask;
    /// Runs `work` where it may block for long (hashing a password, reading a cold disk).
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
    /// Binds a listening socket.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<Listener>>;
    /// Opens a connection.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<Stream>>;
    /// Opens a connection from one of the machine's addresses. An environment whose machines have
    /// one address each need not have it.
    fn connect_from(
        &self,
        source: IpAddr,
        address: SocketAddr,
    ) -> BoxFuture<'_, std::io::Result<Stream>> {
        let _only_one = source;
        self.connect(address)
    }
    /// Binds a datagram socket.
    fn datagrams(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<Datagrams>>;
}

/// The handle that everything carries. Cloning is one reference count.
#[derive(Clone)]
pub struct Env {
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    /// The real machine. Tasks and sockets need a running Tokio runtime.
    pub fn system() -> Self {
        Self::system_within(tracing::Span::none())
    }

    /// The same, whose tasks begin within a span: so the log tells the nodes of one process apart.
    pub fn system_within(span: tracing::Span) -> Self {
        Self::new(system::System::new(span))
    }

    /// An environment over another backend.
    pub fn new(backend: impl Backend) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// Time since this environment began.
    pub fn monotonic(&self) -> Monotonic {
        self.backend.monotonic()
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        self.backend.wall()
    }

    /// Completes once `duration` has passed.
    pub async fn sleep(&self, duration: Duration) {
        self.backend.sleep(duration).await;
    }

    /// Completes at `deadline`, at once if it has passed.
    pub async fn sleep_until(&self, deadline: Monotonic) {
        self.sleep(deadline.saturating_since(self.monotonic())).await;
    }

    /// Completes at `deadline`; never where there is none.
    pub async fn sleep_until_any(&self, deadline: Option<Monotonic>) {
        match deadline {
            Some(deadline) => self.sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Awaits `future` for at most `duration`.
    ///
    /// # Errors
    /// [`Elapsed`] once the time is over; the future is dropped.
    pub async fn timeout<T>(
        &self,
        duration: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            value = future => Ok(value),
            // Within a block, so that a future that is ready at once costs no timer.
            () = async { self.backend.sleep(duration).await } => Err(Elapsed),
        }
    }

    /// Fills `bytes` with random bytes fit for secrets.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.backend.fill_random(bytes);
    }

    /// A random array fit for secrets.
    pub fn random_array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill_random(&mut bytes);
        bytes
    }

    /// A random number in `0..bound`; 0 where `bound` is 0.
    ///
    /// The remainder's bias is below 2⁻³² for every bound under 2³², which jitter and samples
    /// do not notice. Secrets come from [`Env::random_array`].
    pub fn random_below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { u64::from_le_bytes(self.random_array()) % bound }
    }

    /// Starts a task. It is aborted when its [`Task`] is dropped, so that nothing runs on
    /// unowned.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        task::spawn(&*self.backend, name, future)
    }

    /// Runs `work` on a thread that may block, and waits for its result.
    ///
    /// # Errors
    /// [`TaskEnded`] where `work` panicked or the runtime is shutting down.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TaskEnded> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.backend
            .run_blocking(Box::new(move || {
                // The receiver is gone only when the caller no longer wants the result.
                let _unwanted = sender.send(work());
            }))
            .await;
        receiver.await.map_err(|_| TaskEnded)
    }

    /// Binds a listening socket.
    ///
    /// # Errors
    /// As the operating system reports them: address in use, permission denied.
    pub async fn listen(&self, address: SocketAddr) -> std::io::Result<Listener> {
        self.backend.listen(address).await
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<Stream> {
        self.backend.connect(address).await
    }

    /// Opens a connection from one of the machine's addresses.
    ///
    /// # Errors
    /// As the operating system reports them: the machine may not have that address.
    pub async fn connect_from(
        &self,
        source: IpAddr,
        address: SocketAddr,
    ) -> std::io::Result<Stream> {
        self.backend.connect_from(source, address).await
    }

    /// Binds a datagram socket.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub async fn datagrams(&self, address: SocketAddr) -> std::io::Result<Datagrams> {
        self.backend.datagrams(address).await
    }
}

/// The time given to [`Env::timeout`] is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("timed out")
    }
}

impl std::error::Error for Elapsed {}
