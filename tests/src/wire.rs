//! A client's end of a connection: plain or TLS, line by line, with a bound on every wait.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::PATIENCE;

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    read: Vec<u8>,
    /// What of `read` was handed out.
    taken: usize,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn connect(port: u16) -> io::Result<Self> {
        Self::connect_to((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Connects to an address.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Plain(stream), read: Vec::new(), taken: 0 })
    }

    /// Shakes hands over TLS, and trusts the certificate in this file alone.
    ///
    /// # Panics
    /// Where TLS is in use, input waits from before it, or the handshake fails.
    #[must_use]
    pub fn start_tls(self, certificate: &Path) -> Self {
        self.try_start_tls(certificate).expect("the handshake succeeds")
    }

    /// The same with a server that may go away meanwhile.
    ///
    /// # Errors
    /// Where the handshake fails.
    ///
    /// # Panics
    /// Where TLS is in use, or input waits from before it.
    pub fn try_start_tls(self, certificate: &Path) -> io::Result<Self> {
        self.try_start_tls_as("localhost", certificate)
    }

    /// The same, asking for a host (SNI).
    ///
    /// # Errors
    /// Where the handshake fails, or another certificate is shown.
    ///
    /// # Panics
    /// Where TLS is in use, or input waits from before it.
    pub fn try_start_tls_as(self, host: &str, certificate: &Path) -> io::Result<Self> {
        assert_eq!(self.taken, self.read.len(), "the server spoke before the handshake");
        let Stream::Plain(mut stream) = self.stream else { panic!("TLS within TLS") };
        let mut roots = RootCertStore::empty();
        let pem = fs::read(certificate).expect("the server has written its certificate");
        let trusted = CertificateDer::from_pem_slice(&pem).expect("it is a certificate");
        roots.add(trusted).expect("it can be trusted");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).expect("it is a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("it is well configured");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(tls, stream)));
        Ok(Self { stream, read: Vec::new(), taken: 0 })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// Where they cannot be sent.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes bytes");
    }

    /// Reads up to and with the next LF; the line end is cut off.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the server closed, or as the operating system says.
    pub fn try_line(&mut self) -> io::Result<String> {
        let mut seen = 0;
        loop {
            let waiting = &self.read[self.taken..];
            if let Some(at) = waiting[seen..].iter().position(|byte| *byte == b'\n') {
                let line = &waiting[..seen + at];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let line = String::from_utf8_lossy(line).into_owned();
                self.taken += seen + at + 1;
                return Ok(line);
            }
            seen = waiting.len();
            self.fill()?;
        }
    }

    /// Reads a line.
    ///
    /// # Panics
    /// Where none comes.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().expect("the server says something")
    }

    /// Reads so many bytes.
    ///
    /// # Panics
    /// Where they do not come.
    #[track_caller]
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() - self.taken < count {
            self.fill().expect("the server sends what it announced");
        }
        let bytes = self.read[self.taken..self.taken + count].to_vec();
        self.taken += count;
        bytes
    }

    /// Reads to the connection's end.
    ///
    /// # Panics
    /// Where it does not end in order.
    #[track_caller]
    pub fn to_end(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        }
        self.read.split_off(self.taken)
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.taken == self.read.len() {
            self.read.clear();
            self.taken = 0;
        }
        let length = self.read.len();
        self.read.resize(length + READ_BYTES, 0);
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut self.read[length..]),
            Stream::Tls(stream) => stream.read(&mut self.read[length..]),
        };
        self.read.truncate(length + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
