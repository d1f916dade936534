//! A connection's bytes: clear or TLS, with bounded reads and writes that give up in time.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Poll, ready},
};

use bytes::Bytes;
use env::{Env, Stream};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use crate::{
    auth::ChannelBinding,
    limits,
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

/// One client's connection.
pub(crate) struct Transport {
    env: Env,
    stream: Option<Stream>,
    /// The client's address.
    pub(crate) peer: IpAddr,
    /// Set once TLS is up.
    pub(crate) tls: Option<TlsInfo>,
}

impl Transport {
    pub(crate) fn new(env: Env, stream: Stream, peer: IpAddr) -> Self {
        Self { env, stream: Some(stream), peer, tls: None }
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
            let written = self
                .env
                .timeout(limits::WRITE_TIMEOUT, stream.write(bytes))
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
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
