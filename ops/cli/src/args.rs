//! The command line.

mod block;
mod cluster;
mod queue;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::size::Quota;

pub(crate) use block::BlockCommand;
pub(crate) use cluster::{CertificateCommand, ClusterCommand, LogArgs, SettingsCommand};
pub(crate) use queue::{ListArgs, QueueCommand, SelectArgs};

const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration.";

/// A mail server for one machine or many.
#[derive(Debug, Parser)]
#[command(name = "rookery", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a mail server until SIGTERM
    Serve(ServeArgs),
    /// Run several nodes in one process on one store, for demonstrations and tests
    DevCluster(DevClusterArgs),
    /// Domains that mail is taken for
    Domain(Group<DomainCommand>),
    /// People's accounts
    Account(Group<AccountCommand>),
    /// Other addresses of accounts, and forwards
    Alias(Group<AliasCommand>),
    /// Addresses that go to many members
    Group(Group<GroupCommand>),
    /// What others report of mail in our domains' names, and of connections to us
    Reports(Group<ReportsCommand>),
    /// Nodes, sessions and work of all servers on one store
    Cluster(Group<ClusterCommand>),
    /// Mail that waits for other servers
    Queue(Group<QueueCommand>),
    /// Networks that no node talks to
    Block(Group<BlockCommand>),
    /// Check the store, online; mend it with --repair
    Fsck(FsckArgs),
    /// Write a backup of everything, of one moment, while mail goes on (embedded engine)
    Backup(BackupArgs),
    /// Make a store of a backup
    Restore(RestoreArgs),
    /// Give every mailbox a new UIDVALIDITY, after fdbrestore and before the first node starts
    RenewUidValidity(RenewArgs),
    /// The configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Put load on a server, any server, and tell what it withstood
    Bench(Box<bench::BenchArgs>),
    /// Print the release
    Version,
}

/// A server to run: exactly one of --config and --dev.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["config", "dev"]))]
pub(crate) struct ServeArgs {
    /// Run with this configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Run for development: on 127.0.0.1, with example.org, alice and bob, and a certificate of
    /// its own making
    #[arg(long)]
    pub(crate) dev: bool,
    /// Keep the development server's mail here [default: ~/.local/share/rookery-dev]
    #[arg(long, value_name = "DIR", requires = "dev", conflicts_with = "config")]
    pub(crate) data: Option<PathBuf>,
    /// Development ports are this plus 525 (SMTP), 587, 465, 424 (LMTP), 143 (IMAP), 993 (IMAPS)
    /// and 80 (HTTP)
    #[arg(long, value_name = "N", requires = "dev", conflicts_with = "config",
          default_value_t = 2000,
          value_parser = clap::value_parser!(u16).range(1024..=node::config::PortBase::MAX as i64))]
    pub(crate) port_base: u16,
}

/// Nodes to run: node N is at 127.0.0.N.
#[derive(Debug, clap::Args)]
pub(crate) struct DevClusterArgs {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) nodes: u8,
    /// Keep mail here [default: ~/.local/share/rookery-dev-cluster]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Development ports are this plus 525 (SMTP), 587, 465, 424 (LMTP), 143 (IMAP), 993 (IMAPS)
    /// and 80 (HTTP)
    #[arg(long, value_name = "N", default_value_t = 2000,
          value_parser = clap::value_parser!(u16).range(1024..=node::config::PortBase::MAX as i64))]
    pub(crate) port_base: u16,
    /// The fastest way on which nodes hear of what others commit
    #[arg(long, value_name = "WAY", default_value = "mesh")]
    pub(crate) wakeups: WakeupsArg,
    /// Keep everything but messages' bytes there: fdb:CLUSTER_FILE [default: in the data folder]
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// Keep messages' bytes there: s3:URL/BUCKET, with the keys in AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY [default: in the data folder]
    #[arg(long, value_name = "BLOBS")]
    pub(crate) blobs: Option<String>,
    /// Take `limits`, `dns` and `outbound` from this configuration file, and nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Ways on which nodes hear of what others commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WakeupsArg {
    /// Datagrams
    Mesh,
    /// A watch in the store
    Watch,
    /// A look every second
    Poll,
}

impl From<WakeupsArg> for node::config::Wakeups {
    fn from(way: WakeupsArg) -> Self {
        match way {
            WakeupsArg::Mesh => Self::Mesh,
            WakeupsArg::Watch => Self::Watch,
            WakeupsArg::Poll => Self::Poll,
        }
    }
}

const FSCK_EXIT_CODES: &str =
    "Exit codes: 0 all is right, or mended; 1 something is not; 2 it could not be checked.";

/// What to check, where and how.
#[derive(Debug, clap::Args)]
#[command(after_help = FSCK_EXIT_CODES)]
pub(crate) struct FsckArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Check this account alone, and nothing that is between accounts
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) account: Option<String>,
    /// Mend what can be mended without a guess and without losing mail, and check again
    #[arg(long)]
    pub(crate) repair: bool,
    /// Read every message's bytes, too, and compare them with their hash
    #[arg(long)]
    pub(crate) bytes: bool,
    /// How much of its time the check works; it rests for the others, so that mail goes first
    /// [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) speed: Option<u8>,
    /// Show how far it is, even where standard error is no terminal
    #[arg(long)]
    pub(crate) progress: bool,
}

/// What to back up, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// The backup's file, which must not exist yet; it appears when the backup is complete
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Show how far it is, even where standard error is no terminal
    #[arg(long)]
    pub(crate) progress: bool,
}

/// What to restore, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// A backup
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The data folder that gets the store; it must have none yet
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Show how far it is, even where standard error is no terminal
    #[arg(long)]
    pub(crate) progress: bool,
}

/// Whose mailboxes are to get new UIDVALIDITYs.
#[derive(Debug, clap::Args)]
pub(crate) struct RenewArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Days since the snapshot was made, rounded up
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) days: u16,
    /// Show how far it is, even where standard error is no terminal
    #[arg(long)]
    pub(crate) progress: bool,
}

/// One kind of thing to administer, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Group<C: Subcommand> {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(subcommand)]
    pub(crate) command: C,
}

/// Which server or store to work on. A store that a running server has open is worked on through
/// that server.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TargetArgs {
    /// The server of this configuration file
    #[arg(long, value_name = "FILE", global = true, conflicts_with_all = ["dev", "data", "url"])]
    pub(crate) config: Option<PathBuf>,
    /// The development server
    #[arg(long, global = true, conflicts_with = "url")]
    pub(crate) dev: bool,
    /// The server or store with this data folder
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "url")]
    pub(crate) data: Option<PathBuf>,
    /// The server with its HTTP port there, http://HOST:PORT [env: ROOKERY_URL]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) url: Option<String>,
    /// What its DATA/admin-token holds; better in the environment, where others do not see it
    /// [env: ROOKERY_TOKEN]
    #[arg(long, value_name = "TOKEN", global = true)]
    pub(crate) token: Option<String>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Take mail for a domain
    Add { domain: String },
    /// List all domains
    List,
    /// Remove a domain that has no address left
    Remove { domain: String },
    /// Say where mail goes whose address does not exist: an address, or `none` to refuse it
    CatchAll { domain: String, target: String },
    /// Keys that mail is signed with, and their records in DNS
    Dkim {
        domain: String,
        #[command(subcommand)]
        action: Option<DkimCommand>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DkimCommand {
    /// List keys, and what DNS says of their records; the default
    List,
    /// Make new keys, which sign once DNS has their records
    Rotate,
    /// Send the records to the name server again, and ask DNS for them now
    Publish,
    /// Let a key sign now, whatever DNS says
    Use { selector: String },
    /// Let a key sign no more
    Retire { selector: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportsCommand {
    /// List all reports that are kept, the latest first
    List,
    /// Show what a report says
    Show { id: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account; asks for its password
    Add {
        address: String,
        /// A name for people
        #[arg(long, default_value = "")]
        description: String,
        /// How much mail it may hold, such as 5GiB; `none` for no limit
        #[arg(long, default_value = "none")]
        quota: Quota,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List all accounts
    List,
    /// Show an account and what it holds
    Show { address: String },
    /// Remove an account and all its mail
    Remove { address: String },
    /// Set a new password
    Password {
        address: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Set how much mail an account may hold, such as 5GiB; `none` for no limit
    Quota { address: String, quota: Quota },
    /// Let the owner log in again
    Enable { address: String },
    /// Refuse logins; mail is still taken in
    Disable { address: String },
}

/// Where a password comes from. Never from the command line, where others see it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct PasswordArgs {
    /// Read the password from the first line of standard input; otherwise it is taken from
    /// ROOKERY_PASSWORD or asked for on the terminal
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// Send an address's mail on to others, here or elsewhere
    Add {
        address: String,
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// List all aliases
    List,
    /// Remove an alias
    Remove { address: String },
    /// Add a target to an alias
    AddTarget { address: String, target: String },
    /// Remove a target from an alias
    RemoveTarget { address: String, target: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a group of members, here or elsewhere
    Add { address: String, members: Vec<String> },
    /// List all groups
    List,
    /// Show a group's members
    Show { address: String },
    /// Remove a group
    Remove { address: String },
    /// Add a member to a group
    AddMember { address: String, member: String },
    /// Remove a member from a group
    RemoveMember { address: String, member: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file without starting
    Check { file: PathBuf },
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Args, ErrorKind> {
        Args::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[track_caller]
    fn refused(line: &str, expected: ErrorKind) {
        assert_eq!(parse(line).map(|_| ()).unwrap_err(), expected, "{line}");
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn serve_wants_one_kind_of_server() {
        let serve = |line| match parse(line).unwrap().command {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        };
        assert_eq!(serve("rookery serve --config r.toml").config, Some("r.toml".into()));
        let dev = serve("rookery serve --dev --data /tmp/x --port-base 12000");
        assert_eq!((dev.dev, dev.data, dev.port_base), (true, Some("/tmp/x".into()), 12_000));
        assert_eq!(serve("rookery serve --dev").port_base, 2000);
        refused("rookery serve", ErrorKind::MissingRequiredArgument);
        refused("rookery serve --dev --config r.toml", ErrorKind::ArgumentConflict);
        refused("rookery serve --config r.toml --data /tmp/x", ErrorKind::ArgumentConflict);
        refused("rookery serve --config r.toml --port-base 3000", ErrorKind::ArgumentConflict);
        refused("rookery serve --dev --port-base 65000", ErrorKind::ValueValidation);
        refused("rookery serve --dev --port-base 80", ErrorKind::ValueValidation);
    }

    #[test]
    fn where_to_work_may_stand_anywhere() {
        for line in ["rookery account --dev --json list", "rookery account list --json --dev"] {
            match parse(line).unwrap().command {
                Command::Account(group) => {
                    assert!(group.target.dev && group.target.json, "{line}");
                    assert!(matches!(group.command, AccountCommand::List));
                }
                other => panic!("{other:?}"),
            }
        }
        refused("rookery domain list --dev --url http://x", ErrorKind::ArgumentConflict);
        refused("rookery domain list --config r.toml --data x", ErrorKind::ArgumentConflict);
    }

    #[test]
    fn a_check_names_its_account_and_speed() {
        let line = "rookery fsck --dev --account alice@example.org --repair --speed 100 --json";
        match parse(line).unwrap().command {
            Command::Fsck(fsck) => {
                assert_eq!((fsck.repair, fsck.speed, fsck.progress), (true, Some(100), false));
                assert!(!fsck.bytes);
                assert_eq!(fsck.account.as_deref(), Some("alice@example.org"));
                assert!(fsck.target.json);
            }
            other => panic!("{other:?}"),
        }
        refused("rookery fsck --speed 0", ErrorKind::ValueValidation);
    }

    #[test]
    fn what_is_done_with_the_queue_is_named() {
        for line in
            ["retry 0a 0b", "hold --domain a.example", "release --all", "cancel 0a --notify"]
        {
            assert!(parse(&format!("rookery queue {line} --dev")).is_ok(), "{line}");
        }
        assert!(parse("rookery queue cancel --domain a.example --older-than 2d").is_ok());
        refused("rookery queue cancel", ErrorKind::MissingRequiredArgument);
        refused("rookery queue cancel 0a --all", ErrorKind::ArgumentConflict);
        refused("rookery queue hold --all --sender a@b", ErrorKind::ArgumentConflict);
        refused("rookery queue list --older-than 2", ErrorKind::ValueValidation);
        refused("rookery queue list --state gone", ErrorKind::ValueValidation);
    }

    #[test]
    fn passwords_are_no_arguments() {
        refused("rookery account password alice@example.org secret", ErrorKind::UnknownArgument);
        refused(
            "rookery account add alice@example.org --password secret",
            ErrorKind::UnknownArgument,
        );
    }

    #[test]
    fn an_alias_needs_a_target_and_a_quota_a_size() {
        refused("rookery alias add info@example.org", ErrorKind::MissingRequiredArgument);
        refused("rookery account quota a@example.org much", ErrorKind::ValueValidation);
        assert!(parse("rookery account quota a@example.org 5GiB --dev").is_ok());
        assert!(parse("rookery group add team@example.org").is_ok());
        assert!(parse("rookery domain catch-all example.org none --dev").is_ok());
    }
}
