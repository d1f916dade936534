//! SELECT, EXAMINE, CREATE, RENAME, STATUS (RFC 9051 §6.3; RFC 7162 §3.1.8; RFC 6154 §3).

use super::Command;
use super::parser::{Parsed, Parser, SyntaxError};
use crate::mailbox::{MailboxName, SpecialUse};
use crate::response::ResponseCode;
use crate::wire::Writer;

/// SELECT or EXAMINE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// Which of the two.
    pub mode: SelectMode,
    /// Whether the client asked for CONDSTORE here; the session has enabled it already.
    pub condstore: bool,
}

/// How a mailbox is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectMode {
    /// SELECT
    ReadWrite,
    /// EXAMINE
    ReadOnly,
}

/// CREATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// As sent: it may end in the delimiter, which only says that children will follow.
    pub mailbox: MailboxName,
    /// `USE` (RFC 6154 §3), mostly empty.
    pub special_use: Vec<SpecialUse>,
}

/// RENAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The mailbox; INBOX keeps its place and gives its messages away.
    pub from: MailboxName,
    /// Its new name.
    pub to: MailboxName,
}

/// STATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCommand {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// What is asked, each once.
    pub items: Vec<StatusItem>,
}

/// What STATUS can tell (RFC 9051 §6.3.11, RFC 3501 §6.3.10, RFC 7162 §3.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusItem {
    /// `MESSAGES`
    Messages,
    /// `RECENT`
    Recent,
    /// `UIDNEXT`
    UidNext,
    /// `UIDVALIDITY`
    UidValidity,
    /// `UNSEEN`
    Unseen,
    /// `DELETED`
    Deleted,
    /// `SIZE`
    Size,
    /// `HIGHESTMODSEQ`
    HighestModSeq,
}

impl StatusItem {
    pub(crate) const ALL: [Self; 8] = [
        Self::Messages,
        Self::Recent,
        Self::UidNext,
        Self::UidValidity,
        Self::Unseen,
        Self::Deleted,
        Self::Size,
        Self::HighestModSeq,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
            Self::Deleted => "DELETED",
            Self::Size => "SIZE",
            Self::HighestModSeq => "HIGHESTMODSEQ",
        }
    }
}

pub(super) fn select(p: &mut Parser<'_>, mode: SelectMode) -> Parsed<Command> {
    p.space()?;
    let mailbox = p.mailbox()?;
    let mut condstore = false;
    if p.take(" ") {
        p.list(|p| match p.atom("a parameter of SELECT")? {
            name if name.eq_ignore_ascii_case("CONDSTORE") => {
                condstore = true;
                Ok(())
            }
            _ => Err(SyntaxError::bad("unknown parameter of SELECT")),
        })?;
    }
    Ok(Command::Select(Select { mailbox, mode, condstore }))
}

pub(super) fn write_select(w: &mut Writer<'_>, select: &Select) {
    w.raw(match select.mode {
        SelectMode::ReadWrite => "SELECT ",
        SelectMode::ReadOnly => "EXAMINE ",
    });
    w.mailbox(&select.mailbox);
    if select.condstore {
        w.raw(" (CONDSTORE)");
    }
}

pub(super) fn create(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    let mailbox = p.mailbox()?;
    let mut special_use = Vec::new();
    if p.take(" ") {
        p.list(|p| {
            p.expect("USE ", "USE, the only parameter of CREATE")?;
            p.list_or_empty(|p| {
                let text =
                    p.word("a special use", |byte| byte.is_ascii_graphic() && byte != b')')?;
                // RFC 6154 §3: an attribute that we cannot give is NO with USEATTR.
                let used = SpecialUse::parse(text).ok_or_else(|| {
                    SyntaxError::no(ResponseCode::UseAttr, "this special use is not supported")
                })?;
                if !special_use.contains(&used) {
                    special_use.push(used);
                }
                Ok(())
            })
        })?;
    }
    Ok(Command::Create(Create { mailbox, special_use }))
}

pub(super) fn write_create(w: &mut Writer<'_>, create: &Create) {
    w.mailbox(&create.mailbox);
    if !create.special_use.is_empty() {
        w.raw(" (USE (");
        w.words(create.special_use.iter().map(|used| used.as_str()));
        w.raw("))");
    }
}

pub(super) fn rename(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    let from = p.mailbox()?;
    p.space()?;
    Ok(Command::Rename(Rename { from, to: p.mailbox()? }))
}

pub(super) fn status(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    let mailbox = p.mailbox()?;
    p.space()?;
    Ok(Command::Status(StatusCommand { mailbox, items: status_items(p)? }))
}

/// The items in parentheses, as STATUS and LIST have them.
pub(super) fn status_items(p: &mut Parser<'_>) -> Parsed<Vec<StatusItem>> {
    let mut items = Vec::new();
    p.list(|p| {
        let name = p.atom("an item of STATUS")?;
        let item =
            StatusItem::ALL.into_iter().find(|item| item.as_str().eq_ignore_ascii_case(name));
        let item = item.ok_or_else(|| SyntaxError::bad("unknown item of STATUS"))?;
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    Ok(items)
}

pub(super) fn write_status_items(w: &mut Writer<'_>, items: &[StatusItem]) {
    w.raw("(");
    w.words(items.iter().map(|item| item.as_str()));
    w.raw(")");
}
