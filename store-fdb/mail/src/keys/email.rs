//! Emails: what never changes, and what does.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (EmailMeta, A, E) | [`EmailMeta`] | written once at append, never rewritten; a second email over the same bytes has a copy; cleared when the last mailbox lets go |
//! | (EmailState, A, E) | versionstamp (10 B) then [`EmailState`] | rewritten by every change; the stamp's first 8 bytes are the MODSEQ |

use kv::{Subspace, Versionstamp, tuple::pack};

use crate::{AccountId, EmailId, StoreError};

/// Bytes of the versionstamp that a state begins with.
const STAMP_BYTES: usize = 10;

/// The immutable part. FETCH of envelope and structure reads this and no blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EmailMeta {
    /// [`blob::BlobId`] of the message.
    #[prost(bytes = "vec", tag = "1")]
    pub blob: Vec<u8>,
    /// Bytes of the message.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// IMAP's INTERNALDATE, JMAP's receivedAt: ms since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub received_ms: i64,
    /// The Date field: seconds since the Unix epoch.
    #[prost(int64, optional, tag = "4")]
    pub sent_seconds: Option<i64>,
    /// RFC 9051 §2.3.5.
    #[prost(message, optional, tag = "5")]
    pub envelope: Option<Envelope>,
    /// The root of the MIME tree.
    #[prost(message, optional, tag = "6")]
    pub root: Option<Part>,
    /// The top-level header's fields in order.
    #[prost(message, repeated, tag = "7")]
    pub headers: Vec<HeaderField>,
    /// RFC 8621 §4.1.4.
    #[prost(string, tag = "8")]
    pub preview: String,
    /// RFC 8621 §4.1.4.
    #[prost(bool, tag = "9")]
    pub has_attachment: bool,
    /// Hashes of the thread keys that this email wrote, to be cleared with it.
    #[prost(fixed64, repeated, tag = "10")]
    pub thread_keys: Vec<u64>,
    /// `headers` has all of the header's fields.
    #[prost(bool, tag = "11")]
    pub headers_whole: bool,
    /// The thread. Last, because it alone differs between the recipients of one message.
    #[prost(uint32, tag = "15")]
    pub thread: u32,
}

/// RFC 9051 §2.3.5: the envelope's fields as they stand in the header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// The Date field.
    #[prost(string, optional, tag = "1")]
    pub date: Option<String>,
    /// The Subject field, encoded words not decoded.
    #[prost(string, optional, tag = "2")]
    pub subject: Option<String>,
    /// From.
    #[prost(message, repeated, tag = "3")]
    pub from: Vec<Address>,
    /// Sender; empty where it is the same as From.
    #[prost(message, repeated, tag = "4")]
    pub sender: Vec<Address>,
    /// Reply-To; empty where it is the same as From.
    #[prost(message, repeated, tag = "5")]
    pub reply_to: Vec<Address>,
    /// To.
    #[prost(message, repeated, tag = "6")]
    pub to: Vec<Address>,
    /// Cc.
    #[prost(message, repeated, tag = "7")]
    pub cc: Vec<Address>,
    /// Bcc.
    #[prost(message, repeated, tag = "8")]
    pub bcc: Vec<Address>,
    /// In-Reply-To.
    #[prost(string, optional, tag = "9")]
    pub in_reply_to: Option<String>,
    /// Message-ID.
    #[prost(string, optional, tag = "10")]
    pub message_id: Option<String>,
}

/// An address of the envelope; group markers have no host.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// The display name, encoded words not decoded.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The local part, or a group's name.
    #[prost(string, optional, tag = "2")]
    pub mailbox: Option<String>,
    /// The domain.
    #[prost(string, optional, tag = "3")]
    pub host: Option<String>,
}

/// One part of the MIME tree, with its place in the message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Part {
    /// Where its header begins.
    #[prost(uint64, tag = "1")]
    pub header_begin: u64,
    /// Where its body begins.
    #[prost(uint64, tag = "2")]
    pub body_begin: u64,
    /// Where its body ends.
    #[prost(uint64, tag = "3")]
    pub body_end: u64,
    /// Lines of the body.
    #[prost(uint64, tag = "4")]
    pub lines: u64,
    /// Content-Type's type.
    #[prost(string, tag = "5")]
    pub media_type: String,
    /// Content-Type's subtype.
    #[prost(string, tag = "6")]
    pub media_subtype: String,
    /// Content-Type's parameters.
    #[prost(message, repeated, tag = "7")]
    pub params: Vec<Param>,
    /// Content-ID.
    #[prost(string, optional, tag = "8")]
    pub content_id: Option<String>,
    /// Content-Description.
    #[prost(string, optional, tag = "9")]
    pub description: Option<String>,
    /// Content-Transfer-Encoding as it stands.
    #[prost(string, tag = "10")]
    pub encoding: String,
    /// Content-MD5.
    #[prost(string, optional, tag = "11")]
    pub md5: Option<String>,
    /// Content-Disposition's type.
    #[prost(string, optional, tag = "12")]
    pub disposition: Option<String>,
    /// Content-Disposition's parameters.
    #[prost(message, repeated, tag = "13")]
    pub disposition_params: Vec<Param>,
    /// Content-Language.
    #[prost(string, repeated, tag = "14")]
    pub language: Vec<String>,
    /// Content-Location.
    #[prost(string, optional, tag = "15")]
    pub location: Option<String>,
    /// The parts of a multipart, or the one message in a message/rfc822.
    #[prost(message, repeated, tag = "16")]
    pub children: Vec<Part>,
    /// The envelope of a message/rfc822's message.
    #[prost(message, optional, tag = "17")]
    pub envelope: Option<Envelope>,
    /// Bytes of the body without its transfer encoding.
    #[prost(uint64, tag = "18")]
    pub decoded_size: u64,
}

/// A parameter of Content-Type or Content-Disposition.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Param {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Decoded.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// One field of the top-level header.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeaderField {
    /// As written.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Offset of its first byte in the message.
    #[prost(uint32, tag = "2")]
    pub offset: u32,
    /// Bytes with the line end.
    #[prost(uint32, tag = "3")]
    pub length: u32,
    /// The whole field, for the fields that clients list mailboxes with.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub raw: Option<Vec<u8>>,
}

/// The mutable part: small and hot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EmailState {
    /// Where it is. Empty: the email does not exist.
    #[prost(message, repeated, tag = "1")]
    pub memberships: Vec<Membership>,
    /// Sorted keywords.
    #[prost(string, repeated, tag = "2")]
    pub keywords: Vec<String>,
    /// The thread.
    #[prost(uint32, tag = "3")]
    pub thread: u32,
    /// Bytes of the message.
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// INTERNALDATE, ms since the Unix epoch.
    #[prost(int64, tag = "5")]
    pub received_ms: i64,
}

/// An email's place in one mailbox.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Membership {
    /// The mailbox.
    #[prost(uint32, tag = "1")]
    pub mailbox: u32,
    /// Its UID there.
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    /// IMAP's `\Deleted`, which belongs to this place alone.
    #[prost(bool, tag = "3")]
    pub deleted: bool,
}

/// (EmailMeta, A, E)
pub fn meta_key(account: AccountId, email: EmailId) -> Vec<u8> {
    pack(&(Subspace::EmailMeta as u64, account.0, email.0))
}

/// All of (EmailMeta, A, …)
pub fn meta_range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::EmailMeta as u64, account.0)))
}

/// (EmailState, A, E)
pub fn state_key(account: AccountId, email: EmailId) -> Vec<u8> {
    pack(&(Subspace::EmailState as u64, account.0, email.0))
}

/// All of (EmailState, A, …)
pub fn state_range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(pack(&(Subspace::EmailState as u64, account.0)))
}

/// The email of a [`meta_key`] or [`state_key`].
pub fn email_of(key: &[u8]) -> Option<EmailId> {
    let (_, _, email): (u64, u64, u32) = kv::tuple::unpack(key).ok()?;
    Some(EmailId(email))
}

/// Splits a state value into its stamp and its record.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn decode_state(value: &[u8]) -> Result<(Versionstamp, EmailState), StoreError> {
    let (stamp, record) = value
        .split_first_chunk::<STAMP_BYTES>()
        .ok_or_else(|| StoreError::damaged("email state", "shorter than its stamp"))?;
    Ok((Versionstamp::from_bytes(*stamp), super::decode("email state", record)?))
}

/// The fields of a state value that this release does not know; `state` is what it decodes to.
pub fn newer_fields(state: &EmailState, value: &[u8]) -> Vec<u8> {
    let record = value.get(STAMP_BYTES..).unwrap_or_default();
    // Every field is written in its shortest form, so one more makes the record longer: mostly this
    // is all that is looked at.
    match prost::Message::encoded_len(state) == record.len() {
        true => Vec::new(),
        false => super::unknown_fields::<EmailState>(record),
    }
}

/// A state value for `SET_VERSIONSTAMPED_VALUE`: the stamp's place, the record with the
/// [fields](newer_fields) of a newer release that it is written over, and the stamp's offset.
pub fn encode_state(state: &EmailState, newer: &[u8]) -> Vec<u8> {
    let mut record = prost::Message::encode_to_vec(state);
    record.extend_from_slice(newer);
    stamped(record)
}

/// `record` behind ten bytes that the commit fills with its versionstamp.
pub(crate) fn stamped(record: Vec<u8>) -> Vec<u8> {
    let mut value = vec![0xff; STAMP_BYTES];
    value.extend_from_slice(&record);
    value.extend_from_slice(&0_u32.to_le_bytes());
    value
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn what_a_newer_release_wrote_into_a_state_survives_a_rewrite() {
        let place = Membership { mailbox: 1, uid: 7, deleted: false };
        let held = EmailState {
            memberships: vec![place, Membership::default()],
            keywords: vec!["$seen".to_owned(), String::new()],
            thread: 3,
            size: 0,
            received_ms: -1,
        };
        let value = [&[0; STAMP_BYTES][..], &held.encode_to_vec()].concat();
        assert!(newer_fields(&held, &value).is_empty(), "of this release nothing is unknown");
        // Field 1000, a number; field 1001, a text.
        let newer = [&[0xc0, 0x3e, 0x07][..], &[0xca, 0x3e, 0x01, b'x'][..]].concat();
        let value = [&value[..], &newer].concat();
        let (_, read) = decode_state(&value).unwrap();
        assert_eq!((&read, newer_fields(&read, &value)), (&held, newer.clone()));
        let changed = EmailState { keywords: Vec::new(), ..held };
        let written = encode_state(&changed, &newer);
        let record = &written[STAMP_BYTES..written.len() - 4];
        assert_eq!(record, [&changed.encode_to_vec()[..], &newer].concat());
    }
}
