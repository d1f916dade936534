//! APPEND: the message passes through in pieces and is never held (RFC 9051 §6.3.12, RFC 7889).

use super::frame::Skip;
use super::reply::CallKind;
use super::{Output, Phase, Session, State, Step};
use crate::call::{Call, Completion, Outcome};
use crate::command::message::AppendStart;
use crate::command::parser::{LiteralHeader, LiteralSync, Parsed};
use crate::command::{AppendForm, Tag, is_append, parse_append, tag_of};
use crate::limits::{APPEND_CHUNK_MAX, COMMAND_BYTES_PREAUTH_MAX};
use crate::response::ResponseCode;
use crate::text::Text;

/// APPEND between its first line and its last.
pub(super) struct Appending {
    tag: Tag,
    sync: LiteralSync,
    form: AppendForm,
    /// Octets of the message that have not come.
    left: u64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The driver looks at the mailbox.
    Opening,
    /// The client sends.
    Reading,
    /// The driver takes a piece.
    Storing,
}

impl Appending {
    pub(super) fn waits_for_driver(&self) -> bool {
        self.stage != Stage::Reading
    }
}

impl Session {
    /// APPEND as far as `end`, where that is the header of its message's literal.
    pub(super) fn append_at(&self, end: usize) -> Option<Parsed<AppendStart>> {
        let head = self.input.head(end);
        if is_append(head) { parse_append(head, self.dialect()) } else { None }
    }

    pub(super) fn begin_append(
        &mut self,
        start: Parsed<AppendStart>,
        header: LiteralHeader,
        end: usize,
    ) {
        let tag = tag_of(self.input.head(end));
        self.input.drop_head(end);
        let refusal = match (&start, self.phase) {
            (_, Phase::NotAuthenticated) => Completion::bad("APPEND is not valid before login"),
            (Err(error), _) => Completion {
                outcome: error.outcome,
                code: error.code.clone(),
                text: Some(Text::new(error.text.clone())),
            },
            // RFC 7889 §4
            (Ok(start), _) if start.append.size > u64::from(self.config.append_limit) => {
                Completion::no("The message is larger than this server takes")
                    .with_code(ResponseCode::TooBig)
            }
            (Ok(_), _) => Completion::ok(),
        };
        match (start, tag) {
            (Ok(AppendStart { append, sync }), Some(tag)) if refusal.outcome == Outcome::Ok => {
                self.bad_commands = 0;
                let (form, left) = (append.form, append.size);
                self.state =
                    State::Appending(Appending { tag, sync, form, left, stage: Stage::Opening });
                self.output.push(Output::Call(Call::AppendBegin(append)));
            }
            (_, tag) => self.refuse_literal(tag, refusal, header),
        }
    }

    /// The driver wants (more of) the message.
    pub(super) fn append_ready(&mut self) {
        let State::Appending(appending) = &mut self.state else {
            return self.fault();
        };
        let opened = match appending.stage {
            Stage::Opening => appending.sync == LiteralSync::Sync,
            Stage::Storing => false,
            Stage::Reading => return self.fault(),
        };
        appending.stage = Stage::Reading;
        if let Some(text) = self.shutdown.take() {
            return self.bye(None, text);
        }
        if opened {
            self.continuation();
        }
    }

    /// The driver does not want (the rest of) the message.
    pub(super) fn append_refused(&mut self, completion: Completion) {
        let State::Appending(appending) = std::mem::replace(&mut self.state, State::Ready) else {
            return self.fault();
        };
        let Appending { tag, sync, left, stage, .. } = appending;
        if completion.outcome == Outcome::Ok || stage == Stage::Reading {
            return self.fault();
        }
        if let Some(text) = self.shutdown.take() {
            self.complete(&tag, "APPEND", &completion);
            self.bye(None, text);
        } else if stage == Stage::Opening && sync == LiteralSync::Sync {
            // The client has not begun to send, and now will not.
            self.complete(&tag, "APPEND", &completion);
        } else {
            let skip = Skip::new(left, self.drain_max());
            self.state = State::Skipping { skip, tag, completion };
        }
    }

    pub(super) fn read_append(&mut self) -> Step {
        let State::Appending(appending) = &mut self.state else {
            return Step::Wait;
        };
        if appending.stage != Stage::Reading || self.input.len() == 0 {
            return Step::Wait;
        }
        if appending.left > 0 {
            let wanted = usize::try_from(appending.left).unwrap_or(usize::MAX);
            let octets = self.input.take(wanted.min(APPEND_CHUNK_MAX));
            appending.left -= octets.len() as u64;
            appending.stage = Stage::Storing;
            self.output.push(Output::Call(Call::AppendData(octets)));
            return Step::Wait;
        }
        let wanted: &[u8] = if appending.form == AppendForm::Utf8 { b")" } else { b"" };
        let tag = appending.tag.clone();
        match self.input.line(COMMAND_BYTES_PREAUTH_MAX) {
            None => return Step::Wait,
            Some(Ok((line, length))) if line == wanted => {
                self.input.drop_head(length);
                self.call(tag, "APPEND", CallKind::Other, Call::AppendEnd);
            }
            Some(_) => {
                self.output.push(Output::Call(Call::AppendAbort));
                let completion = Completion::bad("Expected the line end behind the message");
                let skip = Skip::new(0, self.drain_max());
                self.state = State::Skipping { skip, tag, completion };
            }
        }
        Step::Again
    }
}
