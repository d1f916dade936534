//! LIST, LSUB, STATUS and NAMESPACE responses (RFC 9051 §7.3).

use std::collections::BTreeSet;

use crate::ids::{ModSeq, Uid, UidValidity};
use crate::mailbox::{Delimiter, MailboxName, SpecialUse};
use crate::wire::Writer;

/// One mailbox in LIST or LSUB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// What is known of it. In IMAP4rev1 sessions `\NonExistent` is written as `\Noselect` too.
    pub attributes: BTreeSet<ListAttribute>,
    /// `None` in a flat name space.
    pub delimiter: Option<Delimiter>,
    /// The mailbox.
    pub mailbox: MailboxName,
    /// Why it is listed although it does not match itself: RECURSIVEMATCH found children that do
    /// (RFC 9051 §6.3.9.6).
    pub child_info: BTreeSet<ChildInfo>,
    /// `OLDNAME`: the name under which the client knew it.
    pub old_name: Option<MailboxName>,
}

impl ListEntry {
    /// A mailbox with nothing said of it.
    pub fn new(mailbox: MailboxName, delimiter: Delimiter) -> Self {
        Self {
            attributes: BTreeSet::new(),
            delimiter: Some(delimiter),
            mailbox,
            child_info: BTreeSet::new(),
            old_name: None,
        }
    }
}

/// Selection that children of a listed mailbox satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChildInfo {
    /// `SUBSCRIBED`
    Subscribed,
    /// `SPECIAL-USE`
    SpecialUse,
    /// `REMOTE`
    Remote,
}

/// Attribute of a mailbox in LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListAttribute {
    /// `\NonExistent`
    NonExistent,
    /// `\Noinferiors`
    NoInferiors,
    /// `\Noselect`
    NoSelect,
    /// `\HasChildren`
    HasChildren,
    /// `\HasNoChildren`
    HasNoChildren,
    /// `\Marked`
    Marked,
    /// `\Unmarked`
    Unmarked,
    /// `\Subscribed`
    Subscribed,
    /// `\Remote`
    Remote,
    /// A special use.
    SpecialUse(SpecialUse),
}

impl ListAttribute {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NonExistent => "\\NonExistent",
            Self::NoInferiors => "\\Noinferiors",
            Self::NoSelect => "\\Noselect",
            Self::HasChildren => "\\HasChildren",
            Self::HasNoChildren => "\\HasNoChildren",
            Self::Marked => "\\Marked",
            Self::Unmarked => "\\Unmarked",
            Self::Subscribed => "\\Subscribed",
            Self::Remote => "\\Remote",
            Self::SpecialUse(used) => used.as_str(),
        }
    }
}

/// Attributes and delimiter, as far as the name.
fn write_head(
    w: &mut Writer<'_>,
    attributes: &BTreeSet<ListAttribute>,
    delimiter: Option<Delimiter>,
) {
    w.raw("(");
    for (index, attribute) in attributes.iter().enumerate() {
        w.raw(if index == 0 { "" } else { " " });
        w.raw(attribute.as_str());
    }
    w.raw(") ");
    write_delimiter(w, delimiter);
    w.raw(" ");
}

fn write_delimiter(w: &mut Writer<'_>, delimiter: Option<Delimiter>) {
    match delimiter.map(Delimiter::as_char) {
        Some(c @ ('"' | '\\')) => w.raw_fmt(format_args!("\"\\{c}\"")),
        Some(c) => w.raw_fmt(format_args!("\"{c}\"")),
        None => w.raw("NIL"),
    }
}

impl ListEntry {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        if !w.is_utf8() && self.attributes.contains(&ListAttribute::NonExistent) {
            // RFC 5258 §3: \NonExistent implies \Noselect, which is all that older clients know.
            let mut attributes = self.attributes.clone();
            attributes.insert(ListAttribute::NoSelect);
            write_head(w, &attributes, self.delimiter);
        } else {
            write_head(w, &self.attributes, self.delimiter);
        }
        w.mailbox(&self.mailbox);
        if self.child_info.is_empty() && self.old_name.is_none() {
            return;
        }
        w.raw(" (");
        if !self.child_info.is_empty() {
            w.raw("\"CHILDINFO\" (");
            for (index, info) in self.child_info.iter().enumerate() {
                w.raw(if index == 0 { "" } else { " " });
                w.raw(match info {
                    ChildInfo::Subscribed => "\"SUBSCRIBED\"",
                    ChildInfo::SpecialUse => "\"SPECIAL-USE\"",
                    ChildInfo::Remote => "\"REMOTE\"",
                });
            }
            w.raw(")");
        }
        if let Some(old_name) = &self.old_name {
            w.raw(if self.child_info.is_empty() { "" } else { " " });
            w.raw("\"OLDNAME\" (");
            w.mailbox(old_name);
            w.raw(")");
        }
        w.raw(")");
    }
}

/// The answer to `LIST "" ""`: the delimiter and the root (RFC 9051 §6.3.9).
pub(crate) fn write_root(w: &mut Writer<'_>, delimiter: Delimiter) {
    write_head(w, &BTreeSet::from([ListAttribute::NoSelect]), Some(delimiter));
    w.raw("\"\"");
}

/// STATUS of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxStatus {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// What was asked for, in any order.
    pub values: Vec<StatusValue>,
}

/// One value of STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusValue {
    /// `MESSAGES`
    Messages(u32),
    /// `RECENT`, which is always 0 here (RFC 3501 §6.3.10).
    Recent,
    /// `UIDNEXT`
    UidNext(Uid),
    /// `UIDVALIDITY`
    UidValidity(UidValidity),
    /// `UNSEEN`
    Unseen(u32),
    /// `DELETED`
    Deleted(u32),
    /// `SIZE`, octets.
    Size(u64),
    /// `HIGHESTMODSEQ`
    HighestModSeq(ModSeq),
}

impl MailboxStatus {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.mailbox(&self.mailbox);
        w.raw(" (");
        for (index, value) in self.values.iter().enumerate() {
            w.raw(if index == 0 { "" } else { " " });
            match value {
                StatusValue::Messages(n) => w.raw_fmt(format_args!("MESSAGES {n}")),
                StatusValue::Recent => w.raw("RECENT 0"),
                StatusValue::UidNext(uid) => w.raw_fmt(format_args!("UIDNEXT {uid}")),
                StatusValue::UidValidity(n) => w.raw_fmt(format_args!("UIDVALIDITY {n}")),
                StatusValue::Unseen(n) => w.raw_fmt(format_args!("UNSEEN {n}")),
                StatusValue::Deleted(n) => w.raw_fmt(format_args!("DELETED {n}")),
                StatusValue::Size(n) => w.raw_fmt(format_args!("SIZE {n}")),
                StatusValue::HighestModSeq(n) => w.raw_fmt(format_args!("HIGHESTMODSEQ {n}")),
            }
        }
        w.raw(")");
    }
}

/// NAMESPACE (RFC 9051 §6.3.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The user's own.
    pub personal: Vec<Namespace>,
    /// Those of other users.
    pub other_users: Vec<Namespace>,
    /// Shared by all.
    pub shared: Vec<Namespace>,
}

/// One name space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Prefix of its names, delimiter included; `None` for none at all.
    pub prefix: Option<MailboxName>,
    /// `None` in a flat name space.
    pub delimiter: Option<Delimiter>,
}

impl Namespaces {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        for (index, spaces) in [&self.personal, &self.other_users, &self.shared].iter().enumerate()
        {
            w.raw(if index == 0 { "" } else { " " });
            if spaces.is_empty() {
                w.raw("NIL");
                continue;
            }
            w.raw("(");
            for space in spaces.iter() {
                w.raw("(");
                match &space.prefix {
                    Some(prefix) => w.mailbox_string(prefix),
                    None => w.raw("\"\""),
                }
                w.raw(" ");
                write_delimiter(w, space.delimiter);
                w.raw(")");
            }
            w.raw(")");
        }
    }
}
