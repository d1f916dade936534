//! Recorded transactions, and the check that they are strictly serializable.
//!
//! Commits have an order, that of their versionstamps. The check runs all of them one after the
//! other on a plain map, and requires of each transaction that
//!
//! - every read equals the map as of the read version, with the transaction's own writes over it;
//! - every serializable read of one that committed equals the map as of just before its own place;
//! - nothing was written between the two in a range that it declared to have read, but for what
//!   it had determined itself by then, which FoundationDB leaves out;
//! - whoever began after another had ended sees it.
//!
//! The map and the operations on it are written anew here and share nothing with the engines.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use kv::{AtomicOp, Direction, Isolation, Versionstamp};

pub(crate) type Map = BTreeMap<Bytes, Bytes>;

/// A query and what it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeRead {
    pub(crate) begin: Bytes,
    pub(crate) end: Bytes,
    pub(crate) limit: usize,
    pub(crate) direction: Direction,
    pub(crate) isolation: Isolation,
    /// `None` where an uncommitted versionstamp was in the way.
    pub(crate) rows: Option<Vec<(Bytes, Bytes)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The result is `None` where an uncommitted versionstamp was in the way.
    Get(Bytes, Isolation, Option<Option<Bytes>>),
    Range(RangeRead),
    Set(Bytes, Bytes),
    Clear(Bytes),
    ClearRange(Bytes, Bytes),
    /// The versionstamped ones too, with templates for keys and values.
    Atomic(AtomicOp, Bytes, Bytes),
    ReadConflict(Bytes, Bytes),
    WriteConflict(Bytes, Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed(Versionstamp),
    /// It wrote nothing.
    ReadOnly,
    /// Refused, or unknown and not there.
    Absent,
}

/// Points in real time: any numbers that grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) begun: u64,
    /// When its caller learned the outcome; `None` where it never did.
    pub(crate) ended: Option<u64>,
    pub(crate) read_version: Option<u64>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outcome: Outcome,
}

/// How a history is not strictly serializable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A read differs from the map as of the read version.
    ReadAtVersion(String),
    /// A serializable read differs from the map as of the commit.
    ReadAtCommit(String),
    /// A declared read conflict went unnoticed.
    MissedConflict(String),
    /// It does not see one that had ended before it began.
    BackInTime(String),
    /// Two commits at one place, or a commit at or below its own read version.
    Order(String),
    /// What is there in the end is not what the commits made.
    End(String),
}

/// One moment after the other: the map after each commit.
struct Moments {
    maps: Vec<(Versionstamp, Map)>,
}

impl Moments {
    /// After every commit of this version or an earlier one.
    fn at_version(&self, version: u64) -> &Map {
        let later = self.maps.partition_point(|(stamp, _)| stamp.version() <= version);
        &self.maps[later - 1].1
    }

    fn before(&self, stamp: &Versionstamp) -> &Map {
        let later = self.maps.partition_point(|(earlier, _)| earlier < stamp);
        &self.maps[later - 1].1
    }
}

/// Checks a history that began with an empty map and ended with `end`.
pub(crate) fn check(history: &[Recorded], end: &Map) -> Result<(), Violation> {
    let mut commits: Vec<(Versionstamp, &Recorded)> = history
        .iter()
        .filter_map(|recorded| match recorded.outcome {
            Outcome::Committed(stamp) => Some((stamp, recorded)),
            Outcome::ReadOnly | Outcome::Absent => None,
        })
        .collect();
    commits.sort_by_key(|(stamp, _)| *stamp);
    let mut moments = Moments { maps: vec![(Versionstamp::new(0, 0), Map::new())] };
    for (stamp, recorded) in &commits {
        let (last, map) = moments.maps.last().expect("it begins with one");
        if last >= stamp {
            return Err(Violation::Order(recorded.name.clone()));
        }
        let mut map = map.clone();
        for step in &recorded.steps {
            apply(&mut map, step, Some(stamp));
        }
        moments.maps.push((*stamp, map));
    }
    if moments.maps.last().expect("it begins with one").1 != *end {
        return Err(Violation::End(format!("{end:?}")));
    }
    for recorded in history {
        check_one(recorded, &moments, &commits)?;
    }
    check_real_time(history)
}

fn check_one(
    recorded: &Recorded,
    moments: &Moments,
    commits: &[(Versionstamp, &Recorded)],
) -> Result<(), Violation> {
    let name = &recorded.name;
    let Some(read_version) = recorded.read_version else { return Ok(()) };
    let snapshot = moments.at_version(read_version);
    if let Some(step) = first_difference(recorded, snapshot, Reads::All) {
        return Err(Violation::ReadAtVersion(format!("{name} {step:?}")));
    }
    let Outcome::Committed(stamp) = recorded.outcome else { return Ok(()) };
    if stamp.version() <= read_version {
        return Err(Violation::Order(format!("{name} {stamp:?} after {read_version}")));
    }
    if let Some(step) = first_difference(recorded, moments.before(&stamp), Reads::Serializable) {
        return Err(Violation::ReadAtCommit(format!("{name} {step:?}")));
    }
    let between =
        commits.iter().filter(|(other, _)| other.version() > read_version && *other < stamp);
    let declared = declared(&recorded.steps);
    for (_, other) in between {
        for (begin, end) in &declared {
            if other.steps.iter().any(|write| writes_in(write, begin, end, &other.outcome)) {
                return Err(Violation::MissedConflict(format!("{name} with {}", other.name)));
            }
        }
    }
    Ok(())
}

/// The ranges declared to be read, without what the steps before them determined.
fn declared(steps: &[Step]) -> Vec<(Bytes, Bytes)> {
    let mut own: Vec<(Bytes, Bytes)> = Vec::new();
    let mut declared = Vec::new();
    let after = |key: &Bytes| Bytes::from([key, b"\0".as_slice()].concat());
    for step in steps {
        match step {
            Step::Set(key, _)
            | Step::Clear(key)
            | Step::Atomic(AtomicOp::SetVersionstampedValue, key, _) => {
                own.push((key.clone(), after(key)));
            }
            Step::ClearRange(begin, end) => own.push((begin.clone(), end.clone())),
            Step::ReadConflict(begin, end) => {
                own.sort();
                let mut at = begin.clone();
                for (left, right) in &own {
                    if at < *left {
                        declared.push((at.clone(), left.min(end).clone()));
                    }
                    at = at.max(right.clone());
                }
                declared.push((at, end.clone()));
            }
            _ => {}
        }
    }
    declared.retain(|(begin, end)| begin < end);
    declared
}

/// Whether a step of a committed transaction writes in a range.
fn writes_in(step: &Step, begin: &Bytes, end: &Bytes, outcome: &Outcome) -> bool {
    let point = |key: &Bytes| (begin..end).contains(&key);
    match step {
        Step::Atomic(AtomicOp::SetVersionstampedKey, template, _) => match outcome {
            Outcome::Committed(stamp) => point(&stamped(template, stamp)),
            Outcome::ReadOnly | Outcome::Absent => false,
        },
        Step::Set(key, _) | Step::Clear(key) | Step::Atomic(_, key, _) => point(key),
        Step::ClearRange(from, to) | Step::WriteConflict(from, to) => from.max(begin) < to.min(end),
        Step::Get(..) | Step::Range(_) | Step::ReadConflict(..) => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    All,
    Serializable,
}

/// Runs the steps over `base`; the first read that gives something else than was recorded.
fn first_difference<'a>(recorded: &'a Recorded, base: &Map, reads: Reads) -> Option<&'a Step> {
    let mut map = base.clone();
    let mut stamped = BTreeSet::new();
    let checked = |isolation| reads == Reads::All || isolation == Isolation::Serializable;
    for step in &recorded.steps {
        let agrees = match step {
            Step::Get(key, isolation, Some(value)) if checked(*isolation) => {
                map.get(key) == value.as_ref() && !stamped.contains(key)
            }
            Step::Range(read) if checked(read.isolation) => match &read.rows {
                Some(rows) => *rows == range(&map, read),
                None => !stamped.is_empty(),
            },
            Step::Get(_, _, None) => !stamped.is_empty(),
            Step::Atomic(AtomicOp::SetVersionstampedValue, key, _) => {
                stamped.insert(key.clone());
                true
            }
            Step::Atomic(AtomicOp::SetVersionstampedKey, ..) => {
                // Where it will be is not known; that something cannot be read is.
                stamped.insert(Bytes::new());
                true
            }
            Step::Clear(key) => {
                stamped.remove(key);
                true
            }
            Step::ClearRange(begin, end) => {
                stamped.retain(|key| key.is_empty() || !(begin..end).contains(&key));
                true
            }
            _ => true,
        };
        if !agrees {
            return Some(step);
        }
        apply(&mut map, step, None);
    }
    None
}

fn range(map: &Map, read: &RangeRead) -> Vec<(Bytes, Bytes)> {
    if read.begin >= read.end {
        return Vec::new();
    }
    let inside = map
        .range::<Bytes, _>((Bound::Included(&read.begin), Bound::Excluded(&read.end)))
        .map(|(key, value)| (key.clone(), value.clone()));
    match read.direction {
        Direction::Forward => inside.take(read.limit).collect(),
        Direction::Reverse => inside.rev().take(read.limit).collect(),
    }
}

/// Whoever began after another had ended comes after it.
fn check_real_time(history: &[Recorded]) -> Result<(), Violation> {
    // What had been seen or made by the ends, in their order.
    let mut ends: Vec<(u64, u64)> = history
        .iter()
        .filter_map(|recorded| {
            let version = match recorded.outcome {
                Outcome::Committed(stamp) => Some(stamp.version()),
                Outcome::ReadOnly | Outcome::Absent => recorded.read_version,
            };
            Some((recorded.ended?, version?))
        })
        .collect();
    ends.sort_unstable();
    let mut highest = 0;
    for (_, version) in &mut ends {
        highest = highest.max(*version);
        *version = highest;
    }
    for recorded in history {
        let before = ends.partition_point(|(ended, _)| *ended < recorded.begun);
        let Some((_, seen)) = before.checked_sub(1).map(|last| ends[last]) else { continue };
        let back = recorded.read_version.is_some_and(|version| version < seen)
            || matches!(recorded.outcome, Outcome::Committed(stamp) if stamp.version() <= seen);
        if back {
            return Err(Violation::BackInTime(recorded.name.clone()));
        }
    }
    Ok(())
}

/// Does a writing step to the map; without a stamp, what bears one is left out.
fn apply(map: &mut Map, step: &Step, stamp: Option<&Versionstamp>) {
    match step {
        Step::Set(key, value) => {
            map.insert(key.clone(), value.clone());
        }
        Step::Clear(key) => {
            map.remove(key);
        }
        Step::ClearRange(begin, end) => map.retain(|key, _| !(begin..end).contains(&key)),
        Step::Atomic(AtomicOp::SetVersionstampedKey, template, value) => {
            if let Some(stamp) = stamp {
                map.insert(stamped(template, stamp), value.clone());
            }
        }
        Step::Atomic(AtomicOp::SetVersionstampedValue, key, template) => match stamp {
            Some(stamp) => {
                map.insert(key.clone(), stamped(template, stamp));
            }
            None => {
                map.insert(key.clone(), Bytes::from_static(b"unreadable"));
            }
        },
        Step::Atomic(op, key, operand) => match atomic(*op, map.get(key), operand) {
            Some(value) => {
                map.insert(key.clone(), value);
            }
            None => {
                map.remove(key);
            }
        },
        Step::Get(..) | Step::Range(_) | Step::ReadConflict(..) | Step::WriteConflict(..) => {}
    }
}

/// The template with the stamp where its last four bytes say.
fn stamped(template: &Bytes, stamp: &Versionstamp) -> Bytes {
    let (body, at) = template.split_at(template.len() - 4);
    let at = u32::from_le_bytes(at.try_into().expect("it was split four before the end")) as usize;
    [&body[..at], stamp.as_bytes(), &body[at + 10..]].concat().into()
}

/// An operand of at most eight bytes as FoundationDB's documentation describes its use.
fn atomic(op: AtomicOp, stored: Option<&Bytes>, operand: &Bytes) -> Option<Bytes> {
    let width = operand.len();
    let wide = |bytes: &[u8]| {
        let mut all = [0; 8];
        let kept = bytes.len().min(width);
        all[..kept].copy_from_slice(&bytes[..kept]);
        u64::from_le_bytes(all)
    };
    let narrow = |number: u64| Some(Bytes::copy_from_slice(&number.to_le_bytes()[..width]));
    let (old, new) = (wide(stored.map_or(&[], |bytes| bytes)), wide(operand));
    match (op, stored) {
        (AtomicOp::Add, _) => narrow(old.wrapping_add(new)),
        (AtomicOp::BitOr, _) => narrow(old | new),
        (AtomicOp::BitXor, _) => narrow(old ^ new),
        (AtomicOp::Max, _) => narrow(old.max(new)),
        (AtomicOp::BitAnd, Some(_)) => narrow(old & new),
        (AtomicOp::Min, Some(_)) => narrow(old.min(new)),
        (AtomicOp::ByteMax, Some(stored)) => Some(stored.max(operand).clone()),
        (AtomicOp::ByteMin, Some(stored)) => Some(stored.min(operand).clone()),
        (AtomicOp::CompareAndClear, stored) => stored.filter(|stored| *stored != operand).cloned(),
        (AtomicOp::AppendIfFits, Some(stored)) => Some([&stored[..], operand].concat().into()),
        _ => Some(operand.clone()),
    }
}
