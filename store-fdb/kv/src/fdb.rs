//! The FoundationDB engine: a thin layer over the official client library.
//!
//! Read-your-writes, conflict ranges and watches are the client's own; keys and values are
//! checked here first, so that every engine reports the same errors with the same details.
//!
//! Invariant: the client's network thread is started once per process, and [`stop`] ends it
//! before the process exits.

mod cluster_file;
mod remembered;
mod transaction;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use env::Env;
use foundationdb::{
    FdbError,
    api::{FdbApiBuilder, NetworkAutoStop},
    options::{DatabaseOption, NetworkOption, TransactionOption},
};

use crate::{
    Class, Database, Error, OpenError, Priority,
    counts::Counters,
    limits::{FDB_TIMEOUT, WATCHES_MAX},
};

pub use cluster_file::coordinators;
pub(crate) use transaction::{FdbPages, FdbTransaction};

/// The API version that we were written for. Every client library since 7.3 speaks it.
const API_VERSION: i32 = 730;

/// The tag of [`Priority::Background`]'s transactions, by which operators may throttle them
/// (`fdbcli`: `throttle`).
const BACKGROUND_TAG: &str = "background";

/// The client's network thread, from the first [`open`] to [`stop`].
static NETWORK: Mutex<Network> = Mutex::new(Network::NotStarted);

enum Network {
    NotStarted,
    Running(#[expect(dead_code, reason = "dropping it stops the thread")] NetworkAutoStop),
    /// The client cannot be started twice in one process.
    Stopped,
}

/// A cluster's database.
#[derive(Clone)]
pub(crate) struct FdbDatabase {
    database: Arc<foundationdb::Database>,
}

impl FdbDatabase {
    /// A transaction that fails after `time_max`, where that is less than [`FDB_TIMEOUT`].
    pub(crate) fn begin(
        &self,
        counters: Arc<Counters>,
        priority: Priority,
        time_max: Option<Duration>,
    ) -> FdbTransaction {
        let begun = self.database.create_trx().and_then(|transaction| {
            if priority == Priority::Background {
                transaction.set_option(TransactionOption::PriorityBatch)?;
                transaction.set_option(TransactionOption::Tag(BACKGROUND_TAG.to_owned()))?;
            }
            if let Some(time_max) = time_max.filter(|time_max| *time_max < FDB_TIMEOUT) {
                // 0 would be none.
                let ms = i32::try_from(time_max.as_millis()).unwrap_or(i32::MAX).max(1);
                transaction.set_option(TransactionOption::Timeout(ms))?;
            }
            Ok(transaction)
        });
        FdbTransaction::new(begun.map_err(error), counters)
    }
}

/// Opens a cluster by its cluster file, by default the one in its usual place. This does not
/// wait for the cluster: one that cannot be reached shows in the first transaction.
///
/// # Errors
/// [`OpenError::Io`] where the cluster file cannot be read, [`OpenError::ClusterFile`] where it is
/// none, [`OpenError::Library`] where the client library is of another release, and
/// [`OpenError::Fdb`] as the client reports it: the network was stopped before.
pub fn open(cluster_file: Option<&Path>, env: Env) -> Result<Database, OpenError> {
    open_traced(cluster_file, None, env)
}

/// The same, with the client's own trace log in a folder: JSON, in at most ten files of 10 MB each.
/// The folder of the process's first opening counts.
///
/// # Errors
/// As [`open`].
pub fn open_traced(
    cluster_file: Option<&Path>,
    trace_folder: Option<&Path>,
    env: Env,
) -> Result<Database, OpenError> {
    if let Some(path) = cluster_file {
        // The client would only say that something with a file is wrong.
        coordinators(path)?;
    }
    start_network(trace_folder)?;
    let file = match cluster_file {
        Some(path) => Some(path.to_str().ok_or_else(|| OpenError::Fdb {
            code: 0,
            reason: format!("{} is not UTF-8", path.display()),
        })?),
        None => None,
    };
    let database = foundationdb::Database::new(file).map_err(|error| match cluster_file {
        // 2104: the client does not take what the file says.
        Some(path) if error.code() == 2104 => cluster_file::not_one(path, error.message()),
        _ => open_error(error),
    })?;
    let timeout_ms = i32::try_from(FDB_TIMEOUT.as_millis()).expect("it is a few seconds");
    let watches = i32::try_from(WATCHES_MAX).expect("it is some thousands");
    for option in
        [DatabaseOption::TransactionTimeout(timeout_ms), DatabaseOption::MaxWatches(watches)]
    {
        database.set_option(option).map_err(open_error)?;
    }
    Ok(Database::fdb(FdbDatabase { database: Arc::new(database) }, env))
}

/// Stops the client's network thread. For the end of `main`, after the last use of any
/// database: nothing completes any more after it. Does nothing where none was opened.
pub fn stop() {
    let mut network = NETWORK.lock().expect("nothing panics while it holds the network");
    if matches!(*network, Network::Running(_)) {
        *network = Network::Stopped;
    }
}

fn start_network(trace_folder: Option<&Path>) -> Result<(), OpenError> {
    let mut network = NETWORK.lock().expect("nothing panics while it holds the network");
    match *network {
        Network::Running(_) => Ok(()),
        Network::Stopped => {
            Err(OpenError::Fdb { code: 0, reason: "the network was stopped".into() })
        }
        Network::NotStarted => {
            let mut builder = FdbApiBuilder::default()
                .set_runtime_version(API_VERSION)
                .build()
                .map_err(open_error)?;
            if let Some(folder) = trace_folder {
                let options = [
                    NetworkOption::TraceEnable(folder.display().to_string()),
                    NetworkOption::TraceFormat("json".to_owned()),
                ];
                for option in options {
                    builder = builder.set_option(option).map_err(open_error)?;
                }
            }
            #[expect(unsafe_code, reason = "the guard is kept, and `stop` drops it before exit")]
            // SAFETY: the network must be stopped before the process exits. The guard that does
            // so lives in `NETWORK` until `stop`, which `main` calls last.
            let running = unsafe { builder.boot() }.map_err(open_error)?;
            *network = Network::Running(running);
            Ok(())
        }
    }
}

fn open_error(error: FdbError) -> OpenError {
    // 2203: no such API version; 2204: there is no library of it.
    if matches!(error.code(), 2203 | 2204) {
        return OpenError::Library { wanted: API_VERSION, reason: error.message().to_owned() };
    }
    OpenError::Fdb { code: error.code(), reason: error.message().to_owned() }
}

/// The client's error in our words. Codes are those of FoundationDB's API reference.
fn error(error: FdbError) -> Error {
    match error.code() {
        1007 => Error::TooOld,
        1009 => Error::FutureVersion,
        1020 => Error::Conflict,
        1021 => Error::CommitUnknown,
        1025 | 1101 => Error::Cancelled,
        1031 => Error::TimedOut,
        1032 => Error::TooManyWatches,
        1036 => Error::AccessedUnreadable,
        1037 => Error::ProcessBehind,
        2004 => Error::KeyOutsideLegalRange,
        2005 => Error::InvertedRange,
        2017 => Error::UsedAfterCommit,
        2101 => Error::TransactionTooLarge,
        code => Error::Fdb { code, class: class(error) },
    }
}

fn class(error: FdbError) -> Class {
    if error.is_maybe_committed() {
        Class::CommitUnknown
    } else if error.is_retryable() {
        Class::Retryable
    } else {
        Class::Fatal
    }
}
