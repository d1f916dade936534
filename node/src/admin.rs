//! Administration: domains, accounts, aliases, groups.
//!
//! Plain functions over [`Admin`], which is a store and an [`Env`]. The HTTP API calls them on
//! the node's store; the command line calls them on a store that no node has open.
//!
//! Invariants:
//! - Every name is folded by [`crate::names`] before it reaches a key.
//! - A password is hashed before the transaction begins, and is nowhere kept or logged.
//! - An operation whose first run committed unseen succeeds when it runs again.
//!
//! Deliberately absent: who may call. [`crate::http`] asks for the [`token`], and whoever can
//! open the store's files needs no leave.

pub mod accounts;
pub mod backup;
pub mod blocks;
pub mod cluster;
pub mod dev;
pub mod dkim;
pub mod domains;
pub mod endpoint;
pub mod fsck;
pub mod lists;
mod password;
pub mod queue;
pub mod reports;
pub mod restored;
pub mod token;

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
};

use env::Env;
use kv::{AsKvError, Database, Transaction};
use mail::{AccountError, StoreError, directory::DirectoryError};
use serde::{Deserialize, Serialize};

pub use password::Password;

use crate::{
    auth::CredentialError,
    limits::{ADMIN_PAGE_ROWS_MAX, DESCRIPTION_BYTES_MAX, PASSWORD_BYTES_MIN},
    names::BadName,
};

/// A store to administer.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The store.
    pub db: Database,
    /// The outside world.
    pub env: Env,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows, in order.
    pub items: Vec<T>,
    /// Ask for what comes after this; absent on the last page.
    pub next: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// An earlier page's [`Page::next`]; the first page without.
    pub after: Option<String>,
    /// Rows, at most [`ADMIN_PAGE_ROWS_MAX`]; that many without.
    pub limit: Option<usize>,
}

impl PageQuery {
    fn rows(&self) -> usize {
        self.limit.unwrap_or(ADMIN_PAGE_ROWS_MAX).clamp(1, ADMIN_PAGE_ROWS_MAX)
    }
}

/// Why an administrator's request was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not a domain or an address.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The password is too short.
    #[error("a password has at least {PASSWORD_BYTES_MIN} bytes")]
    PasswordShort,
    /// The password is too long, or holds what no client can send.
    #[error(transparent)]
    Password(CredentialError),
    /// The description is too long.
    #[error("a description has at most {DESCRIPTION_BYTES_MAX} bytes")]
    Description,
    /// The page token is none that we gave out.
    #[error("`{0}` is not the end of a page")]
    Page(String),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// There is no such name.
    #[error("{0} does not exist")]
    Missing(String),
    /// The domain still has addresses.
    #[error("{0} still has addresses; remove them first")]
    InUse(String),
    /// The address stands for something else.
    #[error("{0} is not {1}")]
    OtherKind(String, &'static str),
    /// An alias without a target would bounce its mail.
    #[error("{0} needs at least one target; remove the alias instead")]
    NoTarget(String),
    /// Too many targets or members.
    #[error("an alias or a group has at most {max} members", max = mail::limits::GROUP_MEMBERS_MAX)]
    TooMany,
    /// The store is not backed up by a node.
    #[error(
        "this store is backed up by its own tools: FoundationDB's fdbbackup, and the bucket's copy"
    )]
    BackedUpElsewhere,
    /// The name is no node's.
    #[error(transparent)]
    NodeName(#[from] ::cluster::InvalidNodeName),
    /// No node was ever registered under the name, or it is forgotten.
    #[error("there is no node {0}")]
    NoNode(String),
    /// The node runs.
    #[error("node {0} is registered: it has to end before it can be forgotten")]
    NodeRuns(String),
    /// There is no such kind of work.
    #[error("there is no work of kind {0}")]
    NoKind(String),
    /// No node has such a session.
    #[error("there is no session {0}")]
    NoSession(String),
    /// Nodes that may have the session did not answer.
    #[error("there is no session {0} on the nodes that answered; these did not: {1}")]
    Unanswered(String, String),
    /// There is no such setting, or the value does not fit.
    #[error(transparent)]
    Setting(crate::settings::SettingError),
    /// The certificate is no good.
    #[error(transparent)]
    Certificate(#[from] crate::tls::CertificateError),
    /// The name of a certificate does not fit.
    #[error(
        "a certificate's name has 1 to {max} letters, digits, `-`, `_`, `.` and `*`",
        max = crate::limits::CERTIFICATE_NAME_BYTES_MAX
    )]
    CertificateName,
    /// There is no such certificate.
    #[error("there is no certificate {0}")]
    NoCertificate(String),
    /// The store has as many as it may.
    #[error(
        "the store has {max} certificates already; remove one first",
        max = ::cluster::limits::CERTIFICATES_MAX
    )]
    ManyCertificates,
    /// The domain has as many keys as it may.
    #[error("{0} has as many keys as are kept; remove the records of retired ones from DNS first")]
    TooManyKeys(String),
    /// Not a network.
    #[error(transparent)]
    Network(#[from] crate::guard::network::BadNetwork),
    /// The network is too large to be blocked.
    #[error("{0} is too large to be blocked: /{v4} of IPv4 and /{v6} of IPv6 are the most",
        v4 = crate::limits::BLOCK_PREFIX_MIN_V4, v6 = crate::limits::BLOCK_PREFIX_MIN_V6)]
    WideNetwork(String),
    /// The settings say that nobody there is held up.
    #[error("{0} is trusted: guard.trusted_networks has {1}")]
    TrustedNetwork(String, String),
    /// The reason is too long.
    #[error("a reason has at most {max} bytes", max = crate::limits::BLOCK_REASON_BYTES_MAX)]
    BlockReason,
    /// There are as many blocks as there may be.
    #[error("there are {0} blocks already (guard.block.count_max); remove one first")]
    ManyBlocks(u64),
    /// Another check runs.
    #[error("another check of this server's store is running")]
    Checking,
    /// The speed is none.
    #[error("a speed is a percentage from 1 to 100")]
    Speed,
    /// The queue has no such message.
    #[error("there is no message {0} in the queue")]
    NoMessage(String),
    /// Too many messages are named at once.
    #[error(
        "a request names at most {max} messages",
        max = crate::limits::QUEUE_ORDERS_PER_REQUEST
    )]
    ManyMessages,
    /// The store failed; trying again later may help.
    #[error("the store is not available: {0}")]
    Unavailable(kv::Error),
    /// A record or a part of the node is damaged.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<kv::Error> for AdminError {
    fn from(error: kv::Error) -> Self {
        Self::Unavailable(error)
    }
}

impl AsKvError for AdminError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Unavailable(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CredentialError> for AdminError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Interrupted => Self::Unavailable(kv::Error::Cancelled),
            refused => Self::Password(refused),
        }
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Kv(error) => Self::Unavailable(error),
            StoreError::NoAccount(_) => Self::Missing("the account".to_owned()),
            other @ (StoreError::Damaged { .. } | StoreError::BlobGone(_)) => {
                Self::Internal(other.to_string())
            }
        }
    }
}

impl From<DirectoryError> for AdminError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Exists(name) => Self::Exists(name),
            DirectoryError::Missing(name) => Self::Missing(name),
            DirectoryError::InUse(name) => Self::InUse(name),
            DirectoryError::OtherKind(name, wanted) => Self::OtherKind(name, wanted),
            DirectoryError::TooMany => Self::TooMany,
            DirectoryError::Store(error) => error.into(),
        }
    }
}

impl From<AccountError> for AdminError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Exists(name) => Self::Exists(name),
            AccountError::NoDomain(domain) => Self::Missing(format!("the domain {domain}")),
            AccountError::Mailbox(error) => match error.as_kv_error() {
                Some(error) => Self::Unavailable(error.clone()),
                None => Self::Internal(error.to_string()),
            },
            AccountError::Store(error) => error.into(),
        }
    }
}

/// Whether a transaction's closure runs for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Nothing of it can have been committed.
    First,
    /// An earlier run can have committed unseen, so what it asks for may be done already.
    Again,
}

impl Admin {
    async fn run<T, Fut>(
        &self,
        body: impl Fn(Transaction, Run) -> Fut + Send + Sync,
    ) -> Result<T, AdminError>
    where
        Fut: Future<Output = Result<T, AdminError>> + Send,
    {
        let ran = AtomicBool::new(false);
        self.db
            .run(|tx| {
                let run = if ran.swap(true, Ordering::Relaxed) { Run::Again } else { Run::First };
                body(tx, run)
            })
            .await
    }
}

impl Run {
    /// A refusal that an earlier, unseen commit of the same operation explains is its success.
    fn settle(
        self,
        result: Result<(), AdminError>,
        explained: impl FnOnce(&AdminError) -> bool,
    ) -> Result<(), AdminError> {
        match (self, result) {
            (Self::Again, Err(error)) if explained(&error) => Ok(()),
            (_, result) => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn memory() -> Admin {
        let env = Env::system();
        Admin { db: Database::memory(env.clone()), env }
    }

    #[tokio::test]
    async fn pages_have_bounds() {
        let rows = |limit| PageQuery { after: None, limit }.rows();
        assert_eq!(rows(None), ADMIN_PAGE_ROWS_MAX);
        assert_eq!(rows(Some(0)), 1);
        assert_eq!(rows(Some(usize::MAX)), ADMIN_PAGE_ROWS_MAX);
    }
}
