//! The checks: one file for each property.

mod appended;
mod calm;
mod modseq;
mod p2;
mod p3_idle;
mod p3_resync;
mod p8;

use std::sync::Arc;

use crate::Check;

/// Every check.
pub fn all() -> Vec<Arc<dyn Check>> {
    vec![
        // Clients come back for it and note what they see, which the others look at.
        Arc::new(p3_resync::Resync),
        Arc::new(appended::Appended),
        Arc::new(p3_idle::Idle),
        Arc::new(modseq::ModSeqs),
        Arc::new(p2::Uids),
        Arc::new(p8::Privacy),
    ]
}
