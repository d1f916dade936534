//! The checks: one file for each property.

mod appended;
mod calm;
mod fsck;
mod modseq;
mod names;
mod p1;
mod p10;
mod p2;
mod p3_idle;
mod p3_resync;
mod p4;
mod p5;
mod p6;
mod p7;
mod p8;
pub(crate) mod p9;
mod remote;
mod rot;

use std::sync::Arc;

use crate::Check;

/// Every check. The last ones let days pass.
pub fn all() -> Vec<Arc<dyn Check>> {
    vec![
        // Clients come back for it and note what they see, which the others look at.
        Arc::new(p3_resync::Resync),
        Arc::new(appended::Appended),
        Arc::new(p3_idle::Idle),
        Arc::new(modseq::ModSeqs),
        Arc::new(p2::Uids),
        Arc::new(p8::Privacy),
        // Mends what has rotted; those after it read bytes.
        Arc::new(rot::Rot),
        Arc::new(p1::Acknowledged),
        Arc::new(p4::Counters),
        Arc::new(p6::Claims),
        Arc::new(p7::TakenOver),
        Arc::new(names::Names),
        Arc::new(p9::Bounds),
        Arc::new(p10::SideBySide),
        Arc::new(fsck::Fsck),
        Arc::new(p5::Bytes),
    ]
}
