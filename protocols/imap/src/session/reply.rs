//! The driver's replies become responses (RFC 9051 §7).

use bytes::Bytes;

use super::{Access, Phase, Session, State};
use crate::call::{Completion, Outcome, Reply};
use crate::command::{SelectMode, Tag};
use crate::ids::{ModSeq, Numbering, SeqNo};
use crate::response::search::{ResultForm, write_outcome};
use crate::response::{FetchItem, FetchLiteral, Response, ResponseCode, SearchOutcome};

/// A call that waits for `Done`.
pub(super) struct Calling {
    tag: Tag,
    name: &'static str,
    pub(super) kind: CallKind,
    fetch: Option<OpenFetch>,
}

impl Calling {
    pub(super) fn new(tag: Tag, name: &'static str, kind: CallKind) -> Self {
        Self { tag, name, kind, fetch: None }
    }
}

/// What the session has to know of a call to handle its replies.
pub(super) enum CallKind {
    /// LOGIN, AUTHENTICATE
    Login,
    Select(SelectMode),
    Close,
    Search(Numbering, ResultForm),
    /// FETCH and STORE.
    Numbered(Numbering),
    /// IDLE that was ended by something else than `DONE`.
    IdleBroken,
    Other,
}

impl CallKind {
    pub(super) const fn allows_expunge(&self) -> bool {
        !matches!(self, Self::Numbered(Numbering::Sequence) | Self::Search(Numbering::Sequence, _))
    }
}

/// A FETCH response that is sent piece by piece.
struct OpenFetch {
    seq: SeqNo,
    /// Pieces that were written.
    items: usize,
    /// Octets of the literal at hand that have not come.
    literal_left: u64,
}

impl Session {
    /// Takes a reply to the outstanding call.
    pub fn handle_reply(&mut self, reply: Reply) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if let State::Appending(_) = &self.state {
            match reply {
                Reply::AppendReady => self.append_ready(),
                Reply::Done(completion) => self.append_refused(completion),
                Reply::Flush => self.output.flush(),
                // RFC 9051 §7: untagged responses may come at any time.
                Reply::Untagged(response) => self.untagged(response),
                _ => self.fault(),
            }
            return self.advance();
        }
        let State::Calling(calling) = &mut self.state else {
            return self.fault();
        };
        if let Some(open) = &mut calling.fetch {
            // In a FETCH response there is room for its pieces only.
            match reply {
                Reply::FetchItem(item) => self.fetch_item(&item),
                Reply::FetchLiteral(literal) => self.fetch_literal(&literal),
                Reply::FetchData(octets) => self.fetch_data(octets),
                Reply::FetchEnd if open.literal_left == 0 => self.fetch_end(),
                Reply::Flush => self.output.flush(),
                _ => self.fault(),
            }
            return;
        }
        match reply {
            Reply::Untagged(response) => self.untagged(response),
            Reply::Found(found) => self.found(&found),
            Reply::FetchBegin(seq) => {
                calling.fetch = Some(OpenFetch { seq, items: 0, literal_left: 0 });
            }
            Reply::Challenge(challenge) => match (&calling.kind, self.shutdown.take()) {
                (CallKind::Login, Some(text)) => self.bye(None, text),
                (CallKind::Login, None) => {
                    let tag = calling.tag.clone();
                    self.challenge(tag, &challenge);
                    self.advance();
                }
                _ => self.fault(),
            },
            Reply::Flush => self.output.flush(),
            Reply::Done(completion) => {
                self.done(completion);
                self.advance();
            }
            Reply::FetchItem(_)
            | Reply::FetchLiteral(_)
            | Reply::FetchData(_)
            | Reply::FetchEnd
            | Reply::AppendReady => self.fault(),
        }
    }

    /// The driver broke the rules. Where the client is in the middle of a literal there is nothing
    /// that it would read as a response.
    pub(super) fn fault(&mut self) {
        let in_fetch = match &self.state {
            State::Calling(calling) => calling.fetch.as_ref().is_some_and(|open| open.items > 0),
            _ => false,
        };
        match in_fetch {
            true => self.close(),
            false => self.bye(Some(ResponseCode::ServerBug), "Internal error"),
        }
    }

    fn done(&mut self, mut completion: Completion) {
        let State::Calling(Calling { tag, name, kind, .. }) =
            std::mem::replace(&mut self.state, State::Ready)
        else {
            return self.fault();
        };
        let ok = completion.outcome == Outcome::Ok;
        match kind {
            CallKind::Login => {
                return self.done_and_shutdown(|s| s.login_done(&tag, name, completion));
            }
            CallKind::Select(mode) if ok => {
                let read_only =
                    mode == SelectMode::ReadOnly || completion.code == Some(ResponseCode::ReadOnly);
                let (access, code) = match read_only {
                    true => (Access::ReadOnly, ResponseCode::ReadOnly),
                    false => (Access::ReadWrite, ResponseCode::ReadWrite),
                };
                self.phase = Phase::Selected(access);
                completion.code.get_or_insert(code);
            }
            CallKind::Close if ok => {
                self.phase = Phase::Authenticated;
                self.highest_modseq = None;
            }
            CallKind::IdleBroken => completion = Completion::bad("Expected DONE"),
            _ => {}
        }
        self.done_and_shutdown(|s| s.complete(&tag, name, &completion));
    }

    fn done_and_shutdown(&mut self, complete: impl FnOnce(&mut Self)) {
        complete(self);
        if let Some(text) = self.shutdown.take() {
            self.bye(None, text);
        }
    }

    fn found(&mut self, found: &SearchOutcome) {
        let dialect = self.dialect();
        let State::Calling(Calling { tag, kind: CallKind::Search(_, form), .. }) = &self.state
        else {
            return self.fault();
        };
        write_outcome(&mut self.output.writer(dialect), tag, form, found);
    }

    /// Writes a response as far as the session's state lets it be seen.
    pub(super) fn untagged(&mut self, mut response: Response) {
        let (rev2, condstore) = (self.rev2_enabled(), self.condstore_enabled());
        let selecting = match &self.state {
            State::Calling(calling) => matches!(calling.kind, CallKind::Select(_)),
            _ => false,
        };
        let mut recent = "";
        match &mut response {
            Response::Expunge(_) if !self.may_expunge() => return self.fault(),
            Response::List(_) if selecting && !rev2 => return,
            Response::Ok(Some(ResponseCode::Unseen(_)), _) if rev2 => return,
            Response::Ok(Some(ResponseCode::HighestModSeq(modseq)), _) => {
                self.highest_modseq = Some(*modseq);
            }
            // RFC 3501 §6.3.1: SELECT tells RECENT.
            Response::Exists(_) if selecting && !rev2 => recent = "* 0 RECENT\r\n",
            Response::Fetch(update) => {
                for item in &update.items {
                    note_modseq(&mut self.highest_modseq, item);
                }
                update.items.retain(|item| condstore || !matches!(item, FetchItem::ModSeq(_)));
                if update.items.is_empty() {
                    return;
                }
            }
            _ => {}
        }
        let mut w = self.output.writer(self.dialect());
        response.write(&mut w);
        w.raw(recent);
    }

    fn fetch_item(&mut self, item: &FetchItem) {
        note_modseq(&mut self.highest_modseq, item);
        if matches!(item, FetchItem::ModSeq(_)) && !self.condstore_enabled() {
            return;
        }
        if let Some(()) = self.open_item() {
            item.write(&mut self.output.writer(self.dialect()));
        }
    }

    fn fetch_literal(&mut self, literal: &FetchLiteral) {
        if let Some(()) = self.open_item() {
            let mut w = self.output.writer(self.dialect());
            literal.item.write_announcement(&mut w, literal.length);
            if let Some(open) = self.open_fetch() {
                open.literal_left = literal.length;
            }
        }
    }

    fn fetch_data(&mut self, octets: Bytes) {
        match self.open_fetch() {
            Some(open) if octets.len() as u64 <= open.literal_left => {
                open.literal_left -= octets.len() as u64;
                self.output.data(octets);
            }
            _ => self.fault(),
        }
    }

    fn fetch_end(&mut self) {
        let State::Calling(calling) = &mut self.state else {
            return;
        };
        // A response without items is not valid, and tells nothing.
        if calling.fetch.take().is_some_and(|open| open.items > 0) {
            self.output.writer(self.dialect()).raw(")\r\n");
        }
    }

    fn open_fetch(&mut self) -> Option<&mut OpenFetch> {
        match &mut self.state {
            State::Calling(calling) => calling.fetch.as_mut(),
            _ => None,
        }
    }

    /// Writes what stands before an item. `None`: the literal before it is not whole.
    fn open_item(&mut self) -> Option<()> {
        let dialect = self.dialect();
        let (seq, index) = match self.open_fetch() {
            Some(open) if open.literal_left == 0 => {
                open.items += 1;
                (open.seq, open.items)
            }
            _ => {
                self.fault();
                return None;
            }
        };
        let mut w = self.output.writer(dialect);
        match index {
            1 => w.raw_fmt(format_args!("* {seq} FETCH (")),
            _ => w.raw(" "),
        }
        Some(())
    }
}

/// A client that enables CONDSTORE late is told the highest mod-sequence that passed by.
fn note_modseq(highest: &mut Option<ModSeq>, item: &FetchItem) {
    if let (Some(highest), FetchItem::ModSeq(modseq)) = (highest, item) {
        *highest = (*highest).max(*modseq);
    }
}
