//! The outbound queue, for administrators: what is in it, message by message or counted, and what
//! they want done with it.
//!
//! Everything is read from the store, so any node tells of all, and so does the command line where no
//! node runs. What is ordered is written down; the node that has a domain obeys (`outbound/orders.rs`), at
//! once where one runs.
//!
//! Invariants:
//! - A request reads a bounded number of rows, and says where to go on; nothing holds the queue.
//! - Looking never conflicts with the work.

mod orders;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use cluster::{
    Slice,
    work::{
        self, Kind,
        zone::{self, Item, ZoneState},
    },
};
use env::Timestamp;
use futures_util::future::try_join_all;
use kv::Transaction;
use mail::StoreError;
use prost::Message;
use serde::{Deserialize, Serialize};

pub use orders::{Filter, OrderRequest, Ordered, QueueAction, Selection, order};
pub use stats::{DomainStats, QueueStats, StatsQuery, stats};

use super::{Admin, AdminError, Page, cluster::node_names};
use crate::{
    deliver::outbound::{self, HELD_DUE_MS, OutboundItem, SubmissionRecord},
    hex::{hex, unhex},
    limits::{ADMIN_PAGE_ROWS_MAX, QUEUE_ROWS_PER_REQUEST, QUEUE_SEARCH_ROWS_MAX},
    outbound::domain::{self, DomainTrouble},
};

/// What a domain's share of a message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    /// It is being sent, or is the next.
    Due,
    /// It has been tried, or its domain has, and is tried again later.
    Deferred,
    /// An administrator holds it, or its domain.
    Held,
    /// Its sender wants it to leave later.
    Future,
}

impl QueueState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Due, Self::Deferred, Self::Held, Self::Future];

    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Future => "future",
        }
    }

    fn of(item: &OutboundItem, due: Timestamp, domain_held: bool, now: Timestamp) -> Self {
        if item.held != 0 || domain_held {
            Self::Held
        } else if due <= now {
            Self::Due
        } else if item.tries == 0 && item.hold_until_ms > now.unix_ms() {
            Self::Future
        } else {
            Self::Deferred
        }
    }
}

impl std::str::FromStr for QueueState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| "one of due, deferred, held and future".to_owned())
    }
}

/// Which page of the queue, and of what of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueQuery {
    /// An earlier page's [`Page::next`]; the first page without.
    pub after: Option<String>,
    /// Rows, at most [`ADMIN_PAGE_ROWS_MAX`]; that many without.
    pub limit: Option<usize>,
    /// Only to this domain.
    pub domain: Option<String>,
    /// Only from this address, or with `@DOMAIN` from a domain; `<>` is the null sender.
    pub sender: Option<String>,
    /// Only what was accepted so long ago.
    pub older_than_seconds: Option<u64>,
    /// Only this message.
    pub id: Option<String>,
    /// Only what is in this state.
    pub state: Option<QueueState>,
}

/// One domain's share of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedInfo {
    /// The message, in hexadecimal digits, as its client was told.
    pub id: String,
    /// The domain.
    pub domain: String,
    /// Its reverse-path; empty is the null path. `None` where the message's record is missing.
    pub sender: Option<String>,
    /// Recipients that are left in the domain.
    pub recipients: u64,
    /// The message's bytes.
    pub size: u64,
    /// When it was accepted, milliseconds since 1970.
    pub received_ms: i64,
    /// Tries to send it.
    pub tries: u32,
    /// When it is due, milliseconds since 1970; `None` where it is held.
    pub due_ms: Option<i64>,
    /// What it waits for.
    pub state: QueueState,
    /// Why it is still here.
    pub error: Option<String>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedMessage {
    /// In hexadecimal digits.
    pub id: String,
    /// Its reverse-path; empty is the null path.
    pub sender: String,
    /// The account that submitted it.
    pub account: Option<u64>,
    /// Its bytes.
    pub size: u64,
    /// When it was accepted, milliseconds since 1970.
    pub received_ms: i64,
    /// RFC 3461 ENVID.
    pub envelope_id: Option<String>,
    /// RFC 3461 RET: `full` or `headers`.
    pub returns: Option<String>,
    /// RFC 4865: when it may leave, milliseconds since 1970.
    pub hold_until_ms: Option<i64>,
    /// RFC 6710.
    pub priority: i32,
    /// RFC 2852: when it must have been delivered, milliseconds since 1970.
    pub deliver_by_ms: Option<i64>,
    /// RFC 2852: `return` or `notify`.
    pub deliver_by: Option<String>,
    /// RFC 8689: REQUIRETLS.
    pub require_tls: bool,
    /// RFC 8689 §3: `TLS-Required: No`.
    #[serde(default)]
    pub tls_optional: bool,
    /// Its domains' shares that are left.
    pub shares: Vec<QueuedShare>,
    /// Domains whose share was not found: it moved while it was looked for, or too much waits
    /// there to look through.
    pub not_found: Vec<String>,
}

/// One domain's share of a message, with its recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedShare {
    /// The domain.
    pub domain: String,
    /// What it waits for.
    pub state: QueueState,
    /// When it is due, milliseconds since 1970; `None` where it is held.
    pub due_ms: Option<i64>,
    /// Tries to send it.
    pub tries: u32,
    /// The node that works on the domain now.
    pub node: Option<String>,
    /// Why the domain cannot be reached.
    pub trouble: Option<String>,
    /// Who has not got it yet.
    pub recipients: Vec<QueuedRecipient>,
}

/// A recipient that has not got a message yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRecipient {
    /// The address.
    pub address: String,
    /// RFC 3461 NOTIFY.
    pub notify: Option<String>,
    /// RFC 3461 ORCPT.
    pub original: Option<String>,
    /// RFC 3463's code of the last try.
    pub status: Option<String>,
    /// What the server said, or what happened instead.
    pub error: Option<String>,
    /// The server that said it.
    pub remote: Option<String>,
}

/// One page of the queue, by domain, then by when it is due. A page may be short, or empty, and not the
/// last.
///
/// # Errors
/// [`AdminError::Page`], [`AdminError::Name`], [`AdminError::NoMessage`] for what is no id.
pub async fn list(admin: &Admin, query: &QueueQuery) -> Result<Page<QueuedInfo>, AdminError> {
    let rows = query.limit.unwrap_or(ADMIN_PAGE_ROWS_MAX).clamp(1, ADMIN_PAGE_ROWS_MAX);
    let filter = Filter {
        domain: query.domain.clone(),
        sender: query.sender.clone(),
        older_than_seconds: query.older_than_seconds,
    };
    let mut walk = Walk::new(admin, &filter, query.after.as_deref())?;
    let mut domains = Domains::new(admin);
    let mut items = Vec::new();
    if let Some(id) = &query.id {
        let Found { record, shares, .. } = find(admin, parse_id(id)?).await?;
        let Some(record) = record else { return Ok(Page { items, next: None }) };
        for (domain, item, message) in shares {
            let row = Row { domain, item, message, record: Some(record.clone()) };
            if walk.matches(&row) {
                items.push(domains.info(row).await?);
            }
        }
        items.retain(|info| query.state.is_none_or(|state| state == info.state));
        return Ok(Page { items, next: None });
    }
    while let Some(row) = walk.next().await? {
        let info = domains.info(row).await?;
        if query.state.is_none_or(|state| state == info.state) {
            items.push(info);
            if items.len() == rows {
                walk.look_ahead().await?;
                break;
            }
        }
    }
    Ok(Page { items, next: walk.position() })
}

/// One message, with all that is known of it.
///
/// # Errors
/// [`AdminError::NoMessage`].
pub async fn show(admin: &Admin, id: &str) -> Result<QueuedMessage, AdminError> {
    let parsed = parse_id(id)?;
    let Found { record, shares, not_found } = find(admin, parsed).await?;
    let record = record.ok_or_else(|| AdminError::NoMessage(id.to_owned()))?;
    let nodes = node_names(&admin.db).await?;
    let mut domains = Domains::new(admin);
    let mut shown = Vec::new();
    for (domain, item, message) in shares {
        let zone = &domain;
        let state = |tx| async move { zone::state(&tx, Kind::Outbound, zone).await };
        let node = match admin.db.run(state).await? {
            Some(ZoneState::Claimed { by, .. }) => nodes.get(&by).cloned(),
            _ => None,
        };
        let known = domains.of(&domain).await?;
        let due = due(&item, &message, &known);
        let state = QueueState::of(&message, due, known.held_ms != 0, admin.env.wall());
        let trouble = known.is_trouble().then(|| told(&known.status, &known.reason));
        let recipients = message.recipients.into_iter().map(recipient).collect();
        shown.push(QueuedShare {
            state,
            due_ms: due_ms(due).filter(|_| state != QueueState::Held),
            tries: message.tries,
            node,
            trouble,
            recipients,
            domain,
        });
    }
    Ok(QueuedMessage {
        id: hex(&parsed),
        account: (record.account != 0).then_some(record.account),
        size: record.size,
        received_ms: record.received_ms,
        returns: match record.return_content {
            1 => Some("full".to_owned()),
            2 => Some("headers".to_owned()),
            _ => None,
        },
        hold_until_ms: (record.hold_until_ms != 0).then_some(record.hold_until_ms),
        priority: record.priority,
        deliver_by_ms: (record.deliver_by_mode != 0).then_some(record.deliver_by_ms),
        deliver_by: match record.deliver_by_mode {
            outbound::LATE_RETURNS => Some("return".to_owned()),
            outbound::LATE_NOTIFIES => Some("notify".to_owned()),
            _ => None,
        },
        require_tls: record.require_tls,
        tls_optional: record.tls_optional,
        sender: record.sender,
        envelope_id: record.envelope_id,
        shares: shown,
        not_found,
    })
}

fn recipient(recipient: outbound::OutboundRecipient) -> QueuedRecipient {
    let last = recipient.last.unwrap_or_default();
    let some = |text: String| (!text.is_empty()).then_some(text);
    QueuedRecipient {
        address: recipient.address,
        notify: recipient.notify,
        original: recipient.original,
        status: some(last.status),
        error: some(last.words),
        remote: some(last.remote),
    }
}

/// A row of the queue.
struct Row {
    domain: String,
    item: Item,
    message: OutboundItem,
    /// `None` where it is missing.
    record: Option<SubmissionRecord>,
}

impl Row {
    fn received_ms(&self) -> i64 {
        match (self.message.received_ms, &self.record) {
            (0, Some(record)) => record.received_ms,
            (received_ms, _) => received_ms,
        }
    }
}

/// A walk through the queue, in the order of its keys, for as far as one request may go.
struct Walk<'a> {
    admin: &'a Admin,
    domain: Option<String>,
    sender: Option<String>,
    received_before_ms: Option<i64>,
    /// Where the next slice begins.
    from: Option<Vec<u8>>,
    /// The key of the row that was given last.
    last: Option<Vec<u8>>,
    slice: std::vec::IntoIter<Row>,
    is_over: bool,
    rows: usize,
}

impl<'a> Walk<'a> {
    fn new(admin: &'a Admin, filter: &Filter, after: Option<&str>) -> Result<Self, AdminError> {
        let domain = filter.domain.as_deref().map(domain_name).transpose()?;
        let last = after.map(|after| place(after, domain.as_deref())).transpose()?;
        let before = |seconds: u64| {
            let ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
            admin.env.wall().unix_ms().saturating_sub(ms)
        };
        Ok(Self {
            admin,
            domain,
            sender: filter.sender.as_ref().map(|sender| match sender.as_str() {
                "<>" => String::new(),
                sender => sender.to_lowercase(),
            }),
            received_before_ms: filter.older_than_seconds.map(before),
            from: last.as_ref().map(|last| [&last[..], &[0]].concat()),
            last,
            slice: Vec::new().into_iter(),
            is_over: false,
            rows: 0,
        })
    }

    /// The next row that matches; `None` where there is none, or the request has read enough.
    async fn next(&mut self) -> Result<Option<Row>, AdminError> {
        loop {
            for row in self.slice.by_ref() {
                let key = item_key(&row);
                self.last = Some(key);
                if matches(&row, self.sender.as_deref(), self.received_before_ms) {
                    return Ok(Some(row));
                }
            }
            if self.is_over || self.rows >= QUEUE_ROWS_PER_REQUEST {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// Finds out whether the row that was given last is the last one of all.
    async fn look_ahead(&mut self) -> Result<(), AdminError> {
        if self.slice.len() == 0 && !self.is_over {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), AdminError> {
        let (domain, from) = (self.domain.as_deref(), self.from.as_deref());
        let read = |tx| async move { rows(&tx, domain, from).await };
        let Slice { rows, next } = self.admin.db.run(read).await?;
        self.rows += rows.len().max(1);
        self.is_over = next.is_none();
        self.from = next;
        self.slice = rows.into_iter();
        Ok(())
    }

    fn matches(&self, row: &Row) -> bool {
        let is_there = self.domain.as_ref().is_none_or(|domain| *domain == row.domain);
        is_there && matches(row, self.sender.as_deref(), self.received_before_ms)
    }

    /// Where another request goes on; `None` at the end.
    fn position(&self) -> Option<String> {
        let is_at_end = self.is_over && self.slice.len() == 0;
        self.last.as_ref().filter(|_| !is_at_end).map(Vec::as_slice).map(hex)
    }
}

fn matches(row: &Row, sender: Option<&str>, received_before_ms: Option<i64>) -> bool {
    let is_old = received_before_ms.is_none_or(|before| row.received_ms() <= before);
    let is_from = |sender: &str| {
        let from = row.record.as_ref().map(|record| record.sender.to_lowercase());
        from.is_some_and(|from| match sender.starts_with('@') {
            true => from.ends_with(sender),
            false => from == sender,
        })
    };
    is_old && sender.is_none_or(is_from)
}

/// Some rows, with their messages' records.
async fn rows(
    tx: &Transaction,
    domain: Option<&str>,
    from: Option<&[u8]>,
) -> Result<Slice<Row>, StoreError> {
    let Slice { rows, next } = zone::items_from(tx, Kind::Outbound, domain, from).await?;
    let read = rows.into_iter().map(|(domain, item)| async move {
        // One that cannot be read is listed without what it says: the check tells of it.
        let message = OutboundItem::decode(item.payload.clone()).unwrap_or_default();
        let record = match <[u8; 16]>::try_from(&message.submission[..]) {
            Ok(id) => outbound::submission(tx, &id).await?,
            Err(_) => None,
        };
        Ok::<_, StoreError>(Row { domain, item, message, record })
    });
    Ok(Slice { rows: try_join_all(read).await?, next })
}

/// What is known of the domains of one answer.
struct Domains<'a> {
    admin: &'a Admin,
    known: BTreeMap<String, DomainTrouble>,
}

impl<'a> Domains<'a> {
    fn new(admin: &'a Admin) -> Self {
        Self { admin, known: BTreeMap::new() }
    }

    async fn of(&mut self, domain: &str) -> Result<DomainTrouble, AdminError> {
        if let Some(known) = self.known.get(domain) {
            return Ok(known.clone());
        }
        let read = |tx| async move { domain::trouble(&tx, domain).await };
        let known = self.admin.db.run(read).await?.unwrap_or_default();
        // Rows come by domain: the last one is asked for again and again, the others are not.
        self.known.clear();
        self.known.insert(domain.to_owned(), known.clone());
        Ok(known)
    }

    async fn info(&mut self, row: Row) -> Result<QueuedInfo, AdminError> {
        let known = self.of(&row.domain).await?;
        let received_ms = row.received_ms();
        let Row { domain, item, message, record } = row;
        let last = message.recipients.iter().find_map(|recipient| recipient.last.as_ref());
        let error = match last {
            Some(last) if !message.waits_for_domain => Some(told(&last.status, &last.words)),
            last => {
                let of_domain = known.is_trouble().then(|| told(&known.status, &known.reason));
                of_domain.or_else(|| last.map(|last| told(&last.status, &last.words)))
            }
        };
        let now = self.admin.env.wall();
        let due = due(&item, &message, &known);
        let state = QueueState::of(&message, due, known.held_ms != 0, now);
        Ok(QueuedInfo {
            id: hex(&item.id),
            state,
            due_ms: due_ms(due).filter(|_| state != QueueState::Held),
            recipients: message.recipients.len() as u64,
            size: record.as_ref().map_or(0, |record| record.size),
            received_ms,
            tries: message.tries,
            sender: record.map(|record| record.sender),
            error,
            domain,
        })
    }
}

/// A message and what is left of it in the queue.
struct Found {
    record: Option<SubmissionRecord>,
    shares: Vec<(String, Item, OutboundItem)>,
    /// Domains whose share was not found.
    not_found: Vec<String>,
}

async fn find(admin: &Admin, id: [u8; 16]) -> Result<Found, AdminError> {
    find_within(admin, id, QUEUE_SEARCH_ROWS_MAX).await
}

/// The same, with so many rows read in search of shares that are not where they were put.
async fn find_within(admin: &Admin, id: [u8; 16], mut rows: usize) -> Result<Found, AdminError> {
    let id_here = &id;
    let read = |tx| async move { outbound::submission(&tx, id_here).await };
    let record = admin.db.run(read).await?;
    let mut found = Found { record, shares: Vec::new(), not_found: Vec::new() };
    let Some(record) = &found.record else { return Ok(found) };
    for domain in &record.domains {
        match search(admin, record, &id, domain, &mut rows).await? {
            Some((item, message)) => found.shares.push((domain.clone(), item, message)),
            None => found.not_found.push(domain.clone()),
        }
    }
    if record.domains.is_empty() {
        // A release that did not write them: the whole queue is looked through, as far as may be.
        let mut walk = Walk::new(admin, &Filter::default(), None)?;
        while let Some(row) = walk.next().await? {
            if row.item.id == id {
                found.shares.push((row.domain, row.item, row.message));
            }
        }
    }
    Ok(found)
}

/// Looks for a domain's share of a message: where it was put first, where it is when held, and then
/// among all, as long as there are rows left to be read.
async fn search(
    admin: &Admin,
    record: &SubmissionRecord,
    id: &[u8; 16],
    domain: &str,
    rows: &mut usize,
) -> Result<Option<(Item, OutboundItem)>, AdminError> {
    let likely = [first_due(record), Timestamp::from_unix_ms(HELD_DUE_MS)];
    let read = |tx: Transaction| async move {
        for due in likely {
            if let Some(item) = zone::item(&tx, Kind::Outbound, domain, due, id).await? {
                return Ok::<_, StoreError>(Some(item));
            }
        }
        Ok(None)
    };
    let mut found = admin.db.run(read).await?;
    let mut from = None::<Vec<u8>>;
    while found.is_none() && *rows > 0 {
        let begin = from.as_deref();
        let read =
            |tx| async move { zone::items_from(&tx, Kind::Outbound, Some(domain), begin).await };
        let Slice { rows: some, next } = admin.db.run(read).await?;
        *rows = rows.saturating_sub(some.len().max(1));
        found = some.into_iter().map(|(_, item)| item).find(|item| item.id == id);
        match next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    Ok(found.and_then(|item| {
        let message = OutboundItem::decode(item.payload.clone()).ok()?;
        Some((item, message))
    }))
}

/// When a message's shares were due at first.
fn first_due(record: &SubmissionRecord) -> Timestamp {
    outbound::first_due(&OutboundItem {
        received_ms: record.received_ms,
        hold_until_ms: record.hold_until_ms,
        priority: record.priority,
        ..OutboundItem::default()
    })
}

/// When a message is tried: what waits for its domain goes with the domain.
fn due(item: &Item, message: &OutboundItem, known: &DomainTrouble) -> Timestamp {
    match message.waits_for_domain && known.is_trouble() {
        true => item.due.min(Timestamp::from_unix_ms(known.retry_ms)),
        false => item.due,
    }
}

fn due_ms(due: Timestamp) -> Option<i64> {
    (due.unix_ms() != HELD_DUE_MS).then_some(due.unix_ms())
}

fn told(status: &str, words: &str) -> String {
    match words.contains(status) {
        true => words.to_owned(),
        false => format!("{status} {words}"),
    }
}

fn item_key(row: &Row) -> Vec<u8> {
    work::item_key(Kind::Outbound, &row.domain, row.item.due.unix_ms(), &row.item.id)
}

/// Where a page ended.
fn place(after: &str, domain: Option<&str>) -> Result<Vec<u8>, AdminError> {
    let key = unhex(after).filter(|key| {
        let (begin, end) = work::item_range(Kind::Outbound);
        let is_here = (begin..end).contains(key);
        let zone = work::zone_of(key);
        is_here && zone.is_some_and(|zone| domain.is_none_or(|domain| domain == zone))
    });
    key.ok_or_else(|| AdminError::Page(after.to_owned()))
}

/// A domain as zones are called; an address literal stays as it is.
fn domain_name(text: &str) -> Result<String, AdminError> {
    match text.starts_with('[') {
        true => Ok(text.to_lowercase()),
        false => Ok(crate::names::domain(text)?),
    }
}

fn parse_id(text: &str) -> Result<[u8; 16], AdminError> {
    let id = unhex(text).and_then(|bytes| bytes.try_into().ok());
    id.ok_or_else(|| AdminError::NoMessage(text.to_owned()))
}
