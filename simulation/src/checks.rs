//! The checks: one file for each property.

mod fsck;
mod p1;
mod p10;
mod p4;
mod p5;
mod p6;
mod p7;
mod p9;

use std::sync::Arc;

use crate::Check;

/// Every check. The last ones let days pass.
pub fn all() -> Vec<Arc<dyn Check>> {
    vec![
        Arc::new(p1::Acknowledged),
        Arc::new(p4::Counters),
        Arc::new(p6::Claims),
        Arc::new(p7::TakenOver),
        Arc::new(p9::Bounds),
        Arc::new(p10::SideBySide),
        Arc::new(fsck::Fsck),
        Arc::new(p5::Bytes),
    ]
}
