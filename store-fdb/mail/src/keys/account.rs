//! Accounts.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Account, A) | [`Account`] | written at creation, rewritten by administration, marked `deleting`, then cleared last at deletion |
//! | (Account) | next account id, u64 LE | atomic ADD at each creation; never cleared, so ids are never reused |
//! | (Credential, A) | [`Credential`] | written with each new password |

use kv::{Subspace, tuple::pack};

use crate::AccountId;

/// An account's settings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Account {
    /// The login name: the primary address, lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A person's name for it.
    #[prost(string, tag = "2")]
    pub description: String,
    /// Bytes of mail the account may hold; 0 is without limit.
    #[prost(uint64, tag = "3")]
    pub quota_bytes: u64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "4")]
    pub created_ms: i64,
    /// Logins are refused; mail is still taken in.
    #[prost(bool, tag = "5")]
    pub login_disabled: bool,
    /// Its address is gone and its data is going; nothing uses it any more.
    #[prost(bool, tag = "6")]
    pub deleting: bool,
}

/// What proves that a client may use the account. Never the password itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credential {
    /// Argon2id in PHC string format.
    #[prost(string, tag = "1")]
    pub argon2: String,
    /// For SCRAM-SHA-256 (RFC 5802, RFC 7677).
    #[prost(message, optional, tag = "2")]
    pub scram_sha256: Option<ScramCredential>,
}

/// RFC 5802 §3: what a server keeps of a password.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScramCredential {
    /// Random, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub salt: Vec<u8>,
    /// PBKDF2 rounds.
    #[prost(uint32, tag = "2")]
    pub iterations: u32,
    /// H(ClientKey).
    #[prost(bytes = "vec", tag = "3")]
    pub stored_key: Vec<u8>,
    /// HMAC(SaltedPassword, "Server Key").
    #[prost(bytes = "vec", tag = "4")]
    pub server_key: Vec<u8>,
}

/// (Account, A)
pub fn key(account: AccountId) -> Vec<u8> {
    pack(&(Subspace::Account as u64, account.0))
}

/// Every account's key, in id order.
pub fn range() -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Account as u64,)))
}

/// (Account): the next account's id.
pub fn next_id_key() -> Vec<u8> {
    pack(&(Subspace::Account as u64,))
}

/// The account of an [`key`].
pub fn account_of(key: &[u8]) -> Option<AccountId> {
    let (_, account): (u64, u64) = kv::tuple::unpack(key).ok()?;
    Some(AccountId(account))
}

/// (Credential, A)
pub fn credential_key(account: AccountId) -> Vec<u8> {
    pack(&(Subspace::Credential as u64, account.0))
}
