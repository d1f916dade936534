//! What the QUIC stack needs of the world, from [`Env`]: time, timers, tasks and a socket.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, RwLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use env::{BoxFuture, Datagrams, Env, Instants, Task};
use quinn::{
    AsyncTimer, AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// Receiving rests for so long after an error of the socket: whatever is wrong with the machine,
/// asking in a loop does not help it.
const RECEIVE_REST: Duration = Duration::from_millis(100);

/// The runtime that the QUIC stack runs on. It owns the stack's tasks: [`Runtime::end`] ends them.
pub(super) struct Runtime {
    env: Env,
    instants: Instants,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    running: Vec<Task<()>>,
    phase: Phase,
}

#[derive(Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Ended,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

impl Runtime {
    pub(super) fn new(env: Env) -> Self {
        Self { env, instants: Instants::new(), tasks: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().expect("no code panics while it holds the tasks")
    }

    /// Ends every task, and starts none any more. Awaiting what it returns waits until all are gone.
    pub(super) fn end(&self) -> impl Future<Output = ()> + use<> {
        let ended = {
            let mut tasks = self.lock();
            tasks.phase = Phase::Ended;
            std::mem::take(&mut tasks.running)
        };
        for task in &ended {
            task.abort();
        }
        async move {
            for task in ended {
                // It either came to its end or was aborted; both are an end.
                let _ended = task.await;
            }
        }
    }
}

impl quinn::Runtime for Runtime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let (env, instants) = (self.env.clone(), self.instants);
        Box::pin(Timer { env, instants, deadline, sleep: None })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let mut tasks = self.lock();
        if tasks.phase == Phase::Open {
            // One a connection, so a look at each costs little beside the handshake.
            tasks.running.retain(|task| !task.is_finished());
            tasks.running.push(self.env.spawn("mesh-quic", future));
        }
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        self.instants.instant(self.env.monotonic())
    }
}

struct Timer {
    env: Env,
    instants: Instants,
    deadline: Instant,
    sleep: Option<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.deadline).finish()
    }
}

impl AsyncTimer for Timer {
    fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let this = self.get_mut();
        this.deadline = deadline;
        this.sleep = None;
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let deadline = this.instants.monotonic(this.deadline);
        while this.env.monotonic() < deadline {
            let env = &this.env;
            let sleep = this.sleep.get_or_insert_with(|| {
                let env = env.clone();
                Box::pin(async move { env.sleep_until(deadline).await })
            });
            ready!(sleep.as_mut().poll(cx));
            this.sleep = None;
        }
        Poll::Ready(())
    }
}

/// The mesh's socket. A datagram that the machine does not take is lost, as on any network. The
/// stack holds it for as long as anyone holds a stream; closed, it is nobody's port any more.
pub(super) struct Socket {
    env: Env,
    datagrams: RwLock<Option<Datagrams>>,
    address: SocketAddr,
    resting: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Socket {
    pub(super) fn new(env: Env, datagrams: Datagrams) -> io::Result<Self> {
        let address = datagrams.local_address()?;
        let datagrams = RwLock::new(Some(datagrams));
        Ok(Self { env, datagrams, address, resting: Mutex::new(None) })
    }

    /// Gives the port back. What is sent from now on is lost, and nothing is received.
    pub(super) fn close(&self) {
        *self.datagrams.write().expect("no code panics while it closes") = None;
    }

    fn datagrams(&self) -> Option<Datagrams> {
        self.datagrams.read().expect("no code panics while it closes").clone()
    }

    /// Ready once receiving need not rest.
    fn poll_rested(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut resting = self.resting.lock().expect("no code panics while it rests");
        if let Some(rest) = &mut *resting {
            ready!(rest.as_mut().poll(cx));
            *resting = None;
        }
        Poll::Ready(())
    }

    fn rest(&self, cx: &mut Context<'_>, error: &io::Error) -> Poll<()> {
        tracing::warn!(%error, address = %self.address, "the mesh's socket does not receive");
        let env = self.env.clone();
        let rest = Box::pin(async move { env.sleep(RECEIVE_REST).await });
        *self.resting.lock().expect("no code panics while it rests") = Some(rest);
        self.poll_rested(cx)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.address).finish()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: Mutex::new(None) })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(datagrams) = self.datagrams() else { return Ok(()) };
        match datagrams.try_send_to(transmit.contents, transmit.destination) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => {
                // An error here would end the connection; the network may be back in a moment.
                tracing::debug!(%error, to = %transmit.destination, "a packet was not sent");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some(datagrams) = self.datagrams() else { return Poll::Pending };
        let mut received = 0;
        ready!(self.poll_rested(cx));
        while received < buffers.len().min(metas.len()) {
            match datagrams.poll_receive(cx, &mut buffers[received]) {
                Poll::Ready(Ok((len, addr))) => {
                    let meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    metas[received] = meta;
                    received += 1;
                }
                Poll::Ready(Err(error)) => ready!(self.rest(cx, &error)),
                Poll::Pending if received == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Waits until the socket takes another packet. Each connection has its own.
struct Writable {
    socket: Arc<Socket>,
    waiting: Mutex<Option<BoxFuture<'static, io::Result<()>>>>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writable")
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let waiting = this.waiting.get_mut().expect("nobody else locks this");
        let Some(datagrams) = this.socket.datagrams() else { return Poll::Ready(Ok(())) };
        let future =
            waiting.get_or_insert_with(|| Box::pin(async move { datagrams.writable().await }));
        let writable = ready!(future.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(writable)
    }
}
