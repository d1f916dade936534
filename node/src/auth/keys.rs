//! Failed logins.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (RateCounter, hour, "a", network) | u64 LE | atomic ADD 1 at each failed login from the network; swept two hours later |
//! | (RateCounter, hour, "p", network, subject) | u64 LE | the same, of one subject from one network |
//! | (RateCounter, hour, "s", subject) | u64 LE | the same, of one subject from anywhere |
//!
//! `hour` is whole hours since the Unix epoch, first in the key, so that a sweep is one range.
//! `network` is the 4 bytes of an IPv4 address or the first 8 of an IPv6 address: who has one
//! address of a /64 has them all. `subject` is 16 bytes of a hash, of the account or of a name
//! that is no account's: people type passwords where the name belongs.

use std::net::IpAddr;

use kv::{Subspace, tuple::pack};

/// Where attempts come from: an IPv4 address, or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Network {
    /// The network of an address; `::ffff:192.0.2.1` is `192.0.2.1`.
    pub(super) fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

/// Whose password is being tried: a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject([u8; 16]);

impl Subject {
    pub(super) fn account(account: mail::AccountId) -> Self {
        Self::hash("account", &account.0.to_le_bytes())
    }

    pub(super) fn unknown(name: &str) -> Self {
        Self::hash("name", name.as_bytes())
    }

    fn hash(kind: &str, value: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes()).update(&[0]).update(value);
        let mut subject = [0; 16];
        hasher.finalize_xof().fill(&mut subject);
        Self(subject)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// (RateCounter, hour, "a", network)
pub(super) fn network_key(hour: u64, network: Network) -> Vec<u8> {
    pack(&(Subspace::RateCounter as u64, hour, "a", network.bytes()))
}

/// (RateCounter, hour, "p", network, subject)
pub(super) fn pair_key(hour: u64, network: Network, subject: Subject) -> Vec<u8> {
    pack(&(Subspace::RateCounter as u64, hour, "p", network.bytes(), &subject.0[..]))
}

/// (RateCounter, hour, "s", subject)
pub(super) fn subject_key(hour: u64, subject: Subject) -> Vec<u8> {
    pack(&(Subspace::RateCounter as u64, hour, "s", &subject.0[..]))
}

/// Every counter of the hours before `hour`.
pub(super) fn range_before(hour: u64) -> (Vec<u8>, Vec<u8>) {
    (Subspace::RateCounter.prefix(), pack(&(Subspace::RateCounter as u64, hour)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_ipv4_address_or_an_ipv6_64() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
    }

    #[test]
    fn a_sweep_takes_the_hours_before_and_no_other() {
        let (begin, end) = range_before(500_000);
        let network = Network::V4([192, 0, 2, 1]);
        let subject = Subject::unknown("a");
        for (hour, swept) in [(0, true), (1, true), (499_999, true), (500_000, false)] {
            for key in [
                network_key(hour, network),
                pair_key(hour, network, subject),
                subject_key(hour, subject),
            ] {
                assert_eq!(begin <= key && key < end, swept, "hour {hour}");
            }
        }
    }
}
