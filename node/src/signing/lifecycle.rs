//! A key's way: its record is wanted, then seen in DNS, then the key signs, is retired, and goes.
//!
//! What is due is told as steps, one at a time; whoever does them writes down what came of it here.
//! Nothing here reads a clock, asks DNS or draws a number.
//!
//! Invariants:
//! - A key signs only after DNS has shown its record, and still does [`Policy::settle`] later; or because
//!   a person said so. Until then the one before it signs.
//! - A domain never has more than [`DKIM_KEYS_PER_DOMAIN_MAX`] keys: then none is made until one goes.
//! - A key whose algorithm is not wanted any more signs until one that is wanted does.
//! - A retired key's private half is gone; its record stays for [`Policy::retire`].

use std::time::Duration;

use cluster::{
    dkim::{Algorithm, Found, Key, State},
    limits::DKIM_KEYS_PER_DOMAIN_MAX,
    tickets::age,
};
use env::Timestamp;

use crate::limits::{DKIM_LOOK_MAX, DKIM_LOOK_MIN, DKIM_LOOK_USED};

/// What the settings say.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// By what the domain signs.
    pub(crate) algorithms: Vec<Algorithm>,
    /// How long a key signs; `None`: until a person says so.
    pub(crate) rotate: Option<Duration>,
    /// From the first sight of a record until its key signs.
    pub(crate) settle: Duration,
    /// How long a retired key's record stays.
    pub(crate) retire: Duration,
    /// Who publishes records.
    pub(crate) publisher: Publisher,
}

/// Who publishes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publisher {
    /// A name server takes updates.
    Server,
    /// A person.
    Person,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A key is to be made.
    Make(Algorithm),
    /// Its record is to be sent to the name server.
    Publish(u64),
    /// DNS is to be asked for its record.
    Look(u64),
    /// It is to sign.
    Use(u64),
    /// It is to sign no more.
    Retire(u64),
    /// Its record is to be taken out of the name server.
    Withdraw(u64),
    /// It is to be forgotten.
    Remove(u64),
}

/// The first step that is due and was not done in this turn.
pub(crate) fn next_step(
    keys: &[Key],
    policy: &Policy,
    now: Timestamp,
    done: &[Step],
) -> Option<Step> {
    let steps = keys.iter().flat_map(|key| due(key, keys, policy, now));
    let making = policy.algorithms.iter().copied();
    let making = making.filter(|it| has_room(keys) && is_missing(keys, policy, now, *it));
    steps.chain(making.map(Step::Make)).find(|step| !done.contains(step))
}

/// Whether a domain may have another key: those beyond the bound are not read, so they would be made again.
pub(crate) fn has_room(keys: &[Key]) -> bool {
    keys.len() < DKIM_KEYS_PER_DOMAIN_MAX
}

/// Whether a key is to be made: there is none, or the one that signs is old and none comes.
fn is_missing(keys: &[Key], policy: &Policy, now: Timestamp, algorithm: Algorithm) -> bool {
    let mut of_kind = keys.iter().filter(|key| key.algorithm == algorithm);
    let is_old = |key: &Key| policy.rotate.is_some_and(|after| age(now, key.since) >= after);
    !of_kind.any(|key| match key.state {
        State::Wanted | State::Seen => true,
        State::InUse => !is_old(key) || is_coming(keys, algorithm),
        State::Retired => false,
    })
}

/// Whether a key is on its way into use.
pub(crate) fn is_coming(keys: &[Key], algorithm: Algorithm) -> bool {
    keys.iter()
        .any(|key| key.algorithm == algorithm && matches!(key.state, State::Wanted | State::Seen))
}

/// Whether a key goes because of what it is: nothing is to be signed by its algorithm any more, and the domain
/// does not lose its only signature by that.
fn is_given_up(key: &Key, keys: &[Key], policy: &Policy) -> bool {
    let is_wanted = |key: &Key| policy.algorithms.contains(&key.algorithm);
    let another_signs = || keys.iter().any(|it| it.state == State::InUse && is_wanted(it));
    let is_needed = key.state == State::InUse && !policy.algorithms.is_empty();
    !is_wanted(key) && (!is_needed || another_signs())
}

/// Steps of one key of a domain's that are due, in their order.
fn due(key: &Key, keys: &[Key], policy: &Policy, now: Timestamp) -> Vec<Step> {
    let number = key.number;
    let mut steps = Vec::new();
    if key.state != State::Retired {
        if is_given_up(key, keys, policy) {
            return vec![Step::Retire(number)];
        }
        if policy.publisher == Publisher::Server && key.published.is_none() {
            steps.push(Step::Publish(number));
        }
        if look_at(key, policy) <= now {
            steps.push(Step::Look(number));
        }
        let settled = after(key.since, policy.settle);
        let seen_since = key.looked.is_some_and(|looked| looked >= settled);
        if key.state == State::Seen && key.found == Found::There && seen_since && settled <= now {
            steps.push(Step::Use(number));
        }
        return steps;
    }
    if age(now, key.since) < policy.retire {
        return steps;
    }
    match policy.publisher {
        // One that was never published by us is a person's, too.
        Publisher::Server if key.published.is_some() => steps.push(Step::Withdraw(number)),
        Publisher::Server | Publisher::Person => {
            if key.found == Found::Missing && key.looked.is_some_and(|it| it >= key.since) {
                steps.push(Step::Remove(number));
            } else if look_at(key, policy) <= now {
                steps.push(Step::Look(number));
            }
        }
    }
    steps
}

/// When DNS is to be asked for a key's record again.
fn look_at(key: &Key, policy: &Policy) -> Timestamp {
    let Some(looked) = key.looked else { return key.made };
    match key.state {
        // The older it is, the less a minute matters.
        State::Wanted => {
            after(looked, (age(looked, key.made) / 10).clamp(DKIM_LOOK_MIN, DKIM_LOOK_MAX))
        }
        State::Seen => {
            let settled = after(key.since, policy.settle);
            let again = after(looked, DKIM_LOOK_MIN);
            if looked < settled { settled } else { again }
        }
        State::InUse | State::Retired => after(looked, DKIM_LOOK_USED),
    }
}

/// When something is due that is not due now, or could not be done.
pub(crate) fn next_turn(keys: &[Key], policy: &Policy, now: Timestamp) -> Timestamp {
    let soon = after(now, DKIM_LOOK_MIN);
    let latest = after(now, DKIM_LOOK_USED);
    let times = keys.iter().flat_map(|key| {
        let own = match key.state {
            State::Retired => after(key.since, policy.retire),
            State::InUse => policy.rotate.map_or(latest, |rotate| after(key.since, rotate)),
            State::Wanted | State::Seen => latest,
        };
        // A name server that fails is asked as often as DNS is, in the end once an hour.
        let unpublished = policy.publisher == Publisher::Server
            && key.state != State::Retired
            && key.published.is_none();
        let retry = if unpublished { after(now, DKIM_LOOK_MAX) } else { latest };
        let look = match key.state {
            State::Retired if own > now => latest,
            State::Retired => after(now, DKIM_LOOK_MAX),
            _ => look_at(key, policy),
        };
        let own = if own <= now { latest } else { own };
        [own, retry, look]
    });
    times.min().unwrap_or(latest).clamp(soon, latest)
}

/// DNS has been asked. Tells whether that changed where the key stands.
pub(crate) fn looked(key: &mut Key, found: Found, now: Timestamp) {
    if found == Found::Unasked {
        // Whether the record still stands decides whether a seen key signs: no guess.
        if key.state != State::Seen {
            key.looked = Some(now);
        }
        return;
    }
    key.looked = Some(now);
    key.found = found;
    // What the server was told and does not have, after the time that DNS takes, it is told again. A retired
    // key's record is to go.
    let is_lost = found == Found::Missing && key.state != State::Retired;
    if is_lost && key.published.is_some_and(|at| age(now, at) >= DKIM_LOOK_MAX) {
        key.published = None;
    }
    match (key.state, found) {
        (State::Wanted, Found::There) => enter(key, State::Seen, now),
        // A server had it that the others have not caught up with, or it was taken back.
        (State::Seen, Found::Missing | Found::Other) => enter(key, State::Wanted, now),
        _ => {}
    }
}

/// The name server was told, or not.
pub(crate) fn published(key: &mut Key, outcome: Result<(), String>, now: Timestamp) {
    match outcome {
        Ok(()) => {
            key.published = Some(now);
            key.trouble.clear();
        }
        Err(trouble) => key.trouble = trouble,
    }
}

/// The name server has taken a record out, or not.
pub(crate) fn withdrawn(key: &mut Key, outcome: Result<(), String>) {
    match outcome {
        Ok(()) => {
            key.published = None;
            key.found = Found::Missing;
            // Seen by whom it matters to: the server itself.
            key.looked = Some(key.looked.map_or(key.since, |looked| looked.max(key.since)));
            key.trouble.clear();
        }
        Err(trouble) => key.trouble = trouble,
    }
}

/// A key signs from now on, and the one before it no more.
pub(crate) fn put_to_use(keys: &mut [Key], number: u64, now: Timestamp) {
    let Some(algorithm) = keys.iter().find(|it| it.number == number).map(|it| it.algorithm) else {
        return;
    };
    for key in keys.iter_mut().filter(|key| key.algorithm == algorithm) {
        if key.number == number {
            enter(key, State::InUse, now);
        } else if key.state == State::InUse {
            retire(key, now);
        }
    }
}

/// A key signs no more, and cannot.
pub(crate) fn retire(key: &mut Key, now: Timestamp) {
    enter(key, State::Retired, now);
    key.pkcs8 = zeroize::Zeroizing::new(Vec::new());
}

fn enter(key: &mut Key, state: State, now: Timestamp) {
    key.state = state;
    key.since = now;
}

/// What texts of the key's name say of it.
pub(crate) fn found_in(key: &Key, texts: &[Vec<u8>]) -> Found {
    let wanted = public_half(key.text.as_bytes());
    if texts.is_empty() {
        Found::Missing
    } else if texts.iter().any(|text| public_half(text) == wanted) {
        Found::There
    } else {
        Found::Other
    }
}

/// `k=` and `p=`, as far as the text has them; blanks do not count (RFC 6376 §3.6.1).
fn public_half(text: &[u8]) -> (String, Option<String>) {
    let text = String::from_utf8_lossy(text);
    let value = |wanted: &str| {
        let tags = text.split(';').filter_map(|tag| tag.split_once('='));
        let mut values = tags.filter(|(name, _)| name.trim_ascii() == wanted).map(|(_, it)| it);
        values.next().map(|it| it.split_ascii_whitespace().collect::<String>())
    };
    (value("k").unwrap_or_else(|| "rsa".to_owned()), value("p"))
}

pub(crate) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(at.unix_ms().saturating_add(delay))
}

#[cfg(test)]
mod tests;
