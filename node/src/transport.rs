//! A connection's bytes: clear or TLS, with bounded reads and writes that give up in time.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
};

use bytes::{Buf, Bytes};
use env::{Elapsed, Env, Stream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::{
    auth::ChannelBinding,
    limits,
    sessions::OpenSession,
    tls::{AcceptError, Tls, TlsInfo},
};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartTlsError {
    /// The connection is closed already.
    #[error("the connection is closed")]
    Closed,
    /// The handshake failed.
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

/// Bytes to be written, in pieces as they came, none of them empty.
#[derive(Default)]
pub(crate) struct Pieces {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    /// Adds a piece behind the others.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.queue.push_back(piece);
        }
    }

    /// Bytes of all of them.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
        }
    }
}

/// What a write came to, where it went on at all.
fn progress(written: Result<io::Result<usize>, Elapsed>) -> io::Result<usize> {
    match written.map_err(|_| io::ErrorKind::TimedOut)?? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

/// One client's connection.
pub(crate) struct Transport {
    env: Env,
    stream: Option<Stream>,
    /// The client's address.
    pub(crate) peer: IpAddr,
    /// Whose connection it is.
    pub(crate) session: Arc<OpenSession>,
    /// Set once TLS is up.
    pub(crate) tls: Option<TlsInfo>,
}

impl Transport {
    /// A connection that is no listed session's.
    pub(crate) fn new(env: Env, stream: Stream, peer: IpAddr) -> Self {
        Self::of_session(env, stream, Arc::new(OpenSession::unlisted(peer)))
    }

    /// The connection of a session that is listed.
    pub(crate) fn of_session(env: Env, stream: Stream, session: Arc<OpenSession>) -> Self {
        Self { env, stream: Some(stream), peer: session.peer, session, tls: None }
    }

    /// The server's side of a TLS handshake. The session drops what was read before it.
    ///
    /// # Errors
    /// [`StartTlsError`]; the connection is of no more use.
    pub(crate) async fn start_tls(&mut self, tls: &Tls) -> Result<(), StartTlsError> {
        let stream = self.stream.take().ok_or(StartTlsError::Closed)?;
        let (stream, info) = tls.accept(stream).await?;
        self.stream = Some(Box::new(stream));
        self.tls = Some(info);
        Ok(())
    }

    /// What SCRAM can bind to.
    pub(crate) fn channel_binding(&self) -> ChannelBinding {
        self.tls.as_ref().map_or(ChannelBinding::None, TlsInfo::channel_binding)
    }

    /// Reads what has come, up to [`limits::READ_BYTES`]; empty at the end. Dropping the future
    /// loses nothing.
    pub(crate) async fn read(&mut self) -> io::Result<Bytes> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        // The buffer lives on the stack of one poll, so that an idle session holds none.
        std::future::poll_fn(|cx| {
            let mut space = [std::mem::MaybeUninit::uninit(); limits::READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            self.session.received(buffer.filled().len());
            Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
        })
        .await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Timed out where the client takes nothing for [`limits::WRITE_TIMEOUT`].
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        while !bytes.is_empty() {
            let written = self.env.timeout(limits::WRITE_TIMEOUT, stream.write(bytes)).await;
            let written = progress(written)?;
            self.session.sent(written);
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Writes all of `pieces`, many in one call of the operating system.
    ///
    /// # Errors
    /// As [`Transport::write`].
    pub(crate) async fn write_pieces(&mut self, pieces: &mut Pieces) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        pieces.bytes = 0;
        while !pieces.queue.is_empty() {
            // As in `read`, the slices live on the stack of one poll.
            let write = std::future::poll_fn(|cx| {
                let mut slices = [IoSlice::new(&[]); limits::WRITE_PIECES];
                for (slice, piece) in slices.iter_mut().zip(&pieces.queue) {
                    *slice = IoSlice::new(piece);
                }
                let count = pieces.queue.len().min(slices.len());
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count])
            });
            let written = self.env.timeout(limits::WRITE_TIMEOUT, write).await;
            let written = progress(written)?;
            self.session.sent(written);
            pieces.advance(written);
        }
        Ok(())
    }

    /// Hands everything written to the operating system.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        self.env
            .timeout(limits::WRITE_TIMEOUT, stream.flush())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Says goodbye on the transport's level; errors no longer matter to anybody.
    pub(crate) async fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let closing = async { stream.shutdown().await.is_ok() };
            let _closed = self.env.timeout(limits::CLOSE_TIMEOUT, closing).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Many pieces, more than fit one call and more than the socket takes at once.
    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order() {
        let env = Env::system();
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut client = env.connect(listener.local_address().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        let mut transport = Transport::new(env.clone(), accepted.stream, accepted.peer.ip());
        let mut pieces = Pieces::default();
        let mut expected = Vec::new();
        for number in 0..5 * limits::WRITE_PIECES {
            let piece = vec![(number % 251) as u8; number * 397 % 60_000];
            expected.extend_from_slice(&piece);
            pieces.push(piece.into());
        }
        assert_eq!(pieces.len(), expected.len());
        let write = async {
            transport.write_pieces(&mut pieces).await.unwrap();
            assert_eq!((pieces.len(), pieces.queue.len()), (0, 0));
            transport.write(b"end").await.unwrap();
            transport.close().await;
        };
        let mut found = Vec::new();
        let (_, read) = tokio::join!(write, client.read_to_end(&mut found));
        assert_eq!(read.unwrap(), expected.len() + 3);
        assert!(found.starts_with(&expected) && found.ends_with(b"end"));
    }
}
