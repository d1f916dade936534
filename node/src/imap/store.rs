//! STORE, COPY, MOVE and EXPUNGE (RFC 9051 §6.4.3, §6.4.6 to §6.4.8; RFC 7162 §3.1.3).

use std::sync::Arc;

use futures_util::{StreamExt, stream::FuturesOrdered};
use imap::{
    Completion, IdSet, MessageSet, Numbering, Reply, Response, ResponseCode, SequenceSet,
    command::{Copy, Expunge, Store, StoreEcho, StoreMode},
    response::FetchItem,
};
use mail::{
    AccountUnit, CopyError, CopyMode, Deleted, ExpungeMode, KeywordChange, MailboxId, ModSeq,
    OperationId, StoreError, StoreOutcome, StoreRequest, StoreTarget, Uid,
    view::{Flags, Message, View, ViewError},
};

use super::{
    Connection, Disconnect, errors, flags,
    messages::{BadSet, Walk, renewed},
    selected::{Told, WithUid, flag_update},
};
use crate::limits;

/// UIDs that a STORE changed, and those that it did not.
struct Stored {
    request: StoreRequest,
    stored: IdSet,
    modified: IdSet,
    lost: Loss,
    refused: bool,
}

/// Whether messages were gone that the client still believes in.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Loss {
    None,
    Some,
}

/// From where to where.
struct Ways {
    mode: CopyMode,
    mailbox: MailboxId,
    target: MailboxId,
}

/// How far a COPY or MOVE came. Both sets ascend together: a walk does, and new UIDs do.
struct Copies {
    validity: Option<imap::UidValidity>,
    source: IdSet,
    destination: IdSet,
    lost: Loss,
    failure: Option<Completion>,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            validity: None,
            source: IdSet::new(),
            destination: IdSet::new(),
            lost: Loss::None,
            failure: None,
        }
    }
}

impl Copies {
    fn add(&mut self, copied: mail::Copied) {
        self.validity = imap::UidValidity::new(copied.uid_validity.0);
        if !copied.gone.is_empty() {
            self.lost = Loss::Some;
        }
        for (from, to) in copied.pairs {
            self.source.insert(from.number());
            self.destination.insert(to.number());
        }
    }
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
        let mut all = Stored {
            request: request.clone(),
            stored: IdSet::new(),
            modified: IdSet::new(),
            lost: Loss::None,
            refused: false,
        };
        while let Some(messages) =
            walk.next(&self.services.db, &view).await.map_err(|error| errors::view(&error))?
        {
            let mut chunks = messages.chunks(limits::EMAILS_PER_STORE).map(targets);
            let mut under_way = FuturesOrdered::new();
            loop {
                while under_way.len() < limits::STORES_AT_ONCE
                    && let Some(chunk) = chunks.next()
                {
                    under_way.push_back(self.store_chunk(&request, chunk));
                }
                let Some(outcome) = under_way.next().await else { break };
                let outcome = match outcome {
                    Ok(outcome) => outcome,
                    Err(failed) => {
                        // What may have been committed has to be told to other sessions.
                        while under_way.next().await.is_some() {}
                        return Err(failed);
                    }
                };
                all.stored.extend(outcome.stored.into_iter().map(Uid::number));
                all.modified.extend(outcome.modified.into_iter().map(Uid::number));
                all.refused |= !outcome.refused.is_empty();
                // RFC 9051 §6.4.9: a UID that does not exist is no error.
                if !outcome.gone.is_empty() && store.by == Numbering::Sequence {
                    all.lost = Loss::Some;
                }
            }
        }
        Ok(all)
    }

    async fn store_chunk(
        &self,
        request: &StoreRequest,
        targets: Vec<StoreTarget>,
    ) -> Result<StoreOutcome, Completion> {
        self.store_targets(request, &targets).await
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
            .run_versioned(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                let outcome = mail::store_keywords(&mut unit, request, targets, operation).await?;
                Ok::<_, StoreError>((outcome, unit.finish().await?))
            })
            .await
            .map_err(|error| errors::store(&error))?;
        Ok(self.services.announcer.committed(account, outcome))
    }

    /// Tells what came of a STORE, then what else changed.
    async fn store_done(&mut self, store: &Store, stored: Stored) -> Result<(), Disconnect> {
        let (told, newest) = self.echo(store, &stored).await?;
        let completion = if stored.refused {
            Completion::no("A message would have too many keywords").with_code(ResponseCode::Limit)
        } else if stored.lost == Loss::Some {
            errors::expunged()
        } else {
            Completion::ok()
        };
        let modified = match self.as_named(store.by, stored.modified).await {
            Ok(modified) => SequenceSet::from_ids(modified),
            Err(error) => return self.fail_view(&error).await,
        };
        let completion = match modified {
            Some(set) => completion.with_code(ResponseCode::Modified(set)),
            None => completion,
        };
        match newest {
            // What came since is told with the next command.
            Some(newest) => self.done_at(completion, &told, newest).await,
            None => self.done_after(completion, &told).await,
        }
    }

    /// Tells the flags of what was stored as of now: they may hold other clients' changes too,
    /// which are told even where the client wants to hear nothing of its own (RFC 9051 §6.4.6).
    /// Returns what was told, and the view that it was taken from.
    async fn echo(
        &mut self,
        store: &Store,
        stored: &Stored,
    ) -> Result<(Told, Option<Arc<View>>), Disconnect> {
        let mut told = Told::default();
        let Some(selected) = &self.selected else { return Ok((told, None)) };
        let (mailbox, view) = (selected.mailbox, Arc::clone(&selected.view));
        let db = self.services.db.clone();
        let newest = match self.services.views.view(self.account(), mailbox).await {
            Ok(newest) => newest,
            Err(error) => {
                // What is not told here is told with the next command.
                tracing::debug!(%error, "no echo");
                return Ok((told, None));
            }
        };
        let mut walk = Walk::over(Numbering::Uid, &stored.stored);
        loop {
            let stretch = async {
                let Some(known) = walk.next(&db, &view).await? else { return Ok(None) };
                let now = renewed(&db, &newest, &known).await?;
                Ok::<_, ViewError>(Some((known, now)))
            };
            match stretch.await {
                Ok(Some((known, now))) => {
                    self.echo_stretch(store, &stored.request, &known, now, &mut told).await?;
                }
                Ok(None) => return Ok((told, Some(newest))),
                Err(error) => {
                    tracing::debug!(%error, "no echo");
                    return Ok((told, None));
                }
            }
        }
    }

    /// The echo of some messages: as the client knows them, and as they are now.
    async fn echo_stretch(
        &mut self,
        store: &Store,
        request: &StoreRequest,
        known: &[Message],
        now: Vec<Message>,
        told: &mut Told,
    ) -> Result<(), Disconnect> {
        let with_uid = if store.by == Numbering::Uid || self.session.rev2_enabled() {
            WithUid::Yes
        } else {
            WithUid::No
        };
        let mut known = known.iter();
        for message in now {
            let before = known.find(|known| known.row.uid == message.row.uid);
            let as_wanted = before
                .is_some_and(|before| changed(&before.row.flags, request) == message.row.flags);
            told.note(&message);
            let quiet = store.echo == StoreEcho::Silent && as_wanted;
            // RFC 7162 §3.1.3: `.SILENT` does not silence MODSEQ.
            if quiet && !self.session.condstore_enabled() {
                continue;
            }
            if let Some(Response::Fetch(mut update)) = flag_update(&message, with_uid) {
                if quiet {
                    update.items.retain(|item| !matches!(item, FetchItem::Flags(_)));
                }
                self.reply(Reply::Untagged(Response::Fetch(update))).await?;
            }
        }
        Ok(())
    }

    /// UIDs as the command's own numbers.
    async fn as_named(&self, by: Numbering, uids: IdSet) -> Result<IdSet, ViewError> {
        let (Numbering::Sequence, Some(selected)) = (by, &self.selected) else { return Ok(uids) };
        let mut named = IdSet::new();
        let mut walk = Walk::over(Numbering::Uid, &uids);
        while let Some(messages) = walk.next(&self.services.db, &selected.view).await? {
            named.extend(messages.into_iter().map(|message| message.sequence));
        }
        Ok(named)
    }

    pub(super) async fn copy(&mut self, copy: &Copy, mode: CopyMode) -> Result<(), Disconnect> {
        let target = match self.tree().await {
            Ok(tree) => tree.by_path(super::list::path(&copy.mailbox)).map(|found| found.id),
            Err(error) => return self.done(errors::store(&error)).await,
        };
        let Some(target) = target else { return self.done(errors::try_create()).await };
        let (mailbox, view, walk) = match self.walk(copy.by, &copy.set).await {
            Ok(found) => found,
            Err(completion) => return self.done(completion).await,
        };
        let ways = Ways { mode, mailbox, target };
        let copies = self.copy_all(&ways, &view, walk).await;
        let failure = match (copies.failure, copies.lost) {
            // RFC 9051 §6.4.9: a UID that does not exist is no error.
            (None, Loss::Some) if copy.by == Numbering::Sequence => Some(errors::expunged()),
            (failure, _) => failure,
        };
        let (validity, source, destination) = (copies.validity, copies.source, copies.destination);
        if mode == CopyMode::Copy
            && let Some(failure) = failure
        {
            self.undo_copy(target, &destination).await;
            return self.done_with_updates(failure).await;
        }
        let code = validity
            .and_then(|validity| imap::response::CopyUid::new(validity, source, destination))
            .map(ResponseCode::CopyUid);
        match (mode, code) {
            // RFC 6851 §4.3: COPYUID comes before the EXPUNGE responses, and where a MOVE stops
            // half way it is still true of what was moved (§3.3).
            (CopyMode::Move, Some(code)) => {
                let told = Response::Ok(Some(code), imap::Text::new("Moved"));
                self.reply(Reply::Untagged(told)).await?;
                self.done_with_updates(failure.unwrap_or_else(Completion::ok)).await
            }
            (CopyMode::Copy, Some(code)) => {
                self.done_with_updates(Completion::ok().with_code(code)).await
            }
            (_, None) => self.done_with_updates(failure.unwrap_or_else(Completion::ok)).await,
        }
    }

    /// Copies or moves what the walk names, as far as it goes.
    async fn copy_all(&self, ways: &Ways, view: &View, mut walk: Walk) -> Copies {
        let mut copies = Copies::default();
        loop {
            let messages = match walk.next(&self.services.db, view).await {
                Ok(Some(messages)) => messages,
                Ok(None) => return copies,
                Err(error) => return Copies { failure: Some(errors::view(&error)), ..copies },
            };
            for chunk in messages.chunks(limits::EMAILS_PER_TRANSACTION) {
                let Ways { mode, mailbox, target } = *ways;
                match self.copy_targets(mode, mailbox, target, &targets(chunk)).await {
                    Ok(copied) => copies.add(copied),
                    Err(failure) => return Copies { failure: Some(failure), ..copies },
                }
            }
        }
    }

    /// Takes back what a COPY has done (RFC 9051 §6.4.7: it does all or nothing).
    async fn undo_copy(&self, target: MailboxId, copies: &IdSet) {
        if copies.is_empty() {
            return;
        }
        let (account, now) = (self.account(), self.services.env.wall());
        let undone = async {
            let view = self.services.views.view(account, target).await?;
            let mut walk = Walk::over(Numbering::Uid, copies);
            while let Some(messages) = walk.next(&self.services.db, &view).await? {
                for chunk in messages.chunks(limits::EMAILS_PER_TRANSACTION) {
                    self.expunge_targets(target, ExpungeMode::All, &targets(chunk), now).await?;
                }
            }
            Ok::<_, ViewError>(())
        };
        if let Err(error) = undone.await {
            tracing::warn!(%error, "a part of a copy stays");
        }
    }

    /// One transaction of an EXPUNGE.
    async fn expunge_targets(
        &self,
        mailbox: MailboxId,
        mode: ExpungeMode,
        targets: &[StoreTarget],
        now: env::Timestamp,
    ) -> Result<(), StoreError> {
        let account = self.account();
        let expunged = self
            .services
            .db
            .run_versioned(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                mail::expunge(&mut unit, mailbox, mode, targets).await?;
                Ok::<_, StoreError>(((), unit.finish().await?))
            })
            .await?;
        self.services.announcer.committed(account, expunged);
        Ok(())
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
            .run_versioned(|tx| async move {
                let mut unit = AccountUnit::new(&tx, account, now);
                let copied = mail::copy(&mut unit, mode, from, to, targets, operation).await?;
                Ok::<_, CopyError>((copied, unit.finish().await?))
            })
            .await
            .map_err(|error| errors::copy(&error))?;
        Ok(self.services.announcer.committed(account, copied))
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
        let db = &self.services.db;
        // Most often nothing is, and a large mailbox need not be looked through.
        let counts = db.run(|tx| async move { mail::mailbox_counts(&tx, account, mailbox).await });
        if counts.await.map_err(|error| errors::store(&error))?.deleted == 0 {
            return Ok(());
        }
        // The newest rows say what is deleted; the client's may be older than its own STORE.
        let newest = self
            .services
            .views
            .view(account, mailbox)
            .await
            .map_err(|error| errors::view(&error))?;
        while let Some(messages) = walk.next(db, &view).await.map_err(|e| errors::view(&e))? {
            let mut doomed = renewed(db, &newest, &messages).await.map_err(|e| errors::view(&e))?;
            doomed.retain(|message| message.row.flags.deleted);
            for chunk in doomed.chunks(limits::EMAILS_PER_TRANSACTION) {
                self.expunge_targets(mailbox, ExpungeMode::Deleted, &targets(chunk), now)
                    .await
                    .map_err(|error| errors::store(&error))?;
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

/// A message's flags once the request has been done.
fn changed(before: &Flags, request: &StoreRequest) -> Flags {
    let keywords = match request.change {
        KeywordChange::Replace => request.keywords.clone(),
        KeywordChange::Add => before.keywords.union(&request.keywords),
        KeywordChange::Remove => before.keywords.difference(&request.keywords),
    };
    let deleted = match (request.change, request.deleted) {
        (KeywordChange::Replace, deleted) => deleted.is_some(),
        (KeywordChange::Add, Some(Deleted)) => true,
        (KeywordChange::Remove, Some(Deleted)) => false,
        (_, None) => before.deleted,
    };
    Flags { keywords, deleted }
}
