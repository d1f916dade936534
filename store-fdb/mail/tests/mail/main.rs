//! The mail store through its public interface, on the memory engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod accounts;
mod append;
mod change;
mod damage;
mod directory;
mod environment;
mod fixture;
mod fsck;
mod log;
mod mailboxes;
mod random;
mod uid_validity;
mod views;
