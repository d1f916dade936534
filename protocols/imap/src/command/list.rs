//! LIST with its extensions and LSUB (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154), and the
//! matching of patterns.

use std::collections::BTreeSet;

use super::Command;
use super::mailbox::{StatusItem, status_items, write_status_items};
use super::parser::{Parsed, Parser, SyntaxError};
use crate::limits::{LIST_PATTERN_BYTES_MAX, LIST_PATTERNS_MAX};
use crate::mailbox::{Delimiter, MailboxName};
use crate::response::ResponseCode;
use crate::wire::{Writer, is_atom_char};

/// LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Which mailboxes; nothing selects all.
    pub select: BTreeSet<ListSelect>,
    /// Stands before every pattern.
    pub reference: String,
    /// At least one. Never the one empty pattern that asks for the delimiter: the session answers
    /// that.
    pub patterns: Vec<ListPattern>,
    /// What to tell of each mailbox.
    pub returns: BTreeSet<ListReturn>,
    /// With this, a STATUS response for each mailbox that can be selected (RFC 5819).
    pub status: Vec<StatusItem>,
    /// Whether any syntax of RFC 5258 was used.
    pub form: ListForm,
}

/// LSUB (RFC 3501 §6.3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lsub {
    /// Stands before the pattern.
    pub reference: String,
    /// The pattern.
    pub pattern: ListPattern,
}

/// Basic or extended LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListForm {
    /// Of RFC 3501: one pattern, no options.
    Basic,
    /// Of RFC 5258.
    Extended,
}

/// Selection option of LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListSelect {
    /// `SUBSCRIBED`
    Subscribed,
    /// `REMOTE`
    Remote,
    /// `RECURSIVEMATCH`; only beside another option.
    RecursiveMatch,
    /// `SPECIAL-USE`
    SpecialUse,
}

impl ListSelect {
    const ALL: [Self; 4] = [Self::Subscribed, Self::Remote, Self::RecursiveMatch, Self::SpecialUse];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribed => "SUBSCRIBED",
            Self::Remote => "REMOTE",
            Self::RecursiveMatch => "RECURSIVEMATCH",
            Self::SpecialUse => "SPECIAL-USE",
        }
    }

    /// The return option that comes with it.
    pub const fn implies(self) -> Option<ListReturn> {
        match self {
            Self::Subscribed => Some(ListReturn::Subscribed),
            Self::SpecialUse => Some(ListReturn::SpecialUse),
            Self::Remote | Self::RecursiveMatch => None,
        }
    }
}

/// Return option of LIST; STATUS is in [`List::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListReturn {
    /// `SUBSCRIBED`
    Subscribed,
    /// `CHILDREN`
    Children,
    /// `SPECIAL-USE`
    SpecialUse,
}

impl ListReturn {
    const ALL: [Self; 3] = [Self::Subscribed, Self::Children, Self::SpecialUse];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribed => "SUBSCRIBED",
            Self::Children => "CHILDREN",
            Self::SpecialUse => "SPECIAL-USE",
        }
    }
}

/// A pattern in UTF-8: `*` stands for anything, `%` for anything but the delimiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPattern(String);

impl ListPattern {
    /// Takes a pattern as it is.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` matches the reference and the pattern together. INBOX matches in any case.
    /// Costs at most name × pattern.
    pub fn matches(&self, reference: &str, name: &MailboxName, delimiter: Delimiter) -> bool {
        let pattern: Vec<char> = reference.chars().chain(self.0.chars()).collect();
        if name.is_inbox() {
            let upper: Vec<char> = pattern.iter().map(char::to_ascii_uppercase).collect();
            return wildcard_match(&upper, "INBOX", delimiter);
        }
        wildcard_match(&pattern, name.as_str(), delimiter)
    }
}

/// `reached[i]`: the name so far matches the first `i` characters of the pattern.
fn wildcard_match(pattern: &[char], name: &str, delimiter: Delimiter) -> bool {
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    let skip_wildcards = |reached: &mut [bool]| {
        for (at, c) in pattern.iter().enumerate() {
            if reached[at] && matches!(c, '*' | '%') {
                reached[at + 1] = true;
            }
        }
    };
    skip_wildcards(&mut reached);
    let mut next = reached.clone();
    for c in name.chars() {
        next.fill(false);
        for (at, wanted) in pattern.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match wanted {
                '*' => next[at] = true,
                '%' if c != delimiter.as_char() => next[at] = true,
                '%' => {}
                wanted if *wanted == c => next[at + 1] = true,
                _ => {}
            }
        }
        skip_wildcards(&mut next);
        std::mem::swap(&mut reached, &mut next);
    }
    reached[pattern.len()]
}

impl List {
    /// Whether a mailbox matches one of the patterns.
    pub fn matches(&self, name: &MailboxName, delimiter: Delimiter) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(&self.reference, name, delimiter))
    }

    /// `LIST "" ""`: only the delimiter is asked for.
    pub(crate) fn asks_for_root(&self) -> bool {
        self.form == ListForm::Basic && self.patterns.iter().all(|pattern| pattern.0.is_empty())
    }
}

pub(super) fn list(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    let mut form = ListForm::Basic;
    let mut select = BTreeSet::new();
    if p.peek() == Some(b'(') {
        form = ListForm::Extended;
        p.list_or_empty(|p| {
            let name = p.atom("a selection option of LIST")?;
            let option =
                ListSelect::ALL.into_iter().find(|o| o.as_str().eq_ignore_ascii_case(name));
            select.insert(
                option.ok_or_else(|| SyntaxError::bad("unknown selection option of LIST"))?,
            );
            Ok(())
        })?;
        p.space()?;
        // RFC 5258 §3.1: RECURSIVEMATCH needs an option to match recursively; REMOTE selects nothing.
        let base =
            select.contains(&ListSelect::Subscribed) || select.contains(&ListSelect::SpecialUse);
        if select.contains(&ListSelect::RecursiveMatch) && !base {
            return Err(SyntaxError::bad("RECURSIVEMATCH needs another selection option"));
        }
    }
    let reference = p.name("a reference name")?;
    p.space()?;
    let mut patterns = Vec::new();
    let mut bytes_left = LIST_PATTERN_BYTES_MAX;
    if p.peek() == Some(b'(') {
        form = ListForm::Extended;
        p.list(|p| {
            if patterns.len() == LIST_PATTERNS_MAX {
                return Err(SyntaxError::no(ResponseCode::Limit, "too many patterns in LIST"));
            }
            patterns.push(pattern(p, &reference, &mut bytes_left)?);
            Ok(())
        })?;
    } else {
        patterns.push(pattern(p, &reference, &mut bytes_left)?);
    }
    // RFC 5258 §3.1, RFC 6154 §2: what was selected by is returned too.
    let mut returns: BTreeSet<_> = select.iter().filter_map(|option| option.implies()).collect();
    let mut status = Vec::new();
    if p.take(" ") {
        form = ListForm::Extended;
        p.expect("RETURN ", "RETURN and its options")?;
        p.list_or_empty(|p| return_option(p, &mut returns, &mut status))?;
    }
    Ok(Command::List(List { select, reference, patterns, returns, status, form }))
}

fn return_option(
    p: &mut Parser<'_>,
    returns: &mut BTreeSet<ListReturn>,
    status: &mut Vec<StatusItem>,
) -> Parsed<()> {
    let name = p.atom("a return option of LIST")?;
    if name.eq_ignore_ascii_case("STATUS") {
        p.space()?;
        *status = status_items(p)?;
        return Ok(());
    }
    let option = ListReturn::ALL.into_iter().find(|o| o.as_str().eq_ignore_ascii_case(name));
    returns.insert(option.ok_or_else(|| SyntaxError::bad("unknown return option of LIST"))?);
    Ok(())
}

/// A pattern, which takes its length from what is left for all of them.
fn pattern(p: &mut Parser<'_>, reference: &str, bytes_left: &mut usize) -> Parsed<ListPattern> {
    let list_char = |byte| is_atom_char(byte) || matches!(byte, b'%' | b'*');
    let text = match p.at_string() {
        true => p.string("a pattern")?,
        false => p.word("a pattern", list_char)?.to_owned(),
    };
    let text = p.decode_name(text)?;
    *bytes_left = bytes_left
        .checked_sub(text.len() + reference.len())
        .ok_or_else(|| SyntaxError::no(ResponseCode::Limit, "the patterns of LIST are too long"))?;
    Ok(ListPattern(text))
}

pub(super) fn lsub(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    let reference = p.name("a reference name")?;
    p.space()?;
    let pattern = pattern(p, &reference, &mut { LIST_PATTERN_BYTES_MAX })?;
    Ok(Command::Lsub(Lsub { reference, pattern }))
}

pub(super) fn write_list(w: &mut Writer<'_>, list: &List) {
    if !list.select.is_empty() {
        w.raw("(");
        w.words(list.select.iter().map(|option| option.as_str()));
        w.raw(") ");
    }
    w.name(&list.reference);
    match &list.patterns[..] {
        [pattern] => {
            w.raw(" ");
            w.name(&pattern.0);
        }
        patterns => {
            for (index, pattern) in patterns.iter().enumerate() {
                w.raw(if index == 0 { " (" } else { " " });
                w.name(&pattern.0);
            }
            w.raw(")");
        }
    }
    if list.returns.is_empty() && list.status.is_empty() {
        if list.form == ListForm::Extended && list.select.is_empty() && list.patterns.len() == 1 {
            w.raw(" RETURN ()");
        }
        return;
    }
    w.raw(" RETURN (");
    w.words(list.returns.iter().map(|option| option.as_str()));
    if !list.status.is_empty() {
        w.raw(if list.returns.is_empty() { "STATUS " } else { " STATUS " });
        write_status_items(w, &list.status);
    }
    w.raw(")");
}

pub(super) fn write_lsub(w: &mut Writer<'_>, lsub: &Lsub) {
    w.name(&lsub.reference);
    w.raw(" ");
    w.name(&lsub.pattern.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reference: &str, pattern: &str, matching: &[&str], other: &[&str]) {
        let pattern = ListPattern::new(pattern);
        let name = |name: &&str| MailboxName::new(*name).expect("a name");
        for matched in matching.iter().map(name) {
            assert!(pattern.matches(reference, &matched, Delimiter::SLASH), "{matched}");
        }
        for unmatched in other.iter().map(name) {
            assert!(!pattern.matches(reference, &unmatched, Delimiter::SLASH), "{unmatched}");
        }
    }

    #[test]
    fn patterns_match() {
        check("", "*", &["INBOX", "a/b/c"], &[]);
        check("", "%", &["INBOX", "a"], &["a/b"]);
        check("", "a/%", &["a/b", "a/ü"], &["a", "a/b/c", "A/b"]);
        check("a/", "%/c", &["a/b/c"], &["a/c", "a/b/d/c"]);
        check("", "*c%", &["c", "a/bc", "abcd/c"], &["c/d", "a"]);
        check("", "inbox", &["INBOX"], &["INBOX/a"]);
        check("", "in%", &["INBOX", "inner"], &["Inner", "INBOX/a"]);
        check("", "", &[], &["a"]);
        check("", "%*%*a", &["a", "b/a"], &["b"]);
    }

    #[test]
    fn many_wildcards_cost_little() {
        let pattern = ListPattern::new("*a".repeat(400) + "b");
        let name = MailboxName::new("a".repeat(1000)).expect("a name");
        assert!(!pattern.matches("", &name, Delimiter::SLASH));
    }
}
