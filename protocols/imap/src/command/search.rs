//! SEARCH (RFC 9051 §6.4.4, RFC 3501 §6.4.4, RFC 4731, RFC 5182, RFC 7162 §3.1.5).

use std::collections::BTreeSet;

use super::Command;
use super::parser::{Parsed, Parser, SyntaxError};
use crate::date::Date;
use crate::flag::{Flag, Keyword};
use crate::ids::{ModSeq, Numbering};
use crate::limits::{SEARCH_DEPTH_MAX, SEARCH_KEYS_MAX};
use crate::response::ResponseCode;
use crate::sequence::MessageSet;
use crate::wire::Writer;

/// SEARCH or UID SEARCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Kind of the numbers in the result.
    pub by: Numbering,
    /// Options of RETURN, never empty; `None` where RETURN was not used.
    pub returns: Option<BTreeSet<SearchReturn>>,
    /// What to look for.
    pub key: SearchKey,
}

impl Search {
    /// Whether the result is to be kept for `$`.
    pub fn saves(&self) -> bool {
        self.returns.as_ref().is_some_and(|options| options.contains(&SearchReturn::Save))
    }
}

/// Result option of SEARCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SearchReturn {
    /// `MIN`
    Min,
    /// `MAX`
    Max,
    /// `ALL`
    All,
    /// `COUNT`
    Count,
    /// `SAVE`
    Save,
}

impl SearchReturn {
    const ALL: [Self; 5] = [Self::Min, Self::Max, Self::All, Self::Count, Self::Save];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::All => "ALL",
            Self::Count => "COUNT",
            Self::Save => "SAVE",
        }
    }
}

/// A condition on messages. Texts are UTF-8 and compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchKey {
    /// `ALL`
    All,
    /// All of these; at least two.
    And(Vec<SearchKey>),
    /// `OR`
    Or(Box<SearchKey>, Box<SearchKey>),
    /// `NOT`
    Not(Box<SearchKey>),
    /// These sequence numbers.
    Sequence(MessageSet),
    /// `UID`
    Uid(MessageSet),
    /// `SEEN`, `KEYWORD` and the like.
    Has(Flag),
    /// `UNSEEN`, `UNKEYWORD` and the like.
    Lacks(Flag),
    /// `RECENT`: nothing is.
    Recent,
    /// `NEW`, that is recent and unseen: nothing is.
    New,
    /// `OLD`, that is not recent: everything is.
    Old,
    /// `BCC`
    Bcc(String),
    /// `CC`
    Cc(String),
    /// `FROM`
    From(String),
    /// `TO`
    To(String),
    /// `SUBJECT`
    Subject(String),
    /// `BODY`
    Body(String),
    /// `TEXT`: header or body.
    Text(String),
    /// `HEADER`: with an empty value, any message that has the field.
    Header {
        /// Field name.
        name: String,
        /// What its value holds.
        value: String,
    },
    /// `BEFORE`, by internal date.
    Before(Date),
    /// `ON`, by internal date.
    On(Date),
    /// `SINCE`, by internal date.
    Since(Date),
    /// `SENTBEFORE`, by `Date:`.
    SentBefore(Date),
    /// `SENTON`, by `Date:`.
    SentOn(Date),
    /// `SENTSINCE`, by `Date:`.
    SentSince(Date),
    /// `LARGER`, octets.
    Larger(u64),
    /// `SMALLER`, octets.
    Smaller(u64),
    /// `MODSEQ`: this or above. We keep one mod-sequence a message, so an entry name changes
    /// nothing and is dropped.
    ModSeq(ModSeq),
}

impl SearchKey {
    /// Whether some key of the tree is `wanted`.
    pub fn any(&self, wanted: &impl Fn(&Self) -> bool) -> bool {
        wanted(self)
            || match self {
                Self::And(keys) => keys.iter().any(|key| key.any(wanted)),
                Self::Or(a, b) => a.any(wanted) || b.any(wanted),
                Self::Not(key) => key.any(wanted),
                _ => false,
            }
    }

    /// Whether mod-sequences are searched, so that the result tells the highest one.
    pub fn uses_modseq(&self) -> bool {
        self.any(&|key| matches!(key, Self::ModSeq(_)))
    }

    fn all_of(mut keys: Vec<Self>) -> Self {
        match keys.len() {
            1 => keys.remove(0),
            _ => Self::And(keys),
        }
    }
}

pub(super) fn search(p: &mut Parser<'_>, by: Numbering) -> Parsed<Command> {
    p.space()?;
    let mut returns = None;
    if p.take("RETURN ") {
        let mut options = BTreeSet::new();
        p.list_or_empty(|p| {
            let name = p.atom("a result option of SEARCH")?;
            let option =
                SearchReturn::ALL.into_iter().find(|o| o.as_str().eq_ignore_ascii_case(name));
            options
                .insert(option.ok_or_else(|| SyntaxError::bad("unknown result option of SEARCH"))?);
            Ok(())
        })?;
        p.space()?;
        // RFC 9051 §6.4.4: RETURN () is RETURN (ALL).
        if options.is_empty() {
            options.insert(SearchReturn::All);
        }
        returns = Some(options);
    }
    if p.take("CHARSET ") {
        let charset = p.astring("a charset")?;
        if !["UTF-8", "US-ASCII"].iter().any(|known| charset.eq_ignore_ascii_case(known)) {
            return Err(SyntaxError::no(ResponseCode::BadCharset, "this charset is not supported"));
        }
        p.space()?;
    }
    let mut reader = KeyReader { keys_left: SEARCH_KEYS_MAX };
    let mut keys = vec![reader.key(p, 1)?];
    while p.take(" ") {
        keys.push(reader.key(p, 1)?);
    }
    Ok(Command::Search(Search { by, returns, key: SearchKey::all_of(keys) }))
}

struct KeyReader {
    keys_left: usize,
}

impl KeyReader {
    fn key(&mut self, p: &mut Parser<'_>, depth: usize) -> Parsed<SearchKey> {
        if depth > SEARCH_DEPTH_MAX {
            return Err(SyntaxError::no(ResponseCode::Limit, "SEARCH is nested too deeply"));
        }
        self.keys_left = self
            .keys_left
            .checked_sub(1)
            .ok_or_else(|| SyntaxError::no(ResponseCode::Limit, "SEARCH has too many keys"))?;
        match p.peek() {
            Some(b'(') => {
                let mut keys = Vec::new();
                p.list(|p| {
                    keys.push(self.key(p, depth + 1)?);
                    Ok(())
                })?;
                return Ok(SearchKey::all_of(keys));
            }
            Some(b'0'..=b'9' | b'*' | b'$') => return p.message_set().map(SearchKey::Sequence),
            _ => {}
        }
        let name = p.atom("a search key")?.to_ascii_uppercase();
        match name.as_str() {
            "OR" => {
                p.space()?;
                let first = self.key(p, depth + 1)?;
                p.space()?;
                Ok(SearchKey::Or(Box::new(first), Box::new(self.key(p, depth + 1)?)))
            }
            "NOT" => {
                p.space()?;
                Ok(SearchKey::Not(Box::new(self.key(p, depth + 1)?)))
            }
            _ => plain_key(&name).map_or_else(|| key_with_argument(p, &name), Ok),
        }
    }
}

const FLAG_KEYS: [(&str, Flag); 5] = [
    ("ANSWERED", Flag::Answered),
    ("DELETED", Flag::Deleted),
    ("DRAFT", Flag::Draft),
    ("FLAGGED", Flag::Flagged),
    ("SEEN", Flag::Seen),
];

fn plain_key(name: &str) -> Option<SearchKey> {
    match name {
        "ALL" => return Some(SearchKey::All),
        "NEW" => return Some(SearchKey::New),
        "OLD" => return Some(SearchKey::Old),
        "RECENT" => return Some(SearchKey::Recent),
        _ => {}
    }
    let flag = |name: &str| FLAG_KEYS.into_iter().find(|key| key.0 == name).map(|key| key.1);
    match name.strip_prefix("UN") {
        Some(lacked) => flag(lacked).map(SearchKey::Lacks),
        None => flag(name).map(SearchKey::Has),
    }
}

fn key_with_argument(p: &mut Parser<'_>, name: &str) -> Parsed<SearchKey> {
    let known = [
        "BCC",
        "CC",
        "FROM",
        "TO",
        "SUBJECT",
        "BODY",
        "TEXT",
        "HEADER",
        "KEYWORD",
        "UNKEYWORD",
        "BEFORE",
        "ON",
        "SINCE",
        "SENTBEFORE",
        "SENTON",
        "SENTSINCE",
        "LARGER",
        "SMALLER",
        "UID",
        "MODSEQ",
    ];
    if !known.contains(&name) {
        return Err(SyntaxError::bad("unknown search key"));
    }
    p.space()?;
    let text = |p: &mut Parser<'_>| p.astring("a text to search for");
    Ok(match name {
        "BCC" => SearchKey::Bcc(text(p)?),
        "CC" => SearchKey::Cc(text(p)?),
        "FROM" => SearchKey::From(text(p)?),
        "TO" => SearchKey::To(text(p)?),
        "SUBJECT" => SearchKey::Subject(text(p)?),
        "BODY" => SearchKey::Body(text(p)?),
        "TEXT" => SearchKey::Text(text(p)?),
        "HEADER" => {
            let name = p.astring("a header field name")?;
            p.space()?;
            SearchKey::Header { name, value: text(p)? }
        }
        "KEYWORD" => SearchKey::Has(keyword(p)?),
        "UNKEYWORD" => SearchKey::Lacks(keyword(p)?),
        "BEFORE" => SearchKey::Before(date(p)?),
        "ON" => SearchKey::On(date(p)?),
        "SINCE" => SearchKey::Since(date(p)?),
        "SENTBEFORE" => SearchKey::SentBefore(date(p)?),
        "SENTON" => SearchKey::SentOn(date(p)?),
        "SENTSINCE" => SearchKey::SentSince(date(p)?),
        "LARGER" => SearchKey::Larger(p.number("a size")?),
        "SMALLER" => SearchKey::Smaller(p.number("a size")?),
        "UID" => SearchKey::Uid(p.message_set()?),
        _ => mod_sequence(p)?,
    })
}

fn keyword(p: &mut Parser<'_>) -> Parsed<Flag> {
    let keyword = Keyword::new(p.atom("a keyword")?);
    keyword.map(Flag::Keyword).ok_or_else(|| SyntaxError::bad("a keyword is too long"))
}

fn date(p: &mut Parser<'_>) -> Parsed<Date> {
    let quoted = p.take("\"");
    let text = p.word("a date", |byte| byte.is_ascii_alphanumeric() || byte == b'-')?;
    if quoted {
        p.expect("\"", "the end of a date")?;
    }
    Date::parse(text.as_bytes()).ok_or_else(|| SyntaxError::bad("a date is written as 1-Feb-1994"))
}

/// `MODSEQ ["entry" type] n` (RFC 7162 §3.1.5).
fn mod_sequence(p: &mut Parser<'_>) -> Parsed<SearchKey> {
    if p.peek() == Some(b'"') {
        p.string("an entry name")?;
        p.space()?;
        let kind = p.atom("an entry type")?;
        if !["priv", "shared", "all"].iter().any(|known| known.eq_ignore_ascii_case(kind)) {
            return Err(SyntaxError::bad("an entry type is priv, shared or all"));
        }
        p.space()?;
    }
    Ok(SearchKey::ModSeq(mod_sequence_value(p)?))
}

pub(super) fn mod_sequence_value(p: &mut Parser<'_>) -> Parsed<ModSeq> {
    let value = p.number("a mod-sequence")?;
    ModSeq::new(value).ok_or_else(|| SyntaxError::bad("a mod-sequence is out of range"))
}

pub(super) fn write_search(w: &mut Writer<'_>, search: &Search) {
    w.raw("SEARCH ");
    if let Some(options) = &search.returns {
        w.raw("RETURN (");
        w.words(options.iter().map(|option| option.as_str()));
        w.raw(") ");
    }
    match &search.key {
        SearchKey::And(keys) if !keys.is_empty() => write_keys(w, keys),
        key => write_key(w, key),
    }
}

fn write_keys(w: &mut Writer<'_>, keys: &[SearchKey]) {
    for (index, key) in keys.iter().enumerate() {
        w.raw(if index == 0 { "" } else { " " });
        write_key(w, key);
    }
}

fn write_key(w: &mut Writer<'_>, key: &SearchKey) {
    let text = |w: &mut Writer<'_>, name: &str, value: &str| {
        w.raw(name);
        w.string_bytes(value.as_bytes());
    };
    match key {
        SearchKey::All => w.raw("ALL"),
        SearchKey::And(keys) if keys.is_empty() => w.raw("ALL"),
        SearchKey::And(keys) => {
            w.raw("(");
            write_keys(w, keys);
            w.raw(")");
        }
        SearchKey::Or(a, b) => {
            w.raw("OR ");
            write_key(w, a);
            w.raw(" ");
            write_key(w, b);
        }
        SearchKey::Not(key) => {
            w.raw("NOT ");
            write_key(w, key);
        }
        SearchKey::Sequence(set) => w.raw_fmt(format_args!("{set}")),
        SearchKey::Uid(set) => w.raw_fmt(format_args!("UID {set}")),
        SearchKey::Has(flag) => write_flag_key(w, "", flag),
        SearchKey::Lacks(flag) => write_flag_key(w, "UN", flag),
        SearchKey::Recent => w.raw("RECENT"),
        SearchKey::New => w.raw("NEW"),
        SearchKey::Old => w.raw("OLD"),
        SearchKey::Bcc(value) => text(w, "BCC ", value),
        SearchKey::Cc(value) => text(w, "CC ", value),
        SearchKey::From(value) => text(w, "FROM ", value),
        SearchKey::To(value) => text(w, "TO ", value),
        SearchKey::Subject(value) => text(w, "SUBJECT ", value),
        SearchKey::Body(value) => text(w, "BODY ", value),
        SearchKey::Text(value) => text(w, "TEXT ", value),
        SearchKey::Header { name, value } => {
            w.raw("HEADER ");
            w.astring(name);
            text(w, " ", value);
        }
        SearchKey::Before(date) => w.raw_fmt(format_args!("BEFORE {date}")),
        SearchKey::On(date) => w.raw_fmt(format_args!("ON {date}")),
        SearchKey::Since(date) => w.raw_fmt(format_args!("SINCE {date}")),
        SearchKey::SentBefore(date) => w.raw_fmt(format_args!("SENTBEFORE {date}")),
        SearchKey::SentOn(date) => w.raw_fmt(format_args!("SENTON {date}")),
        SearchKey::SentSince(date) => w.raw_fmt(format_args!("SENTSINCE {date}")),
        SearchKey::Larger(size) => w.raw_fmt(format_args!("LARGER {size}")),
        SearchKey::Smaller(size) => w.raw_fmt(format_args!("SMALLER {size}")),
        SearchKey::ModSeq(modseq) => w.raw_fmt(format_args!("MODSEQ {modseq}")),
    }
}

fn write_flag_key(w: &mut Writer<'_>, un: &str, flag: &Flag) {
    match flag {
        Flag::Keyword(keyword) => w.raw_fmt(format_args!("{un}KEYWORD {}", keyword.as_str())),
        flag => w.raw_fmt(format_args!("{un}{}", flag.as_str()[1..].to_ascii_uppercase())),
    }
}
