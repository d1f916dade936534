//! Threads.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Thread, A, "k", hash, E) | thread, u32 LE | written with E for each of its message ids, cleared with E |
//! | (Thread, A, "t", T, E) | empty | thread T's members; written and cleared with E |
//!
//! The hash is XXH3-64 of message id and base subject, so that a reply whose subject was changed
//! begins a thread of its own (RFC 8621 §3). Two ids that collide join two threads of one
//! account, with odds of 2⁻⁴⁰ for a million messages.

use kv::{Subspace, tuple::pack};

use crate::{AccountId, EmailId, ThreadId};

/// The hash of one message id under a base subject.
pub fn hash(message_id: &str, base_subject: &str) -> u64 {
    let mut bytes = Vec::with_capacity(message_id.len() + base_subject.len() + 1);
    bytes.extend_from_slice(message_id.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(base_subject.as_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// (Thread, A, "k", hash, E)
pub fn key(account: AccountId, hash: u64, email: EmailId) -> Vec<u8> {
    pack(&(Subspace::Thread as u64, account.0, "k", hash, email.0))
}

/// All of (Thread, A, "k", hash, …)
pub fn range(account: AccountId, hash: u64) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Thread as u64, account.0, "k", hash)))
}

/// (Thread, A, "t", T, E)
pub fn member_key(account: AccountId, thread: ThreadId, email: EmailId) -> Vec<u8> {
    pack(&(Subspace::Thread as u64, account.0, "t", thread.0, email.0))
}

/// All of (Thread, A, "t", T, …)
pub fn member_range(account: AccountId, thread: ThreadId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Thread as u64, account.0, "t", thread.0)))
}

/// All of (Thread, A, …)
pub fn all_range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Thread as u64, account.0)))
}

/// A key of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadKey {
    /// [`key`]: hash and email.
    MessageId(u64, EmailId),
    /// [`member_key`].
    Member(ThreadId, EmailId),
}

impl ThreadKey {
    /// `None` for a key that is none of this family's.
    pub fn parse(account: AccountId, key: &[u8]) -> Option<Self> {
        if let Some(rest) = key.strip_prefix(&pack(&(Subspace::Thread as u64, account.0, "k"))[..])
        {
            let (hash, email) = super::split_integer(rest)?;
            let (email,): (u32,) = kv::tuple::unpack(email).ok()?;
            return Some(Self::MessageId(hash, EmailId(email)));
        }
        let (_, _, kind, thread, email): (u64, u64, String, u32, u32) =
            kv::tuple::unpack(key).ok()?;
        (kind == "t").then_some(Self::Member(ThreadId(thread), EmailId(email)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let account = AccountId(700);
        for hash in [0, 1, 255, 256, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX] {
            let expected = ThreadKey::MessageId(hash, EmailId(9));
            let key = key(account, hash, EmailId(9));
            assert_eq!(ThreadKey::parse(account, &key), Some(expected));
            for end in 0..key.len() {
                assert_eq!(ThreadKey::parse(account, &key[..end]), None);
            }
        }
        let key = member_key(account, ThreadId(8), EmailId(9));
        let expected = ThreadKey::Member(ThreadId(8), EmailId(9));
        assert_eq!(ThreadKey::parse(account, &key), Some(expected));
    }
}
