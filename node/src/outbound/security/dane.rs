//! Certificates that the DNS vouches for (RFC 6698, RFC 7671, RFC 7672): which records count, and
//! what one matches.

use dns::Tlsa;
use sha2::{Digest, Sha256, Sha512};

use crate::tls::public_key_info;

/// RFC 7671 §2.1: a trust anchor, and the server's own certificate.
const TRUST_ANCHOR: u8 = 2;
const END_ENTITY: u8 = 3;

/// RFC 6698 §2.1.2 and §2.1.3.
const CERTIFICATE: u8 = 0;
const PUBLIC_KEY: u8 = 1;
const FULL: u8 = 0;
const SHA_256: u8 = 1;
const SHA_512: u8 = 2;

/// What a server's certificate is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::outbound) struct Dane {
    /// The name that has the records (RFC 7672 §2.2.2).
    pub(in crate::outbound) base: String,
    /// Names of which a certificate below a trust anchor has to have one (RFC 7672 §3.2.2).
    pub(in crate::outbound) names: Vec<String>,
    /// At least one, all of them usable.
    pub(in crate::outbound) records: Vec<Tlsa>,
}

impl Dane {
    /// Those records that count; `None` where there are none.
    pub(in crate::outbound) fn new(
        base: String,
        names: Vec<String>,
        records: Vec<Tlsa>,
    ) -> Option<Self> {
        let records = usable(records);
        (!records.is_empty()).then_some(Self { base, names, records })
    }

    /// Whether a record says that this is the server's own certificate (DER).
    pub(super) fn is_end_entity(&self, certificate: &[u8]) -> bool {
        self.matches(END_ENTITY, certificate)
    }

    /// Whether a record says that this certificate (DER) vouches for the server's.
    pub(super) fn is_anchor(&self, certificate: &[u8]) -> bool {
        self.matches(TRUST_ANCHOR, certificate)
    }

    /// Trust anchors (DER) that stand in the records themselves: servers need not send these.
    pub(super) fn anchors(&self) -> impl Iterator<Item = &[u8]> {
        let whole =
            |it: &&Tlsa| (it.usage, it.selector, it.matching) == (TRUST_ANCHOR, CERTIFICATE, FULL);
        self.records.iter().filter(whole).map(|it| &it.data[..])
    }

    fn matches(&self, usage: u8, certificate: &[u8]) -> bool {
        self.records.iter().any(|record| record.usage == usage && is_of(record, certificate))
    }
}

fn is_of(record: &Tlsa, certificate: &[u8]) -> bool {
    let selected = match record.selector {
        CERTIFICATE => Some(certificate),
        _ => public_key_info(certificate),
    };
    let Some(selected) = selected else { return false };
    match record.matching {
        FULL => record.data == selected,
        SHA_256 => record.data == Sha256::digest(selected)[..],
        _ => record.data == Sha512::digest(selected)[..],
    }
}

/// The records that we understand and may go by. RFC 7672 §3.1.3: usages 0 and 1 are not for mail.
/// RFC 7671 §9: of digests, only the strongest of each usage and selector counts.
fn usable(mut records: Vec<Tlsa>) -> Vec<Tlsa> {
    records.retain(|it| {
        let length = match it.matching {
            FULL => !it.data.is_empty(),
            SHA_256 => it.data.len() == 32,
            SHA_512 => it.data.len() == 64,
            _ => false,
        };
        let is_known = matches!(it.usage, TRUST_ANCHOR | END_ENTITY)
            && matches!(it.selector, CERTIFICATE | PUBLIC_KEY);
        is_known && length
    });
    let strongest = |usage: u8, selector: u8, all: &[Tlsa]| {
        let same = all.iter().filter(|it| (it.usage, it.selector) == (usage, selector));
        same.map(|it| it.matching).max()
    };
    let all = records.clone();
    records.retain(|it| {
        it.matching == FULL || Some(it.matching) == strongest(it.usage, it.selector, &all)
    });
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, data: Vec<u8>) -> Tlsa {
        Tlsa { usage, selector, matching, data }
    }

    #[test]
    fn only_what_is_understood_counts() {
        let good =
            [record(3, 1, 1, vec![1; 32]), record(2, 0, 2, vec![1; 64]), record(2, 1, 0, vec![1])];
        assert_eq!(usable(good.to_vec()), good);
        for bad in [
            record(0, 1, 1, vec![1; 32]),
            record(1, 1, 1, vec![1; 32]),
            record(4, 1, 1, vec![1; 32]),
            record(3, 2, 1, vec![1; 32]),
            record(3, 1, 3, vec![1; 32]),
            record(3, 1, 1, vec![1; 31]),
            record(3, 1, 2, vec![1; 32]),
            record(3, 1, 0, Vec::new()),
        ] {
            assert_eq!(usable(vec![bad.clone()]), [], "{bad:?}");
        }
    }

    #[test]
    fn of_digests_the_strongest_counts() {
        let (weak, strong) = (record(3, 1, 1, vec![1; 32]), record(3, 1, 2, vec![1; 64]));
        let (other, full) = (record(3, 0, 1, vec![1; 32]), record(3, 1, 0, vec![1]));
        let all = vec![weak, strong.clone(), other.clone(), full.clone()];
        assert_eq!(usable(all), [strong, other, full]);
    }
}
