//! Checkpoints of mailbox views.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (ViewHeader, A, M) | [`ViewHeader`] | rewritten when the log's tail grows; never the truth |
//! | (ViewPage, A, M, n) | [`ViewPage`]: the messages with UIDs n·2048+1 … (n+1)·2048 | rewritten when they changed since |
//! | (ViewPage, A, M, n, part) | what of the page's record did not fit the key above, and the parts before | with the page |

use kv::{Subspace, tuple::pack};

use crate::{AccountId, MailboxId};

/// A mailbox at one version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ViewHeader {
    /// Every commit up to this version is in it, none above.
    #[prost(uint64, tag = "1")]
    pub as_of: u64,
    /// The newest version that changed this mailbox.
    #[prost(uint64, tag = "2")]
    pub highest_modseq: u64,
    /// One past the highest UID that was ever visible.
    #[prost(uint32, tag = "3")]
    pub uid_next: u32,
    /// Pages with messages, in order.
    #[prost(message, repeated, tag = "4")]
    pub pages: Vec<PageSummary>,
    /// Pages of a checkpoint of this version, whose header is still to come, may have been
    /// written; 0 where none.
    #[prost(uint64, tag = "5")]
    pub writing_as_of: u64,
}

/// What SELECT needs to know of a page.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PageSummary {
    /// Its number.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Messages in it.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// Of them without `$seen`.
    #[prost(uint32, tag = "3")]
    pub unseen: u32,
}

/// A page's messages in columns, in UID order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ViewPage {
    /// The version it was written for.
    #[prost(uint64, tag = "1")]
    pub as_of: u64,
    /// UID less the page's first.
    #[prost(uint32, repeated, tag = "2")]
    pub uid_offsets: Vec<u32>,
    /// Email ids.
    #[prost(uint32, repeated, tag = "3")]
    pub emails: Vec<u32>,
    /// Thread ids.
    #[prost(uint32, repeated, tag = "4")]
    pub threads: Vec<u32>,
    /// MODSEQs, each less the one before (zigzag).
    #[prost(sint64, repeated, tag = "5")]
    pub modseq_deltas: Vec<i64>,
    /// INTERNALDATEs in ms, each less the one before (zigzag).
    #[prost(sint64, repeated, tag = "6")]
    pub received_deltas: Vec<i64>,
    /// Bytes.
    #[prost(uint64, repeated, tag = "7")]
    pub sizes: Vec<u64>,
    /// Index into `flag_sets`.
    #[prost(uint32, repeated, tag = "8")]
    pub flags: Vec<u32>,
    /// The distinct sets of flags in this page.
    #[prost(message, repeated, tag = "9")]
    pub flag_sets: Vec<FlagSet>,
}

/// A set of flags that messages share.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FlagSet {
    /// Sorted keywords.
    #[prost(string, repeated, tag = "1")]
    pub keywords: Vec<String>,
    /// `\Deleted`.
    #[prost(bool, tag = "2")]
    pub deleted: bool,
}

/// (ViewHeader, A, M)
pub fn header_key(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    pack(&(Subspace::ViewHeader as u64, account.0, mailbox.0))
}

/// (ViewPage, A, M, n)
pub fn page_key(account: AccountId, mailbox: MailboxId, number: u32) -> Vec<u8> {
    pack(&(Subspace::ViewPage as u64, account.0, mailbox.0, number))
}

/// (ViewPage, A, M, n, part): bytes of the record behind those of the part before, from 1.
pub fn page_part_key(account: AccountId, mailbox: MailboxId, number: u32, part: u32) -> Vec<u8> {
    pack(&(Subspace::ViewPage as u64, account.0, mailbox.0, number, part))
}

/// One page with its parts, in order.
pub fn page_parts_range(account: AccountId, mailbox: MailboxId, number: u32) -> (Vec<u8>, Vec<u8>) {
    let key = page_key(account, mailbox, number);
    let (_, end) = super::range_of(key.clone());
    (key, end)
}

/// All pages of a mailbox.
pub fn page_range(account: AccountId, mailbox: MailboxId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::ViewPage as u64, account.0, mailbox.0)))
}
