//! What the validator's word is worth: where it lets too much through, and where too little.

use hickory_net::proto::{
    dnssec::{
        Proof,
        rdata::{DNSSECRData, NSEC, RRSIG},
    },
    op::{DnsResponse, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

use crate::{
    answer::{LookupError, Security},
    chain::{self, Reply},
};

/// What the validator lets through, where it has nothing against it.
///
/// Where all of the authority section is from insecure zones, it asks for no denial, whatever the zones
/// are. Only a zone that the name is in can say that it needs none, or else anybody's unsigned SOA would
/// make TLSA records of a signed zone go away. And a record that a wildcard stands for always needs one
/// (RFC 4035 §5.3.4), or else it could be played back for names that have records of their own.
pub(crate) fn proven(
    name: &Name,
    kind: RecordType,
    response: DnsResponse,
) -> Result<Reply, LookupError> {
    let answered = answers(name, kind, &response);
    let secure = |record: &Record| {
        record.proof == Proof::Secure
            && matches!(record.data, RData::DNSSEC(DNSSECRData::NSEC(_) | DNSSECRData::NSEC3(_)))
    };
    let own = |record: &Record| record.proof == Proof::Insecure && record.name.zone_of(name);
    let authorities = &response.authorities;
    let denial = if authorities.iter().any(secure) {
        Security::Secure
    } else if response.answers.iter().any(is_of_wildcard) {
        return Err(LookupError::Bogus);
    } else if answered || authorities.is_empty() || authorities.iter().any(own) {
        Security::Insecure
    } else {
        return Err(LookupError::Bogus);
    };
    let code = response.response_code;
    Ok(Reply { records: response.into_message().answers, code, denial })
}

/// Whether a signature is of a wildcard that the record's name was put in place of (RFC 4034 §3.1.3).
fn is_of_wildcard(record: &Record) -> bool {
    signature(record).is_some_and(|rrsig| rrsig.input().num_labels < record.name.num_labels())
}

fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) => Some(rrsig),
        _ => None,
    }
}

fn answers(name: &Name, kind: RecordType, response: &DnsResponse) -> bool {
    response.answers.iter().any(|record| {
        record.name == *name && (record.record_type() == kind || chain::alias_of(record).is_some())
    })
}

/// Whether an answer by a wildcard is shown to be rightly one: no name is there that is closer (RFC 4035
/// §5.3.4). The validator has it that the wildcard itself must not be there either, and refuses what
/// stands one label above the name.
pub(crate) fn is_shown_wildcard(name: &Name, kind: RecordType, response: &DnsResponse) -> bool {
    let mut of_wildcards =
        response.answers.iter().filter(|record| is_of_wildcard(record)).peekable();
    response.response_code == ResponseCode::NoError
        && answers(name, kind, response)
        && of_wildcards.peek().is_some()
        && of_wildcards.all(|record| {
            signature(record).is_some_and(|rrsig| {
                let labels = usize::from(rrsig.input().num_labels);
                let closer = record.name.trim_to(labels + 1);
                is_denied(&closer, &rrsig.input().signer_name, &response.authorities)
            })
        })
}

/// Whether the zone proves that a name is not there, and nothing below it.
fn is_denied(name: &Name, zone: &Name, authorities: &[Record]) -> bool {
    let of_zone = |owner: &Name| {
        authorities.iter().any(|record| {
            let signs = |rrsig: &RRSIG| {
                let input = rrsig.input();
                input.type_covered == RecordType::NSEC && input.signer_name == *zone
            };
            record.name == *owner && signature(record).is_some_and(signs)
        })
    };
    authorities.iter().any(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) if record.proof == Proof::Secure => {
            of_zone(&record.name) && covers(&record.name, nsec, name)
        }
        _ => false,
    })
}

fn covers(owner: &Name, nsec: &NSEC, name: &Name) -> bool {
    let next = nsec.next_domain_name();
    // RFC 6840 §4.1: what is delegated, or led elsewhere, is not this zone's to deny.
    let elsewhere = nsec.is_ancestor_delegation() || nsec.type_set().contains(RecordType::DNAME);
    let last = next <= owner && next.zone_of(name);
    name > owner
        && (name < next || last)
        // Otherwise the name is there, with nothing but names below it.
        && !name.zone_of(next)
        && !(elsewhere && owner.zone_of(name))
}
