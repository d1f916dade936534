//! APPEND, STORE, COPY, MOVE, EXPUNGE (RFC 9051 §6.3.12, §6.4; RFC 6855 §4; RFC 7162 §3.1.3).

use super::Command;
use super::parser::{LiteralHeader, LiteralSync, Parsed, Parser, SyntaxError};
use super::search::mod_sequence_value;
use crate::date::DateTime;
use crate::flag::Flag;
use crate::ids::{ModSeq, Numbering};
use crate::mailbox::MailboxName;
use crate::sequence::MessageSet;
use crate::wire::Writer;

/// APPEND, as far as the message itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// Flags of the new message, each once.
    pub flags: Vec<Flag>,
    /// Internal date; without it, now.
    pub date: Option<DateTime>,
    /// Octets of the message.
    pub size: u64,
    /// How the message comes.
    pub form: AppendForm,
}

/// Literal of APPEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendForm {
    /// `{n}`: no NUL in it.
    Literal,
    /// `~{n}`: any octets (RFC 3516 §4.4).
    Literal8,
    /// `UTF8 (~{n}…)`: headers in UTF-8 (RFC 6855 §4).
    Utf8,
}

/// What the session needs beside [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppendStart {
    pub(crate) append: Append,
    pub(crate) sync: LiteralSync,
}

/// STORE or UID STORE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Kind of the numbers in `set`, and in MODIFIED.
    pub by: Numbering,
    /// Which messages.
    pub set: MessageSet,
    /// Only messages whose mod-sequence is not higher; the others go into MODIFIED.
    pub unchanged_since: Option<ModSeq>,
    /// What happens to the flags.
    pub mode: StoreMode,
    /// Whether the new flags are told. With CONDSTORE enabled, the new mod-sequence always is.
    pub echo: StoreEcho,
    /// Each once.
    pub flags: Vec<Flag>,
}

/// What STORE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// `FLAGS`: these and no others.
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// Whether STORE answers with the new flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreEcho {
    /// One FETCH for each message.
    Flags,
    /// `.SILENT`
    Silent,
}

/// COPY or MOVE, with or without UID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Kind of the numbers in `set`.
    pub by: Numbering,
    /// Which messages.
    pub set: MessageSet,
    /// Where to.
    pub mailbox: MailboxName,
}

/// EXPUNGE or UID EXPUNGE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expunge {
    /// Only these UIDs (RFC 9051 §6.4.9).
    pub uids: Option<MessageSet>,
}

/// Reads what follows `APPEND`, as far as and with the header of the message's literal. Literals
/// before that one must be whole.
pub(super) fn append_start(p: &mut Parser<'_>) -> Parsed<AppendStart> {
    p.space()?;
    let mailbox = p.mailbox()?;
    p.space()?;
    let mut flags = Vec::new();
    if p.peek() == Some(b'(') {
        flags = p.flag_list()?;
        p.space()?;
    }
    let mut date = None;
    if p.take("\"") {
        let text = p.take_while(|byte| byte != b'"');
        let parsed = DateTime::parse(text);
        date = Some(parsed.ok_or_else(|| SyntaxError::bad("a date of APPEND is not valid"))?);
        p.expect("\" ", "a space and the message")?;
    }
    let form = match () {
        () if p.take("UTF8 (~") => AppendForm::Utf8,
        () if p.take("~") => AppendForm::Literal8,
        () => AppendForm::Literal,
    };
    let LiteralHeader { size, sync } = p.literal_header()?;
    Ok(AppendStart { append: Append { mailbox, flags, date, size, form }, sync })
}

/// Writes APPEND as far as the line end before the message.
pub(super) fn write_append(w: &mut Writer<'_>, append: &Append) {
    w.mailbox(&append.mailbox);
    if !append.flags.is_empty() {
        w.raw(" (");
        w.flags(&append.flags);
        w.raw(")");
    }
    if let Some(date) = append.date {
        w.raw_fmt(format_args!(" \"{date}\""));
    }
    w.raw(match append.form {
        AppendForm::Literal => " ",
        AppendForm::Literal8 => " ~",
        AppendForm::Utf8 => " UTF8 (~",
    });
    w.raw_fmt(format_args!("{{{}+}}", append.size));
}

pub(super) fn store(p: &mut Parser<'_>, by: Numbering) -> Parsed<Command> {
    p.space()?;
    let set = p.message_set()?;
    p.space()?;
    let mut unchanged_since = None;
    if p.peek() == Some(b'(') {
        p.list(|p| {
            p.expect("UNCHANGEDSINCE ", "UNCHANGEDSINCE, the only modifier of STORE")?;
            unchanged_since = Some(mod_sequence_value(p)?);
            Ok(())
        })?;
        p.space()?;
    }
    let mode = match () {
        () if p.take("+") => StoreMode::Add,
        () if p.take("-") => StoreMode::Remove,
        () => StoreMode::Replace,
    };
    p.expect("FLAGS", "FLAGS, the only item of STORE")?;
    let echo = if p.take(".SILENT") { StoreEcho::Silent } else { StoreEcho::Flags };
    p.space()?;
    let mut flags = Vec::new();
    if p.peek() == Some(b'(') {
        flags = p.flag_list()?;
    } else {
        p.push_flag(&mut flags)?;
        while p.take(" ") {
            p.push_flag(&mut flags)?;
        }
    }
    Ok(Command::Store(Store { by, set, unchanged_since, mode, echo, flags }))
}

pub(super) fn write_store(w: &mut Writer<'_>, store: &Store) {
    w.raw_fmt(format_args!("STORE {} ", store.set));
    if let Some(modseq) = store.unchanged_since {
        w.raw_fmt(format_args!("(UNCHANGEDSINCE {modseq}) "));
    }
    w.raw(match store.mode {
        StoreMode::Replace => "FLAGS",
        StoreMode::Add => "+FLAGS",
        StoreMode::Remove => "-FLAGS",
    });
    w.raw(if store.echo == StoreEcho::Silent { ".SILENT (" } else { " (" });
    w.flags(&store.flags);
    w.raw(")");
}

/// The arguments of COPY and MOVE.
pub(super) fn copy(p: &mut Parser<'_>, by: Numbering) -> Parsed<Copy> {
    p.space()?;
    let set = p.message_set()?;
    p.space()?;
    Ok(Copy { by, set, mailbox: p.mailbox()? })
}

pub(super) fn write_copy(w: &mut Writer<'_>, name: &str, copy: &Copy) {
    w.raw_fmt(format_args!("{name} {} ", copy.set));
    w.mailbox(&copy.mailbox);
}

pub(super) fn expunge(p: &mut Parser<'_>, by: Numbering) -> Parsed<Command> {
    let uids = match by {
        Numbering::Sequence => None,
        Numbering::Uid => {
            p.space()?;
            Some(p.message_set()?)
        }
    };
    Ok(Command::Expunge(Expunge { uids }))
}
