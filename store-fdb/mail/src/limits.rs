//! Every bound of the mail store, in one place, each with its reason.

/// Mailboxes in one account. The tree is read whole for LIST, in one range read.
pub const MAILBOXES_MAX: usize = 10_000;

/// Levels of the mailbox hierarchy. Paths are walked level by level.
pub const MAILBOX_DEPTH_MAX: usize = 32;

/// Bytes of one mailbox name component, in UTF-8. Names stand in index keys.
pub const MAILBOX_NAME_BYTES_MAX: usize = 255;

/// Keywords on one email. Each costs bytes in state, log and views.
pub const KEYWORDS_PER_EMAIL_MAX: usize = 64;

/// Bytes of one keyword (RFC 8621 §4.1.1 allows up to 255).
pub const KEYWORD_BYTES_MAX: usize = 255;

/// Mailboxes that hold one email, so that a state record stays small.
pub const MEMBERSHIPS_PER_EMAIL_MAX: usize = 256;

/// Emails that one unit may touch: bounds a transaction's keys and its time.
pub const EMAILS_PER_UNIT_MAX: usize = 512;

/// Bytes of changes in one log entry: a value may hold 100,000. One email's change, with all its
/// keywords and memberships exchanged, stays under 50,000.
pub const LOG_ENTRY_BYTES_MAX: usize = 60_000;

/// Log entries that one transaction reads when a view catches up.
pub const LOG_ENTRIES_PER_READ: usize = 2_000;

/// Bytes of log entries that one transaction reads: what a session holds while it catches up.
pub const LOG_BYTES_PER_READ: usize = 4_000_000;

/// UIDs that one view page spans: few enough to load one for a handful of messages, enough that
/// a mailbox has few.
pub const UIDS_PER_PAGE: u32 = 2_048;

/// Log entries of an account after which its views' checkpoints are written again, so that the
/// tail that a SELECT reads stays short.
pub const LOG_TAIL_CHECKPOINT: usize = 1_024;

/// Bytes of one view page's record in one value; the rest goes into further values. Only a page
/// whose messages have very many different sets of keywords has more than one.
pub const PAGE_PART_BYTES: usize = 90_000;

/// Bytes of one view page's record. Beyond it the mailbox has no checkpoint, and its views are
/// built from the log or the states: slow for the one account that has such keywords.
pub const PAGE_BYTES_MAX: usize = 4_000_000;

/// Bytes of view pages that one checkpoint transaction writes; well under the transaction limit.
pub const CHECKPOINT_BYTES_MAX: usize = 2_000_000;

/// Bytes of one email's meta record. Larger ones lose their structure's detail.
pub const META_BYTES_MAX: usize = 90_000;

/// Bytes of raw common header fields kept in an email's meta record.
pub const META_HEADER_BYTES_MAX: usize = 8_192;

/// Message-ids looked up to find a new email's thread: its own, its parent, the newest
/// references and the oldest.
pub const THREAD_LOOKUPS_MAX: usize = 6;

/// Thread index keys written for one email.
pub const THREAD_KEYS_MAX: usize = 3;

/// Steps from an alias to an account. Also ends loops.
pub const ALIAS_DEPTH_MAX: usize = 10;

/// Addresses that one address may expand to.
pub const EXPANSION_MAX: usize = 1_000;

/// Members of one alias or group.
pub const GROUP_MEMBERS_MAX: usize = 1_000;

/// Bytes of the members of one alias or group: they are one value.
pub const GROUP_BYTES_MAX: usize = 90_000;

/// How long an operation id guards against a second run at least, in milliseconds of the units'
/// `now`. Longer than any retry loop and any client's wait; records are kept for two days.
pub const OPERATION_LIFE_MS: i64 = 3_600_000;

/// Emails that one transaction of an account's deletion lets go of. Their meta is read, which
/// may take 90 kB each.
pub const DELETED_EMAILS_PER_TRANSACTION: usize = 64;

/// Other rows that one transaction of an account's deletion clears.
pub const DELETED_ROWS_PER_TRANSACTION: usize = 1_000;

/// Rows that one step of a check reads at most, and at least: a step adapts between the two to
/// how fast the store answers.
pub const FSCK_ROWS_MAX: usize = 256;

/// See [`FSCK_ROWS_MAX`].
pub const FSCK_ROWS_MIN: usize = 8;

/// Bytes of values after which one step of a check reads no further page: far below what five
/// seconds bear on any engine.
pub const FSCK_BYTES_PER_STEP: usize = 1_000_000;

/// A step of a check that takes longer than this many milliseconds is followed by smaller ones: a
/// tenth of a transaction's life.
pub const FSCK_STEP_MS: u64 = 500;

/// How often one step of a check is tried before the store counts as unavailable.
pub const FSCK_TRIES_MAX: usize = 20;

/// Emails named by the log that one step of a check compares, each with one or two reads.
pub const FSCK_CHANGES_PER_STEP: usize = 512;

/// Log versions that one step of a check keeps at hand. Entries hold at most
/// [`LOG_ENTRY_BYTES_MAX`] each.
pub const FSCK_VERSIONS_HELD: usize = 32;

/// Blobs that a check asks for at once. Each holds a header, which is at most a window of 512 KiB.
pub const FSCK_BLOBS_AT_ONCE: usize = 16;

/// Places of emails in mailboxes that a check holds at once to find a UID that two emails have:
/// 12 bytes each, so 24 MB. An account with more is gone through in several passes.
pub const FSCK_PLACES_HELD_MAX: usize = 2_000_000;

/// Mailboxes whose totals a check sums up at once, those that do not exist included.
pub const FSCK_MAILBOXES_MAX: usize = 2 * MAILBOXES_MAX;

/// Rounds of reading the log that a check of the counters spends on catching up with an account
/// after it has read what was there when it began. Each round reads up to
/// [`FSCK_ROWS_MAX`] entries, so only an account with tens of thousands of changes a second stays
/// ahead.
pub const FSCK_ROUNDS_MAX: usize = 200;

/// How often a check of the counters begins anew before an account counts as busy: two sums have
/// to agree before a difference is told, and a log that is trimmed meanwhile spoils one.
pub const FSCK_SUMS_MAX: usize = 4;

/// Findings of one account, or of one phase, that are kept for repair and comparison; about 100
/// bytes each. Further ones are told and counted, and repaired in a further round.
pub const FSCK_FINDINGS_HELD_MAX: usize = 10_000;

/// Rounds of repairing and checking again of one account or phase.
pub const FSCK_REPAIRS_MAX: usize = 20;

/// How long a client may take to read what a check has to tell, in milliseconds; then the check
/// ends.
pub const FSCK_LISTENER_MS: u64 = 60_000;

/// Entries of an inbox that one transaction takes: about 60 bytes each.
pub const INBOX_ENTRIES_PER_READ: usize = 1_000;

/// Interests of a dead listener that one transaction forgets: two keys each.
pub const INTERESTS_PER_TRANSACTION: usize = 500;

/// Log entries that one transaction trims: a clear writes a mark for each on the local engines.
pub const LOG_TRIM_ENTRIES: usize = 2_000;

/// Records of operations that one transaction sweeps.
pub const OPERATIONS_PER_SWEEP: usize = 2_000;

/// How far a restore sets the clock of UIDVALIDITYs ahead, in seconds: beyond what any account of the
/// original can have been ahead of it by making mailboxes fast, and beyond what wall clocks differ
/// by. Twelve days, so that 32 bits have room for two thousand restores of restores.
pub const UID_VALIDITY_LEAP: u32 = 1 << 20;

/// Rows that one transaction reads, and mailboxes that it rewrites, while UIDVALIDITYs are renewed.
pub const RENEWED_ROWS_PER_TRANSACTION: usize = 256;
