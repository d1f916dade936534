//! What ends the command early.

use std::{io, path::PathBuf};

use node::{StartError, admin::AdminError, config::ConfigError};

use crate::remote::RemoteError;

/// Why the command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line is wrong in a way that the parser does not see.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The request was refused.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The server refused, or cannot be reached.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] kv::OpenError),
    /// The store belongs to a newer release.
    #[error(transparent)]
    Schema(#[from] mail::schema::SchemaError),
    /// The store cannot be closed in order.
    #[error("the store did not close in order: {0}")]
    Close(kv::Error),
    /// A file or folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The token of the data folder cannot be used.
    #[error(transparent)]
    Token(#[from] node::admin::token::TokenError),
    /// Nobody reads what is printed.
    #[error("cannot write the result: {0}")]
    Output(io::Error),
    /// The password cannot be read.
    #[error("cannot read the password: {0}")]
    Password(io::Error),
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A server has the store open, and cannot be asked.
    #[error("{} is in use by a server that has no HTTP port, or none yet", data.display())]
    Unasked {
        /// The data folder.
        data: PathBuf,
    },
    /// Nothing that could be asked runs on the data folder.
    #[error(
        "no server runs on {} that could be asked: name one with --url", data.display()
    )]
    NoServer {
        /// The data folder.
        data: PathBuf,
    },
    /// The process lacks what it needs to run at all.
    #[error("cannot start {what}: {reason}")]
    Process {
        /// Threads, signals, logging.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The load generator has no good result.
    #[error(transparent)]
    Bench(#[from] bench::BenchError),
    /// The backup did not come to its end.
    #[error(transparent)]
    Backup(#[from] node::admin::backup::BackupError),
    /// The backup was not restored.
    #[error(transparent)]
    Restore(#[from] kv::embedded::RestoreError),
    /// The restored mailboxes did not get new UIDVALIDITYs.
    #[error(transparent)]
    Renew(#[from] mail::uid_validity::RenewError),
    /// Mailboxes of a restored store did not get new UIDVALIDITYs.
    #[error(transparent)]
    Restored(#[from] node::admin::restored::RestoredError),
    /// The check found what is not right, or could not be mended.
    #[error("{0} of what was found is not mended")]
    Damaged(u64),
    /// The check did not come to its end, or not to all.
    #[error("the store is not checked: {0}")]
    Unchecked(String),
    /// The cluster was looked at, and not all is well.
    #[error("not all is well: {0} problems")]
    Unwell(usize),
    /// The cluster could not be looked at.
    #[error("the cluster cannot be looked at: {0}")]
    Unseen(String),
    /// Not every node has told its sessions.
    #[error("the sessions of these nodes are missing: {0}")]
    Incomplete(String),
    /// Not every node has told its log.
    #[error("the lines of these nodes are missing: {0}")]
    LogIncomplete(String),
    /// Nothing more of the log comes.
    #[error("the log is followed no longer: {0}")]
    LogEnded(String),
    /// A node was told to drain, and has not come to its end in time.
    #[error("node {node} is told to drain, and is {state}")]
    NotDrained {
        /// Its name.
        node: String,
        /// How it was seen last.
        state: String,
    },
    /// A second signal came while the server was draining.
    #[error("ended at once by a second signal")]
    Interrupted,
}

impl CliError {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Config(_)
            // Two nodes under one name: a configuration that no restart mends.
            | Self::Start(StartError::Superseded)
            | Self::Bench(bench::BenchError::Usage(_))
            | Self::Unchecked(_)
            | Self::Unseen(_) => 2,
            Self::Admin(_)
            | Self::Remote(_)
            | Self::Open(_)
            | Self::Schema(_)
            | Self::Close(_)
            | Self::File { .. }
            | Self::Token(_)
            | Self::Output(_)
            | Self::Password(_)
            | Self::Start(_)
            | Self::Unasked { .. }
            | Self::Process { .. }
            | Self::Bench(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Renew(_)
            | Self::Restored(_)
            | Self::Damaged(_)
            | Self::Unwell(_)
            | Self::Incomplete(_)
            | Self::LogIncomplete(_)
            | Self::LogEnded(_)
            | Self::NoServer { .. }
            | Self::NotDrained { .. }
            | Self::Interrupted => 1,
        }
    }
}
