//! The mail store through its public interface, on the memory engine.

mod accounts;
mod append;
mod change;
mod damage;
mod directory;
mod environment;
mod fixture;
mod log;
mod mailboxes;
mod random;
mod views;
