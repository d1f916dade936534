//! MTA-STS (RFC 8461): domains that say on the web which servers are theirs, and that these have TLS
//! with certificates that authorities vouch for.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (MtaSts, domain) | [`PolicyRecord`] | from the first fetch, failed or not; rewritten by later ones; cleared by the reports' worker once what it holds has ended |
//!
//! A policy that is held counts until it ends, whatever becomes of the DNS record and the web server
//! meanwhile: whoever stands in between can hide both. It is fetched again when its id changes, and once a
//! day at the latest while mail is sent.

mod policy;

use dns::LookupError;
use env::Timestamp;
use kv::{
    KeyValue, RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::{StoreError, keys::encode_over};
use prost::Message;

pub(super) use self::policy::{Mode, Policy};
use super::{
    Parts,
    https::{Https, HttpsError, Url},
    schedule::later,
    security::HandshakeError,
};
use crate::limits;

/// What is kept of a domain's policy.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PolicyRecord {
    /// The id in the DNS when it was fetched; empty where no policy is held.
    #[prost(string, tag = "1")]
    id: String,
    /// `enforce`, `testing` or `none`.
    #[prost(string, tag = "2")]
    mode: String,
    #[prost(string, repeated, tag = "3")]
    patterns: Vec<String>,
    #[prost(uint64, tag = "4")]
    age_max_seconds: u64,
    /// When it was fetched, milliseconds since 1970.
    #[prost(int64, tag = "5")]
    fetched_ms: i64,
    /// The id whose policy could not be fetched last.
    #[prost(string, tag = "6")]
    failed_id: String,
    /// When that was.
    #[prost(int64, tag = "7")]
    failed_ms: i64,
}

/// A domain's policy, as it is found now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sts {
    /// The one that counts; never of [`Mode::None`].
    pub(super) policy: Option<Policy>,
    /// There may be one that cannot be had now.
    pub(super) is_unknown: bool,
    /// Why a policy that is there could not be had, as RFC 8460 §4.3.2.2 calls it.
    pub(super) failure: Option<&'static str>,
}

/// (MtaSts, domain)
fn key(domain: &str) -> Vec<u8> {
    pack(&(Subspace::MtaSts as u64, domain))
}

impl PolicyRecord {
    fn policy(&self) -> Option<Policy> {
        let mode = Mode::parse(&self.mode).filter(|_| !self.id.is_empty())?;
        let age_max = std::time::Duration::from_secs(self.age_max_seconds);
        Some(Policy { mode, patterns: self.patterns.clone(), age_max })
    }

    /// The policy that is held and has not ended.
    fn live(&self, now: Timestamp) -> Option<Policy> {
        self.policy().filter(|_| now < self.ends())
    }

    fn ends(&self) -> Timestamp {
        let age = std::time::Duration::from_secs(self.age_max_seconds);
        later(Timestamp::from_unix_ms(self.fetched_ms), age.min(limits::STS_AGE_MAX))
    }

    /// Whether a policy with this id is to be fetched.
    fn wants(&self, id: &str, now: Timestamp) -> bool {
        let since = |ms: i64| u128::try_from(now.unix_ms().saturating_sub(ms)).unwrap_or(0);
        let paused = self.failed_id == id && since(self.failed_ms) < limits::STS_PAUSE.as_millis();
        let is_old = since(self.fetched_ms) >= limits::STS_REFRESH.as_millis();
        !paused && (self.id != id || is_old || self.live(now).is_none())
    }

    /// Whether nothing of it counts any more.
    fn is_over(&self, now: Timestamp) -> bool {
        let failed = later(Timestamp::from_unix_ms(self.failed_ms), limits::STS_PAUSE);
        self.live(now).is_none() && failed <= now
    }
}

/// The policy that counts for mail to a domain now. Where the store cannot be read that is an error:
/// a policy may be held.
pub(super) async fn find(parts: &Parts, domain: &str) -> Result<Sts, String> {
    let (read, texts) = tokio::join!(read(parts, domain), id_of(parts, domain));
    let held = read.map_err(|error| error.to_string())?;
    let now = parts.env.wall();
    let record = held.clone().unwrap_or_default();
    let id = match texts {
        Id::Named(id) if record.wants(&id, now) => id,
        Id::None => return Ok(counting(record.live(now), None)),
        Id::Named(_) | Id::Unknown => {
            let live = record.live(now);
            return Ok(Sts { is_unknown: live.is_none(), ..counting(live, None) });
        }
    };
    let (fetched, failure) = match fetch(parts, domain).await {
        Ok(policy) => {
            let fetched = PolicyRecord {
                id,
                mode: policy.mode.as_str().to_owned(),
                patterns: policy.patterns.clone(),
                age_max_seconds: policy.age_max.as_secs(),
                fetched_ms: now.unix_ms(),
                ..PolicyRecord::default()
            };
            (fetched, None)
        }
        Err((failure, reason)) => {
            tracing::info!(domain, reason, "a domain's TLS policy cannot be fetched");
            let failed_ms = now.unix_ms();
            (PolicyRecord { failed_id: id, failed_ms, ..record }, Some(failure))
        }
    };
    let (key, fetched_here) = (&key(domain), &fetched);
    let write = |tx: Transaction| async move {
        let before = tx.get(key).await?.unwrap_or_default();
        tx.set(key, &encode_over(fetched_here, &before));
        Ok::<_, StoreError>(())
    };
    if let Err(error) = parts.db.run(write).await {
        tracing::warn!(domain, %error, "a domain's TLS policy is not kept");
    }
    let live = fetched.live(now);
    Ok(Sts { is_unknown: live.is_none(), ..counting(live, failure) })
}

#[cfg(test)]
impl Sts {
    /// A policy, as its text has it.
    pub(super) fn of(text: &str) -> Self {
        counting(Policy::parse(text.as_bytes()), None)
    }
}

fn counting(policy: Option<Policy>, failure: Option<&'static str>) -> Sts {
    Sts { policy: policy.filter(|policy| policy.mode != Mode::None), failure, is_unknown: false }
}

async fn read(parts: &Parts, domain: &str) -> Result<Option<PolicyRecord>, StoreError> {
    let key = &key(domain);
    let value = parts.db.run(|tx| async move { Ok::<_, StoreError>(tx.get(key).await?) }).await?;
    let decode = |value| {
        PolicyRecord::decode(value).map_err(|error| StoreError::damaged("TLS policy", error))
    };
    value.map(decode).transpose()
}

/// What the DNS says of a policy.
enum Id {
    None,
    Named(String),
    /// It cannot be looked up. For mail that needs none there is none then (RFC 8461 §3.1).
    Unknown,
}

async fn id_of(parts: &Parts, domain: &str) -> Id {
    match parts.resolver.txt(&format!("_mta-sts.{domain}")).await {
        Ok(answer) => policy::id(&answer.records).map_or(Id::None, Id::Named),
        Err(LookupError::NoName { .. } | LookupError::NoRecords { .. } | LookupError::BadName) => {
            Id::None
        }
        Err(error) => {
            tracing::debug!(domain, %error, "it cannot be looked up whether a domain has a TLS policy");
            Id::Unknown
        }
    }
}

async fn fetch(parts: &Parts, domain: &str) -> Result<Policy, (&'static str, String)> {
    let Parts { env, resolver, security, config, .. } = parts;
    let https = Https { env, resolver, security, port: config.https_port };
    let url = Url::new(&format!("mta-sts.{domain}"), "/.well-known/mta-sts.txt");
    match https.text(&url).await {
        Ok(text) => Policy::parse(&text)
            .ok_or_else(|| ("sts-policy-invalid", "it is not a policy".to_owned())),
        Err(HttpsError::Tls(error @ HandshakeError::Unproven(_))) => {
            Err(("sts-webpki-invalid", error.to_string()))
        }
        Err(error) => Err(("sts-policy-fetch-error", error.to_string())),
    }
}

/// Drops policies that have ended, from a place on. Returns where to go on.
pub(super) async fn sweep(
    tx: &Transaction,
    from: Option<Vec<u8>>,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, StoreError> {
    let (first, end) = tuple::range_of(pack(&(Subspace::MtaSts as u64,)));
    let begin = from.unwrap_or(first);
    let query = RangeQuery::new(begin, end).limit(limits::STS_ROWS_PER_SWEEP).snapshot();
    let rows: Vec<KeyValue> = tx.range(query).collect().await?;
    let mut last = None;
    for row in rows {
        // What cannot be read holds nothing that counts.
        let is_over = PolicyRecord::decode(row.value).map_or(true, |record| record.is_over(now));
        if is_over {
            tx.add_read_conflict_key(&row.key);
            tx.clear(&row.key);
        }
        last = Some([&row.key[..], &[0]].concat());
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
