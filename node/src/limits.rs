//! A node's bounds, each with its reason. What an operator may change is in [`crate::config`].

use std::time::Duration;

/// Requests that share one delivery transaction: 64 keep it far below the size limit, and a
/// batch is over soon enough for the next.
pub const REQUESTS_PER_TRANSACTION_MAX: usize = 64;

/// Appends in one delivery transaction; each writes about 13 keys and up to 90 kB of meta.
pub const APPENDS_PER_TRANSACTION_MAX: usize = 100;

/// Delivery transactions of many accounts at once, where accounts share them: while one waits for
/// the store's disks the next is made ready. More of them would each have less to commit.
pub const DELIVERY_LANES: usize = 2;

/// Bytes of a socket read; one lies in memory a session while it is busy.
pub const READ_BYTES: usize = 16 * 1024;

/// Bytes that wait to be written to a slow client before its session stops producing more.
pub const WRITE_BACKLOG_BYTES: usize = 256 * 1024;

/// Pieces that one write takes together: a bound for what lies on the stack, and beyond what
/// [`WRITE_BACKLOG_BYTES`] of ordinary messages come to.
pub const WRITE_PIECES: usize = 64;

/// How long a write to a client may make no progress.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(300);

/// Emails that one COPY, MOVE or EXPUNGE transaction changes.
pub const EMAILS_PER_TRANSACTION: usize = 200;

/// Emails that one STORE transaction changes: more, for each costs one key and a place in the log,
/// and each transaction waits for the disk once. At most what the mail store allows.
pub const EMAILS_PER_STORE: usize = 500;

/// Transactions of one STORE that are under way at once: one is made ready while the other waits
/// for the disk.
pub const STORES_AT_ONCE: usize = 2;

/// Bytes of a message's header that are held back until it is known which fields to add.
pub const HEADER_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one body that SEARCH BODY and TEXT look through; what lies behind is not searched.
pub const SEARCH_BODY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Messages up to this are read once for a search, header and parts together: a blob of one chunk
/// is read and checked whole whatever is asked for of it.
pub const SEARCH_WHOLE_BYTES_MAX: u64 = 128 * 1024;

/// How often an idling session looks at the log even where no wake-up came.
pub const IDLE_POLL: Duration = Duration::from_secs(30);

/// How long a client that begins to wait for changes waits until they are heard from other nodes.
pub const INTEREST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a node that ends takes at most to give back what it has claimed: within
/// [`CLOSE_RESERVE`], with time left for closing the store.
pub const LEAVE_RESERVE: Duration = Duration::from_secs(1);

/// How often bytes that have come due are looked for.
pub const BLOB_SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// How long a node that has just registered may take to be known to the mesh of the one that asks.
pub const FLEET_PATIENCE: Duration = Duration::from_secs(2);

/// Between two tries to reach it.
pub const FLEET_PAUSE: Duration = Duration::from_millis(50);

/// Shares of the accounts that nodes may walk over at once.
pub const ACCOUNT_SHARES: u64 = 8;

/// How often each account is visited.
pub const ACCOUNT_WALK_INTERVAL: Duration = Duration::from_hours(24);

/// How long a walk over accounts goes on before how far it has come is noted.
pub const ACCOUNT_WALK_TURN: Duration = Duration::from_secs(2);

/// Accounts whose ids are read at once.
pub const ACCOUNTS_PER_READ: usize = 1_000;

/// For how long a change can be told to a client that comes back (QRESYNC, later JMAP), in versions
/// of the store, of which there are about a million a second: 30 days. Beyond, clients compare
/// what they have with what there is.
pub const LOG_LIFE_VERSIONS: u64 = 30 * 86_400 * 1_000_000;

/// Accounts whose checkpoints a node writes at once: each may load views of all its mailboxes.
pub const CHECKPOINTS_AT_ONCE: usize = 4;

/// Bytes of a password that an administrator may set at least (NIST SP 800-63B §5.1.1.1).
pub const PASSWORD_BYTES_MIN: usize = 8;

/// Bytes of an account's description: it is shown in lists.
pub const DESCRIPTION_BYTES_MAX: usize = 255;

/// Rows of one page of an administrative list.
pub const ADMIN_PAGE_ROWS_MAX: usize = 1000;

/// Open HTTP connections; scrapers, health checks and administrators need few.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// Bytes of an HTTP request's head.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Fields of an HTTP request's head.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Bytes of an HTTP request's body: a group with a thousand members fits.
pub const HTTP_BODY_BYTES_MAX: usize = 512 * 1024;

/// How long an HTTP client may take for a request's head, and may idle between two.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an HTTP request may take, its body included. A removal of a large account that
/// takes longer goes on when it is asked for again.
pub const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a closing handshake may take.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an HTTP connection lives before it is closed after the request in hand; a client
/// that wants more opens another.
pub const HTTP_CONNECTION_TIME: Duration = Duration::from_secs(600);

/// Clients that are being told that there is no room, at once, on one listener.
pub const REFUSALS_MAX: usize = 100;

/// Pause after a failed accept: the usual cause, no descriptors left, passes by itself.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often what is swept from time to time is swept.
pub const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(3600);

/// `Received` fields of a message that has gone round in circles (RFC 5321 §6.3 asks for at least
/// 100).
pub const RECEIVED_FIELDS_MAX: usize = 100;

/// Bytes of a message's header that a failure report returns: enough to recognize it by.
pub const REPORTED_HEADER_BYTES_MAX: usize = 64 * 1024;

/// Accounts and remote addresses that the recipients of one message expand to together, each
/// recipient's counted. One group may be as large as the directory lets it.
pub const ENVELOPE_DESTINATIONS_MAX: usize = 1000;

/// Bytes of one message's remote recipients: those of one domain are one value of the queue,
/// which may hold 100,000.
pub const REMOTE_RECIPIENT_BYTES_MAX: usize = 90_000;

/// Bytes around a recipient in the queue's record, rounded up: those of what its last try came to, too.
pub const REMOTE_RECIPIENT_FRAMING_BYTES: usize = 32;

/// Bytes of one message's item for one domain, with what the last try came to for each recipient. The rest
/// of the 100,000 that a value may have is for fields of a newer release.
pub const OUTBOUND_ITEM_BYTES_MAX: usize = 96_000;

/// What of the shutdown time is left to the store's own end, after the sessions'.
pub const CLOSE_RESERVE: Duration = Duration::from_secs(2);

/// Lines of a check that may wait for a client to read them, about 300 bytes each.
pub const FSCK_LINES_MAX: usize = 64;

/// Files in the cache of S3 objects, about 150 bytes of memory each.
pub const BLOB_CACHE_FILES_MAX: usize = 200_000;

/// Requests to S3 under way at once; each holds up to one part of 5 MiB, most of them far less.
pub const S3_REQUESTS_MAX: usize = 128;

/// Pieces of a backup, of about 256 KiB, that may wait for a client to read them.
pub const BACKUP_CHUNKS_MAX: usize = 2;

/// How long a backup waits for its client to read: a disk may be slow, but a backup that stands
/// still holds memory.
pub const BACKUP_CLIENT_TIME: Duration = Duration::from_secs(60);

/// How often a check tells how far it is: often enough for a person to see it move.
pub const FSCK_PROGRESS_PERIOD: Duration = Duration::from_millis(250);

/// Submissions that a check of the queue holds at once, 48 bytes each. With more, what is beyond
/// is not compared with its items, and the check says so.
pub const FSCK_SUBMISSIONS_MAX: usize = 1_000_000;

/// Findings about the queue that a check holds to mend them, at most 10 kB each and mostly 100
/// bytes. Further ones are told and counted, and mended in a further round.
pub const FSCK_QUEUE_HELD_MAX: usize = 1_000;

/// Rows of the queue that one transaction of a check reads; records and items are small.
pub const FSCK_QUEUE_ROWS: usize = 100;

/// Bytes of memory that the list of sessions costs for one of them: there may be 100,000.
pub const SESSION_RECORD_BYTES_MAX: usize = 200;

/// How long a session that an administrator ends may take over its goodbye, and over what it has
/// in hand, before it is cut off.
pub const SESSION_GOODBYE_TIME: Duration = Duration::from_secs(10);

/// How often a node counts its sessions and claims for its heartbeat.
pub const LOAD_PERIOD: Duration = Duration::from_secs(1);

/// Keys that a count of work goes through before it says "at least": a second's worth.
pub const WORK_COUNT_MAX: u64 = 10_000;

/// The same where the count is one of many, or is made every second.
pub const WORK_GLANCE_MAX: u64 = 1_000;

/// Zones on one page: the items of each are counted.
pub const WORK_ZONES_PER_PAGE: usize = 100;

/// Failing items that are shown of a kind: those that failed most often.
pub const WORK_WORST_MAX: usize = 5;

/// How late work may be before it is called late: a walk over all accounts makes its own next
/// step wait for minutes.
pub const WORK_LATE: Duration = Duration::from_mins(5);

/// Failures of one item that are worth a word: with doubling delays, a minute of them.
pub const WORK_FAILURES_NOTED: u32 = 5;

/// Nodes that a status shows.
pub const STATUS_NODES_MAX: usize = 1_000;

/// How long the store or the blobs may take for a probe before they count as failing.
pub const PROBE_TIME: Duration = Duration::from_secs(5);

/// Probes of which the quickest counts: one slow answer is no slow store.
pub const PROBES: usize = 3;

/// A store whose quickest read takes longer is slow: a login makes several.
pub const STORE_READ_SLOW: Duration = Duration::from_millis(250);

/// A store whose quickest commit takes longer is slow: a delivery waits for one.
pub const STORE_COMMIT_SLOW: Duration = Duration::from_secs(1);

/// A blob store whose quickest answer takes longer is slow.
pub const BLOBS_SLOW: Duration = Duration::from_secs(2);

/// Differences between two nodes' clocks that are worth a word. References to blobs tolerate
/// hours; people who compare logs do not.
pub const CLOCKS_APART: Duration = Duration::from_secs(2);

/// How long what an ended epoch held may stay unsettled: the others see it within a second.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Heartbeats' periods between a doctor's two looks: in between, everyone has shown a sign.
pub const DOCTOR_BEATS: u32 = 3;

/// The longest time between a doctor's two looks: a request for it has an end.
pub const DOCTOR_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Listeners without a node that a doctor counts; the check of the store finds all.
pub const DOCTOR_LISTENERS_MAX: usize = 1_000;

/// Damages of the nodes' records that a check holds at once, about 100 bytes each; beyond, it says
/// that there may be more.
pub const FSCK_CLUSTER_DAMAGES_MAX: usize = 10_000;

/// Between two tries to reach a store that is away when the node starts; each try takes ten seconds.
pub const STORE_WAIT_PAUSE: Duration = Duration::from_secs(1);

/// How often a node that waits for its store says so again.
pub const STORE_WAIT_TOLD: Duration = Duration::from_mins(5);

/// How long somebody who waits for an answer waits for the store at most: whoever sends mail is told
/// to come again while it still listens, and a connection that waits holds memory. A recovery of
/// FoundationDB takes less.
pub const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// How long one step of writing a message's bytes may take: a piece on its way to the blob store, or
/// the end. A sender waits three minutes for a piece to be taken (RFC 5321 §4.5.3.2.5) and ten for
/// the answer to the final dot (§4.5.3.2.6); a service that sheds load is well again sooner.
pub const BLOB_PATIENCE: Duration = Duration::from_secs(60);

/// A certificate that expires sooner is worth a word: authorities that issue for 90 days want it
/// renewed a month before, so something has failed for two weeks.
pub const CERTIFICATE_EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);

/// Bytes of a certificate's name: those of the longest host's.
pub const CERTIFICATE_NAME_BYTES_MAX: usize = 253;

/// Lines of the log that are kept in memory: a quarter of an hour of a busy node.
pub const LOG_RING_LINES_MAX: usize = 10_000;

/// Bytes of the lines that are kept: those above at their usual length.
pub const LOG_RING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one line; what a client can put into one is less.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;

/// About the bytes of lines that are sent together: with one line more, and every character of them
/// escaped, they fit a frame of the mesh.
pub const LOG_BATCH_BYTES: usize = 12 * 1024;

/// Readers of one process's log: administrators and their tools. Each is a stream of the mesh, of
/// which a peer may open 32.
pub const LOG_READERS_MAX: usize = 8;

/// How long lines are gathered before they are sent on to a reader who has read all: sending may
/// make lines itself.
pub const LOG_GATHER: Duration = Duration::from_millis(50);

/// How often whoever follows logs looks for nodes that have come.
pub const LOG_ROSTER_PERIOD: Duration = Duration::from_secs(1);

/// How often a log that says nothing is shown to be followed all the same: its client would hang
/// up after a minute.
pub const LOG_PULSE: Duration = Duration::from_secs(15);

/// Batches of lines that wait for a client to read them.
pub const LOG_BATCHES_MAX: usize = 16;

// ---- Sending -----------------------------------------------------------------------------------

/// Recipients of one message in one transaction: what every server takes (RFC 5321 §4.5.3.1.8).
pub const OUTBOUND_RECIPIENTS_MAX: usize = 100;

/// Servers of a domain that are tried: more would be tried for longer than a message should wait.
pub const ROUTE_HOSTS_MAX: usize = 10;

/// Addresses of one server that are tried.
pub const HOST_ADDRESSES_MAX: usize = 8;

/// Connections that one message's try attempts before it is put off.
pub const CONNECT_TRIES_MAX: usize = 10;

/// Servers that one message is offered to in one try, where each puts it off or cannot carry it: each may
/// take minutes for it, in which the domain's other messages wait for the place.
pub const HOSTS_OFFERED_MAX: usize = 3;

/// Names of the cluster's nodes that a turn at a domain knows as its own: a cluster has fewer.
pub const OWN_NODES_MAX: usize = 1_000;

/// How long a server may take to accept a connection: a lost packet is sent again several times.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long servers of a domain are called, one after the other. A connection that stands has its own time
/// for the greeting, which is as long (RFC 5321 §4.5.3.2.1), beside those that are called after it: so a
/// message does not wait for each of ten that say nothing.
pub const REACH_TIME_MAX: Duration = Duration::from_mins(5);

/// How long a server may take for its side of a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may take nothing of what is sent to it (RFC 5321 §4.5.3.2.5).
pub const SEND_TIMEOUT: Duration = Duration::from_secs(180);

/// When a domain comes again whose turn could not be begun or ended: what waits for it has no time of
/// its own at which it is tried.
pub const LANE_FAILED_PAUSE: Duration = Duration::from_secs(10);

/// How often a turn reads its domain's messages from the begin, where urgent ones go that have come
/// meanwhile: often beside how long people wait, seldom beside how often it reads.
pub const LOOK_BACK_PERIOD: Duration = Duration::from_secs(1);

/// How long who is owed a report waits where it cannot be written: the bytes that it quotes, or the place
/// for its own, are away.
pub const REPORT_RETRY: Duration = Duration::from_mins(1);

/// What is put off is put off by so long at least, so that nothing goes round at once.
pub const PUT_OFF_MIN: Duration = Duration::from_millis(500);

/// By how long an item of the queue is put off that cannot be read: nothing but people, or another
/// release, can help it, and until then it costs a look a day.
pub const DAMAGED_PUT_OFF: Duration = Duration::from_hours(24);

/// Bytes of a message that go back with a report: more would cost the sender's quota more than it
/// tells.
pub const RETURNED_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of a header that go back with a report.
pub const RETURNED_HEADER_BYTES_MAX: u64 = 64 * 1024;

// ---- Steering the queue ------------------------------------------------------------------------

/// How much earlier a step of priority makes a message due (RFC 6710 has nine): all nine stay below
/// what is called late work.
pub const PRIORITY_STEP_MS: i64 = 30_000;

/// How much later a step below 0 does: a message waits for no more than a minute where nothing else
/// does.
pub const PRIORITY_STEP_DOWN_MS: i64 = 5_000;

/// The least time in which a message is delivered or returned (RFC 2852): the queue looks once a
/// second for what is due.
pub const DELIVER_BY_SECONDS_MIN: u32 = 2;

/// Orders that are read at once: as many items' ids are looked for together.
pub const ORDERS_PER_READ: usize = 500;

/// Items that one transaction moves or removes: a removal touches some ten keys.
pub const ORDERED_PER_TRANSACTION: usize = 100;

/// Domains whose next slot a node remembers where their rate is bounded: beyond it, a domain may get
/// one message early.
pub const PACED_DOMAINS_MAX: usize = 10_000;

/// How long a wait for a domain's next slot goes on without a look at whether the node stops.
pub const PACE_STEP: Duration = Duration::from_millis(250);

/// Messages without a refusal after which one more may be on its way to a domain that had refused
/// some for now.
pub const WIDTH_REGAINED_AFTER: u32 = 10;

/// Rows of the queue that one request reads: about a second's work, so that it ends in time; the
/// next request goes on.
pub const QUEUE_ROWS_PER_REQUEST: usize = 20_000;

/// Items that are read in search of one message's shares, in all domains together.
pub const QUEUE_SEARCH_ROWS_MAX: usize = 200_000;

/// Orders that one request gives; the next goes on.
pub const QUEUE_ORDERS_PER_REQUEST: usize = 1_000;

/// Orders that one transaction gives: five keys each at most.
pub const QUEUE_ORDERS_PER_TRANSACTION: usize = 100;

/// Items of one domain that are counted: beyond, the count says so and goes to the next.
pub const QUEUE_COUNT_PER_DOMAIN_MAX: u64 = 50_000;

/// Items that are counted in all: a few seconds' work.
pub const QUEUE_COUNT_MAX: u64 = 500_000;

/// Domains that a count of the queue tells of by name.
pub const QUEUE_DOMAINS_TOLD_MAX: usize = 1_000;

/// Domains with records of their own that are looked through for those that are held.
pub const QUEUE_HELD_DOMAINS_ROWS: usize = 10_000;
/// How long a web server may take to answer with a policy or to take a report (RFC 8461 §3.3).
pub const HTTPS_TIMEOUT: Duration = Duration::from_mins(1);

/// Addresses of one web server that are tried within that time.
pub const HTTPS_ADDRESSES_MAX: usize = 4;

/// Bytes of a domain's TLS policy (RFC 8461 §3.2).
pub const STS_POLICY_BYTES_MAX: usize = 64 * 1024;

/// Patterns of mail servers in a TLS policy: with all names at their longest they fit a value of the
/// store.
pub const STS_PATTERNS_MAX: usize = 100;

/// The longest time that a TLS policy holds without being fetched again (RFC 8461 §3.2).
pub const STS_AGE_MAX: Duration = Duration::from_secs(31_557_600);

/// How long a TLS policy is believed before it is fetched again, whether or not it is said to have
/// changed: long before it ends, so that whoever hides it from us for some days wins nothing (RFC 8461
/// §10.2).
pub const STS_REFRESH: Duration = Duration::from_hours(24);

/// How long a TLS policy that could not be fetched is not asked for again.
pub const STS_PAUSE: Duration = Duration::from_mins(5);

/// Rows of one domain's TLS sessions of one day: results by server. Beyond, servers are not told apart,
/// so that a domain which changes their names all the time fills nothing.
pub const TLS_REPORT_ROWS_MAX: usize = 200;

/// TLSA records that are told of in a report: each is a line of it.
pub const TLS_REPORT_STRINGS_MAX: usize = 100;

/// Days for which a TLS report that cannot be sent is kept: it is worth little by then.
pub const TLS_REPORT_DAYS: i64 = 2;

/// How long reports are sent before how far that has come is noted.
pub const TLS_REPORT_TURN: Duration = Duration::from_secs(2);

/// When after midnight (UTC) the reports of the day before are sent at the earliest: by then whoever
/// was sending has counted.
pub const TLS_REPORT_DELAY: Duration = Duration::from_hours(1);

/// Reports leave at a random time within so long after that, so that not the whole world sends at
/// once (RFC 8460 §4.1).
pub const TLS_REPORT_SPREAD_MS: u64 = 4 * 3_600_000;

/// How long a report that could not be sent waits.
pub const TLS_REPORT_PAUSE: Duration = Duration::from_hours(1);

/// Policies of other domains that one transaction looks at to drop those that have ended.
pub const STS_ROWS_PER_SWEEP: usize = 500;
// ---- Judging -----------------------------------------------------------------------------------

/// Bytes of a message that are held in memory while it is judged: what the blob's writer would hold
/// of it, and more than most messages have. The header's bound comes on top.
pub const JUDGED_HELD_BYTES_MAX: usize = blob::limits::CHUNK_BYTES;

/// How long a node gathers what came in domains' names before it writes it: what a crash may lose of
/// reports.
pub const DMARC_FLUSH_PERIOD: Duration = Duration::from_secs(5);

/// Bytes of rows that are gathered: a few thousand messages that all differ. Beyond, messages are not
/// counted, and the log says so.
pub const DMARC_HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes that a gathered row takes beside its own.
pub const DMARC_HELD_ROW_BYTES: usize = 256;

/// Rows that one transaction writes: each is two reads and three writes, of a few kilobytes at most.
pub const DMARC_FLUSH_ROWS: usize = 100;

/// Rows of one domain and day. Whoever sends from many addresses in a domain's name must not fill the store; the
/// messages beyond are counted and reported as one number.
pub const DMARC_ROWS_PER_DOMAIN_MAX: u64 = 1_000;

/// Domains of one day that are told. A stranger can make up any number of domains that want
/// reports.
pub const DMARC_DOMAINS_PER_DAY_MAX: u64 = 20_000;

/// Those of them in one organization's hands, as far as names tell: who has one domain has any number below it, and
/// may not use up what is there for all.
pub const DMARC_DOMAINS_PER_ORGANIZATION_MAX: u64 = 100;

/// Domains whose addresses for reports are asked about at once: their servers may be slow on purpose, and
/// the others are not to wait for them.
pub const DMARC_DOMAINS_AT_ONCE: usize = 32;

/// Bytes of one text of a row: a name of DNS is shorter.
pub const DMARC_TEXT_BYTES_MAX: usize = 255;

/// How many days later what nobody could be told is forgotten: who is to be told may be out of reach for
/// a day or two.
pub const DMARC_SEEN_DAYS: i64 = 3;

/// How long after its end a day is told of: nodes write late, and their clocks differ.
pub const DMARC_REPORT_DELAY: Duration = Duration::from_hours(1);

/// Over how long after that the beginning is drawn: not every server of the world sends at the same second.
pub const DMARC_REPORT_SPREAD: Duration = Duration::from_hours(2);

/// How long a turn of telling domains goes on before it lets others have its claim.
pub const DMARC_REPORTS_TURN: Duration = Duration::from_secs(8);

/// Bytes of a report, packed: what receivers of mail commonly take. A larger one is not sent.
pub const DMARC_REPORT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Messages to addresses for reports that wait to be looked through.
pub const RECEIVED_LETTERS_MAX: usize = 100;

/// Bytes of a message that is looked through for reports, and of memory that it takes; what is read of it takes
/// less than as much again ([`origin::limits::REPORT_KEPT_BYTES_MAX`]). Reports in use are packed and have
/// some hundred kilobytes.
pub const RECEIVED_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Parts of one message that are read as reports: each has one, rarely two.
pub const RECEIVED_PARTS_MAX: usize = 10;

/// Bytes of what is kept of a report's rows: with the rest it fits a value of the store.
pub const RECEIVED_DETAILS_BYTES_MAX: usize = 64 * 1024;

/// Reports of one day that are kept. A provider's domains get some from each large receiver; more come
/// from somebody who fills the store.
pub const RECEIVED_REPORTS_PER_DAY_MAX: u64 = 1_000;

/// Those of them that one organization sends, as far as names tell: the largest receivers send one for each
/// of a provider's domains, and nobody may use up what is there for all.
pub const RECEIVED_REPORTS_PER_ORGANIZATION_MAX: u64 = 250;

/// Bytes of what is kept of these.
pub const RECEIVED_BYTES_PER_ORGANIZATION_MAX: u64 = 8 * 1024 * 1024;

/// How many days reports are kept: a quarter's trend.
pub const RECEIVED_REPORT_DAYS: i64 = 90;
// ---- Signing -----------------------------------------------------------------------------------

/// Domains whose keys a node holds, about 4 kB each; with one more all are read again.
pub const SIGNERS_HELD_MAX: usize = 10_000;

/// Bytes of the fields that go in front of a message: two signatures that list every field that they
/// can have less than half of it. They are part of the submission's record.
pub const PREPENDED_BYTES_MAX: usize = 16 * 1024;

/// Entries of a `From` that are looked at: only one that is alone counts.
pub const AUTHORS_READ: usize = 8;

/// Bounces to rewritten senders that a node lets go back in [`SRS_BOUNCES_PERIOD`]: more than a busy
/// forwarder has, less than a flood.
pub const SRS_BOUNCES_PER_MINUTE: u64 = 600;

/// The time in which [`SRS_BOUNCES_PER_MINUTE`] are counted.
pub const SRS_BOUNCES_PERIOD: Duration = Duration::from_mins(1);

/// Senders of one day that are kept for one forwarding domain, because they are too long to be written out, of
/// some 400 bytes each: four megabytes a day. Beyond, a message is forwarded from the sender that it came from.
pub const SRS_TOKENS_PER_DAY_MAX: u64 = 10_000;

/// How many days such a sender is kept: as long as its address is taken, and some for clocks that differ.
pub const SRS_TOKEN_DAYS: u64 = origin::limits::SRS_DAYS_MAX + 2;

/// The shortest time between two looks for a key's record.
pub const DKIM_LOOK_MIN: Duration = Duration::from_secs(5);

/// The longest time between two looks for a record that is to come.
pub const DKIM_LOOK_MAX: Duration = Duration::from_hours(1);

/// The time between two looks for the record of a key that signs: somebody may have removed it.
pub const DKIM_LOOK_USED: Duration = Duration::from_hours(24);

/// Steps of one turn at a domain's keys: each key has a handful.
pub const DKIM_STEPS_MAX: usize = 64;

/// How long others may remember a key's record, in a name server that takes updates.
pub const DKIM_RECORD_TTL: Duration = Duration::from_hours(1);

/// Bytes of the file that has a TSIG key's secret.
pub const TSIG_SECRET_BYTES_MAX: u64 = 1_024;

/// How long a record may be looked for in vain before the doctor says so.
pub const DKIM_LATE: Duration = Duration::from_hours(24);

/// Domains whose keys the doctor looks at.
pub const DOCTOR_DOMAINS_MAX: usize = 1_000;

// ---- Abuse control -----------------------------------------------------------------------------

/// Entries of a list in abuse control's settings: each zone is a lookup a connection.
pub const GUARD_LIST_MAX: usize = 64;

/// The weight of a list's entry, either way: more than any threshold needs.
pub const GUARD_WEIGHT_MAX: i32 = 1000;

/// Connections of a node whose names and addresses are looked up at a time; beyond it mail is taken
/// without, because a slow name server must not stop it.
pub const GUARD_LOOKUPS_MAX: usize = 512;

/// Names of an address that are followed back (RFC 8601 §3 leaves a bound to us).
pub const PTR_NAMES_MAX: usize = 5;

/// Greylisting's triplets that a neighbourhood begins in an hour, each of two rows: more than the largest senders
/// have new correspondents in before their network is known, and some megabytes of the store.
pub const GREYLIST_NEW_PER_HOUR_MAX: u64 = 10_000;

/// How long one connection is held up altogether: a client that waits costs memory.
pub const TARPIT_TIME_MAX: Duration = Duration::from_secs(120);

/// Clients whose events wait to be counted; what comes beyond is not counted, but told in a metric.
pub const GUARD_EVENTS_MAX: usize = 4096;

/// Clients whose events are counted in one transaction.
pub const GUARD_EVENTS_PER_TRANSACTION: usize = 64;

/// How long events are gathered before they are counted: with the look that other nodes are
/// woken to take, a block is in force everywhere within about a second.
pub const GUARD_GATHER: Duration = Duration::from_millis(200);

/// Blocks at most, whatever the settings say: every node has all of them in memory (some 40 bytes
/// each).
pub const BLOCKS_MAX: u64 = 100_000;

/// Blocks that are read in one page.
pub const BLOCKS_PER_READ: usize = 1000;

/// Blocks from which on a check looks at none of them: it reads all in one transaction.
pub const BLOCKS_CHECKED_MAX: usize = 20_000;

/// How often a node looks for new blocks where no watch tells of them.
pub const BLOCKS_LOOK_PERIOD: Duration = Duration::from_secs(5);

/// How soon after a look a node looks again at most: an attack changes the list all the time.
pub const BLOCKS_LOOK_PAUSE: Duration = Duration::from_millis(500);

/// How long a block that is over is remembered, so that who comes back is blocked for longer.
pub const BLOCK_MEMORY: Duration = Duration::from_hours(7 * 24);

/// Shortest prefix of a block: a slip of the pen must not shut out half the world.
pub const BLOCK_PREFIX_MIN_V4: u8 = 8;

/// The same for IPv6: smaller than what any registry has from IANA.
pub const BLOCK_PREFIX_MIN_V6: u8 = 16;

/// Bytes of a block's reason.
pub const BLOCK_REASON_BYTES_MAX: usize = 200;

/// How often what abuse control keeps for a time is looked through.
pub const GUARD_SWEEP_PERIOD: Duration = Duration::from_mins(10);

/// Entries that a sweep takes out in one transaction.
pub const GUARD_SWEEP_ROWS: usize = 500;
