//! Commands become calls, or are answered here (RFC 9051 §6). The state rules are in
//! [`Session::dispatch`]'s order: any state, before login, after login, selected.

use super::reply::{CallKind, Calling};
use super::{Access, Output, Phase, Session, State, Step};
use crate::call::{Call, CloseMode, Completion};
use crate::capability::Capability;
use crate::command::{
    Command, Fetch, FetchAttr, IdFields, List, Search, Select, SelectMode, StatusItem, Store, Tag,
    TaggedCommand,
};
use crate::ids::Numbering;
use crate::limits::IDLE_LINE_BYTES_MAX;
use crate::response::ResponseCode;
use crate::response::list::write_root;
use crate::response::search::ResultForm;

/// When a command is valid (RFC 9051 §6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Validity {
    Any,
    BeforeLogin,
    AfterLogin,
    Selected,
    /// Selected, and it changes messages.
    SelectedReadWrite,
}

const fn validity(command: &Command) -> Validity {
    match command {
        Command::Capability | Command::Noop | Command::Logout | Command::Id(_) => Validity::Any,
        Command::StartTls | Command::Authenticate { .. } | Command::Login { .. } => {
            Validity::BeforeLogin
        }
        Command::Check
        | Command::Close
        | Command::Unselect
        | Command::Search(_)
        | Command::Fetch(_)
        | Command::Copy(_) => Validity::Selected,
        Command::Expunge(_) | Command::Store(_) | Command::Move(_) => Validity::SelectedReadWrite,
        _ => Validity::AfterLogin,
    }
}

impl Session {
    pub(super) fn dispatch(&mut self, command: TaggedCommand) {
        let TaggedCommand { tag, command } = command;
        match (validity(&command), self.phase) {
            (Validity::BeforeLogin, Phase::Authenticated | Phase::Selected(_)) => {
                return self.bad(&tag, "This command is not valid after login");
            }
            (Validity::AfterLogin, Phase::NotAuthenticated) => {
                return self.bad(&tag, "This command is not valid before login");
            }
            (
                Validity::Selected | Validity::SelectedReadWrite,
                Phase::NotAuthenticated | Phase::Authenticated,
            ) => return self.bad(&tag, "This command needs a selected mailbox"),
            (Validity::SelectedReadWrite, Phase::Selected(Access::ReadOnly)) => {
                let refusal = Completion::no("The mailbox is selected read-only")
                    .with_code(ResponseCode::Cannot);
                return self.complete(&tag, "Command", &refusal);
            }
            _ => {}
        }
        self.bad_commands = 0;
        self.execute(tag, command);
    }

    pub(super) fn bad(&mut self, tag: &Tag, text: &'static str) {
        self.complete_refused(tag, &Completion::bad(text));
    }

    /// Hands a call to the driver.
    pub(super) fn call(&mut self, tag: Tag, name: &'static str, kind: CallKind, call: Call) {
        self.state = State::Calling(Calling::new(tag, name, kind));
        self.output.push(Output::Call(call));
    }

    fn execute(&mut self, tag: Tag, command: Command) {
        let other = CallKind::Other;
        match command {
            Command::Capability => self.capability(&tag),
            Command::Noop if self.phase == Phase::NotAuthenticated => {
                self.complete(&tag, "NOOP", &Completion::ok());
            }
            Command::Noop => self.call(tag, "NOOP", other, Call::Noop),
            Command::Check => self.call(tag, "CHECK", other, Call::Noop),
            Command::Logout => {
                self.output.writer(self.dialect()).raw("* BYE Logging out\r\n");
                self.complete(&tag, "LOGOUT", &Completion::ok());
                self.close();
            }
            Command::Id(fields) => self.id(&tag, fields),
            Command::StartTls => self.start_tls(&tag),
            Command::Authenticate { mechanism, initial } => {
                self.authenticate(tag, mechanism, initial);
            }
            Command::Login { user, password } => self.login(tag, user, password),
            Command::Enable(names) => self.enable(&tag, &names),
            Command::Select(select) => self.select(tag, select),
            Command::Create(create) => self.call(tag, "CREATE", other, Call::Create(create)),
            Command::Delete(name) => self.call(tag, "DELETE", other, Call::Delete(name)),
            Command::Rename(rename) => self.call(tag, "RENAME", other, Call::Rename(rename)),
            Command::Subscribe(name) => self.call(tag, "SUBSCRIBE", other, Call::Subscribe(name)),
            Command::Unsubscribe(name) => {
                self.call(tag, "UNSUBSCRIBE", other, Call::Unsubscribe(name));
            }
            Command::List(list) => self.list(tag, list),
            Command::Lsub(lsub) => self.call(tag, "LSUB", other, Call::Lsub(lsub)),
            Command::Namespace => self.call(tag, "NAMESPACE", other, Call::Namespace),
            Command::Status(status) => {
                if status.items.contains(&StatusItem::HighestModSeq) {
                    self.enable_condstore();
                }
                self.call(tag, "STATUS", other, Call::Status(status));
            }
            // The parser leaves APPEND to the reader of literals.
            Command::Append(_) => self.bad(&tag, "APPEND needs a literal"),
            Command::Idle => self.idle(tag),
            Command::Close if self.phase == Phase::Selected(Access::ReadWrite) => {
                self.call(tag, "CLOSE", CallKind::Close, Call::Close(CloseMode::Expunge));
            }
            Command::Close => {
                self.call(tag, "CLOSE", CallKind::Close, Call::Close(CloseMode::Keep));
            }
            Command::Unselect => {
                self.call(tag, "UNSELECT", CallKind::Close, Call::Close(CloseMode::Keep));
            }
            Command::Expunge(expunge) => {
                let name = if expunge.uids.is_some() { "UID EXPUNGE" } else { "EXPUNGE" };
                self.call(tag, name, other, Call::Expunge(expunge));
            }
            Command::Search(search) => self.search(tag, search),
            Command::Fetch(fetch) => self.fetch(tag, fetch),
            Command::Store(store) => self.store(tag, store),
            Command::Copy(copy) => {
                self.call(tag, by(copy.by, "COPY", "UID COPY"), other, Call::Copy(copy));
            }
            Command::Move(copy) => {
                self.call(tag, by(copy.by, "MOVE", "UID MOVE"), other, Call::Move(copy));
            }
        }
    }

    fn capability(&mut self, tag: &Tag) {
        let list = self.capability_list();
        self.output.writer(self.dialect()).raw_fmt(format_args!("* CAPABILITY {list}\r\n"));
        self.complete(tag, "CAPABILITY", &Completion::ok());
    }

    fn list(&mut self, tag: Tag, list: List) {
        if list.asks_for_root() {
            let delimiter = self.config.delimiter;
            let mut w = self.output.writer(self.dialect());
            w.raw("* LIST ");
            write_root(&mut w, delimiter);
            w.raw("\r\n");
            return self.complete(&tag, "LIST", &Completion::ok());
        }
        if list.status.contains(&StatusItem::HighestModSeq) {
            self.enable_condstore();
        }
        self.call(tag, "LIST", CallKind::Other, Call::List(list));
    }

    /// RFC 2971 §3.1
    fn id(&mut self, tag: &Tag, fields: IdFields) {
        self.client_id = fields;
        let mut w = self.output.writer(self.dialect());
        w.raw("* ID ");
        for (index, (name, value)) in self.config.id.iter().enumerate() {
            w.raw(if index == 0 { "(" } else { " " });
            w.string(&name.as_str().into());
            w.raw(" ");
            w.string(&value.as_str().into());
        }
        w.raw(if self.config.id.is_empty() { "NIL\r\n" } else { ")\r\n" });
        self.complete(tag, "ID", &Completion::ok());
    }

    /// RFC 9051 §6.3.1: what is not known or not to be enabled is passed over.
    fn enable(&mut self, tag: &Tag, names: &[String]) {
        let known = [Capability::Imap4Rev2, Capability::Utf8Accept, Capability::CondStore];
        let mut newly = Vec::new();
        for capability in known {
            let asked = names.iter().any(|name| name.eq_ignore_ascii_case(capability.as_str()));
            if !asked || !self.config.capabilities.contains(&capability) {
                continue;
            }
            if capability == Capability::CondStore {
                self.enable_condstore();
            }
            self.enabled.insert(capability);
            newly.push(capability.as_str());
        }
        let mut w = self.output.writer(self.dialect());
        w.raw("* ENABLED");
        for name in newly {
            w.raw(" ");
            w.raw(name);
        }
        w.raw("\r\n");
        self.complete(tag, "ENABLE", &Completion::ok());
    }

    /// RFC 7162 §3.1.1: the first command that needs mod-sequences enables them, and where a
    /// mailbox is selected the client has to be told where it stands.
    pub(super) fn enable_condstore(&mut self) {
        if self.enabled.insert(Capability::CondStore)
            && matches!(self.phase, Phase::Selected(_))
            && let Some(modseq) = self.highest_modseq
        {
            self.untagged_ok(Some(ResponseCode::HighestModSeq(modseq)), "CONDSTORE enabled");
        }
    }

    fn select(&mut self, tag: Tag, select: Select) {
        if matches!(self.phase, Phase::Selected(_)) {
            // RFC 9051 §6.3.2: what follows is about the new mailbox.
            if self.rev2_enabled() || self.condstore_enabled() {
                self.untagged_ok(Some(ResponseCode::Closed), "The previous mailbox is closed");
            }
            self.phase = Phase::Authenticated;
        }
        self.highest_modseq = None;
        if select.condstore {
            self.enable_condstore();
        }
        let name = match select.mode {
            SelectMode::ReadWrite => "SELECT",
            SelectMode::ReadOnly => "EXAMINE",
        };
        self.call(tag, name, CallKind::Select(select.mode), Call::Select(select));
    }

    fn search(&mut self, tag: Tag, search: Search) {
        if search.key.uses_modseq() {
            self.enable_condstore();
        }
        let kind = CallKind::Search(search.by, ResultForm::new(&search, self.rev2_enabled()));
        self.call(tag, by(search.by, "SEARCH", "UID SEARCH"), kind, Call::Search(search));
    }

    fn fetch(&mut self, tag: Tag, fetch: Fetch) {
        if fetch.items.contains(&FetchAttr::ModSeq) {
            self.enable_condstore();
        }
        let name = by(fetch.by, "FETCH", "UID FETCH");
        self.call(tag, name, CallKind::Numbered(fetch.by), Call::Fetch(fetch));
    }

    fn store(&mut self, tag: Tag, store: Store) {
        if store.unchanged_since.is_some() {
            self.enable_condstore();
        }
        let name = by(store.by, "STORE", "UID STORE");
        self.call(tag, name, CallKind::Numbered(store.by), Call::Store(store));
    }

    fn idle(&mut self, tag: Tag) {
        self.output.writer(self.dialect()).raw("+ idling\r\n");
        self.state = State::Idle { tag };
        self.output.push(Output::Call(Call::IdleBegin));
    }

    /// RFC 9051 §6.3.13: `DONE` and nothing else ends IDLE.
    pub(super) fn read_idle(&mut self) -> Step {
        let State::Idle { tag } = &self.state else {
            return Step::Wait;
        };
        let tag = tag.clone();
        match self.input.line(IDLE_LINE_BYTES_MAX) {
            None => return Step::Wait,
            Some(Ok((line, length))) => {
                let kind = match line.eq_ignore_ascii_case(b"DONE") {
                    true => CallKind::Other,
                    false => CallKind::IdleBroken,
                };
                self.input.drop_head(length);
                self.call(tag, "IDLE", kind, Call::IdleEnd);
            }
            Some(Err(_)) => self.bye(None, "Expected DONE"),
        }
        Step::Again
    }
}

const fn by(by: Numbering, sequence: &'static str, uid: &'static str) -> &'static str {
    match by {
        Numbering::Sequence => sequence,
        Numbering::Uid => uid,
    }
}
