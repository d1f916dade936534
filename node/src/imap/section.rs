//! The bytes that a FETCH item names: from the record where it has them, else ranged blob reads.

use blob::{BlobId, BlobReader, BlobStore};
use imap::{
    Completion, ResponseCode,
    command::{FetchAttr, HeaderFields, Partial, Section, SectionKind},
};
use mail::{MetaPart, MetaRecord, keys::email::EmailMeta};
use message::{SectionText, Selection, Structure, TransferDecoder};

use super::errors;
use crate::limits;

/// Where an item's bytes come from.
pub(super) enum Source {
    /// They are here.
    Ready(Vec<u8>),
    /// This range of the blob.
    Range(std::ops::Range<u64>),
    /// A part, decoded: its range, its encoding, and the slice of the result to send.
    Decoded(std::ops::Range<u64>, message::TransferEncoding, std::ops::Range<u64>),
    /// The message has no such part.
    Nothing,
}

impl Source {
    /// Bytes to be sent.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Ready(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Range(range) | Self::Decoded(_, _, range) => range.end - range.start,
            Self::Nothing => 0,
        }
    }
}

/// One message's record, prepared for looking into: what was asked for of it.
pub(super) struct Opened<'a> {
    record: &'a MetaRecord,
    meta: EmailMeta,
    pub(super) blob: BlobId,
    pub(super) structure: Option<Structure>,
    pub(super) envelope: Option<message::Envelope>,
}

/// What of the records is needed to give out all of `items`.
pub(super) fn parts_of(items: &[FetchAttr]) -> Vec<MetaPart> {
    let mut parts = vec![MetaPart::Blob];
    for item in items {
        let needed: &[MetaPart] = match item {
            FetchAttr::Envelope => &[MetaPart::Envelope],
            FetchAttr::Section { section, .. } => parts_of_section(section),
            FetchAttr::Rfc822(part) => parts_of_section(&part.section()),
            FetchAttr::Body
            | FetchAttr::BodyStructure
            | FetchAttr::Binary { .. }
            | FetchAttr::BinarySize(_) => STRUCTURE,
            FetchAttr::Uid
            | FetchAttr::Flags
            | FetchAttr::InternalDate
            | FetchAttr::Rfc822Size
            | FetchAttr::ModSeq => &[],
        };
        for part in needed {
            if !parts.contains(part) {
                parts.push(*part);
            }
        }
    }
    parts
}

/// What a [`Structure`] is made of.
const STRUCTURE: &[MetaPart] = &[MetaPart::Envelope, MetaPart::Root];

fn parts_of_section(section: &Section) -> &'static [MetaPart] {
    let whole = section.part().is_empty();
    match section.kind() {
        SectionKind::Whole if whole => &[],
        SectionKind::HeaderFields(_) if whole => &[MetaPart::Headers],
        _ => STRUCTURE,
    }
}

impl<'a> Opened<'a> {
    /// Takes `parts` out of a record; [`MetaPart::Blob`] must be among them.
    pub(super) fn new(record: &'a MetaRecord, parts: &[MetaPart]) -> Result<Self, Completion> {
        let meta = record.decode(parts).map_err(|error| errors::store(&error))?;
        let blob = BlobId::from_slice(&meta.blob).ok_or_else(|| {
            Completion::no("A record is damaged").with_code(ResponseCode::Corruption)
        })?;
        let envelope = mail::message_envelope(&meta);
        Ok(Self { record, structure: mail::structure(&meta), envelope, meta, blob })
    }

    /// Where the bytes of a FETCH item come from.
    pub(super) async fn source(
        &self,
        blobs: &BlobStore,
        attr: &FetchAttr,
    ) -> Result<Source, Completion> {
        match attr {
            FetchAttr::Section { section, partial, .. } => {
                Ok(cut(self.section(blobs, section).await?, *partial))
            }
            FetchAttr::Rfc822(part) => self.section(blobs, &part.section()).await,
            FetchAttr::Binary { part, partial, .. } => self.binary(part, *partial),
            _ => Ok(Source::Nothing),
        }
    }

    async fn section(&self, blobs: &BlobStore, section: &Section) -> Result<Source, Completion> {
        let path: Vec<u32> = section.part().numbers().collect();
        let range = |what| {
            if path.is_empty() && what == SectionText::Whole {
                return Some(0..self.meta.size);
            }
            message::resolve(self.structure.as_ref()?, &path, what)
        };
        let whole = |what| range(what).map_or(Source::Nothing, Source::Range);
        Ok(match section.kind() {
            SectionKind::Whole => whole(SectionText::Whole),
            SectionKind::Header => whole(SectionText::Header),
            SectionKind::Text => whole(SectionText::Text),
            SectionKind::Mime => whole(SectionText::Mime),
            SectionKind::HeaderFields(fields) | SectionKind::HeaderFieldsNot(fields) => {
                let selection = match section.kind() {
                    SectionKind::HeaderFields(_) => Selection::Only,
                    _ => Selection::Except,
                };
                if path.is_empty()
                    && let Some(bytes) = self.fields_of_record(fields, selection)
                {
                    return Ok(Source::Ready(bytes));
                }
                let Some(range) = self.header_range(&path)? else { return Ok(Source::Nothing) };
                let header = blobs
                    .read_to_vec(self.blob, capped(range), limits::HEADER_BYTES_MAX)
                    .await
                    .map_err(|error| errors::blob(&error))?;
                let names: Vec<&str> = fields.names().iter().map(String::as_str).collect();
                Source::Ready(message::select_fields(&header, selection, &names))
            }
        })
    }

    /// Where the header of a part is. Only now is the structure needed of a record that might
    /// have had the fields themselves.
    fn header_range(&self, path: &[u32]) -> Result<Option<std::ops::Range<u64>>, Completion> {
        let header = |structure: &Structure| message::resolve(structure, path, SectionText::Header);
        if let Some(structure) = &self.structure {
            return Ok(header(structure));
        }
        let meta = self.record.decode(STRUCTURE).map_err(|error| errors::store(&error))?;
        Ok(mail::structure(&meta).as_ref().and_then(header))
    }

    /// The fields, where the record has every one of them whole.
    fn fields_of_record(&self, fields: &HeaderFields, selection: Selection) -> Option<Vec<u8>> {
        if selection == Selection::Except || !self.meta.headers_whole {
            return None;
        }
        let mut bytes = Vec::new();
        for field in &self.meta.headers {
            if fields.names().iter().any(|name| name.eq_ignore_ascii_case(&field.name)) {
                bytes.extend_from_slice(field.raw.as_deref()?);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        Some(bytes)
    }

    fn binary(
        &self,
        part: &imap::command::PartPath,
        partial: Option<Partial>,
    ) -> Result<Source, Completion> {
        let slice = |total: u64| partial.map_or(0..total, |partial| partial.range(total));
        if part.is_empty() {
            return Ok(cut(Source::Range(0..self.meta.size), partial));
        }
        let path: Vec<u32> = part.numbers().collect();
        let found = self.structure.as_ref().and_then(|s| message::lookup(&s.root, &path));
        let Some(found) = found else { return Ok(Source::Nothing) };
        if TransferDecoder::new(&found.transfer_encoding).is_none() {
            let no = Completion::no("The part's transfer encoding is not known");
            return Err(no.with_code(ResponseCode::UnknownCte));
        }
        let encoding = found.transfer_encoding.clone();
        Ok(Source::Decoded(found.body.clone(), encoding, slice(found.decoded_size)))
    }

    /// BINARY.SIZE: the part's bytes once decoded.
    pub(super) fn binary_size(&self, part: &imap::command::PartPath) -> Option<u64> {
        if part.is_empty() {
            return Some(self.meta.size);
        }
        let path: Vec<u32> = part.numbers().collect();
        let found = message::lookup(&self.structure.as_ref()?.root, &path)?;
        Some(found.decoded_size)
    }
}

/// The bytes of a source, piece by piece.
pub(super) struct Pieces {
    reader: BlobReader,
    decoder: Option<Decoding>,
}

struct Decoding {
    decoder: Option<TransferDecoder>,
    /// Decoded bytes still to be passed over.
    skip: u64,
    /// Decoded bytes still to be sent.
    left: u64,
}

impl Pieces {
    pub(super) async fn open(
        blobs: &BlobStore,
        blob: BlobId,
        source: &Source,
    ) -> Result<Option<Self>, Completion> {
        let (range, decoder) = match source {
            Source::Range(range) => (range.clone(), None),
            Source::Decoded(range, encoding, slice) => {
                let decoding = Decoding {
                    decoder: TransferDecoder::new(encoding),
                    skip: slice.start,
                    left: slice.end - slice.start,
                };
                (range.clone(), Some(decoding))
            }
            Source::Ready(_) | Source::Nothing => return Ok(None),
        };
        let reader = blobs.read(blob, range).await.map_err(|error| errors::blob(&error))?;
        Ok(Some(Self { reader, decoder }))
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, blob::BlobError> {
        let Some(decoding) = &mut self.decoder else { return self.reader.next().await };
        while decoding.left > 0 {
            let mut decoded = Vec::new();
            match (self.reader.next().await?, &mut decoding.decoder) {
                (Some(bytes), Some(decoder)) => decoder.push(&bytes, &mut decoded),
                (None, decoder) => match decoder.take() {
                    Some(decoder) => {
                        // What is damaged has been decoded as far as it goes.
                        let _damage = decoder.finish(&mut decoded);
                    }
                    None => return Ok(None),
                },
                (Some(_), None) => return Ok(None),
            }
            let skip = decoding.skip.min(to_u64(decoded.len()));
            decoding.skip -= skip;
            let take = decoding.left.min(to_u64(decoded.len()) - skip);
            decoding.left -= take;
            if take > 0 {
                let start = usize::try_from(skip).expect("within a buffer");
                let end = usize::try_from(skip + take).expect("within a buffer");
                return Ok(Some(bytes::Bytes::from(decoded).slice(start..end)));
            }
        }
        Ok(None)
    }
}

pub(super) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a usize fits 64 bits")
}

fn capped(range: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let max = to_u64(limits::HEADER_BYTES_MAX);
    range.start..range.end.min(range.start + max)
}

fn cut(source: Source, partial: Option<Partial>) -> Source {
    let Some(partial) = partial else { return source };
    let slice = partial.range(source.len());
    match source {
        Source::Ready(bytes) => {
            let start = usize::try_from(slice.start).unwrap_or(bytes.len()).min(bytes.len());
            let end = usize::try_from(slice.end).unwrap_or(bytes.len()).clamp(start, bytes.len());
            Source::Ready(bytes[start..end].to_vec())
        }
        Source::Range(range) => Source::Range(range.start + slice.start..range.start + slice.end),
        other => other,
    }
}
