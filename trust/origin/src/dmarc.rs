//! DMARC (RFC 9989, and of RFC 7489 what is still published): whether the author's domain vouches
//! for a message, and what it asks for where it does not.
//!
//! Organizational domains are found by the walk up the tree (RFC 9989 §4.10), so there is no list of
//! public suffixes to keep.

mod judge;
mod record;

pub(crate) use judge::{Authenticated, accepts_reports, judge};
pub use record::{Alignment, DmarcRecord, FailureOptions, Psd};

/// What a domain asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
    /// To be treated with suspicion.
    Quarantine,
    /// To be refused.
    Reject,
}

impl Policy {
    /// As it is written in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Some(Self::None),
            "quarantine" => Some(Self::Quarantine),
            "reject" => Some(Self::Reject),
            _ => None,
        }
    }

    /// What is done instead, where the policy is not applied in full (RFC 7489 §6.6.4).
    fn weaker(self) -> Self {
        match self {
            Self::Reject => Self::Quarantine,
            Self::Quarantine | Self::None => Self::None,
        }
    }
}

/// Whether the author's domain vouches (RFC 9989 §5.3.5, in the words of §9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DmarcResult {
    /// It has no record.
    #[default]
    None,
    /// It does.
    Pass,
    /// It does not.
    Fail,
    /// It could not be asked.
    TempError,
    /// There is no author with a domain, or it cannot be told who the author is.
    PermError,
}

impl DmarcResult {
    /// As it is written in `Authentication-Results`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// Why less was done than the policy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Override {
    /// Nothing less was done.
    #[default]
    None,
    /// `pct=`, and the message was not drawn (RFC 7489 §6.6.4).
    SampledOut,
    /// `t=y` (RFC 9989 §4.7).
    Testing,
}

/// What the author's domain says, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DmarcVerdict {
    /// Whether it vouches.
    pub result: DmarcResult,
    /// The author's domain; of several the one that this is about; empty where there is none.
    pub author_domain: String,
    /// The domain whose record applies; empty where there is none.
    pub policy_domain: String,
    /// What the record asks for of a message like this one that fails.
    pub policy: Policy,
    /// What is to be done: nothing unless the message fails or its authors are in disorder, and maybe less
    /// than `policy`.
    pub disposition: Policy,
    /// Why it is less.
    pub reason: Override,
    /// The signature's domain that is aligned.
    pub aligned_dkim: Option<String>,
    /// The envelope's domain that is aligned.
    pub aligned_spf: Option<String>,
    /// The record.
    pub record: Option<DmarcRecord>,
}
