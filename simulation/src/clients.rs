//! Clients that workloads and checks share.

pub mod imap;
pub mod offline;
pub mod visitor;
