//! CREATE, DELETE, RENAME, SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.4 to §6.3.8).

use imap::{
    Completion, MailboxName, ResponseCode,
    command::{Create, Rename},
};
use mail::{
    AccountId, AccountUnit, CopyMode, CreateError, DeleteError, MailboxId, MailboxTree, NewMailbox,
    OperationId, Progress, RenameError, Role, StoreError, StoreTarget, Subscription,
    limits::MAILBOX_DEPTH_MAX,
};

use super::{Connection, Disconnect, errors, list, messages::Walk};
use crate::{limits, services::Services};

impl Connection {
    pub(super) async fn create(&mut self, create: &Create) -> Result<(), Disconnect> {
        // RFC 9051 §6.3.4: a trailing delimiter only says that names below are to follow.
        let path: Vec<&str> = create.mailbox.as_str().trim_end_matches('/').split('/').collect();
        let role = match &create.special_use[..] {
            [] => None,
            [one] if list::role_of(*one).is_some() => list::role_of(*one),
            _ => {
                let no = Completion::no("A mailbox has one use, of those that LIST shows")
                    .with_code(ResponseCode::UseAttr);
                return self.done(no).await;
            }
        };
        match self.create_path(&path, role).await {
            Ok(_) => self.done_with_updates(Completion::ok()).await,
            Err(error) => self.done(errors::create(&error)).await,
        }
    }

    /// Makes the mailbox at `path`, and those above it that are missing.
    async fn create_path(
        &self,
        path: &[&str],
        role: Option<Role>,
    ) -> Result<MailboxId, CreateError> {
        if path.len() > MAILBOX_DEPTH_MAX {
            return Err(CreateError::TooMany);
        }
        let env = &self.services.env;
        let operations: Vec<OperationId> = path.iter().map(|_| OperationId::random(env)).collect();
        let (account, now, operations) = (self.account(), env.wall(), &operations);
        let made = self
            .services
            .db
            .run(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                let tree = mail::mailbox_tree(&tx, account).await?;
                let mut parent: Option<MailboxId> = None;
                for (level, (name, operation)) in path.iter().zip(operations).enumerate() {
                    let last = level + 1 == path.len();
                    if let (Some(held), false) = (tree.child(parent, name), last) {
                        parent = Some(held.id);
                        continue;
                    }
                    let new = NewMailbox {
                        name: (*name).to_owned(),
                        parent,
                        role: role.filter(|_| last),
                        subscribed: false,
                    };
                    let id = mail::create_mailbox(&mut unit, &new, *operation).await?;
                    parent = Some(id);
                }
                unit.finish().await?;
                parent.ok_or(CreateError::BadName("a mailbox name is not empty"))
            })
            .await?;
        self.services.hub.ring(account);
        self.services.views.note_commit(account);
        Ok(made)
    }

    pub(super) async fn delete(&mut self, name: &MailboxName) -> Result<(), Disconnect> {
        let account = self.account();
        let operation = OperationId::random(&self.services.env);
        let now = self.services.env.wall();
        let deleted = self
            .services
            .db
            .run(|tx| async move {
                let tree = mail::mailbox_tree(&tx, account).await?;
                let mailbox = tree.by_path(list::path(name)).map(|found| found.id);
                let mut unit = AccountUnit::new(&tx, account, now);
                // A second run finds the name gone; its first try left the id in the tree's
                // list of deletions.
                let mailbox = match mailbox {
                    Some(mailbox) => mailbox,
                    None if unit.outcome(operation).await?.is_some() => return Ok(None),
                    None => return Err(DeleteError::NoMailbox),
                };
                mail::delete_mailbox(&mut unit, mailbox, operation).await?;
                unit.finish().await?;
                Ok(Some(mailbox))
            })
            .await;
        match deleted {
            Ok(mailbox) => {
                self.services.hub.ring(account);
                if self.selected.as_ref().is_some_and(|held| Some(held.mailbox) == mailbox) {
                    self.session.handle_shutdown("The selected mailbox was deleted");
                }
                if let Err(error) = finish_deletions(&self.services, account).await {
                    // The name is free; the rest is taken up at the next login.
                    tracing::warn!(%error, "a deletion is not finished");
                }
                self.done_with_updates(Completion::ok()).await
            }
            Err(error) => self.done(errors::delete(&error)).await,
        }
    }

    pub(super) async fn rename(&mut self, rename: &Rename) -> Result<(), Disconnect> {
        if rename.from.is_inbox() {
            return self.rename_inbox(&rename.to).await;
        }
        let path: Vec<&str> = list::path(&rename.to).collect();
        let Some((name, above)) = path.split_last() else {
            return self.done(errors::no_mailbox()).await;
        };
        // RFC 9051 §6.3.6: missing levels above the new name are made.
        if !above.is_empty()
            && let Err(error) = self.ensure_path(above).await
        {
            return self.done(errors::create(&error)).await;
        }
        let account = self.account();
        let operation = OperationId::random(&self.services.env);
        let now = self.services.env.wall();
        let renamed = self
            .services
            .db
            .run(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                if unit.outcome(operation).await?.is_some() {
                    return Ok(());
                }
                let tree = mail::mailbox_tree(&tx, account).await?;
                let mailbox =
                    tree.by_path(list::path(&rename.from)).ok_or(RenameError::NoMailbox)?.id;
                let parent = parent_of(&tree, above)?;
                mail::rename_mailbox(&mut unit, mailbox, parent, name, operation).await?;
                Ok::<_, RenameError>(unit.finish().await?)
            })
            .await;
        match renamed {
            Ok(()) => {
                self.services.hub.ring(account);
                self.services.views.note_commit(account);
                self.done_with_updates(Completion::ok()).await
            }
            Err(error) => self.done(errors::rename(&error)).await,
        }
    }

    async fn ensure_path(&self, path: &[&str]) -> Result<(), CreateError> {
        let tree = self.tree().await?;
        if tree.by_path(path.iter().copied()).is_some() {
            return Ok(());
        }
        match self.create_path(path, None).await {
            Ok(_) | Err(CreateError::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// RFC 9051 §6.3.6: INBOX stays, and its messages move to a new mailbox.
    async fn rename_inbox(&mut self, to: &MailboxName) -> Result<(), Disconnect> {
        let path: Vec<&str> = list::path(to).collect();
        let target = match self.create_path(&path, None).await {
            Ok(target) => target,
            Err(error) => return self.done(errors::create(&error)).await,
        };
        match self.move_inbox(target).await {
            Ok(()) => self.done_with_updates(Completion::ok()).await,
            Err(completion) => self.done(completion).await,
        }
    }

    async fn move_inbox(&self, target: MailboxId) -> Result<(), Completion> {
        let account = self.account();
        let db = &self.services.db;
        let tree = self.tree().await.map_err(|error| errors::store(&error))?;
        let inbox = tree.by_role(Role::Inbox).ok_or_else(errors::no_mailbox)?.id;
        let view = self.services.views.view(account, inbox).await.map_err(|e| errors::view(&e))?;
        let mut walk = Walk::all(&view);
        while let Some(messages) = walk.next(db, &view).await.map_err(|e| errors::view(&e))? {
            for chunk in messages.chunks(limits::EMAILS_PER_TRANSACTION) {
                let targets: Vec<StoreTarget> = chunk
                    .iter()
                    .map(|message| StoreTarget { email: message.row.email, uid: message.row.uid })
                    .collect();
                self.copy_targets(CopyMode::Move, inbox, target, &targets).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn subscribe(&mut self, name: &MailboxName) -> Result<(), Disconnect> {
        self.set_subscription(name, Subscription::Subscribed).await
    }

    pub(super) async fn unsubscribe(&mut self, name: &MailboxName) -> Result<(), Disconnect> {
        self.set_subscription(name, Subscription::Unsubscribed).await
    }

    async fn set_subscription(
        &mut self,
        name: &MailboxName,
        subscription: Subscription,
    ) -> Result<(), Disconnect> {
        let (account, now) = (self.account(), self.services.env.wall());
        let set = self
            .services
            .db
            .run(|tx| async move {
                let tree = mail::mailbox_tree(&tx, account).await?;
                let Some(mailbox) = tree.by_path(list::path(name)) else { return Ok(None) };
                let mut unit = AccountUnit::new(&tx, account, now);
                let found = mail::set_subscription(&mut unit, mailbox.id, subscription).await?;
                unit.finish().await?;
                Ok::<_, StoreError>(found)
            })
            .await;
        match set {
            Ok(Some(())) => self.done_with_updates(Completion::ok()).await,
            // Nothing to unsubscribe from is no error (RFC 9051 §6.3.8).
            Ok(None) if subscription == Subscription::Unsubscribed => {
                self.done_with_updates(Completion::ok()).await
            }
            Ok(None) => self.done(errors::no_mailbox()).await,
            Err(error) => self.done(errors::store(&error)).await,
        }
    }
}

fn parent_of(tree: &MailboxTree, above: &[&str]) -> Result<Option<MailboxId>, RenameError> {
    if above.is_empty() {
        return Ok(None);
    }
    let parent = tree.by_path(above.iter().copied()).ok_or(RenameError::NoParent)?;
    Ok(Some(parent.id))
}

/// Takes the contents out of every mailbox of the account whose deletion has begun, in bounded
/// transactions, and clears what is left of it.
pub(super) async fn finish_deletions(
    services: &Services,
    account: AccountId,
) -> Result<(), StoreError> {
    let db = &services.db;
    let tree = db.run(|tx| async move { mail::mailbox_tree(&tx, account).await }).await?;
    for mailbox in tree.deleting() {
        let mut after = None;
        loop {
            let now = services.env.wall();
            let progress = db
                .run(|tx| async move {
                    let mut unit = AccountUnit::new(&tx, account, now);
                    let progress =
                        mail::remove_mailbox_contents(&mut unit, *mailbox, after).await?;
                    unit.finish().await?;
                    Ok::<_, StoreError>(progress)
                })
                .await?;
            services.views.note_commit(account);
            match progress {
                Progress::More(last) => after = Some(last),
                Progress::Done => break,
            }
        }
        db.run(|tx| async move { mail::finish_delete(&tx, account, *mailbox).await }).await?;
    }
    Ok(())
}
