//! What is counted of signing and forwarding.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cluster::dkim::Found;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

/// What became of a message that was to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    /// It is.
    Done,
    /// Its domain has no key in use.
    NoKey,
    /// Its author is not who submits it.
    NotTheAuthor,
    /// Its header is too large, or the key failed.
    Failed,
}

/// What became of an address that was to be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// A sender was.
    Forward,
    /// A sender stays as it is: it cannot be rewritten.
    Left,
    /// A bounce goes back.
    Back,
    /// Mail back is refused: its address is made up or too old, it is no bounce, or there are too many.
    Refused,
    /// A message is not sent on: it claims to be from us.
    Withheld,
}

const SIGNED: [(Signed, &str); 4] = [
    (Signed::Done, "signed"),
    (Signed::NoKey, "no_key"),
    (Signed::NotTheAuthor, "not_the_author"),
    (Signed::Failed, "failed"),
];

const REWRITTEN: [(Rewritten, &str); 5] = [
    (Rewritten::Forward, "forward"),
    (Rewritten::Left, "left"),
    (Rewritten::Back, "back"),
    (Rewritten::Refused, "refused"),
    (Rewritten::Withheld, "withheld"),
];

const FOUND: [Found; 4] = [Found::There, Found::Missing, Found::Other, Found::Unasked];

/// Counts. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    signed: [AtomicU64; 4],
    rewritten: [AtomicU64; 5],
    found: [AtomicU64; 4],
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counts")
    }
}

impl Counts {
    pub(super) fn signed(&self, outcome: Signed) {
        add(&self.inner.signed, SIGNED.iter().position(|(it, _)| *it == outcome));
    }

    pub(super) fn rewritten(&self, outcome: Rewritten) {
        add(&self.inner.rewritten, REWRITTEN.iter().position(|(it, _)| *it == outcome));
    }

    pub(super) fn found(&self, found: Found) {
        add(&self.inner.found, FOUND.iter().position(|it| *it == found));
    }
}

fn add(counts: &[AtomicU64], place: Option<usize>) {
    if let Some(count) = place.and_then(|place| counts.get(place)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = [
            (
                "dkim_messages",
                "Messages for other servers that were to be signed",
                SIGNED.map(|(_, name)| name).to_vec(),
                &self.inner.signed[..],
            ),
            (
                "dkim_lookups",
                "What DNS said of keys' records",
                FOUND.map(Found::as_str).to_vec(),
                &self.inner.found[..],
            ),
            (
                "srs_addresses",
                "Senders of forwarded mail, and bounces to them",
                REWRITTEN.map(|(_, name)| name).to_vec(),
                &self.inner.rewritten[..],
            ),
        ];
        for (name, help, outcomes, counts) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (outcome, count) in outcomes.into_iter().zip(counts) {
                let labels = [("outcome", outcome)];
                let value = ConstCounter::new(count.load(Ordering::Relaxed));
                value.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
