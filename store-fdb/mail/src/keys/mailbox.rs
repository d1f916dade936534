//! Mailboxes and the numbers they hand out.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Mailbox, A, M) | [`MailboxRecord`] | created, renamed, then marked `deleting` until its contents are gone |
//! | (Mailbox, A, "n", parent, name) | M, u32 LE | the name's index; cleared as soon as the mailbox is to be deleted |
//! | (Next, A, "m") | next MailboxId, u32 LE | read and written at creation |
//! | (Next, A, "v") | last UIDVALIDITY, u32 LE | read and written at creation, so that no name gets one twice |
//! | (Next, A, "e") | next EmailId, u32 LE | read and written by each unit that appends |
//! | (Next, A, "u", M) | next UID, u32 LE | read and written by each unit that adds to M |
//! | (Meta, "uid-validity") | [`ValidityClock`] | with the store's first restore; set ahead by each further one |

use kv::{Subspace, tuple::pack};

use crate::{AccountId, MailboxId};

/// A mailbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MailboxRecord {
    /// One component of the path, UTF-8, NFC where the client sent it so.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The parent's id.
    #[prost(uint32, optional, tag = "2")]
    pub parent: Option<u32>,
    /// `inbox`, `drafts`, …: JMAP's role (RFC 8621 §2), IMAP's special use (RFC 6154).
    #[prost(string, optional, tag = "3")]
    pub role: Option<String>,
    /// RFC 9051 §2.3.1.1.
    #[prost(uint32, tag = "4")]
    pub uid_validity: u32,
    /// The owner has subscribed to it.
    #[prost(bool, tag = "5")]
    pub subscribed: bool,
    /// Rights of others (RFC 4314), by identifier.
    #[prost(message, repeated, tag = "6")]
    pub acl: Vec<AclEntry>,
    /// The name is free again; the contents are being removed.
    #[prost(bool, tag = "7")]
    pub deleting: bool,
}

/// One identifier's rights.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AclEntry {
    /// Who.
    #[prost(string, tag = "1")]
    pub identifier: String,
    /// RFC 4314's letters.
    #[prost(string, tag = "2")]
    pub rights: String,
}

/// The clock that new UIDVALIDITYs are taken from.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ValidityClock {
    /// How far it is ahead of the time.
    #[prost(uint32, tag = "1")]
    pub ahead_seconds: u32,
}

/// (Mailbox, A, M)
pub fn key(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    pack(&(Subspace::Mailbox as u64, account.0, mailbox.0))
}

/// All of (Mailbox, A, M). The name index sorts before numbers and is not in it.
pub fn range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    let begin = pack(&(Subspace::Mailbox as u64, account.0, 0_u32));
    let (_, end) = super::range_of(pack(&(Subspace::Mailbox as u64, account.0)));
    (begin, end)
}

/// The mailbox of a [`key`].
pub fn mailbox_of(key: &[u8]) -> Option<MailboxId> {
    let (_, _, mailbox): (u64, u64, u32) = kv::tuple::unpack(key).ok()?;
    Some(MailboxId(mailbox))
}

/// (Mailbox, A, "n", parent, name). The parent of a top-level mailbox stands as -1.
pub fn name_key(account: AccountId, parent: Option<MailboxId>, name: &str) -> Vec<u8> {
    let parent = parent.map_or(-1, |parent| i64::from(parent.0));
    pack(&(Subspace::Mailbox as u64, account.0, "n", parent, name))
}

/// All of (Mailbox, A, "n", …)
pub fn name_range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Mailbox as u64, account.0, "n")))
}

/// (Next, A, "m")
pub fn next_mailbox_key(account: AccountId) -> Vec<u8> {
    pack(&(Subspace::Next as u64, account.0, "m"))
}

/// (Next, A, "v")
pub fn last_uid_validity_key(account: AccountId) -> Vec<u8> {
    pack(&(Subspace::Next as u64, account.0, "v"))
}

/// (Meta, "uid-validity")
pub fn validity_clock_key() -> Vec<u8> {
    pack(&(Subspace::Meta as u64, "uid-validity"))
}

/// (Next, A, "e")
pub fn next_email_key(account: AccountId) -> Vec<u8> {
    pack(&(Subspace::Next as u64, account.0, "e"))
}

/// (Next, A, "u", M)
pub fn next_uid_key(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    pack(&(Subspace::Next as u64, account.0, "u", mailbox.0))
}

/// All of (Next, A, …)
pub fn next_range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Next as u64, account.0)))
}

/// A key of the numbers handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextKey {
    /// [`next_mailbox_key`].
    Mailbox,
    /// [`last_uid_validity_key`].
    UidValidity,
    /// [`next_email_key`].
    Email,
    /// [`next_uid_key`].
    Uid(MailboxId),
}

impl NextKey {
    /// `None` for a key that is none of this family's.
    pub fn parse(key: &[u8]) -> Option<Self> {
        if let Ok((_, _, kind, mailbox)) = kv::tuple::unpack::<(u64, u64, String, u32)>(key) {
            return (kind == "u").then_some(Self::Uid(MailboxId(mailbox)));
        }
        let (_, _, kind): (u64, u64, String) = kv::tuple::unpack(key).ok()?;
        match kind.as_str() {
            "m" => Some(Self::Mailbox),
            "v" => Some(Self::UidValidity),
            "e" => Some(Self::Email),
            _ => None,
        }
    }
}
