//! The transaction that follows a try: who has the message leaves the queue, who will never get it
//! leaves it with a report, who may get it later stays.

use std::collections::BTreeMap;

use blob::BlobId;
use cluster::{
    ClusterError,
    work::{Completion, Held, zone},
};
use env::Timestamp;
use kv::Transaction;
use mail::{AccountId, Interested, ModSeq, directory::Address, keys::encode_over};
use prost::Message;
use smtp::Notify;

use super::{
    Parts,
    attempt::{Reports, Verdict},
    domain::DomainTrouble,
};
use crate::{
    deliver::{
        self, Fate, Report, Reporting, Returned, Status, Trouble,
        outbound::{self, OutboundItem, OutboundRecipient, SubmissionRecord},
    },
    limits,
};

/// One domain's share of a message, and the message.
pub(super) struct Task {
    pub(super) item: OutboundItem,
    pub(super) id: [u8; 16],
    pub(super) record: SubmissionRecord,
    pub(super) blob: BlobId,
}

/// An item as it lies in the queue.
pub(super) fn decode(item: &zone::Item) -> Result<OutboundItem, String> {
    OutboundItem::decode(item.payload.clone()).map_err(|error| format!("damaged item: {error}"))
}

pub(super) fn waits_for_domain(item: &zone::Item) -> bool {
    decode(item).is_ok_and(|item| item.waits_for_domain)
}

pub(super) fn of_trouble(trouble: &DomainTrouble) -> Trouble {
    Trouble { status: trouble.status.clone(), words: trouble.reason.clone(), remote: None }
}

impl Task {
    /// Reads what an item is about; `None` where its submission is gone.
    pub(super) async fn read(parts: &Parts, item: &zone::Item) -> Result<Option<Self>, String> {
        let mut decoded = decode(item)?;
        let id = <[u8; 16]>::try_from(&decoded.submission[..]);
        let id = id.map_err(|_| "damaged item: no submission".to_owned())?;
        let id_here = &id;
        let read = |tx| async move { outbound::submission(&tx, id_here).await };
        let record = parts.db.run(read).await.map_err(|error| error.to_string())?;
        let Some(record) = record else { return Ok(None) };
        let blob = BlobId::from_slice(&record.blob);
        let blob = blob.ok_or_else(|| "damaged submission: no blob".to_owned())?;
        if decoded.received_ms == 0 {
            decoded.received_ms = record.received_ms;
        }
        Ok(Some(Self { item: decoded, id, record, blob }))
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

/// Writes what came of a try. `retry_at` is when the domain is tried again, where it is down.
pub(super) async fn conclude(
    parts: &Parts,
    held: &Held,
    item: &zone::Item,
    task: Task,
    verdicts: Vec<Verdict>,
    retry_at: Option<Timestamp>,
) -> Result<(), String> {
    let conclusion = decide(parts, &task, verdicts, retry_at);
    let report = match report(parts, &task, conclusion.told).await {
        Ok(report) => report,
        Err(reason) => return Err(format!("a report cannot be written: {reason}")),
    };
    let (stays, id, report) = (conclusion.stays.as_ref(), &task.id, report.as_ref());
    let now = parts.env.wall();
    let commit = |tx| async move { write(&tx, held, item, id, stays, report, now).await };
    let committed = parts.db.run_versioned(commit).await.map_err(|error| error.to_string())?;
    held.completed(committed.versionstamp);
    if let Some(version) = committed.versionstamp.map(|stamp| ModSeq(stamp.version())) {
        for (account, interested) in committed.value {
            parts.announcer.changed(account, version, &interested);
        }
    }
    Ok(())
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
        outbound::domain_done(tx, id, now).await?;
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
    verdicts: Vec<Verdict>,
    retry_at: Option<Timestamp>,
) -> Conclusion {
    let now = parts.env.wall();
    let (end, received) = (parts.schedule.end(task.received()), task.received());
    let tells_late = !task.item.is_late_told && parts.schedule.late(received) <= now;
    let mut told = Vec::new();
    let mut waiting = Vec::new();
    for (recipient, verdict) in task.item.recipients.iter().zip(verdicts) {
        let notify = recipient.notify.as_deref().and_then(Notify::parse).unwrap_or_default();
        log(task, recipient, &verdict);
        let fate = match verdict {
            Verdict::Taken { remote, reports } => {
                // RFC 3461 §5.2.2: a server that knows DSN tells of a success by itself.
                let tells = wants(notify, |on| on.success) && reports == Reports::No;
                tells.then_some(Fate::Relayed { remote })
            }
            Verdict::Failed(trouble) => wants_failures(notify).then_some(Fate::Failed(trouble)),
            Verdict::Deferred(trouble) if end <= now => {
                wants_failures(notify).then(|| Fate::Failed(expired(trouble)))
            }
            Verdict::Deferred(trouble) => {
                let last = outbound::Trouble {
                    status: trouble.status.clone(),
                    words: trouble.words.clone(),
                    remote: trouble.remote.clone().unwrap_or_default(),
                };
                waiting.push(OutboundRecipient { last: Some(last), ..recipient.clone() });
                // RFC 3461 §4.1: a delay is told unless the sender wants to hear of other things.
                let tells =
                    tells_late && (notify == Notify::Default || wants(notify, |on| on.delay));
                tells.then_some(Fate::Delayed { trouble, until: end })
            }
        };
        told.extend(fate.map(|fate| Status {
            recipient: recipient.address.clone(),
            original: recipient.original.clone(),
            fate,
        }));
    }
    let tries = task.item.tries.saturating_add(1);
    let stays = (!waiting.is_empty()).then(|| {
        let item = OutboundItem {
            recipients: waiting,
            tries,
            is_late_told: task.item.is_late_told || tells_late,
            waits_for_domain: retry_at.is_some(),
            ..task.item.clone()
        };
        let due = parts.schedule.next(&parts.env, tries, received);
        (item, retry_at.map_or(due, |at| at.min(end.max(due))))
    });
    Conclusion { stays, told }
}

fn wants(notify: Notify, case: impl Fn(smtp::NotifyOn) -> bool) -> bool {
    matches!(notify, Notify::On(on) if case(on))
}

fn wants_failures(notify: Notify) -> bool {
    notify == Notify::Default || wants(notify, |on| on.failure)
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the report, where there is anything to tell and anybody to tell it to.
async fn report(parts: &Parts, task: &Task, told: Vec<Status>) -> Result<Option<Report>, String> {
    if told.is_empty() || task.record.sender.is_empty() {
        return Ok(None);
    }
    let to = parts.signing.reports_to(&task.record.sender).await;
    let to = to.map_err(|error| error.to_string())?;
    let Ok(sender) = Address::parse(&to) else { return Ok(None) };
    let reporting = Reporting {
        sender,
        hostname: parts.hostname.clone(),
        envelope_id: task.record.envelope_id.clone(),
        arrived_at: task.received(),
        returned: returned(parts, task, &told).await?,
    };
    let Parts { env, blobs, signing, .. } = parts;
    let report = deliver::write_report(env, blobs, signing, &reporting, told).await;
    report.map(Some).map_err(|error| error.to_string())
}

/// RFC 3461 §4.3: the whole message where it is asked for and something failed, else its header.
async fn returned(parts: &Parts, task: &Task, told: &[Status]) -> Result<Returned, String> {
    let has_failed = told.iter().any(|status| matches!(status.fate, Fate::Failed(_)));
    let wants_all = task.record.return_content == 1 && has_failed;
    let length = task.record.size.saturating_sub(task.record.skip);
    let is_whole = wants_all && length <= limits::RETURNED_BYTES_MAX;
    let most = if is_whole { length } else { length.min(limits::RETURNED_HEADER_BYTES_MAX) };
    let range = task.record.skip..task.record.skip + most;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let bytes = parts.blobs.read_to_vec(task.blob, range, most).await;
    let bytes = bytes.map_err(|error| error.to_string())?;
    if is_whole {
        return Ok(Returned::Whole(bytes));
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 2);
    // A header that is cut off ends with a whole line.
    let end = end.or_else(|| bytes.windows(2).rposition(|two| two == b"\r\n").map(|at| at + 2));
    Ok(Returned::Header(bytes[..end.unwrap_or(0)].to_vec()))
}
