//! The workloads: one file for each.

mod doubt;
mod flags;
mod idlers;
mod intruder;
mod mailboxes;
mod moves;
mod offline;

use crate::Share;

/// Every workload that makes a world work.
pub const ALL: &[Share] = &[
    doubt::SHARE,
    flags::SHARE,
    idlers::SHARE,
    intruder::SHARE,
    mailboxes::SHARE,
    moves::SHARE,
    offline::SHARE,
];
