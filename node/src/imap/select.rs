//! SELECT, EXAMINE, CLOSE and UNSELECT (RFC 9051 §6.3.2, §6.3.3, §6.4.1, §6.4.2).

use std::collections::BTreeSet;

use imap::{
    CloseMode, Completion, Flag, Reply, Response, ResponseCode, Text,
    command::{Select, SelectMode},
    response::NewKeywords,
};

use super::{Connection, Disconnect, errors, flags, list, selected::Selected};

impl Connection {
    pub(super) async fn select(&mut self, select: Select) -> Result<(), Disconnect> {
        self.selected = None;
        let tree = match self.tree().await {
            Ok(tree) => tree,
            Err(error) => return self.done(errors::store(&error)).await,
        };
        let Some(mailbox) = tree.by_path(list::path(&select.mailbox)).map(|found| found.id) else {
            return self.done(errors::no_mailbox()).await;
        };
        let view = match self.services.views.view(self.account(), mailbox).await {
            Ok(view) => view,
            Err(error) => return self.fail_view(&error).await,
        };
        let unseen = if self.session.rev2_enabled() {
            None
        } else {
            match view.first_unseen(&self.services.db).await {
                Ok(unseen) => unseen.and_then(imap::SeqNo::new),
                Err(error) => return self.fail_view(&error).await,
            }
        };
        let mut known: BTreeSet<Flag> = flags::SYSTEM.into_iter().collect();
        for set in view.loaded_flag_sets() {
            known.extend(set.keywords.iter().filter_map(flags::flag_of));
        }
        let known: Vec<Flag> = known.into_iter().collect();
        let permanent = match select.mode {
            SelectMode::ReadWrite => known.clone(),
            SelectMode::ReadOnly => Vec::new(),
        };
        let new_keywords = match select.mode {
            SelectMode::ReadWrite => NewKeywords::Allowed,
            SelectMode::ReadOnly => NewKeywords::Refused,
        };
        let mut responses = vec![Response::Flags(known), Response::Exists(view.exists())];
        let mut codes = Vec::new();
        codes.extend(unseen.map(ResponseCode::Unseen));
        codes.extend(imap::UidValidity::new(view.uid_validity().0).map(ResponseCode::UidValidity));
        codes.extend(imap::Uid::new(view.uid_next().number()).map(ResponseCode::UidNext));
        codes.push(ResponseCode::PermanentFlags { flags: permanent, new_keywords });
        codes.extend(imap::ModSeq::new(view.highest_modseq().0).map(ResponseCode::HighestModSeq));
        responses.extend(codes.into_iter().map(|code| Response::Ok(Some(code), Text::new("Ok"))));
        if let Some(found) = tree.by_id(mailbox) {
            responses.extend(list::entry(&tree, found).map(Response::List));
        }
        for response in responses {
            self.reply(Reply::Untagged(response)).await?;
        }
        self.selected = Some(Selected { mailbox, view, saved: imap::IdSet::new() });
        self.done(Completion::ok()).await
    }

    pub(super) async fn close(&mut self, mode: CloseMode) -> Result<(), Disconnect> {
        if mode == CloseMode::Expunge
            && let Err(completion) = self.expunge_deleted(None).await
            // A mailbox that somebody deleted can be left all the same.
            && completion.code != Some(ResponseCode::NonExistent)
        {
            return self.done(completion).await;
        }
        self.selected = None;
        self.done(Completion::ok()).await
    }
}
