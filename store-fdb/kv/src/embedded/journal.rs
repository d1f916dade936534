//! The journal, checked before `fjall` replays it.
//!
//! `fjall` takes the first entry that it cannot parse for the journal's end and cuts the file off
//! there, whatever follows; the numbers in a batch's head have no checksum. Each batch of ours
//! therefore ends with a [`Record`] that numbers it, and this check reads every batch first:
//!
//! - sealed journals are whole, and batches follow each other without a gap;
//! - what follows the last whole batch of the newest journal is a torn write, and is cut off, only
//!   where every batch that was acknowledged came before it. Otherwise it is damage, and is told
//!   with its file and place, and nothing is changed.
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

const END_MAGIC: &[u8; 4] = b"FJL\x03";

/// Sequence numbers that `fjall` can have used for itself between two batches: far more than it
/// does, and far from where they end.
const SEQUENCE_GAP_MAX: u64 = 1 << 32;

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
    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.batch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence_min.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = <[u8; 16]>::try_from(bytes).ok()?;
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
        if found < acknowledged {
            let reason =
                format!("{reason}; batch {acknowledged} was acknowledged, {found} is the last");
            return Err(damaged(newest, walked.whole_bytes, &reason));
        }
        if let Some(place) = later_batch(newest, walked.whole_bytes, found)? {
            let reason = format!("{reason}, and a whole batch follows at byte {place}");
            return Err(damaged(newest, walked.whole_bytes, &reason));
        }
        cut_off(newest, walked.whole_bytes)?;
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
            Parsed::Batch { sequence, record: Some(record) } => {
                match follows(last, sequence, record) {
                    Ok(()) => {
                        last = Some(Whole { record, sequence });
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

/// Where the first whole batch begins that comes after `found` and lies behind `after`.
fn later_batch(path: &Path, after: u64, found: u64) -> Result<Option<u64>, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(io)?);
    file.seek(SeekFrom::Start(after)).map_err(io)?;
    let mut matched = 0;
    for (place, byte) in (after + 1..).zip(file.bytes()) {
        let byte = byte.map_err(io)?;
        matched = match byte {
            _ if byte == END_MAGIC[matched] => matched + 1,
            _ => usize::from(byte == END_MAGIC[0]),
        };
        if matched == END_MAGIC.len() {
            matched = 0;
            let mut entries = Entries::open_at(path, place).map_err(io)?;
            if let Parsed::Batch { record: Some(record), .. } = entries.batch().map_err(io)?
                && record.batch > found
            {
                return Ok(Some(place));
            }
        }
    }
    Ok(None)
}

fn cut_off(path: &Path, whole_bytes: u64) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    tracing::warn!(journal = %path.display(), whole_bytes, "cutting off a torn last write");
    let file = std::fs::OpenOptions::new().write(true).open(path).map_err(io)?;
    file.set_len(whole_bytes).and_then(|()| file.sync_all()).map_err(io)
}

/// What stands at one place of a journal.
enum Parsed {
    Batch { sequence: u64, record: Option<Record> },
    Broken(&'static str),
    End,
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
        Self::open_at(path, 0)
    }

    fn open_at(path: &Path, at: u64) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        let file = BufReader::with_capacity(READ_BYTES, file);
        Ok(Self { file, at, buffer: vec![0; 64 * 1024] })
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
        let mut record = None;
        for _ in 0..items {
            record = self.item(&mut hash)?;
        }
        let [3] = self.read()? else { return Err(Stop::Broken("it has no end")) };
        let checksum = u64::from_le_bytes(self.read()?);
        if self.read()? != *END_MAGIC {
            return Err(Stop::Broken("its end is not marked"));
        }
        if checksum != hash.digest() {
            return Err(Stop::Broken("its checksum is wrong"));
        }
        Ok(Parsed::Batch { sequence, record })
    }

    /// Reads one item into the checksum; gives its value where it is a record.
    fn item(&mut self, hash: &mut Xxh3) -> Result<Option<Record>, Stop> {
        let tag = self.read::<1>()?;
        hash.update(&tag);
        match tag {
            [4] => {
                hash.update(&self.read::<8>()?);
                return Ok(None);
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
        let is_record = key == BATCH_KEY && value_bytes == 16;
        Ok(if is_record { Record::decode(&self.buffer[..value_end]) } else { None })
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
