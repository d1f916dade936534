//! The text of a message that SEARCH looks through (RFC 9051 §6.4.4): decoded, in lower case.

use std::{borrow::Cow, ops::Range};

use blob::{BlobId, BlobStore};
use imap::Completion;
use mail::{MetaPart, MetaRecord};
use message::{Content, Part, TransferDecoder};

use crate::{
    imap::{
        errors,
        section::{Opened, to_u64},
    },
    limits,
};

/// A message's searchable text, lower case.
#[derive(Default)]
pub(super) struct Text {
    pub(super) header: String,
    pub(super) body: String,
    /// The header's fields, name and value.
    pub(super) fields: Vec<(String, String)>,
}

/// How much of a message is searched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The top-level header.
    Header,
    /// The header and all parts with text.
    Body,
}

impl Text {
    pub(super) async fn read(
        blobs: &BlobStore,
        record: &MetaRecord,
        extent: Extent,
    ) -> Result<Self, Completion> {
        let parts = [MetaPart::Blob, MetaPart::Envelope, MetaPart::Root];
        let opened = Opened::new(record, &parts)?;
        let Some(structure) = &opened.structure else { return Ok(Self::default()) };
        let header_end = structure.root.header.end.min(to_u64(limits::HEADER_BYTES_MAX));
        let end = match extent {
            Extent::Header => header_end,
            Extent::Body => structure.root.body.end,
        };
        let bytes = Searched::open(blobs, opened.blob, end).await?;
        let mut text = Self::default();
        text.add_header(&bytes.read(0..header_end).await?);
        if extent == Extent::Header {
            return Ok(text);
        }
        let mut left = limits::SEARCH_BODY_BYTES_MAX;
        let mut parts = Vec::new();
        text_parts(&structure.root, &mut parts);
        for part in parts {
            let end = part.body.end.min(part.body.start.saturating_add(left));
            left -= end - part.body.start;
            let bytes = bytes.read(part.body.start..end).await?;
            text.body.push_str(&lower_case(decode(part, &bytes)));
            text.body.push('\n');
        }
        Ok(text)
    }

    fn add_header(&mut self, header: &[u8]) {
        for field in message::Fields::new(header) {
            let name = lower_case(message::header_text(field.name));
            let value = message::decode_encoded_words(&message::unfold(field.value));
            let value = lower_case(value);
            for piece in [&name, ": ", &value, "\n"] {
                self.header.push_str(piece);
            }
            self.fields.push((name, value));
        }
    }
}

/// The bytes of a message that is searched.
struct Searched<'a> {
    blobs: &'a BlobStore,
    blob: BlobId,
    /// What was read at once: the first bytes of the message, as far as it is searched.
    start: Option<Vec<u8>>,
}

impl<'a> Searched<'a> {
    async fn open(blobs: &'a BlobStore, blob: BlobId, end: u64) -> Result<Self, Completion> {
        let mut searched = Self { blobs, blob, start: None };
        if end <= limits::SEARCH_WHOLE_BYTES_MAX {
            searched.start = Some(searched.read(0..end).await?.into_owned());
        }
        Ok(searched)
    }

    async fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Completion> {
        if let Some(start) = &self.start {
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(start.len());
            return Ok(Cow::Borrowed(&start[at(range.start).min(at(range.end))..at(range.end)]));
        }
        let max = usize::try_from(limits::SEARCH_BODY_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = self.blobs.read_to_vec(self.blob, range, max).await;
        bytes.map(Cow::Owned).map_err(|error| errors::blob(&error))
    }
}

/// Lower case, in place where that is the same.
fn lower_case(mut text: String) -> String {
    if !text.is_ascii() {
        return text.to_lowercase();
    }
    text.make_ascii_lowercase();
    text
}

/// The parts with text, in order.
fn text_parts<'a>(part: &'a Part, found: &mut Vec<&'a Part>) {
    match &part.content {
        Content::Leaf if part.content_type.kind == "text" => found.push(part),
        Content::Leaf => {}
        Content::Multipart(parts) => parts.iter().for_each(|part| text_parts(part, found)),
        Content::Message(structure) => text_parts(&structure.root, found),
    }
}

fn decode(part: &Part, bytes: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(bytes.len());
    match TransferDecoder::new(&part.transfer_encoding) {
        Some(mut decoder) => {
            decoder.push(bytes, &mut decoded);
            // What is damaged is searched as far as it goes.
            let _damage = decoder.finish(&mut decoded);
        }
        None => decoded.extend_from_slice(bytes),
    }
    message::charset_text(part.content_type.param("charset").unwrap_or("us-ascii"), &decoded)
}
