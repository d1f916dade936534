//! Histories that are wrong, each in its own way.

use bytes::Bytes;
use kv::{Direction, Isolation, Versionstamp};

use crate::history::{Map, Outcome, RangeRead, Recorded, Step, Violation, check};

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn get(name: &'static str, value: Option<&'static str>) -> Step {
    Step::Get(key(name), Isolation::Serializable, Some(value.map(key)))
}

fn set(name: &'static str, value: &'static str) -> Step {
    Step::Set(key(name), key(value))
}

/// A transaction that began right after `read` and committed right after `commit`; the
/// points in time are versions too.
fn tx(name: &str, read: u64, commit: u64, steps: &[Step]) -> Recorded {
    Recorded {
        name: name.to_owned(),
        begun: read,
        ended: Some(commit),
        read_version: Some(read),
        steps: steps.to_vec(),
        outcome: Outcome::Committed(Versionstamp::new(commit, 0)),
    }
}

fn map(rows: &[(&'static str, &'static str)]) -> Map {
    rows.iter().map(|(name, value)| (key(name), key(value))).collect()
}

#[test]
fn a_right_history_passes() {
    let mut reader = tx("reader", 30, 35, &[get("a", Some("2")), get("b", None)]);
    reader.outcome = Outcome::ReadOnly;
    let history = [
        tx("first", 5, 10, &[get("a", None), set("a", "1"), get("a", Some("1"))]),
        tx("second", 15, 20, &[get("a", Some("1")), set("a", "2")]),
        reader,
    ];
    assert_eq!(check(&history, &map(&[("a", "2")])), Ok(()));
}

#[test]
fn a_lost_update_is_told() {
    let history = [
        tx("begin", 5, 10, &[set("a", "0")]),
        tx("one", 12, 20, &[get("a", Some("0")), set("a", "1")]),
        tx("other", 12, 21, &[get("a", Some("0")), set("a", "1")]),
    ];
    let told = check(&history, &map(&[("a", "1")]));
    assert!(matches!(&told, Err(Violation::ReadAtCommit(name)) if name.starts_with("other")));
    // An update that is simply gone in the end.
    let told = check(&history[..2], &map(&[("a", "0")]));
    assert!(matches!(told, Err(Violation::End(_))), "{told:?}");
}

#[test]
fn a_stale_read_is_told() {
    let first = tx("first", 5, 10, &[set("a", "1")]);
    // At its read version the value was there.
    let mut stale = tx("stale", 12, 13, &[get("a", None)]);
    stale.outcome = Outcome::ReadOnly;
    let told = check(&[first.clone(), stale.clone()], &map(&[("a", "1")]));
    assert!(matches!(told, Err(Violation::ReadAtVersion(_))), "{told:?}");
    // An old read version explains the value, but not to whoever asked after the commit.
    stale.read_version = Some(7);
    let told = check(&[first.clone(), stale.clone()], &map(&[("a", "1")]));
    assert!(matches!(told, Err(Violation::BackInTime(_))), "{told:?}");
    // Had it begun before, it would be right.
    stale.begun = 6;
    assert_eq!(check(&[first, stale], &map(&[("a", "1")])), Ok(()));
}

#[test]
fn a_stale_read_after_a_read_is_told() {
    let mut early = tx("early", 20, 21, &[get("a", None)]);
    let mut late = tx("late", 22, 23, &[get("a", None)]);
    (early.outcome, late.outcome) = (Outcome::ReadOnly, Outcome::ReadOnly);
    late.read_version = Some(19);
    let told = check(&[early, late], &Map::new());
    assert_eq!(told, Err(Violation::BackInTime("late".into())));
}

#[test]
fn a_write_skew_is_told() {
    let both = [get("a", None), get("b", None)];
    let left = tx("left", 5, 10, &[&both[..], &[set("a", "1")]].concat());
    let right = tx("right", 5, 11, &[&both[..], &[set("b", "1")]].concat());
    let told = check(&[left.clone(), right], &map(&[("a", "1"), ("b", "1")]));
    assert!(matches!(&told, Err(Violation::ReadAtCommit(name)) if name.starts_with("right")));
    // Found by a range, too.
    let read = RangeRead {
        begin: key("a"),
        end: key("z"),
        limit: 9,
        direction: Direction::Reverse,
        isolation: Isolation::Serializable,
        rows: Some(Vec::new()),
    };
    let ranged = tx("ranged", 5, 11, &[Step::Range(read.clone()), set("b", "1")]);
    let told = check(&[left.clone(), ranged], &map(&[("a", "1"), ("b", "1")]));
    assert!(matches!(told, Err(Violation::ReadAtCommit(_))), "{told:?}");
    // With snapshot reads it is allowed.
    let allowed = Step::Range(RangeRead { isolation: Isolation::Snapshot, ..read });
    let ranged = tx("ranged", 5, 11, &[allowed, set("b", "1")]);
    assert_eq!(check(&[left, ranged], &map(&[("a", "1"), ("b", "1")])), Ok(()));
}

#[test]
fn a_torn_batch_is_told() {
    let writer = tx("writer", 5, 10, &[set("a", "1"), set("b", "1")]);
    let mut reader = tx("reader", 12, 13, &[get("a", Some("1")), get("b", None)]);
    reader.outcome = Outcome::ReadOnly;
    let end = map(&[("a", "1"), ("b", "1")]);
    let told = check(&[writer.clone(), reader.clone()], &end);
    assert!(matches!(told, Err(Violation::ReadAtVersion(_))), "{told:?}");
    // Half of it is there in the end.
    let told = check(&[writer], &map(&[("a", "1")]));
    assert!(matches!(told, Err(Violation::End(_))), "{told:?}");
    // What never committed was seen.
    let mut dropped = tx("dropped", 5, 10, &[set("a", "1")]);
    dropped.outcome = Outcome::Absent;
    let told = check(&[dropped, reader], &Map::new());
    assert!(matches!(told, Err(Violation::ReadAtVersion(_))), "{told:?}");
}

#[test]
fn missed_declared_conflicts_and_shared_places_are_told() {
    let declared = Step::ReadConflict(key("a"), key("c"));
    let history =
        [tx("writer", 5, 10, &[set("b", "1")]), tx("declares", 5, 11, &[declared, set("d", "1")])];
    let told = check(&history, &map(&[("b", "1"), ("d", "1")]));
    assert!(matches!(told, Err(Violation::MissedConflict(_))), "{told:?}");
    let history = [tx("one", 5, 10, &[set("a", "1")]), tx("two", 5, 10, &[set("b", "1")])];
    let told = check(&history, &map(&[("a", "1"), ("b", "1")]));
    assert!(matches!(told, Err(Violation::Order(_))), "{told:?}");
}
