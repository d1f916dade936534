//! Lookups against a real server on loopback, over UDP and TCP, that answers well, ill or not at all.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod hostile;
mod plain;
mod server;
mod signed;
mod world;
