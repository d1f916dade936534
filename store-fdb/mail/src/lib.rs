//! Accounts, mailboxes and messages: keys, records and transactions.
//!
//! **An account is a log; everything else is a fold of it.** Every change to an account goes
//! through one [`AccountUnit`]: it loads what the operation touches, the operation changes it in
//! memory, and [`AccountUnit::finish`] derives from before and after what must commit together:
//! state, counters, UIDs, blob references and exactly one log entry.
//!
//! Invariants, each with a test:
//! - P2: UIDs become visible in ascending order and are never reused, because they are assigned
//!   in the transaction that makes the message visible (RFC 9051 §2.3.1.1).
//! - P4: counters equal the fold of the state ([`fold::check_account`]).
//! - The log's fold equals the state, and a view equals both.
//!
//! Deliberately absent: wire protocols, clocks (times are arguments) and blob bytes.

pub mod directory;
pub mod fold;
pub mod fsck;
pub mod interest;
pub mod keys;
pub mod limits;
pub mod schema;
pub mod uid_validity;
pub mod view;

mod account;
mod append;
mod copy;
mod error;
mod expunge;
mod ids;
mod keyword;
mod log;
mod mailboxes;
mod meta;
mod operation;
mod read;
mod record;
mod store;
mod unit;

pub use account::{
    AccountError, AccountUsage, NewAccount, account_ids, account_record, create_account,
    credential, delete_account, set_account_record, set_credential, usage,
};
pub use append::{AppendError, Appended, NewEmail, append, append_ahead, append_ahead_to};
pub use copy::{Copied, CopyError, CopyMode, copy};
pub use error::StoreError;
pub use expunge::{ExpungeMode, Progress, expunge, remove_mailbox_contents};
pub use ids::{AccountId, EmailId, MailboxId, ModSeq, OperationId, ThreadId, Uid, UidValidity};
pub use interest::{Interested, ListenerId};
pub use keyword::{Keyword, KeywordError, KeywordSet};
pub use log::{LogPage, changes_since, reaches_below, trim_log, trim_log_some};
pub use mailboxes::{
    CreateError, DeleteError, Mailbox, MailboxCounts, MailboxTree, NewMailbox, RenameError, Role,
    Subscription, create_mailbox, delete_mailbox, finish_delete, inbox, inbox_ahead,
    mailbox_counts, mailbox_tree, rename_mailbox, set_subscription,
};
pub use meta::{message_envelope, structure};
pub use operation::sweep_operations;
pub use read::{email_meta, email_records, email_state};
pub use record::{MetaPart, MetaRecord, SearchedField, SearchedMeta};
pub use store::{Deleted, KeywordChange, StoreOutcome, StoreRequest, StoreTarget, store_keywords};
pub use unit::AccountUnit;
