//! Where the bytes are: one of the backends, behind the faults that are injected into it.

use crate::embedded::Embedded;
#[cfg(feature = "s3")]
use crate::s3::S3;

/// A backend.
pub(crate) enum Backend {
    /// Beside the embedded engine's keys.
    Embedded(Embedded),
    /// In an S3-compatible service.
    #[cfg(feature = "s3")]
    S3(Box<S3>),
}
