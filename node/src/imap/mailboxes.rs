//! CREATE, DELETE, RENAME, SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.4 to §6.3.8).

use imap::{
    Completion, MailboxName, ResponseCode,
    command::{Create, Rename},
};
use mail::{
    AccountId, AccountUnit, CopyMode, CreateError, DeleteError, Interested, MailboxId, MailboxTree,
    NewMailbox, OperationId, Progress, RenameError, Role, StoreError, StoreTarget, Subscription,
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
        let Some((&name, above)) = path.split_last() else {
            return Err(CreateError::BadName("a mailbox name is not empty"));
        };
        let env = &self.services.env;
        let operation = OperationId::random(env);
        let operations: Vec<OperationId> = above.iter().map(|_| OperationId::random(env)).collect();
        let (account, now, operations) = (self.account(), env.wall(), &operations);
        let made = self
            .services
            .db
            .run_versioned(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                let tree = mail::mailbox_tree(&tx, account).await?;
                let parent = ensure_levels(&mut unit, &tree, above, operations).await?;
                let new = NewMailbox { name: name.to_owned(), parent, role, subscribed: false };
                let made = mail::create_mailbox(&mut unit, &new, operation).await?;
                Ok::<_, CreateError>((made, unit.finish().await?))
            })
            .await?;
        Ok(self.services.announcer.committed(account, made))
    }

    pub(super) async fn delete(&mut self, name: &MailboxName) -> Result<(), Disconnect> {
        let account = self.account();
        let operation = OperationId::random(&self.services.env);
        let now = self.services.env.wall();
        let deleted = self
            .services
            .db
            .run_versioned(|tx| async move {
                let tree = mail::mailbox_tree(&tx, account).await?;
                let mailbox = tree.by_path(list::path(name)).map(|found| found.id);
                let mut unit = AccountUnit::new(&tx, account, now);
                // A second run finds the name gone; its first try left the id in the tree's
                // list of deletions.
                let mailbox = match mailbox {
                    Some(mailbox) => mailbox,
                    None if unit.outcome(operation).await?.is_some() => {
                        return Ok((None, Interested::default()));
                    }
                    None => return Err(DeleteError::NoMailbox),
                };
                mail::delete_mailbox(&mut unit, mailbox, operation).await?;
                Ok((Some(mailbox), unit.finish().await?))
            })
            .await;
        match deleted {
            Ok(deleted) => {
                let mailbox = self.services.announcer.committed(account, deleted);
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
        if path.len() > MAILBOX_DEPTH_MAX {
            return self.done(errors::rename(&RenameError::TooDeep)).await;
        }
        let account = self.account();
        let env = &self.services.env;
        let operation = OperationId::random(env);
        let levels: Vec<OperationId> = above.iter().map(|_| OperationId::random(env)).collect();
        let (now, levels) = (env.wall(), &levels);
        let renamed = self
            .services
            .db
            .run_versioned(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                if unit.outcome(operation).await.map_err(RenameError::from)?.is_some() {
                    return Ok(((), Interested::default()));
                }
                let tree = mail::mailbox_tree(&tx, account).await.map_err(RenameError::from)?;
                let mailbox =
                    tree.by_path(list::path(&rename.from)).ok_or(RenameError::NoMailbox)?.id;
                // RFC 9051 §6.3.6: missing levels above the new name are made; here, so that a
                // RENAME that fails leaves none.
                let parent = ensure_levels(&mut unit, &tree, above, levels).await?;
                mail::rename_mailbox(&mut unit, mailbox, parent, name, operation).await?;
                let interested = unit.finish().await.map_err(RenameError::from)?;
                Ok::<_, RenameFailure>(((), interested))
            })
            .await;
        match renamed {
            Ok(renamed) => {
                self.services.announcer.committed(account, renamed);
                self.done_with_updates(Completion::ok()).await
            }
            Err(RenameFailure::Level(error)) => self.done(errors::create(&error)).await,
            Err(RenameFailure::Rename(error)) => self.done(errors::rename(&error)).await,
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
            .run_versioned(|tx| async move {
                let tree = mail::mailbox_tree(&tx, account).await?;
                let Some(mailbox) = tree.by_path(list::path(name)) else {
                    return Ok((None, Interested::default()));
                };
                let mut unit = AccountUnit::new(&tx, account, now);
                let found = mail::set_subscription(&mut unit, mailbox.id, subscription).await?;
                Ok::<_, StoreError>((found, unit.finish().await?))
            })
            .await;
        match set.map(|set| self.services.announcer.committed(account, set)) {
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

/// Why a RENAME did nothing.
#[derive(Debug, thiserror::Error)]
enum RenameFailure {
    /// A level above the new name cannot be made.
    #[error(transparent)]
    Level(#[from] CreateError),
    /// The mailbox cannot be renamed.
    #[error(transparent)]
    Rename(#[from] RenameError),
}

impl From<kv::Error> for RenameFailure {
    fn from(error: kv::Error) -> Self {
        Self::Rename(error.into())
    }
}

impl kv::AsKvError for RenameFailure {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Level(error) => error.as_kv_error(),
            Self::Rename(error) => error.as_kv_error(),
        }
    }
}

/// The mailbox at `path`; levels that are missing are made. One operation for each level.
async fn ensure_levels(
    unit: &mut AccountUnit,
    tree: &MailboxTree,
    path: &[&str],
    operations: &[OperationId],
) -> Result<Option<MailboxId>, CreateError> {
    let mut parent = None;
    for (name, operation) in path.iter().zip(operations) {
        let held = tree.child(parent, name).map(|held| held.id);
        parent = match held {
            Some(held) => Some(held),
            None => {
                let new =
                    NewMailbox { name: (*name).to_owned(), parent, role: None, subscribed: false };
                Some(mail::create_mailbox(unit, &new, *operation).await?)
            }
        };
    }
    Ok(parent)
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
            let removed = db
                .run_versioned(|tx| async move {
                    let mut unit = AccountUnit::new(&tx, account, now);
                    let progress =
                        mail::remove_mailbox_contents(&mut unit, *mailbox, after).await?;
                    Ok::<_, StoreError>((progress, unit.finish().await?))
                })
                .await?;
            match services.announcer.committed(account, removed) {
                Progress::More(last) => after = Some(last),
                Progress::Done => break,
            }
        }
        db.run(|tx| async move { mail::finish_delete(&tx, account, *mailbox).await }).await?;
    }
    Ok(())
}
