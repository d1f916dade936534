//! Domains and addresses.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Directory, "d", domain) | [`Domain`] | by administration; removable when no address is left |
//! | (Directory, "a", domain, local) | [`AddressRecord`] | by administration; an account's goes with it |
//!
//! Domains are A-labels in lower case, local parts in lower case: `Bob@` and `bob@` are one
//! address here, as every provider has it (RFC 5321 §2.4 leaves it to the receiving host).

use kv::{Subspace, tuple::pack};

/// A domain that we take mail for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Domain {
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "1")]
    pub created_ms: i64,
    /// Where mail goes whose address does not exist.
    #[prost(string, optional, tag = "2")]
    pub catch_all: Option<String>,
}

/// What an address stands for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddressRecord {
    /// Exactly one.
    #[prost(oneof = "Target", tags = "1, 2, 3")]
    pub target: Option<Target>,
}

/// Where mail to an address goes.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Target {
    /// To this account; the address is its login name.
    #[prost(uint64, tag = "1")]
    Account(u64),
    /// To other addresses, ours or elsewhere; our accounts among them may send from it.
    #[prost(message, tag = "2")]
    Alias(Addresses),
    /// To the members; nobody sends from it.
    #[prost(message, tag = "3")]
    Group(Addresses),
}

/// A list of addresses.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Addresses {
    /// `local@domain`.
    #[prost(string, repeated, tag = "1")]
    pub addresses: Vec<String>,
}

/// (Directory, "d", domain)
pub fn domain_key(domain: &str) -> Vec<u8> {
    pack(&(Subspace::Directory as u64, "d", domain))
}

/// All domains.
pub fn domain_range() -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::Directory as u64, "d")))
}

/// (Directory, "a", domain, local)
pub fn address_key(domain: &str, local: &str) -> Vec<u8> {
    pack(&(Subspace::Directory as u64, "a", domain, local))
}

/// All addresses of one domain, or of all.
pub fn address_range(domain: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    super::range_of(match domain {
        Some(domain) => pack(&(Subspace::Directory as u64, "a", domain)),
        None => pack(&(Subspace::Directory as u64, "a")),
    })
}
