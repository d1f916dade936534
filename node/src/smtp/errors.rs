//! From the store's errors to SMTP's refusals: one place, exhaustive. The reply codes are the
//! session's.

use blob::BlobError;
use mail::{StoreError, directory::ResolveError};
use smtp::{AuthFailure, Permanence, Refusal};

use super::header::HeaderError;
use crate::{
    auth::AuthError,
    deliver::{self, DeliverError},
};

/// A failure of the store: passing, or damage that somebody will repair.
pub(super) fn store(error: &StoreError) -> Refusal {
    match error {
        StoreError::Kv(_) | StoreError::BlobGone(_) => {
            tracing::warn!(%error, "store");
            Refusal::TemporaryFailure
        }
        StoreError::Damaged { .. } => {
            tracing::error!(%error, "store");
            Refusal::TemporaryFailure
        }
        // Its address still stands while the account is being removed.
        StoreError::NoAccount(_) => Refusal::UnknownRecipient,
    }
}

pub(super) fn resolve(error: &ResolveError) -> Refusal {
    match error {
        ResolveError::NotLocal(_) => Refusal::RelayDenied,
        ResolveError::Unknown(_) => Refusal::UnknownRecipient,
        ResolveError::TooMany(_) => {
            // An administrator can mend the alias before the sender gives up.
            tracing::error!(%error, "alias");
            Refusal::TemporaryFailure
        }
        ResolveError::Store(error) => store(error),
    }
}

pub(super) fn blob(error: &BlobError) -> Refusal {
    match error {
        BlobError::TooLarge => Refusal::MessageTooLarge,
        BlobError::Missing(_) | BlobError::Damaged(_) => {
            tracing::error!(%error, "blob");
            Refusal::TemporaryFailure
        }
        BlobError::Backend(_) | BlobError::Unavailable { .. } | BlobError::Refused { .. } => {
            tracing::warn!(%error, "blob");
            Refusal::TemporaryFailure
        }
    }
}

pub(super) fn header(error: HeaderError) -> Refusal {
    match error {
        HeaderError::TooLarge => Refusal::MessageTooLarge,
        HeaderError::Loop => Refusal::RoutingLoop,
        HeaderError::BareCr => Refusal::MessageMalformed,
    }
}

pub(super) fn delivery(refusal: &deliver::Refusal) -> Refusal {
    match refusal {
        deliver::Refusal::NoMailbox => Refusal::UnknownRecipient,
        deliver::Refusal::LargerThanQuota => Refusal::MailboxFull(Permanence::Permanent),
        deliver::Refusal::OverQuota => Refusal::MailboxFull(Permanence::Temporary),
        // Mail arrives without keywords.
        deliver::Refusal::TooManyKeywords => Refusal::TemporaryFailure,
    }
}

pub(super) fn deliver(error: &DeliverError) -> Refusal {
    match error {
        DeliverError::Store(error) => match &**error {
            // An account that vanishes is a refusal of its own; here it is a race.
            StoreError::NoAccount(_) => Refusal::TemporaryFailure,
            error => store(error),
        },
        DeliverError::Blob(error) => blob(error),
        DeliverError::Stopping => Refusal::ShuttingDown,
    }
}

pub(super) fn auth(error: &AuthError) -> Refusal {
    match error {
        AuthError::BadCredentials | AuthError::NotAuthorized | AuthError::ChannelBinding => {
            Refusal::AuthFailed(AuthFailure::Credentials)
        }
        AuthError::Malformed(_) => Refusal::AuthFailed(AuthFailure::Malformed),
        AuthError::Disabled => Refusal::AuthFailed(AuthFailure::AccountDisabled),
        AuthError::TooManyFailures { .. } | AuthError::Busy => Refusal::AuthTemporary,
        AuthError::Store(error) => {
            tracing::warn!(%error, "login");
            Refusal::AuthTemporary
        }
    }
}
