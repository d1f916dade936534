//! The load generator's bounds, each with its reason.

use std::time::Duration;

/// Bytes of a connection's read buffer: a large answer is skipped with few system calls.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of an idling connection's read buffer: ten thousand of them take 40 MB.
pub const IDLE_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes that are kept of the beginning of a line: a capability line fits.
pub const LINE_HEAD_BYTES: usize = 2 * 1024;

/// Bytes that are kept of the end of a line: the longest `{literal}` and its line end fit.
pub const LINE_TAIL_BYTES: usize = 32;

/// The longest line that a server may send: `* SEARCH` with eight million numbers.
pub const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Lines of one SMTP reply; EHLO's answers have about twenty.
pub const REPLY_LINES_MAX: usize = 128;

/// Untagged responses before a greeting's or a login's end: more is noise without an end.
pub const LOGIN_RESPONSES_MAX: usize = 1000;

/// Bytes of a message that are copied beside its envelope into one write; what is longer is
/// written from where it lies.
pub const COPIED_BYTES_MAX: usize = 128 * 1024;

/// Bytes of the largest message: what any server takes is far below.
pub const MESSAGE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes of the smallest message that can be made: its header alone takes so many.
pub const MESSAGE_BYTES_MIN: u64 = 400;

/// Messages of a folder.
pub const FOLDER_FILES_MAX: usize = 100_000;

/// Bytes of a folder's messages; all of them are held in memory.
pub const FOLDER_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// How deep a folder's folders are looked into.
pub const FOLDER_DEPTH_MAX: usize = 8;

/// Open connections: beyond, one address has no ports left.
pub const CONNECTIONS_MAX: i64 = 100_000;

/// Bytes of an error's text that are kept and shown.
pub const ERROR_TEXT_BYTES_MAX: usize = 200;

/// How often in a row a connection is tried before its worker gives up.
pub const OPEN_TRIES_MAX: u32 = 3;

/// The pause before the next try, so that a server that is down is not stormed.
pub const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Rounds of PBKDF2 that a server may ask of us: a hundred times of what is usual.
pub const SCRAM_ROUNDS_MAX: u32 = 2_000_000;

/// Salted passwords that are remembered: a user's is, once, unless the server changes its salts.
pub const SECRETS_MAX: usize = 100_000;

/// How long a farewell may take: nothing depends on it.
pub const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// How often the live line is written.
pub const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
