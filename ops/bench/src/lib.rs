//! A load generator for any SMTP, LMTP or IMAP server: `rookery bench`.
//!
//! It opens its connections, waits until all stand, and then works on each without a pause until
//! the time is over or the count is reached. What it reports is what the server acknowledged:
//! throughput, latency percentiles, and errors by kind with the first text of each.
//!
//! Invariants:
//! - It is a client and nothing else: it asks the server for nothing that a mail program could
//!   not ask for, and knows no server's internals.
//! - Every wait has a limit, and every buffer a bound ([`limits`]): a server that misbehaves
//!   becomes a line in the report.
//! - It costs little itself, as it shares the machine with the server under test: one thread,
//!   messages prepared once, one write a message, replies skipped and not kept.
//!
//! Standards: RFC 5321 and RFC 2920 (SMTP, pipelining), RFC 2033 (LMTP), RFC 3207 (STARTTLS),
//! RFC 4954 (AUTH), RFC 9051 and RFC 3501 (IMAP), RFC 2177 (IDLE), RFC 7888 (literals), RFC 5802 and
//! RFC 7677 (SCRAM-SHA-256).
//!
//! Deliberately absent: an open-loop load at a given rate; CHUNKING; QRESYNC; the `-PLUS`
//! mechanisms, as a load generator has nobody to protect from.

mod args;
mod connect;
mod failure;
mod histogram;
mod imap;
pub mod limits;
mod load;
mod mail;
mod message;
mod pattern;
mod progress;
mod report;
mod sasl;
#[cfg(test)]
mod testing;
mod tls;
mod wire;

use std::io;

use env::Env;

pub use args::BenchArgs;
use args::Protocol;
use report::Report;

/// Why there is no good result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The command line is wrong in a way that the parser does not see.
    #[error("{0}")]
    Usage(String),
    /// The host has no address.
    #[error("cannot find the address of {host}: {source}")]
    Host {
        /// What was asked for.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder cannot be used.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// There are no threads to work on.
    #[error("cannot start threads: {0}")]
    Runtime(io::Error),
    /// Nobody reads the report.
    #[error("cannot write the report: {0}")]
    Output(io::Error),
    /// The report was printed, and not one operation in it succeeded.
    #[error("nothing succeeded; the report tells the errors")]
    NothingSucceeded,
    /// The report was printed, with more errors than were allowed.
    #[error("{errors} errors, and --errors-max allows {allowed}")]
    TooManyErrors {
        /// How many there were.
        errors: u64,
        /// How many were allowed.
        allowed: u64,
    },
}

/// Runs what the arguments say and prints the report on standard output.
///
/// # Errors
/// [`BenchError`]; after the last two of its kinds the report was printed none the less.
pub fn run(args: &BenchArgs) -> Result<(), BenchError> {
    let common = args.protocol.common();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(common.threads))
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    let report = runtime.block_on(Box::pin(measure(args, &Env::system())))?;
    // A name that is still being looked up must not hold the end up.
    runtime.shutdown_background();
    report.print(common.reader()).map_err(BenchError::Output)?;
    report.verdict(common.errors_max)
}

async fn measure(args: &BenchArgs, env: &Env) -> Result<Report, BenchError> {
    match &args.protocol {
        Protocol::Smtp(mail) => mail::run(env, mail, mail::Dialect::Smtp).await,
        Protocol::Lmtp(mail) => mail::run(env, mail, mail::Dialect::Lmtp).await,
        Protocol::Imap(imap) => imap::run(env, imap).await,
    }
}
