//! What came in domains' names, counted for the reports that those domains ask for (RFC 9990).
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (DmarcSeen, day, domain, "p") | `PublishedRecord` | from the first message that day; cleared with all of (day, domain) when the domain was told, or is not to be |
//! | (DmarcSeen, day, domain, "r", hash) | `RowRecord` | with the first message of the row |
//! | (DmarcSeen, day, domain, "c", hash) | messages of the row, 8 bytes, by atomic addition | as the row |
//! | (DmarcSeen, day, domain, "n") | rows, the same way | as the first row |
//! | (DmarcSeen, day, domain, "x") | messages in rows beyond the bound, the same way | as the first such |
//! | (DmarcSeen, day, "", "n") | domains of the day, the same way | cleared with what is left of the day, [`limits::DMARC_SEEN_DAYS`] days later |
//! | (DmarcSeen, day, "", "o", organization) | domains of the day below one that somebody has, the same way | as the day's |
//! | (DmarcSeen, day, "", "f", id) | empty | with one flush, so that one that commits unseen is not counted twice; goes with the day |
//!
//! The domain is the one whose record applies. A node gathers for [`limits::DMARC_FLUSH_PERIOD`] and writes then:
//! what a crash takes with it is a few seconds' counts, and a report is no account. Rows that two nodes
//! begin at the same time may count twice against their bound.

mod record;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use env::{Env, Timestamp};
use kv::{AtomicOp, Database, KeyValue, Prefetch, RangeQuery, Subspace, Transaction, tuple::pack};
use mail::StoreError;
use origin::reports::{PublishedPolicy, Row, report_addresses};
use prost::Message;

pub(super) use self::record::PublishedRecord;
use self::record::RowRecord;
use super::Findings;
use crate::{limits, names};

type Hash = [u8; 16];

/// Names below which countries give out domains, as `co.uk`: what stands there is nobody's alone.
const SHARED_LABELS: [&str; 14] =
    ["ac", "co", "com", "edu", "go", "gob", "gov", "gv", "mil", "ne", "net", "or", "org", "sch"];

/// What one domain is to be told of a day, as it is in the store.
pub(super) struct OfDomain {
    pub(super) published: PublishedRecord,
    pub(super) rows: Vec<Row>,
    /// Messages that are in no row.
    pub(super) left_out: u64,
    /// The counters as they were read: what is told is what is cleared.
    counters: Vec<KeyValue>,
}

/// Counts; cloning is some reference counts.
#[derive(Clone)]
pub(crate) struct Seen {
    db: Database,
    env: Env,
    held: Arc<Mutex<Held>>,
}

/// What has not been written yet.
#[derive(Default)]
struct Held {
    domains: BTreeMap<(i64, String), Domain>,
    bytes: usize,
    left_out: u64,
}

#[derive(Default)]
struct Domain {
    published: PublishedRecord,
    rows: BTreeMap<Hash, (RowRecord, u64)>,
}

/// What one transaction writes: one day's.
struct Chunk {
    day: i64,
    domains: Vec<(String, Domain)>,
}

/// The day of a point in time, UTC, counted from 1970.
pub(super) fn day_of(at: Timestamp) -> i64 {
    at.unix_seconds().div_euclid(86_400)
}

impl Seen {
    pub(crate) fn new(db: Database, env: Env) -> Self {
        Self { db, env, held: Arc::default() }
    }

    /// Counts a message whose author's domain wants to be told.
    pub(crate) fn note(&self, findings: &Findings) {
        let dmarc = &findings.verdicts.dmarc;
        let Some(record) = &dmarc.record else { return };
        if report_addresses(&record.aggregate_to).is_empty() {
            return;
        }
        let Some(policy) = PublishedPolicy::of(dmarc) else { return };
        let row = RowRecord::of(findings);
        let encoded = row.encode_to_vec();
        let hash: Hash =
            blake3::hash(&encoded).as_bytes()[..16].try_into().expect("16 of 32 bytes");
        let day = day_of(self.env.wall());
        let mut held = self.lock();
        let Held { domains, bytes, left_out } = &mut *held;
        let key = (day, policy.domain.clone());
        let known = domains.get(&key).is_some_and(|domain| domain.rows.contains_key(&hash));
        if !known && *bytes + encoded.len() > limits::DMARC_HELD_BYTES_MAX {
            *left_out += 1;
            return;
        }
        let domain = domains.entry(key).or_default();
        domain.published = PublishedRecord::of(&policy, &record.aggregate_to);
        let (_, count) = domain.rows.entry(hash).or_insert_with(|| {
            *bytes += encoded.len() + limits::DMARC_HELD_ROW_BYTES;
            (row, 0)
        });
        *count += 1;
    }

    /// Writes what was counted, from time to time, for ever.
    pub(crate) async fn keep_writing(self) {
        loop {
            self.env.sleep(limits::DMARC_FLUSH_PERIOD).await;
            self.flush().await;
        }
    }

    /// Writes what was counted. What the store does not take is lost, and that is logged.
    pub(crate) async fn flush(&self) {
        let held = std::mem::take(&mut *self.lock());
        if held.left_out > 0 {
            tracing::warn!(messages = held.left_out, "too much at once to be counted for reports");
        }
        for chunk in chunks(held.domains) {
            let (chunk, id) = (&chunk, &self.env.random_array());
            let written = self.db.run(|tx| async move { write(&tx, chunk, id).await }).await;
            if let Err(error) = written {
                tracing::warn!(%error, "what came in domains' names is not counted for reports");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nobody panics while counting")
    }
}

/// In order, each of at most [`limits::DMARC_FLUSH_ROWS`] rows.
fn chunks(domains: BTreeMap<(i64, String), Domain>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut room = 0;
    for ((day, name), Domain { published, rows }) in domains {
        for (hash, row) in rows {
            if room == 0 || chunks.last().is_none_or(|chunk| chunk.day != day) {
                chunks.push(Chunk { day, domains: Vec::new() });
                room = limits::DMARC_FLUSH_ROWS;
            }
            room -= 1;
            let chunk = chunks.last_mut().expect("one was pushed");
            if chunk.domains.last().is_none_or(|(last, _)| *last != name) {
                let domain = Domain { published: published.clone(), rows: BTreeMap::new() };
                chunk.domains.push((name.clone(), domain));
            }
            let (_, domain) = chunk.domains.last_mut().expect("one was pushed");
            domain.rows.insert(hash, row);
        }
    }
    chunks
}

async fn write(tx: &Transaction, chunk: &Chunk, id: &Hash) -> Result<(), StoreError> {
    let day = chunk.day;
    let flushed = pack(&(Subspace::DmarcSeen as u64, day, "", "f", &id[..]));
    let list = |ahead: &mut Prefetch| {
        ahead.key(flushed.clone());
        ahead.key(number_key(day, ""));
        for (name, domain) in &chunk.domains {
            ahead.key(organization_key(day, name));
            ahead.key(published_key(day, name));
            ahead.key(number_key(day, name));
            domain.rows.keys().for_each(|hash| ahead.key(row_key(day, name, hash)));
        }
    };
    tx.prefetch(list).await?;
    if tx.get(&flushed).await?.is_some() {
        return Ok(());
    }
    tx.set(&flushed, &[]);
    for (name, domain) in &chunk.domains {
        write_domain(tx, day, name, domain).await?;
    }
    Ok(())
}

async fn write_domain(
    tx: &Transaction,
    day: i64,
    name: &str,
    domain: &Domain,
) -> Result<(), StoreError> {
    let published = published_key(day, name);
    if tx.get_snapshot(&published).await?.is_none() {
        let organization = organization_key(day, name);
        if number(tx, &number_key(day, "")).await? >= limits::DMARC_DOMAINS_PER_DAY_MAX
            || number(tx, &organization).await? >= limits::DMARC_DOMAINS_PER_ORGANIZATION_MAX
        {
            return Ok(());
        }
        add(tx, &number_key(day, ""), 1);
        add(tx, &organization, 1);
    }
    tx.set(&published, &domain.published.encode_to_vec());
    let mut rows = number(tx, &number_key(day, name)).await?;
    for (hash, (row, count)) in &domain.rows {
        let key = row_key(day, name, hash);
        if tx.get_snapshot(&key).await?.is_none() {
            if rows >= limits::DMARC_ROWS_PER_DOMAIN_MAX {
                add(tx, &left_out_key(day, name), *count);
                continue;
            }
            rows += 1;
            add(tx, &number_key(day, name), 1);
            tx.set(&key, &row.encode_to_vec());
        }
        add(tx, &counter_key(day, name, hash), *count);
    }
    Ok(())
}

fn add(tx: &Transaction, key: &[u8], count: u64) {
    tx.atomic(key, &count.to_le_bytes(), AtomicOp::Add);
}

async fn number(tx: &Transaction, key: &[u8]) -> Result<u64, StoreError> {
    Ok(tx.get_snapshot(key).await?.map_or(0, |value| as_number(&value)))
}

/// What counts nothing that makes sense counts nothing: it is a report.
fn as_number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_le_bytes)
}

fn published_key(day: i64, domain: &str) -> Vec<u8> {
    pack(&(Subspace::DmarcSeen as u64, day, domain, "p"))
}

fn number_key(day: i64, domain: &str) -> Vec<u8> {
    pack(&(Subspace::DmarcSeen as u64, day, domain, "n"))
}

fn organization_key(day: i64, domain: &str) -> Vec<u8> {
    let organization = organization(domain).as_bytes();
    pack(&(Subspace::DmarcSeen as u64, day, "", "o", organization))
}

/// Who has a domain, as far as its name tells. What DNS says of organizations is theirs to say.
pub(super) fn organization(domain: &str) -> &str {
    let two = names::last_labels(domain, 2);
    let is_shared = two
        .split_once('.')
        .is_some_and(|(second, top)| top.len() == 2 && SHARED_LABELS.contains(&second));
    if is_shared { names::last_labels(domain, 3) } else { two }
}

fn left_out_key(day: i64, domain: &str) -> Vec<u8> {
    pack(&(Subspace::DmarcSeen as u64, day, domain, "x"))
}

fn row_key(day: i64, domain: &str, hash: &Hash) -> Vec<u8> {
    pack(&(Subspace::DmarcSeen as u64, day, domain, "r", &hash[..]))
}

fn counter_key(day: i64, domain: &str, hash: &Hash) -> Vec<u8> {
    pack(&(Subspace::DmarcSeen as u64, day, domain, "c", &hash[..]))
}

fn range(day: i64, domain: &str, what: &str) -> RangeQuery {
    RangeQuery::prefix(&pack(&(Subspace::DmarcSeen as u64, day, domain, what)))
}

/// The first domains behind `after` that are to be told of a day up to `last_day`, so many at most.
pub(super) async fn next_domains(
    tx: &Transaction,
    after: Option<(i64, String)>,
    last_day: i64,
    most: usize,
) -> Result<Vec<(i64, String)>, StoreError> {
    let mut found = Vec::new();
    let mut last = after;
    while found.len() < most
        && let Some(next) = next_domain(tx, last.as_ref(), last_day).await?
    {
        found.push(next.clone());
        last = Some(next);
    }
    Ok(found)
}

async fn next_domain(
    tx: &Transaction,
    after: Option<&(i64, String)>,
    last_day: i64,
) -> Result<Option<(i64, String)>, StoreError> {
    let behind = |day: i64, domain: &str| {
        kv::tuple::range_of(pack(&(Subspace::DmarcSeen as u64, day, domain))).1
    };
    let (first, _) = kv::tuple::range_of(pack(&(Subspace::DmarcSeen as u64,)));
    let mut begin = after.map_or(first, |(day, domain)| behind(*day, domain));
    let end = pack(&(Subspace::DmarcSeen as u64, last_day + 1));
    loop {
        if begin >= end {
            return Ok(None);
        }
        let query = RangeQuery::new(begin, end.clone()).limit(1).snapshot();
        let rows = tx.range(query).collect().await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (day, domain) = parse(&row.key)?;
        if !domain.is_empty() {
            return Ok(Some((day, domain)));
        }
        begin = behind(day, "");
    }
}

/// The key of a row, a counter or a flush.
type Whole<'a> = (u64, i64, String, String, kv::tuple::Bytes<'a>);

/// The day and the domain of a key.
fn parse(key: &[u8]) -> Result<(i64, String), StoreError> {
    let damaged = || StoreError::damaged("messages seen", "a key without its domain");
    if let Ok((_, day, domain, _)) = kv::tuple::unpack::<(u64, i64, String, String)>(key) {
        return Ok((day, domain));
    }
    let (_, day, domain, ..): Whole<'_> = kv::tuple::unpack(key).map_err(|_| damaged())?;
    Ok((day, domain))
}

/// What the domain's record said; `None` where it has been told.
pub(super) async fn published(
    tx: &Transaction,
    day: i64,
    domain: &str,
) -> Result<Option<PublishedRecord>, StoreError> {
    let value = tx.get(&published_key(day, domain)).await?;
    let decode = |value: &[u8]| PublishedRecord::decode(value);
    value.map(|value| decode(&value[..]).map_err(damaged)).transpose()
}

fn damaged(error: prost::DecodeError) -> StoreError {
    StoreError::damaged("messages seen", error)
}

/// What a domain is to be told of a day; `None` where it has been told.
pub(super) async fn read(
    tx: &Transaction,
    day: i64,
    domain: &str,
) -> Result<Option<OfDomain>, StoreError> {
    let Some(published) = published(tx, day, domain).await? else { return Ok(None) };
    let rows = tx.range(range(day, domain, "r").snapshot()).collect().await?;
    let counters = counters(tx, day, domain).await?;
    let counts: BTreeMap<Vec<u8>, u64> =
        counters.iter().map(|pair| (hash_of(&pair.key), as_number(&pair.value))).collect();
    let mut told = Vec::with_capacity(rows.len());
    for pair in &rows {
        let count = counts.get(&hash_of(&pair.key)).copied().unwrap_or_default();
        let record = RowRecord::decode(&pair.value[..]).map_err(damaged)?;
        told.extend(record.row(count));
    }
    let left_out = number(tx, &left_out_key(day, domain)).await?;
    Ok(Some(OfDomain { published, rows: told, left_out, counters }))
}

/// What tells a row's key, and its counter's, from others of the domain.
fn hash_of(key: &[u8]) -> Vec<u8> {
    kv::tuple::unpack::<Whole<'_>>(key).map_or_else(|_| Vec::new(), |(.., hash)| hash.to_vec())
}

async fn counters(tx: &Transaction, day: i64, domain: &str) -> Result<Vec<KeyValue>, StoreError> {
    Ok(tx.range(range(day, domain, "c")).collect().await?)
}

/// Forgets a domain's day, unless more was counted since it was read.
pub(super) async fn forget(
    tx: &Transaction,
    day: i64,
    domain: &str,
    told: &OfDomain,
) -> Result<Forgotten, StoreError> {
    if tx.get(&published_key(day, domain)).await?.is_none()
        || counters(tx, day, domain).await? != told.counters
    {
        return Ok(Forgotten::Changed);
    }
    let (begin, end) = kv::tuple::range_of(pack(&(Subspace::DmarcSeen as u64, day, domain)));
    tx.clear_range(&begin, &end);
    Ok(Forgotten::Done)
}

/// Whether a domain's day was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// It was.
    Done,
    /// It is not as it was read.
    Changed,
}

/// Forgets all days before `day`.
pub(super) fn forget_before(tx: &Transaction, day: i64) {
    let (begin, _) = kv::tuple::range_of(pack(&(Subspace::DmarcSeen as u64,)));
    tx.clear_range(&begin, &pack(&(Subspace::DmarcSeen as u64, day)));
}

#[cfg(test)]
mod tests;
