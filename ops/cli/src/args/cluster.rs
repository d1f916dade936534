//! `rookery cluster …`

use std::path::PathBuf;

use clap::Subcommand;
use node::logs::Level;

const EXIT_CODES: &str = "Exit codes of status and doctor: 0 all is well; 1 something is wrong; 2 it could not be \
     looked at.";

#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum ClusterCommand {
    /// Show nodes, store, blobs and work at one glance
    Status {
        /// Look again every second; with --json, a line each
        #[arg(long)]
        watch: bool,
    },
    /// List all nodes, and those that were and are not forgotten
    Nodes,
    /// Have a node end its sessions, hand back its work and stand aside, now and when it is started
    /// again
    Drain {
        node: String,
        /// Do not wait until it has done so
        #[arg(long)]
        no_wait: bool,
        /// Wait so long at most
        #[arg(long, value_name = "SECONDS", default_value_t = 60, conflicts_with = "no_wait")]
        timeout: u64,
    },
    /// Let a drained node serve again
    Undrain { node: String },
    /// Forget a node that has ended and is not to come back
    Forget { node: String },
    /// List clients' sessions, on all nodes
    Sessions {
        /// Only those of the node that is asked
        #[arg(long)]
        local: bool,
        /// Only those of this account
        #[arg(long, value_name = "ADDRESS")]
        account: Option<String>,
    },
    /// Have a session say goodbye, whichever node has it
    KillSession {
        /// As the list and the log show it
        id: String,
    },
    /// Show what there is to do: each kind of work, the zones of one, the items of one of these
    Work {
        /// Such as outbound or blob-sweep
        kind: Option<String>,
        /// Such as a destination's domain
        #[arg(requires = "kind")]
        zone: Option<String>,
    },
    /// Settings that hold for all nodes
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// TLS certificates that all nodes show
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Show the last lines of nodes' logs, and go on with new ones
    Log(LogArgs),
    /// Say what is wrong, and what to do
    Doctor,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Show a certificate on all nodes; takes the place of the one that has its name
    Add {
        /// PEM: the server's certificate first, then its issuers'
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// PEM: its private key, without a passphrase
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// What to call it [default: its first host]
        #[arg(long)]
        name: Option<String>,
    },
    /// List all certificates, never a key
    List,
    /// Show a certificate no more
    Remove { name: String },
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// Which nodes [default: all]
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Go on with new lines until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin with so many of the last lines of each
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) lines: usize,
    /// Only lines of this level and worse: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "trace")]
    pub(crate) level: Level,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SettingsCommand {
    /// Show all settings, or one
    Get {
        /// Such as limits.message_bytes_max
        name: Option<String>,
    },
    /// Set a setting on all nodes, or without a value let each node's file say
    Set {
        /// Such as limits.message_bytes_max
        name: String,
        /// As in the configuration file
        value: Option<String>,
    },
    /// List changes, the newest first
    History,
}
