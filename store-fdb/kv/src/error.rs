//! What can go wrong, in FoundationDB's words, and what the retry loop may do about it.

use std::{path::PathBuf, sync::Arc};

/// An error of a transaction or of its commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something that the transaction read was changed before it committed.
    #[error("conflict with another transaction")]
    Conflict,
    /// The transaction outlived [`limits::TRANSACTION_LIFE`](crate::limits::TRANSACTION_LIFE).
    #[error("transaction is too old")]
    TooOld,
    /// The storage servers have not reached the read version yet.
    #[error("read version is in the future")]
    FutureVersion,
    /// A storage server lags behind.
    #[error("process is behind")]
    ProcessBehind,
    /// The commit may or may not have happened.
    #[error("commit result is unknown")]
    CommitUnknown,
    /// The transaction's time is over.
    #[error("operation timed out")]
    TimedOut,
    /// A key is longer than [`limits::KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX).
    #[error("key of {bytes} bytes is too large")]
    KeyTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A value is longer than its limit.
    #[error("value of {bytes} bytes is too large")]
    ValueTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The transaction exceeds
    /// [`limits::TRANSACTION_BYTES_MAX`](crate::limits::TRANSACTION_BYTES_MAX).
    #[error("transaction is too large")]
    TransactionTooLarge,
    /// A key begins with `0xff`.
    #[error("key is outside the legal range")]
    KeyOutsideLegalRange,
    /// A range's end is before its begin.
    #[error("range is inverted")]
    InvertedRange,
    /// A read met a key or value whose versionstamp is not known before the commit.
    #[error("read of an uncommitted versionstamp")]
    AccessedUnreadable,
    /// The transaction has been committed already.
    #[error("transaction was used after its commit")]
    UsedAfterCommit,
    /// More than [`limits::WATCHES_MAX`](crate::limits::WATCHES_MAX) watches.
    #[error("too many watches")]
    TooManyWatches,
    /// The last four bytes of a versionstamped key or value do not point at ten bytes in it.
    #[error("versionstamp offset is invalid")]
    InvalidVersionstampOffset,
    /// The transaction of a watch did not commit, or the engine was closed.
    #[error("operation was cancelled")]
    Cancelled,
    /// The engine could not write or read its storage. It refuses every further commit.
    #[error("storage engine failed: {reason}")]
    EngineFailed {
        /// The engine's own words.
        reason: Arc<str>,
    },
    /// The store cannot be reached.
    #[error("store is unavailable")]
    Unavailable,
    /// Another error of FoundationDB's client.
    #[error("FoundationDB error {code}")]
    Fdb {
        /// FoundationDB's error code.
        code: i32,
        /// What FoundationDB's client says about retrying it.
        class: Class,
    },
}

/// What an error means to whoever wants the transaction done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The transaction did not commit; running it again can succeed.
    Retryable,
    /// The transaction may have committed; running it again is right where it checks its
    /// operation id.
    CommitUnknown,
    /// Running it again cannot succeed.
    Fatal,
}

impl Error {
    /// What the error means to the retry loop.
    pub fn class(&self) -> Class {
        match self {
            Self::Conflict
            | Self::TooOld
            | Self::FutureVersion
            | Self::ProcessBehind
            | Self::Unavailable => Class::Retryable,
            Self::CommitUnknown => Class::CommitUnknown,
            Self::Fdb { class, .. } => *class,
            Self::TimedOut
            | Self::KeyTooLarge { .. }
            | Self::ValueTooLarge { .. }
            | Self::TransactionTooLarge
            | Self::KeyOutsideLegalRange
            | Self::InvertedRange
            | Self::AccessedUnreadable
            | Self::UsedAfterCommit
            | Self::TooManyWatches
            | Self::InvalidVersionstampOffset
            | Self::Cancelled
            | Self::EngineFailed { .. } => Class::Fatal,
        }
    }

    /// Whether the retry loop runs the transaction again: [`Class::Retryable`] and
    /// [`Class::CommitUnknown`].
    pub fn is_retryable(&self) -> bool {
        self.class() != Class::Fatal
    }

    /// Whether the store is away, or does not answer: whoever else asks it now will hear the same.
    pub fn is_store_away(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Unavailable | Self::EngineFailed { .. })
    }

    /// Whether the transaction may have committed.
    pub fn is_commit_unknown(&self) -> bool {
        self.class() == Class::CommitUnknown
    }

    pub(crate) fn engine_failed(reason: impl std::fmt::Display) -> Self {
        Self::EngineFailed { reason: reason.to_string().into() }
    }
}

/// How the retry loop finds the store's error inside a domain error.
pub trait AsKvError {
    /// The store's error where this is one.
    fn as_kv_error(&self) -> Option<&Error>;
}

impl AsKvError for Error {
    fn as_kv_error(&self) -> Option<&Error> {
        Some(self)
    }
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another engine in this process, has the directory open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was written by a newer release.
    #[error("{} has format {found}, and this release knows {known}", path.display())]
    FormatUnknown {
        /// The directory.
        path: PathBuf,
        /// The format found there.
        found: u32,
        /// The newest format that this release knows.
        known: u32,
    },
    /// The files are damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// The engine's own words.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot open {}: {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// FoundationDB's cluster file is none.
    #[error(
        "{} is no cluster file of FoundationDB: {reason}. It has one line, \
         DESCRIPTION:ID@ADDRESS:PORT,…: copy it from a machine of the cluster",
        path.display()
    )]
    ClusterFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// FoundationDB's client library is of another release.
    #[error(
        "the FoundationDB client library here (libfdb_c) does not speak API version {wanted}: \
         {reason}. Install the library of FoundationDB 7.3 or newer"
    )]
    Library {
        /// The API version that we speak.
        wanted: i32,
        /// The client's own words.
        reason: String,
    },
    /// FoundationDB's client refused.
    #[error("FoundationDB client error {code}: {reason}")]
    Fdb {
        /// FoundationDB's error code.
        code: i32,
        /// The client's own words.
        reason: String,
    },
}
