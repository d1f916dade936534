//! Reports that others send of mail in our name (RFC 9990, RFC 9991, RFC 5965) and of connections to us (RFC
//! 8460): recognized in mail to addresses that are set for it (`reports.addresses`), read and kept.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (ReceivedReport, "r", day, hash) | [`ReceivedRecord`] | with the report; cleared [`limits::RECEIVED_REPORT_DAYS`] days later |
//! | (ReceivedReport, "n", day) | reports of the day, 8 bytes, by atomic addition | as they |
//! | (ReceivedReport, "d", day, organization) | reports of the day that it sent, and their bytes, 8 bytes each, the same way | as they |
//!
//! Only a report is kept whose message its author's domain, that of `From`, vouches for: by a signature or by SPF, aligned
//! as DMARC has it. Anybody knows the addresses that records name, and could tell us what he likes. What a
//! report says of who reports is told beside that domain, which is all that is known.
//!
//! The hash is of who reports, of what and when, and of their own number for it: the same report that comes
//! again the same day is one. What is kept of one report, of one day and of one organization is bounded; the mail
//! itself is in its mailbox, whatever becomes of this. Reading happens behind the delivery, one message at a time, and what a
//! crash interrupts is not taken up again.

mod author;
mod decoded;
mod record;

use std::sync::Arc;

use blob::{BlobId, BlobStore};
use dns::Resolver;
use env::{Env, Task, Timestamp};
use kv::{AtomicOp, Database, RangeQuery, Subspace, Transaction, tuple::pack};
use mail::StoreError;
use message::{Content, Part, Scanner, TransferDecoder};
use origin::{
    Digester, Judge, Purpose, SpfVerdict,
    reports::{Report, ReportKind},
};
use prost::Message;
use tokio::sync::mpsc;

use self::decoded::Decoded;
pub(crate) use self::{
    author::Author,
    record::{Kind, ReceivedRecord},
};
use super::seen::{day_of, organization};
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
    author: Author,
}

/// Takes messages; reading them is a task of its own.
pub(crate) struct Received {
    queue: mpsc::Sender<Letter>,
    metrics: Metrics,
    _reading: Task<()>,
}

impl Received {
    pub(crate) fn new(
        db: Database,
        blobs: BlobStore,
        env: Env,
        resolver: Resolver,
        metrics: Metrics,
    ) -> Self {
        let (queue, letters) = mpsc::channel(limits::RECEIVED_LETTERS_MAX);
        let reading = Reading { db, blobs, env: env.clone(), resolver, metrics: metrics.clone() };
        let _reading = env.spawn("received-reports", reading.run(letters));
        Self { queue, metrics, _reading }
    }

    /// A message has come to an address for reports. Never waits.
    pub(crate) fn offer(&self, blob: BlobId, size: u64, author: Author) {
        if self.queue.try_send(Letter { blob, size, author }).is_err() {
            tracing::warn!("a message is not looked through for reports: too many wait for it");
            self.metrics.report_received(ReportReceived::LeftOut);
        }
    }
}

struct Reading {
    db: Database,
    blobs: BlobStore,
    env: Env,
    resolver: Resolver,
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
        let message = Arc::new(message);
        let now = self.env.wall();
        let vouching = match letter.author {
            Author::Vouched(domain) => Some(domain),
            Author::Unknown => None,
            Author::Unjudged => self.signed(&message).await,
        };
        // Unpacking and reading what somebody sent takes as long as it likes, within its bounds.
        let read = self.env.run_blocking(move || records(&message, now)).await.unwrap_or_default();
        for record in read {
            match (record, &vouching) {
                (None, _) => self.metrics.report_received(ReportReceived::Unreadable),
                (Some(record), Some(domain)) => {
                    self.keep(ReceivedRecord { vouched_by: domain.clone(), ..record }, now).await?;
                }
                (Some(record), None) => {
                    tracing::info!(
                        from = record.from,
                        domain = record.domain,
                        "a report is not kept: nobody vouches for its message"
                    );
                    self.metrics.report_received(ReportReceived::Unvouched);
                }
            }
        }
        Ok(())
    }

    /// Who vouches for a message that was not judged when it came, because it came by a network that is trusted:
    /// its signatures are what is left to tell.
    async fn signed(&self, message: &Arc<Vec<u8>>) -> Option<String> {
        let message = Arc::clone(message);
        let digesting = move || Digester::whole(Purpose::Judge, &message);
        let digest = self.env.run_blocking(digesting).await.ok()?;
        let judge = Judge::new(&self.env, self.resolver.clone(), "");
        let sender = SpfVerdict::default();
        let verdicts = judge.judge_message(&sender, &digest).await;
        author::vouching(&verdicts, &sender)
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
    let decoder = TransferDecoder::new(&part.transfer_encoding)?;
    let read = kind.read(Decoded::new(decoder, body));
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
    let of_sender = sender_key(day, &record.vouched_by);
    let sent = tx.get_snapshot(&of_sender).await?;
    let sent = sent.and_then(|value| value[..].try_into().ok()).map_or(0, u128::from_le_bytes);
    let value = record.encode_to_vec();
    let (count, bytes) = (sent & u128::from(u64::MAX), sent >> 64);
    if kept >= limits::RECEIVED_REPORTS_PER_DAY_MAX
        || count >= limits::RECEIVED_REPORTS_PER_ORGANIZATION_MAX.into()
        || bytes + value.len() as u128 > limits::RECEIVED_BYTES_PER_ORGANIZATION_MAX.into()
    {
        return Ok(Kept::TooMany);
    }
    let one_more = 1 | (value.len() as u128) << 64;
    tx.set(&key, &value);
    tx.atomic(&number, &1_u64.to_le_bytes(), AtomicOp::Add);
    tx.atomic(&of_sender, &one_more.to_le_bytes(), AtomicOp::Add);
    Ok(Kept::Yes)
}

/// The lower half is a number of reports, the upper their bytes.
fn sender_key(day: i64, vouched_by: &str) -> Vec<u8> {
    pack(&(Subspace::ReceivedReport as u64, "d", day, organization(vouched_by)))
}

fn report_key(day: i64, hash: &Hash) -> Vec<u8> {
    pack(&(Subspace::ReceivedReport as u64, "r", day, &hash[..]))
}

fn number_key(day: i64) -> Vec<u8> {
    pack(&(Subspace::ReceivedReport as u64, "n", day))
}

/// Forgets the reports of days before `day`.
pub(super) fn forget_before(tx: &Transaction, day: i64) {
    for family in ["r", "n", "d"] {
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
        let record = ReceivedRecord::of(Report::Aggregate(report), Timestamp::from_unix_seconds(5));
        ReceivedRecord { vouched_by: "mail.receiver.example".to_owned(), ..record }
    }

    /// Whoever may send reports may not fill the place that is there for all.
    #[tokio::test]
    async fn an_organization_has_so_many_reports_and_bytes_a_day() {
        let db = Database::memory(Env::system());
        let put = async |day: i64, id: String, vouched_by: &str, bytes: usize| {
            let details = "x".repeat(bytes);
            let record =
                &ReceivedRecord { vouched_by: vouched_by.to_owned(), details, ..aggregate(&id) };
            let hash = &hash_of(record);
            db.run(|tx| async move { keep(&tx, day, hash, record).await }).await.unwrap()
        };
        for number in 0..limits::RECEIVED_REPORTS_PER_ORGANIZATION_MAX {
            // Of one organization, whatever names it makes up.
            let name = format!("n{number}.many.example");
            assert_eq!(put(3, number.to_string(), &name, 0).await, Kept::Yes);
        }
        assert_eq!(put(3, "more".to_owned(), "many.example", 0).await, Kept::TooMany);
        assert_eq!(put(3, "0".to_owned(), "n0.many.example", 0).await, Kept::Yes, "it is there");
        assert_eq!(put(4, "more".to_owned(), "many.example", 0).await, Kept::Yes);
        let large = limits::RECEIVED_DETAILS_BYTES_MAX;
        let most = limits::RECEIVED_BYTES_PER_ORGANIZATION_MAX / large as u64;
        let mut kept = 0;
        while put(3, kept.to_string(), "large.example", large).await == Kept::Yes {
            kept += 1;
        }
        assert!((most - 2..=most).contains(&kept), "{kept} of {most}");
        assert_eq!(put(3, "one".to_owned(), "other.example", 0).await, Kept::Yes);
        let forget = |tx| async move {
            forget_before(&tx, 4);
            Ok::<_, StoreError>(())
        };
        db.run(forget).await.unwrap();
        let rows = RangeQuery::prefix(&Subspace::ReceivedReport.prefix());
        let rows = db.begin().range(rows).collect().await.unwrap();
        assert_eq!(rows.len(), 3, "one report, the day's number and its sender's");
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
