//! Journals made by hand, as `fjall` would have written them.

use std::fs;

use super::*;

/// A batch of one row, and its record where it has one.
fn batch(sequence: u64, record: Option<Record>, value: &[u8]) -> Vec<u8> {
    let items = item(b"krow", value);
    match record {
        Some(record) => whole(sequence, &[items, item(BATCH_KEY, &record.encode())]),
        None => whole(sequence, &[items]),
    }
}

fn whole(sequence: u64, items: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(items.len()).unwrap();
    let items = items.concat();
    let mut hash = Xxh3::new();
    hash.update(&items);
    let mut bytes = vec![1];
    bytes.extend(count.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(items);
    bytes.push(3);
    bytes.extend(hash.digest().to_le_bytes());
    bytes.extend(END_MAGIC);
    bytes
}

fn item(key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_le_bytes();
    let mut bytes = vec![2, 0, 0];
    bytes.extend(7_u64.to_le_bytes());
    bytes.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
    bytes.extend([length, length].concat());
    bytes.extend(key);
    bytes.extend(value);
    bytes
}

/// Batches of these numbers, whose sequence numbers are ten times as high.
fn batches(numbers: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let one = |number| {
        let record = Record { batch: number, sequence_min: number * 10 - 3 };
        batch(number * 10, Some(record), &[7; 40])
    };
    numbers.flat_map(one).collect()
}

/// Batches that each say how far batches were synced before.
fn noting(synced: &[u64]) -> Vec<Vec<u8>> {
    let one = |(number, synced): (u64, &u64)| {
        let record = Record { batch: number, sequence_min: number * 10 - 3 };
        let items = [
            item(b"krow", &[7; 60]),
            item(SYNCED_KEY, &synced.to_be_bytes()),
            item(BATCH_KEY, &record.encode()),
        ];
        whole(number * 10, &items)
    };
    (1..).zip(synced).map(one).collect()
}

/// A directory with these journals, from number 4 on.
fn directory(journals: &[&[u8]]) -> tempfile::TempDir {
    // Thousands of them: in memory, where there is such a place, nothing is synced.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for (number, bytes) in (4..).zip(journals) {
        fs::write(directory.path().join(format!("{number}.jnl")), bytes).unwrap();
    }
    directory
}

/// What the check says of these journals: the last batch, or the damaged file and why.
fn checked(journals: &[&[u8]], acknowledged: u64) -> Result<Option<u64>, (String, String)> {
    check(directory(journals).path(), acknowledged).map_err(|error| match error {
        OpenError::Corrupt { path, reason } => {
            (path.file_name().unwrap().to_string_lossy().into_owned(), reason)
        }
        other => panic!("{other}"),
    })
}

/// Asserts that a file is blamed for a reason with these words.
fn blames(result: Result<Option<u64>, (String, String)>, file: &str, words: &str) {
    let (blamed, reason) = result.expect_err(words);
    assert!(blamed == file && reason.contains(words), "{blamed}: {reason}");
}

#[test]
fn whole_journals_pass() {
    assert_eq!(checked(&[&batches(1..=3)], 3), Ok(Some(3)));
    let padded = [batches(1..=3), vec![0; 5000]].concat();
    assert_eq!(checked(&[&padded, &batches(4..=6)], 6), Ok(Some(6)));
    // Everything before was moved to files; nothing was written since.
    assert_eq!(checked(&[&batches(100..=102)], 50), Ok(Some(102)));
    assert_eq!(checked(&[&[]], 50), Ok(None));
    assert_eq!(checked(&[], 0), Ok(None));
    // Batches of format 1 had no records.
    let old = [batch(1, None, b"old"), batches(1..=2)].concat();
    assert_eq!(checked(&[&old], 2), Ok(Some(2)));
}

#[test]
fn a_torn_last_batch_is_cut_off() {
    let (whole, all) = (batches(1..=3), batches(1..=4));
    for kept in whole.len() + 1..all.len() {
        for padding in [0, 3000] {
            let torn = [&all[..kept], &vec![0; padding]].concat();
            let directory = directory(&[&torn]);
            assert_eq!(check(directory.path(), 3).unwrap(), Some(3), "{kept}");
            assert_eq!(fs::read(directory.path().join("4.jnl")).unwrap(), whole);
            // Had it been acknowledged, nothing would be changed.
            blames(checked(&[&torn], 4), "4.jnl", "batch 4 was acknowledged, 3 is the last");
        }
    }
    // A page in its middle that the disk had not written yet.
    let mut torn = all.clone();
    torn[whole.len() + 30..whole.len() + 50].fill(0);
    assert_eq!(checked(&[&torn], 3), Ok(Some(3)));
}

#[test]
fn a_damaged_byte_is_told_wherever_it_is() {
    let (one, all) = (batches(1..=1).len(), batches(1..=4));
    for at in 0..all.len() {
        for bit in [0, 3, 7] {
            let mut damaged = all.clone();
            damaged[at] ^= 1 << bit;
            let told = check(directory(&[&damaged]).path(), 4);
            // A sequence number may be another between the same two, and the last a higher one: the
            // order is what counts.
            let number = (5..13).contains(&(at % one));
            let within = number && told.as_ref().is_ok_and(|last| *last == Some(4));
            let told = within || matches!(told, Err(OpenError::Corrupt { .. }));
            assert!(told, "{at} {bit}");
        }
    }
}

#[test]
fn what_is_missing_is_told() {
    let [one, two, three] = [1..=3, 4..=6, 7..=9].map(batches);
    let (_, reason) = checked(&[], 3).expect_err("there is none");
    assert_eq!(reason, "it has no journal");
    // A batch, a whole journal, its file's end.
    let gap = [batches(1..=2), batches(4..=5)].concat();
    blames(checked(&[&gap], 5), "4.jnl", "a batch before it is missing");
    blames(checked(&[&one, &three], 9), "5.jnl", "a batch before it is missing");
    blames(checked(&[&one[..one.len() - 9], &two], 6), "4.jnl", "the file ends in it");
    let directory = directory(&[&one, &two, &three]);
    fs::remove_file(directory.path().join("5.jnl")).unwrap();
    let told = check(directory.path(), 9);
    assert!(matches!(told, Err(OpenError::Corrupt { path, .. }) if path.ends_with("6.jnl")));
}

/// Writes that were never synced, of which a power cut left any pages: what was acknowledged is kept
/// whole, the rest is cut off from the first batch that is not whole.
#[test]
fn holes_behind_what_was_acknowledged_are_cut_off() {
    const PAGE: usize = 96;
    let batches = noting(&[0, 1, 2, 2, 2, 2]);
    let all = batches.concat();
    let ends: Vec<_> = (0..=6).map(|count| batches[..count].concat().len()).collect();
    let unsynced: Vec<_> = (ends[2]..all.len()).step_by(PAGE).collect();
    for lost in 1_u32..1 << unsynced.len() {
        let mut bytes = all.clone();
        let mut first = all.len();
        for (page, from) in (0..).zip(&unsynced) {
            if lost & (1 << page) != 0 {
                bytes[*from..(*from + PAGE).min(all.len())].fill(0);
                first = first.min(*from);
            }
        }
        let whole = ends.iter().rposition(|end| *end <= first).unwrap();
        // The file that lies beside may not have been written since the first sync.
        for acknowledged in [1, 2] {
            let directory = directory(&[&bytes]);
            let last = check(directory.path(), acknowledged).unwrap();
            assert_eq!(last, Some(whole as u64), "{lost:b}");
            let kept = fs::read(directory.path().join("4.jnl")).unwrap();
            assert!(kept.starts_with(&all[..ends[whole]]), "{lost:b}");
            assert!(kept[ends[whole]..].iter().all(|byte| *byte == 0), "{lost:b}");
        }
    }
}

#[test]
fn holes_before_what_was_acknowledged_are_told() {
    let batches = noting(&[0, 1, 2, 3, 3, 3]);
    let all = batches.concat();
    let acknowledged = batches[..3].concat().len();
    for from in 0..acknowledged {
        for bytes in [1, 300] {
            let until = (from + bytes).min(all.len());
            // One zero may have been there before.
            if all[from..until.min(acknowledged)].iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut hole = all.clone();
            hole[from..until].fill(0);
            // Those behind say what was synced, and so does the file beside, each for itself.
            let whole = batches.iter().scan(0, |end, batch| {
                *end += batch.len();
                Some(*end)
            });
            let before = whole.filter(|end| *end <= from).count();
            for (noted, bytes) in [(0, &hole[..]), (3, &hole[..]), (3, &hole[..acknowledged])] {
                let directory = directory(&[bytes]);
                // A sequence number may be another between the same two.
                match check(directory.path(), noted) {
                    Err(OpenError::Corrupt { reason, .. }) => {
                        let last = format!("batch 3 was acknowledged, {before} is the last");
                        assert!(reason.contains(&last), "{from} {bytes:?}: {reason}");
                    }
                    // Nothing but zeros is an end, which the open compares with the file beside.
                    Ok(Some(last)) => assert!(last >= 3 || last < noted, "{from} {noted} {last}"),
                    other => panic!("{from}: {other:?}"),
                }
                let kept = fs::read(directory.path().join("4.jnl")).unwrap();
                assert!(kept.starts_with(&bytes[..acknowledged]), "{from}: nothing is changed");
            }
        }
    }
    // A later batch that is torn itself, of which the end is there.
    let mut torn = all.clone();
    torn[batches[0].len() + 30..all.len() - LAST_BYTES].fill(0);
    blames(checked(&[&torn], 0), "4.jnl", "batch 3 was acknowledged, 1 is the last");
    // Numbers that no batch there can have are somebody's bytes.
    let forged = noting(&[9_000_000; 2]);
    let record = Record { batch: 9_000_001, sequence_min: 7 };
    let value = [item(SYNCED_KEY, &[0; 8]), item(BATCH_KEY, &record.encode())].concat();
    let value = [&value, &[3][..], &[0; 8], END_MAGIC, &[9; 40]].concat();
    let inside = batch(30, Some(Record { batch: 3, sequence_min: 27 }), &value);
    let kept = forged.concat();
    let torn = [&kept[..], &inside[..inside.len() - 3]].concat();
    assert_eq!(checked(&[&torn], 2), Ok(Some(2)));
}

/// A machine that crashed may have acknowledged more than the file beside the journal says.
#[test]
fn a_whole_batch_behind_a_damaged_one_is_no_torn_write() {
    let one = batches(1..=1).len();
    let mut damaged = batches(1..=4);
    damaged[one + 40] ^= 1;
    blames(checked(&[&damaged], 1), "4.jnl", "batch 3 was acknowledged, 1 is the last");
    // Nor are zeros where a batch began.
    let mut hole = batches(1..=4);
    hole[one..one + 20].fill(0);
    blames(checked(&[&hole], 1), "4.jnl", "batch 3 was acknowledged, 1 is the last");
}

#[test]
fn a_sequence_number_out_of_order_is_told() {
    let first = batches(1..=1);
    let with = |sequence, sequence_min| {
        let record = Record { batch: 2, sequence_min };
        [&first[..], &batch(sequence, Some(record), b"")].concat()
    };
    assert_eq!(checked(&[&with(11, 11)], 2), Ok(Some(2)));
    blames(checked(&[&with(1 << 60, 11)], 2), "4.jnl", "its sequence number is too high");
    blames(checked(&[&with(10, 11)], 2), "4.jnl", "its sequence number is too low");
    blames(checked(&[&with(12, 10)], 2), "4.jnl", "the sequence number before it is too high");
}
