//! What administrators want done with what is in the queue: who writes it down, and the lane that
//! obeys.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Work, Outbound, "o", domain, submission) | [`Order`] | from when it is given until the lane has obeyed; empty submission: the whole domain |
//!
//! A lane obeys before it sends, under its claim, so a message that is in flight is never moved or
//! taken away. What is held is due at [`HELD_DUE_MS`], so it costs nothing while it waits.
//!
//! Several orders about one thing add up: the last of `hold` and `release` counts, `retry` is done
//! with what is not held, `cancel` with all.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    ClusterError,
    work::{
        Completion, Held, Kind, Turn,
        orders::{self, Given},
        zone::{self, Item},
    },
};
use env::Timestamp;
use kv::Transaction;
use mail::{StoreError, keys::encode_over};
use prost::Message;

use super::{
    attempt::Verdict,
    conclude::{self, Task, Unreported, Waits},
    domain,
    lane::Lane,
};
use crate::{
    deliver::{
        Trouble,
        outbound::{self, HELD_ALONE, HELD_DUE_MS, HELD_WITH_DOMAIN, OutboundItem},
    },
    hex::hex,
    limits,
};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Order {
    /// It leaves the queue: 0 not, 1 and nobody is told, 2 and its sender is.
    #[prost(uint32, tag = "1")]
    pub(crate) cancel: u32,
    /// 1 it is held, 2 it is released.
    #[prost(uint32, tag = "2")]
    pub(crate) hold: u32,
    /// It is tried at once.
    #[prost(bool, tag = "3")]
    pub(crate) retry: bool,
    /// When the last of what it says was ordered, milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub(crate) given_ms: i64,
    /// When the item was due as it was seen, milliseconds since 1970.
    #[prost(int64, tag = "5")]
    pub(crate) seen_due_ms: i64,
    /// The last key that an order about a whole domain has come to.
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) done: Vec<u8>,
    /// When it was ordered to leave, milliseconds since 1970: another order about the domain may come
    /// before that is obeyed. 0 in orders of a release that did not write it.
    #[prost(int64, tag = "7")]
    pub(crate) cancel_given_ms: i64,
}

/// [`Order::cancel`]: nobody is told.
const SILENTLY: u32 = 1;
/// [`Order::cancel`]: the sender is told.
const TELLING: u32 = 2;
/// [`Order::hold`]: it is held.
const HOLD: u32 = 1;
/// [`Order::hold`]: it is released.
const RELEASE: u32 = 2;

/// What an administrator wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Retry,
    Hold,
    Release,
    Cancel,
    CancelTelling,
}

impl Order {
    fn add(&mut self, action: Action, now: Timestamp) {
        self.given_ms = now.unix_ms();
        if matches!(action, Action::Cancel | Action::CancelTelling) {
            self.cancel_given_ms = self.given_ms;
        }
        match action {
            Action::Retry => self.retry = true,
            Action::Hold => self.hold = HOLD,
            Action::Release => self.hold = RELEASE,
            Action::Cancel => self.cancel = SILENTLY,
            Action::CancelTelling => self.cancel = TELLING,
        }
    }
}

/// Gives an order about one domain's share of a message.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn give(
    tx: &Transaction,
    domain: &str,
    submission: &[u8],
    action: Action,
    seen_due_ms: i64,
    now: Timestamp,
) -> Result<Given, StoreError> {
    let mut order = standing(tx, domain, submission).await?;
    order.add(action, now);
    order.seen_due_ms = seen_due_ms;
    order.done.clear();
    let order = order.encode_to_vec();
    orders::give(tx, Kind::Outbound, domain, submission, &order, now).await
}

/// Gives an order about a whole domain. To hold it, or to release it, needs nothing in the queue.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn give_domain(
    tx: &Transaction,
    domain: &str,
    action: Action,
    now: Timestamp,
) -> Result<Given, StoreError> {
    match action {
        Action::Hold => domain::hold(tx, domain, now).await?,
        Action::Release => domain::release(tx, domain).await?,
        Action::Retry => domain::hurry(tx, domain).await?,
        Action::Cancel | Action::CancelTelling => {}
    }
    // What is due finds the domain held; the rest waits as it is until it is due.
    match action {
        Action::Hold => Ok(Given::Yes),
        _ => give(tx, domain, b"", action, 0, now).await,
    }
}

async fn standing(tx: &Transaction, domain: &str, submission: &[u8]) -> Result<Order, StoreError> {
    let value = orders::standing(tx, Kind::Outbound, domain, submission).await?;
    // One that cannot be read says nothing that could be kept.
    Ok(value.and_then(|value| Order::decode(value).ok()).unwrap_or_default())
}

/// What an order makes of an item.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// Nothing.
    Stays,
    /// It comes at another time.
    Moves(OutboundItem, Timestamp),
    /// It leaves the queue, and nobody is told.
    Goes,
    /// It leaves the queue, and its sender is told.
    GoesTelling,
}

/// An order about one item.
fn change(order: &Order, item: &OutboundItem, now: Timestamp) -> Change {
    if order.cancel != 0 {
        return if order.cancel == TELLING { Change::GoesTelling } else { Change::Goes };
    }
    let waits_for_its_time = item.tries == 0 && item.hold_until_ms > now.unix_ms();
    let free = OutboundItem { waits_for_domain: false, ..item.clone() };
    match order.hold {
        HOLD if item.held == HELD_ALONE => Change::Stays,
        HOLD => {
            let due = Timestamp::from_unix_ms(HELD_DUE_MS);
            Change::Moves(OutboundItem { held: HELD_ALONE, ..free }, due)
        }
        RELEASE if item.held != 0 || waits_for_its_time => {
            Change::Moves(OutboundItem { held: 0, hold_until_ms: 0, ..free }, now)
        }
        _ if order.retry && item.held == 0 && !waits_for_its_time => Change::Moves(free, now),
        _ => Change::Stays,
    }
}

/// An order about the whole domain.
fn change_of_domain(order: &Order, item: &OutboundItem, now: Timestamp) -> Change {
    if order.cancel != 0 {
        let given_ms = match order.cancel_given_ms {
            0 => order.given_ms,
            given_ms => given_ms,
        };
        // What came later is not cancelled with its domain.
        if item.received_ms <= given_ms {
            return change(order, item, now);
        }
    }
    if order.hold == RELEASE && item.held == HELD_WITH_DOMAIN {
        // It keeps what its sender asked for.
        let due = outbound::first_due(item).max(now);
        let item = OutboundItem { held: 0, waits_for_domain: false, ..item.clone() };
        return Change::Moves(item, due);
    }
    // What waits for the domain leaves as soon as that is reached, without being moved.
    match order.retry && !item.waits_for_domain {
        true => change(&Order { retry: true, ..Order::default() }, item, now),
        false => Change::Stays,
    }
}

/// Does what was ordered about a domain that this node has claimed. Orders that were begun with are
/// obeyed also where that takes longer than a turn: another turn would look for their messages anew.
///
/// # Errors
/// Why it could not be done, for people; the orders stand.
pub(super) async fn obey(lane: &Lane<'_>, turn: &Turn) -> Result<(), String> {
    loop {
        let held = lane.held();
        let (kind, domain) = (held.kind, &held.zone);
        let limit = limits::ORDERS_PER_READ;
        let read = |tx| async move { orders::first(&tx, kind, domain, limit).await };
        let mut found = lane.parts().db.run(read).await.map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Ok(());
        }
        if found.iter().any(|order| decode(order).retry) {
            lane.hurry().await?;
        }
        if found[0].id.is_empty() {
            of_domain(lane, turn, found.swap_remove(0)).await?;
        } else {
            of_items(lane, turn, found).await?;
        }
        if !turn.goes_on() {
            return Ok(());
        }
    }
}

/// Holds what is due of a domain that is held.
///
/// # Errors
/// As [`obey`].
pub(super) async fn hold_due(lane: &Lane<'_>, turn: &Turn) -> Result<(), String> {
    while turn.goes_on() {
        let now = lane.parts().env.wall();
        let mut due = lane.first_items().await?;
        due.retain(|item| item.due <= now);
        if due.is_empty() {
            return Ok(());
        }
        let (mut messages, mut set_aside) = (Vec::new(), Vec::new());
        for item in due {
            match conclude::decode(&item) {
                Ok(decoded) => {
                    let held = HELD_WITH_DOMAIN;
                    let message = OutboundItem { held, waits_for_domain: false, ..decoded };
                    messages.push((item, message));
                }
                Err(reason) => set_aside.push(lane.set_aside(item, &reason)),
            }
        }
        turn.put_off(&set_aside).await.map_err(|error| error.to_string())?;
        if !messages.is_empty() && hold(lane, &messages).await? == Completion::Gone {
            return Ok(());
        }
    }
    Ok(())
}

/// Holds messages with their domain. `Gone`: it is held no longer, and its release would not find
/// what is held after it.
async fn hold(lane: &Lane<'_>, messages: &[(Item, OutboundItem)]) -> Result<Completion, String> {
    let (parts, held) = (lane.parts(), lane.held());
    let commit = |tx: Transaction| async move {
        let known = domain::trouble(&tx, &held.zone).await?;
        if known.is_none_or(|known| known.held_ms == 0) {
            return Ok(Completion::Gone);
        }
        for (item, message) in messages {
            let payload = encode_over(message, &item.payload);
            let due = Timestamp::from_unix_ms(HELD_DUE_MS);
            held.put_off(&tx, item, due, &payload).await?;
        }
        Ok::<_, ClusterError>(Completion::Ours)
    };
    let committed = parts.db.run_versioned(commit).await.map_err(|error| error.to_string())?;
    held.completed(committed.versionstamp);
    Ok(committed.value)
}

fn decode(order: &orders::Order) -> Order {
    Order::decode(order.value.clone()).unwrap_or_default()
}

/// An order about the whole domain: page by page, and it remembers how far it has come.
async fn of_domain(lane: &Lane<'_>, turn: &Turn, mut given: orders::Order) -> Result<(), String> {
    let mut order = decode(&given);
    let now = lane.parts().env.wall();
    loop {
        let from = (!order.done.is_empty()).then(|| [&order.done[..], &[0]].concat());
        let (items, is_last) = lane.page(from.as_deref()).await?;
        let some = items.len().min(limits::ORDERED_PER_TRANSACTION);
        let is_last = is_last && some == items.len();
        let mut changes = Vec::new();
        for item in items.into_iter().take(some) {
            order.done = lane.key(&item);
            let Ok(decoded) = conclude::decode(&item) else { continue };
            match change_of_domain(&order, &decoded, now) {
                Change::Stays => {}
                change => changes.push((item, change)),
            }
        }
        let rest = (!is_last).then(|| order.encode_to_vec());
        let step = [(given.clone(), rest.clone())];
        if write(lane, changes, &step).await? == Completion::Gone {
            // It has been changed meanwhile, and begins again.
            return Ok(());
        }
        match rest {
            Some(rest) => given.value = rest.into(),
            None => return Ok(()),
        }
        if !turn.goes_on() {
            return Ok(());
        }
    }
}

/// Orders about items, which are looked for together.
async fn of_items(lane: &Lane<'_>, turn: &Turn, orders: Vec<orders::Order>) -> Result<(), String> {
    let now = lane.parts().env.wall();
    let mut found = lane.likely(&orders).await?;
    let mut missing: BTreeSet<&[u8]> = BTreeSet::new();
    for order in &orders {
        if !found.contains_key(&order.id) && lane.may_have(&order.id).await? {
            missing.insert(&order.id);
        }
    }
    let mut from: Option<Vec<u8>> = None;
    while !missing.is_empty() {
        if !turn.is_ours() {
            return Ok(());
        }
        let (items, is_last) = lane.page(from.as_deref()).await?;
        from = items.last().map(|item| [&lane.key(item)[..], &[0]].concat());
        for item in items {
            if missing.remove(&item.id[..]) {
                found.insert(item.id.clone(), item);
            }
        }
        if is_last {
            break;
        }
    }
    for some in orders.chunks(limits::ORDERED_PER_TRANSACTION) {
        if !turn.is_ours() {
            return Ok(());
        }
        let mut changes = Vec::new();
        let mut done = Vec::new();
        for given in some {
            done.push((given.clone(), None));
            let Some(item) = found.remove(&given.id) else { continue };
            let Ok(decoded) = conclude::decode(&item) else { continue };
            match change(&decode(given), &decoded, now) {
                Change::Stays => {}
                change => changes.push((item, change)),
            }
        }
        write(lane, changes, &done).await?;
    }
    Ok(())
}

/// Makes the changes, and notes what is left of the orders that they come from. `Gone`: an order was
/// changed meanwhile.
async fn write(
    lane: &Lane<'_>,
    mut changes: Vec<(Item, Change)>,
    obeyed: &[(orders::Order, Option<Vec<u8>>)],
) -> Result<Completion, String> {
    let (parts, held) = (lane.parts(), lane.held());
    for (item, change) in &mut changes {
        if *change == Change::GoesTelling
            && let Err(reason) = cancel_telling(lane, item).await
        {
            // It must not leave, and its sender is to hear of it: so it is kept for people.
            tracing::warn!(domain = held.zone, reason, "a message is held, not cancelled");
            *change = unreported(item, &reason);
        }
    }
    let changes = &changes[..];
    let now = parts.env.wall();
    let commit = |tx: Transaction| async move {
        for (item, change) in changes {
            apply(&tx, held, item, change, now).await?;
        }
        let mut completion = Completion::Ours;
        for (order, rest) in obeyed {
            if held.obeyed(&tx, order, rest.as_deref()).await? == Completion::Gone {
                completion = Completion::Gone;
            }
        }
        Ok::<_, ClusterError>(completion)
    };
    let committed = parts.db.run_versioned(commit).await.map_err(|error| error.to_string())?;
    held.completed(committed.versionstamp);
    for (item, change) in changes {
        let what = match change {
            // A try that has failed is logged as such.
            Change::Stays | Change::GoesTelling => continue,
            Change::Moves(OutboundItem { held: 0, .. }, _) => "moved",
            Change::Moves(..) => "held",
            Change::Goes => "cancelled",
        };
        let id = hex(&item.id);
        tracing::info!(id, domain = held.zone, what, "an order was obeyed");
    }
    Ok(committed.value)
}

async fn apply(
    tx: &Transaction,
    held: &Held,
    item: &Item,
    change: &Change,
    now: Timestamp,
) -> Result<(), ClusterError> {
    match change {
        // Whoever is told of it has it taken out in the report's transaction.
        Change::Stays | Change::GoesTelling => {}
        Change::Moves(message, due) => {
            let payload = encode_over(message, &item.payload);
            held.put_off(tx, item, *due, &payload).await?;
        }
        Change::Goes => {
            let gone = held.complete(tx, item).await? == Completion::Gone;
            let id = conclude::decode(item).ok();
            let id = id.and_then(|item| <[u8; 16]>::try_from(&item.submission[..]).ok());
            if let Some(id) = id.filter(|_| !gone) {
                outbound::domain_done(tx, &id, &held.zone, now).await?;
            }
        }
    }
    Ok(())
}

/// A message leaves the queue, and its sender gets it back (RFC 3463 §3.8: 5.7.1).
async fn cancel_telling(lane: &Lane<'_>, item: &Item) -> Result<(), String> {
    let (parts, held) = (lane.parts(), lane.held());
    let task = Task::read(parts, held, item).await.map_err(|error| error.to_string())?;
    let Some(task) = task else {
        let complete = |tx| async move { held.complete(&tx, item).await.map(drop) };
        return parts.db.run(complete).await.map_err(|error| error.to_string());
    };
    let trouble = Trouble {
        status: "5.7.1".to_owned(),
        words: "an administrator has cancelled the delivery".to_owned(),
        remote: None,
    };
    let verdicts = vec![Verdict::Failed(trouble); task.item.recipients.len()];
    conclude::conclude(parts, held, item, task, verdicts, Waits::ForItsTime, Unreported::Fails)
        .await
}

/// What becomes of a message whose cancellation cannot be reported: it is held, and says why.
fn unreported(item: &Item, reason: &str) -> Change {
    let Ok(message) = conclude::decode(item) else { return Change::Stays };
    let last = outbound::Trouble {
        status: "4.3.0".to_owned(),
        words: format!("held: it was cancelled, and no report can be written: {reason}"),
        remote: String::new(),
    };
    let mut held = OutboundItem { held: HELD_ALONE, waits_for_domain: false, ..message };
    if let Some(first) = held.recipients.first_mut() {
        first.last = Some(last);
    }
    Change::Moves(held, Timestamp::from_unix_ms(HELD_DUE_MS))
}

impl Lane<'_> {
    /// Some of the domain's items, and whether they are the last.
    async fn page(&self, from: Option<&[u8]>) -> Result<(Vec<Item>, bool), String> {
        let (kind, zone) = (self.held().kind, &self.held().zone);
        let read = |tx| async move { zone::items_from(&tx, kind, Some(zone), from).await };
        let slice = self.parts().db.run(read).await.map_err(|error| error.to_string())?;
        let is_last = slice.next.is_none();
        Ok((slice.rows.into_iter().map(|(_, item)| item).collect(), is_last))
    }

    /// The items that are where they were when the orders were given, or are held.
    async fn likely(&self, orders: &[orders::Order]) -> Result<BTreeMap<Vec<u8>, Item>, String> {
        let (kind, zone) = (self.held().kind, &self.held().zone);
        let read = |tx: Transaction| async move {
            let mut found = BTreeMap::new();
            for order in orders {
                for due_ms in [decode(order).seen_due_ms, HELD_DUE_MS] {
                    let due = Timestamp::from_unix_ms(due_ms);
                    if let Some(item) = zone::item(&tx, kind, zone, due, &order.id).await? {
                        found.insert(order.id.clone(), item);
                        break;
                    }
                }
            }
            Ok::<_, StoreError>(found)
        };
        self.parts().db.run(read).await.map_err(|error| error.to_string())
    }

    /// Whether a submission has recipients in the domain, as far as its record tells.
    async fn may_have(&self, id: &[u8]) -> Result<bool, String> {
        let Ok(id) = <[u8; 16]>::try_from(id) else { return Ok(false) };
        let (id, zone) = (&id, &self.held().zone);
        let read = |tx| async move { outbound::submission(&tx, id).await };
        let record = self.parts().db.run(read).await.map_err(|error| error.to_string())?;
        let has = |record: outbound::SubmissionRecord| {
            record.domains.is_empty() || record.domains.contains(zone)
        };
        Ok(record.is_some_and(has))
    }
}

#[cfg(test)]
mod turns;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

    fn order(actions: &[Action]) -> Order {
        let mut order = Order { given_ms: NOW.unix_ms(), ..Order::default() };
        actions.iter().for_each(|action| order.add(*action, NOW));
        order
    }

    fn item() -> OutboundItem {
        OutboundItem { received_ms: 900_000, tries: 1, ..OutboundItem::default() }
    }

    fn due(change: &Change) -> Option<i64> {
        match change {
            Change::Moves(_, due) => Some(due.unix_ms()),
            _ => None,
        }
    }

    #[test]
    fn orders_add_up() {
        let now = Some(NOW.unix_ms());
        let held = OutboundItem { held: HELD_ALONE, ..item() };
        for (actions, item, expected) in [
            (&[Action::Retry][..], item(), now),
            (&[Action::Hold], item(), Some(HELD_DUE_MS)),
            (&[Action::Retry, Action::Hold], item(), Some(HELD_DUE_MS)),
            (&[Action::Hold, Action::Retry], item(), Some(HELD_DUE_MS)),
            (&[Action::Hold, Action::Release, Action::Retry], item(), now),
            (&[Action::Retry], held.clone(), None),
            (&[Action::Hold], held.clone(), None),
            (&[Action::Release], held.clone(), now),
        ] {
            let change = change(&order(actions), &item, NOW);
            assert_eq!(due(&change), expected, "{actions:?} {item:?}");
        }
        let gone = change(&order(&[Action::Hold, Action::CancelTelling]), &held, NOW);
        assert_eq!(gone, Change::GoesTelling);
    }

    #[test]
    fn what_waits_for_its_time_is_released_by_name_alone() {
        let future = OutboundItem { tries: 0, hold_until_ms: 2_000_000, ..item() };
        assert_eq!(change(&order(&[Action::Retry]), &future, NOW), Change::Stays);
        let Change::Moves(released, due) = change(&order(&[Action::Release]), &future, NOW) else {
            panic!("it stays")
        };
        assert_eq!((released.hold_until_ms, due), (0, NOW));
        let held = OutboundItem { held: HELD_WITH_DOMAIN, ..future };
        let released = change_of_domain(&order(&[Action::Release]), &held, NOW);
        assert_eq!(self::due(&released), Some(2_000_000), "its sender's wish stands");
    }

    #[test]
    fn a_domain_is_released_of_what_was_held_with_it_and_cancelled_of_what_was_there() {
        let with = OutboundItem { held: HELD_WITH_DOMAIN, ..item() };
        let alone = OutboundItem { held: HELD_ALONE, ..item() };
        let release = order(&[Action::Release]);
        assert_eq!(due(&change_of_domain(&release, &with, NOW)), Some(NOW.unix_ms()));
        assert_eq!(change_of_domain(&release, &alone, NOW), Change::Stays);
        let cancel = order(&[Action::Cancel]);
        for gone in [&with, &alone, &item()] {
            assert_eq!(change_of_domain(&cancel, gone, NOW), Change::Goes);
        }
        let newer = OutboundItem { received_ms: NOW.unix_ms() + 1, ..item() };
        assert_eq!(change_of_domain(&cancel, &newer, NOW), Change::Stays);
        // Nor does another order that comes before it is obeyed take what came between them.
        let later = Timestamp::from_unix_ms(NOW.unix_ms() + 2);
        let mut both = cancel.clone();
        both.add(Action::Retry, later);
        assert_eq!(due(&change_of_domain(&both, &newer, later)), Some(later.unix_ms()));
        assert_eq!(change_of_domain(&both, &item(), later), Change::Goes);
        let waiting = OutboundItem { waits_for_domain: true, ..item() };
        let retry = order(&[Action::Retry]);
        assert_eq!(change_of_domain(&retry, &waiting, NOW), Change::Stays);
        assert_eq!(due(&change_of_domain(&retry, &item(), NOW)), Some(NOW.unix_ms()));
    }
}
