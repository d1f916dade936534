//! From a host's name to a connection.

use std::net::SocketAddr;

use env::{Env, Stream};

use crate::{
    BenchError,
    args::CommonArgs,
    failure::{Failure, Kind},
    pattern::Pattern,
    sasl::Secrets,
    tls::{Tls, TlsMode, Trust},
};

/// Where the server is, and how it is spoken to.
pub(crate) struct Target {
    pub(crate) env: Env,
    pub(crate) address: SocketAddr,
    pub(crate) mode: TlsMode,
    pub(crate) tls: Option<Tls>,
    pub(crate) login: Option<Login>,
}

/// Who logs in.
pub(crate) struct Login {
    pub(crate) users: Pattern,
    pub(crate) count: u64,
    pub(crate) password: String,
    pub(crate) secrets: Secrets,
}

impl Login {
    /// The user of a connection.
    pub(crate) fn user(&self, connection: u64) -> String {
        self.users.name(connection % self.count + 1)
    }
}

impl Target {
    /// Finds the host and prepares TLS and logins.
    ///
    /// # Errors
    /// As [`BenchError`] says.
    pub(crate) async fn new(env: &Env, common: &CommonArgs) -> Result<Self, BenchError> {
        let address = find(&common.host, common.port).await?;
        let tls = match (common.tls, &common.ca) {
            (TlsMode::None, _) => None,
            (_, Some(file)) => Some(Tls::new(&common.host, address, Trust::File(file))?),
            (_, None) if common.insecure => Some(Tls::new(&common.host, address, Trust::Anyone)?),
            (_, None) => {
                return Err(BenchError::Usage(
                    "TLS needs --ca FILE, or --insecure for a server on this machine".to_owned(),
                ));
            }
        };
        let login = match (&common.user, &common.password) {
            (Some(users), Some(password)) => Some(Login {
                users: users.clone(),
                count: common.users,
                password: password.clone(),
                secrets: Secrets::default(),
            }),
            _ => None,
        };
        Ok(Self { env: env.clone(), address, mode: common.tls, tls, login })
    }

    /// Connects, over TLS where it is there from the start.
    ///
    /// # Errors
    /// As the operating system or rustls says.
    pub(crate) async fn connect(&self) -> Result<Stream, Failure> {
        let stream = self.env.connect(self.address).await;
        let stream = stream.map_err(|error| Failure::lost(Kind::Connect, error))?;
        match self.mode {
            TlsMode::Implicit => self.protect(stream).await,
            TlsMode::None | TlsMode::Starttls => Ok(stream),
        }
    }

    /// Goes on over TLS.
    ///
    /// # Errors
    /// As rustls says.
    pub(crate) async fn protect(&self, stream: Stream) -> Result<Stream, Failure> {
        let tls = self.tls.as_ref().expect("TLS is prepared in every mode but none");
        tls.connect(stream).await
    }
}

async fn find(host: &str, port: u16) -> Result<SocketAddr, BenchError> {
    let failed = |source| BenchError::Host { host: host.to_owned(), source };
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
    addresses.next().ok_or_else(|| failed(std::io::Error::other("it has none")))
}
