//! Zones to serve: `test.` is signed and has a child that is not, and one that is broken.

use std::collections::BTreeMap;

use env::Env;
use hickory_net::proto::{
    dnssec::{
        Algorithm, PublicKey, SigningKey, TBS,
        crypto::Ed25519SigningKey,
        rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG, sig::SigInput},
    },
    op::{Message, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType, SerialNumber,
        rdata::{CNAME, MX, NS, PTR, SOA, TLSA, TXT},
    },
};

use crate::server::reply;

pub(crate) const TTL: u32 = 3600;

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(crate) fn mx(preference: u16, exchange: &str) -> RData {
    RData::MX(MX::new(preference, name(exchange)))
}

pub(crate) fn a(address: &str) -> RData {
    RData::A(address.parse::<std::net::Ipv4Addr>().unwrap().into())
}

pub(crate) fn aaaa(address: &str) -> RData {
    RData::AAAA(address.parse::<std::net::Ipv6Addr>().unwrap().into())
}

pub(crate) fn txt(strings: &[&[u8]]) -> RData {
    RData::TXT(TXT::from_bytes(strings.to_vec()))
}

pub(crate) fn alias(target: &str) -> RData {
    RData::CNAME(CNAME(name(target)))
}

pub(crate) fn ptr(target: &str) -> RData {
    RData::PTR(PTR(name(target)))
}

pub(crate) fn tlsa(usage: u8, data: &[u8]) -> RData {
    RData::TLSA(TLSA::new(usage.into(), 1.into(), 1.into(), data.to_vec()))
}

/// What is wrong with a zone's signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Signing {
    #[default]
    Right,
    /// Signatures over something else.
    Wrong,
    /// Valid until yesterday.
    Expired,
    /// Left out, although the zone is signed.
    Missing,
}

type Names = BTreeMap<Name, Vec<RData>>;

/// All that is served. `test.` is signed by the trust anchor, `plain.test.` is delegated unsigned.
pub(crate) struct World {
    key: Ed25519SigningKey,
    names: Names,
    now: u32,
    /// By owner; [`Signing::Right`] for others.
    pub(crate) signing: BTreeMap<Name, Signing>,
}

impl World {
    pub(crate) fn new(env: &Env, records: &[(&str, RData)]) -> Self {
        let der = Ed25519SigningKey::generate_pkcs8().unwrap();
        let key = Ed25519SigningKey::from_pkcs8(&der).unwrap();
        let mut names = Names::new();
        for (owner, data) in records {
            names.entry(name(owner)).or_default().push(data.clone());
        }
        let dnskey = DNSKEY::from_key(&key.to_public_key().unwrap());
        let apex = names.entry(name("test.")).or_default();
        apex.push(RData::DNSSEC(DNSSECRData::DNSKEY(dnskey)));
        apex.push(RData::NS(NS(name("ns.test."))));
        apex.push(soa());
        let child = names.entry(name("plain.test.")).or_default();
        child.push(RData::NS(NS(name("ns.plain.test."))));
        child.push(soa());
        let now = u32::try_from(env.wall().unix_seconds()).unwrap();
        Self { key, names, now, signing: BTreeMap::new() }
    }

    /// The trust anchor, as a zone file has it.
    pub(crate) fn anchor(&self) -> String {
        let key = self.key.to_public_key().unwrap();
        format!("test. 3600 IN DNSKEY 257 3 15 {}\n", base64(key.public_bytes()))
    }

    /// The records of a wildcard, signed as such and put in place of it.
    pub(crate) fn expanded(&self, wildcard: &str, owner: &str) -> Vec<Record> {
        let of = name(wildcard);
        let mut records = self.sign(&of, self.names[&of].clone());
        for record in &mut records {
            record.name = name(owner);
        }
        records
    }

    /// An unsigned SOA of a zone that is unsigned.
    pub(crate) fn plain_soa(&self) -> Vec<Record> {
        self.rrset(&name("plain.test."), vec![soa()])
    }

    /// The signed denial of a name.
    pub(crate) fn denial(&self, owner: &str) -> Vec<Record> {
        let covering = self.covering(&name(owner));
        let nsec = self.nsec(&covering);
        self.sign(&covering, vec![nsec])
    }

    fn is_plain(owner: &Name) -> bool {
        name("plain.test.").zone_of(owner)
    }

    fn zone_of(owner: &Name) -> Name {
        name(if Self::is_plain(owner) { "plain.test." } else { "test." })
    }

    /// What a recursive server says that validates nothing.
    pub(crate) fn answer(&self, query: &Message) -> Message {
        let mut reply = reply(query);
        let question = query.queries[0].clone();
        let mut owner = question.name().clone();
        loop {
            let data = self.names.get(&owner);
            let of = |kind: RecordType| -> Vec<RData> {
                let is = |data: &&RData| data.record_type() == kind;
                data.into_iter().flatten().filter(is).cloned().collect()
            };
            let found = of(question.query_type());
            if !found.is_empty() {
                reply.add_answers(self.rrset(&owner, found));
                return reply;
            }
            let aliases = of(RecordType::CNAME);
            let Some(RData::CNAME(target)) = aliases.first().cloned() else { break };
            reply.add_answers(self.rrset(&owner, aliases));
            owner = target.0;
            if reply.answers.len() > 10 {
                return reply;
            }
        }
        self.deny(&mut reply, &owner, &question);
        reply
    }

    fn deny(&self, reply: &mut Message, owner: &Name, question: &Query) {
        let exists = self.names.keys().any(|known| owner.zone_of(known));
        if !exists {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        let signed_denial = question.query_type() == RecordType::DS || !Self::is_plain(owner);
        let zone = if signed_denial { name("test.") } else { Self::zone_of(owner) };
        reply.add_authorities(self.rrset(&zone, vec![soa()]));
        if signed_denial {
            let mut owners = vec![self.covering(owner)];
            if !exists {
                owners.push(self.covering(&name("*.test.")));
            }
            owners.dedup();
            for owner in owners {
                let nsec = self.nsec(&owner);
                reply.add_authorities(self.sign(&owner, vec![nsec]));
            }
        }
    }

    /// The names of the signed zone, its delegation included.
    fn owners(&self) -> Vec<&Name> {
        let inside = |owner: &&Name| **owner == name("plain.test.") || !Self::is_plain(owner);
        self.names.keys().filter(inside).collect()
    }

    fn covering(&self, owner: &Name) -> Name {
        let owners = self.owners();
        let before = owners.iter().rev().find(|known| **known <= owner);
        (*before.unwrap_or(owners.last().unwrap())).clone()
    }

    fn nsec(&self, owner: &Name) -> RData {
        let owners = self.owners();
        let place = owners.iter().position(|known| *known == owner).unwrap();
        let next = owners.get(place + 1).unwrap_or(&owners[0]);
        let delegation = *owner == name("plain.test.");
        let kinds = self.names[owner].iter().map(RData::record_type);
        let kinds = kinds.filter(|kind| !delegation || *kind == RecordType::NS);
        let nsec = NSEC::new_cover_self((*next).clone(), kinds);
        RData::DNSSEC(DNSSECRData::NSEC(nsec))
    }

    fn rrset(&self, owner: &Name, data: Vec<RData>) -> Vec<Record> {
        if Self::is_plain(owner) {
            return data.into_iter().map(|it| Record::from_rdata(owner.clone(), TTL, it)).collect();
        }
        self.sign(owner, data)
    }

    fn sign(&self, owner: &Name, data: Vec<RData>) -> Vec<Record> {
        let signing = self.signing.get(owner).copied().unwrap_or_default();
        let kind = data[0].record_type();
        let mut records: Vec<Record> =
            data.into_iter().map(|it| Record::from_rdata(owner.clone(), TTL, it)).collect();
        let key = self.key.to_public_key().unwrap();
        let day = 24 * 3600;
        let expiry = if signing == Signing::Expired { self.now - day } else { self.now + day };
        let input = SigInput {
            type_covered: kind,
            algorithm: Algorithm::ED25519,
            num_labels: owner.num_labels(),
            original_ttl: TTL,
            sig_expiration: SerialNumber::new(expiry),
            sig_inception: SerialNumber::new(self.now - 7 * day),
            key_tag: DNSKEY::from_key(&key).calculate_key_tag().unwrap(),
            signer_name: name("test."),
        };
        let tbs = TBS::from_input(owner, DNSClass::IN, &input, records.iter()).unwrap();
        let mut signature = self.key.sign(&tbs).unwrap();
        match signing {
            Signing::Missing => return records,
            Signing::Wrong => signature[7] ^= 1,
            Signing::Right | Signing::Expired => {}
        }
        let rrsig = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, signature)));
        records.push(Record::from_rdata(owner.clone(), TTL, rrsig));
        records
    }
}

pub(crate) fn soa() -> RData {
    RData::SOA(SOA::new(name("ns.test."), name("root.test."), 1, 3600, 600, 86_400, 300))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            let padding = digit > chunk.len();
            text.push(if padding { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}
