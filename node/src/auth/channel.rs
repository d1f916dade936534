//! Channel binding: what ties a SCRAM exchange to the TLS connection below it.

use std::fmt;

/// The bindings that a connection has to offer.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// There is no TLS.
    #[default]
    None,
    /// There is TLS; either binding may be missing.
    Tls {
        /// RFC 9266 `tls-exporter`: 32 octets of keying material. TLS 1.3 only.
        exporter: Option<[u8; 32]>,
        /// RFC 5929 §4 `tls-server-end-point`: a hash of the server's certificate.
        end_point: Option<Vec<u8>>,
    },
}

impl ChannelBinding {
    /// Whether SCRAM-SHA-256-PLUS can be offered.
    pub fn is_available(&self) -> bool {
        match self {
            Self::None => false,
            Self::Tls { exporter, end_point } => exporter.is_some() || end_point.is_some(),
        }
    }

    /// The data of the binding with this name.
    pub(super) fn data(&self, name: &str) -> Option<&[u8]> {
        match (self, name) {
            (Self::Tls { exporter, .. }, "tls-exporter") => exporter.as_ref().map(|data| &data[..]),
            (Self::Tls { end_point, .. }, "tls-server-end-point") => end_point.as_deref(),
            _ => None,
        }
    }
}

/// Keying material is not shown.
impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Tls { .. } => "Tls",
        })
    }
}
