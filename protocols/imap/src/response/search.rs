//! SEARCH and ESEARCH responses (RFC 9051 §7.3.4, RFC 3501 §7.2.5, RFC 7162 §3.1.5).

use std::collections::BTreeSet;

use crate::command::{Search, SearchReturn, Tag};
use crate::ids::{ModSeq, Numbering};
use crate::sequence::IdSet;
use crate::wire::Writer;

/// What a SEARCH found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchOutcome {
    /// Sequence numbers or UIDs, as the command said. All of them, unless the options only ask for
    /// MIN and MAX, when those two suffice.
    pub matches: IdSet,
    /// Where the client used MODSEQ: the highest mod-sequence of the messages that are returned
    /// (with only MIN and/or MAX asked for: of those messages).
    pub modseq: Option<ModSeq>,
}

/// How the client wants the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResultForm {
    by: Numbering,
    /// `None`: `* SEARCH` in a session of IMAP4rev1.
    options: Option<BTreeSet<SearchReturn>>,
}

impl ResultForm {
    /// RFC 9051 §6.4.4: IMAP4rev2 answers every SEARCH with ESEARCH.
    pub(crate) fn new(search: &Search, rev2_enabled: bool) -> Self {
        let options = match &search.returns {
            Some(options) => Some(options.clone()),
            None if rev2_enabled => Some(BTreeSet::from([SearchReturn::All])),
            None => None,
        };
        Self { by: search.by, options }
    }
}

/// Writes the whole response, or nothing where only SAVE was asked for.
pub(crate) fn write_outcome(
    w: &mut Writer<'_>,
    tag: &Tag,
    form: &ResultForm,
    found: &SearchOutcome,
) {
    let Some(options) = &form.options else {
        w.raw("* SEARCH");
        for id in found.matches.iter() {
            w.raw_fmt(format_args!(" {id}"));
        }
        if let (Some(modseq), false) = (found.modseq, found.matches.is_empty()) {
            w.raw_fmt(format_args!(" (MODSEQ {modseq})"));
        }
        return w.raw("\r\n");
    };
    // RFC 9051 §6.4.4: with SAVE alone the result is kept and not told.
    if options.iter().all(|option| *option == SearchReturn::Save) {
        return;
    }
    w.raw("* ESEARCH (TAG ");
    w.string(&tag.as_str().into());
    w.raw(")");
    if form.by == Numbering::Uid {
        w.raw(" UID");
    }
    for option in options {
        match (option, found.matches.first(), found.matches.last()) {
            (SearchReturn::Min, Some(first), _) => w.raw_fmt(format_args!(" MIN {first}")),
            (SearchReturn::Max, _, Some(last)) => w.raw_fmt(format_args!(" MAX {last}")),
            (SearchReturn::All, Some(_), _) => w.raw_fmt(format_args!(" ALL {}", found.matches)),
            (SearchReturn::Count, ..) => w.raw_fmt(format_args!(" COUNT {}", found.matches.len())),
            _ => {}
        }
    }
    if let (Some(modseq), false) = (found.modseq, found.matches.is_empty()) {
        w.raw_fmt(format_args!(" MODSEQ {modseq}"));
    }
    w.raw("\r\n");
}
