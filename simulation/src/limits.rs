//! The bounds of the simulated network, each with its reason.

/// Bytes on their way in one direction of a stream before its writer waits: about what Linux
/// gives a fresh TCP connection, so that writers that never wait on a laptop wait here.
pub const STREAM_BYTES_MAX: usize = 64 * 1024;

/// Segments on their way in one direction of a stream: a writer of single bytes is bounded too.
pub const STREAM_SEGMENTS_MAX: usize = 1024;

/// Connections that wait to be accepted; Tokio's own listeners ask for as many.
pub const BACKLOG_MAX: usize = 1024;

/// Datagrams that wait to be received; more are lost, as in a full socket buffer.
pub const DATAGRAMS_MAX: usize = 1024;

/// Bytes of one datagram: what UDP over IPv4 carries.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
