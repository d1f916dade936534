//! The real machine: Tokio's runtime, the operating system's clock, entropy and sockets.

#![expect(
    clippy::disallowed_methods,
    reason = "this file is the one place that touches the ambient clock, entropy and sockets"
)]

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::ReadBuf,
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
};
use tracing::{Instrument, Span};

use crate::{
    Backend, BoxFuture, Connection, Datagrams, Listener, Monotonic, Stream, Timestamp,
    network::{DatagramIo, Listen},
    task::RawTask,
};

pub(crate) struct System {
    start: Instant,
    span: Span,
}

impl System {
    pub(crate) fn new(span: Span) -> Self {
        Self { start: Instant::now(), span }
    }
}

impl Backend for System {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(self.start.elapsed())
    }

    fn wall(&self) -> Timestamp {
        // A clock before 1970 is a machine without a clock; 1970 is as good an answer as any.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system's entropy source never fails here");
    }

    fn spawn(&self, _name: &'static str, future: BoxFuture<'static, ()>) -> RawTask {
        let handle = match self.span.is_none() {
            true => tokio::spawn(future).abort_handle(),
            false => tokio::spawn(future.instrument(self.span.clone())).abort_handle(),
        };
        RawTask::new(move || handle.abort())
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // A panic inside `work` drops its result channel, which the caller sees.
            let _ended = tokio::task::spawn_blocking(work).await;
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Listener>> {
        Box::pin(async move { Ok(Listener::new(TcpListener::bind(address).await?)) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn connect_from(
        &self,
        source: IpAddr,
        address: SocketAddr,
    ) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let socket = match source {
                IpAddr::V4(_) => TcpSocket::new_v4()?,
                IpAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.bind(SocketAddr::new(source, 0))?;
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn datagrams(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Datagrams>> {
        Box::pin(async move { Ok(Datagrams::new(UdpSocket::bind(address).await?)) })
    }
}

impl Listen for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, peer) = TcpListener::accept(self).await?;
            // Replies are already coalesced, so Nagle's algorithm only adds delay.
            stream.set_nodelay(true)?;
            let local = stream.local_addr()?;
            Ok(Connection { stream: Box::new(stream), peer, local })
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

impl DatagramIo for UdpSocket {
    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        UdpSocket::try_send_to(self, bytes, to)
    }

    fn writable(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(UdpSocket::writable(self))
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        let received = self.poll_recv_from(cx, &mut buffer);
        received.map_ok(|from| (buffer.filled().len(), from))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Env;

    #[tokio::test]
    async fn a_dropped_task_ends_and_a_detached_one_goes_on() {
        let env = Env::system();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        drop(env.spawn("dropped", async move {
            std::future::pending::<()>().await;
            drop(sender);
        }));
        assert!(receiver.await.is_err(), "the dropped task's channel closes");

        let (sender, receiver) = tokio::sync::oneshot::channel();
        env.spawn("detached", async move { sender.send(7).expect("receiver waits") }).detach();
        assert_eq!(receiver.await, Ok(7));
    }

    #[tokio::test]
    async fn a_task_is_finished_however_it_ended() {
        let env = Env::system();
        let panicking = env.spawn("panics", async { panic!("as it has to") });
        let aborted = env.spawn("aborted", std::future::pending::<()>());
        assert!(!aborted.is_finished());
        aborted.abort();
        while !panicking.is_finished() || !aborted.is_finished() {
            tokio::task::yield_now().await;
        }
        env.spawn("returns", async {}).await.unwrap();
    }

    #[tokio::test]
    async fn streams_carry_bytes_both_ways() {
        let env = Env::system();
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let echo = env.spawn("echo", async move {
            let mut connection = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            connection.stream.read_exact(&mut bytes).await.unwrap();
            connection.stream.write_all(&bytes).await.unwrap();
        });
        let mut stream = env.connect(address).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_it_was_given() {
        let env = Env::system();
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let source = "127.0.0.2".parse().unwrap();
        let (connected, accepted) =
            tokio::join!(env.connect_from(source, address), listener.accept());
        connected.unwrap();
        assert_eq!(accepted.unwrap().peer.ip(), source);
    }

    #[tokio::test]
    async fn datagrams_go_there_and_back() {
        let env = Env::system();
        let bind = async || env.datagrams("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (ours, theirs) = (bind().await, bind().await);
        ours.send_to(b"ping", theirs.local_address().unwrap()).await.unwrap();
        let mut buffer = [0; 3];
        let (taken, from) = theirs.receive(&mut buffer).await.unwrap();
        assert_eq!((taken, &buffer), (3, b"pin"), "what does not fit is cut off");
        theirs.try_send_to(b"pong", from).unwrap();
        assert_eq!(ours.receive(&mut [0; 8]).await.unwrap(), (4, theirs.local_address().unwrap()));
    }

    #[tokio::test]
    async fn timeouts_elapse_and_panics_in_blocking_work_are_told() {
        let env = Env::system();
        let never = env.timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
        assert_eq!(never, Err(crate::Elapsed));
        assert_eq!(env.run_blocking(|| 2 + 2).await, Ok(4));
        assert!(env.run_blocking(|| -> u8 { panic!("as planned") }).await.is_err());
    }
}
