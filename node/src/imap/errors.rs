//! From the store's errors to IMAP's words: one place, exhaustive.

use imap::{Completion, ResponseCode};
use mail::{CopyError, CreateError, DeleteError, RenameError, StoreError, view::ViewError};

use crate::deliver::{DeliverError, Refusal};

/// A failure of the store: passing, or damage.
pub(super) fn store(error: &StoreError) -> Completion {
    match error {
        StoreError::Kv(_) | StoreError::BlobGone(_) => {
            tracing::warn!(%error, "store");
            Completion::no("The store is not available, try again")
                .with_code(ResponseCode::Unavailable)
        }
        StoreError::Damaged { .. } => {
            tracing::error!(%error, "store");
            Completion::no("A record is damaged").with_code(ResponseCode::Corruption)
        }
        StoreError::NoAccount(_) => {
            Completion::no("The account does not exist").with_code(ResponseCode::ContactAdmin)
        }
    }
}

pub(super) fn view(error: &ViewError) -> Completion {
    match error {
        ViewError::NoMailbox(_) => no_mailbox(),
        ViewError::TooOld(_) => Completion::no("The mailbox changed too much, try again")
            .with_code(ResponseCode::Unavailable),
        ViewError::PageTooLarge(_) => {
            tracing::error!(%error, "view");
            Completion::no("The mailbox cannot be shown").with_code(ResponseCode::ServerBug)
        }
        ViewError::Store(error) => store(error),
    }
}

pub(super) fn blob(error: &blob::BlobError) -> Completion {
    match error {
        blob::BlobError::Missing(_) | blob::BlobError::Damaged(_) => {
            tracing::error!(%error, "blob");
            Completion::no("The message's bytes are damaged").with_code(ResponseCode::Corruption)
        }
        blob::BlobError::TooLarge => {
            Completion::no("The message is too large").with_code(ResponseCode::TooBig)
        }
        blob::BlobError::Backend(_)
        | blob::BlobError::Unavailable { .. }
        | blob::BlobError::Refused { .. } => {
            tracing::warn!(%error, "blob");
            Completion::no("The store is not available, try again")
                .with_code(ResponseCode::Unavailable)
        }
    }
}

pub(super) fn create(error: &CreateError) -> Completion {
    match error {
        CreateError::Exists => {
            Completion::no("The mailbox exists").with_code(ResponseCode::AlreadyExists)
        }
        CreateError::NoParent => no_mailbox(),
        CreateError::BadName(why) => Completion::no(*why).with_code(ResponseCode::Cannot),
        CreateError::RoleTaken => {
            Completion::no("Another mailbox has that use").with_code(ResponseCode::UseAttr)
        }
        CreateError::TooMany => {
            Completion::no("Too many mailboxes or levels").with_code(ResponseCode::Limit)
        }
        CreateError::Store(error) => store(error),
    }
}

pub(super) fn rename(error: &RenameError) -> Completion {
    match error {
        RenameError::NoMailbox | RenameError::NoParent => no_mailbox(),
        RenameError::Exists => {
            Completion::no("The new name exists").with_code(ResponseCode::AlreadyExists)
        }
        RenameError::BadName(why) => Completion::no(*why).with_code(ResponseCode::Cannot),
        RenameError::Inbox => {
            Completion::no("INBOX cannot be renamed").with_code(ResponseCode::Cannot)
        }
        RenameError::Cycle => {
            Completion::no("A mailbox cannot be moved below itself").with_code(ResponseCode::Cannot)
        }
        RenameError::TooDeep => Completion::no("Too many levels").with_code(ResponseCode::Limit),
        RenameError::Store(error) => store(error),
    }
}

pub(super) fn delete(error: &DeleteError) -> Completion {
    match error {
        DeleteError::NoMailbox => no_mailbox(),
        DeleteError::HasChildren => {
            Completion::no("The mailbox has children").with_code(ResponseCode::HasChildren)
        }
        DeleteError::Inbox => {
            Completion::no("INBOX cannot be deleted").with_code(ResponseCode::Cannot)
        }
        DeleteError::Store(error) => store(error),
    }
}

pub(super) fn copy(error: &CopyError) -> Completion {
    match error {
        CopyError::NoMailbox(_) => try_create(),
        CopyError::OverQuota => {
            Completion::no("The copy exceeds the quota").with_code(ResponseCode::OverQuota)
        }
        CopyError::TooManyMailboxes => {
            Completion::no("The message is in too many mailboxes").with_code(ResponseCode::Limit)
        }
        CopyError::Store(error) => store(error),
    }
}

pub(super) fn refusal(refusal: &Refusal) -> Completion {
    match refusal {
        Refusal::NoMailbox => try_create(),
        Refusal::LargerThanQuota | Refusal::OverQuota => {
            Completion::no("The message exceeds the quota").with_code(ResponseCode::OverQuota)
        }
        Refusal::TooManyKeywords => {
            Completion::no("Too many keywords").with_code(ResponseCode::Limit)
        }
    }
}

pub(super) fn deliver(error: &DeliverError) -> Completion {
    match error {
        DeliverError::Store(error) => store(error),
        DeliverError::Blob(error) => blob(error),
        DeliverError::Stopping => {
            Completion::no("The server is stopping").with_code(ResponseCode::Unavailable)
        }
    }
}

pub(super) fn no_mailbox() -> Completion {
    Completion::no("The mailbox does not exist").with_code(ResponseCode::NonExistent)
}

/// RFC 9051 §6.3.12: the client may create it and try again.
pub(super) fn try_create() -> Completion {
    Completion::no("The mailbox does not exist").with_code(ResponseCode::TryCreate)
}

/// RFC 2180 §4: some of the named messages are gone, and the client has not been told yet.
pub(super) fn expunged() -> Completion {
    Completion::no("Some of the messages no longer exist").with_code(ResponseCode::ExpungeIssued)
}
