//! Every bound of this crate, each with its reason. Over a limit the client gets IMAP's own error.

use std::time::Duration;

/// One command with its literals, the message of APPEND not counted. Sequence sets and search
/// programs of real clients stay under 16 KiB; RFC 7162 §4 asks for 8,192 octets and more.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;

/// One command before login: room for an OAuth token as initial response, and no more for someone
/// we do not know.
pub const COMMAND_BYTES_PREAUTH_MAX: usize = 16 * 1024;

/// Bytes that a client may send and have thrown away behind a refused command, so that the refusal
/// can be answered instead of the connection being cut. After login, the limit of APPEND is added.
pub const DRAIN_BYTES_MAX: u64 = 256 * 1024;

/// Bytes held in the input buffer above which [`crate::Session::wants_input`] says no.
pub const INPUT_BYTES_HIGH: usize = COMMAND_BYTES_MAX + 16 * 1024;

/// Bytes waiting to be sent above which no further command is started.
pub const OUTPUT_BYTES_HIGH: usize = 64 * 1024;

/// Small responses are gathered into sends of about this size: one TLS record.
pub const SEND_BYTES: usize = 16 * 1024;

/// A piece of streamed literal at least this long is passed on without a copy.
pub const SEND_COPY_MAX: usize = 2 * 1024;

/// Largest piece of an appended message in one call.
pub const APPEND_CHUNK_MAX: usize = 64 * 1024;

/// Tag: clients use four to ten octets; a long one would be echoed in every reply.
pub const TAG_BYTES_MAX: usize = 128;

/// Name of a mailbox in UTF-8, over all its levels.
pub const MAILBOX_NAME_BYTES_MAX: usize = 1024;

/// A line in IDLE, where only `DONE` makes sense.
pub const IDLE_LINE_BYTES_MAX: usize = 1024;

/// Keyword: it is stored in every message that carries it.
pub const KEYWORD_BYTES_MAX: usize = 128;

/// Flags in one list of STORE or APPEND.
pub const FLAGS_MAX: usize = 128;

/// Patterns of one LIST: each is matched against every mailbox.
pub const LIST_PATTERNS_MAX: usize = 32;

/// Patterns of one LIST together, the reference counted with each: matching a mailbox costs its
/// name × this.
pub const LIST_PATTERN_BYTES_MAX: usize = 4 * MAILBOX_NAME_BYTES_MAX;

/// Depth of NOT, OR and parentheses in SEARCH: the parser and the evaluator recurse.
pub const SEARCH_DEPTH_MAX: usize = 32;

/// Keys of one SEARCH: each is evaluated on every message of the mailbox.
pub const SEARCH_KEYS_MAX: usize = 1024;

/// Attributes of one FETCH: each may be a part of the message to read.
pub const FETCH_ITEMS_MAX: usize = 128;

/// Header names in one section of FETCH.
pub const HEADER_FIELDS_MAX: usize = 256;

/// Depth of a part number such as `1.2.3`; no message is parsed deeper.
pub const PART_DEPTH_MAX: usize = 100;

/// Depth to which a body structure is written; deeper parts are written as plain octets.
pub const STRUCTURE_DEPTH_MAX: usize = 100;

/// RFC 2971 §3.3: no more than 30 field-value pairs.
pub const ID_FIELDS_MAX: usize = 30;

/// RFC 2971 §3.3: no value is longer than 1,024 octets.
pub const ID_VALUE_BYTES_MAX: usize = 1024;

/// Names in one ENABLE.
pub const ENABLE_NAMES_MAX: usize = 32;

/// Commands refused one after another before the connection is closed: this is not a mail client.
pub const BAD_COMMANDS_MAX: u32 = 50;

/// Failed logins before the connection is closed: guessing has to pay for new connections.
pub const AUTH_FAILURES_MAX: u32 = 5;

/// RFC 9051 §5.4: the inactivity timer is of at least 30 minutes once authenticated.
pub const AUTOLOGOUT: Duration = Duration::from_secs(30 * 60 + 30);

/// RFC 9051 §5.4: before login the time may be shorter; it is long enough to type a password, and
/// counts from the greeting or the TLS handshake on.
pub const PREAUTH_TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// Largest quoted string we write; longer ones go as literals, which no client has to scan.
pub const QUOTED_BYTES_MAX: usize = 2 * 1024;
