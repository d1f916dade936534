//! Mailboxes: the tree, creation, renaming, deletion, subscription.
//!
//! A deletion frees the name and marks the record in one transaction; the contents follow in
//! bounded ones ([`crate::remove_mailbox_contents`]), then [`finish_delete`] clears what is left.
//! Whoever sees a record still marked may carry on.

use std::collections::BTreeMap;

use kv::{Prefetch, RangeQuery, Transaction};
use prost::Message;

use crate::{
    AccountId, AccountUnit, MailboxId, OperationId, StoreError, Uid, UidValidity,
    error::store_error,
    keys::{
        self, counter::MailboxTotals, log::MailboxChangeKind, mailbox::MailboxRecord,
        view::ViewHeader,
    },
    limits,
    operation::Outcome,
    uid_validity,
    unit::{live_account, read_u32},
};

/// The one name that means the same in any case (RFC 9051 §5.1).
const INBOX: &str = "INBOX";

/// What a mailbox is for (RFC 8621 §2, RFC 6154 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Where new mail arrives. Not a special use in IMAP; the name `INBOX` says it.
    Inbox,
    /// `\All`
    All,
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Flagged`
    Flagged,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

impl Role {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Inbox, "inbox"),
        (Self::All, "all"),
        (Self::Archive, "archive"),
        (Self::Drafts, "drafts"),
        (Self::Flagged, "flagged"),
        (Self::Junk, "junk"),
        (Self::Sent, "sent"),
        (Self::Trash, "trash"),
    ];

    /// JMAP's name.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }

    /// From JMAP's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, held)| *held == name).map(|(role, _)| *role)
    }
}

/// A mailbox as it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its id.
    pub id: MailboxId,
    /// Its own component of the path.
    pub name: String,
    /// Its parent.
    pub parent: Option<MailboxId>,
    /// What it is for.
    pub role: Option<Role>,
    /// RFC 9051 §2.3.1.1.
    pub uid_validity: UidValidity,
    /// The owner has subscribed to it.
    pub subscribed: bool,
}

/// All mailboxes of an account, as one transaction saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailboxTree {
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    /// The same by parent and name, so that a walk over all paths stays linear.
    by_name: BTreeMap<(Option<MailboxId>, String), MailboxId>,
    deleting: Vec<MailboxId>,
}

impl MailboxTree {
    /// The mailboxes in id order.
    pub fn iter(&self) -> impl Iterator<Item = &Mailbox> {
        self.mailboxes.values()
    }

    /// One mailbox.
    pub fn by_id(&self, id: MailboxId) -> Option<&Mailbox> {
        self.mailboxes.get(&id)
    }

    /// The mailbox of that role.
    pub fn by_role(&self, role: Role) -> Option<&Mailbox> {
        self.iter().find(|mailbox| mailbox.role == Some(role))
    }

    /// The child of `parent` with that name. `INBOX` at the top matches in any case (RFC 9051
    /// §5.1).
    pub fn child(&self, parent: Option<MailboxId>, name: &str) -> Option<&Mailbox> {
        let id = self.by_name.get(&(parent, canonical_name(parent, name)))?;
        self.by_id(*id)
    }

    /// The mailboxes directly below `parent`, by name; those at the top for `None`.
    pub fn children(&self, parent: Option<MailboxId>) -> impl Iterator<Item = &Mailbox> {
        let from = self.by_name.range((parent, String::new())..);
        from.take_while(move |((held, _), _)| *held == parent).filter_map(|(_, id)| self.by_id(*id))
    }

    /// The mailbox at a path.
    pub fn by_path<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Mailbox> {
        let mut found: Option<&Mailbox> = None;
        for name in path {
            found = Some(self.child(found.map(|mailbox| mailbox.id), name)?);
        }
        found
    }

    /// The names from the top down to `id`.
    pub fn path_of(&self, id: MailboxId) -> Vec<&str> {
        let mut path = Vec::new();
        let mut next = self.by_id(id);
        while let Some(mailbox) = next
            && path.len() <= limits::MAILBOX_DEPTH_MAX
        {
            path.push(mailbox.name.as_str());
            next = mailbox.parent.and_then(|parent| self.by_id(parent));
        }
        path.reverse();
        path
    }

    /// Whether a mailbox has children.
    pub fn has_children(&self, id: MailboxId) -> bool {
        self.children(Some(id)).next().is_some()
    }

    /// Mailboxes whose deletion has begun and not ended.
    pub fn deleting(&self) -> &[MailboxId] {
        &self.deleting
    }
}

/// Messages in a mailbox, by the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailboxCounts {
    /// Messages.
    pub messages: u64,
    /// Without `$seen`.
    pub unseen: u64,
    /// With `\Deleted`.
    pub deleted: u64,
    /// Bytes.
    pub bytes: u64,
    /// The UID that the next message gets.
    pub uid_next: u32,
}

/// A mailbox to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMailbox {
    /// One component of the path.
    pub name: String,
    /// Under which mailbox.
    pub parent: Option<MailboxId>,
    /// What it is for.
    pub role: Option<Role>,
    /// Whether the owner is subscribed from the start.
    pub subscribed: bool,
}

/// Why a mailbox was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is taken.
    #[error("the mailbox exists")]
    Exists,
    /// The parent does not exist.
    #[error("the parent does not exist")]
    NoParent,
    /// The name cannot be a mailbox's.
    #[error("{0}")]
    BadName(&'static str),
    /// Another mailbox has the role.
    #[error("another mailbox has that use")]
    RoleTaken,
    /// The account has as many mailboxes, or levels, as one may.
    #[error("too many mailboxes, or too many levels")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
store_error!(CreateError);

/// Why a mailbox was not renamed.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// It does not exist.
    #[error("the mailbox does not exist")]
    NoMailbox,
    /// The new name is taken.
    #[error("the new name exists")]
    Exists,
    /// The new parent does not exist.
    #[error("the parent does not exist")]
    NoParent,
    /// The name cannot be a mailbox's.
    #[error("{0}")]
    BadName(&'static str),
    /// INBOX keeps its name. (RFC 9051 §6.3.6's renaming of INBOX creates the new mailbox and
    /// moves the messages.)
    #[error("INBOX cannot be renamed")]
    Inbox,
    /// A mailbox cannot move below itself.
    #[error("a mailbox cannot be moved below itself")]
    Cycle,
    /// Too many levels.
    #[error("too many levels")]
    TooDeep,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
store_error!(RenameError);

/// Why a mailbox was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// It does not exist.
    #[error("the mailbox does not exist")]
    NoMailbox,
    /// It has children (RFC 9051 §6.3.5).
    #[error("the mailbox has children")]
    HasChildren,
    /// INBOX cannot be deleted.
    #[error("INBOX cannot be deleted")]
    Inbox,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
store_error!(DeleteError);

/// All mailboxes, in one range read.
///
/// # Errors
/// [`StoreError`].
pub async fn mailbox_tree(tx: &Transaction, account: AccountId) -> Result<MailboxTree, StoreError> {
    let (begin, end) = keys::mailbox::range(account);
    let mut tree = MailboxTree::default();
    for pair in tx.range(RangeQuery::new(begin, end)).collect().await? {
        let id = keys::mailbox::mailbox_of(&pair.key)
            .ok_or_else(|| StoreError::damaged("mailbox", "a key that is no mailbox's"))?;
        let record: MailboxRecord = keys::decode("mailbox", &pair.value)?;
        if record.deleting {
            tree.deleting.push(id);
            continue;
        }
        let mailbox = Mailbox {
            id,
            name: record.name,
            parent: record.parent.map(MailboxId),
            role: record.role.as_deref().and_then(Role::parse),
            uid_validity: UidValidity(record.uid_validity),
            subscribed: record.subscribed,
        };
        tree.by_name.insert((mailbox.parent, mailbox.name.clone()), id);
        tree.mailboxes.insert(id, mailbox);
    }
    Ok(tree)
}

/// The account's INBOX, in one read.
///
/// # Errors
/// [`StoreError`].
pub async fn inbox(tx: &Transaction, account: AccountId) -> Result<Option<MailboxId>, StoreError> {
    let id = read_u32(tx, &inbox_key(account)).await?;
    Ok(id.map(MailboxId))
}

/// What [`inbox`] will read.
pub fn inbox_ahead(ahead: &mut Prefetch, account: AccountId) {
    ahead.key(inbox_key(account));
}

fn inbox_key(account: AccountId) -> Vec<u8> {
    keys::mailbox::name_key(account, None, "INBOX")
}

/// A mailbox's counts (RFC 9051 §6.3.11), in two reads whatever it holds.
///
/// # Errors
/// [`StoreError`].
pub async fn mailbox_counts(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<MailboxCounts, StoreError> {
    let counter = tx.get(&keys::counter::mailbox_key(account, mailbox)).await?;
    let totals = MailboxTotals::decode(counter.as_deref())?;
    let uid_next = read_u32(tx, &keys::mailbox::next_uid_key(account, mailbox)).await?;
    let count = |field: i64| u64::try_from(field).unwrap_or(0);
    Ok(MailboxCounts {
        messages: count(totals.total),
        unseen: count(totals.unseen),
        deleted: count(totals.deleted),
        bytes: count(totals.bytes),
        uid_next: uid_next.unwrap_or(Uid::MIN.number()),
    })
}

/// Makes a mailbox. Its UIDVALIDITY is one that its name never had before ([`uid_validity`]).
///
/// # Errors
/// [`CreateError`].
pub async fn create_mailbox(
    unit: &mut AccountUnit,
    new: &NewMailbox,
    operation: OperationId,
) -> Result<MailboxId, CreateError> {
    if let Some((_, outcome)) = unit.outcome(operation).await? {
        return Ok(MailboxId(outcome.number));
    }
    let name = canonical_name(new.parent, &new.name);
    check_name(&name).map_err(CreateError::BadName)?;
    let tree = mailbox_tree(&unit.tx, unit.account).await?;
    if let Some(parent) = new.parent {
        if tree.by_id(parent).is_none() {
            return Err(CreateError::NoParent);
        }
        if tree.path_of(parent).len() >= limits::MAILBOX_DEPTH_MAX {
            return Err(CreateError::TooMany);
        }
    }
    if tree.mailboxes.len() >= limits::MAILBOXES_MAX {
        return Err(CreateError::TooMany);
    }
    if tree.child(new.parent, &name).is_some() {
        return Err(CreateError::Exists);
    }
    if new.role.is_some_and(|role| tree.by_role(role).is_some()) {
        return Err(CreateError::RoleTaken);
    }
    // A session that outlived its account must not leave keys that nobody clears.
    live_account(&unit.tx, unit.account).await?;
    let next_key = keys::mailbox::next_mailbox_key(unit.account);
    let id = MailboxId(read_u32(&unit.tx, &next_key).await?.unwrap_or(1));
    unit.tx.set(&next_key, &id.0.saturating_add(1).to_le_bytes());
    let record = MailboxRecord {
        name,
        parent: new.parent.map(|parent| parent.0),
        role: new.role.map(|role| role.as_str().to_owned()),
        uid_validity: uid_validity::next(unit).await?.0,
        subscribed: new.subscribed,
        acl: Vec::new(),
        deleting: false,
    };
    unit.write_mailbox(id, &record);
    let index = keys::mailbox::name_key(unit.account, new.parent, &record.name);
    unit.tx.set(&index, &id.0.to_le_bytes());
    write_first_header(unit, id).await?;
    unit.note_mailbox(id, MailboxChangeKind::Created);
    unit.record(operation, &Outcome { number: id.0, ..Outcome::default() });
    Ok(id)
}

/// Renames or moves a mailbox; its children come along, because they name it as parent.
///
/// # Errors
/// [`RenameError`].
pub async fn rename_mailbox(
    unit: &mut AccountUnit,
    mailbox: MailboxId,
    parent: Option<MailboxId>,
    name: &str,
    operation: OperationId,
) -> Result<(), RenameError> {
    if unit.outcome(operation).await?.is_some() {
        return Ok(());
    }
    let name = canonical_name(parent, name);
    check_name(&name).map_err(RenameError::BadName)?;
    let tree = mailbox_tree(&unit.tx, unit.account).await?;
    let held = tree.by_id(mailbox).ok_or(RenameError::NoMailbox)?;
    if held.role == Some(Role::Inbox) && (parent.is_some() || name != INBOX) {
        return Err(RenameError::Inbox);
    }
    if tree.child(parent, &name).is_some_and(|held| held.id != mailbox) {
        return Err(RenameError::Exists);
    }
    let mut above = parent;
    let mut depth = 0;
    while let Some(id) = above {
        if id == mailbox {
            return Err(RenameError::Cycle);
        }
        above = tree.by_id(id).ok_or(RenameError::NoParent)?.parent;
        depth += 1;
    }
    if depth + height(&tree, mailbox, 0) > limits::MAILBOX_DEPTH_MAX {
        return Err(RenameError::TooDeep);
    }
    let mut record = read_record(unit, mailbox).await?.ok_or(RenameError::NoMailbox)?;
    let old_parent = record.parent.map(MailboxId);
    unit.tx.clear(&keys::mailbox::name_key(unit.account, old_parent, &record.name));
    record.name = name;
    record.parent = parent.map(|parent| parent.0);
    let index = keys::mailbox::name_key(unit.account, parent, &record.name);
    unit.tx.set(&index, &mailbox.0.to_le_bytes());
    unit.write_mailbox(mailbox, &record);
    unit.note_mailbox(mailbox, MailboxChangeKind::Updated);
    unit.record(operation, &Outcome::default());
    Ok(())
}

/// Sets or clears a subscription. Running it again changes nothing.
///
/// # Errors
/// [`StoreError`]; inner `None` where the mailbox does not exist.
pub async fn set_subscription(
    unit: &mut AccountUnit,
    mailbox: MailboxId,
    subscription: Subscription,
) -> Result<Option<()>, StoreError> {
    let Some(mut record) = read_record(unit, mailbox).await? else { return Ok(None) };
    let subscribed = subscription == Subscription::Subscribed;
    if record.subscribed != subscribed {
        record.subscribed = subscribed;
        unit.write_mailbox(mailbox, &record);
        unit.note_mailbox(mailbox, MailboxChangeKind::Updated);
    }
    Ok(Some(()))
}

/// Whether the owner wants a mailbox listed by LSUB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// Yes.
    Subscribed,
    /// No.
    Unsubscribed,
}

/// Begins a deletion: the name is free and nothing can be added, from this commit on.
///
/// # Errors
/// [`DeleteError`].
pub async fn delete_mailbox(
    unit: &mut AccountUnit,
    mailbox: MailboxId,
    operation: OperationId,
) -> Result<(), DeleteError> {
    if unit.outcome(operation).await?.is_some() {
        return Ok(());
    }
    let tree = mailbox_tree(&unit.tx, unit.account).await?;
    let held = tree.by_id(mailbox).ok_or(DeleteError::NoMailbox)?;
    if held.role == Some(Role::Inbox) {
        return Err(DeleteError::Inbox);
    }
    if tree.has_children(mailbox) {
        return Err(DeleteError::HasChildren);
    }
    let mut record = read_record(unit, mailbox).await?.ok_or(DeleteError::NoMailbox)?;
    record.deleting = true;
    unit.write_mailbox(mailbox, &record);
    unit.tx.clear(&keys::mailbox::name_key(unit.account, held.parent, &record.name));
    unit.note_mailbox(mailbox, MailboxChangeKind::Destroyed);
    unit.record(operation, &Outcome::default());
    Ok(())
}

/// Clears what a deleted mailbox leaves, once nothing is in it. The id is not used again.
///
/// # Errors
/// [`StoreError`].
pub async fn finish_delete(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<(), StoreError> {
    tx.clear(&keys::mailbox::key(account, mailbox));
    tx.clear(&keys::mailbox::next_uid_key(account, mailbox));
    tx.clear(&keys::counter::mailbox_key(account, mailbox));
    tx.clear(&keys::view::header_key(account, mailbox));
    let (begin, end) = keys::view::page_range(account, mailbox);
    tx.clear_range(&begin, &end);
    Ok(())
}

/// The mailbox is empty at the version that this transaction reads at, so a view of it need not
/// go back further in the account's log.
async fn write_first_header(unit: &AccountUnit, mailbox: MailboxId) -> Result<(), StoreError> {
    let as_of = unit.tx.read_version().await?;
    let header = ViewHeader { as_of, uid_next: Uid::MIN.number(), ..ViewHeader::default() };
    let key = keys::view::header_key(unit.account, mailbox);
    unit.tx.set(&key, &header.encode_to_vec());
    Ok(())
}

/// Through the unit, which knows then what it writes over.
async fn read_record(
    unit: &mut AccountUnit,
    mailbox: MailboxId,
) -> Result<Option<MailboxRecord>, StoreError> {
    Ok(unit.mailbox(mailbox).await?.cloned())
}

fn canonical_name(parent: Option<MailboxId>, name: &str) -> String {
    if parent.is_none() && name.eq_ignore_ascii_case(INBOX) {
        INBOX.to_owned()
    } else {
        name.to_owned()
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a mailbox name is not empty");
    }
    if name.len() > limits::MAILBOX_NAME_BYTES_MAX {
        return Err("a mailbox name has at most 255 bytes");
    }
    // RFC 9051 §5.1: CTL characters and the wildcards cannot be typed back by clients.
    if name.chars().any(|c| c.is_control() || matches!(c, '/' | '%' | '*')) {
        return Err("a mailbox name holds no control character, '/', '%' or '*'");
    }
    Ok(())
}

/// Levels from `mailbox` down to its deepest child, itself included.
fn height(tree: &MailboxTree, mailbox: MailboxId, guard: usize) -> usize {
    if guard > limits::MAILBOX_DEPTH_MAX {
        return guard;
    }
    let children = tree.children(Some(mailbox));
    1 + children.map(|child| height(tree, child.id, guard + 1)).max().unwrap_or(0)
}
