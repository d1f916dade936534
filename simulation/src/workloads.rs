//! The workloads: one file for each.

mod administrators;
mod delivery;
mod flags;
mod hostile;
mod idlers;
mod intruder;
mod mailboxes;
mod midnight;
mod moves;
mod newer;
mod offline;
mod peers;
mod quota;
mod readers;
mod rehearsal;
mod tidy;

pub use delivery::KEEPERS;
pub use newer::{FUTURE_KIND, FUTURE_SETTING, FUTURE_ZONE, Marked, marked};
pub use rehearsal::{Effect, effects};

use crate::Share;

/// Every workload that makes a world work.
pub const ALL: &[Share] = &[
    flags::SHARE,
    idlers::SHARE,
    intruder::SHARE,
    mailboxes::SHARE,
    moves::SHARE,
    offline::SHARE,
    delivery::SHARE,
    readers::SHARE,
    quota::SHARE,
    tidy::SHARE,
    administrators::SHARE,
    rehearsal::SHARE,
    midnight::SHARE,
    hostile::SHARE,
    newer::SHARE,
    peers::SHARE,
];
