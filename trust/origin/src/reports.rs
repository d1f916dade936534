//! Reports that domains send each other of mail in their name: aggregate reports of DMARC (RFC 9990,
//! and RFC 7489's), failure reports (RFC 9991, RFC 6591, RFC 5965) and TLS reports (RFC 8460).
//!
//! Whoever knows an address may send one: what is packed is unpacked while it is read, up to
//! [`limits::REPORT_UNPACKED_BYTES_MAX`], and what is kept of it in memory is bounded.

mod address;
mod aggregate;
mod failure;
mod pack;
mod read_xml;
mod time;
mod tls;
mod write_xml;

pub use address::{ReportAddress, report_addresses, tls_report_uris};
pub use aggregate::{
    AggregateReport, DkimAuth, Evaluated, PolicyReason, PublishedPolicy, ReportMetadata, Row,
    SpfAuth,
};
pub use failure::FailureReport;
pub use pack::gzip;
pub use tls::{TlsFailure, TlsPolicy, TlsReport};

use std::io::Read;

use self::pack::Unpacking;
use crate::limits;

/// A report that somebody sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// What became of mail in a domain's name.
    Aggregate(AggregateReport),
    /// What became of one message.
    Failure(Box<FailureReport>),
    /// How connections to a domain went.
    Tls(TlsReport),
}

/// Of what kind a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    /// [`Report::Aggregate`].
    Aggregate,
    /// [`Report::Failure`].
    Failure,
    /// [`Report::Tls`].
    Tls,
}

/// Why bytes are no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// There are more than [`limits::REPORT_BYTES_MAX`], or when they are unpacked more than such a
    /// report may have.
    #[error("the report is too large")]
    TooLarge,
    /// They are packed in a way that cannot be undone.
    #[error("the report cannot be unpacked")]
    NotUnpacked,
    /// They are not of the format, or lack what a report has to have.
    #[error("malformed report")]
    Malformed,
}

impl ReportKind {
    /// What a part of a message is, by its media type and file name; `None` where it is no report.
    pub fn of(media_type: &str, file_name: Option<&str>) -> Option<Self> {
        let name = file_name.unwrap_or_default().to_ascii_lowercase();
        let json = [".json", ".json.gz"].iter().any(|end| name.ends_with(end));
        let xml = [".xml", ".xml.gz", ".zip"].iter().any(|end| name.ends_with(end));
        match media_type.to_ascii_lowercase().as_str() {
            "message/feedback-report" => Some(Self::Failure),
            "application/tlsrpt+gzip" | "application/tlsrpt+json" => Some(Self::Tls),
            "application/json" if json => Some(Self::Tls),
            "text/xml" | "application/xml" => Some(Self::Aggregate),
            "application/gzip"
            | "application/x-gzip"
            | "application/zip"
            | "application/x-zip-compressed"
            | "application/octet-stream" => match () {
                () if json => Some(Self::Tls),
                () if xml => Some(Self::Aggregate),
                () => None,
            },
            _ => None,
        }
    }

    /// Reads a report of this kind, packed or not.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn parse(self, bytes: &[u8]) -> Result<Report, ReportError> {
        self.read(bytes)
    }

    /// The same from where it can be read, so that nobody has to hold it as a whole.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn read(self, packed: impl Read) -> Result<Report, ReportError> {
        let most = match self {
            Self::Aggregate => limits::REPORT_UNPACKED_BYTES_MAX,
            Self::Failure => limits::REPORT_FAILURE_BYTES_MAX,
            Self::Tls => limits::REPORT_TLS_BYTES_MAX,
        };
        let mut bytes = Unpacking::new(packed, most);
        let read = match self {
            Self::Aggregate => read_xml::read(&mut bytes).map(Report::Aggregate),
            Self::Failure => whole(&mut bytes)
                .and_then(|bytes| FailureReport::parse(&bytes))
                .map(|it| Report::Failure(Box::new(it))),
            Self::Tls => {
                whole(&mut bytes).and_then(|bytes| TlsReport::parse(&bytes)).map(Report::Tls)
            }
        };
        match bytes.fault() {
            Some(fault) => Err(fault),
            None => read,
        }
    }
}

fn whole(bytes: &mut Unpacking<'_>) -> Result<Vec<u8>, ReportError> {
    let mut whole = Vec::new();
    bytes.read_to_end(&mut whole).map_err(|_| ReportError::NotUnpacked)?;
    Ok(whole)
}
