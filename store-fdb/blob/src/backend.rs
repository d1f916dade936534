//! Where the bytes are: one of the backends, behind the faults that are injected into it.

use crate::embedded::Embedded;

/// A backend.
pub(crate) enum Backend {
    /// Beside the embedded engine's keys.
    Embedded(Embedded),
}
