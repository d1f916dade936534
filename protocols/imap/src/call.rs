//! What a session asks its driver for ([`Call`]) and what the driver answers ([`Reply`]).
//!
//! Architecture invariant: at most one call waits for [`Reply::Done`]. While it does, nothing more
//! of the client's input is parsed.

use bytes::Bytes;

use crate::command::{
    Append, Copy, Create, Expunge, Fetch, List, Lsub, Rename, Search, Select, StatusCommand, Store,
};
use crate::ids::SeqNo;
use crate::mailbox::MailboxName;
use crate::response::{FetchItem, FetchLiteral, Response, ResponseCode, SearchOutcome};
use crate::text::{Secret, Text};

/// Work for the driver. Each variant says which reply ends it.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Starts a SASL exchange with one of the configured mechanisms. Answer with
    /// [`Reply::Challenge`] (an empty one where the client goes first but sent no initial
    /// response) or [`Reply::Done`]; OK means authenticated.
    Authenticate {
        /// In upper case, as configured.
        mechanism: String,
        /// Decoded initial response; `Some` of nothing where the client sent `=`.
        initial: Option<Secret>,
    },
    /// The client's decoded answer to a challenge. Answered as `Authenticate`.
    AuthResponse(Secret),
    /// The client gave the exchange up; the session has answered it. No reply.
    AuthAbort,
    /// LOGIN. `Done`; OK means authenticated.
    Login {
        /// As sent.
        user: String,
        /// As sent.
        password: Secret,
    },
    /// SELECT or EXAMINE. The mailbox selected before, if any, is no longer selected, whatever the
    /// answer. `Done(OK)` selects; code `READ-ONLY` makes it read-only, otherwise the code that fits
    /// the mode is added.
    Select(Select),
    /// CLOSE or UNSELECT. `Done`.
    Close(CloseMode),
    /// CREATE. `Done`.
    Create(Create),
    /// DELETE. `Done`.
    Delete(MailboxName),
    /// RENAME. `Done`.
    Rename(Rename),
    /// SUBSCRIBE. `Done`.
    Subscribe(MailboxName),
    /// UNSUBSCRIBE. `Done`.
    Unsubscribe(MailboxName),
    /// LIST with all its extensions. `Done`.
    List(List),
    /// LSUB (RFC 3501 §6.3.9). `Done`.
    Lsub(Lsub),
    /// STATUS. `Done`.
    Status(StatusCommand),
    /// NAMESPACE. `Done`.
    Namespace,
    /// APPEND, before the message is read. [`Reply::AppendReady`] lets it come, `Done` refuses it.
    AppendBegin(Append),
    /// The next octets of the message, at most [`crate::limits::APPEND_CHUNK_MAX`].
    /// [`Reply::AppendReady`] asks for more, `Done` refuses the rest.
    AppendData(Bytes),
    /// The message is whole. `Done`.
    AppendEnd,
    /// What follows the message was no command end, and the session has answered so: forget what
    /// was appended. No reply.
    AppendAbort,
    /// SEARCH. Answer with [`Reply::Found`] and `Done`.
    Search(Search),
    /// FETCH. `Done`.
    Fetch(Fetch),
    /// STORE. `Done`.
    Store(Store),
    /// COPY. `Done`.
    Copy(Copy),
    /// MOVE. `Done`.
    Move(Copy),
    /// EXPUNGE. `Done`.
    Expunge(Expunge),
    /// NOOP or CHECK after login: the moment to report changes. `Done`.
    Noop,
    /// IDLE began; from now on give changes to [`crate::Session::handle_event`] as they come. No
    /// reply.
    IdleBegin,
    /// IDLE ends. Untagged responses may still come, then `Done`.
    IdleEnd,
}

/// How a mailbox is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// CLOSE of a mailbox that is selected read-write: removes messages with `\Deleted`, silently.
    Expunge,
    /// UNSELECT, or CLOSE of a mailbox that is selected read-only.
    Keep,
}

/// An answer to a [`Call`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A whole response; any number of them.
    Untagged(Response),
    /// The result of a SEARCH; the session writes it as the client asked for it.
    Found(SearchOutcome),
    /// Opens a FETCH response that is sent piece by piece.
    FetchBegin(SeqNo),
    /// A small piece.
    FetchItem(FetchItem),
    /// Announces a piece of `length` octets.
    FetchLiteral(FetchLiteral),
    /// Octets of the piece that was announced; passed on without a copy.
    FetchData(Bytes),
    /// Ends the FETCH response.
    FetchEnd,
    /// A SASL challenge, not encoded.
    Challenge(Bytes),
    /// The driver can take (more of) a message.
    AppendReady,
    /// Whatever is waiting goes out now.
    Flush,
    /// The call is done.
    Done(Completion),
}

/// Outcome of a command (RFC 9051 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It failed.
    No,
    /// It was wrong.
    Bad,
}

/// The tagged response that ends a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Whether it worked.
    pub outcome: Outcome,
    /// Machine-readable reason.
    pub code: Option<ResponseCode>,
    /// Human-readable text; without it the session says `COMMAND completed` or `COMMAND failed`.
    pub text: Option<Text>,
}

impl Completion {
    /// OK with the usual text.
    pub const fn ok() -> Self {
        Self { outcome: Outcome::Ok, code: None, text: None }
    }

    /// NO with a reason.
    pub fn no(text: impl Into<Text>) -> Self {
        Self { outcome: Outcome::No, code: None, text: Some(text.into()) }
    }

    /// BAD with a reason.
    pub fn bad(text: impl Into<Text>) -> Self {
        Self { outcome: Outcome::Bad, code: None, text: Some(text.into()) }
    }

    /// The same with a response code.
    #[must_use]
    pub fn with_code(mut self, code: ResponseCode) -> Self {
        self.code = Some(code);
        self
    }

    /// The same with this text.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Text>) -> Self {
        self.text = Some(text.into());
        self
    }
}
