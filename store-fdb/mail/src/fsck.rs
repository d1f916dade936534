//! `rookery fsck`: the proof of P4 and P5 on a store that is in use, and the mending of what may
//! be mended.
//!
//! Everything is read in transactions of bounded rows, bytes and time ([`crate::limits`]); what
//! belongs together is read in one, so a finding is true at one version and never the shadow of a
//! change that came between two reads:
//!
//! - **What concerns one email** (state, meta, thread keys, blob reference, its mailboxes, its
//!   newest log entry) is read in one transaction for a stretch of emails.
//! - **Counters** (P4) are a sum over all emails. The states are read in stretches, each with its
//!   version; then the log since is read, and each change that it tells of an email behind that
//!   email's stretch is added. The last of the log is read in one transaction together with the
//!   counters: at its version sum and counters must agree. Memory: one row a mailbox and one a
//!   stretch. A difference is told only when a second sum finds the same one. An account that
//!   changes faster than its log can be read is told as busy.
//! - **UIDs** that two emails have are looked for among 12 bytes a place, in several passes where
//!   there are more than [`crate::limits::FSCK_PLACES_HELD_MAX`], and each is read again in one
//!   transaction before it is told.
//! - **The log** is followed back: an email's state names the entry of its last change, and each
//!   entry the one before, down to the horizon.
//!
//! What is being deleted, an account or a mailbox, goes in several transactions; that is no damage.
//!
//! Architecture invariants:
//! - A check writes nothing. A repair (`mend.rs`) reads what it is about again, in the transaction
//!   that mends it.
//! - Nothing here deletes mail, or guesses.
//!
//! Deliberately absent: the outbound queue, whose records belong to the node.

mod account;
mod blobs;
mod damage;
mod directory;
mod emails;
mod history;
mod mailboxes;
mod mend;
mod operations;
mod references;
mod stray;
mod sum;
mod threads;
mod uids;
mod views;
mod walk;

use std::time::Duration;

use blob::{BlobError, BlobId, BlobStore, audit::Depth, binding::BindError};
use env::Env;
use kv::{AsKvError, Database};
use tokio::sync::mpsc;

use crate::{AccountId, StoreError};

pub use damage::{Damage, Family, Remedy};
use walk::Walk;

/// What is checked, and with what.
#[derive(Clone)]
pub struct Parts {
    /// The store.
    pub db: Database,
    /// The bytes.
    pub blobs: BlobStore,
    /// The outside world.
    pub env: Env,
    /// What else needs blobs.
    pub owners: Owners,
}

/// What owns blobs beside emails: submissions, whose records this crate does not know.
#[derive(Debug, Clone, Copy)]
pub struct Owners {
    /// The key of a submission's record.
    pub submission_key: fn(&[u8; 16]) -> Vec<u8>,
    /// The blob of a submission's record; `None` where it cannot be decoded.
    pub submission_blob: fn(&[u8]) -> Option<BlobId>,
}

/// What to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Only this account's data; everything where absent.
    pub account: Option<AccountId>,
    /// What to do about findings.
    pub mode: Mode,
    /// How hard to work.
    pub speed: Speed,
    /// How closely to look at blobs.
    pub depth: Depth,
}

/// What to do about findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Tell them.
    #[default]
    Check,
    /// Tell them, and mend those that are safe to mend.
    Repair,
}

/// The share of its time that a check works, in percent: 1 to 100. It rests for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed(u8);

impl Speed {
    /// `None` outside 1 to 100.
    pub const fn new(percent: u8) -> Option<Self> {
        if matches!(percent, 1..=100) { Some(Self(percent)) } else { None }
    }

    /// How long to rest after work.
    pub fn rest_after(self, worked: Duration) -> Duration {
        worked * (100 - u32::from(self.0)) / u32::from(self.0)
    }
}

impl Default for Speed {
    /// Half of the time.
    fn default() -> Self {
        Self(50)
    }
}

/// What a check is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Each account by itself.
    #[default]
    Accounts,
    /// Keys of accounts that do not exist.
    Stray,
    /// Domains and addresses.
    Directory,
    /// Who needs which blob.
    References,
    /// The blobs themselves.
    Blobs,
}

impl Phase {
    /// For people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Stray => "stray keys",
            Self::Directory => "directory",
            Self::References => "references",
            Self::Blobs => "blobs",
        }
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is at.
    pub phase: Phase,
    /// Accounts that are done.
    pub accounts_done: u64,
    /// Accounts that there were at the beginning.
    pub accounts_total: u64,
    /// Emails looked at.
    pub emails: u64,
    /// Blobs and references looked at.
    pub blobs: u64,
    /// Bytes of blobs read; none where they are not looked at.
    pub bytes: u64,
}

/// What a check tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// How far it is. A listener that is slow misses some.
    Progress(Progress),
    /// Something does not hold.
    Found(Damage),
    /// It has been mended.
    Mended(Damage),
    /// It was to be mended, and was not, for this reason.
    NotMended(Damage, String),
    /// This account's counters changed too fast to be checked.
    Busy(AccountId),
}

/// What came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Things that do not hold.
    pub findings: u64,
    /// Of them mended.
    pub mended: u64,
    /// Of them found again, or first, by the last check.
    pub remaining: u64,
    /// Things that are no damage and worth knowing.
    pub notes: u64,
    /// Accounts whose counters changed too fast to be checked.
    pub busy: u64,
    /// Accounts checked.
    pub accounts: u64,
    /// Emails checked.
    pub emails: u64,
    /// Bytes of blobs read; none where they are not looked at.
    pub bytes: u64,
}

/// Why a check ended early.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// Nobody listens any more.
    #[error("nobody listens to the check any more")]
    Stopped,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store failed.
    #[error(transparent)]
    Blob(BlobError),
    /// The blobs are not this store's, or not known to be.
    #[error(transparent)]
    Binding(BindError),
}

impl From<BindError> for FsckError {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Kv(error) => error.into(),
            BindError::Blob(error) => Self::Blob(error),
            error => Self::Binding(error),
        }
    }
}

impl From<kv::Error> for FsckError {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl AsKvError for FsckError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Store(error) => error.as_kv_error(),
            Self::Stopped | Self::Blob(_) | Self::Binding(_) => None,
        }
    }
}

/// What is checked as one, repaired, and checked again.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Account(AccountId),
    Phase(Phase),
    /// The blobs of one account.
    BlobsOf(AccountId),
}

/// Checks a store, and mends it where [`Options::mode`] says so. Ends when `events` is closed.
///
/// # Errors
/// [`FsckError`].
pub async fn fsck(
    parts: Parts,
    options: Options,
    events: mpsc::Sender<Event>,
) -> Result<Summary, FsckError> {
    let mut walk = Walk::new(parts, options, events);
    if let Some(account) = options.account {
        walk.progress.accounts_total = 1;
        run(&mut walk, Scope::Account(account), options.mode).await?;
        walk.progress.accounts_done = 1;
        walk.progress.phase = Phase::Blobs;
        run(&mut walk, Scope::BlobsOf(account), options.mode).await?;
    } else {
        walk.progress.accounts_total = account::count(&mut walk).await?;
        let mut after = None;
        while let Some(account) = account::next(&mut walk, after).await? {
            run(&mut walk, Scope::Account(account), options.mode).await?;
            walk.progress.accounts_done += 1;
            after = Some(account);
        }
        for phase in [Phase::Stray, Phase::Directory, Phase::References, Phase::Blobs] {
            walk.progress.phase = phase;
            run(&mut walk, Scope::Phase(phase), options.mode).await?;
        }
    }
    walk.tell_progress()?;
    walk.summary.emails = walk.progress.emails;
    walk.summary.bytes = walk.progress.bytes;
    walk.summary.accounts = walk.progress.accounts_done;
    Ok(walk.summary)
}

/// Checks; then mends and checks again, as long as that mends something.
async fn run(walk: &mut Walk, scope: Scope, mode: Mode) -> Result<(), FsckError> {
    walk.told.clear();
    check(walk, scope).await?;
    for _ in 0..crate::limits::FSCK_REPAIRS_MAX {
        let repairable = |damage: &Damage| damage.remedy() == Remedy::Repair;
        if mode == Mode::Check || !walk.found.iter().any(repairable) {
            break;
        }
        let found = std::mem::take(&mut walk.found);
        walk.told.extend(found.iter().cloned());
        let mended = mend::mend_all(walk, found.into_iter().filter(repairable).collect()).await?;
        check(walk, scope).await?;
        if mended == 0 {
            break;
        }
    }
    walk.summary.remaining += walk.found_count;
    Ok(())
}

async fn check(walk: &mut Walk, scope: Scope) -> Result<(), FsckError> {
    walk.found.clear();
    walk.found_count = 0;
    let emails = walk.progress.emails;
    let done = match scope {
        Scope::Account(account) => account::check(walk, account).await,
        Scope::Phase(Phase::Accounts) => Ok(()),
        Scope::Phase(Phase::Stray) => stray::check(walk).await,
        Scope::Phase(Phase::Directory) => directory::check(walk).await,
        Scope::Phase(Phase::References) => references::check(walk).await,
        Scope::Phase(Phase::Blobs) => blobs::check(walk, blobs::Whose::Everybody).await,
        Scope::BlobsOf(account) => blobs::check(walk, blobs::Whose::Account(account)).await,
    };
    if !walk.told.is_empty() {
        // A check after a repair looks at the same emails again.
        walk.progress.emails = emails;
    }
    match done {
        Err(FsckError::Store(error @ StoreError::Damaged { .. })) => {
            let account = match scope {
                Scope::Account(account) | Scope::BlobsOf(account) => Some(account),
                Scope::Phase(_) => None,
            };
            walk.find(Damage::Unreadable { account, detail: error.to_string() }).await
        }
        done => done,
    }
}
