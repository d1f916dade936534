//! The backup's file format.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `RKBACKUP` |
//! | 4 | format number |
//! | … | frames |
//!
//! A frame is its kind (1), the length of its payload (4), the payload, and a 128-bit xxh3 of the
//! frame's number in the file (8) and all of that. All numbers are big-endian.
//!
//! | kind | payload |
//! |---|---|
//! | 1 begin | highest version that may have been handed out (8), time in ms since 1970 (8) |
//! | 2 rows, 3 large values | key length (4), value length (4), key, value, again and again |
//! | 4 end | rows (8), large values (8) |
//!
//! Begin comes first, end last, and nothing after it. The checksum is against accidents; whoever
//! can write the file can write another.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::restore::RestoreError;
use crate::limits::{BACKUP_CHUNK_BYTES, LARGE_KEY_BYTES_MAX, LARGE_VALUE_BYTES_MAX};

const MAGIC: &[u8; 8] = b"RKBACKUP";
const FORMAT: u32 = 1;

/// The longest payload: one entry too many for a chunk, and that the longest there is.
const PAYLOAD_BYTES_MAX: usize =
    BACKUP_CHUNK_BYTES + 8 + LARGE_KEY_BYTES_MAX + 1 + LARGE_VALUE_BYTES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    Rows,
    Large,
    End,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::Rows => 2,
            Self::Large => 3,
            Self::End => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Begin, Self::Rows, Self::Large, Self::End]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// What the end frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) rows: u64,
    pub(super) large_values: u64,
}

impl Totals {
    pub(super) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Rows => self.rows += 1,
            Kind::Large => self.large_values += 1,
            Kind::Begin | Kind::End => {}
        }
    }

    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rows.to_be_bytes());
        bytes[8..].copy_from_slice(&self.large_values.to_be_bytes());
        bytes
    }
}

fn checksum(number: u64, head: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hash = Xxh3::new();
    hash.update(&number.to_be_bytes());
    hash.update(head);
    hash.update(payload);
    hash.digest128().to_be_bytes()
}

fn head(kind: u8, payload_bytes: u32) -> [u8; 5] {
    let [a, b, c, d] = payload_bytes.to_be_bytes();
    [kind, a, b, c, d]
}

/// Makes the bytes of a backup.
pub(super) struct FrameWriter {
    frames: u64,
    bytes: u64,
}

impl FrameWriter {
    pub(super) fn new() -> Self {
        Self { frames: 0, bytes: 0 }
    }

    /// Bytes made so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What stands before the frames.
    pub(super) fn header(&mut self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(MAGIC);
        bytes.put_u32(FORMAT);
        self.bytes += bytes.len() as u64;
        bytes.freeze()
    }

    pub(super) fn frame(&mut self, kind: Kind, payload: &[u8]) -> Bytes {
        let length = u32::try_from(payload.len()).expect("a payload is at most a large value");
        let head = head(kind.number(), length);
        let mut bytes = BytesMut::with_capacity(head.len() + payload.len() + 16);
        bytes.put_slice(&head);
        bytes.put_slice(payload);
        bytes.put_slice(&checksum(self.frames, &head, payload));
        self.frames += 1;
        self.bytes += bytes.len() as u64;
        bytes.freeze()
    }
}

/// Reads a backup back.
pub(super) struct FrameReader<R> {
    reader: R,
    frames: u64,
    bytes: u64,
    payload: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    /// Reads what stands before the frames.
    pub(super) fn new(mut reader: R) -> Result<Self, RestoreError> {
        let mut bytes = Vec::new();
        reader.by_ref().take(12).read_to_end(&mut bytes).map_err(RestoreError::Read)?;
        if bytes.len() < 12 && MAGIC.starts_with(&bytes[..bytes.len().min(8)]) {
            return Err(RestoreError::CutOff { bytes: bytes.len() as u64 });
        }
        let Some((MAGIC, format)) = bytes.split_first_chunk::<8>() else {
            return Err(RestoreError::NotABackup);
        };
        let format = u32::from_be_bytes(format.try_into().expect("twelve without eight are four"));
        if format != FORMAT {
            return Err(RestoreError::FormatUnknown { found: format, known: FORMAT });
        }
        Ok(Self { reader, frames: 0, bytes: 12, payload: Vec::new() })
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn damaged(&self, reason: &'static str) -> RestoreError {
        RestoreError::Damaged { bytes: self.bytes, reason }
    }

    fn exactly<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let mut bytes = [0; N];
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(RestoreError::CutOff { bytes: self.bytes })
            }
            Err(error) => Err(RestoreError::Read(error)),
        }
    }

    /// The next frame, whose checksum is right.
    pub(super) fn frame(&mut self) -> Result<(Kind, &[u8]), RestoreError> {
        let [kind, a, b, c, d] = self.exactly()?;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length as usize > PAYLOAD_BYTES_MAX {
            return Err(self.damaged("a length is out of bounds"));
        }
        // Memory follows what is there rather than what a length says.
        self.payload.clear();
        self.payload.shrink_to(4 * BACKUP_CHUNK_BYTES);
        let mut limited = self.reader.by_ref().take(u64::from(length));
        let read = limited.read_to_end(&mut self.payload).map_err(RestoreError::Read)?;
        if read < length as usize {
            return Err(RestoreError::CutOff { bytes: self.bytes });
        }
        let found: [u8; 16] = self.exactly()?;
        if found != checksum(self.frames, &head(kind, length), &self.payload) {
            return Err(self.damaged("a checksum is wrong"));
        }
        let kind = Kind::from_number(kind).ok_or_else(|| self.damaged("a frame is unknown"))?;
        self.frames += 1;
        self.bytes += 5 + u64::from(length) + 16;
        Ok((kind, &self.payload))
    }

    /// Reads to the end, where nothing may be left.
    pub(super) fn end(&mut self) -> Result<(), RestoreError> {
        match self.reader.read(&mut [0]).map_err(RestoreError::Read)? {
            0 => Ok(()),
            _ => Err(self.damaged("something follows its end")),
        }
    }
}
