//! Reports that others send of mail in our name (RFC 9990, RFC 9991, RFC 5965) and of connections to us (RFC
//! 8460): recognized in mail to addresses that are set for it (`reports.addresses`), read and kept.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (ReceivedReport, "r", day, hash) | [`ReceivedRecord`] | with the report; cleared [`limits::RECEIVED_REPORT_DAYS`] days later |
//! | (ReceivedReport, "n", day) | reports of the day, 8 bytes, by atomic addition | as they |
//!
//! The hash is of who reports, of what and when, and of their own number for it: the same report that comes
//! again the same day is one. What is kept of one report and of one day is bounded; the mail itself is in its
//! mailbox, whatever becomes of this. Reading happens behind the delivery, one message at a time, and what a
//! crash interrupts is not taken up again.

mod record;

use std::sync::Arc;

use blob::{BlobId, BlobStore};
use env::{Env, Task, Timestamp};
use kv::{AtomicOp, Database, RangeQuery, Subspace, Transaction, tuple::pack};
use mail::StoreError;
use message::{Content, Part, Scanner, TransferDecoder};
use origin::reports::{Report, ReportKind};
use prost::Message;
use tokio::sync::mpsc;

pub(crate) use self::record::{Kind, ReceivedRecord};
use super::seen::day_of;
use crate::{
    limits,
    metrics::{Metrics, ReportReceived},
};

/// Bytes that tell one day's reports apart.
pub(crate) type Hash = [u8; 16];

/// A message that may hold reports.
struct Letter {
    blob: BlobId,
    size: u64,
}

/// Takes messages; reading them is a task of its own.
pub(crate) struct Received {
    queue: mpsc::Sender<Letter>,
    metrics: Metrics,
    _reading: Task<()>,
}

impl Received {
    pub(crate) fn new(db: Database, blobs: BlobStore, env: Env, metrics: Metrics) -> Self {
        let (queue, letters) = mpsc::channel(limits::RECEIVED_LETTERS_MAX);
        let reading = Reading { db, blobs, env: env.clone(), metrics: metrics.clone() };
        let _reading = env.spawn("received-reports", reading.run(letters));
        Self { queue, metrics, _reading }
    }

    /// A message has come to an address for reports. Never waits.
    pub(crate) fn offer(&self, blob: BlobId, size: u64) {
        if self.queue.try_send(Letter { blob, size }).is_err() {
            tracing::warn!("a message is not looked through for reports: too many wait for it");
            self.metrics.report_received(ReportReceived::LeftOut);
        }
    }
}

struct Reading {
    db: Database,
    blobs: BlobStore,
    env: Env,
    metrics: Metrics,
}

/// Why a message was not looked through.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it is too large")]
    TooLarge,
    #[error(transparent)]
    Blob(#[from] blob::BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Reading {
    async fn run(self, mut letters: mpsc::Receiver<Letter>) {
        while let Some(letter) = letters.recv().await {
            if let Err(error) = self.read(letter).await {
                tracing::warn!(%error, "a message is not looked through for reports");
                self.metrics.report_received(ReportReceived::LeftOut);
            }
        }
    }

    async fn read(&self, letter: Letter) -> Result<(), ReadError> {
        let most = limits::RECEIVED_MESSAGE_BYTES_MAX;
        if letter.size > most as u64 {
            return Err(ReadError::TooLarge);
        }
        let message = self.blobs.read_to_vec(letter.blob, 0..letter.size, most).await?;
        let now = self.env.wall();
        // Unpacking and reading what a stranger sent takes as long as it likes, within its bounds.
        let read = self.env.run_blocking(move || records(&message, now)).await.unwrap_or_default();
        for record in read {
            match record {
                Some(record) => self.keep(record, now).await?,
                None => self.metrics.report_received(ReportReceived::Unreadable),
            }
        }
        Ok(())
    }

    async fn keep(&self, record: ReceivedRecord, now: Timestamp) -> Result<(), StoreError> {
        let (day, hash) = (day_of(now), hash_of(&record));
        let record = Arc::new(record);
        let held = &record;
        let kept = self.db.run(|tx| async move { keep(&tx, day, &hash, held).await }).await?;
        let received = match (kept, record.kind()) {
            (Kept::TooMany, _) => ReportReceived::LeftOut,
            (Kept::Yes, Kind::Aggregate) => ReportReceived::Aggregate,
            (Kept::Yes, Kind::Failure) => ReportReceived::Failure,
            (Kept::Yes, Kind::Tls) => ReportReceived::Tls,
        };
        self.metrics.report_received(received);
        tracing::info!(
            kind = record.kind().as_str(),
            from = record.from,
            domain = record.domain,
            outcome = received.as_str(),
            "report received"
        );
        Ok(())
    }
}

/// The reports of a message; `None` for what says that it is one and cannot be read.
fn records(message: &[u8], now: Timestamp) -> Vec<Option<ReceivedRecord>> {
    let mut scanner = Scanner::new(message::Limits::default());
    scanner.push(message);
    let scanned = scanner.finish();
    let mut parts = Vec::new();
    leaves(&scanned.structure.root, &mut parts);
    parts
        .into_iter()
        .map(|(kind, part)| Some(ReceivedRecord::of(read(kind, part, message)?, now)))
        .collect()
}

/// The parts that may be reports, not those of messages within.
fn leaves<'a>(part: &'a Part, found: &mut Vec<(ReportKind, &'a Part)>) {
    match &part.content {
        Content::Multipart(parts) => parts.iter().for_each(|part| leaves(part, found)),
        Content::Message(_) => {}
        Content::Leaf => {
            let media_type = format!("{}/{}", part.content_type.kind, part.content_type.subtype);
            let kind = ReportKind::of(&media_type, part.file_name());
            if found.len() < limits::RECEIVED_PARTS_MAX {
                found.extend(kind.map(|kind| (kind, part)));
            }
        }
    }
}

fn read(kind: ReportKind, part: &Part, message: &[u8]) -> Option<Report> {
    let at = |offset: u64| usize::try_from(offset).ok();
    let body = message.get(at(part.body.start)?..at(part.body.end)?)?;
    let mut decoder = TransferDecoder::new(&part.transfer_encoding)?;
    let mut bytes = Vec::new();
    decoder.push(body, &mut bytes);
    let _damaged = decoder.finish(&mut bytes);
    let read = kind.parse(&bytes);
    if let Err(error) = &read {
        tracing::info!(%error, "a report cannot be read");
    }
    read.ok()
}

fn hash_of(record: &ReceivedRecord) -> Hash {
    let about = ReceivedRecord {
        received_ms: 0,
        messages: 0,
        failed: 0,
        left_out: 0,
        // Failure reports have no number of their own.
        details: if record.id.is_empty() { record.details.clone() } else { String::new() },
        ..record.clone()
    };
    let hash = blake3::hash(&about.encode_to_vec());
    hash.as_bytes()[..16].try_into().expect("16 of 32 bytes")
}

/// Whether a report is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Yes,
    TooMany,
}

async fn keep(
    tx: &Transaction,
    day: i64,
    hash: &Hash,
    record: &ReceivedRecord,
) -> Result<Kept, StoreError> {
    let (key, number) = (report_key(day, hash), number_key(day));
    // It came before, or this transaction committed unseen.
    if tx.get(&key).await?.is_some() {
        return Ok(Kept::Yes);
    }
    let kept = tx.get_snapshot(&number).await?;
    let kept = kept.and_then(|value| value[..].try_into().ok()).map_or(0, u64::from_le_bytes);
    if kept >= limits::RECEIVED_REPORTS_PER_DAY_MAX {
        return Ok(Kept::TooMany);
    }
    tx.set(&key, &record.encode_to_vec());
    tx.atomic(&number, &1_u64.to_le_bytes(), AtomicOp::Add);
    Ok(Kept::Yes)
}

fn report_key(day: i64, hash: &Hash) -> Vec<u8> {
    pack(&(Subspace::ReceivedReport as u64, "r", day, &hash[..]))
}

fn number_key(day: i64) -> Vec<u8> {
    pack(&(Subspace::ReceivedReport as u64, "n", day))
}

/// Forgets the reports of days before `day`.
pub(super) fn forget_before(tx: &Transaction, day: i64) {
    for family in ["r", "n"] {
        let (begin, _) = kv::tuple::range_of(pack(&(Subspace::ReceivedReport as u64, family)));
        tx.clear_range(&begin, &pack(&(Subspace::ReceivedReport as u64, family, day)));
    }
}

/// One report; `None` where it is not kept, or not any more.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn one(
    tx: &Transaction,
    day: i64,
    hash: &Hash,
) -> Result<Option<ReceivedRecord>, StoreError> {
    let value = tx.get_snapshot(&report_key(day, hash)).await?;
    value.map(|value| decode(&value)).transpose()
}

/// Reports of late days first, behind one that was seen.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn some(
    tx: &Transaction,
    after: Option<(i64, Hash)>,
    rows: usize,
) -> Result<Vec<(i64, Hash, ReceivedRecord)>, StoreError> {
    let (begin, end) = kv::tuple::range_of(pack(&(Subspace::ReceivedReport as u64, "r")));
    let end = after.map_or(end, |(day, hash)| report_key(day, &hash));
    let query = RangeQuery::new(begin, end).reverse().limit(rows).snapshot();
    let mut found = Vec::new();
    for row in tx.range(query).collect().await? {
        let damaged = || StoreError::damaged("received report", "a key without its day");
        let (_, _, day, hash): (u64, String, i64, kv::tuple::Bytes<'_>) =
            kv::tuple::unpack(&row.key).map_err(|_| damaged())?;
        let hash: Hash = hash[..].try_into().map_err(|_| damaged())?;
        found.push((day, hash, decode(&row.value)?));
    }
    Ok(found)
}

fn decode(value: &[u8]) -> Result<ReceivedRecord, StoreError> {
    ReceivedRecord::decode(value).map_err(|error| StoreError::damaged("received report", error))
}

#[cfg(test)]
mod tests {
    use origin::reports::{AggregateReport, PublishedPolicy, ReportMetadata};

    use super::*;

    fn aggregate(id: &str) -> ReceivedRecord {
        let metadata = ReportMetadata {
            organization: "Receiver\u{7}".to_owned(),
            id: id.to_owned(),
            ..ReportMetadata::default()
        };
        let policy =
            PublishedPolicy { domain: "example.org".to_owned(), ..PublishedPolicy::default() };
        let report = AggregateReport::new(metadata, policy);
        ReceivedRecord::of(Report::Aggregate(report), Timestamp::from_unix_seconds(5))
    }

    #[tokio::test]
    async fn reports_are_kept_once_up_to_a_number_and_for_a_time() {
        let db = Database::memory(Env::system());
        let put = |day: i64, record: ReceivedRecord| {
            let db = db.clone();
            async move {
                let (hash, record) = (hash_of(&record), &record);
                db.run(|tx| async move { keep(&tx, day, &hash, record).await }).await.unwrap()
            }
        };
        for id in ["a", "b", "a"] {
            assert_eq!(put(3, aggregate(id)).await, Kept::Yes);
        }
        assert_eq!(put(4, aggregate("c")).await, Kept::Yes);
        let all = |after| {
            let db = db.clone();
            async move { db.run(|tx| async move { some(&tx, after, 10).await }).await.unwrap() }
        };
        let found = all(None).await;
        assert_eq!(found.iter().map(|(day, ..)| *day).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!((found[0].2.id.as_str(), found[0].2.from.as_str()), ("c", "Receiver"));
        let (day, hash, _) = &found[1];
        assert_eq!(all(Some((*day, *hash))).await.len(), 1);
        let number = number_key(4);
        let number = &number;
        let full = limits::RECEIVED_REPORTS_PER_DAY_MAX.to_le_bytes();
        let fill = |tx: Transaction| async move {
            tx.set(number, &full);
            Ok::<_, StoreError>(())
        };
        db.run(fill).await.unwrap();
        assert_eq!(put(4, aggregate("d")).await, Kept::TooMany);
        let forget = |tx| async move {
            forget_before(&tx, 4);
            Ok::<_, StoreError>(())
        };
        db.run(forget).await.unwrap();
        assert_eq!(all(None).await.len(), 1);
    }

    #[test]
    fn reports_are_found_among_a_messages_parts() {
        let xml = "<feedback><report_metadata><org_name>R</org_name><report_id>7</report_id>\
            <date_range><begin>86400</begin><end>172799</end></date_range></report_metadata>\
            <policy_published><domain>example.org</domain></policy_published><record><row>\
            <source_ip>192.0.2.1</source_ip><count>5</count><policy_evaluated>\
            <disposition>none</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>\
            <identifiers><header_from>example.org</header_from></identifiers></record></feedback>";
        let message = format!(
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
             --b\r\nContent-Type: text/plain\r\n\r\nSee below\r\n\
             --b\r\nContent-Type: application/xml\r\n\r\n{xml}\r\n\
             --b\r\nContent-Type: application/gzip; name=\"x.xml.gz\"\r\n\r\nnonsense\r\n\
             --b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n\
             Source-IP: 192.0.2.9\r\nReported-Domain: example.org\r\n\r\n--b--\r\n"
        );
        let found = records(message.as_bytes(), Timestamp::from_unix_seconds(9));
        assert_eq!(found.len(), 3);
        let report = found[0].as_ref().unwrap();
        assert_eq!((report.kind(), report.domain.as_str()), (Kind::Aggregate, "example.org"));
        assert_eq!((report.messages, report.failed, report.begin_ms), (5, 5, 86_400_000));
        assert!(report.details.contains("192.0.2.1"), "{}", report.details);
        assert!(found[1].is_none());
        let report = found[2].as_ref().unwrap();
        assert_eq!((report.kind(), report.messages), (Kind::Failure, 1));
        assert!(report.details.contains("192.0.2.9"), "{}", report.details);
    }
}
