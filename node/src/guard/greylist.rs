//! Greylisting (RFC 6647): mail of a sender, to a recipient, from a network that has not sent such
//! mail before is put off once. Who is a mail server comes again.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Greylist, "t", hash) | [`Entry`] | of a network, sender and recipient: from the first message until the time to come back is over, or until long after the last message; swept |
//! | (Greylist, "n", network) | [`Entry`] | with how many messages a network came back: the same |
//! | (Greylist, "x", hour, kind, id) | empty | in which hour an entry ends that has kind and id; swept with it, or when a later one stands for it |
//!
//! A message is judged as a whole, in one transaction, when its recipients are known: it is put off
//! while any of them is new. Who comes back within the time passes for all recipients that it then
//! names. Entries are written anew once a day at most, so regular correspondents cost reads alone.
//!
//! A neighbourhood begins [`limits::GREYLIST_NEW_PER_HOUR_MAX`] triplets in an hour at most, counted as
//! limits of rates are ([`super::rate`]): whoever makes up senders must not fill the store. Beyond it
//! new triplets are put off like any other and nothing is written of them.

use env::Timestamp;
use futures_util::future::try_join_all;
use kv::{
    RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;

use super::{
    network::Network,
    rate::{Counter, Period},
};
use crate::{limits, settings::guard::Greylist as Rules};

/// What is known of a triplet, or of a network.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Entry {
    /// When it was first seen, milliseconds since 1970.
    #[prost(int64, tag = "1")]
    first_ms: i64,
    /// When it ends, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    ends_ms: i64,
    /// How often a message that was put off came back.
    #[prost(uint64, tag = "3")]
    passes: u64,
}

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// What becomes of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Decision {
    /// It was known.
    Known,
    /// It was put off before, and came back.
    CameBack,
    /// It is put off.
    PutOff,
}

fn seconds_ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn keep_ms(rules: &Rules) -> i64 {
    seconds_ms(rules.keep_days.saturating_mul(86_400))
}

/// Judges a triplet; gives what is to be written, if anything is.
fn judge(held: Option<Entry>, rules: &Rules, now: Timestamp) -> (Decision, Option<Entry>) {
    let now_ms = now.unix_ms();
    let ends_ms = now_ms.saturating_add(keep_ms(rules));
    match held.filter(|entry| entry.ends_ms > now_ms) {
        None => {
            let ends_ms = now_ms.saturating_add(seconds_ms(rules.window_seconds));
            (Decision::PutOff, Some(Entry { first_ms: now_ms, ends_ms, passes: 0 }))
        }
        Some(entry) if entry.passes > 0 => (Decision::Known, renewed(entry, ends_ms)),
        Some(entry) if now_ms < entry.first_ms.saturating_add(seconds_ms(rules.delay_seconds)) => {
            (Decision::PutOff, None)
        }
        Some(entry) => (Decision::CameBack, Some(Entry { ends_ms, passes: 1, ..entry })),
    }
}

/// With its new end, where that is worth writing.
fn renewed(entry: Entry, ends_ms: i64) -> Option<Entry> {
    let later = ends_ms > entry.ends_ms.saturating_add(DAY_MS);
    later.then_some(Entry { ends_ms, ..entry })
}

/// Whether all mail of a network is known.
fn is_known(held: Option<Entry>, rules: &Rules, now: Timestamp) -> bool {
    rules.passes > 0
        && held.is_some_and(|it| it.ends_ms > now.unix_ms() && it.passes >= rules.passes)
}

/// Judges a message to recipients in their canonical form. Reads with conflict what it writes.
pub(crate) async fn check(
    tx: &Transaction,
    rules: &Rules,
    network: Network,
    sender: &str,
    recipients: &[String],
    now: Timestamp,
) -> Result<Decision, StoreError> {
    let id = network.to_bytes();
    let of_network = read(tx, NETWORK, &id).await?;
    if is_known(of_network, rules, now) {
        let ends_ms = now.unix_ms().saturating_add(keep_ms(rules));
        if let Some(entry) = of_network.and_then(|entry| renewed(entry, ends_ms)) {
            write(tx, NETWORK, &id, of_network, entry);
        }
        return Ok(Decision::Known);
    }
    let ids: Vec<_> = recipients.iter().map(|it| hash(network, sender, it)).collect();
    let held = try_join_all(ids.iter().map(|id| read(tx, TRIPLET, id))).await?;
    let judged: Vec<_> = held.iter().map(|entry| judge(*entry, rules, now)).collect();
    let decision = judged.iter().map(|(decision, _)| *decision).max().unwrap_or(Decision::Known);
    let is_new = |(decision, entry): &&(Decision, Option<Entry>)| {
        *decision == Decision::PutOff && entry.is_some()
    };
    let new = judged.iter().filter(is_new).count() as u64;
    if new > 0 {
        let counter = Counter::new(Period::Hour, NEW, &id, now);
        let before = counter.read(tx).await?;
        if before.saturating_add(new) > limits::GREYLIST_NEW_PER_HOUR_MAX {
            return Ok(Decision::PutOff);
        }
        counter.add(tx, new);
    }
    for ((id, held), (its, entry)) in ids.iter().zip(&held).zip(judged) {
        // A triplet passes with its message: until then it has not come back.
        if let Some(entry) = entry.filter(|_| decision != Decision::PutOff || its == decision) {
            write(tx, TRIPLET, id, *held, entry);
        }
    }
    if decision == Decision::CameBack {
        let now_ms = now.unix_ms();
        let live = of_network.filter(|entry| entry.ends_ms > now_ms);
        let (first_ms, passes) = live.map_or((now_ms, 0), |it| (it.first_ms, it.passes));
        let ends_ms = now_ms.saturating_add(keep_ms(rules));
        write(tx, NETWORK, &id, of_network, Entry { first_ms, ends_ms, passes: passes + 1 });
    }
    Ok(decision)
}

const TRIPLET: &str = "t";
const NETWORK: &str = "n";

/// What new triplets are counted as.
const NEW: &str = "gt";

fn hash(network: Network, sender: &str, recipient: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&network.to_bytes()).update(sender.as_bytes()).update(&[0]);
    hasher.update(recipient.as_bytes());
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    hash
}

/// (Greylist, kind, id)
fn key(kind: &str, id: &[u8]) -> Vec<u8> {
    pack(&(Subspace::Greylist as u64, kind, id))
}

/// (Greylist, "x", hour, kind, id)
fn end_key(entry: Entry, kind: &str, id: &[u8]) -> Vec<u8> {
    pack(&(Subspace::Greylist as u64, "x", entry.ends_ms / HOUR_MS, kind, id))
}

async fn read(tx: &Transaction, kind: &str, id: &[u8]) -> Result<Option<Entry>, StoreError> {
    let Some(value) = tx.get(&key(kind, id)).await? else { return Ok(None) };
    let entry = Entry::decode(value);
    entry.map(Some).map_err(|error| StoreError::damaged("greylist entry", error))
}

fn write(tx: &Transaction, kind: &str, id: &[u8], before: Option<Entry>, entry: Entry) {
    if let Some(before) = before {
        tx.clear(&end_key(before, kind, id));
    }
    tx.set(&key(kind, id), &entry.encode_to_vec());
    tx.set(&end_key(entry, kind, id), &[]);
}

/// Takes out some of the entries that are over; tells whether there may be more.
pub(crate) async fn sweep(tx: &Transaction, now: Timestamp) -> Result<Swept, StoreError> {
    let begin = pack(&(Subspace::Greylist as u64, "x"));
    let end = pack(&(Subspace::Greylist as u64, "x", now.unix_ms() / HOUR_MS));
    let query = RangeQuery::new(begin, end).limit(limits::GUARD_SWEEP_ROWS).snapshot();
    let rows = tx.range(query).collect().await?;
    let swept = if rows.len() < limits::GUARD_SWEEP_ROWS { Swept::All } else { Swept::Some };
    for row in rows {
        type Key<'a> = (u64, String, i64, String, tuple::Bytes<'a>);
        let (_, _, _, kind, id): Key<'_> = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("greylist entry", "an end without its entry"))?;
        tx.clear(&row.key);
        let over = |entry: &Entry| entry.ends_ms <= now.unix_ms();
        if read(tx, &kind, &id).await?.as_ref().is_some_and(over) {
            tx.clear(&key(&kind, &id));
        }
    }
    Ok(swept)
}

/// How far a sweep came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    /// There is nothing left that is over.
    All,
    /// There may be more.
    Some,
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;
    use crate::settings::guard::Guard;

    fn rules() -> Rules {
        Rules {
            delay_seconds: 300,
            window_seconds: 3600,
            keep_days: 2,
            passes: 2,
            ..Guard::default().greylist
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + seconds)
    }

    async fn ask(db: &Database, network: &str, to: &[&str], seconds: i64) -> Decision {
        let network = network.parse().unwrap();
        let recipients = &to.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let rules = &rules();
        let run = |tx: Transaction| async move {
            check(&tx, rules, network, "a@example.net", recipients, at(seconds)).await
        };
        db.run(run).await.unwrap()
    }

    async fn rows(db: &Database) -> usize {
        let prefix = Subspace::Greylist.prefix();
        let read = |tx: Transaction| {
            let query = RangeQuery::prefix(&prefix);
            async move { Ok::<_, kv::Error>(tx.range(query).collect().await?.len()) }
        };
        db.run(read).await.unwrap()
    }

    #[test]
    fn a_triplet_is_new_then_early_then_known_then_forgotten() {
        let rules = rules();
        let (decision, first) = judge(None, &rules, at(0));
        assert_eq!(decision, Decision::PutOff);
        assert_eq!(judge(first, &rules, at(299)), (Decision::PutOff, None));
        // Too late: as if it were new.
        let (decision, again) = judge(first, &rules, at(3600));
        assert_eq!((decision, again.unwrap().first_ms), (Decision::PutOff, at(3600).unix_ms()));
        let (decision, passed) = judge(first, &rules, at(300));
        assert_eq!(decision, Decision::CameBack);
        assert_eq!(judge(passed, &rules, at(301)), (Decision::Known, None));
        let (decision, later) = judge(passed, &rules, at(300 + 100_000));
        assert_eq!(decision, Decision::Known);
        assert_eq!(later.unwrap().ends_ms, at(300 + 100_000 + 2 * 86_400).unix_ms());
        assert_eq!(judge(passed, &rules, at(300 + 2 * 86_400)).0, Decision::PutOff);
    }

    #[tokio::test]
    async fn a_message_passes_as_a_whole_and_a_network_in_the_end() {
        let db = Database::memory(env::Env::system());
        let here = "192.0.2.0/24";
        assert_eq!(ask(&db, here, &["x@example.org"], 0).await, Decision::PutOff);
        let both = &["x@example.org", "y@example.org"];
        assert_eq!(ask(&db, here, both, 400).await, Decision::PutOff, "one of them is new");
        assert_eq!(ask(&db, here, both, 800).await, Decision::CameBack);
        assert_eq!(ask(&db, here, both, 801).await, Decision::Known);
        assert_eq!(ask(&db, here, &["z@example.org"], 802).await, Decision::PutOff);
        assert_eq!(ask(&db, "198.51.100.0/24", &["z@example.org"], 1200).await, Decision::PutOff);
        assert_eq!(ask(&db, here, &["z@example.org"], 1200).await, Decision::CameBack);
        // It has come back twice.
        assert_eq!(ask(&db, here, &["new@example.org"], 1201).await, Decision::Known);
    }

    #[tokio::test]
    async fn a_neighbourhood_begins_so_many_triplets_an_hour() {
        let db = Database::memory(env::Env::system());
        let here = "192.0.2.0/24";
        let most = limits::GREYLIST_NEW_PER_HOUR_MAX;
        let fill = |count: u64| {
            let network: Network = here.parse().unwrap();
            let counter = Counter::new(Period::Hour, NEW, &network.to_bytes(), at(0));
            let db = db.clone();
            async move {
                let counter = &counter;
                let run = |tx: Transaction| async move {
                    counter.add(&tx, count);
                    Ok::<_, StoreError>(())
                };
                db.run(run).await.unwrap();
            }
        };
        assert_eq!(ask(&db, here, &["x@example.org"], 0).await, Decision::PutOff);
        assert_eq!(rows(&db).await, 2);
        fill(most - 2).await;
        let two = &["a@example.org", "b@example.org"];
        assert_eq!(ask(&db, here, two, 0).await, Decision::PutOff);
        assert_eq!(rows(&db).await, 2, "one of them is too many");
        assert_eq!(ask(&db, here, &["a@example.org"], 0).await, Decision::PutOff);
        assert_eq!(rows(&db).await, 4);
        for sender in 0..20 {
            let to = format!("new-{sender}@example.org");
            assert_eq!(ask(&db, here, &[&to], 1).await, Decision::PutOff);
        }
        assert_eq!(rows(&db).await, 4);
        // Who waits may still come back, and others are as free as before.
        assert_eq!(ask(&db, here, &["x@example.org"], 400).await, Decision::CameBack);
        let there = "198.51.100.0/24";
        assert_eq!(ask(&db, there, &["x@example.org"], 400).await, Decision::PutOff);
        assert_eq!(rows(&db).await, 8);
        // Two hours later there is room again.
        assert_eq!(ask(&db, here, &["y@example.org"], 7200).await, Decision::PutOff);
        assert_eq!(rows(&db).await, 10);
    }

    #[tokio::test]
    async fn what_is_over_is_swept_and_the_rest_is_not() {
        let db = Database::memory(env::Env::system());
        for (to, seconds) in [("x@example.org", 0), ("x@example.org", 400), ("y@example.org", 0)] {
            ask(&db, "192.0.2.0/24", &[to], seconds).await;
        }
        // Two triplets and a network, each with its end.
        assert_eq!(rows(&db).await, 6);
        let swept = async |seconds| {
            let run = |tx: Transaction| async move { sweep(&tx, at(seconds)).await };
            assert_eq!(db.run(run).await.unwrap(), Swept::All);
            rows(&db).await
        };
        assert_eq!(swept(3000).await, 6);
        assert_eq!(swept(3 * 3600).await, 4);
        assert_eq!(swept(4 * 86_400).await, 0);
    }
}
