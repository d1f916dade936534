//! Every bound of the crate, each with its reason. Over a bound nothing fails: the structure gets
//! coarser, because any byte sequence is storable mail.

/// Bytes kept of a message's own header block. The largest seen in practice (long `Received`
/// chains, ARC and DKIM sets, thousands of recipients) stay under 128 KiB; twice that is kept.
pub const TOP_HEADER_BYTES_MAX: usize = 256 * 1024;

/// Bytes kept of the header block of a message inside a message: its envelope is needed, its
/// trace fields are not worth more.
pub const NESTED_HEADER_BYTES_MAX: usize = 64 * 1024;

/// Bytes kept of a body part's header block: a handful of `Content-*` fields.
pub const PART_HEADER_BYTES_MAX: usize = 16 * 1024;

/// Bytes kept of all header blocks but the top one together; it bounds the parsed tree's memory
/// whatever the number of parts.
pub const INNER_HEADERS_BYTES_MAX: usize = 512 * 1024;

/// Depth of the part tree, the root being 1. A message inside a message is two protobuf levels,
/// and protobuf decoders stop at 100: 32 leaves room.
pub const DEPTH_MAX: usize = 32;

/// Parts of one message, the root and multiparts included. The rest of a larger multipart stays
/// in the multipart's range without parts of its own.
pub const PARTS_MAX: usize = 1_000;

/// Length of a boundary. RFC 2046 §5.1.1 allows 70; mailers that exceed it exist.
pub const BOUNDARY_BYTES_MAX: usize = 200;

/// Bytes of a line that are held back while the line may be a delimiter: two hyphens, the
/// boundary, two hyphens, and padding that transport agents add.
pub const DELIMITER_LINE_BYTES_MAX: usize = 256;

/// Fields in a header index. An index that stops here says so, and its reader goes to the bytes.
pub const HEADER_FIELDS_MAX: usize = 2_000;

/// Addresses of all envelopes of one message together: an address costs some 30 times the bytes
/// that a hostile sender pays for it.
pub const ADDRESSES_MAX: usize = 10_000;

/// Parameters of one `Content-Type` or `Content-Disposition`, continuations counted one by one.
pub const PARAMS_MAX: usize = 100;

/// Languages of one `Content-Language`.
pub const LANGUAGES_MAX: usize = 32;

/// Message ids of `References` and `In-Reply-To` that are kept for threading: the first (the
/// thread's root) and the newest.
pub const REFERENCES_MAX: usize = 100;

/// Length of a message id that takes part in threading; RFC 5322 §2.1.1 allows a line of 998.
pub const MESSAGE_ID_BYTES_MAX: usize = 998;

/// Bytes of a `Subject` that the base subject is made from; the extraction is quadratic at worst.
pub const BASE_SUBJECT_BYTES_MAX: usize = 2_048;

/// Length of the preview in characters (RFC 8621 §4.1.4).
pub const PREVIEW_CHARS_MAX: usize = 256;

/// Encoded bytes of a text/plain part that the preview is made from.
pub const PREVIEW_PLAIN_BYTES_MAX: usize = 4 * 1024;

/// Encoded bytes of a text/html part that the preview is made from: style sheets come first.
pub const PREVIEW_HTML_BYTES_MAX: usize = 32 * 1024;

/// Blanks that the quoted-printable decoder holds back, to drop them before a line end
/// (RFC 2045 §6.7 rule 3). Encoded lines have at most 76 characters.
pub const QP_BLANKS_MAX: usize = 1_000;

/// Length of a charset's name in an encoded word (RFC 2047 §2 allows 75 for the whole word).
pub const CHARSET_NAME_BYTES_MAX: usize = 64;

/// How far an encoded word in an address list is looked for: RFC 2047 §2 allows it 75
/// characters; twice that for the mailers that do not count.
pub const ENCODED_WORD_BYTES_MAX: usize = 150;

/// The bounds of one scan that a caller may tighten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`TOP_HEADER_BYTES_MAX`].
    pub top_header_bytes_max: usize,
    /// See [`NESTED_HEADER_BYTES_MAX`].
    pub nested_header_bytes_max: usize,
    /// See [`PART_HEADER_BYTES_MAX`].
    pub part_header_bytes_max: usize,
    /// See [`INNER_HEADERS_BYTES_MAX`].
    pub inner_headers_bytes_max: usize,
    /// See [`DEPTH_MAX`]; at least 1 is used.
    pub depth_max: usize,
    /// See [`PARTS_MAX`]; at least 1 is used.
    pub parts_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            top_header_bytes_max: TOP_HEADER_BYTES_MAX,
            nested_header_bytes_max: NESTED_HEADER_BYTES_MAX,
            part_header_bytes_max: PART_HEADER_BYTES_MAX,
            inner_headers_bytes_max: INNER_HEADERS_BYTES_MAX,
            depth_max: DEPTH_MAX,
            parts_max: PARTS_MAX,
        }
    }
}
