//! A stub: names and what is said of them, for tests and simulations.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use env::Env;
use hickory_net::proto::{
    dnssec::Proof,
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, MX, PTR, TLSA, TXT},
    },
};

use crate::{
    answer::{LookupError, Security, Tlsa, Unavailable},
    chain::Reply,
    name,
};

/// The time to live of every record, in seconds.
const TTL_SECONDS: u32 = 300;

/// Bytes of one string of a text (RFC 1035 §3.3.14).
const STRING_BYTES_MAX: usize = 255;

/// Names and their records. Clones are the same zone, so that a test can change what a resolver
/// that has it says. A name exists if it, or one below it, is told of.
///
/// # Panics
/// The methods that are given a name panic where it is none.
#[derive(Clone, Default)]
pub struct Zone {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    names: BTreeMap<Name, Told>,
    secure: Vec<Name>,
    lookups: u64,
}

#[derive(Default)]
struct Told {
    records: Vec<RData>,
    failure: Option<LookupError>,
    delay: Option<(Env, Duration)>,
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Zone")
    }
}

impl Zone {
    /// A zone without names: everything is [`LookupError::NoName`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mail exchanger; an empty one is a null MX.
    pub fn mx(&self, domain: &str, preference: u16, exchange: &str) -> &Self {
        let exchange = if exchange.is_empty() { Name::root() } else { parse(exchange) };
        self.add(domain, RData::MX(MX::new(preference, exchange)))
    }

    /// Adds an address.
    pub fn address(&self, host: &str, address: impl Into<IpAddr>) -> &Self {
        let data = match address.into() {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        self.add(host, data)
    }

    /// Adds a text of any length.
    pub fn txt(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        let strings = text.as_ref().chunks(STRING_BYTES_MAX).collect();
        self.add(name, RData::TXT(TXT::from_bytes(strings)))
    }

    /// Adds what a service's certificate is held against.
    pub fn tlsa(&self, name: &str, tlsa: Tlsa) -> &Self {
        let Tlsa { usage, selector, matching, data } = tlsa;
        let data = TLSA::new(usage.into(), selector.into(), matching.into(), data);
        self.add(name, RData::TLSA(data))
    }

    /// Adds a name of an address.
    pub fn ptr(&self, address: impl Into<IpAddr>, host: &str) -> &Self {
        let reverse = name::text(&name::reverse(address.into()));
        self.add(&reverse, RData::PTR(PTR(parse(host))))
    }

    /// Makes the name an alias.
    pub fn alias(&self, name: &str, target: &str) -> &Self {
        self.add(name, RData::CNAME(CNAME(parse(target))))
    }

    /// What is said of this name and all below it is proven.
    pub fn secure(&self, domain: &str) -> &Self {
        self.lock().secure.push(parse(domain));
        self
    }

    /// What the name has no records of cannot be had for now.
    pub fn temporary(&self, name: &str) -> &Self {
        self.fail(name, LookupError::Temporary(Unavailable::ServersFailed))
    }

    /// What the name has no records of is refuted.
    pub fn bogus(&self, name: &str) -> &Self {
        self.fail(name, LookupError::Bogus)
    }

    /// What is asked of the name is answered after `delay`.
    pub fn slow(&self, env: &Env, name: &str, delay: Duration) -> &Self {
        self.lock().names.entry(parse(name)).or_default().delay = Some((env.clone(), delay));
        self
    }

    /// Forgets the name.
    pub fn remove(&self, name: &str) -> &Self {
        self.lock().names.remove(&parse(name));
        self
    }

    /// How many questions were asked so far, one for each kind and each alias.
    pub fn lookups(&self) -> u64 {
        self.lock().lookups
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the zone")
    }

    fn add(&self, name: &str, data: RData) -> &Self {
        self.lock().names.entry(parse(name)).or_default().records.push(data);
        self
    }

    fn fail(&self, name: &str, failure: LookupError) -> &Self {
        self.lock().names.entry(parse(name)).or_default().failure = Some(failure);
        self
    }

    pub(crate) async fn ask(&self, name: Name, kind: RecordType) -> Result<Reply, LookupError> {
        let delay = self.lock().names.get(&name).and_then(|told| told.delay.clone());
        if let Some((env, delay)) = delay {
            env.sleep(delay).await;
        }
        self.lock().answer(&name, kind)
    }
}

impl Inner {
    fn answer(&mut self, name: &Name, kind: RecordType) -> Result<Reply, LookupError> {
        self.lookups += 1;
        let secure = self.secure.iter().any(|domain| domain.zone_of(name));
        let (proof, denial) = match secure {
            true => (Proof::Secure, Security::Secure),
            false => (Proof::Insecure, Security::Insecure),
        };
        let mut records = Vec::new();
        let told = self.names.get(name);
        for data in told.into_iter().flat_map(|told| &told.records) {
            if data.record_type() == kind || data.record_type() == RecordType::CNAME {
                let mut record = Record::from_rdata(name.clone(), TTL_SECONDS, data.clone());
                record.proof = proof;
                records.push(record);
            }
        }
        if records.is_empty()
            && let Some(failure) = told.and_then(|told| told.failure.clone())
        {
            return Err(failure);
        }
        let exists = self.names.keys().any(|known| name.zone_of(known));
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        Ok(Reply { records, code, denial })
    }
}

fn parse(text: &str) -> Name {
    name::parse(text).unwrap_or_else(|_| panic!("not a name: {text:?}"))
}
