//! The account's log.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Log, A) | the horizon: u64 LE | set by each trim; the log is whole above it |
//! | (Log, A, versionstamp) | [`LogEntry`] | one a transaction, more where the changes outgrow a value; trimmed past a horizon once every cursor is past |

use kv::{Subspace, tuple};

use super::email::Membership;
use crate::AccountId;

/// What one transaction changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogEntry {
    /// Emails, each at most once in one transaction.
    #[prost(message, repeated, tag = "1")]
    pub emails: Vec<EmailChange>,
    /// Mailboxes.
    #[prost(message, repeated, tag = "2")]
    pub mailboxes: Vec<MailboxChange>,
}

/// An email before and after. Holds enough to undo and redo it in a view.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EmailChange {
    /// The email.
    #[prost(uint32, tag = "1")]
    pub email: u32,
    /// Its thread.
    #[prost(uint32, tag = "2")]
    pub thread: u32,
    /// Its bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Its INTERNALDATE, ms since the Unix epoch.
    #[prost(int64, tag = "4")]
    pub received_ms: i64,
    /// MODSEQ before; 0 where it did not exist.
    #[prost(uint64, tag = "5")]
    pub modseq_before: u64,
    /// Where it was; empty: it is new.
    #[prost(message, repeated, tag = "6")]
    pub before: Vec<Membership>,
    /// Where it is; empty: it is gone.
    #[prost(message, repeated, tag = "7")]
    pub after: Vec<Membership>,
    /// Keywords before.
    #[prost(string, repeated, tag = "8")]
    pub keywords_before: Vec<String>,
    /// Keywords after.
    #[prost(string, repeated, tag = "9")]
    pub keywords_after: Vec<String>,
}

/// A change to a mailbox's record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MailboxChange {
    /// The mailbox.
    #[prost(uint32, tag = "1")]
    pub mailbox: u32,
    /// What happened.
    #[prost(enumeration = "MailboxChangeKind", tag = "2")]
    pub kind: i32,
}

/// What happened to a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MailboxChangeKind {
    /// Made.
    Created = 0,
    /// Renamed, moved, subscribed, or given another role.
    Updated = 1,
    /// Its name is free; it no longer shows.
    Destroyed = 2,
}

/// (Log, A): the version up to which the log has been trimmed.
pub fn horizon_key(account: AccountId) -> Vec<u8> {
    tuple::pack(&(Subspace::Log as u64, account.0))
}

/// The entries with a commit version of at most `version`.
pub fn range_up_to(account: AccountId, version: u64) -> (Vec<u8>, Vec<u8>) {
    let (begin, _) = super::range_of(tuple::pack(&(Subspace::Log as u64, account.0)));
    let (end, _) = range_after(account, version);
    (begin, end)
}

/// The key for `SET_VERSIONSTAMPED_KEY`; `order` tells the entries of one transaction apart.
pub fn key_for_commit(account: AccountId, order: u16) -> Vec<u8> {
    let stamp = tuple::Versionstamp::incomplete(order);
    tuple::pack_with_versionstamp(&(Subspace::Log as u64, account.0, stamp))
}

/// The entries with a commit version above `version`.
pub fn range_after(account: AccountId, version: u64) -> (Vec<u8>, Vec<u8>) {
    let mut stamp = [0; 10];
    stamp[..8].copy_from_slice(&version.saturating_add(1).to_be_bytes());
    let first = tuple::Versionstamp::complete(stamp, 0);
    let (_, end) = super::range_of(tuple::pack(&(Subspace::Log as u64, account.0)));
    (tuple::pack(&(Subspace::Log as u64, account.0, first)), end)
}

/// The commit version of an entry's key.
pub fn version_of(key: &[u8]) -> Option<u64> {
    let (_, _, stamp): (u64, u64, tuple::Versionstamp) = tuple::unpack(key).ok()?;
    stamp.as_bytes().first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}
