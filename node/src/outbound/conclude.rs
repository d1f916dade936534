//! The transaction that follows a try: who has the message leaves the queue, who will never get it
//! leaves it with a report, who may get it later stays.

use std::{collections::BTreeMap, time::Duration};

use blob::{BlobError, BlobId};
use cluster::{
    ClusterError,
    work::{Completion, Held, zone},
};
use env::{
    Timestamp,
    probe::{self, Planted},
};
use kv::Transaction;
use mail::{AccountId, Interested, ModSeq, StoreError, directory::Address, keys::encode_over};
use prost::Message;
use smtp::Notify;

use super::{
    Parts,
    attempt::{Reports, Verdict},
    domain::{self, DomainTrouble},
    schedule::later,
    term::Term,
};
use crate::{
    deliver::{
        self, Fate, Report, Reporting, Returned, Status, Trouble,
        outbound::{
            self, Body, OutboundItem, OutboundRecipient, ReturnContent, SubmissionRecord, TlsWish,
        },
    },
    hex::hex,
    limits,
    metrics::Sent,
};

/// One domain's share of a message, and the message.
pub(super) struct Task {
    pub(super) item: OutboundItem,
    pub(super) id: [u8; 16],
    pub(super) record: SubmissionRecord,
    pub(super) blob: BlobId,
    /// Administrators hold the domain.
    pub(super) is_domain_held: bool,
}

/// Why it is not known what an item is about.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Another look finds the same.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Another look may find it.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } => Self::Damaged(error.to_string()),
            error => Self::Store(error),
        }
    }
}

/// An item as it lies in the queue.
pub(super) fn decode(item: &zone::Item) -> Result<OutboundItem, String> {
    OutboundItem::decode(item.payload.clone()).map_err(|error| format!("damaged item: {error}"))
}

pub(super) fn waits_for_domain(item: &zone::Item) -> bool {
    decode(item).is_ok_and(|item| item.waits_for_domain)
}

pub(super) fn priority(item: &zone::Item) -> i32 {
    decode(item).map_or(0, |item| item.priority)
}

/// Whether it leaves whatever TLS comes to.
pub(super) fn is_tls_optional(item: &zone::Item) -> bool {
    decode(item).is_ok_and(|item| item.tls_optional)
}

pub(super) fn of_trouble(trouble: &DomainTrouble) -> Trouble {
    Trouble::new(&trouble.status, trouble.reason.clone())
}

impl Task {
    /// Reads what an item is about; `None` where its submission is gone.
    pub(super) async fn read(
        parts: &Parts,
        held: &Held,
        item: &zone::Item,
    ) -> Result<Option<Self>, ReadError> {
        let damaged = |what: &str| ReadError::Damaged(what.to_owned());
        let mut decoded = decode(item).map_err(ReadError::Damaged)?;
        let id = <[u8; 16]>::try_from(&decoded.submission[..]);
        let id = id.map_err(|_| damaged("an item without a submission"))?;
        let id_here = &id;
        let read = |tx| async move {
            let record = outbound::submission(&tx, id_here).await?;
            Ok::<_, StoreError>((record, domain::is_held(&tx, &held.zone).await?))
        };
        let (record, is_domain_held) = parts.db.run(read).await?;
        let Some(record) = record else { return Ok(None) };
        let blob = BlobId::from_slice(&record.blob);
        let blob = blob.ok_or_else(|| damaged("a submission without a blob"))?;
        if decoded.received_ms == 0 {
            decoded.received_ms = record.received_ms;
        }
        Ok(Some(Self { item: decoded, id, record, blob, is_domain_held }))
    }

    fn received(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.item.received_ms)
    }
}

/// What is to be written.
struct Conclusion {
    /// What stays, and when it comes again.
    stays: Option<(OutboundItem, Timestamp)>,
    /// What the sender is told.
    told: Vec<Status>,
}

/// Whether reports are written with a conclusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Now,
    /// Who is to be told of stays in the queue, and is tried again.
    Later,
}

/// What becomes of a conclusion whose report cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreported {
    /// Who is to be told of stays in the queue, and is tried again.
    Waits,
    /// Nothing is written, and the caller is told.
    Fails,
}

/// Why a conclusion is not written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("a report cannot be written: {0}")]
    Report(String),
    #[error(transparent)]
    Commit(#[from] ClusterError),
}

/// What a message waits for that is not delivered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// The time at which it is tried again.
    ForItsTime,
    /// Its domain, which cannot be reached, and is tried for all that wait together.
    ForDomain,
}

/// Writes what came of a try. `waits` says for what the message waits where it stays, and `unreported`, what becomes of it where a report is due and cannot be written.
///
/// Goes on until it is written, or the epoch has ended: where it gave up before, servers would get again what
/// they have. That a heartbeat is late ends nothing: where the store is away for all, nobody takes over.
pub(super) async fn conclude(
    parts: &Parts,
    held: &Held,
    item: &zone::Item,
    task: Task,
    verdicts: Vec<Verdict>,
    waits: Waits,
    unreported: Unreported,
) -> Result<(), String> {
    for (recipient, verdict) in task.item.recipients.iter().zip(&verdicts) {
        log(&task, recipient, verdict);
        count(parts, &task, verdict);
    }
    let decided = |telling| decide(parts, &task, &verdicts, waits, telling);
    let written = match write_all(parts, held, item, &task, decided(Telling::Now)).await {
        Err(Unwritten::Report(reason)) if unreported == Unreported::Waits => {
            tracing::warn!(id = hex(&task.id), reason, "a report waits: it cannot be written");
            write_all(parts, held, item, &task, decided(Telling::Later)).await
        }
        written => written,
    };
    written.map_err(|error| error.to_string())
}

async fn write_all(
    parts: &Parts,
    held: &Held,
    item: &zone::Item,
    task: &Task,
    conclusion: Conclusion,
) -> Result<(), Unwritten> {
    let report = report(parts, task, conclusion.told).await.map_err(Unwritten::Report)?;
    let (stays, id, report) = (conclusion.stays.as_ref(), &task.id, report.as_ref());
    let committed = loop {
        let now = parts.env.wall();
        let commit = |tx| async move { write(&tx, held, item, id, stays, report, now).await };
        match parts.db.run_versioned(commit).await {
            Ok(committed) => break committed,
            Err(ClusterError::Store(StoreError::Kv(error))) if goes_by(held, &error) => {
                env::sometimes!("what came of a try was not noted at once");
                tracing::warn!(id = hex(id), %error, "what came of a try is not noted yet");
                parts.env.sleep(cluster::limits::STORE_PAUSE).await;
            }
            // Its bytes have waited for too long.
            Err(ClusterError::Store(error)) if report.is_some() => {
                return Err(Unwritten::Report(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    };
    held.completed(committed.versionstamp);
    if let Some(version) = committed.versionstamp.map(|stamp| ModSeq(stamp.version())) {
        for (account, interested) in committed.value {
            parts.announcer.changed(account, version, &interested);
        }
    }
    Ok(())
}

/// Whether trying again may help.
fn goes_by(held: &Held, error: &kv::Error) -> bool {
    if probe::planted(Planted::GiveUpConclusion) && !held.fence.is_live() {
        return false;
    }
    error.is_retryable() || error.is_store_away()
}

async fn write(
    tx: &Transaction,
    held: &Held,
    item: &zone::Item,
    id: &[u8; 16],
    stays: Option<&(OutboundItem, Timestamp)>,
    report: Option<&Report>,
    now: Timestamp,
) -> Result<BTreeMap<AccountId, Interested>, ClusterError> {
    let completion = match stays {
        Some((message, due)) => {
            let payload = encode_over(message, &item.payload);
            held.put_off(tx, item, *due, &payload).await?
        }
        None => held.complete(tx, item).await?,
    };
    if completion == Completion::Gone {
        return Ok(BTreeMap::new());
    }
    if stays.is_none() {
        outbound::domain_done(tx, id, &held.zone, now).await?;
    }
    match report {
        Some(report) => Ok(deliver::send_report(tx, report, now).await?),
        None => Ok(BTreeMap::new()),
    }
}

/// What follows from the verdicts, one for each recipient.
fn decide(
    parts: &Parts,
    task: &Task,
    verdicts: &[Verdict],
    waits: Waits,
    telling: Telling,
) -> Conclusion {
    let now = parts.env.wall();
    let term = Term::of(&parts.schedule, &task.item);
    let is_late = !task.item.is_late_told && term.late <= now;
    let moment = Moment { now, term, tells_late: is_late && telling == Telling::Now, telling };
    let (mut told, mut owed) = match telling {
        Telling::Now => (task.item.owed.iter().map(paid).collect(), Vec::new()),
        Telling::Later => (Vec::new(), task.item.owed.clone()),
    };
    let mut waiting = Vec::new();
    for (recipient, verdict) in task.item.recipients.iter().zip(verdicts) {
        if probe::planted(Planted::ForgetDelivered) && matches!(verdict, Verdict::Taken { .. }) {
            waiting.push(recipient.clone());
        }
        if let Some(trouble) = moment.waits(verdict)
            && !probe::planted(Planted::ForgetDeferred)
        {
            waiting.push(deferred(recipient, trouble));
        }
        let notify = recipient.notify.as_deref().and_then(Notify::parse).unwrap_or_default();
        match (telling, moment.fate(verdict.clone(), notify)) {
            (Telling::Now, Some(fate)) => told.push(status(recipient, fate)),
            (Telling::Later, Some(Fate::Relayed { remote })) => owed.push(owes(recipient, remote)),
            // Whoever is to be told of them is tried again, and told then.
            (Telling::Later, Some(_)) | (_, None) => {}
        }
    }
    let tries = task.item.tries.saturating_add(1);
    let stays = (!waiting.is_empty() || !owed.is_empty()).then(|| {
        let mut item = OutboundItem {
            recipients: waiting,
            owed,
            tries,
            is_late_told: task.item.is_late_told || moment.tells_late,
            waits_for_domain: waits == Waits::ForDomain,
            ..task.item.clone()
        };
        fit(&mut item);
        let due = match telling {
            Telling::Now if waits == Waits::ForDomain => term.turning(&item, now),
            Telling::Now => term.bound(parts.schedule.next(&parts.env, tries, term.begun), now),
            Telling::Later => later(now, limits::REPORT_RETRY),
        };
        (item, due)
    });
    Conclusion { stays, told }
}

fn status(recipient: &OutboundRecipient, fate: Fate) -> Status {
    let OutboundRecipient { address, original, .. } = recipient.clone();
    Status { recipient: address, original, fate }
}

/// A recipient that stays in the queue, with why.
fn deferred(recipient: &OutboundRecipient, trouble: &Trouble) -> OutboundRecipient {
    let last = outbound::Trouble {
        status: trouble.status.clone(),
        words: trouble.words.clone(),
        remote: trouble.remote.clone().unwrap_or_default(),
    };
    OutboundRecipient { last: Some(last), ..recipient.clone() }
}

/// What is kept of a recipient that has the message, until that can be told.
fn owes(recipient: &OutboundRecipient, remote: String) -> OutboundRecipient {
    let last = outbound::Trouble { status: "2.0.0".to_owned(), words: String::new(), remote };
    OutboundRecipient { last: Some(last), ..recipient.clone() }
}

/// What is told of such a one.
fn paid(owed: &OutboundRecipient) -> Status {
    let remote = owed.last.as_ref().map(|last| last.remote.clone()).unwrap_or_default();
    status(owed, Fate::Relayed { remote })
}

/// When verdicts are looked at, and whether anybody can be told.
struct Moment {
    now: Timestamp,
    term: Term,
    /// Senders are told now that their message is late.
    tells_late: bool,
    telling: Telling,
}

impl Moment {
    /// Why a recipient stays in the queue, if it does: it may get the message later, or its sender cannot
    /// be told yet that it will not.
    fn waits<'a>(&self, verdict: &'a Verdict) -> Option<&'a Trouble> {
        match verdict {
            Verdict::Taken { .. } => None,
            Verdict::Failed(trouble) => (self.telling == Telling::Later).then_some(trouble),
            Verdict::Deferred(trouble) => {
                let stays = self.telling == Telling::Later || self.now < self.term.end;
                stays.then_some(trouble)
            }
        }
    }

    /// What a recipient's sender is to be told.
    fn fate(&self, verdict: Verdict, notify: Notify) -> Option<Fate> {
        match verdict {
            Verdict::Taken { remote, reports } => {
                // RFC 3461 §5.2.2: a server that knows DSN tells of a success by itself.
                let tells = match reports {
                    Reports::Yes => false,
                    Reports::No => notify.success(),
                    // RFC 2852 §4.1.4.2: its sender hears that nobody watches the time from there on.
                    Reports::Untimed => notify != Notify::Never,
                };
                tells.then_some(Fate::Relayed { remote })
            }
            Verdict::Failed(trouble) => notify.failure().then_some(Fate::Failed(trouble)),
            Verdict::Deferred(trouble) if self.term.end <= self.now => {
                notify.failure().then(|| Fate::Failed(expired(trouble)))
            }
            Verdict::Deferred(trouble) => {
                let trouble = match self.term.is_past_wish(self.now) {
                    // RFC 2852 §4.1.3: such a report has this status.
                    true => Trouble { status: "4.4.7".to_owned(), ..trouble },
                    false => trouble,
                };
                let until = self.term.end;
                let trouble = Trouble { status: passing(&trouble.status), ..trouble };
                (self.tells_late && notify.delay()).then_some(Fate::Delayed { trouble, until })
            }
        }
    }
}

/// RFC 3464 §2.3.3: what is only delayed has a status of class 4, though the server said 5 to the session.
fn passing(status: &str) -> String {
    status.strip_prefix('5').map_or_else(|| status.to_owned(), |rest| format!("4{rest}"))
}

/// Makes an item one value of the store: where many were refused with many words, what the next report
/// could have said of the last try is cut. Addresses alone fit ([`limits::REMOTE_RECIPIENT_BYTES_MAX`]).
fn fit(item: &mut OutboundItem) {
    let whole = item.encoded_len();
    if whole <= limits::OUTBOUND_ITEM_BYTES_MAX {
        return;
    }
    let named = item.recipients.iter_mut().chain(&mut item.owed);
    let mut lasts: Vec<_> = named.filter_map(|it| it.last.as_mut()).collect();
    let said: usize = lasts.iter().map(|last| last.words.len() + last.remote.len()).sum();
    let room = limits::OUTBOUND_ITEM_BYTES_MAX.saturating_sub(whole - said);
    let share = room / lasts.len().max(1);
    for last in &mut lasts {
        if last.words.len() + last.remote.len() > share {
            last.remote.clear();
            last.words.truncate(last.words.floor_char_boundary(share));
        }
    }
}

/// RFC 3463 §3.5: what was tried in vain until its end. The last server's words stay.
fn expired(trouble: Trouble) -> Trouble {
    let words = format!("given up after many tries, the last: {}", trouble.words);
    Trouble { status: "5.4.7".to_owned(), words, ..trouble }
}

fn log(task: &Task, recipient: &OutboundRecipient, verdict: &Verdict) {
    let (outcome, trouble, remote) = match verdict {
        Verdict::Taken { remote, .. } => ("sent", None, Some(remote.as_str())),
        Verdict::Failed(trouble) => ("failed", Some(trouble), trouble.remote.as_deref()),
        Verdict::Deferred(trouble) => ("deferred", Some(trouble), trouble.remote.as_deref()),
    };
    tracing::info!(
        id = hex(&task.id),
        sender = task.record.sender,
        recipient = recipient.address,
        outcome,
        remote,
        status = trouble.map(|trouble| trouble.status.as_str()),
        reason = trouble.map(|trouble| trouble.words.as_str()),
        tries = task.item.tries + 1,
        "outbound"
    );
}

fn count(parts: &Parts, task: &Task, verdict: &Verdict) {
    let outcome = match verdict {
        Verdict::Taken { .. } => Sent::Sent,
        Verdict::Failed(_) => Sent::Failed,
        Verdict::Deferred(_) => Sent::Deferred,
    };
    parts.metrics.outbound(outcome);
    if outcome == Sent::Sent {
        let since = Term::of(&parts.schedule, &task.item).begun;
        let took = parts.env.wall().unix_ms().saturating_sub(since.unix_ms());
        parts.metrics.outbound_seconds(Duration::from_millis(u64::try_from(took).unwrap_or(0)));
    }
}

/// Writes the report, where there is anything to tell and anybody to tell it to.
async fn report(parts: &Parts, task: &Task, told: Vec<Status>) -> Result<Option<Report>, String> {
    if told.is_empty() {
        return Ok(None);
    }
    let Some(reporting) = reporting(parts, task, &told).await? else { return Ok(None) };
    let Parts { env, blobs, signing, .. } = parts;
    let report = deliver::write_report(env, blobs, signing, &reporting, told).await;
    report.map(Some).map_err(|error| error.to_string())
}

/// Who is told of a message's recipients, and with what of it; `None` where nobody is (RFC 5321 §4.5.5).
pub(super) async fn reporting(
    parts: &Parts,
    task: &Task,
    told: &[Status],
) -> Result<Option<Reporting>, String> {
    if task.record.sender.is_empty() {
        return Ok(None);
    }
    let to = parts.signing.reports_to(&task.record.sender).await;
    let to = to.map_err(|error| error.to_string())?;
    let Ok(sender) = Address::parse(&to) else { return Ok(None) };
    Ok(Some(Reporting {
        sender,
        hostname: parts.hostname.clone(),
        envelope_id: task.record.envelope_id.clone(),
        arrived_at: task.received(),
        returned: returned(parts, task, told).await?,
        deliver_by: (task.record.deliver_by_mode != 0)
            .then(|| Timestamp::from_unix_ms(task.record.deliver_by_ms)),
        tls: task.record.tls(),
    }))
}

/// RFC 3461 §4.3: the whole message where it is asked for and something failed, else its header. Of a binary
/// one its header: in a report, which goes by 8BITMIME at most, it would have to be another message.
async fn returned(parts: &Parts, task: &Task, told: &[Status]) -> Result<Returned, String> {
    let has_failed = told.iter().any(|status| matches!(status.fate, Fate::Failed(_)));
    // RFC 8689 §5: the report may go where the message may not.
    let asks_for_all = task.record.returns() == ReturnContent::Full;
    let wants_all = asks_for_all && has_failed && task.record.tls() != TlsWish::Required;
    let length = task.record.size.saturating_sub(task.record.skip);
    let is_binary = task.record.body() == Body::BinaryMime;
    let is_whole = wants_all && !is_binary && length <= limits::RETURNED_BYTES_MAX;
    let most = if is_whole { length } else { length.min(limits::RETURNED_HEADER_BYTES_MAX) };
    let range = task.record.skip..task.record.skip + most;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let bytes = match parts.blobs.read_to_vec(task.blob, range, most).await {
        Ok(bytes) => bytes,
        // What was read wrongly once may be read well later; at the end its sender is to hear that at least.
        Err(BlobError::Missing(_) | BlobError::Damaged(_))
            if Term::of(&parts.schedule, &task.item).end <= parts.env.wall() =>
        {
            return Ok(Returned::Header(Vec::new()));
        }
        Err(error) => return Err(error.to_string()),
    };
    if is_whole {
        return Ok(Returned::Whole(bytes));
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 2);
    // A header that is cut off ends with a whole line.
    let end = end.or_else(|| bytes.windows(2).rposition(|two| two == b"\r\n").map(|at| at + 2));
    let header = bytes[..end.unwrap_or(0)].to_vec();
    match wants_all && is_binary {
        true => Ok(Returned::HeaderOfBinary(header)),
        false => Ok(Returned::Header(header)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(recipients: usize, words: usize) -> OutboundItem {
        let recipient = |n| OutboundRecipient {
            address: format!("recipient-{n:04}@a-domain-of-many.example"),
            last: Some(outbound::Trouble {
                status: "5.255.255".to_owned(),
                words: "ä".repeat(words / 2),
                remote: "mx.a-domain-of-many.example".to_owned(),
            }),
            ..OutboundRecipient::default()
        };
        OutboundItem { recipients: (0..recipients).map(recipient).collect(), ..Default::default() }
    }

    #[test]
    fn an_item_whose_servers_talk_much_is_one_value() {
        for (recipients, words) in [(1, 200_000), (9, 20_001), (1000, 2_000), (1000, 200)] {
            let mut item = item(recipients, words);
            fit(&mut item);
            let length = item.encoded_len();
            assert!(length <= limits::OUTBOUND_ITEM_BYTES_MAX, "{recipients}: {length}");
            assert_eq!(item.recipients.len(), recipients);
            for recipient in &item.recipients {
                let last = recipient.last.as_ref().unwrap();
                assert_eq!(last.status, "5.255.255");
                assert!(last.words.len() >= 20, "{}", last.words);
            }
        }
    }

    #[test]
    fn what_is_owed_fits_too() {
        let mut whole = item(1000, 2_000);
        let owed = whole.recipients.split_off(500);
        whole.owed = owed.iter().map(|it| owes(it, "mx.example.net".repeat(10))).collect();
        fit(&mut whole);
        let length = whole.encoded_len();
        assert!(length <= limits::OUTBOUND_ITEM_BYTES_MAX, "{length}");
        assert_eq!(paid(&whole.owed[0]).recipient, owed[0].address);
    }

    #[test]
    fn an_item_that_fits_keeps_every_word() {
        let mut item = item(100, 200);
        let whole = item.clone();
        fit(&mut item);
        assert_eq!(item, whole);
    }
}
