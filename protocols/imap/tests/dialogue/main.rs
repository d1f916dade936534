//! Whole dialogues, each repeated with the input split at every octet.

mod connection;
mod login;
mod mailboxes;
mod messages;
mod peer;
