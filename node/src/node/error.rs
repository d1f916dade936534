//! What keeps a node from starting.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use blob::{BlobError, binding::BindError};

use crate::{admin::token::TokenError, metrics::Protocol, peers::JoinError, tls::TlsError};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made or written.
    #[error("{}: {source}", path.display())]
    Data {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] kv::OpenError),
    /// The store belongs to a newer release.
    #[error(transparent)]
    Schema(#[from] mail::schema::SchemaError),
    /// FoundationDB cannot be reached. It may come back.
    #[error(
        "FoundationDB does not answer. Tried for {} s with the cluster file {}, which names {}. Check \
         that fdbserver runs there (fdbcli -C {} --exec status), that this machine reaches these \
         addresses, and that libfdb_c here is of the cluster's release (7.3)",
        waited.as_secs(), cluster_file.display(), coordinators.join(", "), cluster_file.display()
    )]
    Unanswered {
        /// What says where it is.
        cluster_file: PathBuf,
        /// Whom it names.
        coordinators: Vec<String>,
        /// How long it was tried.
        waited: Duration,
    },
    /// The program was built without what the configuration names.
    #[error("this rookery was built without engine {engine}: build it with --features {feature}")]
    NotBuilt {
        /// As in the configuration.
        engine: &'static str,
        /// Cargo's.
        feature: &'static str,
    },
    /// Another process has taken this node's name, while this one stood aside or served.
    #[error("another process has taken this node's name: give each its own (cluster.node)")]
    Superseded,
    /// Names cannot be looked up.
    #[error("dns: {0}")]
    Dns(#[from] dns::SettingsError),
    /// FoundationDB holds no message bytes.
    #[error("blobs.engine must be \"s3\" where the store is \"fdb\"")]
    BlobsElsewhere,
    /// There is no access key to the blobs.
    #[cfg(feature = "s3")]
    #[error(transparent)]
    Credentials(#[from] blob::s3::CredentialsError),
    /// The blobs do not open.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The bucket is not this store's.
    #[error(transparent)]
    Bucket(#[from] BindError),
    /// The certificate or the key is no good.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is nothing to show to clients.
    #[error(
        "there is no certificate: the configuration names none (tls.certificate and tls.key), and \
         the store has none that can be used (rookery cluster certificate add)"
    )]
    NoCertificate,
    /// The admin token is no good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The node cannot be one of those that share the store.
    #[error("cannot join the others: {0}")]
    Join(#[from] JoinError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address} for {}: {source}", protocol.as_str())]
    Listen {
        /// Where.
        address: SocketAddr,
        /// For what.
        protocol: Protocol,
        /// What the operating system says.
        source: io::Error,
    },
}

impl StartError {
    /// Whether the store is away, so that waiting may help.
    pub fn is_store_away(&self) -> bool {
        matches!(self, Self::Unanswered { .. })
    }

    /// Whether another socket has an address that the node wants.
    pub fn is_address_in_use(&self) -> bool {
        match self {
            Self::Listen { source, .. } | Self::Join(JoinError::Mesh { source, .. }) => {
                source.kind() == io::ErrorKind::AddrInUse
            }
            _ => false,
        }
    }
}
