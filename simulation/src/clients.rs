//! Clients of a world's nodes, which workloads and checks share: what of each protocol they need.

pub mod imap;
pub mod letter;
pub mod offline;
pub mod smtp;
pub mod visitor;
