//! What is held against clients, counted over all nodes until it is too much.
//!
//! Events wait in memory for a moment and are counted together, so a flood of them costs some
//! transactions a second and no more. What a crash loses is a moment's events.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use env::Timestamp;
use kv::Transaction;
use mail::StoreError;
use tokio::sync::Notify;

use super::{
    Guard,
    block::{self, Block, Cause, Lasting, Put},
    network::Network,
    rate::{Counter, Period},
};
use crate::{limits, metrics::GuardAction, settings::guard::Block as Rules};

/// Something that is held against a client; its number is its place in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A login failed, or was refused unchecked.
    FailedLogin = 0,
    /// A recipient does not exist.
    UnknownRecipient = 1,
    /// A recipient was refused for the client's score.
    Rejected = 2,
    /// A command was none, or in the wrong place.
    ProtocolError = 3,
}

impl Event {
    /// In keys.
    fn code(self) -> &'static str {
        match self {
            Self::FailedLogin => "e0",
            Self::UnknownRecipient => "e1",
            Self::Rejected => "e2",
            Self::ProtocolError => "e3",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::FailedLogin => "failed logins",
            Self::UnknownRecipient => "unknown recipients",
            Self::Rejected => "rejected by score",
            Self::ProtocolError => "protocol errors",
        }
    }
}

type Counts = BTreeMap<(Network, Event), u64>;

/// Events that wait to be counted.
#[derive(Default)]
pub(crate) struct Events {
    waiting: Mutex<Counts>,
    told: Notify,
}

impl Events {
    fn waiting(&self) -> MutexGuard<'_, Counts> {
        self.waiting.lock().expect("nothing panics while it holds the events")
    }

    /// Adds an event; false where there is no room.
    pub(crate) fn note(&self, client: Network, event: Event) -> bool {
        let mut waiting = self.waiting();
        let full = waiting.len() >= limits::GUARD_EVENTS_MAX;
        match waiting.get_mut(&(client, event)) {
            Some(count) => *count += 1,
            None if full => return false,
            None => {
                waiting.insert((client, event), 1);
            }
        }
        drop(waiting);
        self.told.notify_one();
        true
    }

    fn take(&self) -> Vec<((Network, Event), u64)> {
        std::mem::take(&mut *self.waiting()).into_iter().collect()
    }
}

/// A block that events have led to.
type Blocking = (Network, Put);

/// Counts events until it is dropped.
pub(crate) async fn count(guard: Guard) {
    let shared = &guard.shared;
    loop {
        shared.events.told.notified().await;
        shared.env.sleep(limits::GUARD_GATHER).await;
        let events = shared.events.take();
        for some in events.chunks(limits::GUARD_EVENTS_PER_TRANSACTION) {
            let (rules, now) = (guard.settings().guard.block, shared.env.wall());
            let rules = &rules;
            let run = |tx: Transaction| async move { count_some(&tx, some, rules, now).await };
            match shared.db.run(run).await {
                Ok(blocking) => blocking.into_iter().for_each(|it| tell(&guard, it)),
                Err(error) => {
                    tracing::warn!(%error, "events are not counted");
                    guard.did(GuardAction::EventsDropped);
                }
            }
        }
    }
}

fn tell(guard: &Guard, (network, put): Blocking) {
    match put {
        Put::InForce => {}
        Put::Full => {
            guard.did(GuardAction::BlockListFull);
            tracing::warn!(%network, "not blocked: there are as many blocks as there may be");
        }
        Put::Blocked(Block { strikes, reason, until_ms, .. }) => {
            guard.did(GuardAction::Blocked);
            let until = until_ms.map(Timestamp::from_unix_ms).map(crate::date::rfc5322);
            tracing::info!(%network, reason, strikes, until, "blocked");
        }
    }
}

async fn count_some(
    tx: &Transaction,
    events: &[((Network, Event), u64)],
    rules: &Rules,
    now: Timestamp,
) -> Result<Vec<Blocking>, StoreError> {
    let mut blocking = Vec::new();
    for ((client, event), count) in events {
        let most = rules.events_per_hour[*event as usize];
        let counter = Counter::new(Period::Hour, event.code(), &client.to_bytes(), now);
        let total = counter.read_exactly(tx).await?.saturating_add(*count);
        if most == 0 || total < most {
            counter.add(tx, *count);
            continue;
        }
        let reason = format!("{total} {} in an hour", event.reason());
        let cause = Cause { reason, by: "automatic".to_owned(), lasts: Lasting::Grows };
        let put = block::put(tx, *client, &cause, rules, now).await?;
        match &put {
            // What led to it leads to nothing more.
            Put::Blocked(_) => counter.clear(tx),
            Put::InForce | Put::Full => {}
        }
        blocking.push((*client, put));
        blocking.extend(widen(tx, *client, rules, now).await?);
    }
    Ok(blocking)
}

/// Blocks the network that too many blocked clients lie in.
async fn widen(
    tx: &Transaction,
    client: Network,
    rules: &Rules,
    now: Timestamp,
) -> Result<Option<Blocking>, StoreError> {
    let (most, Some(network)) = (rules.network_clients, client.widened()) else { return Ok(None) };
    if most == 0 || block::count_within(tx, network, now, most).await? < most {
        return Ok(None);
    }
    let reason = format!("{most} of its clients are blocked");
    let cause = Cause { reason, by: "automatic".to_owned(), lasts: Lasting::Grows };
    Ok(Some((network, block::put(tx, network, &cause, rules, now).await?)))
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;
    use crate::settings::guard::Guard as Settings;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + seconds)
    }

    #[tokio::test]
    async fn too_many_events_block_a_client_and_too_many_clients_a_network() {
        let db = Database::memory(env::Env::system());
        let mut rules = Settings::default().block;
        rules.events_per_hour = [3, 0, 0, 0];
        rules.network_clients = 2;
        let rules = &rules;
        let count = async |client: &str, event, count, seconds| {
            let events = &[((client.parse().unwrap(), event), count)];
            let run =
                |tx: Transaction| async move { count_some(&tx, events, rules, at(seconds)).await };
            let blocking = db.run(run).await.unwrap();
            let blocked = blocking.into_iter().filter(|(_, put)| matches!(put, Put::Blocked(_)));
            blocked.map(|(network, _)| network.to_string()).collect::<Vec<_>>()
        };
        assert!(count("192.0.2.1", Event::FailedLogin, 2, 0).await.is_empty());
        assert!(count("192.0.2.2", Event::FailedLogin, 2, 0).await.is_empty());
        assert!(count("192.0.2.1", Event::ProtocolError, 99, 0).await.is_empty(), "off");
        assert_eq!(count("192.0.2.1", Event::FailedLogin, 1, 1).await, ["192.0.2.1"]);
        assert!(count("192.0.2.1", Event::FailedLogin, 9, 2).await.is_empty(), "in force");
        let both = ["192.0.2.2", "192.0.2.0/24"];
        assert_eq!(count("192.0.2.2", Event::FailedLogin, 1, 3).await, both);
    }

    #[test]
    fn events_wait_within_a_bound() {
        let events = Events::default();
        let client = |n: usize| {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap());
            Network::client(address.into())
        };
        for n in 0..limits::GUARD_EVENTS_MAX {
            assert!(events.note(client(n), Event::FailedLogin));
        }
        assert!(!events.note(client(limits::GUARD_EVENTS_MAX), Event::FailedLogin));
        assert!(events.note(client(0), Event::FailedLogin), "it waits already");
        let taken = events.take();
        assert_eq!((taken.len(), taken[0].1), (limits::GUARD_EVENTS_MAX, 2));
        assert!(events.take().is_empty());
    }
}
