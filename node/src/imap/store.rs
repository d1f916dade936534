//! STORE, COPY, MOVE and EXPUNGE (RFC 9051 §6.4.3, §6.4.6 to §6.4.8; RFC 7162 §3.1.3).

use std::{collections::BTreeSet, sync::Arc};

use imap::{
    Completion, IdSet, MessageSet, Numbering, Reply, Response, ResponseCode, SequenceSet,
    command::{Copy, Expunge, Store, StoreEcho, StoreMode},
};
use mail::{
    AccountUnit, CopyError, CopyMode, Deleted, ExpungeMode, KeywordChange, MailboxId, ModSeq,
    OperationId, StoreError, StoreOutcome, StoreRequest, StoreTarget, Uid,
    view::{Message, View},
};

use super::{
    Connection, Disconnect, errors, flags,
    messages::{BadSet, Walk},
    selected::{WithUid, flag_update},
};
use crate::limits;

/// UIDs that a STORE changed, and those that it did not.
#[derive(Default)]
struct Stored {
    stored: BTreeSet<Uid>,
    modified: BTreeSet<Uid>,
    lost: Loss,
    refused: bool,
}

/// Whether messages were gone that the client still believes in.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Loss {
    #[default]
    None,
    Some,
}

impl Connection {
    pub(super) async fn store(&mut self, store: &Store) -> Result<(), Disconnect> {
        match self.store_all(store).await {
            Ok(stored) => self.store_done(store, stored).await,
            Err(completion) => self.done(completion).await,
        }
    }

    async fn store_all(&mut self, store: &Store) -> Result<Stored, Completion> {
        let wanted = flags::from_wire(&store.flags)
            .map_err(|error| Completion::no(error.to_string()).with_code(ResponseCode::Cannot))?;
        let (mailbox, view, mut walk) = self.walk(store.by, &store.set).await?;
        let request = StoreRequest {
            mailbox,
            change: match store.mode {
                StoreMode::Replace => KeywordChange::Replace,
                StoreMode::Add => KeywordChange::Add,
                StoreMode::Remove => KeywordChange::Remove,
            },
            keywords: wanted.keywords,
            deleted: wanted.deleted.then_some(Deleted),
            unchanged_since: store.unchanged_since.map(|since| ModSeq(since.get())),
        };
        let mut all = Stored::default();
        while let Some(messages) =
            walk.next(&self.services.db, &view).await.map_err(|error| errors::view(&error))?
        {
            for chunk in messages.chunks(limits::EMAILS_PER_TRANSACTION) {
                let outcome = self.store_targets(&request, &targets(chunk)).await?;
                all.stored.extend(outcome.stored);
                all.modified.extend(outcome.modified);
                all.refused |= !outcome.refused.is_empty();
                if !outcome.gone.is_empty() {
                    all.lost = Loss::Some;
                }
            }
        }
        Ok(all)
    }

    /// One transaction of a STORE.
    pub(super) async fn store_targets(
        &self,
        request: &StoreRequest,
        targets: &[StoreTarget],
    ) -> Result<StoreOutcome, Completion> {
        let (account, now) = (self.account(), self.services.env.wall());
        let operation = OperationId::random(&self.services.env);
        let outcome = self
            .services
            .db
            .run(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                let outcome = mail::store_keywords(&mut unit, request, targets, operation).await?;
                unit.finish().await?;
                Ok::<_, StoreError>(outcome)
            })
            .await
            .map_err(|error| errors::store(&error))?;
        self.services.hub.ring(account);
        self.services.views.note_commit(account);
        Ok(outcome)
    }

    /// Tells the new flags of what was stored, as of now: they may hold other clients' changes
    /// too (RFC 9051 §6.4.6).
    async fn store_done(&mut self, store: &Store, stored: Stored) -> Result<(), Disconnect> {
        let Stored { stored, modified, lost, refused } = stored;
        let responses = match self.updates(&stored).await {
            Ok(responses) => responses,
            Err(error) => return self.fail_view(&error).await,
        };
        for response in responses {
            self.reply(Reply::Untagged(response)).await?;
        }
        let silent = store.echo == StoreEcho::Silent;
        if !silent || self.session.condstore_enabled() {
            self.echo(store, &stored).await?;
        }
        let completion = if refused {
            Completion::no("A message would have too many keywords").with_code(ResponseCode::Limit)
        } else if lost == Loss::Some {
            errors::expunged()
        } else {
            Completion::ok()
        };
        let modified = self.as_named(store.by, &modified).await;
        match SequenceSet::from_ids(modified) {
            Some(set) => self.done(completion.with_code(ResponseCode::Modified(set))).await,
            None => self.done(completion).await,
        }
    }

    async fn echo(&mut self, store: &Store, stored: &BTreeSet<Uid>) -> Result<(), Disconnect> {
        let Some(selected) = &self.selected else { return Ok(()) };
        let view = Arc::clone(&selected.view);
        // The newest rows: where messages vanished meanwhile the client's view had to stay.
        let newest = match self.services.views.view(self.account(), selected.mailbox).await {
            Ok(newest) => newest,
            Err(error) => {
                tracing::debug!(%error, "no echo");
                return Ok(());
            }
        };
        let with_uid = if store.by == Numbering::Uid || self.session.rev2_enabled() {
            WithUid::Yes
        } else {
            WithUid::No
        };
        for uid in stored {
            let now = one(&self.services.db, &newest, *uid).await;
            let known = one(&self.services.db, &view, *uid).await;
            let (Some(now), Some(known)) = (now, known) else { continue };
            let message = Message { sequence: known.sequence, row: now.row };
            if let Some(Response::Fetch(mut update)) = flag_update(&message, with_uid) {
                if store.echo == StoreEcho::Silent {
                    update
                        .items
                        .retain(|item| !matches!(item, imap::response::FetchItem::Flags(_)));
                }
                self.reply(Reply::Untagged(Response::Fetch(update))).await?;
            }
        }
        Ok(())
    }

    /// UIDs as the command's own numbers.
    async fn as_named(&self, by: Numbering, uids: &BTreeSet<Uid>) -> IdSet {
        let mut named = IdSet::new();
        for uid in uids {
            match (by, &self.selected) {
                (Numbering::Uid, _) => named.insert(uid.number()),
                (Numbering::Sequence, Some(selected)) => {
                    if let Some(known) = one(&self.services.db, &selected.view, *uid).await {
                        named.insert(known.sequence);
                    }
                }
                (Numbering::Sequence, None) => {}
            }
        }
        named
    }

    pub(super) async fn copy(&mut self, copy: &Copy, mode: CopyMode) -> Result<(), Disconnect> {
        match self.copy_all(copy, mode).await {
            Ok((code, Loss::None)) => self.copy_done(Completion::ok(), code, mode).await,
            Ok((code, Loss::Some)) => self.copy_done(errors::expunged(), code, mode).await,
            Err(completion) => self.done_with_updates(completion).await,
        }
    }

    async fn copy_done(
        &mut self,
        completion: Completion,
        code: Option<imap::response::CopyUid>,
        mode: CopyMode,
    ) -> Result<(), Disconnect> {
        let Some(code) = code.map(ResponseCode::CopyUid) else {
            return self.done_with_updates(completion).await;
        };
        match mode {
            // RFC 6851 §4.3: COPYUID comes before the EXPUNGE responses.
            CopyMode::Move => {
                let told = Response::Ok(Some(code), imap::Text::new("Moved"));
                self.reply(Reply::Untagged(told)).await?;
                self.done_with_updates(completion).await
            }
            CopyMode::Copy if completion == Completion::ok() => {
                self.done_with_updates(completion.with_code(code)).await
            }
            CopyMode::Copy => self.done_with_updates(completion).await,
        }
    }

    async fn copy_all(
        &mut self,
        copy: &Copy,
        mode: CopyMode,
    ) -> Result<(Option<imap::response::CopyUid>, Loss), Completion> {
        let tree = self.tree().await.map_err(|error| errors::store(&error))?;
        let target = tree.by_path(super::list::path(&copy.mailbox));
        let target = target.ok_or_else(errors::try_create)?.id;
        let (mailbox, view, mut walk) = self.walk(copy.by, &copy.set).await?;
        let (mut source, mut destination) = (IdSet::new(), IdSet::new());
        let mut validity = None;
        let mut lost = Loss::None;
        while let Some(messages) =
            walk.next(&self.services.db, &view).await.map_err(|error| errors::view(&error))?
        {
            for chunk in messages.chunks(limits::EMAILS_PER_TRANSACTION) {
                let copied = self.copy_targets(mode, mailbox, target, &targets(chunk)).await?;
                validity = imap::UidValidity::new(copied.uid_validity.0);
                if !copied.gone.is_empty() {
                    lost = Loss::Some;
                }
                for (from, to) in copied.pairs {
                    source.insert(from.number());
                    destination.insert(to.number());
                }
            }
        }
        let code = validity
            .and_then(|validity| imap::response::CopyUid::new(validity, source, destination));
        Ok((code, lost))
    }

    /// One transaction of a COPY or MOVE.
    pub(super) async fn copy_targets(
        &self,
        mode: CopyMode,
        from: MailboxId,
        to: MailboxId,
        targets: &[StoreTarget],
    ) -> Result<mail::Copied, Completion> {
        let (account, now) = (self.account(), self.services.env.wall());
        let operation = OperationId::random(&self.services.env);
        let copied = self
            .services
            .db
            .run(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                let copied = mail::copy(&mut unit, mode, from, to, targets, operation).await?;
                unit.finish().await?;
                Ok::<_, CopyError>(copied)
            })
            .await
            .map_err(|error| errors::copy(&error))?;
        self.services.hub.ring(account);
        self.services.views.note_commit(account);
        Ok(copied)
    }

    pub(super) async fn expunge(&mut self, expunge: &Expunge) -> Result<(), Disconnect> {
        match self.expunge_deleted(expunge.uids.as_ref()).await {
            Ok(()) => self.done_with_updates(Completion::ok()).await,
            Err(completion) => self.done(completion).await,
        }
    }

    /// Removes what carries `\Deleted`, among `uids` where they are given.
    pub(super) async fn expunge_deleted(
        &mut self,
        uids: Option<&MessageSet>,
    ) -> Result<(), Completion> {
        let (mailbox, view, mut walk) = match uids {
            Some(uids) => self.walk(Numbering::Uid, uids).await?,
            None => {
                let Some(selected) = &self.selected else { return Ok(()) };
                let view = Arc::clone(&selected.view);
                let walk = Walk::all(&view);
                (selected.mailbox, view, walk)
            }
        };
        let (account, now) = (self.account(), self.services.env.wall());
        // The newest rows say what is deleted; the client's may be older than its own STORE.
        let newest = self
            .services
            .views
            .view(account, mailbox)
            .await
            .map_err(|error| errors::view(&error))?;
        let db = &self.services.db;
        while let Some(messages) = walk.next(db, &view).await.map_err(|e| errors::view(&e))? {
            let (Some(first), Some(last)) = (messages.first(), messages.last()) else { continue };
            let stretch = newest
                .by_uid(db, first.row.uid, last.row.uid)
                .await
                .map_err(|error| errors::view(&error))?;
            let known: BTreeSet<Uid> = messages.iter().map(|message| message.row.uid).collect();
            let doomed: Vec<Message> = stretch
                .messages
                .into_iter()
                .filter(|message| message.row.flags.deleted && known.contains(&message.row.uid))
                .collect();
            for chunk in doomed.chunks(limits::EMAILS_PER_TRANSACTION) {
                let targets = targets(chunk);
                let targets = &targets[..];
                db.run(|tx| async move {
                    let mut unit = AccountUnit::new(&tx, account, now);
                    mail::expunge(&mut unit, mailbox, ExpungeMode::Deleted, targets).await?;
                    unit.finish().await
                })
                .await
                .map_err(|error| errors::store(&error))?;
                self.services.hub.ring(account);
                self.services.views.note_commit(account);
            }
        }
        Ok(())
    }

    /// The mailbox, the client's view of it, and the messages that a command names.
    pub(super) async fn walk(
        &self,
        by: Numbering,
        set: &MessageSet,
    ) -> Result<(MailboxId, Arc<View>, Walk), Completion> {
        let selected =
            self.selected.as_ref().ok_or_else(|| Completion::bad("No mailbox is selected"))?;
        let walk =
            Walk::new(&self.services.db, selected, by, set).await.map_err(|bad| match bad {
                BadSet::Completion(completion) => completion,
                BadSet::View(error) => errors::view(&error),
            })?;
        Ok((selected.mailbox, Arc::clone(&selected.view), walk))
    }
}

pub(super) fn targets(messages: &[Message]) -> Vec<StoreTarget> {
    messages
        .iter()
        .map(|message| StoreTarget { email: message.row.email, uid: message.row.uid })
        .collect()
}

/// One message by its UID.
async fn one(db: &kv::Database, view: &View, uid: Uid) -> Option<Message> {
    match view.by_uid(db, uid, uid).await {
        Ok(stretch) => stretch.messages.into_iter().next(),
        Err(error) => {
            tracing::debug!(%error, "a page cannot be read");
            None
        }
    }
}
