//! LIST, LSUB, STATUS and NAMESPACE (RFC 9051 §6.3.9 to §6.3.11; RFC 3501 §6.3.9; RFC 5258).

use std::collections::BTreeSet;

use imap::{
    Completion, Delimiter, MailboxName, Reply, Response, SpecialUse,
    command::{List, ListReturn, ListSelect, Lsub, StatusCommand, StatusItem},
    response::{
        ChildInfo, ListAttribute, ListEntry, MailboxStatus, Namespace, Namespaces, StatusValue,
    },
};
use mail::{Mailbox, MailboxId, MailboxTree, Role, StoreError, view::ViewError};

use super::{Connection, Disconnect, errors};

/// What separates the levels of a name.
const DELIMITER: char = '/';

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
        for mailbox in tree.iter() {
            let Some(mut entry) = entry(&tree, mailbox) else { continue };
            if !list.matches(&entry.mailbox, delimiter()) {
                continue;
            }
            let selected = is_wanted(list, mailbox);
            if list.select.contains(&ListSelect::RecursiveMatch) {
                entry.child_info = wanted_below(list, &tree, mailbox.id);
            }
            if !selected && entry.child_info.is_empty() {
                continue;
            }
            trim(&mut entry, list);
            let name = entry.mailbox.clone();
            self.reply(Reply::Untagged(Response::List(entry))).await?;
            if !list.status.is_empty() && selected {
                match self.status_values(mailbox.id, &list.status).await {
                    Ok(values) => {
                        let status = MailboxStatus { mailbox: name, values };
                        self.reply(Reply::Untagged(Response::Status(status))).await?;
                    }
                    // Deleted since the tree was read: no STATUS for it (RFC 5819 §2).
                    Err(ViewError::NoMailbox(_)) => {}
                    Err(error) => return self.fail_view(&error).await,
                }
            }
        }
        self.done_with_updates(Completion::ok()).await
    }

    pub(super) async fn lsub(&mut self, lsub: &Lsub) -> Result<(), Disconnect> {
        let tree = match self.tree().await {
            Ok(tree) => tree,
            Err(error) => return self.done(errors::store(&error)).await,
        };
        for mailbox in tree.iter().filter(|mailbox| mailbox.subscribed) {
            let Some(mut entry) = entry(&tree, mailbox) else { continue };
            if lsub.pattern.matches(&lsub.reference, &entry.mailbox, delimiter()) {
                entry.attributes.remove(&ListAttribute::Subscribed);
                self.reply(Reply::Untagged(Response::Lsub(entry))).await?;
            }
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
        match self.status_values(mailbox, &status.items).await {
            Ok(values) => {
                let status = MailboxStatus { mailbox: status.mailbox.clone(), values };
                self.reply(Reply::Untagged(Response::Status(status))).await?;
                self.done_with_updates(Completion::ok()).await
            }
            Err(error) => self.fail_view(&error).await,
        }
    }

    /// STATUS's numbers: counters, and the view only for HIGHESTMODSEQ.
    async fn status_values(
        &self,
        mailbox: MailboxId,
        items: &[StatusItem],
    ) -> Result<Vec<StatusValue>, ViewError> {
        let account = self.account();
        let (validity, counts) = self
            .services
            .db
            .run(|tx| async move {
                let tree = mail::mailbox_tree(&tx, account).await?;
                let found = tree.by_id(mailbox).ok_or(ViewError::NoMailbox(mailbox))?;
                let counts = mail::mailbox_counts(&tx, account, mailbox).await?;
                Ok::<_, ViewError>((found.uid_validity, counts))
            })
            .await?;
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

/// RFC 5258 §3.5: which selection options mailboxes below this one meet, that do not match the
/// pattern themselves.
fn wanted_below(list: &List, tree: &MailboxTree, mailbox: MailboxId) -> BTreeSet<ChildInfo> {
    let mut found = BTreeSet::new();
    for child in tree.iter().filter(|child| child.parent == Some(mailbox)) {
        let shown = name_of(tree, child.id).is_some_and(|name| list.matches(&name, delimiter()));
        if !shown && is_wanted(list, child) {
            if list.select.contains(&ListSelect::Subscribed) {
                found.insert(ChildInfo::Subscribed);
            }
            if list.select.contains(&ListSelect::SpecialUse) {
                found.insert(ChildInfo::SpecialUse);
            }
        }
        found.extend(wanted_below(list, tree, child.id));
    }
    found
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
