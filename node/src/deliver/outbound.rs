//! The outbound queue's records. What sends them: `crate::outbound`.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Submission, id) | [`SubmissionRecord`] | with the message's acceptance; cleared when no recipient is left |
//! | (Work, Outbound, "i", domain, due, id) | [`OutboundItem`] | one for each destination domain |
//! | (BlobReference, blob, "s", id) | empty | with the submission |
//! | (Submitted, day, id) | empty | with the submission; the days before yesterday go once a day |
//!
//! A transaction that enqueues may run again after it has committed unseen, and by then the message may
//! have been sent: so it finds by the last key that it has run.

use std::collections::BTreeMap;

use blob::BlobId;
use cluster::work::{self, Kind};
use env::Timestamp;
use kv::{Subspace, Transaction, tuple::pack};
use mail::{AccountId, StoreError, keys::encode_over};
use prost::Message;

use crate::limits::{PRIORITY_STEP_DOWN_MS, PRIORITY_STEP_MS};

/// A message for other servers.
#[derive(Clone)]
pub struct Submission {
    /// Random; also the id that the client is told.
    pub id: [u8; 16],
    /// The message.
    pub blob: BlobId,
    /// Bytes of the message.
    pub size: u64,
    /// Bytes at the message's front that are ours alone (Return-Path) and are not sent.
    pub skip: u64,
    /// RFC 5321 reverse-path; empty is the null path.
    pub sender: String,
    /// Who submitted it; `None` for reports and forwards.
    pub account: Option<AccountId>,
    /// When.
    pub received_at: Timestamp,
    /// RFC 3461 ENVID.
    pub envelope_id: Option<String>,
    /// RFC 3461 RET: the whole message in a failure report, or its header only.
    pub return_content: ReturnContent,
    /// What the client declared the content to be.
    pub body: Body,
    /// The client declared SMTPUTF8 (RFC 6531 §3.4).
    pub utf8: bool,
    /// How it wants to be handled.
    pub handling: Handling,
    /// Fields that other servers are sent in front of the message: its signatures.
    pub prepend: Vec<u8>,
    /// Who gets it.
    pub recipients: Vec<RemoteRecipient>,
}

/// How a message wants to be handled on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handling {
    /// It is not to leave before (RFC 4865).
    pub hold_until: Option<Timestamp>,
    /// RFC 6710.
    pub priority: smtp::Priority,
    /// RFC 2852.
    pub deliver_by: Option<Deadline>,
    /// RFC 8689.
    pub tls: TlsWish,
}

/// What a message wants of TLS on its way (RFC 8689).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsWish {
    /// What its recipients' domains want.
    #[default]
    Usual,
    /// REQUIRETLS: it must not leave but over TLS, to a server whose certificate was verified.
    Required,
    /// `TLS-Required: No`: it leaves whatever TLS comes to.
    Optional,
}

/// When a message must have been delivered (RFC 2852).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Timestamp,
    /// What becomes of it then.
    pub late: smtp::Late,
    /// Whether the sender is told of each hop that passes it on.
    pub trace: smtp::Trace,
}

/// What a failure report returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnContent {
    /// Not said.
    Unspecified,
    /// `RET=FULL`.
    Full,
    /// `RET=HDRS`.
    Headers,
}

/// What a message's content needs of the servers that pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    SevenBit,
    /// 8BITMIME (RFC 6152).
    EightBitMime,
    /// BINARYMIME (RFC 3030).
    BinaryMime,
}

impl Body {
    /// What a message needs that has these octets, and was declared to have at most such: whoever passes
    /// it on need not know what is not used.
    pub(crate) fn needed(self, has_8bit: bool) -> Self {
        match self {
            Self::EightBitMime if !has_8bit => Self::SevenBit,
            declared => declared,
        }
    }
}

/// A recipient elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRecipient {
    /// The address, folded: what names its domain and tells it from others.
    pub address: mail::directory::Address,
    /// The address to send to. Its local part is as the client wrote it, because only the
    /// domain's own servers may fold its case (RFC 5321 §2.4).
    pub written: String,
    /// RFC 3461 NOTIFY, as given.
    pub notify: Option<String>,
    /// RFC 3461 ORCPT, as given.
    pub original: Option<String>,
}

/// What the queue keeps of a message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SubmissionRecord {
    /// [`BlobId`] of the message.
    #[prost(bytes = "vec", tag = "1")]
    pub blob: Vec<u8>,
    /// Its bytes.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Bytes at its front that are not sent.
    #[prost(uint64, tag = "3")]
    pub skip: u64,
    /// Reverse-path; empty is the null path.
    #[prost(string, tag = "4")]
    pub sender: String,
    /// The submitting account; 0 for none.
    #[prost(uint64, tag = "5")]
    pub account: u64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "6")]
    pub received_ms: i64,
    /// RFC 3461 ENVID.
    #[prost(string, optional, tag = "7")]
    pub envelope_id: Option<String>,
    /// RFC 3461 RET: 0 unspecified, 1 full, 2 headers.
    #[prost(uint32, tag = "8")]
    pub return_content: u32,
    /// SMTPUTF8 was declared.
    #[prost(bool, tag = "9")]
    pub utf8: bool,
    /// Domains that still have recipients.
    #[prost(uint32, tag = "10")]
    pub domains_left: u32,
    /// RFC 6152 and 3030: 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    #[prost(uint32, tag = "11")]
    pub body: u32,
    /// The domains that still have recipients; none in records of a release that did not write
    /// them.
    #[prost(string, repeated, tag = "12")]
    pub domains: Vec<String>,
    /// RFC 4865: it is not to leave before, milliseconds since 1970; 0 where nothing was asked for.
    #[prost(int64, tag = "13")]
    pub hold_until_ms: i64,
    /// RFC 6710: -9 to 9.
    #[prost(sint32, tag = "14")]
    pub priority: i32,
    /// RFC 2852: when it must have been delivered, milliseconds since 1970.
    #[prost(int64, tag = "15")]
    pub deliver_by_ms: i64,
    /// RFC 2852: what becomes of it then: 0 nothing was asked for, 1 it is returned, 2 its sender is
    /// told.
    #[prost(uint32, tag = "16")]
    pub deliver_by_mode: u32,
    /// RFC 2852 §4.1.4: its sender is told of each hop that passes it on.
    #[prost(bool, tag = "17")]
    pub deliver_by_trace: bool,
    /// RFC 8689: it must not leave but over TLS, to a server whose certificate was verified.
    #[prost(bool, tag = "18")]
    pub require_tls: bool,
    /// RFC 8689 §3: it leaves whatever TLS comes to.
    #[prost(bool, tag = "21")]
    pub tls_optional: bool,
    /// Fields that are sent in front of the message; at most
    /// [`crate::limits::PREPENDED_BYTES_MAX`].
    #[prost(bytes = "vec", tag = "20")]
    pub prepend: Vec<u8>,
}

impl SubmissionRecord {
    /// What its content needs.
    pub(crate) fn body(&self) -> Body {
        match self.body {
            0 => Body::SevenBit,
            1 => Body::EightBitMime,
            _ => Body::BinaryMime,
        }
    }

    /// What a failure report returns.
    pub(crate) fn returns(&self) -> ReturnContent {
        match self.return_content {
            1 => ReturnContent::Full,
            2 => ReturnContent::Headers,
            _ => ReturnContent::Unspecified,
        }
    }

    /// What it wants of TLS.
    pub(crate) fn tls(&self) -> TlsWish {
        match (self.require_tls, self.tls_optional) {
            (true, _) => TlsWish::Required,
            (false, true) => TlsWish::Optional,
            (false, false) => TlsWish::Usual,
        }
    }
}

/// One destination domain's share of a message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutboundItem {
    /// The submission.
    #[prost(bytes = "vec", tag = "1")]
    pub submission: Vec<u8>,
    /// Its recipients in this domain.
    #[prost(message, repeated, tag = "2")]
    pub recipients: Vec<OutboundRecipient>,
    /// When the message was accepted, milliseconds since 1970; 0 in items of a release that did
    /// not write it.
    #[prost(int64, tag = "3")]
    pub received_ms: i64,
    /// Tries to send it.
    #[prost(uint32, tag = "4")]
    pub tries: u32,
    /// The sender has been told that it is late.
    #[prost(bool, tag = "5")]
    pub is_late_told: bool,
    /// It was put off because its domain could not be reached, and may go as soon as it can.
    #[prost(bool, tag = "6")]
    pub waits_for_domain: bool,
    /// Whether it is held: 0 not, 1 by itself, 2 with its domain. It is due at [`HELD_DUE_MS`] then.
    #[prost(uint32, tag = "7")]
    pub held: u32,
    /// As [`SubmissionRecord::hold_until_ms`], until somebody releases it earlier.
    #[prost(int64, tag = "8")]
    pub hold_until_ms: i64,
    /// As [`SubmissionRecord::priority`].
    #[prost(sint32, tag = "9")]
    pub priority: i32,
    /// As [`SubmissionRecord::deliver_by_ms`].
    #[prost(int64, tag = "10")]
    pub deliver_by_ms: i64,
    /// As [`SubmissionRecord::deliver_by_mode`].
    #[prost(uint32, tag = "11")]
    pub deliver_by_mode: u32,
    /// As [`SubmissionRecord::tls_optional`].
    #[prost(bool, tag = "12")]
    pub tls_optional: bool,
    /// Who has the message, and whose success is still to be reported: `last` names the server that took
    /// it. Beside [`recipients`](Self::recipients), so that no release sends it to them again.
    #[prost(message, repeated, tag = "13")]
    pub owed: Vec<OutboundRecipient>,
}

/// When what is held comes due: at the end of the year 9999. Only a release brings it back.
pub const HELD_DUE_MS: i64 = 253_402_300_799_000;

/// [`OutboundItem::held`]: by itself.
pub const HELD_ALONE: u32 = 1;

/// [`OutboundItem::held`]: with its domain.
pub const HELD_WITH_DOMAIN: u32 = 2;

/// [`SubmissionRecord::deliver_by_mode`]: a message that is late is returned.
pub const LATE_RETURNS: u32 = 1;

/// [`SubmissionRecord::deliver_by_mode`]: the sender of a message that is late is told.
pub const LATE_NOTIFIES: u32 = 2;

/// A recipient in the queue.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OutboundRecipient {
    /// The address as it is to be sent to.
    #[prost(string, tag = "1")]
    pub address: String,
    /// RFC 3461 NOTIFY.
    #[prost(string, optional, tag = "2")]
    pub notify: Option<String>,
    /// RFC 3461 ORCPT.
    #[prost(string, optional, tag = "3")]
    pub original: Option<String>,
    /// Why the last try did not deliver to it.
    #[prost(message, optional, tag = "4")]
    pub last: Option<Trouble>,
}

/// Why a recipient did not get a message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Trouble {
    /// RFC 3463's code.
    #[prost(string, tag = "1")]
    pub status: String,
    /// The server's reply, or what happened instead, for people.
    #[prost(string, tag = "2")]
    pub words: String,
    /// The server that replied; empty where none did.
    #[prost(string, tag = "3")]
    pub remote: String,
}

/// (Submission, id)
pub fn submission_key(id: &[u8; 16]) -> Vec<u8> {
    pack(&(Subspace::Submission as u64, &id[..]))
}

/// All of (Submission, …)
pub fn submission_range() -> (Vec<u8>, Vec<u8>) {
    kv::tuple::range_of(pack(&(Subspace::Submission as u64,)))
}

/// What is kept of a submission; `None` where it is gone.
///
/// # Errors
/// [`StoreError`].
pub async fn submission(
    tx: &Transaction,
    id: &[u8; 16],
) -> Result<Option<SubmissionRecord>, StoreError> {
    let value = tx.get(&submission_key(id)).await?;
    value.map(|value| decode_submission(&value)).transpose()
}

fn decode_submission(value: &[u8]) -> Result<SubmissionRecord, StoreError> {
    SubmissionRecord::decode(value).map_err(|error| StoreError::damaged("submission", error))
}

/// Notes that a domain of a submission's has no recipient left; with the last one the submission
/// goes.
///
/// # Errors
/// [`StoreError`].
pub async fn domain_done(
    tx: &Transaction,
    id: &[u8; 16],
    domain: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let key = submission_key(id);
    let Some(before) = tx.get(&key).await? else { return Ok(()) };
    let mut record = decode_submission(&before)?;
    record.domains_left = record.domains_left.saturating_sub(1);
    record.domains.retain(|left| left != domain);
    if record.domains_left > 0 {
        tx.set(&key, &encode_over(&record, &before));
        return Ok(());
    }
    tx.clear(&key);
    if let Some(blob) = BlobId::from_slice(&record.blob) {
        blob::references::remove(tx, blob, &blob::Owner::Submission(*id), now);
    }
    Ok(())
}

/// The id of a [`submission_key`]; `None` for a key that is none.
pub fn submission_of(key: &[u8]) -> Option<[u8; 16]> {
    let (_, id): (u64, kv::tuple::Bytes<'_>) = kv::tuple::unpack(key).ok()?;
    id[..].try_into().ok()
}

/// The blob of a submission's record; `None` where it cannot be decoded.
pub fn submission_blob(value: &[u8]) -> Option<BlobId> {
    BlobId::from_slice(&SubmissionRecord::decode(value).ok()?.blob)
}

/// (Submitted, day, id)
fn submitted_key(submission: &Submission) -> Vec<u8> {
    let day = day_of(submission.received_at);
    pack(&(Subspace::Submitted as u64, day, &submission.id[..]))
}

fn day_of(at: Timestamp) -> i64 {
    at.unix_seconds().div_euclid(86_400)
}

/// Forgets which submissions were put into the queue, where no transaction that did can run again.
pub(crate) fn forget_submitted(tx: &Transaction, now: Timestamp) {
    let (begin, _) = kv::tuple::range_of(pack(&(Subspace::Submitted as u64,)));
    let end = pack(&(Subspace::Submitted as u64, day_of(now) - 1));
    tx.clear_range(&begin, &end);
}

/// When an item is tried first: at once, or when it may leave. What has a higher priority is due
/// earlier by [`PRIORITY_STEP_MS`] for each step, so that it overtakes what has waited for
/// less; a lower one lets others overtake it.
pub(crate) fn first_due(item: &OutboundItem) -> Timestamp {
    let free = item.received_ms.max(item.hold_until_ms);
    let steps = i64::from(item.priority.clamp(-9, 9));
    // What waits for nothing but its turn is late by no more than people are told of.
    let step_ms = if steps > 0 { PRIORITY_STEP_MS } else { PRIORITY_STEP_DOWN_MS };
    Timestamp::from_unix_ms((free - steps * step_ms).max(item.hold_until_ms))
}

/// Puts a message into the queue, once, however often it runs.
///
/// # Errors
/// [`StoreError`]; [`StoreError::BlobGone`] where the message was put too long ago.
pub(crate) async fn enqueue(tx: &Transaction, submission: &Submission) -> Result<(), StoreError> {
    let submitted = submitted_key(submission);
    if tx.get(&submitted).await?.is_some() {
        env::sometimes!("a submission had been enqueued unseen");
        return Ok(());
    }
    tx.set(&submitted, &[]);
    let mut domains: BTreeMap<&str, Vec<OutboundRecipient>> = BTreeMap::new();
    for recipient in &submission.recipients {
        domains.entry(recipient.address.domain()).or_default().push(OutboundRecipient {
            address: recipient.written.clone(),
            notify: recipient.notify.clone(),
            original: recipient.original.clone(),
            last: None,
        });
    }
    let deadline = submission.handling.deliver_by;
    let record = SubmissionRecord {
        blob: submission.blob.to_bytes(),
        size: submission.size,
        skip: submission.skip,
        sender: submission.sender.clone(),
        account: submission.account.map_or(0, |account| account.0),
        received_ms: submission.received_at.unix_ms(),
        envelope_id: submission.envelope_id.clone(),
        return_content: match submission.return_content {
            ReturnContent::Unspecified => 0,
            ReturnContent::Full => 1,
            ReturnContent::Headers => 2,
        },
        utf8: submission.utf8,
        body: match submission.body {
            Body::SevenBit => 0,
            Body::EightBitMime => 1,
            Body::BinaryMime => 2,
        },
        domains_left: u32::try_from(domains.len()).unwrap_or(u32::MAX),
        domains: domains.keys().map(|domain| (*domain).to_owned()).collect(),
        hold_until_ms: submission.handling.hold_until.map_or(0, Timestamp::unix_ms),
        priority: submission.handling.priority.value().into(),
        deliver_by_ms: deadline.map_or(0, |deadline| deadline.at.unix_ms()),
        deliver_by_mode: deadline.map_or(0, |deadline| match deadline.late {
            smtp::Late::Return => LATE_RETURNS,
            smtp::Late::Notify => LATE_NOTIFIES,
        }),
        deliver_by_trace: deadline.is_some_and(|deadline| deadline.trace == smtp::Trace::Yes),
        require_tls: submission.handling.tls == TlsWish::Required,
        tls_optional: submission.handling.tls == TlsWish::Optional,
        prepend: submission.prepend.clone(),
    };
    tx.set(&submission_key(&submission.id), &record.encode_to_vec());
    let owner = blob::Owner::Submission(submission.id);
    blob::references::adopt(tx, submission.blob, &owner, submission.received_at).await?;
    for (domain, recipients) in domains {
        let item = OutboundItem {
            submission: submission.id.to_vec(),
            recipients,
            received_ms: submission.received_at.unix_ms(),
            tries: 0,
            is_late_told: false,
            waits_for_domain: false,
            held: 0,
            hold_until_ms: record.hold_until_ms,
            priority: record.priority,
            deliver_by_ms: record.deliver_by_ms,
            deliver_by_mode: record.deliver_by_mode,
            tls_optional: record.tls_optional,
            owed: Vec::new(),
        };
        let due = first_due(&item);
        let item = item.encode_to_vec();
        work::enqueue(tx, Kind::Outbound, domain, due, &submission.id, &item).await?;
    }
    Ok(())
}
