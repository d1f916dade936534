//! The queue, counted. By a walk through its items that has an end: what was not counted is said.

use cluster::{
    Slice,
    work::{
        Kind, census,
        zone::{self, ZoneState},
    },
};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    super::cluster::{Counted, node_names},
    Domains, QueueState,
    orders::held_domains,
    told,
};
use crate::{
    admin::{Admin, AdminError},
    deliver::outbound::OutboundItem,
    limits::{QUEUE_COUNT_MAX, QUEUE_COUNT_PER_DOMAIN_MAX, QUEUE_DOMAINS_TOLD_MAX},
    outbound::domain::DomainTrouble,
};

/// What of the count is to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsQuery {
    /// Domains that are told of by name, those with the most messages; 20 without.
    pub top: Option<usize>,
}

/// The queue in numbers. A message counts once for each of its domains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Domains with messages.
    pub domains: Counted,
    /// Messages.
    pub messages: Counted,
    /// Of those counted: being sent, or next.
    pub due: u64,
    /// Of those counted: to be tried again.
    pub deferred: u64,
    /// Of those counted: held.
    pub held: u64,
    /// Of those counted: not to leave yet.
    pub future: u64,
    /// When the oldest of those counted was accepted, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// Domains that are held, with messages or without.
    pub held_domains: Vec<String>,
    /// The domains with the most messages.
    pub top: Vec<DomainStats>,
}

/// A domain's part of the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainStats {
    /// The domain.
    pub domain: String,
    /// Its messages.
    pub messages: Counted,
    /// Of those counted: being sent, or next.
    pub due: u64,
    /// Of those counted: to be tried again.
    pub deferred: u64,
    /// Of those counted: held.
    pub held: u64,
    /// Of those counted: not to leave yet.
    pub future: u64,
    /// When the oldest of those counted was accepted, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// When the next try is, milliseconds since 1970; `None` where all is held.
    pub next_ms: Option<i64>,
    /// The node that works on it now.
    pub node: Option<String>,
    /// Why it cannot be reached.
    pub trouble: Option<String>,
}

/// Counts the queue.
///
/// # Errors
/// [`AdminError::Unavailable`].
pub async fn stats(admin: &Admin, query: &StatsQuery) -> Result<QueueStats, AdminError> {
    let top = query.top.unwrap_or(20).min(QUEUE_DOMAINS_TOLD_MAX);
    let mut count = Count { top, stats: QueueStats::default(), domain: None };
    let mut domains = Domains::new(admin);
    let mut known = DomainTrouble::default();
    let mut from: Option<Vec<u8>> = None;
    loop {
        let begin = from.as_deref();
        let read = |tx| async move { zone::items_from(&tx, Kind::Outbound, None, begin).await };
        let Slice { rows, next } = admin.db.run(read).await?;
        from = next;
        for (zone, item) in rows {
            if count.is_full(&zone) {
                from = Some(census::behind_items(Kind::Outbound, &zone));
                break;
            }
            if count.stats.messages.count >= QUEUE_COUNT_MAX {
                count.stats.messages.at_least = true;
                count.stats.domains.at_least = true;
                from = None;
                break;
            }
            if count.is_new(&zone) {
                known = domains.of(&zone).await?;
            }
            let message = OutboundItem::decode(item.payload.clone()).unwrap_or_default();
            let now = admin.env.wall();
            let due = super::due(&item, &message, &known);
            let state = QueueState::of(&message, due, known.held_ms != 0, now);
            count.add(zone, state, message.received_ms);
        }
        if from.is_none() {
            break;
        }
    }
    let mut stats = count.finish();
    stats.held_domains = held_domains(admin).await?;
    let nodes = node_names(&admin.db).await?;
    for told_of in &mut stats.top {
        let zone = &told_of.domain;
        let read = |tx| async move { zone::state(&tx, Kind::Outbound, zone).await };
        match admin.db.run(read).await? {
            Some(ZoneState::Claimed { by, .. }) => told_of.node = nodes.get(&by).cloned(),
            Some(ZoneState::Waiting { due_ms }) => {
                told_of.next_ms = super::due_ms(env::Timestamp::from_unix_ms(due_ms));
            }
            None => {}
        }
        let known = domains.of(&told_of.domain).await?;
        told_of.trouble = known.is_trouble().then(|| told(&known.status, &known.reason));
    }
    Ok(stats)
}

/// A count under way. Items come domain by domain.
struct Count {
    top: usize,
    stats: QueueStats,
    domain: Option<DomainStats>,
}

impl Count {
    fn is_new(&self, zone: &str) -> bool {
        self.domain.as_ref().is_none_or(|domain| domain.domain != zone)
    }

    /// Whether enough of a domain was counted.
    fn is_full(&mut self, zone: &str) -> bool {
        match &mut self.domain {
            Some(domain)
                if domain.domain == zone && domain.messages.count >= QUEUE_COUNT_PER_DOMAIN_MAX =>
            {
                domain.messages.at_least = true;
                self.stats.messages.at_least = true;
                true
            }
            _ => false,
        }
    }

    fn add(&mut self, zone: String, state: QueueState, received_ms: i64) {
        if self.is_new(&zone) {
            self.next_domain();
            self.stats.domains.count += 1;
        }
        let domain = self
            .domain
            .get_or_insert_with(|| DomainStats { domain: zone, ..DomainStats::default() });
        let stats = &mut self.stats;
        domain.messages.count += 1;
        stats.messages.count += 1;
        let (of_domain, of_all) = match state {
            QueueState::Due => (&mut domain.due, &mut stats.due),
            QueueState::Deferred => (&mut domain.deferred, &mut stats.deferred),
            QueueState::Held => (&mut domain.held, &mut stats.held),
            QueueState::Future => (&mut domain.future, &mut stats.future),
        };
        *of_domain += 1;
        *of_all += 1;
        if received_ms > 0 {
            for oldest in [&mut domain.oldest_ms, &mut stats.oldest_ms] {
                *oldest = Some(oldest.map_or(received_ms, |held| held.min(received_ms)));
            }
        }
    }

    fn next_domain(&mut self) {
        self.stats.top.extend(self.domain.take());
        if self.stats.top.len() >= 2 * QUEUE_DOMAINS_TOLD_MAX {
            self.keep_largest();
        }
    }

    fn keep_largest(&mut self) {
        let top = &mut self.stats.top;
        top.sort_by(|a, b| {
            b.messages.count.cmp(&a.messages.count).then_with(|| a.domain.cmp(&b.domain))
        });
        top.truncate(self.top);
    }

    fn finish(mut self) -> QueueStats {
        self.next_domain();
        self.keep_largest();
        self.stats
    }
}
