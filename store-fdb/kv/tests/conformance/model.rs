//! Thousands of random concurrent transactions, recorded, and checked by [`history`](crate::history).
//!
//! `ROOKERY_MODEL_SEED` names the seed to use; a failure prints its own. The memory engine runs on
//! one thread with a clock and randomness of the seed, so that a seed gives the same history
//! every time, faults included. On the other engines it gives the same transactions, and threads
//! and disks their order.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use env::{Backend, BoxFuture, Env, Monotonic, Timestamp};
use futures_util::future::join_all;
use kv::{
    AtomicOp, Class, Database, Direction, Error, Faults, Isolation, Probability, RangeQuery,
    Transaction, Versionstamp,
};

use crate::{
    Store,
    history::{Map, Outcome, RangeRead, Recorded, Step, check},
};

const KEYS: u64 = 24;
const TASKS: u64 = 8;

const OPERATIONS: [AtomicOp; 10] = [
    AtomicOp::Add,
    AtomicOp::BitAnd,
    AtomicOp::BitOr,
    AtomicOp::BitXor,
    AtomicOp::Max,
    AtomicOp::Min,
    AtomicOp::ByteMax,
    AtomicOp::ByteMin,
    AtomicOp::CompareAndClear,
    AtomicOp::AppendIfFits,
];

/// SplitMix64: small, and any seed is a good one.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, longest: u64) -> Bytes {
        let length = 1 + self.below(longest);
        // Few values, so that they meet.
        (0..length)
            .map(|_| [0, 1, 2, 0x80, 0xff][usize::try_from(self.below(5)).unwrap()])
            .collect()
    }
}

/// An environment whose clock and randomness follow from a seed.
struct Seeded {
    dice: Mutex<Dice>,
    asked: AtomicU64,
}

impl Seeded {
    fn env(seed: u64) -> Env {
        Env::new(Self { dice: Mutex::new(Dice(seed)), asked: AtomicU64::new(0) })
    }
}

impl Backend for Seeded {
    fn monotonic(&self) -> Monotonic {
        let asked = self.asked.fetch_add(1, SeqCst);
        Monotonic::from_start(Duration::from_micros(asked))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_ms(0)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.asked.fetch_add(u64::try_from(duration.as_micros()).unwrap(), SeqCst);
        Box::pin(tokio::task::yield_now())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut dice = self.dice.lock().unwrap();
        bytes.fill_with(|| u8::try_from(dice.below(256)).unwrap());
    }

    fn spawn(&self, name: &'static str, _future: BoxFuture<'static, ()>) -> env::RawTask {
        panic!("the memory engine spawns no {name}")
    }

    fn run_blocking(&self, _work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        panic!("the memory engine never blocks")
    }

    fn listen(&self, _at: std::net::SocketAddr) -> BoxFuture<'_, std::io::Result<env::Listener>> {
        panic!("the memory engine has no sockets")
    }

    fn connect(&self, _to: std::net::SocketAddr) -> BoxFuture<'_, std::io::Result<env::Stream>> {
        panic!("the memory engine has no sockets")
    }

    fn datagrams(
        &self,
        _at: std::net::SocketAddr,
    ) -> BoxFuture<'_, std::io::Result<env::Datagrams>> {
        panic!("the memory engine has no sockets")
    }
}

/// What cannot be read yet is found by the read itself.
fn ahead(asked: Result<(), Error>) -> Result<(), Error> {
    match asked {
        Err(Error::AccessedUnreadable) => Ok(()),
        asked => asked,
    }
}

/// Makes transactions from a seed.
struct Player<'a> {
    db: &'a Database,
    prefix: &'a [u8],
    dice: Dice,
    /// Real time: it only grows.
    clock: &'a AtomicU64,
}

impl Player<'_> {
    fn key(&mut self) -> Bytes {
        let number = u8::try_from(self.dice.below(KEYS)).unwrap();
        [self.prefix, b"k", &[number]].concat().into()
    }

    fn keys(&mut self) -> (Bytes, Bytes) {
        let (one, other) = (self.key(), self.key());
        if one < other { (one, other) } else { (other, one) }
    }

    fn isolation(&mut self) -> Isolation {
        match self.dice.below(3) {
            0 => Isolation::Snapshot,
            _ => Isolation::Serializable,
        }
    }

    /// A key or value that will hold the stamp in its middle.
    fn template(&mut self, begin: &[u8]) -> Bytes {
        let at = u32::try_from(begin.len()).unwrap().to_le_bytes();
        [begin, &[0; 10], &[7], &at].concat().into()
    }

    async fn get(&mut self, tx: &Transaction) -> Result<Step, Error> {
        let (key, isolation) = (self.key(), self.isolation());
        if isolation == Isolation::Serializable && self.dice.below(2) == 0 {
            ahead(tx.prefetch(|list| list.key(key.to_vec())).await)?;
        }
        let got = match isolation {
            Isolation::Serializable => tx.get(&key).await,
            Isolation::Snapshot => tx.get_snapshot(&key).await,
        };
        let value = match got {
            Err(Error::AccessedUnreadable) => None,
            got => Some(got?),
        };
        Ok(Step::Get(key, isolation, value))
    }

    async fn range(&mut self, tx: &Transaction) -> Result<Step, Error> {
        let ((begin, end), isolation) = (self.keys(), self.isolation());
        let limit = [1, 2, 5, 1000][usize::try_from(self.dice.below(4)).unwrap()];
        let page_bytes = [1, 40, 100_000][usize::try_from(self.dice.below(3)).unwrap()];
        let mut query =
            RangeQuery::new(begin.clone(), end.clone()).limit(limit).page_bytes(page_bytes);
        let mut direction = Direction::Forward;
        if self.dice.below(2) == 0 {
            (query, direction) = (query.reverse(), Direction::Reverse);
        }
        if isolation == Isolation::Snapshot {
            query = query.snapshot();
        } else if self.dice.below(2) == 0 {
            ahead(tx.prefetch(|list| list.range(query.clone())).await)?;
        }
        let rows = match tx.range(query).collect().await {
            Err(Error::AccessedUnreadable) => None,
            rows => Some(rows?.into_iter().map(|row| (row.key, row.value)).collect()),
        };
        Ok(Step::Range(RangeRead { begin, end, limit, direction, isolation, rows }))
    }

    fn write(&mut self, tx: &Transaction) -> Step {
        match self.dice.below(20) {
            0..=6 => {
                let (key, value) = (self.key(), self.dice.bytes(8));
                tx.set(&key, &value);
                Step::Set(key, value)
            }
            7..=8 => {
                let key = self.key();
                tx.clear(&key);
                Step::Clear(key)
            }
            9 => {
                let (begin, end) = self.keys();
                tx.clear_range(&begin, &end);
                Step::ClearRange(begin, end)
            }
            10..=15 => {
                let op = OPERATIONS[usize::try_from(self.dice.below(10)).unwrap()];
                let (key, operand) = (self.key(), self.dice.bytes(8));
                tx.atomic(&key, &operand, op);
                Step::Atomic(op, key, operand)
            }
            16 => {
                let key = self.key();
                let (template, value) = (self.template(&key), self.dice.bytes(3));
                tx.atomic(&template, &value, AtomicOp::SetVersionstampedKey);
                Step::Atomic(AtomicOp::SetVersionstampedKey, template, value)
            }
            17 => {
                let (key, template) = (self.key(), self.template(b"v"));
                tx.atomic(&key, &template, AtomicOp::SetVersionstampedValue);
                Step::Atomic(AtomicOp::SetVersionstampedValue, key, template)
            }
            18 => {
                let (begin, end) = self.keys();
                tx.add_read_conflict_range(&begin, &end);
                Step::ReadConflict(begin, end)
            }
            _ => {
                let (begin, end) = self.keys();
                tx.add_write_conflict_range(&begin, &end);
                Step::WriteConflict(begin, end)
            }
        }
    }

    /// Does some steps; those that were done until one failed.
    async fn steps(&mut self, tx: &Transaction) -> (Vec<Step>, Result<(), Error>) {
        let mut steps = Vec::new();
        let writes = self.dice.below(4) > 0;
        for _ in 0..=self.dice.below(8) {
            let step = match self.dice.below(4) {
                0 => self.get(tx).await,
                1 => self.range(tx).await,
                _ if writes => Ok(self.write(tx)),
                _ => continue,
            };
            match step {
                Ok(step) => steps.push(step),
                Err(error) => return (steps, Err(error)),
            }
            if self.dice.below(3) == 0 {
                tokio::task::yield_now().await;
            }
        }
        (steps, Ok(()))
    }

    /// The key whose value tells whether a transaction was committed, and where.
    fn witness(&self, name: &str) -> Vec<u8> {
        [self.prefix, b"w", name.as_bytes()].concat()
    }

    async fn play(&mut self, name: String) -> (Recorded, Result<(), Error>) {
        let begun = self.clock.fetch_add(1, SeqCst);
        let tx = self.db.begin();
        let (steps, done) = self.steps(&tx).await;
        let writes = steps
            .iter()
            .any(|step| !matches!(step, Step::Get(..) | Step::Range(_) | Step::ReadConflict(..)));
        if writes {
            let template = [&[0; 14][..]].concat();
            tx.atomic(&self.witness(&name), &template, AtomicOp::SetVersionstampedValue);
        }
        let reads = steps.iter().any(|step| matches!(step, Step::Get(..) | Step::Range(_)));
        let mut read_version = None;
        let mut outcome = Outcome::Absent;
        let result = match done {
            Ok(()) => tx.commit().await.map(|committed| {
                read_version = Some(committed.read_version);
                outcome = committed.versionstamp.map_or(Outcome::ReadOnly, Outcome::Committed);
            }),
            // What was read until then must be right as well.
            Err(error) => {
                if reads {
                    read_version = tx.read_version().await.ok();
                }
                Err(error)
            }
        };
        let ended = self.clock.fetch_add(1, SeqCst);
        (Recorded { name, begun, ended: Some(ended), read_version, steps, outcome }, result)
    }
}

/// Plays, records, and finds out what became of commits whose result is unknown.
async fn play(db: &Database, prefix: &[u8], seed: u64, each: u64) -> (Vec<Recorded>, Map) {
    let clock = AtomicU64::new(1);
    let tasks = (0..TASKS).map(|task| {
        let dice = Dice(seed.wrapping_mul(TASKS).wrapping_add(task));
        let mut player = Player { db, prefix, dice, clock: &clock };
        async move {
            let mut played = Vec::new();
            for number in 0..each {
                played.push(player.play(format!("{task}-{number}")).await);
            }
            played
        }
    });
    let played = join_all(tasks).await.into_iter().flatten().collect::<Vec<_>>();
    db.faults().clear();
    let witnesses = rows(db, &[prefix, b"w"].concat()).await;
    let end = rows(db, &[prefix, b"k"].concat()).await;
    let mut history = Vec::new();
    for (mut recorded, result) in played {
        let witness = [prefix, b"w", recorded.name.as_bytes()].concat();
        let stamp = witnesses
            .get(witness.as_slice())
            .map(|value| Versionstamp::from_bytes(value.as_ref().try_into().unwrap()));
        match (&result, recorded.outcome) {
            (Ok(()), _) if met_a_stamp(&recorded) => panic!("a failed read was committed"),
            (Ok(()), Outcome::Committed(told)) => assert_eq!(stamp, Some(told)),
            (Ok(()), _) => assert_eq!(stamp, None),
            (Err(error), _) if error.is_commit_unknown() => {
                recorded.ended = None;
                recorded.outcome = stamp.map_or(Outcome::Absent, Outcome::Committed);
            }
            (Err(error), _) => {
                // A read that failed makes the commit fail with it.
                let unreadable = *error == Error::AccessedUnreadable && met_a_stamp(&recorded);
                assert!(unreadable || error.class() == Class::Retryable, "{error}");
                assert_eq!(stamp, None, "what was refused is not there");
            }
        }
        history.push(recorded);
    }
    (history, end)
}

/// Whether a read met an uncommitted versionstamp.
fn met_a_stamp(recorded: &Recorded) -> bool {
    recorded.steps.iter().any(|step| match step {
        Step::Get(_, _, value) => value.is_none(),
        Step::Range(read) => read.rows.is_none(),
        _ => false,
    })
}

/// Every row under a prefix, read over several transactions if need be.
async fn rows(db: &Database, prefix: &[u8]) -> Map {
    let mut map = Map::new();
    let mut query = RangeQuery::prefix(prefix).limit(1000);
    loop {
        let page = db.begin().range(query).collect().await.unwrap();
        let Some(last) = page.last() else { return map };
        let end = [&prefix[..prefix.len() - 1], &[prefix[prefix.len() - 1] + 1]].concat();
        query = RangeQuery::new([&last.key[..], &[0]].concat(), end).limit(1000);
        map.extend(page.into_iter().map(|row| (row.key, row.value)));
    }
}

fn seed() -> u64 {
    match std::env::var("ROOKERY_MODEL_SEED") {
        Ok(seed) => seed.parse().expect("ROOKERY_MODEL_SEED is a number"),
        Err(_) => Env::system().random_below(1 << 32),
    }
}

/// Checks a history, telling its seed where it fails, and what share committed.
fn verify(seed: u64, history: &[Recorded], end: &Map) {
    if let Err(violation) = check(history, end) {
        panic!("ROOKERY_MODEL_SEED={seed} gave a history that is not serializable: {violation:?}");
    }
    let committed =
        history.iter().filter(|recorded| matches!(recorded.outcome, Outcome::Committed(_))).count();
    let read_only = history.iter().filter(|recorded| recorded.outcome == Outcome::ReadOnly).count();
    eprintln!("seed {seed}: {} played, {committed} committed, {read_only} read", history.len());
    assert!(committed * 5 > history.len(), "{committed} of {} committed", history.len());
    assert!(read_only * 10 > history.len(), "{read_only} of {} read", history.len());
}

/// On every engine, with what concurrency it has.
pub(crate) async fn histories_are_strictly_serializable(store: Store) {
    let seed = seed();
    let (history, end) = play(&store.db, &store.key(""), seed, 400).await;
    verify(seed, &history, &end);
}

fn faults() -> Faults {
    Faults {
        conflict: Probability::per_million(50_000),
        commit_unknown: Probability::per_million(150_000),
        too_old: Probability::per_million(20_000),
        ..Faults::default()
    }
}

async fn played_with_faults(seed: u64) -> (Vec<Recorded>, Map) {
    let db = Database::memory_with_faults(Seeded::env(seed), faults());
    play(&db, b"", seed, 300).await
}

#[tokio::test]
async fn memory_with_faults_is_strictly_serializable() {
    let first = seed();
    // A seed that is asked for is the only one.
    let rounds = if std::env::var_os("ROOKERY_MODEL_SEED").is_some() { 1 } else { 5 };
    for seed in first..first + rounds {
        let (history, end) = played_with_faults(seed).await;
        let unknown = history.iter().filter(|recorded| recorded.ended.is_none());
        let (applied, lost): (Vec<_>, Vec<_>) =
            unknown.partition(|recorded| recorded.outcome != Outcome::Absent);
        assert!(applied.len() > 20 && lost.len() > 20, "{} and {}", applied.len(), lost.len());
        verify(seed, &history, &end);
    }
}

#[tokio::test]
async fn a_seed_gives_the_same_history_again() {
    let seed = seed();
    assert_eq!(played_with_faults(seed).await, played_with_faults(seed).await);
    assert_ne!(played_with_faults(seed).await.0, played_with_faults(seed + 1).await.0);
}
