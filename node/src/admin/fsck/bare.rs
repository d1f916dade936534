//! What tests of checks begin with: a bare store, and what a check of it tells.

use blob::BlobStore;
use env::Env;
use kv::{Database, LargeValues};
use mail::fsck::{FsckError, Mode, Options, Owners, Parts, Speed};
use tokio::sync::mpsc;

use super::{Finding, Line, Summary, Teller};
use crate::deliver::outbound;

/// More lines than a test has findings.
const LINES_MAX: usize = 1_000;

/// A store in memory with nothing in it.
pub(super) async fn parts() -> Parts {
    let env = Env::system();
    let db = Database::memory(env.clone());
    let blobs = BlobStore::embedded(LargeValues::memory(env.clone()), env.clone());
    let owners = Owners {
        submission_key: outbound::submission_key,
        submission_blob: outbound::submission_blob,
    };
    Parts { db, blobs: blobs.await.unwrap(), env, owners }
}

/// What a check tells of a store.
pub(super) async fn told(
    parts: &Parts,
    mode: Mode,
    check: impl AsyncFnOnce(&Parts, Options, &Teller<'_>, &mut Summary) -> Result<(), FsckError>,
) -> (Summary, Vec<Finding>) {
    let options = Options { mode, speed: Speed::new(100).unwrap(), ..Options::default() };
    let (lines, mut told) = mpsc::channel(LINES_MAX);
    let teller = Teller { lines: &lines, env: &parts.env };
    let mut summary = Summary::default();
    check(parts, options, &teller, &mut summary).await.unwrap();
    drop(lines);
    let mut findings = Vec::new();
    while let Some(line) = told.recv().await {
        if let Line::Finding(finding) = line {
            findings.push(finding);
        }
    }
    (summary, findings)
}
