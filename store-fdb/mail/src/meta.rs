//! From a scanned message to the email's immutable record.

use std::sync::Arc;

use blob::BlobId;
use env::Timestamp;
use message::{Content, Scanned, Structure};
use prost::Message;

use crate::{
    KeywordSet, NewEmail,
    keys::{
        self,
        email::{Address, EmailMeta, Envelope, HeaderField, Param, Part},
    },
    limits,
};

/// Header fields that clients list mailboxes with; kept whole in the record. Trace, signature
/// and `X-` fields are not: they are long and rarely asked for.
const COMMON_FIELDS: [&str; 26] = [
    "bcc",
    "cc",
    "content-disposition",
    "content-language",
    "content-transfer-encoding",
    "content-type",
    "date",
    "delivered-to",
    "disposition-notification-to",
    "from",
    "importance",
    "in-reply-to",
    "list-id",
    "list-post",
    "list-unsubscribe",
    "mail-followup-to",
    "message-id",
    "mime-version",
    "priority",
    "references",
    "reply-to",
    "resent-message-id",
    "sender",
    "subject",
    "to",
    "x-priority",
];

impl NewEmail {
    /// From what the scanner saw of the message that is now blob `blob`.
    pub fn from_scan(
        blob: BlobId,
        scanned: &Scanned,
        received_at: Timestamp,
        keywords: KeywordSet,
    ) -> Self {
        let (thread_lookups, thread_keys) = thread_hashes(scanned);
        let mut meta = EmailMeta {
            blob: blob.to_bytes(),
            size: scanned.size,
            sent_seconds: scanned.sent_at,
            envelope: Some(envelope(&scanned.structure.envelope)),
            root: Some(part(&scanned.structure.root)),
            headers: headers(scanned),
            headers_whole: scanned.header_index.coverage == message::Coverage::Whole,
            preview: scanned.preview.clone(),
            has_attachment: scanned.has_attachment,
            thread_keys: thread_keys.clone(),
            ..EmailMeta::default()
        };
        shrink(&mut meta);
        Self {
            blob,
            size: scanned.size,
            received_at,
            keywords,
            deleted: false,
            meta: Arc::from(meta.encode_to_vec()),
            thread_lookups: Arc::from(thread_lookups),
            thread_keys: Arc::from(thread_keys),
        }
    }
}

/// Gives up detail until the record fits a value: raw fields, then field places, then parts.
fn shrink(meta: &mut EmailMeta) {
    if meta.encoded_len() > limits::META_BYTES_MAX {
        for field in &mut meta.headers {
            field.raw = None;
        }
    }
    if meta.encoded_len() > limits::META_BYTES_MAX {
        meta.headers.clear();
        meta.headers_whole = false;
    }
    if meta.encoded_len() > limits::META_BYTES_MAX
        && let Some(root) = &mut meta.root
    {
        *root = Part {
            media_type: "application".to_owned(),
            media_subtype: "octet-stream".to_owned(),
            encoding: "binary".to_owned(),
            header_begin: root.header_begin,
            body_begin: root.body_begin,
            body_end: root.body_end,
            lines: root.lines,
            decoded_size: root.decoded_size,
            ..Part::default()
        };
    }
    if meta.encoded_len() > limits::META_BYTES_MAX {
        meta.envelope = None;
    }
}

/// Hashes to look up, and hashes to write, most telling first.
fn thread_hashes(scanned: &Scanned) -> (Vec<u64>, Vec<u64>) {
    let threading = &scanned.threading;
    let hash = |id: &String| keys::thread::hash(id, &threading.base_subject);
    let own = threading.message_id.iter().map(hash);
    let newest_first = threading.references.iter().rev().map(hash);
    let oldest = threading.references.first().map(hash);
    let mut lookups = Vec::new();
    push_distinct(&mut lookups, own.clone(), limits::THREAD_LOOKUPS_MAX);
    push_distinct(&mut lookups, oldest.into_iter(), limits::THREAD_LOOKUPS_MAX);
    push_distinct(&mut lookups, newest_first.clone(), limits::THREAD_LOOKUPS_MAX);
    let mut written = Vec::new();
    push_distinct(&mut written, own, limits::THREAD_KEYS_MAX);
    push_distinct(&mut written, oldest.into_iter(), limits::THREAD_KEYS_MAX);
    push_distinct(&mut written, newest_first, limits::THREAD_KEYS_MAX);
    (lookups, written)
}

fn push_distinct(list: &mut Vec<u64>, hashes: impl Iterator<Item = u64>, max: usize) {
    for hash in hashes {
        if list.len() < max && !list.contains(&hash) {
            list.push(hash);
        }
    }
}

fn headers(scanned: &Scanned) -> Vec<HeaderField> {
    let mut budget = limits::META_HEADER_BYTES_MAX;
    let fields = scanned.header_index.fields.iter().map(|field| {
        let range = usize::try_from(field.offset).ok().zip(usize::try_from(field.len).ok());
        let raw = range.and_then(|(offset, len)| scanned.header_block.get(offset..offset + len));
        let common = COMMON_FIELDS.contains(&field.name.to_ascii_lowercase().as_str());
        let kept = raw.filter(|raw| common && raw.len() <= budget);
        budget -= kept.map_or(0, <[u8]>::len);
        HeaderField {
            name: field.name.clone(),
            offset: u32::try_from(field.offset).unwrap_or(u32::MAX),
            length: u32::try_from(field.len).unwrap_or(u32::MAX),
            raw: kept.map(<[u8]>::to_vec),
        }
    });
    fields.collect()
}

fn part(part: &message::Part) -> Part {
    let (children, inner) = match &part.content {
        Content::Leaf => (Vec::new(), None),
        Content::Multipart(parts) => (parts.iter().map(self::part).collect(), None),
        Content::Message(structure) => {
            let Structure { envelope, root } = &**structure;
            (vec![self::part(root)], Some(self::envelope(envelope)))
        }
    };
    Part {
        header_begin: part.header.start,
        body_begin: part.body.start,
        body_end: part.body.end,
        lines: part.lines,
        decoded_size: part.decoded_size,
        media_type: part.content_type.kind.clone(),
        media_subtype: part.content_type.subtype.clone(),
        params: params(&part.content_type.params),
        content_id: part.content_id.clone(),
        description: part.description.clone(),
        encoding: part.transfer_encoding.as_str().to_owned(),
        md5: part.md5.clone(),
        disposition: part.disposition.as_ref().map(|disposition| disposition.kind.clone()),
        disposition_params: part
            .disposition
            .as_ref()
            .map(|disposition| params(&disposition.params))
            .unwrap_or_default(),
        language: part.language.clone(),
        location: part.location.clone(),
        children,
        envelope: inner,
    }
}

fn params(list: &[message::Param]) -> Vec<Param> {
    list.iter()
        .map(|param| Param { name: param.name.clone(), value: param.value.clone() })
        .collect()
}

fn envelope(envelope: &message::Envelope) -> Envelope {
    let unless_from = |list: &[message::Address]| {
        if list == envelope.from { Vec::new() } else { addresses(list) }
    };
    Envelope {
        date: envelope.date.clone(),
        subject: envelope.subject.clone(),
        from: addresses(&envelope.from),
        sender: unless_from(&envelope.sender),
        reply_to: unless_from(&envelope.reply_to),
        to: addresses(&envelope.to),
        cc: addresses(&envelope.cc),
        bcc: addresses(&envelope.bcc),
        in_reply_to: envelope.in_reply_to.clone(),
        message_id: envelope.message_id.clone(),
    }
}

fn addresses(list: &[message::Address]) -> Vec<Address> {
    list.iter()
        .map(|address| Address {
            name: address.name.clone(),
            mailbox: address.mailbox.clone(),
            host: address.host.clone(),
        })
        .collect()
}

/// The message's structure, as the scanner saw it; `None` where the record has given it up to
/// fit its value.
pub fn structure(meta: &EmailMeta) -> Option<Structure> {
    Some(Structure {
        envelope: envelope_of(meta.envelope.as_ref()?),
        root: part_of(meta.root.as_ref()?)?,
    })
}

/// The message's envelope; `None` where the record has given it up to fit its value.
pub fn message_envelope(meta: &EmailMeta) -> Option<message::Envelope> {
    Some(envelope_of(meta.envelope.as_ref()?))
}

fn envelope_of(record: &Envelope) -> message::Envelope {
    let from = addresses_of(&record.from);
    let or_from = |list: &[Address]| {
        if list.is_empty() { from.clone() } else { addresses_of(list) }
    };
    message::Envelope {
        date: record.date.clone(),
        subject: record.subject.clone(),
        sender: or_from(&record.sender),
        reply_to: or_from(&record.reply_to),
        to: addresses_of(&record.to),
        cc: addresses_of(&record.cc),
        bcc: addresses_of(&record.bcc),
        in_reply_to: record.in_reply_to.clone(),
        message_id: record.message_id.clone(),
        from,
    }
}

fn addresses_of(list: &[Address]) -> Vec<message::Address> {
    list.iter()
        .map(|address| message::Address {
            name: address.name.clone(),
            mailbox: address.mailbox.clone(),
            host: address.host.clone(),
        })
        .collect()
}

fn part_of(record: &Part) -> Option<message::Part> {
    let content = match (&record.envelope, &record.children[..]) {
        (Some(envelope), [root]) => Content::Message(Box::new(Structure {
            envelope: envelope_of(envelope),
            root: part_of(root)?,
        })),
        (_, []) => Content::Leaf,
        (_, children) => Content::Multipart(children.iter().map(part_of).collect::<Option<_>>()?),
    };
    Some(message::Part {
        header: record.header_begin..record.body_begin,
        body: record.body_begin..record.body_end,
        lines: record.lines,
        decoded_size: record.decoded_size,
        content_type: message::ContentType {
            kind: record.media_type.clone(),
            subtype: record.media_subtype.clone(),
            params: params_of(&record.params),
        },
        transfer_encoding: encoding_of(&record.encoding),
        content_id: record.content_id.clone(),
        description: record.description.clone(),
        md5: record.md5.clone(),
        disposition: record.disposition.as_ref().map(|kind| message::Disposition {
            kind: kind.clone(),
            params: params_of(&record.disposition_params),
        }),
        language: record.language.clone(),
        location: record.location.clone(),
        header_coverage: message::Coverage::Truncated,
        content,
    })
}

fn params_of(list: &[Param]) -> Vec<message::Param> {
    list.iter()
        .map(|param| message::Param { name: param.name.clone(), value: param.value.clone() })
        .collect()
}

fn encoding_of(name: &str) -> message::TransferEncoding {
    use message::TransferEncoding as Encoding;
    let known = [
        Encoding::SevenBit,
        Encoding::EightBit,
        Encoding::Binary,
        Encoding::QuotedPrintable,
        Encoding::Base64,
    ];
    known
        .into_iter()
        .find(|encoding| encoding.as_str() == name)
        .unwrap_or_else(|| Encoding::Other(name.to_owned()))
}
