//! The journal, checked before `fjall` replays it.
//!
//! `fjall` takes the first entry that it cannot parse for the journal's end and cuts the file off
//! there, whatever follows; the numbers in a batch's head have no checksum. Each batch of ours
//! therefore ends with a [`Record`] that numbers it, and with how far batches were synced before it
//! was written ([`SYNCED_KEY`]). This check reads every batch first:
//!
//! - sealed journals are whole, because they are synced when they are sealed, and batches follow
//!   each other without a gap;
//! - what follows the last whole batch of the newest journal is what a power cut leaves, and is cut
//!   off, only where every batch that may have been acknowledged came before it. Otherwise it is
//!   damage, and is told with its file and place, and nothing is changed.
//!
//! A disk writes pages in any order until a sync, so behind a batch that a power cut tore there may
//! be later ones that are whole. None of them was acknowledged, for a batch is not acknowledged before
//! all up to it are synced; and each says so: it was written when the torn one was not synced. One
//! that says the opposite makes the torn batch damage. Of a batch that is not whole, too, the end
//! counts if it is there. Format 2 did not note what was synced: behind a batch without that note,
//! every batch is taken to say that all before it was.
//!
//! The layout is that of `fjall` 3, all numbers little-endian:
//!
//! | entry | bytes |
//! |---|---|
//! | start | `1`, items (4), sequence number (8) |
//! | item | `2`, kind, compression, keyspace (8), key length (2), value length (4), stored length (4), key, stored value |
//! | clear | `4`, keyspace (8) |
//! | end | `3`, xxh3 of the items (8), `FJL` `3` |
//!
//! Deliberately absent: finding that the oldest journals were taken away, which looks as if their
//! rows had been moved to files.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use super::storage::corrupt;
use crate::OpenError;

/// The key of the record in keyspace `meta`, and the last item of every batch.
pub(super) const BATCH_KEY: &[u8] = b"batch";

/// The key, in keyspace `meta`, of the last batch that was synced when a batch was written, 8 bytes
/// big-endian: the last item but one of every batch.
pub(super) const SYNCED_KEY: &[u8] = b"synced";

const END_MAGIC: &[u8; 4] = b"FJL\x03";

/// Sequence numbers that `fjall` can have used for itself between two batches: far more than it
/// does, and far from where they end.
const SEQUENCE_GAP_MAX: u64 = 1 << 32;

/// Bytes of an item before its key: tag, kind, compression, keyspace, and the three lengths.
const ITEM_HEAD_BYTES: usize = 21;

const RECORD_BYTES: usize = 16;

const RECORD_BYTES_U32: u32 = 16;

/// Bytes of a batch's last two items and its end.
const LAST_BYTES: usize =
    item_bytes(SYNCED_KEY, 8) + item_bytes(BATCH_KEY, RECORD_BYTES) + 1 + 8 + END_MAGIC.len();

const fn item_bytes(key: &[u8], value_bytes: usize) -> usize {
    ITEM_HEAD_BYTES + key.len() + value_bytes
}

/// How much is read of the file at once.
const READ_BYTES: usize = 256 * 1024;

/// A batch's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// The batch's number, one above that of the batch before.
    pub(super) batch: u64,
    /// Every earlier batch has a sequence number below this; this one's is not below it.
    pub(super) sequence_min: u64,
}

impl Record {
    pub(super) fn encode(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.batch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence_min.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = <[u8; RECORD_BYTES]>::try_from(bytes).ok()?;
        let (batch, sequence_min) = bytes.split_at(8);
        let number = |half: &[u8]| Some(u64::from_be_bytes(half.try_into().ok()?));
        Some(Self { batch: number(batch)?, sequence_min: number(sequence_min)? })
    }
}

/// Checks every journal of the directory, and cuts off a torn last write. Gives the last batch's
/// number, where a journal has any.
///
/// # Errors
/// [`OpenError::Corrupt`] with the journal and the place in it.
pub(super) fn check(directory: &Path, acknowledged: u64) -> Result<Option<u64>, OpenError> {
    let journals = journals(directory)?;
    let Some(((_, newest), sealed)) = journals.split_last() else {
        return match acknowledged {
            0 => Ok(None),
            _ => Err(corrupt(directory, "it has no journal")),
        };
    };
    for pair in journals.windows(2) {
        if pair[1].0 != pair[0].0 + 1 {
            return Err(corrupt(&pair[1].1, "the journal before it is missing"));
        }
    }
    let mut last = None;
    for (_, path) in sealed {
        let walked = walk(path, last)?;
        if let Tail::Broken { reason } = walked.tail {
            return Err(damaged(path, walked.whole_bytes, reason));
        }
        last = walked.last;
    }
    let walked = walk(newest, last)?;
    if let Tail::Broken { reason } = walked.tail {
        let found = walked.last.map_or(0, |last| last.record.batch);
        let noted = walked.last.map_or(Noted::Nothing, |last| last.noted);
        let behind = Behind::read(newest, walked.whole_bytes, found, noted)?;
        let synced = acknowledged.max(behind.synced);
        if found < synced {
            let reason = format!("{reason}; batch {synced} was acknowledged, {found} is the last");
            return Err(damaged(newest, walked.whole_bytes, &reason));
        }
        cut_off(newest, walked.whole_bytes, found, behind.batches)?;
    }
    Ok(walked.last.map(|last| last.record.batch))
}

fn damaged(path: &Path, at: u64, reason: &str) -> OpenError {
    corrupt(path, format!("the batch at byte {at} is damaged: {reason}"))
}

/// The directory's journals, the oldest first.
fn journals(directory: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let io = |source| OpenError::Io { path: directory.to_owned(), source };
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let number = number.ok_or_else(|| corrupt(&path, "its name is not a number"))?;
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

/// A whole batch's numbers.
#[derive(Clone, Copy)]
struct Whole {
    record: Record,
    sequence: u64,
    noted: Noted,
}

/// Whether a batch notes how far batches were synced before it. No release that does not has written
/// behind one that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    Synced,
    Nothing,
}

/// One journal, read to its end.
struct Walked {
    last: Option<Whole>,
    /// Where its whole batches end.
    whole_bytes: u64,
    tail: Tail,
}

/// What follows the whole batches.
enum Tail {
    /// Nothing but zeros, which the file was filled with beforehand.
    Empty,
    Broken {
        reason: &'static str,
    },
}

fn walk(path: &Path, mut last: Option<Whole>) -> Result<Walked, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let mut entries = Entries::open(path).map_err(io)?;
    loop {
        let whole_bytes = entries.at;
        let tail = match entries.batch().map_err(io)? {
            Parsed::Batch { sequence, record: Some(record), noted } => {
                match follows(last, sequence, record) {
                    Ok(()) => {
                        last = Some(Whole { record, sequence, noted });
                        continue;
                    }
                    Err(reason) => Tail::Broken { reason },
                }
            }
            // A batch of format 1, which had no records.
            Parsed::Batch { record: None, .. } if last.is_none() => continue,
            Parsed::Batch { .. } => Tail::Broken { reason: "it has no record" },
            Parsed::Broken(reason) => Tail::Broken { reason },
            Parsed::End => Tail::Empty,
        };
        return Ok(Walked { last, whole_bytes, tail });
    }
}

/// Whether a batch can come after `last`.
fn follows(last: Option<Whole>, sequence: u64, record: Record) -> Result<(), &'static str> {
    if sequence < record.sequence_min {
        return Err("its sequence number is too low");
    }
    if sequence - record.sequence_min > SEQUENCE_GAP_MAX {
        return Err("its sequence number is too high");
    }
    match last {
        Some(last) if record.batch != last.record.batch + 1 => Err("a batch before it is missing"),
        Some(last) if record.sequence_min <= last.sequence => {
            Err("the sequence number before it is too high")
        }
        _ => Ok(()),
    }
}

/// What the ends of batches say that lie behind a torn one.
#[derive(Debug, Default)]
struct Behind {
    /// How many there are.
    batches: u64,
    /// The last batch that was synced before any of them was written.
    synced: u64,
}

impl Behind {
    /// Reads the journal from `after` on. `found` is the last batch before; whether that notes what
    /// was synced tells what it means where a note is not there.
    fn read(path: &Path, after: u64, found: u64, noted: Noted) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(io)?.saturating_sub(after);
        file.seek(SeekFrom::Start(after)).map_err(io)?;
        // What says more is no batch's: so many do not fit there.
        let last = found.saturating_add(bytes / LAST_BYTES as u64 + 1);
        let mut behind = Self::default();
        // The end of what was read before, and what is read next.
        let mut block = vec![0; LAST_BYTES + READ_BYTES];
        loop {
            let read = file.read(&mut block[LAST_BYTES..]).map_err(io)?;
            if read == 0 {
                return Ok(behind);
            }
            for window in block[..LAST_BYTES + read].windows(LAST_BYTES).skip(1) {
                if window.ends_with(END_MAGIC)
                    && let Some((batch, synced)) = ended(window)
                    && (found + 1..=last).contains(&batch)
                {
                    behind.add(batch, synced, noted);
                }
            }
            block.copy_within(read..read + LAST_BYTES, 0);
        }
    }

    fn add(&mut self, batch: u64, synced: Option<u64>, noted: Noted) {
        let before = batch - 1;
        let synced = match (synced, noted) {
            (Some(synced), _) => synced.min(before),
            // Lost with the page that the batch began in.
            (None, Noted::Synced) => 0,
            (None, Noted::Nothing) => before,
        };
        self.batches += 1;
        self.synced = self.synced.max(synced);
    }
}

/// A batch's number, and how far it notes that batches were synced, by its last bytes.
fn ended(window: &[u8]) -> Option<(u64, Option<u64>)> {
    let (synced, rest) = window.split_at(item_bytes(SYNCED_KEY, 8));
    let (record, end) = rest.split_at(item_bytes(BATCH_KEY, RECORD_BYTES));
    let record = Record::decode(value_of(record, BATCH_KEY).filter(|_| end[0] == 3)?)?;
    let synced = value_of(synced, SYNCED_KEY).and_then(|value| value.try_into().ok());
    Some((record.batch, synced.map(u64::from_be_bytes)))
}

/// The value of an item that has this key and fills these bytes.
fn value_of<'a>(item: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = item.split_at_checked(ITEM_HEAD_BYTES)?;
    let value = rest.strip_prefix(key)?;
    let key_bytes = u16::from_le_bytes([head[11], head[12]]);
    let value_bytes = u32::from_le_bytes([head[17], head[18], head[19], head[20]]);
    let fits = usize::from(key_bytes) == key.len()
        && usize::try_from(value_bytes).is_ok_and(|bytes| bytes == value.len());
    (head[0] == 2 && fits).then_some(value)
}

fn cut_off(path: &Path, whole_bytes: u64, found: u64, behind: u64) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    tracing::warn!(
        journal = %path.display(),
        whole_bytes,
        last_batch = found,
        later_batches = behind,
        "cutting off a torn last write; nothing of it was acknowledged"
    );
    let file = std::fs::OpenOptions::new().write(true).open(path).map_err(io)?;
    file.set_len(whole_bytes).and_then(|()| file.sync_all()).map_err(io)
}

/// What stands at one place of a journal.
enum Parsed {
    Batch { sequence: u64, record: Option<Record>, noted: Noted },
    Broken(&'static str),
    End,
}

/// An item of a batch.
enum Item {
    Record(Record),
    Synced,
    Other,
}

/// Why a batch cannot be read.
enum Stop {
    Broken(&'static str),
    Io(std::io::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Broken("the file ends in it"),
            _ => Self::Io(error),
        }
    }
}

struct Entries {
    file: BufReader<File>,
    at: u64,
    buffer: Vec<u8>,
}

impl Entries {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = BufReader::with_capacity(READ_BYTES, File::open(path)?);
        Ok(Self { file, at: 0, buffer: vec![0; 64 * 1024] })
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn batch(&mut self) -> std::io::Result<Parsed> {
        match self.try_batch() {
            Ok(parsed) => Ok(parsed),
            Err(Stop::Broken(reason)) => Ok(Parsed::Broken(reason)),
            Err(Stop::Io(error)) => Err(error),
        }
    }

    fn try_batch(&mut self) -> Result<Parsed, Stop> {
        match self.read::<1>() {
            Ok([1]) => {}
            Ok([0]) => return self.zeros(),
            Ok(_) => return Err(Stop::Broken("it does not begin as one")),
            Err(Stop::Broken(_)) => return Ok(Parsed::End),
            Err(stop) => return Err(stop),
        }
        let items = u32::from_le_bytes(self.read()?);
        let sequence = u64::from_le_bytes(self.read()?);
        let mut hash = Xxh3::new();
        let (mut record, mut noted) = (None, Noted::Nothing);
        for _ in 0..items {
            match self.item(&mut hash)? {
                Item::Synced => noted = Noted::Synced,
                Item::Record(found) => record = Some(found),
                Item::Other => record = None,
            }
        }
        let [3] = self.read()? else { return Err(Stop::Broken("it has no end")) };
        let checksum = u64::from_le_bytes(self.read()?);
        if self.read()? != *END_MAGIC {
            return Err(Stop::Broken("its end is not marked"));
        }
        if checksum != hash.digest() {
            return Err(Stop::Broken("its checksum is wrong"));
        }
        Ok(Parsed::Batch { sequence, record, noted })
    }

    /// Reads one item into the checksum.
    fn item(&mut self, hash: &mut Xxh3) -> Result<Item, Stop> {
        let tag = self.read::<1>()?;
        hash.update(&tag);
        match tag {
            [4] => {
                hash.update(&self.read::<8>()?);
                return Ok(Item::Other);
            }
            [2] => {}
            _ => return Err(Stop::Broken("one of its items is of no known kind")),
        }
        let head = self.read::<20>()?;
        hash.update(&head);
        let key_bytes = usize::from(u16::from_le_bytes([head[10], head[11]]));
        let value_bytes = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        let mut key = vec![0; key_bytes];
        self.file.read_exact(&mut key)?;
        hash.update(&key);
        let mut left = usize::try_from(value_bytes).unwrap_or(usize::MAX);
        let mut value_end = 0;
        while left > 0 {
            value_end = left.min(self.buffer.len());
            let part = &mut self.buffer[..value_end];
            self.file.read_exact(part)?;
            hash.update(part);
            left -= value_end;
        }
        self.at += key_bytes as u64 + u64::from(value_bytes);
        let value = &self.buffer[..value_end];
        Ok(match (&key[..], value_bytes) {
            (BATCH_KEY, RECORD_BYTES_U32) => {
                Record::decode(value).map_or(Item::Other, Item::Record)
            }
            (SYNCED_KEY, 8) => Item::Synced,
            _ => Item::Other,
        })
    }

    /// Whether nothing but zeros is left.
    fn zeros(&mut self) -> Result<Parsed, Stop> {
        loop {
            let read = self.file.read(&mut self.buffer)?;
            if read == 0 {
                return Ok(Parsed::End);
            }
            if self.buffer[..read].iter().any(|byte| *byte != 0) {
                return Err(Stop::Broken("it does not begin where the one before ended"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
