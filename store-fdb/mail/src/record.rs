//! Stored records of emails, looked into without being decoded whole.
//!
//! A record has a kilobyte or two in some hundred strings, and whoever looks through a mailbox
//! wants one or two of them from each. Fields are found in the stored bytes, and only those that
//! are asked for become values.
//!
//! Invariant: what is given out is what [`EmailMeta`] would have; only damage in fields that
//! nobody asks for goes unnoticed.

use bytes::Bytes;
use prost::Message;

use crate::{StoreError, keys::email::EmailMeta};

/// Tags of [`EmailMeta`] and of its `HeaderField`.
mod tag {
    pub(super) const BLOB: u32 = 1;
    pub(super) const SIZE: u32 = 2;
    pub(super) const SENT_SECONDS: u32 = 4;
    pub(super) const ENVELOPE: u32 = 5;
    pub(super) const ROOT: u32 = 6;
    pub(super) const HEADERS: u32 = 7;
    pub(super) const HEADERS_WHOLE: u32 = 11;
    pub(super) const FIELD_NAME: u32 = 1;
    pub(super) const FIELD_RAW: u32 = 4;
}

/// A part of [`EmailMeta`] that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaPart {
    /// `blob` and `size`.
    Blob,
    /// `envelope`.
    Envelope,
    /// `root`.
    Root,
    /// `headers` and `headers_whole`.
    Headers,
}

impl MetaPart {
    fn tags(self) -> &'static [u32] {
        match self {
            Self::Blob => &[tag::BLOB, tag::SIZE],
            Self::Envelope => &[tag::ENVELOPE],
            Self::Root => &[tag::ROOT],
            Self::Headers => &[tag::HEADERS, tag::HEADERS_WHOLE],
        }
    }
}

/// An email's stored [`EmailMeta`].
#[derive(Debug, Clone)]
pub struct MetaRecord(Bytes);

/// What a search looks at, in the record's own bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchedMeta<'a> {
    /// [`EmailMeta::sent_seconds`].
    pub sent_seconds: Option<i64>,
    /// [`EmailMeta::headers`].
    pub headers: Vec<SearchedField<'a>>,
    /// [`EmailMeta::headers_whole`].
    pub headers_whole: bool,
}

/// One field of the top-level header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchedField<'a> {
    /// As written.
    pub name: &'a [u8],
    /// The whole field, where the record has it.
    pub raw: Option<&'a [u8]>,
}

impl MetaRecord {
    /// A stored value.
    pub(crate) fn new(value: Bytes) -> Self {
        Self(value)
    }

    /// The record with these parts; the others are empty.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn decode(&self, parts: &[MetaPart]) -> Result<EmailMeta, StoreError> {
        let mut meta = EmailMeta::default();
        let mut fields = Fields::new(&self.0);
        while let Some(field) = fields.next()? {
            if parts.iter().any(|part| part.tags().contains(&field.tag)) {
                // A field by itself is a message; and messages merge.
                meta.merge(field.whole).map_err(|error| StoreError::damaged(FAMILY, error))?;
            }
        }
        Ok(meta)
    }

    /// What a search by date or header looks at.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn searched(&self) -> Result<SearchedMeta<'_>, StoreError> {
        let mut found = SearchedMeta::default();
        let mut fields = Fields::new(&self.0);
        while let Some(field) = fields.next()? {
            match (field.tag, field.value) {
                (tag::SENT_SECONDS, Value::Number(seconds)) => {
                    found.sent_seconds = Some(seconds.cast_signed());
                }
                (tag::HEADERS_WHOLE, Value::Number(whole)) => found.headers_whole = whole != 0,
                (tag::HEADERS, Value::Bytes(bytes)) => found.headers.push(searched_field(bytes)?),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn searched_field(bytes: &[u8]) -> Result<SearchedField<'_>, StoreError> {
    let mut found = SearchedField::default();
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next()? {
        match (field.tag, field.value) {
            (tag::FIELD_NAME, Value::Bytes(name)) => found.name = name,
            (tag::FIELD_RAW, Value::Bytes(raw)) => found.raw = Some(raw),
            _ => {}
        }
    }
    Ok(found)
}

const FAMILY: &str = "email meta";

/// The fields of an encoded message, in place.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// One field.
pub(crate) struct Field<'a> {
    tag: u32,
    value: Value<'a>,
    /// With its tag and length.
    pub(crate) whole: &'a [u8],
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of four or eight bytes, which nobody asks for yet.
    Fixed,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    // Inlined, with what follows: a record has some eighty fields, most of them passed over.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, StoreError> {
        let begin = self.rest;
        if begin.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| damaged("a tag out of bounds"))?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(damaged("a wire type that is not used")),
        };
        let whole = &begin[..begin.len() - self.rest.len()];
        Ok(Some(Field { tag, value, whole }))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, StoreError> {
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, StoreError> {
        let mut number = 0;
        for (place, byte) in self.rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Ok(number);
            }
        }
        Err(damaged("a number without end"))
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], StoreError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| damaged("a field beyond the end"))?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Bytes of the longest 64-bit number.
const VARINT_BYTES_MAX: usize = 10;

fn damaged(detail: &str) -> StoreError {
    StoreError::damaged(FAMILY, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::email::{Envelope, HeaderField, Part};

    fn meta() -> EmailMeta {
        let field = |name: &str, raw: Option<&[u8]>| HeaderField {
            name: name.to_owned(),
            offset: 1 << 20,
            length: 7,
            raw: raw.map(<[u8]>::to_vec),
        };
        EmailMeta {
            blob: vec![7; 40],
            size: u64::MAX,
            received_ms: -1,
            sent_seconds: Some(-62_135_596_800),
            envelope: Some(Envelope { subject: Some("Grüße".into()), ..Envelope::default() }),
            root: Some(Part { media_type: "text".into(), lines: 3, ..Part::default() }),
            headers: vec![
                field("Subject", Some(b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n")),
                field("X-Long", None),
                field("Empty", Some(b"")),
            ],
            preview: "p".repeat(300),
            has_attachment: true,
            thread_keys: vec![1, u64::MAX],
            headers_whole: true,
            thread: 9,
        }
    }

    fn record(meta: &EmailMeta) -> MetaRecord {
        MetaRecord::new(meta.encode_to_vec().into())
    }

    #[test]
    fn parts_are_what_the_whole_record_has() {
        let whole = meta();
        let record = record(&whole);
        assert_eq!(record.decode(&[]).unwrap(), EmailMeta::default());
        let blob = record.decode(&[MetaPart::Blob]).unwrap();
        let expected = EmailMeta { blob: vec![7; 40], size: u64::MAX, ..EmailMeta::default() };
        assert_eq!(blob, expected);
        let rest = [MetaPart::Envelope, MetaPart::Root, MetaPart::Headers];
        let rest = record.decode(&rest).unwrap();
        let expected = EmailMeta {
            envelope: whole.envelope,
            root: whole.root,
            headers: whole.headers,
            headers_whole: true,
            ..EmailMeta::default()
        };
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_search_sees_what_the_record_has() {
        let whole = meta();
        let record = record(&whole);
        let searched = record.searched().unwrap();
        assert_eq!(searched.sent_seconds, whole.sent_seconds);
        assert!(searched.headers_whole);
        let same = |(seen, held): (&SearchedField<'_>, &HeaderField)| {
            seen.name == held.name.as_bytes() && seen.raw == held.raw.as_deref()
        };
        assert_eq!(searched.headers.len(), whole.headers.len());
        assert!(searched.headers.iter().zip(&whole.headers).all(same));
        let empty = MetaRecord::new(Bytes::new());
        assert_eq!(empty.searched().unwrap(), SearchedMeta::default());
    }

    /// Cut or changed anywhere, a record is told to be damaged or read as something; never more.
    #[test]
    fn damage_is_told_and_harms_nothing() {
        let bytes = meta().encode_to_vec();
        let parts = [MetaPart::Blob, MetaPart::Envelope, MetaPart::Root, MetaPart::Headers];
        let mut told = 0;
        for at in 0..bytes.len() {
            let cut = MetaRecord::new(bytes[..at].to_vec().into());
            let mut flipped = bytes.clone();
            flipped[at] ^= 0xff;
            for record in [cut, MetaRecord::new(flipped.into())] {
                let _read = record.decode(&parts);
                told += usize::from(record.searched().is_err());
            }
        }
        assert!(told > bytes.len(), "{told} of {}", 2 * bytes.len());
    }
}
