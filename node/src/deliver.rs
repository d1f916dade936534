//! From an accepted message to mailboxes and queue, in one transaction.
//!
//! The blob is put first; then [`Deliverer::submit`] appends to every local mailbox, enqueues
//! what is remote, and answers when that has committed. Requests for one account that wait at
//! the same time share a transaction ([`Deliverer`]), so a hot mailbox does not become a storm of
//! conflicts on its UID counter.
//!
//! A recipient that fails after acceptance gets a report (RFC 3464) in the very transaction that
//! delivers to the others, so a crash leaves neither silence nor a second copy.

mod batch;
mod combine;
pub mod outbound;
mod report;
mod shares;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kv::AsKvError;
use mail::{
    AccountId, AppendError, Appended, MailboxId, ModSeq, NewEmail, OperationId, StoreError,
};

pub use combine::{Combining, Deliverer};

/// Something to be appended or sent on, all in one transaction.
pub struct Request {
    /// One for each account that gets the message.
    pub appends: Vec<Append>,
    /// What other servers get.
    pub outbound: Option<outbound::Submission>,
    /// What to do where some recipients fail and others do not.
    pub on_failure: OnFailure,
}

/// One account's copy.
#[derive(Clone)]
pub struct Append {
    /// Whose.
    pub account: AccountId,
    /// Where.
    pub target: Target,
    /// The message; its bytes are in the blob store.
    pub email: Arc<NewEmail>,
    /// Drawn once, before the first try.
    pub operation: OperationId,
    /// The recipient addresses that led here and want to be told of a failure.
    pub recipients: Vec<String>,
    /// Those that want to be told of a success (RFC 3461 §4.1 `NOTIFY=SUCCESS`).
    pub tell_success: Vec<String>,
}

/// Which mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The account's INBOX.
    Inbox,
    /// This one.
    Mailbox(MailboxId),
    /// The account's mailbox for junk; INBOX where it has none.
    Junk,
}

/// What becomes of a message that only some recipients can take.
#[derive(Clone)]
pub enum OnFailure {
    /// The caller answers for each recipient by itself (LMTP, IMAP APPEND).
    Tell,
    /// The sender gets a report; `None` where there is nobody to report to (RFC 5321 §4.5.5).
    Report(Option<report::Reporting>),
}

pub(crate) use batch::{Report, send_report, write_generated, write_message, write_report};
pub(crate) use report::{Fate, RETURN_PATH, Status, Trouble};
pub use report::{Reporting, Returned};
pub(crate) use shares::Shares;

/// Why one recipient did not get the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The mailbox is gone.
    #[error("the mailbox does not exist")]
    NoMailbox,
    /// The message alone is larger than the quota.
    #[error("the message is larger than the mailbox may be")]
    LargerThanQuota,
    /// It does not fit now.
    #[error("the mailbox is full")]
    OverQuota,
    /// Too many keywords.
    #[error("too many keywords")]
    TooManyKeywords,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// One result for each of [`Request::appends`], in order.
    pub appends: Vec<Result<Appended, Refusal>>,
    /// The commit's version; `None` where nothing was written.
    pub modseq: Option<ModSeq>,
}

/// Why nothing of a request was done. Trying again later may help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeliverError {
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// A report could not be written.
    #[error("a report could not be written: {0}")]
    Blob(Arc<blob::BlobError>),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl DeliverError {
    fn is_store_away(&self) -> bool {
        match self {
            Self::Store(error) => error.as_kv_error().is_some_and(kv::Error::is_store_away),
            Self::Blob(_) | Self::Stopping => false,
        }
    }
}

impl Refusal {
    /// A refusal in an append's own words; a failure of the store stays one.
    fn of(error: AppendError) -> Result<Self, StoreError> {
        match error {
            AppendError::NoMailbox(_) => Ok(Self::NoMailbox),
            AppendError::OverQuota { size, quota, .. } if size > quota => Ok(Self::LargerThanQuota),
            AppendError::OverQuota { .. } => Ok(Self::OverQuota),
            AppendError::TooManyKeywords => Ok(Self::TooManyKeywords),
            AppendError::Store(error) => Err(error),
        }
    }

    /// RFC 3463's code.
    pub fn status(&self) -> &'static str {
        match self {
            Self::NoMailbox => "5.1.1",
            Self::LargerThanQuota | Self::OverQuota => "5.2.2",
            Self::TooManyKeywords => "5.6.0",
        }
    }
}
