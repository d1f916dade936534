//! Commands of a client as types (RFC 9051 §6), read by [`TaggedCommand::parse`] and written by
//! [`TaggedCommand::encode`]. One file a family holds types, reader and writer.
//!
//! Deliberately absent so far: QRESYNC, SORT, THREAD, METADATA, ACL, QUOTA, NOTIFY, MULTIAPPEND,
//! CATENATE, COMPRESS. Each is a file of its own here and an arm in [`Command`].

pub(crate) mod auth;
mod fetch;
mod list;
mod mailbox;
pub(crate) mod message;
pub(crate) mod parser;
mod search;

pub use auth::IdFields;
pub use fetch::{
    Fetch, FetchAttr, HeaderFields, PartPath, Partial, Peek, Rfc822Part, Section, SectionKind,
};
pub use list::{List, ListForm, ListPattern, ListReturn, ListSelect, Lsub};
pub use mailbox::{Create, Rename, Select, SelectMode, StatusCommand, StatusItem};
pub use message::{Append, AppendForm, Copy, Expunge, Store, StoreEcho, StoreMode};
pub use parser::SyntaxError;
pub use search::{Search, SearchKey, SearchReturn};

use bytes::BytesMut;

use crate::ids::Numbering;
use crate::limits::TAG_BYTES_MAX;
use crate::mailbox::MailboxName;
use crate::text::Secret;
use crate::wire::{Dialect, Writer, is_atom_char};
use message::AppendStart;
use parser::{Parsed, Parser};

/// What a client puts before a command to know its answer by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// `None` for what is no tag (RFC 9051 §9 `tag`).
    pub fn new(tag: impl Into<String>) -> Option<Self> {
        let tag = tag.into();
        let valid = (1..=TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(is_tag_char);
        valid.then_some(Self(tag))
    }

    /// As sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_tag_char(byte: u8) -> bool {
    is_atom_char(byte) && byte != b'+'
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// CAPABILITY
    Capability,
    /// NOOP
    Noop,
    /// LOGOUT
    Logout,
    /// ID; no fields for `NIL`.
    Id(IdFields),
    /// STARTTLS
    StartTls,
    /// AUTHENTICATE
    Authenticate {
        /// In upper case.
        mechanism: String,
        /// Decoded (RFC 4959).
        initial: Option<Secret>,
    },
    /// LOGIN
    Login {
        /// Name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// ENABLE, the names in upper case.
    Enable(Vec<String>),
    /// SELECT, EXAMINE
    Select(Select),
    /// CREATE
    Create(Create),
    /// DELETE
    Delete(MailboxName),
    /// RENAME
    Rename(Rename),
    /// SUBSCRIBE
    Subscribe(MailboxName),
    /// UNSUBSCRIBE
    Unsubscribe(MailboxName),
    /// LIST
    List(List),
    /// LSUB
    Lsub(Lsub),
    /// NAMESPACE
    Namespace,
    /// STATUS
    Status(StatusCommand),
    /// APPEND without its message. [`TaggedCommand::parse`] never returns it, as the message does
    /// not fit into one buffer; written, it ends in the line end before the message.
    Append(Append),
    /// IDLE
    Idle,
    /// CHECK
    Check,
    /// CLOSE
    Close,
    /// UNSELECT
    Unselect,
    /// EXPUNGE
    Expunge(Expunge),
    /// SEARCH
    Search(Search),
    /// FETCH
    Fetch(Fetch),
    /// STORE
    Store(Store),
    /// COPY
    Copy(Copy),
    /// MOVE
    Move(Copy),
}

/// A command with its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedCommand {
    /// The tag.
    pub tag: Tag,
    /// The command.
    pub command: Command,
}

/// A command that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ParseError {
    /// As far as there was one.
    pub tag: Option<Tag>,
    /// Why.
    pub error: SyntaxError,
}

/// Reads the tag and the space behind it.
fn tag(p: &mut Parser<'_>) -> Parsed<Tag> {
    let text = p.word("a tag", is_tag_char)?;
    let tag = Tag::new(text).ok_or_else(|| SyntaxError::bad("the tag is too long"))?;
    p.expect(" ", "a space and a command behind the tag")?;
    Ok(tag)
}

/// The tag at the start of a command, where there is one, whatever follows.
pub(crate) fn tag_of(input: &[u8]) -> Option<Tag> {
    let text = Parser::new(input, Dialect::Ascii).take_while(is_tag_char);
    Tag::new(std::str::from_utf8(text).ok()?)
}

impl TaggedCommand {
    /// Reads a whole command: the line with all its literals, with or without its line end.
    pub fn parse(input: &[u8], dialect: Dialect) -> Result<Self, ParseError> {
        let input = input.strip_suffix(b"\n").unwrap_or(input);
        let input = input.strip_suffix(b"\r").unwrap_or(input);
        let mut p = Parser::new(input, dialect);
        let tag = tag(&mut p).map_err(|error| ParseError { tag: tag_of(input), error })?;
        let command = command(&mut p).and_then(|command| p.end().map(|()| command));
        match command {
            Ok(command) => Ok(Self { tag, command }),
            Err(error) => Err(ParseError { tag: Some(tag), error }),
        }
    }

    /// Writes the command as a client would, with its line end, and with non-synchronizing literals
    /// (RFC 7888) where a string cannot be quoted.
    pub fn encode(&self, dialect: Dialect) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut w = Writer::client(&mut out, dialect);
        w.raw(&self.tag.0);
        w.raw(" ");
        write_command(&mut w, &self.command);
        w.raw("\r\n");
        out.into()
    }
}

/// Whether a command that begins like this is APPEND.
pub(crate) fn is_append(input: &[u8]) -> bool {
    let mut p = Parser::new(input, Dialect::Ascii);
    tag(&mut p).is_ok() && p.take("APPEND ")
}

/// Reads APPEND as far as the header of its message's literal, with which `input` ends. Outer
/// `None`: `input` ends in another literal's header.
pub(crate) fn parse_append(input: &[u8], dialect: Dialect) -> Option<Parsed<AppendStart>> {
    let mut p = Parser::new(input, dialect);
    let start = tag(&mut p)
        .and_then(|_| p.expect("APPEND", "APPEND"))
        .and_then(|()| message::append_start(&mut p));
    match start {
        Ok(start) => Some(p.end().map(|()| start)),
        // The mailbox's name as a literal: it is announced, and not there yet.
        Err(_) if p.rest().is_empty() => None,
        Err(error) => Some(Err(error)),
    }
}

fn command(p: &mut Parser<'_>) -> Parsed<Command> {
    let name = p.atom("a command")?.to_ascii_uppercase();
    if name == "UID" {
        p.space()?;
        let name = p.atom("a command behind UID")?.to_ascii_uppercase();
        return numbered_command(p, &name, Numbering::Uid)
            .unwrap_or_else(|| Err(SyntaxError::bad("this command does not go with UID")));
    }
    if let Some(parsed) = numbered_command(p, &name, Numbering::Sequence) {
        return parsed;
    }
    match name.as_str() {
        "CAPABILITY" => Ok(Command::Capability),
        "NOOP" => Ok(Command::Noop),
        "LOGOUT" => Ok(Command::Logout),
        "ID" => auth::id(p),
        "STARTTLS" => Ok(Command::StartTls),
        "AUTHENTICATE" => auth::authenticate(p),
        "LOGIN" => auth::login(p),
        "ENABLE" => auth::enable(p),
        "SELECT" => mailbox::select(p, SelectMode::ReadWrite),
        "EXAMINE" => mailbox::select(p, SelectMode::ReadOnly),
        "CREATE" => mailbox::create(p),
        "DELETE" => one_mailbox(p).map(Command::Delete),
        "RENAME" => mailbox::rename(p),
        "SUBSCRIBE" => one_mailbox(p).map(Command::Subscribe),
        "UNSUBSCRIBE" => one_mailbox(p).map(Command::Unsubscribe),
        "LIST" => list::list(p),
        "LSUB" => list::lsub(p),
        "NAMESPACE" => Ok(Command::Namespace),
        "STATUS" => mailbox::status(p),
        "APPEND" => Err(SyntaxError::bad("APPEND needs a mailbox and a literal")),
        "IDLE" => Ok(Command::Idle),
        "CHECK" => Ok(Command::Check),
        "CLOSE" => Ok(Command::Close),
        "UNSELECT" => Ok(Command::Unselect),
        _ => Err(SyntaxError::bad("unknown command")),
    }
}

/// The commands that `UID` can stand before.
fn numbered_command(p: &mut Parser<'_>, name: &str, by: Numbering) -> Option<Parsed<Command>> {
    Some(match name {
        "EXPUNGE" => message::expunge(p, by),
        "SEARCH" => search::search(p, by),
        "FETCH" => fetch::fetch(p, by),
        "STORE" => message::store(p, by),
        "COPY" => message::copy(p, by).map(Command::Copy),
        "MOVE" => message::copy(p, by).map(Command::Move),
        _ => return None,
    })
}

fn one_mailbox(p: &mut Parser<'_>) -> Parsed<MailboxName> {
    p.space()?;
    p.mailbox()
}

fn write_command(w: &mut Writer<'_>, command: &Command) {
    let by = match command {
        Command::Search(Search { by, .. })
        | Command::Fetch(Fetch { by, .. })
        | Command::Store(Store { by, .. })
        | Command::Copy(Copy { by, .. })
        | Command::Move(Copy { by, .. }) => *by,
        Command::Expunge(Expunge { uids: Some(_) }) => Numbering::Uid,
        _ => Numbering::Sequence,
    };
    if by == Numbering::Uid {
        w.raw("UID ");
    }
    let mailbox = |w: &mut Writer<'_>, name: &str, mailbox: &MailboxName| {
        w.raw(name);
        w.mailbox(mailbox);
    };
    w.raw(prefix(command));
    match command {
        Command::Id(fields) => auth::write_id(w, fields),
        Command::Authenticate { mechanism, initial } => {
            auth::write_authenticate(w, mechanism, initial.as_ref());
        }
        Command::Login { user, password } => auth::write_login(w, user, password),
        Command::Enable(names) => w.words(names.iter().map(String::as_str)),
        Command::Select(select) => mailbox::write_select(w, select),
        Command::Create(create) => mailbox::write_create(w, create),
        Command::Delete(name) | Command::Subscribe(name) | Command::Unsubscribe(name) => {
            mailbox(w, "", name);
        }
        Command::Rename(Rename { from, to }) => {
            mailbox(w, "", from);
            mailbox(w, " ", to);
        }
        Command::List(list) => list::write_list(w, list),
        Command::Lsub(lsub) => list::write_lsub(w, lsub),
        Command::Status(status) => {
            mailbox(w, "", &status.mailbox);
            w.raw(" ");
            mailbox::write_status_items(w, &status.items);
        }
        Command::Append(append) => message::write_append(w, append),
        Command::Expunge(Expunge { uids: Some(uids) }) => w.raw_fmt(format_args!(" {uids}")),
        Command::Search(search) => search::write_search(w, search),
        Command::Fetch(fetch) => fetch::write_fetch(w, fetch),
        Command::Store(store) => message::write_store(w, store),
        Command::Copy(copy) => message::write_copy(w, "COPY", copy),
        Command::Move(copy) => message::write_copy(w, "MOVE", copy),
        _ => {}
    }
}

/// The command's name and the space before its arguments; nothing where the family writes both.
const fn prefix(command: &Command) -> &'static str {
    match command {
        Command::Capability => "CAPABILITY",
        Command::Noop => "NOOP",
        Command::Logout => "LOGOUT",
        Command::Id(_) => "ID ",
        Command::StartTls => "STARTTLS",
        Command::Authenticate { .. } => "AUTHENTICATE ",
        Command::Login { .. } => "LOGIN ",
        Command::Enable(_) => "ENABLE ",
        Command::Create(_) => "CREATE ",
        Command::Delete(_) => "DELETE ",
        Command::Rename(_) => "RENAME ",
        Command::Subscribe(_) => "SUBSCRIBE ",
        Command::Unsubscribe(_) => "UNSUBSCRIBE ",
        Command::List(_) => "LIST ",
        Command::Lsub(_) => "LSUB ",
        Command::Namespace => "NAMESPACE",
        Command::Status(_) => "STATUS ",
        Command::Append(_) => "APPEND ",
        Command::Idle => "IDLE",
        Command::Check => "CHECK",
        Command::Close => "CLOSE",
        Command::Unselect => "UNSELECT",
        Command::Expunge(_) => "EXPUNGE",
        Command::Select(_)
        | Command::Search(_)
        | Command::Fetch(_)
        | Command::Store(_)
        | Command::Copy(_)
        | Command::Move(_) => "",
    }
}
