//! One transaction for a batch of requests.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use blob::{BlobId, BlobStore};
use env::{
    Env,
    probe::{self, Planted},
};
use kv::{AsKvError, Committed, Prefetch, Transaction};
use mail::{
    AccountId, AccountUnit, Appended, Interested, KeywordSet, MailboxId, ModSeq, NewEmail,
    OperationId, Role, StoreError,
    directory::{self, ResolveError},
};

use super::{
    Append, DeliverError, Delivered, OnFailure, Refusal, Request, Target,
    combine::{Shared, Waiting},
    outbound::{self, Body, RemoteRecipient, ReturnContent, Submission},
    report::{self, Fate, Reporting, Status, Trouble},
};
use crate::{patience::blob_step, signing::Signing};

/// How often a request may change what it must report before it is put off.
const REPORT_ATTEMPTS_MAX: usize = 4;

/// A report that goes out with its request.
pub(crate) struct Report {
    about: Vec<Status>,
    email: Arc<NewEmail>,
    blob: BlobId,
    /// Who sends it; empty for the null sender.
    sender: String,
    to: mail::directory::Address,
    operation: OperationId,
    submission: [u8; 16],
    written_at: env::Timestamp,
    /// Bytes of `Return-Path`.
    skip: u64,
    /// What its content needs of the servers that pass it on.
    body: Body,
    /// Its signatures.
    prepend: Vec<u8>,
    tls: outbound::TlsWish,
}

/// Why the transaction has to be given up and run again with something added.
enum Abort {
    /// This request needs this report.
    NeedsReport(usize, Vec<Status>),
    /// It was to be tried once, and that was not enough.
    NotAtOnce,
    Store(StoreError),
}

impl From<StoreError> for Abort {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<kv::Error> for Abort {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl AsKvError for Abort {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Store(error) => error.as_kv_error(),
            Self::NeedsReport(..) | Self::NotAtOnce => None,
        }
    }
}

/// What one run of the transaction found for one request.
type Results = Vec<Result<Appended, Refusal>>;

/// What one run of the transaction did: for each request, and to whom it is to be announced.
type Transacted = (Vec<Results>, BTreeMap<AccountId, Interested>);

/// How often a batch is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tries {
    /// Once; what did not commit is given back.
    One,
    /// Until there is an answer for everybody.
    Many,
}

/// Runs a batch, announces what it changed and answers everybody in it but those whom it gives
/// back.
pub(super) async fn run(shared: &Shared, mut batch: Vec<Waiting>, tries: Tries) -> Vec<Waiting> {
    match run_together(shared, &mut batch, tries).await {
        Ok(delivered) => {
            for (waiting, result) in batch.into_iter().zip(delivered) {
                // Whoever does not listen any more has hung up; the message is delivered.
                let _hung_up = waiting.answer.send(Ok(result));
            }
            Vec::new()
        }
        // Nobody fares better alone where the store is away, and each would wait in turn.
        Err(error) if error.is_store_away() => {
            for waiting in batch {
                answer_failure(waiting, error.clone());
            }
            Vec::new()
        }
        Err(_) if tries == Tries::One => batch,
        Err(error) => {
            if batch.len() == 1 {
                answer_failure(batch.remove(0), error);
                return Vec::new();
            }
            // One request's trouble is not the others': each by itself.
            for mut waiting in batch {
                match run_together(shared, std::slice::from_mut(&mut waiting), tries).await {
                    Ok(mut delivered) => {
                        let _hung_up = waiting.answer.send(Ok(delivered.remove(0)));
                    }
                    Err(error) => answer_failure(waiting, error),
                }
            }
            Vec::new()
        }
    }
}

fn answer_failure(waiting: Waiting, error: DeliverError) {
    tracing::warn!(%error, "delivery failed");
    let _hung_up = waiting.answer.send(Err(error));
}

async fn run_together(
    shared: &Shared,
    batch: &mut [Waiting],
    tries: Tries,
) -> Result<Vec<Delivered>, DeliverError> {
    let now = shared.env.wall();
    let busy = || DeliverError::Store(Arc::new(StoreError::Kv(kv::Error::Conflict)));
    for _ in 0..REPORT_ATTEMPTS_MAX * batch.len() {
        let waiting = &*batch;
        let mut is_first = true;
        let run = shared.db.run_versioned(|tx| {
            let may_run = std::mem::take(&mut is_first) || tries == Tries::Many;
            async move {
                if !may_run {
                    return Err(Abort::NotAtOnce);
                }
                transact(&tx, waiting, now).await
            }
        });
        match run.await {
            Ok(Committed { value, versionstamp, .. }) => {
                let modseq = versionstamp.map(|stamp| ModSeq(stamp.version()));
                let (results, changed) = value;
                for (account, interested) in changed {
                    if let Some(version) = modseq {
                        shared.announcer.changed(account, version, &interested);
                    }
                }
                let delivered = |appends| Delivered { appends, modseq };
                return Ok(results.into_iter().map(delivered).collect());
            }
            Err(Abort::NeedsReport(index, about)) => {
                let OnFailure::Report(Some(reporting)) = &batch[index].request.on_failure else {
                    unreachable!("only requests with a sender ask for a report");
                };
                let Shared { env, blobs, signing, .. } = shared;
                let report = write_report(env, blobs, signing, reporting, about).await?;
                batch[index].report = Some(report);
            }
            Err(Abort::NotAtOnce) => return Err(busy()),
            Err(Abort::Store(error)) => return Err(DeliverError::Store(Arc::new(error))),
        }
    }
    Err(busy())
}

async fn transact(
    tx: &Transaction,
    batch: &[Waiting],
    now: env::Timestamp,
) -> Result<Transacted, Abort> {
    let mut writing = Writing { tx, now, units: BTreeMap::new(), inboxes: BTreeMap::new() };
    writing.read_ahead(batch).await?;
    let mut results = Vec::with_capacity(batch.len());
    for (index, Waiting { request, report, .. }) in batch.iter().enumerate() {
        let mut appends = Vec::with_capacity(request.appends.len());
        for append in &request.appends {
            appends.push(writing.append(append).await?);
        }
        let about = to_report(request, &appends);
        if let OnFailure::Report(Some(_)) = &request.on_failure
            && !about.is_empty()
            && !probe::planted(Planted::DropReport)
            && somebody_is_served(request, &appends)
        {
            match report {
                Some(report) if report.about == about => {
                    writing.send_report(report).await?;
                }
                _ => return Err(Abort::NeedsReport(index, about)),
            }
        }
        if let Some(submission) = &request.outbound {
            outbound::enqueue(tx, submission).await?;
        }
        results.push(appends);
    }
    let mut changed = BTreeMap::new();
    for (account, unit) in writing.units {
        changed.insert(account, unit.finish().await?);
    }
    Ok((results, changed))
}

/// One run of a batch's transaction.
struct Writing<'a> {
    tx: &'a Transaction,
    now: env::Timestamp,
    units: BTreeMap<AccountId, AccountUnit>,
    inboxes: BTreeMap<AccountId, Option<MailboxId>>,
}

impl Writing<'_> {
    /// Asks for what the appends will read in two round trips: the second is for the mailboxes,
    /// which the first finds.
    async fn read_ahead(&mut self, batch: &[Waiting]) -> Result<(), Abort> {
        let appends = || batch.iter().flat_map(|waiting| &waiting.request.appends);
        let now = self.now;
        let list = |ahead: &mut Prefetch| {
            for append in appends() {
                if append.target == Target::Inbox {
                    mail::inbox_ahead(ahead, append.account);
                }
                mail::append_ahead(ahead, append.account, &append.email, append.operation, now);
            }
        };
        self.tx.prefetch(list).await?;
        let mut mailboxes = BTreeSet::new();
        for append in appends() {
            let mailbox = self.mailbox_of(append).await?;
            mailboxes.extend(mailbox.map(|mailbox| (append.account, mailbox)));
        }
        let list = |ahead: &mut Prefetch| {
            for (account, mailbox) in mailboxes {
                mail::append_ahead_to(ahead, account, mailbox);
            }
        };
        Ok(self.tx.prefetch(list).await?)
    }

    async fn mailbox_of(&mut self, append: &Append) -> Result<Option<MailboxId>, StoreError> {
        Ok(match (append.target, self.inboxes.entry(append.account)) {
            (Target::Mailbox(mailbox), _) => Some(mailbox),
            (Target::Junk, _) => self.junk_of(append.account).await?,
            (Target::Inbox, Entry::Occupied(known)) => *known.get(),
            (Target::Inbox, Entry::Vacant(new)) => {
                *new.insert(mail::inbox(self.tx, append.account).await?)
            }
        })
    }

    /// By its role, for people rename mailboxes. Few messages go there, so that it costs a look at all of
    /// an account's mailboxes is borne.
    async fn junk_of(&self, account: AccountId) -> Result<Option<MailboxId>, StoreError> {
        let tree = mail::mailbox_tree(self.tx, account).await?;
        let found = tree.by_role(Role::Junk).or_else(|| tree.by_role(Role::Inbox));
        Ok(found.map(|mailbox| mailbox.id))
    }

    async fn append(&mut self, append: &Append) -> Result<Result<Appended, Refusal>, Abort> {
        let Some(mailbox) = self.mailbox_of(append).await? else {
            return Ok(Err(Refusal::NoMailbox));
        };
        let unit = self
            .units
            .entry(append.account)
            .or_insert_with(|| AccountUnit::new(self.tx, append.account, self.now));
        match mail::append(unit, mailbox, &append.email, append.operation).await {
            Ok(appended) => Ok(Ok(appended)),
            // The account was removed since its address was looked up.
            Err(mail::AppendError::Store(StoreError::NoAccount(_))) => Ok(Err(Refusal::NoMailbox)),
            Err(error) => Ok(Err(Refusal::of(error)?)),
        }
    }

    /// Delivers or enqueues a report. Where it cannot be delivered there is nobody left to tell:
    /// a report about a report is never sent (RFC 5321 §6.1).
    async fn send_report(&mut self, report: &Report) -> Result<(), Abort> {
        env::sometimes!("reported a failed recipient to the sender");
        let (accounts, remote) = match directory::resolve(self.tx, &report.to).await {
            Ok(expansion) => (expansion.accounts, expansion.remote),
            Err(ResolveError::NotLocal(_)) => {
                (BTreeSet::new(), BTreeSet::from([report.to.to_string()]))
            }
            Err(ResolveError::Unknown(_) | ResolveError::TooMany(_)) => return Ok(()),
            Err(ResolveError::Store(error)) => return Err(error.into()),
        };
        for account in accounts {
            let append = Append {
                account,
                target: Target::Inbox,
                email: Arc::clone(&report.email),
                operation: report.operation,
                recipients: Vec::new(),
                tell_success: Vec::new(),
            };
            // A refusal here is the end of the line.
            let _refused = self.append(&append).await?;
        }
        if let Some(submission) = report.submission_to(&remote) {
            outbound::enqueue(self.tx, &submission).await?;
        }
        Ok(())
    }
}

/// What the sender is to be told: every failure, and each success that was asked for.
fn to_report(request: &Request, results: &Results) -> Vec<Status> {
    let told = request.appends.iter().zip(results).flat_map(|(append, result)| {
        let (recipients, fate) = match result {
            Ok(_) => (&append.tell_success, Fate::Delivered),
            Err(refusal) => (&append.recipients, Fate::Failed(Trouble::of(refusal))),
        };
        recipients.iter().map(move |recipient| Status {
            recipient: recipient.clone(),
            original: None,
            fate: fate.clone(),
        })
    });
    told.collect()
}

/// Whether the message goes to anybody: if not, the refusal is the answer, and no report is due.
fn somebody_is_served(request: &Request, results: &Results) -> bool {
    request.outbound.is_some() || results.iter().any(Result::is_ok)
}

/// Sends a report in a transaction that does more. Returns whose mailboxes have it.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn send_report(
    tx: &Transaction,
    report: &Report,
    now: env::Timestamp,
) -> Result<BTreeMap<AccountId, Interested>, StoreError> {
    let mut writing = Writing { tx, now, units: BTreeMap::new(), inboxes: BTreeMap::new() };
    match writing.send_report(report).await {
        Ok(()) => {}
        Err(Abort::Store(error)) => return Err(error),
        Err(Abort::NeedsReport(..) | Abort::NotAtOnce) => {
            unreachable!("only a batch of requests is given up for these")
        }
    }
    let mut changed = BTreeMap::new();
    for (account, unit) in writing.units {
        changed.insert(account, unit.finish().await?);
    }
    Ok(changed)
}

/// Puts the report's bytes; what it says was found before the transaction that sends it.
pub(crate) async fn write_report(
    env: &Env,
    blobs: &BlobStore,
    signing: &Signing,
    reporting: &Reporting,
    about: Vec<Status>,
) -> Result<Report, DeliverError> {
    let now = env.wall();
    let unique = u128::from_le_bytes(env.random_array());
    let bytes = report::build(reporting, &about, now, unique);
    let (to, host) = (reporting.sender.clone(), &*reporting.hostname);
    let mut report = put(env, blobs, signing, host, &bytes, report::RETURN_PATH.len(), to).await?;
    report.about = about;
    if reporting.tls == outbound::TlsWish::Required {
        // RFC 8689 §5: a report tells of its message, and is protected like it.
        report.tls = outbound::TlsWish::Required;
    }
    Ok(report)
}

/// Puts a message of our own, which nobody reports about: [`report::RETURN_PATH`] and its content. Its
/// author is at `host`.
///
/// # Errors
/// [`DeliverError::Blob`].
pub(crate) async fn write_generated(
    env: &Env,
    blobs: &BlobStore,
    signing: &Signing,
    host: &str,
    to: directory::Address,
    bytes: &[u8],
) -> Result<Report, DeliverError> {
    put(env, blobs, signing, host, bytes, report::RETURN_PATH.len(), to).await
}

/// Puts a message of our own, to be sent as reports are: nobody is told of its failure. It comes without a
/// `Return-Path`.
///
/// # Errors
/// [`DeliverError::Blob`].
pub(crate) async fn write_message(
    env: &Env,
    blobs: &BlobStore,
    signing: &Signing,
    sender: &directory::Address,
    to: directory::Address,
    message: &[u8],
) -> Result<Report, DeliverError> {
    let return_path = format!("Return-Path: <{sender}>\r\n");
    let bytes = [return_path.as_bytes(), message].concat();
    let host = sender.domain();
    let mut report = put(env, blobs, signing, host, &bytes, return_path.len(), to).await?;
    report.sender = sender.to_string();
    Ok(report)
}

/// Puts a message whose author is at `host`, and which begins with `skip` bytes of `Return-Path`.
async fn put(
    env: &Env,
    blobs: &BlobStore,
    signing: &Signing,
    host: &str,
    bytes: &[u8],
    skip: usize,
    to: directory::Address,
) -> Result<Report, DeliverError> {
    let now = env.wall();
    let prepend = signing.own(bytes.get(skip..).unwrap_or_default(), host).await;
    let blob = blob_step(env, blobs.put(bytes)).await;
    let blob = blob.map_err(|error| DeliverError::Blob(Arc::new(error)))?;
    let mut scanner = message::Scanner::new(message::Limits::default());
    scanner.push(bytes);
    let scanned = scanner.finish();
    Ok(Report {
        about: Vec::new(),
        email: Arc::new(NewEmail::from_scan(blob, &scanned, now, KeywordSet::default())),
        blob,
        sender: String::new(),
        to,
        operation: OperationId::random(env),
        submission: env.random_array(),
        written_at: now,
        skip: skip as u64,
        prepend,
        body: Body::EightBitMime.needed(scanned.text_facts.has_8bit),
        tls: outbound::TlsWish::Usual,
    })
}

impl Report {
    /// The same, which leaves whatever TLS comes to.
    pub(crate) fn despite_tls(self) -> Self {
        Self { tls: outbound::TlsWish::Optional, ..self }
    }

    /// What goes to other servers.
    fn submission_to(&self, remote: &BTreeSet<String>) -> Option<Submission> {
        let recipients: Vec<RemoteRecipient> = remote
            .iter()
            .filter_map(|address| directory::Address::parse(address).ok())
            .map(|address| RemoteRecipient {
                written: address.to_string(),
                address,
                // RFC 3464 §2: a report that fails is not reported.
                notify: Some("NEVER".to_owned()),
                original: None,
            })
            .collect();
        (!recipients.is_empty()).then(|| Submission {
            id: self.submission,
            blob: self.blob,
            size: self.email.size,
            skip: self.skip,
            sender: self.sender.clone(),
            account: None,
            received_at: self.written_at,
            envelope_id: None,
            return_content: ReturnContent::Headers,
            body: self.body,
            utf8: false,
            handling: outbound::Handling { tls: self.tls, ..outbound::Handling::default() },
            prepend: self.prepend.clone(),
            recipients,
        })
    }
}
