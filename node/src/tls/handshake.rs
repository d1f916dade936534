//! The server's side of a handshake, and what is known of a connection after it.

use std::{fmt, io, sync::Arc};

use env::Stream;
use rustls::{ProtocolVersion, ServerConnection, server::Acceptor};
use tokio_rustls::LazyConfigAcceptor;

use super::{HANDSHAKE_TIME_MAX, Tls, shelf::Served};
use crate::auth::ChannelBinding;

/// An encrypted byte stream.
pub type TlsStream = tokio_rustls::server::TlsStream<Stream>;

/// Why a handshake did not end well. Most of these are scanners.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// [`HANDSHAKE_TIME_MAX`] is over.
    #[error("the TLS handshake took too long")]
    TimedOut,
    /// The client left, or spoke no TLS that we speak.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
}

/// What is known of an encrypted connection.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.3` or `TLSv1.2`.
    pub protocol: &'static str,
    /// The cipher suite's IANA name.
    pub cipher: String,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// RFC 9266 `tls-exporter`. TLS 1.3 only: in TLS 1.2 it is safe with the extended master
    /// secret alone, and the TLS library does not tell whether that was negotiated.
    pub exporter: Option<[u8; 32]>,
    /// RFC 5929 §4 `tls-server-end-point`; `None` where it is undefined for the certificate.
    pub end_point: Option<Vec<u8>>,
}

impl TlsInfo {
    /// What SCRAM can bind to.
    pub fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::Tls { exporter: self.exporter, end_point: self.end_point.clone() }
    }
}

/// Keying material is not shown.
impl fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("protocol", &self.protocol)
            .field("cipher", &self.cipher)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Does the server's side of the handshake.
    ///
    /// # Errors
    /// [`AcceptError`]; the connection is closed.
    pub async fn accept(&self, stream: Stream) -> Result<(TlsStream, TlsInfo), AcceptError> {
        // Boxed: it is large, and over before the session begins.
        let accept = Box::pin(self.shake_hands(stream));
        let (stream, served) = match self.env.timeout(HANDSHAKE_TIME_MAX, accept).await {
            Ok(accepted) => accepted.map_err(AcceptError::Handshake)?,
            Err(env::Elapsed) => return Err(AcceptError::TimedOut),
        };
        let info = describe(stream.get_ref().1, served.end_point.clone());
        Ok((stream, info))
    }

    async fn shake_hands(&self, stream: Stream) -> io::Result<(TlsStream, Arc<Served>)> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let served = {
            let hello = start.client_hello();
            self.shelf().choose(hello.server_name(), self.env.wall())
        };
        let served = served.ok_or_else(|| io::Error::other("there is no certificate"))?;
        let stream = start.into_stream(Arc::clone(&served.config)).await?;
        Ok((stream, served))
    }
}

fn describe(connection: &ServerConnection, end_point: Option<Vec<u8>>) -> TlsInfo {
    let is_tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    // RFC 9266 §2: this label, no context, 32 octets. `Some` of nothing and `None` are the same
    // context in TLS 1.3 (RFC 8446 §7.5).
    let exporter =
        || connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).ok();
    // rustls writes the version into the names of TLS 1.3; IANA does not.
    let cipher = connection
        .negotiated_cipher_suite()
        .map(|suite| format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1));
    TlsInfo {
        protocol: if is_tls13 { "TLSv1.3" } else { "TLSv1.2" },
        cipher: cipher.unwrap_or_default(),
        server_name: connection.server_name().map(str::to_ascii_lowercase),
        exporter: if is_tls13 { exporter() } else { None },
        end_point,
    }
}
