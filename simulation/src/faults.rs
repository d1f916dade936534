//! Faults, as workloads: what makes a world suffer. Each leaves the world as it found it.

use crate::Share;

/// Every fault.
pub const ALL: &[Share] = &[];
