//! SPF (RFC 7208): whether a domain says that an address sends for it.

mod check;
mod macros;
mod record;

pub(crate) use check::{Identity, Question, check, unanswered};

/// What a domain says of a client (RFC 7208 §2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpfResult {
    /// Nothing.
    #[default]
    None,
    /// That it says nothing.
    Neutral,
    /// That it sends for it.
    Pass,
    /// That it does not.
    Fail,
    /// That it likely does not.
    SoftFail,
    /// It could not be asked.
    TempError,
    /// Nothing that could be understood.
    PermError,
}

impl SpfResult {
    /// As it is written in `Authentication-Results`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What was asked about and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpfVerdict {
    /// What the domain says.
    pub result: SpfResult,
    /// The domain that was asked; empty where there was none.
    pub domain: String,
    /// The address that was asked about, as it is written after `smtp.mailfrom=`, or the HELO name.
    pub identity: String,
    /// Of a failure, what the domain wants its client to be told: ASCII, one line.
    pub explanation: Option<String>,
    /// The mechanism that decided, as the record has it.
    pub mechanism: Option<String>,
}
