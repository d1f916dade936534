//! Judging through the public interface: the public suites, the RFCs' own examples, and our own
//! signatures and seals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod arc_suite;
mod examples;
mod hostile;
mod messages;
mod others;
mod policies;
mod spf_suite;
mod suites;
mod unanswered;
