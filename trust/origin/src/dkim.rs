//! DKIM signatures (RFC 6376, RFC 8301, RFC 8463): what they say and whether it is so.

mod signature;
mod verify;

pub(crate) use signature::{Kind, Signature, field_without_signature};
pub(crate) use verify::{Coverage, Keys, coverage, header_data, verify};

use crate::key::Algorithm;

/// What became of a signature, in the words of RFC 8601 §2.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DkimResult {
    /// It is right.
    Pass,
    /// It is wrong.
    Fail,
    /// It is right, but not of the kind that counts.
    Policy,
    /// It cannot be read.
    Neutral,
    /// Its key cannot be had for now.
    TempError,
    /// It can never be checked.
    PermError,
}

impl DkimResult {
    /// As it is written in `Authentication-Results`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Policy => "policy",
            Self::Neutral => "neutral",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// One signature and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimVerdict {
    /// What became of it.
    pub result: DkimResult,
    /// Why it did not pass.
    pub reason: Option<DkimError>,
    /// `d=`: who takes responsibility. Empty where the signature cannot be read.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// `i=`, or what stands for it.
    pub identity: String,
    /// `a=`; `None` where the signature cannot be read.
    pub algorithm: Option<Algorithm>,
    /// The first characters of `b=`, by which RFC 6008 tells signatures apart.
    pub signature_start: String,
    /// The key says that the domain is only trying (RFC 6376 §3.6.1, `t=y`).
    pub testing: bool,
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DkimError {
    /// It is no tag list, or lacks something, or says something twice.
    #[error("malformed signature")]
    Malformed,
    /// An algorithm or canonicalization that is not known.
    #[error("unknown algorithm")]
    UnknownAlgorithm,
    /// SHA-1 (RFC 8301 §3.1).
    #[error("weak algorithm")]
    WeakAlgorithm,
    /// `i=` is not within `d=`.
    #[error("identity outside the domain")]
    IdentityMismatch,
    /// `From` is not signed (RFC 6376 §5.4).
    #[error("the author is not signed")]
    AuthorNotSigned,
    /// It is past `x=`.
    #[error("expired")]
    Expired,
    /// The body is another one.
    #[error("body hash did not verify")]
    BodyChanged,
    /// `l=` leaves a part of the body unsigned (RFC 6376 §8.2).
    #[error("part of the body is not signed")]
    BodyPartlySigned,
    /// There is no key record.
    #[error("no key")]
    NoKey,
    /// The key's domain could not be asked.
    #[error("key unavailable")]
    KeyUnavailable,
    /// The key record is no key.
    #[error("malformed key")]
    BadKey,
    /// The key was withdrawn.
    #[error("key revoked")]
    KeyRevoked,
    /// The key is for something else.
    #[error("key not for this use")]
    KeyNotForThis,
    /// The key is too small, or larger than anybody needs.
    #[error("key size")]
    WeakKey,
    /// The signature is not the key's.
    #[error("signature did not verify")]
    BadSignature,
    /// The header is larger than is looked at.
    #[error("header too large")]
    HeaderTooLarge,
}

impl DkimError {
    pub(crate) fn result(self) -> DkimResult {
        match self {
            Self::Malformed | Self::UnknownAlgorithm | Self::HeaderTooLarge => DkimResult::Neutral,
            Self::BodyPartlySigned => DkimResult::Policy,
            Self::Expired | Self::BodyChanged | Self::BadSignature => DkimResult::Fail,
            Self::KeyUnavailable => DkimResult::TempError,
            Self::WeakAlgorithm
            | Self::IdentityMismatch
            | Self::AuthorNotSigned
            | Self::NoKey
            | Self::BadKey
            | Self::KeyRevoked
            | Self::KeyNotForThis
            | Self::WeakKey => DkimResult::PermError,
        }
    }
}
