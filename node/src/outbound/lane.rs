//! One turn at one domain: how it goes, and what is known of the domain meanwhile. How a message of it
//! is sent is in `lane/delivery.rs`, what becomes at its end of what did not leave in `lane/settling.rs`.
//!
//! The first connection is a probe: only once a server has answered do more messages leave at the
//! same time ([`Width`]), no more in a minute than the configuration says
//! ([`Pace`]). While no server can be reached the domain's messages are put off together, without a try
//! of their own, and whoever is late or expired is reported.

mod delivery;
mod settling;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cluster::{
    ClusterError, NodeName,
    membership::roll,
    work::{self, Held, Turn, zone},
};
use env::Monotonic;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mail::StoreError;
use tokio::sync::OnceCell;

use super::{
    Parts, conclude,
    connection::Connection,
    domain::{self, DomainTrouble},
    orders,
    pace::{Pace, Width},
    reach::{Scope, Unreached, Way},
    route::{NoRoute, Route},
    schedule::later,
};
use crate::{deliver::Trouble, limits};

/// A domain while this node has claimed it.
pub(super) struct Lane<'a> {
    parts: &'a Parts,
    held: &'a Held,
    /// Whether the domain is served here.
    is_here: bool,
    /// The cluster's nodes, by name.
    nodes: Vec<NodeName>,
    way: Way<'a>,
    route: OnceCell<Result<Route, NoRoute>>,
    state: Mutex<State>,
}

struct State {
    idle: Vec<Connection>,
    trouble: Option<DomainTrouble>,
    reach: Reach,
    /// Messages that may be on their way at once.
    width: Width,
    /// When they may leave.
    pace: Pace,
    /// Recipients of one message that are sent at once: fewer than
    /// [`limits::OUTBOUND_RECIPIENTS_MAX`] where a server has shown that it takes no more.
    recipients_max: usize,
    /// Administrators hold the domain: nothing leaves.
    is_held: bool,
    /// An order has come meanwhile: the turn ends, and the next one begins with obeying.
    has_orders: bool,
    /// From where on the queue is read.
    place: Place,
}

/// How far a turn has read. What has left the queue is passed over by the store row by row, which
/// takes long where much has: so reading goes on where it was.
struct Place {
    /// When the first that may be there is due, in milliseconds since 1970.
    begin_ms: i64,
    /// Where the first is that was still there.
    first: Vec<u8>,
    /// Behind it, the first page of those that wait for the domain, where it is known.
    waiting: Option<Vec<u8>>,
    /// When it was last read from the begin, where what is urgent goes.
    looked_back: Monotonic,
}

impl State {
    /// Whether only what goes without TLS leaves.
    fn is_down_by_tls(&self) -> bool {
        let is_of_tls = self.trouble.as_ref().is_some_and(|trouble| trouble.is_of_tls);
        self.reach == Reach::Down && is_of_tls
    }
}

/// Whether the domain's servers can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Unknown,
    Reached,
    Down,
}

/// Works on a domain until nothing of it is due.
pub(super) async fn run(parts: &Parts, turn: &Turn) {
    // What waits for the domain is not due by itself: somebody has to come for it.
    turn.come_again(Some(later(parts.env.wall(), limits::LANE_FAILED_PAUSE)));
    let lane = match Lane::open(parts, turn.held()).await {
        Ok(lane) => lane,
        Err(reason) => {
            tracing::warn!(domain = turn.held().zone, reason, "a domain is not sent to");
            return;
        }
    };
    if let Err(reason) = orders::obey(&lane, turn).await {
        tracing::warn!(domain = turn.held().zone, reason, "orders are not obeyed");
        return;
    }
    let mut flying = FuturesUnordered::new();
    let mut on_their_way = BTreeSet::new();
    let mut ready = VecDeque::new();
    loop {
        let mut slot = None;
        if turn.goes_on() && lane.takes(flying.len()) {
            if ready.is_empty() {
                match lane.read_due(&on_their_way).await {
                    Ok(found) => ready.extend(found),
                    Err(error) => tracing::warn!(%error, "a domain's messages cannot be read"),
                }
            }
            if lane.state().is_down_by_tls() {
                ready.retain(conclude::is_tls_optional);
            }
            slot = lane.next_slot().filter(|_| !ready.is_empty());
            if slot.is_none()
                && let Some(item) = ready.pop_front()
            {
                lane.take_slot();
                on_their_way.insert(item.id.clone());
                let lane = &lane;
                flying.push(Box::pin(async move {
                    turn.note(&item, Box::pin(lane.send(&item))).await;
                    item.id
                }));
                continue;
            }
        }
        // In order, and with no draw of Tokio's own, so that a simulation can replay it.
        tokio::select! {
            biased;
            Some(id) = flying.next() => { on_their_way.remove(&id); }
            () = lane.pause(slot), if slot.is_some() => {}
            else => break,
        }
    }
    drop(flying);
    lane.settle(turn).await;
    lane.close().await;
    lane.keep_pace(turn, !ready.is_empty()).await;
    lane.way.conclude().await;
}

impl<'a> Lane<'a> {
    /// Reads what is known of the domain.
    pub(super) async fn open(parts: &'a Parts, held: &'a Held) -> Result<Self, String> {
        let zone = &held.zone;
        let read = |tx| async move {
            let (trouble, is_here, nodes) = tokio::try_join!(
                domain::trouble(&tx, zone),
                mail::directory::is_local(&tx, zone),
                roll::names(&tx, None, limits::OWN_NODES_MAX),
            )?;
            let nodes: Vec<_> = nodes.into_iter().map(|(name, _)| name).collect();
            Ok::<_, StoreError>((trouble, is_here, nodes))
        };
        let read = parts.db.run(read).await;
        let (trouble, is_here, nodes) = read.map_err(|error| error.to_string())?;
        let now = parts.env.wall();
        let reach = match &trouble {
            Some(trouble) if trouble.failures > 0 && trouble.retry_at() > now => Reach::Down,
            _ => Reach::Unknown,
        };
        let is_held = trouble.as_ref().is_some_and(|trouble| trouble.held_ms != 0);
        let trouble = trouble.filter(DomainTrouble::is_trouble);
        let most = usize::try_from(parts.config.connections_per_domain_max).unwrap_or(usize::MAX);
        let per_minute = parts.config.messages_per_minute_per_domain;
        let state = State {
            idle: Vec::new(),
            trouble,
            reach,
            width: Width::new(most),
            pace: Pace::new(per_minute, parts.slots.next(zone)),
            recipients_max: limits::OUTBOUND_RECIPIENTS_MAX,
            is_held,
            has_orders: false,
            place: Place {
                begin_ms: held.since_ms,
                first: begin(held, held.since_ms),
                waiting: None,
                looked_back: parts.env.monotonic(),
            },
        };
        let way = Way::new(parts, zone);
        let (route, state) = (OnceCell::new(), Mutex::new(state));
        Ok(Self { parts, held, is_here, nodes, way, route, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn parts(&self) -> &Parts {
        self.parts
    }

    pub(super) fn held(&self) -> &Held {
        self.held
    }

    /// Whether one more message may leave beside so many.
    fn takes(&self, flying: usize) -> bool {
        let state = self.state();
        let may_go = state.reach != Reach::Down || state.is_down_by_tls();
        may_go && !state.is_held && !state.has_orders && flying < state.width.get()
    }

    /// How long it is until the next message may leave, where it may not yet.
    fn next_slot(&self) -> Option<Duration> {
        let now = self.parts.env.monotonic();
        self.state().pace.wait(now)
    }

    fn take_slot(&self) {
        let now = self.parts.env.monotonic();
        self.state().pace.take(now);
    }

    async fn pause(&self, slot: Option<Duration>) {
        let wait = slot.unwrap_or_default().min(limits::PACE_STEP);
        self.parts.env.sleep(wait).await;
    }

    /// A domain that has more to send is kept until its next slot: whoever has it next begins anew.
    async fn keep_pace(&self, turn: &Turn, has_more: bool) {
        while let Some(wait) = self.next_slot().filter(|_| has_more && turn.is_ours()) {
            self.pause(Some(wait)).await;
        }
        let now = self.parts.env.monotonic();
        self.parts.slots.keep(&self.held.zone, &self.state().pace, now);
    }

    /// The back-off is over: the domain is tried again.
    pub(super) async fn hurry(&self) -> Result<(), String> {
        let (fence, zone) = (&self.held.fence, &self.held.zone);
        let hurry = |tx| async move {
            fence.check(&tx).await?;
            domain::hurry(&tx, zone).await.map_err(ClusterError::from)
        };
        self.parts.db.run(hurry).await.map_err(|error| error.to_string())?;
        let mut state = self.state();
        state.reach = Reach::Unknown;
        if let Some(trouble) = &mut state.trouble {
            trouble.retry_ms = 0;
        }
        Ok(())
    }

    /// The domain's first messages, due or not.
    pub(super) async fn first_items(&self) -> Result<Vec<zone::Item>, String> {
        let (kind, zone) = (self.held.kind, &self.held.zone);
        let limit = cluster::limits::ITEMS_PER_READ;
        let read = |tx| async move { zone::first_items(&tx, kind, zone, limit).await };
        self.parts.db.run(read).await.map_err(|error| error.to_string())
    }

    /// What may leave now, but for what is on its way. Where the domain may be reached again that is
    /// also what has waited for it.
    async fn read_due(
        &self,
        on_their_way: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<zone::Item>, StoreError> {
        let (kind, zone) = (self.held.kind, &self.held.zone);
        let limit = cluster::limits::ITEMS_PER_READ;
        let from = &self.begin_reading();
        let read = |tx| async move {
            let items = zone::items_since(&tx, kind, zone, from.clone(), limit).await?;
            let has_orders = !work::orders::first(&tx, kind, zone, 1).await?.is_empty();
            let since_ms = zone::claimed_since(&tx, kind, zone).await?;
            Ok::<_, StoreError>((items, domain::is_held(&tx, zone).await?, has_orders, since_ms))
        };
        let (items, is_held, has_orders, since_ms) = self.parts.db.run(read).await?;
        {
            let mut state = self.state();
            (state.is_held, state.has_orders) = (is_held, has_orders);
            state.place.begin_ms = since_ms.unwrap_or(i64::MIN).min(state.place.begin_ms);
            if let Some(first) = items.first() {
                state.place.first = self.key(first);
            }
        }
        if is_held || has_orders {
            return Ok(Vec::new());
        }
        let behind = (items.len() >= limit).then(|| items.last().map(|it| self.key_behind(it)));
        let mut ready = self.ready(items, on_their_way);
        if ready.is_empty()
            && self.recovers()
            && let Some(behind) = behind.flatten()
        {
            ready = self.read_waiting(behind, on_their_way).await?;
        }
        // RFC 6710 §4.2: of what is read together the more urgent goes first.
        ready.sort_by_cached_key(|item| std::cmp::Reverse(conclude::priority(item)));
        Ok(ready)
    }

    /// From where the queue is read now: from the begin now and then, where what is urgent goes.
    fn begin_reading(&self) -> Vec<u8> {
        let now = self.parts.env.monotonic();
        let place = &mut self.state().place;
        if now.saturating_since(place.looked_back) >= limits::LOOK_BACK_PERIOD {
            place.looked_back = now;
            place.first = begin(self.held, place.begin_ms);
        }
        place.first.clone()
    }

    /// What has waited for the domain, behind much that waits for other times.
    async fn read_waiting(
        &self,
        behind: Vec<u8>,
        on_their_way: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<zone::Item>, StoreError> {
        let (kind, zone) = (self.held.kind, &self.held.zone);
        let limit = cluster::limits::ITEMS_PER_READ;
        let mut from =
            self.state().place.waiting.take().map_or(behind.clone(), |it| it.max(behind));
        loop {
            let begin = &from;
            let read =
                |tx| async move { zone::items_since(&tx, kind, zone, begin.clone(), limit).await };
            let items = self.parts.db.run(read).await?;
            let next = items.last().map(|it| self.key_behind(it));
            let is_last = items.len() < limit;
            let ready = self.ready(items, on_their_way);
            if is_last || !ready.is_empty() {
                self.state().place.waiting = Some(from);
                return Ok(ready);
            }
            from = next.expect("a full page has a last row");
        }
    }

    /// Those of some messages that may leave now.
    fn ready(
        &self,
        mut items: Vec<zone::Item>,
        on_their_way: &BTreeSet<Vec<u8>>,
    ) -> Vec<zone::Item> {
        let now = self.parts.env.wall();
        let (is_down, is_down_by_tls) = {
            let state = self.state();
            (state.reach == Reach::Down, state.is_down_by_tls())
        };
        items.retain(|item| {
            let waits_no_longer = || {
                let may_go = !is_down || (is_down_by_tls && conclude::is_tls_optional(item));
                may_go && conclude::waits_for_domain(item)
            };
            (item.due <= now || waits_no_longer()) && !on_their_way.contains(&item.id)
        });
        items
    }

    pub(super) fn key(&self, item: &zone::Item) -> Vec<u8> {
        work::item_key(self.held.kind, &self.held.zone, item.due.unix_ms(), &item.id)
    }

    fn key_behind(&self, item: &zone::Item) -> Vec<u8> {
        [&self.key(item)[..], &[0]].concat()
    }

    /// Whether something may wait for the domain, which may be reached again.
    fn recovers(&self) -> bool {
        let state = self.state();
        state.reach != Reach::Down && state.trouble.is_some()
    }

    /// A server has answered.
    async fn is_reached(&self) {
        let recovered = {
            let mut state = self.state();
            let first = state.reach != Reach::Reached;
            state.reach = Reach::Reached;
            state.width.connected();
            let mut trouble = state.trouble.clone();
            match &mut trouble {
                Some(trouble) if first && trouble.failures > 0 => {
                    trouble.failures = 0;
                    trouble.retry_ms = 0;
                    state.trouble = Some(trouble.clone());
                    Some(trouble.clone())
                }
                _ => None,
            }
        };
        if let Some(recovered) = recovered {
            env::sometimes!("a domain can be reached again");
            self.note(Some(&recovered)).await;
        }
    }

    /// A connection did not come about: fewer at once where others did, none where none did.
    async fn turned_away(&self, unreached: &Unreached) {
        let is_reached = {
            let mut state = self.state();
            state.width.turned_away();
            state.reach == Reach::Reached
        };
        if !is_reached {
            self.is_down(&unreached.trouble, unreached.scope()).await;
        }
    }

    /// No server can be reached: the domain waits, all of it or what wants TLS.
    async fn is_down(&self, trouble: &Trouble, scope: Scope) {
        let (env, schedule) = (&self.parts.env, &self.parts.schedule);
        let now = env.wall();
        let noted = {
            let mut state = self.state();
            let gets_worse = state.is_down_by_tls() && scope == Scope::All;
            if state.reach == Reach::Down && !gets_worse {
                return;
            }
            state.reach = Reach::Down;
            let held = state.trouble.clone().unwrap_or_default();
            let failures = held.failures.saturating_add(u32::from(!gets_worse));
            let next = || schedule.next(env, failures, now).unix_ms();
            let noted = DomainTrouble {
                failures,
                since_ms: if held.failures == 0 { now.unix_ms() } else { held.since_ms },
                retry_ms: if gets_worse { held.retry_ms } else { next() },
                status: trouble.status.clone(),
                reason: trouble.words.clone(),
                held_ms: 0,
                is_of_tls: scope == Scope::OverTls,
            };
            state.trouble = Some(noted.clone());
            noted
        };
        let (domain, failures) = (&self.held.zone, noted.failures);
        tracing::info!(domain, failures, reason = noted.reason, "a domain cannot be reached");
        env::sometimes!("a domain could not be reached");
        self.note(Some(&noted)).await;
    }

    async fn note(&self, trouble: Option<&DomainTrouble>) {
        let (fence, zone) = (&self.held.fence, &self.held.zone);
        let note = |tx| async move { domain::note(&tx, fence, zone, trouble).await };
        if let Err(error) = self.parts.db.run(note).await {
            tracing::warn!(domain = zone, %error, "what is known of a domain is not noted");
        }
    }

    async fn close(&self) {
        let idle = std::mem::take(&mut self.state().idle);
        let security = &self.parts.security;
        futures_util::future::join_all(idle.into_iter().map(|it| it.close(security))).await;
    }
}

/// Where what is due from then on begins.
fn begin(held: &Held, from_ms: i64) -> Vec<u8> {
    work::item_key(held.kind, &held.zone, from_ms, &[])
}
