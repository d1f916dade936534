//! The workloads: one file for each.

use crate::Share;

/// Every workload that makes a world work..
pub const ALL: &[Share] = &[];
