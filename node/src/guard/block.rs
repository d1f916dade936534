//! Networks that are refused, by every node, for a time.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Block, "n", network) | [`Block`] | from the block until an administrator removes it, or until [`limits::BLOCK_MEMORY`] after its end; swept |
//! | (Block, "state") | [`State`] | from the first block on; written with every change, and watched by every node |
//!
//! Who is blocked again while the last time is remembered is blocked for twice as long. There are at
//! most `guard.block.count_max` of them, those that are over and remembered included.

use env::Timestamp;
use kv::{
    RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::{StoreError, keys::encode_over};
use prost::Message;

use super::network::Network;
use crate::{limits, settings::guard::Block as Rules};

/// A block.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Block {
    /// When it began, milliseconds since 1970.
    #[prost(int64, tag = "1")]
    pub(crate) since_ms: i64,
    /// When it ends; absent where an administrator has to end it.
    #[prost(int64, optional, tag = "2")]
    pub(crate) until_ms: Option<i64>,
    /// How many there were in a row, this one included.
    #[prost(uint32, tag = "3")]
    pub(crate) strikes: u32,
    /// Why, for people.
    #[prost(string, tag = "4")]
    pub(crate) reason: String,
    /// Who asked for it.
    #[prost(string, tag = "5")]
    pub(crate) by: String,
}

impl Block {
    pub(crate) fn is_in_force(&self, now: Timestamp) -> bool {
        self.until_ms.is_none_or(|until| now.unix_ms() < until)
    }

    fn is_forgotten(&self, now: Timestamp) -> bool {
        let memory = i64::try_from(limits::BLOCK_MEMORY.as_millis()).unwrap_or(i64::MAX);
        self.until_ms.is_some_and(|until| until.saturating_add(memory) <= now.unix_ms())
    }
}

/// What has happened to them.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct State {
    /// How many changes there were.
    #[prost(uint64, tag = "1")]
    pub(crate) version: u64,
    /// How many there are, those that are over and remembered included.
    #[prost(uint64, tag = "2")]
    pub(crate) count: u64,
}

/// Why a network is blocked, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) lasts: Lasting,
}

/// How long a block lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// As the settings say, longer each time.
    Grows,
    /// So many seconds.
    Seconds(u64),
    /// Until it is removed.
    ForGood,
}

/// What came of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is in force from now on.
    Blocked(Block),
    /// It was in force already.
    InForce,
    /// There are too many.
    Full,
}

/// (Block, "state")
pub(crate) fn state_key() -> Vec<u8> {
    pack(&(Subspace::Block as u64, "state"))
}

/// (Block, "n", network)
fn key(network: Network) -> Vec<u8> {
    pack(&(Subspace::Block as u64, "n", &network.to_bytes()[..]))
}

fn decode(value: &[u8]) -> Result<Block, StoreError> {
    Block::decode(value).map_err(|error| StoreError::damaged("block", error))
}

fn parse(row: &kv::KeyValue) -> Result<(Network, Block), StoreError> {
    let damaged = || StoreError::damaged("block", "a key without its network");
    let (_, _, bytes): (u64, String, tuple::Bytes<'_>) =
        tuple::unpack(&row.key).map_err(|_| damaged())?;
    Ok((Network::from_bytes(&bytes).ok_or_else(damaged)?, decode(&row.value)?))
}

/// The state, with conflict: all changes are in order.
async fn state(tx: &Transaction) -> Result<State, StoreError> {
    decode_state(tx.get(&state_key()).await?.as_deref())
}

fn decode_state(value: Option<&[u8]>) -> Result<State, StoreError> {
    let Some(value) = value else { return Ok(State::default()) };
    State::decode(value).map_err(|error| StoreError::damaged("blocks", error))
}

/// The number of the last change. Takes part in no conflict.
pub(crate) async fn version(tx: &Transaction) -> Result<u64, StoreError> {
    Ok(decode_state(tx.get_snapshot(&state_key()).await?.as_deref())?.version)
}

fn changed(tx: &Transaction, before: State, count: u64) {
    let state = State { version: before.version + 1, count };
    tx.set(&state_key(), &state.encode_to_vec());
}

/// How long a block is that follows on so many.
fn seconds(rules: &Rules, strikes: u32) -> u64 {
    let doublings = strikes.saturating_sub(1).min(32);
    rules.seconds.saturating_mul(1 << doublings).min(rules.seconds_max.max(rules.seconds))
}

/// Blocks a network. One that is blocked already stays as it is, unless it is to last otherwise than
/// the settings say: that is an administrator's wish.
pub(crate) async fn put(
    tx: &Transaction,
    network: Network,
    cause: &Cause,
    rules: &Rules,
    now: Timestamp,
) -> Result<Put, StoreError> {
    let key = key(network);
    let stored = tx.get(&key).await?;
    let held = stored.as_deref().map(decode).transpose()?;
    let strikes = match &held {
        Some(held) if held.is_in_force(now) && cause.lasts == Lasting::Grows => {
            return Ok(Put::InForce);
        }
        Some(held) if held.is_in_force(now) => held.strikes,
        Some(held) if !held.is_forgotten(now) => held.strikes.saturating_add(1),
        _ => 1,
    };
    let state = state(tx).await?;
    if held.is_none() && state.count >= rules.count_max {
        return Ok(Put::Full);
    }
    let after = |seconds: u64| {
        let ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        Some(now.unix_ms().saturating_add(ms))
    };
    let block = Block {
        since_ms: now.unix_ms(),
        until_ms: match cause.lasts {
            Lasting::Grows => after(seconds(rules, strikes)),
            Lasting::Seconds(seconds) => after(seconds),
            Lasting::ForGood => None,
        },
        strikes,
        reason: cause.reason.clone(),
        by: cause.by.clone(),
    };
    tx.set(&key, &encode_over(&block, &stored.unwrap_or_default()));
    changed(tx, state, state.count + u64::from(held.is_none()));
    Ok(Put::Blocked(block))
}

/// How many blocks are in force of what lies in a network, itself not counted; counts up to
/// `limit`. Reads with conflict.
pub(crate) async fn count_within(
    tx: &Transaction,
    network: Network,
    now: Timestamp,
    limit: u64,
) -> Result<u64, StoreError> {
    let (first, last) = network.span();
    let begin = pack(&(Subspace::Block as u64, "n", &first[..]));
    let end = pack(&(Subspace::Block as u64, "n", &last[..]));
    let mut rows = tx.range(RangeQuery::new(begin, end));
    let mut count = 0;
    while let Some(page) = rows.next_page().await? {
        for row in &page {
            let (inner, block) = parse(row)?;
            let lies = inner != network && network.covers(inner);
            count += u64::from(lies && block.is_in_force(now));
        }
        if count >= limit {
            break;
        }
    }
    Ok(count)
}

/// Ends and forgets a block.
pub(crate) async fn remove(tx: &Transaction, network: Network) -> Result<Removed, StoreError> {
    let key = key(network);
    if tx.get(&key).await?.is_none() {
        return Ok(Removed::Unknown);
    }
    let state = state(tx).await?;
    tx.clear(&key);
    changed(tx, state, state.count.saturating_sub(1));
    Ok(Removed::Yes)
}

/// Whether there was something to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    Yes,
    Unknown,
}

/// Some of the blocks, in the order of their networks, those that are over and remembered
/// included. Takes part in no conflict.
pub(crate) async fn page(
    tx: &Transaction,
    after: Option<Network>,
    limit: usize,
) -> Result<Vec<(Network, Block)>, StoreError> {
    let prefix = pack(&(Subspace::Block as u64, "n"));
    let (first, end) = tuple::range_of(prefix);
    let begin = after.map_or(first, |after| [&key(after)[..], &[0]].concat());
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    rows.iter().map(parse).collect()
}

/// Forgets what is over for long of one page; tells where the next one begins.
pub(crate) async fn sweep(
    tx: &Transaction,
    after: Option<Network>,
    now: Timestamp,
) -> Result<Option<Network>, StoreError> {
    let page = page(tx, after, limits::GUARD_SWEEP_ROWS).await?;
    let mut gone = 0;
    for (network, _) in page.iter().filter(|(_, block)| block.is_forgotten(now)) {
        let key = key(*network);
        // With conflict: it may have been blocked again.
        let held = tx.get(&key).await?.as_deref().map(decode).transpose()?;
        if held.is_some_and(|block| block.is_forgotten(now)) {
            tx.clear(&key);
            gone += 1;
        }
    }
    if gone > 0 {
        let state = state(tx).await?;
        changed(tx, state, state.count.saturating_sub(gone));
    }
    let full = page.len() >= limits::GUARD_SWEEP_ROWS;
    Ok(page.last().filter(|_| full).map(|(network, _)| *network))
}

/// What is wrong with the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Keys of those that cannot be read: while there is one, nodes do not learn of new blocks.
    pub(crate) unreadable: Vec<Vec<u8>>,
    /// How many there are said to be.
    pub(crate) said: u64,
    /// How many there are.
    pub(crate) found: u64,
}

/// Looks at all blocks, with conflict; at [`limits::BLOCKS_CHECKED_MAX`] and more at none, because
/// one transaction has to read them.
pub(crate) async fn fault(tx: &Transaction) -> Result<Option<Fault>, StoreError> {
    let prefix = pack(&(Subspace::Block as u64, "n"));
    let query = RangeQuery::prefix(&prefix).limit(limits::BLOCKS_CHECKED_MAX);
    let rows = tx.range(query).collect().await?;
    if rows.len() >= limits::BLOCKS_CHECKED_MAX {
        return Ok(None);
    }
    let unreadable: Vec<_> =
        rows.iter().filter(|row| parse(row).is_err()).map(|row| row.key.to_vec()).collect();
    let said = state(tx).await?.count;
    let found = (rows.len() - unreadable.len()) as u64;
    let fault = Fault { unreadable, said, found };
    Ok((said != found || !fault.unreadable.is_empty()).then_some(fault))
}

/// Takes out what cannot be read, and counts the rest.
pub(crate) async fn mend(tx: &Transaction) -> Result<(), StoreError> {
    let Some(fault) = fault(tx).await? else { return Ok(()) };
    for key in &fault.unreadable {
        tx.clear(key);
    }
    let before = state(tx).await?;
    changed(tx, before, fault.found);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;
    use crate::settings::guard::Guard;

    fn rules() -> Rules {
        Rules { seconds: 60, seconds_max: 150, count_max: 3, ..Guard::default().block }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + seconds)
    }

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    async fn block(db: &Database, text: &str, lasts: Lasting, seconds: i64) -> Put {
        let cause = &Cause { reason: "test".to_owned(), by: "test".to_owned(), lasts };
        let (network, rules) = (network(text), &rules());
        let run =
            |tx: Transaction| async move { put(&tx, network, cause, rules, at(seconds)).await };
        db.run(run).await.unwrap()
    }

    async fn held(db: &Database) -> (u64, usize) {
        let read = |tx: Transaction| async move {
            Ok::<_, StoreError>((state(&tx).await?.count, page(&tx, None, 100).await?.len()))
        };
        db.run(read).await.unwrap()
    }

    fn length(put: Put) -> Option<i64> {
        match put {
            Put::Blocked(block) => block.until_ms.map(|until| (until - block.since_ms) / 1000),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_comes_back_is_blocked_for_longer() {
        let db = Database::memory(env::Env::system());
        let here = "192.0.2.1";
        assert_eq!(length(block(&db, here, Lasting::Grows, 0).await), Some(60));
        assert_eq!(block(&db, here, Lasting::Grows, 59).await, Put::InForce);
        assert_eq!(length(block(&db, here, Lasting::Grows, 60).await), Some(120));
        assert_eq!(length(block(&db, here, Lasting::Grows, 180).await), Some(150), "the most");
        let forgotten = 330 + 7 * 86_400;
        assert_eq!(length(block(&db, here, Lasting::Grows, forgotten).await), Some(60));
        assert_eq!(length(block(&db, here, Lasting::ForGood, forgotten + 1).await), None);
        assert_eq!(block(&db, here, Lasting::Grows, forgotten * 2).await, Put::InForce);
        assert_eq!(held(&db).await, (1, 1));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_found_and_mended() {
        let db = Database::memory(env::Env::system());
        length(block(&db, "192.0.2.1", Lasting::ForGood, 0).await);
        let look = async || db.run(|tx: Transaction| async move { fault(&tx).await }).await;
        assert_eq!(look().await.unwrap(), None);
        let damage = |tx: Transaction| async move {
            tx.set(&key(network("192.0.2.2")), &[0xff]);
            Ok::<_, StoreError>(())
        };
        db.run(damage).await.unwrap();
        let found = look().await.unwrap().unwrap();
        assert_eq!((found.unreadable, found.said), (vec![key(network("192.0.2.2"))], 1));
        db.run(|tx: Transaction| async move { mend(&tx).await }).await.unwrap();
        assert_eq!(look().await.unwrap(), None);
        assert_eq!(held(&db).await, (1, 1));
    }

    #[tokio::test]
    async fn blocks_are_bounded_counted_removed_and_swept() {
        let db = Database::memory(env::Env::system());
        for text in ["192.0.2.1", "192.0.2.9", "192.0.3.1"] {
            length(block(&db, text, Lasting::Seconds(10), 0).await);
        }
        assert_eq!(block(&db, "192.0.2.7", Lasting::Grows, 1).await, Put::Full);
        let within = async |text: &str, seconds| {
            let network = network(text);
            let run =
                |tx: Transaction| async move { count_within(&tx, network, at(seconds), 100).await };
            db.run(run).await.unwrap()
        };
        assert_eq!(within("192.0.2.0/24", 5).await, 2);
        assert_eq!(within("192.0.2.1", 5).await, 0, "itself is not counted");
        assert_eq!(within("192.0.2.0/24", 10).await, 0, "they are over");
        let gone = network("192.0.2.9");
        for expected in [Removed::Yes, Removed::Unknown] {
            let run = |tx: Transaction| async move { remove(&tx, gone).await };
            assert_eq!(db.run(run).await.unwrap(), expected);
        }
        assert_eq!(held(&db).await, (2, 2));
        length(block(&db, "192.0.2.8", Lasting::ForGood, 0).await);
        for (seconds, left) in [(7 * 86_400, 3), (7 * 86_400 + 10, 1)] {
            let run = |tx: Transaction| async move { sweep(&tx, None, at(seconds)).await };
            assert_eq!(db.run(run).await.unwrap(), None);
            assert_eq!(held(&db).await, (left, usize::try_from(left).unwrap()));
        }
    }
}
