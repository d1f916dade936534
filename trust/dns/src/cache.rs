//! Answers as they came, until they expire or something else is used more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use env::Monotonic;
use hickory_net::proto::{
    op::DnsResponse,
    rr::{LowerName, RecordType},
};

use crate::{
    answer::Unavailable,
    limits::{CACHED_BYTES_MAX, FAILURE_TTL, NEGATIVE_TTL_MAX, TTL_MAX},
};

pub(crate) type Key = (LowerName, RecordType);

/// What is remembered of a question.
#[derive(Debug, Clone)]
enum Kept {
    Answer(Arc<[u8]>),
    Failure(Unavailable),
}

struct Entry {
    kept: Kept,
    since: Monotonic,
    until: Monotonic,
    used: u64,
}

/// At most `capacity` answers; the one that was used longest ago makes room.
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    capacity: usize,
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0, capacity }
    }

    /// What is remembered, its records' times to live counted down.
    pub(crate) fn look(
        &mut self,
        key: &Key,
        now: Monotonic,
    ) -> Option<Result<DnsResponse, Unavailable>> {
        let entry = self.entries.get_mut(key)?;
        self.by_use.remove(&entry.used);
        if entry.until <= now {
            self.entries.remove(key);
            return None;
        }
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key.clone());
        let age = u32::try_from((now - entry.since).as_secs()).unwrap_or(u32::MAX);
        let bytes = match &entry.kept {
            Kept::Failure(failure) => return Some(Err(*failure)),
            Kept::Answer(bytes) => bytes.to_vec(),
        };
        let mut response = DnsResponse::from_buffer(bytes).ok()?;
        let response_mut: &mut hickory_net::proto::op::Message = &mut response;
        for record in response_mut.answers.iter_mut().chain(&mut response_mut.authorities) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(Ok(response))
    }

    /// Remembers it no more.
    pub(crate) fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
        }
    }

    /// Remembers an answer for as long as it says.
    pub(crate) fn keep(&mut self, key: Key, response: &DnsResponse, now: Monotonic) {
        let ttl = ttl(response);
        if !ttl.is_zero() && response.as_buffer().len() <= CACHED_BYTES_MAX {
            self.insert(key, Kept::Answer(response.as_buffer().into()), now, ttl);
        }
    }

    /// Remembers that no server had an answer.
    pub(crate) fn keep_failure(&mut self, key: Key, failure: Unavailable, now: Monotonic) {
        self.insert(key, Kept::Failure(failure), now, FAILURE_TTL);
    }

    fn insert(&mut self, key: Key, kept: Kept, now: Monotonic, ttl: Duration) {
        self.uses += 1;
        let entry = Entry { kept, since: now, until: now + ttl, used: self.uses };
        self.by_use.insert(self.uses, key.clone());
        if let Some(before) = self.entries.insert(key, entry) {
            self.by_use.remove(&before.used);
        }
        while self.entries.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.entries.remove(&oldest);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.by_use.len());
        self.entries.len()
    }
}

/// How long an answer holds; nothing where it does not say (RFC 2308 §5: without an SOA).
fn ttl(response: &DnsResponse) -> Duration {
    let seconds = |ttl: u32| Duration::from_secs(u64::from(ttl));
    let question = response.queries.first();
    let answered = response.answers.iter().any(|record| {
        question.is_some_and(|question| record.record_type() == question.query_type())
    });
    let records = response.answers.iter().map(|record| record.ttl).min();
    let positive = records.map_or(TTL_MAX, seconds).min(TTL_MAX);
    if answered {
        return positive;
    }
    let negative = response.negative_ttl().map_or(Duration::ZERO, seconds);
    negative.min(NEGATIVE_TTL_MAX).min(positive)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_net::proto::{
        op::{Message, OpCode, Query, ResponseCode},
        rr::{Name, RData, Record, rdata::SOA},
    };

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    fn key(host: u32) -> Key {
        let name = Name::from_ascii(format!("h{host}.example.")).unwrap();
        (name.into(), RecordType::A)
    }

    fn response(change: impl FnOnce(&mut Message, Name)) -> DnsResponse {
        let name = Name::from_ascii("h.example.").unwrap();
        let mut message = Message::response(1, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        change(&mut message, name);
        DnsResponse::from_buffer(message.to_vec().unwrap()).unwrap()
    }

    fn address(ttl: u32) -> DnsResponse {
        response(|message, name| {
            message.add_answer(Record::from_rdata(name, ttl, RData::A(Ipv4Addr::LOCALHOST.into())));
        })
    }

    #[test]
    fn answers_age_and_expire() {
        let mut cache = Cache::new(10);
        cache.keep(key(1), &address(60), at(100));
        let found = cache.look(&key(1), at(130)).unwrap().unwrap();
        assert_eq!(found.answers[0].ttl, 30);
        assert!(cache.look(&key(2), at(130)).is_none());
        assert!(cache.look(&key(1), at(160)).is_none());
        assert_eq!(cache.len(), 0);
        cache.keep(key(1), &address(0), at(100));
        assert_eq!(cache.len(), 0, "an answer for this once is not kept");
    }

    #[test]
    fn the_least_used_makes_room() {
        let mut cache = Cache::new(3);
        for host in 1..=3 {
            cache.keep(key(host), &address(60), at(0));
        }
        cache.look(&key(1), at(1)).unwrap().unwrap();
        for host in 4..=1_000 {
            cache.keep(key(host), &address(60), at(1));
            cache.look(&key(1), at(1)).unwrap().unwrap();
            assert_eq!(cache.len(), 3);
        }
        assert!(cache.look(&key(2), at(1)).is_none());
    }

    #[test]
    fn denials_are_kept_as_long_as_their_zone_says() {
        let denial = |soa: Option<(u32, u32)>| {
            response(|message, name| {
                message.metadata.response_code = ResponseCode::NXDomain;
                if let Some((ttl, minimum)) = soa {
                    let data = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, minimum);
                    message.add_authority(Record::from_rdata(name, ttl, RData::SOA(data)));
                }
            })
        };
        assert_eq!(ttl(&denial(Some((300, 60)))), Duration::from_secs(60));
        assert_eq!(ttl(&denial(Some((30, 60)))), Duration::from_secs(30));
        assert_eq!(ttl(&denial(Some((1 << 30, 1 << 30)))), NEGATIVE_TTL_MAX);
        assert_eq!(ttl(&denial(None)), Duration::ZERO);
        assert_eq!(ttl(&address(1 << 30)), TTL_MAX);
    }

    #[test]
    fn failures_are_kept_for_a_moment() {
        let mut cache = Cache::new(3);
        cache.keep_failure(key(1), Unavailable::ServersFailed, at(0));
        let failed = cache.look(&key(1), at(1)).unwrap();
        assert_eq!(failed.map(|_| ()), Err(Unavailable::ServersFailed));
        assert!(cache.look(&key(1), at(5)).is_none());
    }
}
