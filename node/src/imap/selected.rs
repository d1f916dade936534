//! The selected mailbox: what the client has been shown, and how it is told what changed.

use std::sync::Arc;

use imap::{
    Completion, Reply, Response,
    response::{FetchItem, FetchUpdate},
};
use mail::{
    MailboxId, ModSeq,
    view::{self, Message, View, ViewChange, ViewError},
};

use super::{Connection, Disconnect, errors, flags};
use crate::limits;

/// What a session knows of its mailbox.
pub(super) struct Selected {
    pub(super) mailbox: MailboxId,
    /// What the client has been told: its sequence numbers are this view's.
    pub(super) view: Arc<View>,
    /// `$`, by UID (RFC 9051 §6.4.4.1).
    pub(super) saved: imap::IdSet,
}

/// Messages whose flags the client has been told, as of which change: what came later is still
/// to be told. Ranges, because a STORE may name a whole mailbox.
#[derive(Default)]
pub(super) struct Told {
    /// First and last UID, and the MODSEQ of them all, in the order of UIDs.
    runs: Vec<(u32, u32, ModSeq)>,
}

impl Told {
    /// Adds a message; to be called in the order of UIDs.
    pub(super) fn note(&mut self, message: &Message) {
        let (uid, modseq) = (message.row.uid.number(), message.row.modseq);
        match self.runs.last_mut() {
            Some((_, last, held)) if *held == modseq && last.checked_add(1) == Some(uid) => {
                *last = uid;
            }
            _ => self.runs.push((uid, uid, modseq)),
        }
    }

    fn holds(&self, message: &Message) -> bool {
        let uid = message.row.uid.number();
        let at = self.runs.partition_point(|(_, last, _)| *last < uid);
        let run = self.runs.get(at);
        run.is_some_and(|(first, _, modseq)| *first <= uid && *modseq == message.row.modseq)
    }
}

impl Connection {
    /// What changed since the client was last told, as responses, and the session's view moved
    /// on; nothing, and the view left, where the change cannot be told now. Messages in `told`
    /// have been answered for already.
    pub(super) async fn updates(&mut self, told: &Told) -> Result<Vec<Response>, ViewError> {
        let Some(selected) = &self.selected else { return Ok(Vec::new()) };
        let newer = self.services.views.view(self.account(), selected.mailbox).await?;
        self.updates_to(newer, told).await
    }

    /// The same up to a view that is at hand.
    async fn updates_to(
        &mut self,
        newer: Arc<View>,
        told: &Told,
    ) -> Result<Vec<Response>, ViewError> {
        let Some(selected) = &self.selected else { return Ok(Vec::new()) };
        let change = view::diff(&self.services.db, &selected.view, &newer).await?;
        if !change.expunged.is_empty() && !self.session.may_expunge() {
            return Ok(Vec::new());
        }
        let responses = self.to_responses(change, told);
        if let Some(selected) = &mut self.selected {
            selected.view = newer;
        }
        Ok(responses)
    }

    fn to_responses(&self, change: ViewChange, told: &Told) -> Vec<Response> {
        let mut responses = Vec::new();
        for (sequence, _) in &change.expunged {
            responses.extend(imap::SeqNo::new(*sequence).map(Response::Expunge));
        }
        responses.extend(change.exists.map(Response::Exists));
        for message in change.changed.into_iter().filter(|message| !told.holds(message)) {
            let uid = if self.session.rev2_enabled() { WithUid::Yes } else { WithUid::No };
            responses.extend(flag_update(&message, uid));
        }
        responses
    }

    /// The client waits for changes from now on: those of other nodes, too, are to be heard before
    /// the log is looked at. Where the store does not let that happen soon, the poll is the net.
    pub(super) async fn begin_idle(&mut self) {
        let (env, ears) = (&self.services.env, &self.services.ears);
        if let Some(user) = &mut self.user {
            let interest = user.interest.get_or_insert_with(|| ears.listen(user.account));
            if env.timeout(limits::INTEREST_PATIENCE, interest.heard()).await.is_err() {
                tracing::warn!("changes that other nodes make are not heard yet");
            }
        }
        self.tell_idle().await;
    }

    /// Tells an idling client what changed.
    pub(super) async fn tell_idle(&mut self) {
        match self.updates(&Told::default()).await {
            Ok(responses) if responses.is_empty() => {}
            Ok(responses) => {
                if self.session.handle_event(responses).is_err() {
                    // The view has moved on without the client: it must begin anew.
                    tracing::error!("updates refused while idle");
                    self.session.handle_shutdown("Out of step, please reconnect");
                }
            }
            Err(ViewError::NoMailbox(_)) => {
                self.session.handle_shutdown("The selected mailbox was deleted");
            }
            // The next wake-up, poll or command tries again.
            Err(error) => tracing::warn!(%error, "no updates for an idle session"),
        }
    }

    /// Ends a call, after telling what changed.
    pub(super) async fn done_with_updates(
        &mut self,
        completion: Completion,
    ) -> Result<(), Disconnect> {
        self.done_after(completion, &Told::default()).await
    }

    /// Ends a call, after telling what changed but for the messages in `told`.
    pub(super) async fn done_after(
        &mut self,
        completion: Completion,
        told: &Told,
    ) -> Result<(), Disconnect> {
        let updates = self.updates(told).await;
        self.done_telling(completion, updates).await
    }

    /// The same, telling what changed up to a view that is at hand.
    pub(super) async fn done_at(
        &mut self,
        completion: Completion,
        told: &Told,
        newest: Arc<View>,
    ) -> Result<(), Disconnect> {
        let updates = self.updates_to(newest, told).await;
        self.done_telling(completion, updates).await
    }

    async fn done_telling(
        &mut self,
        completion: Completion,
        updates: Result<Vec<Response>, ViewError>,
    ) -> Result<(), Disconnect> {
        match updates {
            Ok(responses) => {
                for response in responses {
                    self.reply(Reply::Untagged(response)).await?;
                }
            }
            Err(ViewError::NoMailbox(_)) => {
                self.session.handle_shutdown("The selected mailbox was deleted");
            }
            // The call itself went well; what changed is told with the next one.
            Err(error) => tracing::warn!(%error, "no updates after a command"),
        }
        self.reply(Reply::Done(completion)).await
    }

    pub(super) async fn done(&mut self, completion: Completion) -> Result<(), Disconnect> {
        self.reply(Reply::Done(completion)).await
    }

    pub(super) async fn fail_view(&mut self, error: &ViewError) -> Result<(), Disconnect> {
        self.done(errors::view(error)).await
    }
}

/// Whether a FETCH response names the UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithUid {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// The FETCH response that tells a message's flags.
pub(super) fn flag_update(message: &Message, with_uid: WithUid) -> Option<Response> {
    let mut items = Vec::with_capacity(3);
    if with_uid == WithUid::Yes {
        items.extend(imap::Uid::new(message.row.uid.number()).map(FetchItem::Uid));
    }
    items.push(FetchItem::Flags(flags::to_wire(&message.row.flags)));
    items.extend(imap::ModSeq::new(message.row.modseq.0).map(FetchItem::ModSeq));
    let seq = imap::SeqNo::new(message.sequence)?;
    Some(Response::Fetch(FetchUpdate { seq, items }))
}
