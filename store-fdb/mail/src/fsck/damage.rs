//! What can be wrong with a store, and what may be done about it.

use std::fmt;

use blob::{BlobId, BlobName, Owner};

use crate::{
    AccountId, EmailId, MailboxId, ModSeq, ThreadId,
    keys::counter::{AccountCounts, MailboxTotals},
};

/// One thing that does not hold, true at one version of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Damage {
    /// A record, or a key, cannot be decoded.
    Undecodable {
        /// The key family.
        family: &'static str,
        /// The whole key.
        key: Vec<u8>,
    },
    /// Something else cannot be read.
    Unreadable {
        /// The account, where it is one's.
        account: Option<AccountId>,
        /// In the reader's words.
        detail: String,
    },
    /// An account's counters are not the fold of its emails.
    AccountCounters {
        /// The account.
        account: AccountId,
        /// What is stored.
        stored: AccountCounts,
        /// What the emails say.
        fold: AccountCounts,
    },
    /// A mailbox's counters are not the fold of its messages.
    MailboxCounters {
        /// The account.
        account: AccountId,
        /// The mailbox.
        mailbox: MailboxId,
        /// What is stored.
        stored: MailboxTotals,
        /// What the messages say.
        fold: MailboxTotals,
    },
    /// An email has a state and no meta.
    NoMeta(AccountId, EmailId),
    /// An email has a meta and no state.
    NoState(AccountId, EmailId),
    /// An email's state and meta contradict each other in the named field.
    StateAndMeta(AccountId, EmailId, &'static str),
    /// An email is in no mailbox, and still there.
    NoPlace(AccountId, EmailId),
    /// An email is in a mailbox that does not exist.
    NoSuchMailbox(AccountId, EmailId, MailboxId),
    /// Two emails have one UID.
    UidTwice {
        /// The account.
        account: AccountId,
        /// The mailbox.
        mailbox: MailboxId,
        /// The UID.
        uid: u32,
        /// The emails.
        emails: [EmailId; 2],
    },
    /// A UID has been given out that the counter will give out again.
    NextUid {
        /// The account.
        account: AccountId,
        /// The mailbox.
        mailbox: MailboxId,
        /// What the counter holds.
        next: u32,
        /// The highest UID seen.
        highest: u32,
    },
    /// An email's id will be given out again.
    NextEmail {
        /// The account.
        account: AccountId,
        /// What the counter holds.
        next: u32,
        /// The highest id seen.
        highest: u32,
    },
    /// A mailbox's id will be given out again.
    NextMailbox {
        /// The account.
        account: AccountId,
        /// What the counter holds.
        next: u32,
        /// The highest id seen.
        highest: u32,
    },
    /// An account's id will be given out again.
    NextAccount {
        /// The last id that the counter knows of.
        last: u64,
        /// The highest id seen.
        highest: AccountId,
    },
    /// An email is missing among its thread's members.
    NoThreadMember(AccountId, ThreadId, EmailId),
    /// A thread key that the email's meta names is missing, or names another thread.
    NoThreadKey(AccountId, u64, EmailId),
    /// A thread has a member that does not exist or belongs to another thread.
    StrayThreadMember(AccountId, ThreadId, EmailId),
    /// A thread key belongs to no email.
    StrayThreadKey(AccountId, u64, EmailId),
    /// A mailbox's name is not in the index.
    NoName(AccountId, MailboxId),
    /// An entry of the index of names points to a mailbox that is not there or is named otherwise.
    StrayName {
        /// The account.
        account: AccountId,
        /// Where the entry points to.
        mailbox: MailboxId,
        /// The whole key.
        key: Vec<u8>,
    },
    /// Two mailboxes have one name.
    NameTwice(AccountId, [MailboxId; 2]),
    /// A mailbox's parent does not exist.
    NoParent(AccountId, MailboxId, MailboxId),
    /// The log lacks the entry of a change.
    NoLogEntry(AccountId, EmailId, ModSeq),
    /// The log's entry of this version says something else of the email than what comes after it.
    LogEntry(AccountId, EmailId, ModSeq),
    /// Counters of a mailbox that does not exist.
    StrayCounters(AccountId, MailboxId),
    /// A UID counter of a mailbox that does not exist.
    StrayNextUid(AccountId, MailboxId),
    /// The checkpoint of a mailbox's view cannot be read, or belongs to no mailbox.
    View(AccountId, MailboxId),
    /// Keys of an account that does not exist.
    StrayKeys {
        /// The account.
        account: AccountId,
        /// The key family.
        family: Family,
    },
    /// An account's address does not lead to it.
    NoAddress(AccountId, String),
    /// An address leads to an account that does not exist.
    StrayAddress(String, AccountId),
    /// None of an alias's targets exists. It comes about by removing accounts, so it is no damage.
    DeadAlias(String),
    /// The reference that keeps a blob is missing.
    NoReference(BlobId, Owner),
    /// A reference keeps a blob for something that does not exist or has another blob.
    StrayReference(BlobId, Owner),
    /// A blob that something needs does not exist.
    NoBlob(BlobId, Owner),
    /// A blob that something needs is not what its name says.
    BlobDamaged(BlobId, Owner),
    /// Bytes that nobody needs, and that the sweeper should have removed by now.
    Orphan(BlobName),
    /// Nearly all blobs look like orphans: the references are wrong or lost.
    TooManyOrphans {
        /// Blobs that were old enough to be judged.
        judged: u64,
        /// Those that nobody seems to need.
        orphans: u64,
    },
}

/// A family of an account's keys, named for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Which.
    pub subspace: kv::Subspace,
    /// Its name.
    pub name: &'static str,
}

impl Family {
    /// What an account's other keys can be made from, or belong to.
    pub(super) fn holds_mail(self) -> bool {
        use kv::Subspace::{EmailMeta, EmailState, Mailbox};
        matches!(self.subspace, EmailMeta | EmailState | Mailbox)
    }
}

/// What may be done about a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// `--repair` mends it: what is wrong follows from what is right.
    Repair,
    /// It needs a person: mending it would be a guess, or lose mail.
    Person,
    /// Nothing: it is worth knowing and no damage.
    Nothing,
}

impl Damage {
    /// For programs: never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Undecodable { .. } => "undecodable",
            Self::Unreadable { .. } => "unreadable",
            Self::AccountCounters { .. } => "account_counters",
            Self::MailboxCounters { .. } => "mailbox_counters",
            Self::NoMeta(..) => "no_meta",
            Self::NoState(..) => "no_state",
            Self::StateAndMeta(..) => "state_and_meta",
            Self::NoPlace(..) => "no_place",
            Self::NoSuchMailbox(..) => "no_such_mailbox",
            Self::UidTwice { .. } => "uid_twice",
            Self::NextUid { .. } => "next_uid",
            Self::NextEmail { .. } => "next_email",
            Self::NextMailbox { .. } => "next_mailbox",
            Self::NextAccount { .. } => "next_account",
            Self::NoThreadMember(..) => "no_thread_member",
            Self::NoThreadKey(..) => "no_thread_key",
            Self::StrayThreadMember(..) => "stray_thread_member",
            Self::StrayThreadKey(..) => "stray_thread_key",
            Self::NoName(..) => "no_name",
            Self::StrayName { .. } => "stray_name",
            Self::NameTwice(..) => "name_twice",
            Self::NoParent(..) => "no_parent",
            Self::NoLogEntry(..) => "no_log_entry",
            Self::LogEntry(..) => "log_entry",
            Self::StrayCounters(..) => "stray_counters",
            Self::StrayNextUid(..) => "stray_next_uid",
            Self::View(..) => "view",
            Self::StrayKeys { .. } => "stray_keys",
            Self::NoAddress(..) => "no_address",
            Self::StrayAddress(..) => "stray_address",
            Self::DeadAlias(..) => "dead_alias",
            Self::NoReference(..) => "no_reference",
            Self::StrayReference(..) => "stray_reference",
            Self::NoBlob(..) => "no_blob",
            Self::BlobDamaged(..) => "blob_damaged",
            Self::Orphan(_) => "orphan",
            Self::TooManyOrphans { .. } => "too_many_orphans",
        }
    }

    /// The account, where it is one's.
    pub fn account(&self) -> Option<AccountId> {
        match self {
            Self::Unreadable { account, .. } => *account,
            Self::AccountCounters { account, .. }
            | Self::MailboxCounters { account, .. }
            | Self::UidTwice { account, .. }
            | Self::NextUid { account, .. }
            | Self::NextEmail { account, .. }
            | Self::NextMailbox { account, .. }
            | Self::StrayName { account, .. }
            | Self::StrayKeys { account, .. }
            | Self::NoMeta(account, _)
            | Self::NoState(account, _)
            | Self::StateAndMeta(account, ..)
            | Self::NoPlace(account, _)
            | Self::NoSuchMailbox(account, ..)
            | Self::NoThreadMember(account, ..)
            | Self::NoThreadKey(account, ..)
            | Self::StrayThreadMember(account, ..)
            | Self::StrayThreadKey(account, ..)
            | Self::NoName(account, _)
            | Self::NameTwice(account, _)
            | Self::NoParent(account, ..)
            | Self::NoLogEntry(account, ..)
            | Self::LogEntry(account, ..)
            | Self::StrayCounters(account, _)
            | Self::StrayNextUid(account, _)
            | Self::View(account, _)
            | Self::NoAddress(account, _)
            | Self::StrayAddress(_, account) => Some(*account),
            Self::NoReference(_, owner)
            | Self::StrayReference(_, owner)
            | Self::NoBlob(_, owner)
            | Self::BlobDamaged(_, owner) => match owner {
                Owner::Email(account, _) => Some(AccountId(*account)),
                Owner::Submission(_) => None,
            },
            Self::Undecodable { .. }
            | Self::NextAccount { .. }
            | Self::DeadAlias(_)
            | Self::Orphan(_)
            | Self::TooManyOrphans { .. } => None,
        }
    }

    /// What may be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::AccountCounters { .. }
            | Self::MailboxCounters { .. }
            | Self::NextUid { .. }
            | Self::NextEmail { .. }
            | Self::NextMailbox { .. }
            | Self::NextAccount { .. }
            | Self::NoThreadMember(..)
            | Self::NoThreadKey(..)
            | Self::StrayThreadMember(..)
            | Self::StrayThreadKey(..)
            | Self::NoName(..)
            | Self::StrayName { .. }
            | Self::StrayCounters(..)
            | Self::StrayNextUid(..)
            | Self::View(..)
            | Self::NoAddress(..)
            | Self::NoReference(..)
            | Self::StrayReference(..)
            | Self::Orphan(_) => Remedy::Repair,
            // Counters follow from the emails.
            Self::Undecodable { family: "counter", .. } => Remedy::Repair,
            Self::StrayKeys { family, .. } if !family.holds_mail() => Remedy::Repair,
            Self::StrayKeys { .. }
            | Self::Undecodable { .. }
            | Self::Unreadable { .. }
            | Self::NoMeta(..)
            | Self::NoState(..)
            | Self::StateAndMeta(..)
            | Self::NoPlace(..)
            | Self::NoSuchMailbox(..)
            | Self::UidTwice { .. }
            | Self::NameTwice(..)
            | Self::NoParent(..)
            | Self::NoLogEntry(..)
            | Self::LogEntry(..)
            | Self::StrayAddress(..)
            | Self::NoBlob(..)
            | Self::BlobDamaged(..)
            | Self::TooManyOrphans { .. } => Remedy::Person,
            Self::DeadAlias(_) => Remedy::Nothing,
        }
    }

    /// Whether it is a counter that the fold contradicts.
    pub(super) fn is_counter(&self) -> bool {
        matches!(self, Self::AccountCounters { .. } | Self::MailboxCounters { .. })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable { family, key } => {
                write!(f, "{family} record at {} cannot be decoded", Key(key))
            }
            Self::Unreadable { detail, .. } => f.write_str(detail),
            Self::AccountCounters { stored, fold, .. } => write!(
                f,
                "the account's counters say {} emails, {} bytes; it holds {}, {}",
                stored.emails, stored.bytes, fold.emails, fold.bytes
            ),
            Self::MailboxCounters { mailbox, stored, fold, .. } => write!(
                f,
                "mailbox {mailbox}: counters say {}; it holds {}",
                Totals(stored),
                Totals(fold)
            ),
            Self::NoMeta(_, email) => write!(f, "email {email} has a state and no meta"),
            Self::NoState(_, email) => write!(f, "email {email} has a meta and no state"),
            Self::StateAndMeta(_, email, field) => {
                write!(f, "email {email}: state and meta differ in {field}")
            }
            Self::NoPlace(_, email) => write!(f, "email {email} is in no mailbox"),
            Self::NoSuchMailbox(_, email, mailbox) => {
                write!(f, "email {email} is in mailbox {mailbox}, which does not exist")
            }
            Self::UidTwice { mailbox, uid, emails: [a, b], .. } => {
                write!(f, "mailbox {mailbox}: emails {a} and {b} both have UID {uid}")
            }
            Self::NextUid { mailbox, next, highest, .. } => {
                write!(f, "mailbox {mailbox}: next UID is {next}, but {highest} is given out")
            }
            Self::NextEmail { next, highest, .. } => {
                write!(f, "next email id is {next}, but {highest} is given out")
            }
            Self::NextMailbox { next, highest, .. } => {
                write!(f, "next mailbox id is {next}, but {highest} is given out")
            }
            Self::NextAccount { last, highest } => {
                write!(f, "the last account id is said to be {last}, but {highest} is given out")
            }
            Self::NoThreadMember(_, thread, email) => {
                write!(f, "email {email} is missing among the members of thread {thread}")
            }
            Self::NoThreadKey(_, hash, email) => {
                write!(f, "thread key {hash:016x} of email {email} is missing or wrong")
            }
            Self::StrayThreadMember(_, thread, email) => {
                write!(f, "thread {thread} has the member {email}, which is not of it")
            }
            Self::StrayThreadKey(_, hash, email) => {
                write!(f, "thread key {hash:016x} of email {email} belongs to nothing")
            }
            Self::NoName(_, mailbox) => write!(f, "mailbox {mailbox} is not in the index of names"),
            Self::StrayName { mailbox, key, .. } => {
                write!(f, "index of names at {} points to {mailbox}, wrongly", Key(key))
            }
            Self::NameTwice(_, [a, b]) => write!(f, "mailboxes {a} and {b} have one name"),
            Self::NoParent(_, mailbox, parent) => {
                write!(f, "mailbox {mailbox} is below {parent}, which does not exist")
            }
            Self::NoLogEntry(_, email, at) => {
                write!(f, "email {email} changed at version {at}, and the log has no entry of it")
            }
            Self::LogEntry(_, email, at) => {
                write!(f, "email {email}: the log at version {at} contradicts what follows it")
            }
            Self::StrayCounters(_, mailbox) => {
                write!(f, "counters of mailbox {mailbox}, which does not exist")
            }
            Self::StrayNextUid(_, mailbox) => {
                write!(f, "UID counter of mailbox {mailbox}, which does not exist")
            }
            Self::View(_, mailbox) => {
                write!(f, "the checkpoint of mailbox {mailbox}'s view cannot be used")
            }
            Self::StrayKeys { account, family } => {
                write!(f, "{} keys of account {account}, which does not exist", family.name)
            }
            Self::NoAddress(account, address) => {
                write!(f, "{address} does not lead to account {account}, whose name it is")
            }
            Self::StrayAddress(address, account) => {
                write!(f, "{address} leads to account {account}, which does not exist")
            }
            Self::DeadAlias(address) => write!(f, "no target of {address} exists"),
            Self::NoReference(blob, owner) => {
                write!(f, "{} does not keep its blob {blob}", Who(owner))
            }
            Self::StrayReference(blob, owner) => {
                write!(f, "blob {blob} is kept for {}, which does not have it", Who(owner))
            }
            Self::NoBlob(blob, owner) => {
                write!(f, "blob {blob} of {} does not exist", Who(owner))
            }
            Self::BlobDamaged(blob, owner) => {
                write!(f, "blob {blob} of {} is damaged", Who(owner))
            }
            Self::Orphan(name) => write!(f, "nobody needs blob {name}"),
            Self::TooManyOrphans { judged, orphans } => write!(
                f,
                "nobody seems to need {orphans} of {judged} blobs, so none is removed: are the \
                 references these blobs', and all there?"
            ),
        }
    }
}

struct Totals<'a>(&'a MailboxTotals);

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MailboxTotals { total, unseen, deleted, bytes } = self.0;
        write!(f, "{total} messages, {unseen} unseen, {deleted} deleted, {bytes} bytes")
    }
}

/// A key as `fdbcli` prints it.
struct Key<'a>(&'a [u8]);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                0x21..=0x7e => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

struct Who<'a>(&'a Owner);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Owner::Email(account, email) => write!(f, "email {email} of account {account}"),
            Owner::Submission(id) => {
                f.write_str("submission ")?;
                id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}
