//! What a lookup carries through the validator, whose clock has no handle: its [`Env`], whose places it
//! takes and how many queries it may still send. It is there while the lookup's future is polled.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use env::Env;
use futures_util::io::{AsyncRead, AsyncWrite};
use hickory_net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};

use crate::{answer::Unavailable, limits::QUERIES_PER_LOOKUP, places::Share};

/// One lookup.
#[derive(Clone)]
pub(crate) struct Scope {
    env: Env,
    share: Share,
    spent: Arc<Spent>,
}

struct Spent {
    queries_left: AtomicUsize,
    /// What kept a query from being answered.
    failure: Mutex<Option<Unavailable>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Puts the scope that was there before back, also where a poll panics.
struct Restore(Option<Scope>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Scope {
    pub(crate) fn new(env: Env, share: Share) -> Self {
        let queries_left = AtomicUsize::new(QUERIES_PER_LOOKUP);
        Self { env, share, spent: Arc::new(Spent { queries_left, failure: Mutex::new(None) }) }
    }

    /// Awaits `future` within this scope.
    pub(crate) async fn run<T>(self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _restore = Restore(CURRENT.replace(Some(self.clone())));
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Takes one query off what the lookup may send; `None` where nothing is left of it.
    pub(crate) fn spend() -> Option<()> {
        CURRENT.with_borrow(|scope| {
            let left = &scope.as_ref()?.spent.queries_left;
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()
        })?;
        Some(())
    }

    /// Whose places the lookup's queries take.
    pub(crate) fn share() -> Share {
        CURRENT
            .with_borrow(|scope| scope.as_ref().map(|scope| scope.share.clone()))
            .unwrap_or_default()
    }

    /// Notes that a query of this lookup was not answered.
    pub(crate) fn note(failure: Unavailable) {
        CURRENT.with_borrow(|scope| {
            if let Some(scope) = scope {
                *scope.failed() = Some(failure);
            }
        });
    }

    /// What kept the last unanswered query from being answered.
    pub(crate) fn failure(&self) -> Option<Unavailable> {
        *self.failed()
    }

    fn failed(&self) -> MutexGuard<'_, Option<Unavailable>> {
        self.spent.failure.lock().expect("no code panics while it holds this")
    }

    fn env() -> Env {
        CURRENT
            .with_borrow(|scope| scope.as_ref().map(|scope| scope.env.clone()))
            .expect("the validator runs within a lookup alone")
    }
}

/// The runtime that the validator reads its clock from.
#[derive(Clone)]
pub(crate) struct Runtime;

/// A clock and timers by the lookup's [`Env`].
pub(crate) struct Timer;

#[async_trait]
impl Time for Timer {
    async fn delay_for(duration: Duration) {
        Scope::env().sleep(duration).await;
    }

    async fn timeout<F: 'static + Future + Send>(
        duration: Duration,
        future: F,
    ) -> Result<F::Output, io::Error> {
        let env = Scope::env();
        env.timeout(duration, future).await.map_err(|_| io::ErrorKind::TimedOut.into())
    }

    fn current_time() -> u64 {
        u64::try_from(Scope::env().wall().unix_seconds()).unwrap_or_default()
    }
}

/// Sockets and tasks of the runtime: there are none, `transport` has its own.
#[derive(Clone)]
pub(crate) enum Never {}

/// A handle that starts nothing, because nothing asks it to.
#[derive(Clone)]
pub(crate) struct NoTasks;

impl Spawn for NoTasks {
    fn spawn_bg(&mut self, _: impl Future<Output = ()> + Send + 'static) {}
}

type Opening<T> = std::pin::Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for Runtime {
    type Handle = NoTasks;
    type Timer = Timer;
    type Udp = Never;
    type Tcp = Never;

    fn create_handle(&self) -> NoTasks {
        NoTasks
    }

    fn connect_tcp(
        &self,
        _: SocketAddr,
        _: Option<SocketAddr>,
        _: Option<Duration>,
    ) -> Opening<Never> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn bind_udp(&self, _: SocketAddr, _: SocketAddr) -> Opening<Never> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

impl DnsUdpSocket for Never {
    type Time = Timer;

    fn poll_recv_from(
        &self,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        match *self {}
    }

    fn poll_send_to(
        &self,
        _: &mut Context<'_>,
        _: &[u8],
        _: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }
}

impl DnsTcpStream for Never {
    type Time = Timer;
}

impl AsyncRead for Never {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }
}

impl AsyncWrite for Never {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    fn poll_close(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}
