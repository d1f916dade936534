//! The harness of the black-box tests: it builds the program `rookery`, runs it, and speaks to
//! it over sockets, as its users do.
//!
//! Invariants:
//! - Nothing here links any other crate of the workspace: what these tests see, users see.
//! - Every wait ends: at its event, or at [`PATIENCE`] with a panic that tells what was missing.
//! - A server is ended by its own process id, and its log is searched for secrets at its end.
//! - A test that cannot run for want of a program says so past the test runner's capture
//!   ([`report()`]).

#![allow(
    clippy::disallowed_methods,
    reason = "this is the world outside: real time and real sockets, and no simulation"
)]

pub mod bind;
pub mod cluster;
pub mod http;
pub mod imap;
pub mod names;
pub mod opensmtpd;
pub mod postfix;
pub mod program;
pub mod server;
pub mod shared;
pub mod smtp;
pub mod web;
pub mod wire;
pub mod workspace;

use std::{
    io::Write,
    time::{Duration, Instant},
};

/// How long anything is waited for that should happen at once. Generous: on a busy machine a
/// debug build is slow, and only a failing test ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Writes a line that is seen even where the test passes: libtest captures macros alone.
pub fn report(text: &str) {
    // Nobody to tell if standard error is gone.
    let _ignored = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// A point in time from which on nothing is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// [`PATIENCE`] from now.
    pub fn usual() -> Self {
        Self::after(PATIENCE)
    }

    /// `time` from now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// What is left; zero once it is over.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is left.
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

/// Measures time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A message with a number, CRLF line ends, and a body that says who wrote it.
///
/// Its Message-ID is `<id@blackbox.test>`, its body begins with [`server::CONTENT`].
pub fn message(from: &str, to: &str, id: &str, body: &str) -> String {
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: black box {id}\r\n\
         Date: Thu, 1 Jan 2026 12:00:00 +0000\r\nMessage-ID: <{id}@blackbox.test>\r\n\r\n\
         {content} {body}\r\n",
        content = server::CONTENT,
    )
}

/// Text that does not compress, in lines of 76 characters.
pub fn noise(bytes: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut text = String::with_capacity(bytes + 80);
    while text.len() < bytes {
        for _ in 0..76 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(char::from(alphabet[(state >> 58) as usize]));
        }
        text.push_str("\r\n");
    }
    text
}
