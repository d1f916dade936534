//! LIST, LSUB, STATUS and NAMESPACE (RFC 9051 §6.3.9 to §6.3.11; RFC 3501 §6.3.9; RFC 5258).

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use imap::{
    Completion, Delimiter, MailboxName, Reply, Response, SpecialUse,
    command::{List, ListReturn, ListSelect, Lsub, StatusCommand, StatusItem},
    response::{
        ChildInfo, ListAttribute, ListEntry, MailboxStatus, Namespace, Namespaces, StatusValue,
    },
};
use mail::{
    Mailbox, MailboxCounts, MailboxId, MailboxTree, Role, StoreError, UidValidity,
    limits::MAILBOX_DEPTH_MAX, view::ViewError,
};

use super::{Connection, Disconnect, errors};

/// What separates the levels of a name.
const DELIMITER: char = '/';

/// Mailboxes whose counters one transaction reads for LIST's STATUS.
const MAILBOXES_PER_STATUS: usize = 100;

/// Mailboxes that are matched before other tasks get their turn.
const MAILBOXES_PER_TURN: usize = 64;

pub(super) fn delimiter() -> Delimiter {
    Delimiter::new(DELIMITER).expect("a slash is a delimiter")
}

/// A name's levels, from the top.
pub(super) fn path(name: &MailboxName) -> impl Iterator<Item = &str> {
    name.as_str().split(DELIMITER)
}

/// A mailbox's name; `None` where it cannot be one on the wire.
pub(super) fn name_of(tree: &MailboxTree, mailbox: MailboxId) -> Option<MailboxName> {
    MailboxName::new(tree.path_of(mailbox).join("/"))
}

/// A mailbox's LIST entry with all its attributes.
pub(super) fn entry(tree: &MailboxTree, mailbox: &Mailbox) -> Option<ListEntry> {
    let mut entry = ListEntry::new(name_of(tree, mailbox.id)?, delimiter());
    entry.attributes.insert(if tree.has_children(mailbox.id) {
        ListAttribute::HasChildren
    } else {
        ListAttribute::HasNoChildren
    });
    entry.attributes.extend(mailbox.role.and_then(use_of).map(ListAttribute::SpecialUse));
    if mailbox.subscribed {
        entry.attributes.insert(ListAttribute::Subscribed);
    }
    Some(entry)
}

/// A role as IMAP has it (RFC 6154 §2); INBOX needs none.
fn use_of(role: Role) -> Option<SpecialUse> {
    Some(match role {
        Role::Inbox => return None,
        Role::All => SpecialUse::All,
        Role::Archive => SpecialUse::Archive,
        Role::Drafts => SpecialUse::Drafts,
        Role::Flagged => SpecialUse::Flagged,
        Role::Junk => SpecialUse::Junk,
        Role::Sent => SpecialUse::Sent,
        Role::Trash => SpecialUse::Trash,
    })
}

/// The role for a use; `None` for one that we have no role for.
pub(super) fn role_of(special_use: SpecialUse) -> Option<Role> {
    Some(match special_use {
        SpecialUse::All => Role::All,
        SpecialUse::Archive => Role::Archive,
        SpecialUse::Drafts => Role::Drafts,
        SpecialUse::Flagged => Role::Flagged,
        SpecialUse::Junk => Role::Junk,
        SpecialUse::Sent => Role::Sent,
        SpecialUse::Trash => Role::Trash,
        SpecialUse::Important => return None,
    })
}

impl Connection {
    /// The account's mailboxes as of now.
    pub(super) async fn tree(&self) -> Result<MailboxTree, StoreError> {
        let account = self.account();
        self.services.db.run(|tx| async move { mail::mailbox_tree(&tx, account).await }).await
    }

    pub(super) async fn list(&mut self, list: &List) -> Result<(), Disconnect> {
        let tree = match self.tree().await {
            Ok(tree) => tree,
            Err(error) => return self.done(errors::store(&error)).await,
        };
        let shown = shown(list, &tree).await;
        let below = wanted_below(list, &tree, &shown);
        let mut asked = Vec::new();
        for mailbox in tree.iter().filter(|mailbox| shown.contains_key(&mailbox.id)) {
            let Some(mut entry) = entry(&tree, mailbox) else { continue };
            let selected = is_wanted(list, mailbox);
            entry.child_info = below.get(&mailbox.id).cloned().unwrap_or_default();
            if !selected && entry.child_info.is_empty() {
                continue;
            }
            trim(&mut entry, list);
            let name = entry.mailbox.clone();
            self.reply(Reply::Untagged(Response::List(entry))).await?;
            if !list.status.is_empty() && selected {
                asked.push((mailbox.id, name));
            }
            if asked.len() == MAILBOXES_PER_STATUS {
                let told = self.list_status(list, std::mem::take(&mut asked)).await?;
                if let Err(error) = told {
                    return self.fail_view(&error).await;
                }
            }
        }
        match self.list_status(list, asked).await? {
            Ok(()) => self.done_with_updates(Completion::ok()).await,
            Err(error) => self.fail_view(&error).await,
        }
    }

    /// The STATUS responses of LIST (RFC 5819).
    async fn list_status(
        &mut self,
        list: &List,
        asked: Vec<(MailboxId, MailboxName)>,
    ) -> Result<Result<(), ViewError>, Disconnect> {
        let ids: Vec<MailboxId> = asked.iter().map(|(id, _)| *id).collect();
        let counted = match self.counted(&ids).await {
            Ok(counted) => counted,
            Err(error) => return Ok(Err(error.into())),
        };
        for ((id, mailbox), counted) in asked.into_iter().zip(counted) {
            // Deleted since the tree was read: no STATUS for it (RFC 5819 §2).
            let Some(counted) = counted else { continue };
            match self.status_values(id, counted, &list.status).await {
                Ok(values) => {
                    let status = MailboxStatus { mailbox, values };
                    self.reply(Reply::Untagged(Response::Status(status))).await?;
                }
                Err(ViewError::NoMailbox(_)) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn lsub(&mut self, lsub: &Lsub) -> Result<(), Disconnect> {
        let tree = match self.tree().await {
            Ok(tree) => tree,
            Err(error) => return self.done(errors::store(&error)).await,
        };
        let matches = |name: &MailboxName| lsub.pattern.matches(&lsub.reference, name, delimiter());
        let mut above = BTreeSet::new();
        for mailbox in tree.iter().filter(|mailbox| mailbox.subscribed) {
            let Some(mut entry) = entry(&tree, mailbox) else { continue };
            if matches(&entry.mailbox) {
                entry.attributes.remove(&ListAttribute::Subscribed);
                self.reply(Reply::Untagged(Response::Lsub(entry))).await?;
            } else if lsub.pattern.as_str().contains('%') {
                let unsubscribed = ancestors(&tree, mailbox).filter(|held| !held.subscribed);
                above.extend(unsubscribed.map(|held| held.id));
            }
        }
        // RFC 3501 §6.3.9: `%` shows the way down to what is subscribed below.
        for mailbox in above.iter().filter_map(|id| tree.by_id(*id)) {
            let Some(mut entry) = entry(&tree, mailbox).filter(|entry| matches(&entry.mailbox))
            else {
                continue;
            };
            entry.attributes.insert(ListAttribute::NoSelect);
            self.reply(Reply::Untagged(Response::Lsub(entry))).await?;
        }
        self.done_with_updates(Completion::ok()).await
    }

    pub(super) async fn status(&mut self, status: &StatusCommand) -> Result<(), Disconnect> {
        let tree = match self.tree().await {
            Ok(tree) => tree,
            Err(error) => return self.done(errors::store(&error)).await,
        };
        let Some(mailbox) = tree.by_path(path(&status.mailbox)).map(|found| found.id) else {
            return self.done(errors::no_mailbox()).await;
        };
        let values = match self.counted(&[mailbox]).await.map(|mut counted| counted.pop()) {
            Ok(Some(Some(counted))) => self.status_values(mailbox, counted, &status.items).await,
            Ok(_) => Err(ViewError::NoMailbox(mailbox)),
            Err(error) => Err(error.into()),
        };
        match values {
            Ok(values) => {
                let status = MailboxStatus { mailbox: status.mailbox.clone(), values };
                self.reply(Reply::Untagged(Response::Status(status))).await?;
                self.done_with_updates(Completion::ok()).await
            }
            Err(error) => self.fail_view(&error).await,
        }
    }

    /// Counters of some mailboxes, as one transaction sees them; `None` for those that are gone.
    async fn counted(
        &self,
        mailboxes: &[MailboxId],
    ) -> Result<Vec<Option<(UidValidity, MailboxCounts)>>, StoreError> {
        let account = self.account();
        if mailboxes.is_empty() {
            return Ok(Vec::new());
        }
        self.services
            .db
            .run(|tx| async move {
                let (tx, tree) = (&tx, &mail::mailbox_tree(&tx, account).await?);
                try_join_all(mailboxes.iter().map(|id| async move {
                    let Some(found) = tree.by_id(*id) else { return Ok(None) };
                    let counts = mail::mailbox_counts(tx, account, *id).await?;
                    Ok::<_, StoreError>(Some((found.uid_validity, counts)))
                }))
                .await
            })
            .await
    }

    /// STATUS's numbers: counters, and the view only for HIGHESTMODSEQ.
    async fn status_values(
        &self,
        mailbox: MailboxId,
        (validity, counts): (UidValidity, MailboxCounts),
        items: &[StatusItem],
    ) -> Result<Vec<StatusValue>, ViewError> {
        let account = self.account();
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.extend(match item {
                StatusItem::Messages => Some(StatusValue::Messages(small(counts.messages))),
                StatusItem::Recent => Some(StatusValue::Recent),
                StatusItem::UidNext => imap::Uid::new(counts.uid_next).map(StatusValue::UidNext),
                StatusItem::UidValidity => {
                    imap::UidValidity::new(validity.0).map(StatusValue::UidValidity)
                }
                StatusItem::Unseen => Some(StatusValue::Unseen(small(counts.unseen))),
                StatusItem::Deleted => Some(StatusValue::Deleted(small(counts.deleted))),
                StatusItem::Size => Some(StatusValue::Size(counts.bytes)),
                StatusItem::HighestModSeq => {
                    let view = self.services.views.view(account, mailbox).await?;
                    imap::ModSeq::new(view.highest_modseq().0).map(StatusValue::HighestModSeq)
                }
            });
        }
        Ok(values)
    }

    pub(super) async fn namespace(&mut self) -> Result<(), Disconnect> {
        let personal = Namespace { prefix: None, delimiter: Some(delimiter()) };
        let namespaces =
            Namespaces { personal: vec![personal], other_users: Vec::new(), shared: Vec::new() };
        self.reply(Reply::Untagged(Response::Namespace(namespaces))).await?;
        self.done_with_updates(Completion::ok()).await
    }
}

/// Whether the selection options let a mailbox through (RFC 5258 §3.1).
fn is_wanted(list: &List, mailbox: &Mailbox) -> bool {
    let subscribed = !list.select.contains(&ListSelect::Subscribed) || mailbox.subscribed;
    let special =
        !list.select.contains(&ListSelect::SpecialUse) || mailbox.role.and_then(use_of).is_some();
    subscribed && special
}

/// The mailboxes that match the patterns, by name.
async fn shown(list: &List, tree: &MailboxTree) -> BTreeMap<MailboxId, MailboxName> {
    let mut shown = BTreeMap::new();
    for (index, mailbox) in tree.iter().enumerate() {
        // Long patterns over long names take their time: others get their turn.
        if index % MAILBOXES_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
        let name = name_of(tree, mailbox.id).filter(|name| list.matches(name, delimiter()));
        shown.extend(name.map(|name| (mailbox.id, name)));
    }
    shown
}

/// RFC 5258 §3.5: which selection options mailboxes below another meet, that do not match the
/// pattern themselves.
fn wanted_below(
    list: &List,
    tree: &MailboxTree,
    shown: &BTreeMap<MailboxId, MailboxName>,
) -> BTreeMap<MailboxId, BTreeSet<ChildInfo>> {
    let mut found: BTreeMap<MailboxId, BTreeSet<ChildInfo>> = BTreeMap::new();
    if !list.select.contains(&ListSelect::RecursiveMatch) {
        return found;
    }
    let mut met = BTreeSet::new();
    if list.select.contains(&ListSelect::Subscribed) {
        met.insert(ChildInfo::Subscribed);
    }
    if list.select.contains(&ListSelect::SpecialUse) {
        met.insert(ChildInfo::SpecialUse);
    }
    let hidden = |child: &&Mailbox| !shown.contains_key(&child.id) && is_wanted(list, child);
    for child in tree.iter().filter(hidden) {
        for above in ancestors(tree, child) {
            found.entry(above.id).or_default().extend(&met);
        }
    }
    found
}

/// What stands above a mailbox, from its parent up.
fn ancestors<'a>(tree: &'a MailboxTree, mailbox: &'a Mailbox) -> impl Iterator<Item = &'a Mailbox> {
    let parent = |mailbox: &&'a Mailbox| mailbox.parent.and_then(|id| tree.by_id(id));
    std::iter::successors(parent(&mailbox), parent).take(MAILBOX_DEPTH_MAX)
}

/// Leaves the attributes that were asked for. CHILDREN and SPECIAL-USE are told unasked as well
/// (RFC 9051 §7.3.1, RFC 6154 §2); `\Subscribed` costs a plain LIST nothing either, but rev1
/// clients do not expect it.
fn trim(entry: &mut ListEntry, list: &List) {
    let asked = list.returns.contains(&ListReturn::Subscribed)
        || list.select.contains(&ListSelect::Subscribed);
    if !asked {
        entry.attributes.remove(&ListAttribute::Subscribed);
    }
}
