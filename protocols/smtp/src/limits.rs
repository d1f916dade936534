//! Every bound of this crate, each with its reason.
//!
//! Invariant: whatever a peer sends, a session holds at most [`BUFFERED_OCTETS_MAX`] octets.

use std::time::Duration;

/// A command line with its CRLF. RFC 5321 §4.5.3.1.4 asks for 512; MAIL and RCPT grow by the
/// parameters of SIZE (26), BODY (17), SMTPUTF8 (10), AUTH (500), DSN (500), REQUIRETLS (11),
/// MT-PRIORITY (15), BY (17) and HOLDUNTIL (34).
pub const COMMAND_LINE_OCTETS_MAX: usize = 2_048;

/// A line of an AUTH exchange with its CRLF. RFC 4954 §4 asks for 12,288.
pub const AUTH_LINE_OCTETS_MAX: usize = 12_288;

/// Input that waits to be processed: room for the longest line and a well-filled socket buffer.
pub const INPUT_OCTETS_MAX: usize = 64 * 1024;

/// Message content handed over in one call. Every chunk but a message's last has this size, so
/// that the store sees the same calls however the network cuts the stream.
pub const CONTENT_CHUNK_OCTETS: usize = 64 * 1024;

/// Replies are handed over once this many octets wait, even amid a pipelined batch.
pub const REPLY_BATCH_OCTETS: usize = 4 * 1024;

/// Once this much of replies waits for the driver, nothing further is processed until it is
/// taken: a few octets of input can earn a longer reply.
pub const REPLIES_OCTETS_MAX: usize = 32 * 1024;

/// What a session holds at most: its input, a content chunk, waiting replies, and the replies to
/// one LMTP message for up to 1,000 recipients.
pub const BUFFERED_OCTETS_MAX: usize =
    INPUT_OCTETS_MAX + CONTENT_CHUNK_OCTETS + REPLIES_OCTETS_MAX + 96 * 1024;

/// An idle session gives an input buffer above this capacity back.
pub(crate) const INPUT_CAPACITY_KEPT: usize = 4 * 1024;

/// A refused message is read to its end, so that the peer hears the refusal, but only up to this
/// multiple of the size limit; beyond it the peer is cut off.
pub const OVERSIZE_FACTOR: u64 = 2;

/// RFC 5321 §4.5.3.1.1.
pub const LOCAL_PART_OCTETS_MAX: usize = 64;

/// RFC 5321 §4.5.3.1.2.
pub const DOMAIN_OCTETS_MAX: usize = 255;

/// RFC 1035 §2.3.4.
pub const LABEL_CHARS_MAX: usize = 63;

/// RFC 5321 §4.5.3.1.3: a path has 256 octets, of which two are its brackets.
pub const ADDRESS_OCTETS_MAX: usize = 254;

/// The name a peer greets with; as long as a domain may be.
pub const HELO_OCTETS_MAX: usize = 255;

/// RFC 3461 §4.4: ENVID has at most 100 characters as sent.
pub const ENVID_CHARS_MAX: usize = 100;

/// RFC 3461 §4.2: ORCPT has at most 500 characters as sent.
pub const ORCPT_CHARS_MAX: usize = 500;

/// A queue id appears in a reply and in a header field; this keeps both lines short.
pub const QUEUE_ID_OCTETS_MAX: usize = 64;

/// RFC 2852 §4: BY has at most nine digits.
pub const DELIVER_BY_SECONDS_MAX: u32 = 999_999_999;

/// RFC 4865 §3: HOLDFOR has at most nine digits.
pub const HOLD_SECONDS_MAX: u32 = 999_999_999;

/// A line of a server's reply with its CRLF. RFC 5321 §4.5.3.1.5 has 512; some servers put long
/// explanations into one line.
pub const REPLY_LINE_OCTETS_MAX: usize = 4 * 1024;

/// A whole reply. EHLO's, the longest, has some 30 lines in practice.
pub const REPLY_OCTETS_MAX: usize = 16 * 1024;

/// Lines of a reply; each costs memory beyond its octets.
pub const REPLY_LINES_MAX: usize = 128;

/// What is kept of a reply's text: it is kept for each recipient.
pub const REPLY_TEXT_OCTETS_MAX: usize = 512;

/// Commands in flight. Their replies, of at most 512 octets each (RFC 5321 §4.5.3.1.5), fit a
/// socket's buffers: a server never waits for room while its client still writes (RFC 2920 §3.1).
pub const FLIGHT_COMMANDS_MAX: usize = 64;

/// A further flight goes out once so few commands are unanswered, so that few packets have many.
pub const FLIGHT_COMMANDS_LOW: usize = FLIGHT_COMMANDS_MAX / 2;

/// Chunks of BDAT in flight: 1 MiB, enough for a fast path with 100 ms of delay.
pub const CHUNKS_UNANSWERED_MAX: usize = 16;

/// RFC 4954 §4: an AUTH command with its initial response keeps to the length of any command.
pub const AUTH_COMMAND_OCTETS_MAX: usize = 512;

/// The limits a driver may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Message content in octets, announced by SIZE. At least 1: RFC 1870 reads 0 as no limit.
    pub message_octets_max: u64,
    /// Accepted recipients of one transaction. RFC 5321 §4.5.3.1.8 asks for at least 100.
    pub recipients_max: usize,
    /// Commands that the session itself refused (syntax, sequence, content) before it closes.
    pub errors_max: u32,
    /// Permanent refusals by the driver (unknown recipients, policy) since the last accepted
    /// message before the session closes: the price of harvesting addresses.
    pub refusals_max: u32,
    /// Failed authentications before the session closes: the price of guessing passwords.
    pub auth_failures_max: u32,
    /// Commands that carry no mail (NOOP, RSET, HELP, …) since the last accepted message before
    /// the session closes.
    pub idle_commands_max: u32,
    /// How long the peer may take for a whole command (RFC 5321 §4.5.3.2.7).
    pub command_timeout: Duration,
    /// How long the peer may be silent within message content (RFC 5321 §4.5.3.2.5).
    pub content_timeout: Duration,
    /// How long a session may last: the bound on a peer that drips octets.
    pub session_duration_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_octets_max: 50 * 1024 * 1024,
            recipients_max: 1_000,
            errors_max: 20,
            refusals_max: 100,
            auth_failures_max: 3,
            idle_commands_max: 100,
            command_timeout: Duration::from_secs(5 * 60),
            content_timeout: Duration::from_secs(5 * 60),
            session_duration_max: Duration::from_secs(60 * 60),
        }
    }
}
