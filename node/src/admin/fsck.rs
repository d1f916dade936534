//! `rookery fsck`: the store's check ([`mail::fsck`]) and the outbound queue's, told in lines.

#[cfg(test)]
mod bare;
mod cluster;
mod queue;
mod signing;

use std::{fmt, sync::Arc, time::Duration};

use blob::{BlobStore, audit::Depth};
use env::Env;
use kv::Transaction;
use mail::{
    AccountId, StoreError,
    directory::{self},
    fsck::{Damage, Event, FsckError, Mode, Options, Owners, Parts, Phase, Remedy, Speed},
    keys::directory::Target,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Admin, AdminError};
use crate::{
    deliver::outbound,
    limits::{FSCK_LINES_MAX, FSCK_PROGRESS_PERIOD},
    names,
};

/// What to check, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Only this account's data, and none of what is between accounts.
    #[serde(default)]
    pub account: Option<String>,
    /// Mend what is safe to mend.
    #[serde(default)]
    pub repair: bool,
    /// Read every message's bytes, too, and compare them with their hash.
    #[serde(default)]
    pub bytes: bool,
    /// The share of its time that the check works, 1 to 100 percent.
    #[serde(default)]
    pub speed: Option<u8>,
}

/// What a check tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// How far it is.
    Progress {
        /// What it is at.
        phase: String,
        /// Accounts that are done.
        accounts_done: u64,
        /// Accounts that there were at the beginning.
        accounts_total: u64,
        /// Emails looked at.
        emails: u64,
        /// Blobs and references looked at.
        blobs: u64,
        /// Bytes of blobs read; 0 where they are not asked for.
        #[serde(default)]
        bytes: u64,
    },
    /// Something does not hold.
    Finding(Finding),
    /// It has been mended.
    Mended(Finding),
    /// It was to be mended, and was not.
    NotMended {
        /// What.
        #[serde(flatten)]
        finding: Finding,
        /// Why.
        reason: String,
    },
    /// Something could not be checked.
    Unchecked {
        /// Its account, where it is one's.
        account: Option<u64>,
        /// What, and why.
        detail: String,
    },
    /// The check ended before its end.
    Stopped {
        /// Why.
        reason: String,
    },
    /// The check is over.
    Done(Summary),
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// For programs: never changes its meaning.
    pub code: String,
    /// The account's number, where it is one's.
    pub account: Option<u64>,
    /// For people: may change.
    pub detail: String,
    /// What may be done about it.
    pub remedy: Cure,
}

/// What may be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cure {
    /// A repair mends it.
    Repair,
    /// It needs a person.
    Person,
    /// It is no damage.
    None,
}

/// What came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Things that did not hold.
    pub findings: u64,
    /// Of them mended.
    pub mended: u64,
    /// What does not hold at the end.
    pub remaining: u64,
    /// Things that could not be checked.
    pub unchecked: u64,
    /// Things that are no damage and worth knowing.
    pub notes: u64,
    /// Accounts checked.
    pub accounts: u64,
    /// Emails checked.
    pub emails: u64,
    /// Bytes of messages read; 0 where they are not asked for.
    #[serde(default)]
    pub bytes: u64,
}

/// What checks a server's store, one check at a time.
#[derive(Clone)]
pub struct Checker {
    blobs: BlobStore,
    free: Arc<Semaphore>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

/// A check that may run. Dropping it lets another begin.
pub struct Check {
    parts: Parts,
    options: Options,
    _place: OwnedSemaphorePermit,
}

impl Checker {
    /// One for a store with these blobs.
    pub fn new(blobs: BlobStore) -> Self {
        Self { blobs, free: Arc::new(Semaphore::new(1)) }
    }

    /// The blobs of the store that it checks.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Prepares a check.
    ///
    /// # Errors
    /// [`AdminError::Checking`], [`AdminError::Missing`] for the account, [`AdminError::Name`],
    /// [`AdminError::Speed`].
    pub async fn begin(&self, admin: &Admin, request: &Request) -> Result<Check, AdminError> {
        let place = Arc::clone(&self.free).try_acquire_owned().map_err(|_| AdminError::Checking)?;
        let account = match &request.account {
            Some(name) => Some(account(admin, name).await?),
            None => None,
        };
        let speed = match request.speed {
            Some(percent) => Speed::new(percent).ok_or(AdminError::Speed)?,
            None => Speed::default(),
        };
        let mode = if request.repair { Mode::Repair } else { Mode::Check };
        let owners = Owners {
            submission_key: outbound::submission_key,
            submission_blob: outbound::submission_blob,
        };
        let parts = Parts {
            db: admin.db.clone(),
            blobs: self.blobs.clone(),
            env: admin.env.clone(),
            owners,
        };
        let depth = if request.bytes { Depth::Bytes } else { Depth::Names };
        Ok(Check { parts, options: Options { account, mode, speed, depth }, _place: place })
    }

    #[cfg(test)]
    pub(crate) fn hold(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.free).try_acquire_owned().expect("no check runs")
    }

    /// Completes once no check runs.
    #[cfg(test)]
    pub(crate) async fn free(&self) {
        drop(self.free.acquire().await.expect("nobody closes it"));
    }
}

/// The account of that name.
async fn account(admin: &Admin, name: &str) -> Result<AccountId, AdminError> {
    let address = &names::address(name)?;
    let target =
        admin.run(async |tx: Transaction, _| Ok(directory::record(&tx, address).await?)).await?;
    match target {
        Some(Target::Account(id)) => Ok(AccountId(id)),
        Some(_) => Err(AdminError::OtherKind(address.to_string(), "an account")),
        None => Err(AdminError::Missing(address.to_string())),
    }
}

impl Check {
    /// Checks, and tells what it finds. Ends early when `lines` is closed or nobody reads them.
    /// Its last line is [`Line::Done`] or [`Line::Stopped`].
    pub async fn run(self, lines: &mpsc::Sender<Line>) {
        let teller = Teller { lines, env: &self.parts.env };
        let last = match self.check(&teller).await {
            Ok(summary) => Line::Done(summary),
            Err(error) => {
                tracing::warn!(%error, "a check of the store ended early");
                Line::Stopped { reason: error.to_string() }
            }
        };
        // Whoever listened has gone.
        let _unheard = teller.tell(last).await;
    }

    async fn check(&self, teller: &Teller<'_>) -> Result<Summary, FsckError> {
        let (events, mut told) = mpsc::channel(FSCK_LINES_MAX);
        let forward = async move {
            let mut last = None;
            while let Some(event) = told.recv().await {
                if let Some(line) = line(event, &mut last, teller.env) {
                    teller.tell(line).await?;
                }
            }
            Ok::<_, FsckError>(())
        };
        let check = Box::pin(mail::fsck::fsck(self.parts.clone(), self.options, events));
        // Where nobody listens any more, the first ends, and the second with it.
        let (forwarded, checked) = tokio::join!(forward, check);
        forwarded?;
        let done = checked?;
        let mut summary = Summary {
            findings: done.findings,
            mended: done.mended,
            remaining: done.remaining,
            unchecked: done.busy,
            notes: done.notes,
            accounts: done.accounts,
            emails: done.emails,
            bytes: done.bytes,
        };
        if self.options.account.is_none() {
            queue::check(&self.parts, self.options, teller, &mut summary).await?;
            cluster::check(&self.parts, self.options, teller, &mut summary).await?;
            signing::check(&self.parts, self.options, teller, &mut summary).await?;
        }
        Ok(summary)
    }
}

/// Where lines go.
struct Teller<'a> {
    lines: &'a mpsc::Sender<Line>,
    env: &'a Env,
}

impl Teller<'_> {
    async fn tell(&self, line: Line) -> Result<(), FsckError> {
        let patience = Duration::from_millis(mail::limits::FSCK_LISTENER_MS);
        match self.env.timeout(patience, self.lines.send(line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(FsckError::Stopped),
        }
    }
}

/// An event as a line; `None` for a progress so soon after the last.
fn line(event: Event, last: &mut Option<(Phase, env::Monotonic)>, env: &Env) -> Option<Line> {
    Some(match event {
        Event::Progress(progress) => {
            let now = env.monotonic();
            let is_soon = |(phase, at): (Phase, env::Monotonic)| {
                phase == progress.phase && now.saturating_since(at) < FSCK_PROGRESS_PERIOD
            };
            if last.is_some_and(is_soon) {
                return None;
            }
            *last = Some((progress.phase, now));
            Line::Progress {
                phase: progress.phase.name().to_owned(),
                accounts_done: progress.accounts_done,
                accounts_total: progress.accounts_total,
                emails: progress.emails,
                blobs: progress.blobs,
                bytes: progress.bytes,
            }
        }
        Event::Found(damage) => Line::Finding(finding(&damage)),
        Event::Mended(damage) => Line::Mended(finding(&damage)),
        Event::NotMended(damage, reason) => Line::NotMended { finding: finding(&damage), reason },
        Event::Busy(account) => Line::Unchecked {
            account: Some(account.0),
            detail: "the account changes too fast for its counters to be checked".to_owned(),
        },
    })
}

fn finding(damage: &Damage) -> Finding {
    Finding {
        code: damage.code().to_owned(),
        account: damage.account().map(|account| account.0),
        detail: damage.to_string(),
        remedy: match damage.remedy() {
            Remedy::Repair => Cure::Repair,
            Remedy::Person => Cure::Person,
            Remedy::Nothing => Cure::None,
        },
    }
}

/// What the queue's steps fail with.
fn store(error: kv::Error) -> StoreError {
    error.into()
}

/// One transaction, and the rest that the check's speed asks for.
async fn step<T, F, Fut>(parts: &Parts, speed: Speed, body: F) -> Result<T, FsckError>
where
    F: FnMut(Transaction) -> Fut + Send,
    Fut: Future<Output = Result<T, StoreError>> + Send,
{
    let begun = parts.env.monotonic();
    let done = parts.db.run(body).await?;
    let took = parts.env.monotonic().saturating_since(begun);
    parts.env.sleep(speed.rest_after(took)).await;
    Ok(done)
}
