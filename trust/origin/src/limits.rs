//! What bounds the judging of one message, and the memory that it takes.

use std::time::Duration;

/// Bytes of a header that are kept to be judged or signed. What is longer is judged as a message
/// without signatures whose author is unknown.
pub const HEADER_BYTES_MAX: usize = 1024 * 1024;

/// Fields of a header. A signature may list 256 names, each of which is looked for among all of them.
pub const FIELDS_MAX: usize = 10_000;

/// DKIM signatures of one message that are looked at, the topmost first: each costs a lookup and
/// a verification. RFC 6376 §6.1 lets verifiers limit it.
pub const SIGNATURES_MAX: usize = 10;

/// Header fields that one signature may list. Signers list each field of interest and a second time
/// what must not be added.
pub const SIGNED_FIELDS_MAX: usize = 256;

/// Tags of one list. No standard defines a third of it.
pub const TAGS_MAX: usize = 64;

/// RFC 8617 §4.2.1: more than 50 ARC sets are a loop.
pub const ARC_SETS_MAX: usize = 50;

/// Seals of one chain that are verified: each is a lookup and a signature over all sets before it. A chain
/// in use has less than ten; what a longer one says is not known.
pub const ARC_SEALS_MAX: usize = 20;

/// RFC 7208 §4.6.4: mechanisms and modifiers that look something up.
pub const SPF_LOOKUPS_MAX: usize = 10;

/// RFC 7208 §4.6.4: lookups that find nothing.
pub const SPF_VOID_LOOKUPS_MAX: usize = 2;

/// RFC 7208 §4.6.4: exchangers of one `mx`, names of one `ptr`.
pub const SPF_NAMES_MAX: usize = 10;

/// Bytes of an SPF record. RFC 7208 §3.4 expects 450; longer ones are in use.
pub const SPF_RECORD_BYTES_MAX: usize = 16 * 1024;

/// Terms of an SPF record.
pub const SPF_TERMS_MAX: usize = 512;

/// Bytes of an explanation that is handed on to a client.
pub const EXPLANATION_BYTES_MAX: usize = 512;

/// How long SPF may take for one identity (RFC 7208 §4.6.4 recommends at least 20 s; a client waits
/// for it, with its connection open).
pub const SPF_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a client's names may take to be found, and how long then their addresses may take, which are
/// looked up at once. The client's owner answers for them; an evaluation that waited for each would have no time
/// left for what its domain says.
pub const SPF_PTR_TIME_MAX: Duration = Duration::from_secs(3);

/// How long one key may take. A message's signatures' are looked up at once, and then those of seals.
pub const KEY_TIME_MAX: Duration = Duration::from_secs(10);

/// How long one question of a walk up the tree may take. They are asked at once, so that whoever writes a message
/// cannot take the time from the organization by names below it that are not answered.
pub const TREE_TIME_MAX: Duration = Duration::from_secs(6);

/// How long it may take to find out which domains are of the author's organization.
pub const ALIGNMENT_TIME_MAX: Duration = Duration::from_secs(8);

/// How long an author's policy may take: a walk, whether the author's domain exists, and who is aligned.
pub const POLICY_TIME_MAX: Duration = Duration::from_secs(20);

/// Names of a client's address that are looked up back (RFC 8601 §2.7.3 has no number; SPF's).
pub const IPREV_NAMES_MAX: usize = 10;

/// RFC 9989 §4.10: queries of one walk up the tree.
pub const TREE_QUERIES_MAX: usize = 8;

/// Authors' addresses that are read of a `From` field, to see of which domains they are.
pub const AUTHORS_MAX: usize = 64;

/// Authors' domains that are asked for their policy: each costs as much as a message with one. People write
/// messages together, organizations hardly more than two.
pub const AUTHOR_DOMAINS_MAX: usize = 4;

/// Bits of an RSA key that a signature counts with (RFC 8301 §3.2).
pub const RSA_BITS_MIN: usize = 1024;

/// Bits of an RSA key that verification is done for (RFC 8301 §3.2: at least 4096).
pub const RSA_BITS_MAX: usize = 8192;

/// Bits of an RSA key that we make (RFC 8301 §3.2). Larger ones do not fit into one string of DNS.
pub const RSA_BITS: usize = 2048;

/// Bytes of a report as it comes, packed or not.
pub const REPORT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes of an unpacked report; more is a bomb or a report for somebody else's size.
pub const REPORT_UNPACKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of an unpacked TLS report: it has some kilobytes a domain.
pub const REPORT_TLS_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of an unpacked failure report: it is a header.
pub const REPORT_FAILURE_BYTES_MAX: usize = 256 * 1024;

/// Rows of an aggregate report that are kept; the rest is counted and left out.
pub const REPORT_ROWS_MAX: usize = 50_000;

/// Bytes of memory that the rows of an aggregate report take, what is listed in them included: some
/// thousands in use. What is over it is counted and left out.
pub const REPORT_KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of one tag, text or comment of an XML report. It is held as a whole.
pub const REPORT_TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Depth of an XML report's elements.
pub const REPORT_DEPTH_MAX: usize = 32;

/// Bytes of one text in a report that are kept.
pub const REPORT_TEXT_BYTES_MAX: usize = 1024;

/// Days after which an SRS address bounces no more. Mail is tried for five days; a bounce may take
/// as long to come back.
pub const SRS_DAYS_MAX: u64 = 21;
