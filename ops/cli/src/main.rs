//! The `rookery` command: starts nodes and administers them.
//!
//! Exit codes: 0 done; 1 refused or failed; 2 the command line or the configuration is wrong. Of
//! `rookery fsck`, `rookery cluster status` and `rookery cluster doctor`: 0 all is right; 1 something
//! is not; 2 it could not be checked.
//! Results go to standard output, everything else to standard error.
//!
//! Deliberately absent: logic that a node needs. That is in the library crate `node`.

mod args;
mod backend;
mod commands;
mod dev_cluster;
mod error;
mod logging;
mod output;
mod password;
mod pause;
mod progress;
mod remote;
mod serve;
mod size;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, ConfigCommand};
use error::CliError;
use output::Output;

/// Gives memory back that is no longer needed: the system's allocator keeps the 19 MiB of a password
/// check for every thread that ever made one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Ends the process with code 2 where the arguments are wrong.
    let args = Args::parse();
    let ended = run(args);
    // Its thread must end before the process does.
    #[cfg(feature = "fdb")]
    kv::fdb::stop();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Serve(serve) => serve::serve(&serve),
        Command::DevCluster(cluster) => dev_cluster::run(&cluster),
        Command::Domain(domain) => commands::domain::run(domain),
        Command::Reports(reports) => commands::reports::run(reports),
        Command::Account(account) => commands::account::run(account),
        Command::Alias(alias) => commands::list::run_alias(alias),
        Command::Group(group) => commands::list::run_group(group),
        Command::Block(group) => commands::block::run(group),
        Command::Cluster(cluster) => commands::cluster::run(cluster),
        Command::Queue(queue) => commands::queue::run(queue),
        Command::Fsck(fsck) => commands::fsck::run(&fsck),
        Command::Backup(backup) => commands::backup::backup(&backup),
        Command::Restore(restore) => commands::backup::restore(&restore),
        Command::RenewUidValidity(renew) => commands::backup::renew_uid_validity(&renew),
        Command::Config(ConfigCommand::Check { file }) => {
            node::config::Config::load(&file)?;
            Output::human().line(format_args!("{}: good", file.display()))
        }
        Command::Bench(bench) => Ok(bench::run(&bench)?),
        Command::Version => {
            Output::human().line(format_args!("rookery {}", env!("CARGO_PKG_VERSION")))
        }
    }
}
