//! IMAP's flags and the store's keywords.

use imap::Flag;
use mail::{Keyword, KeywordSet, view::Flags};

/// What a client may set.
pub(super) const SYSTEM: [Flag; 5] =
    [Flag::Answered, Flag::Flagged, Flag::Deleted, Flag::Seen, Flag::Draft];

/// As the wire has them.
pub(super) fn to_wire(flags: &Flags) -> Vec<Flag> {
    let mut list = Vec::with_capacity(flags.keywords.len() + 1);
    for keyword in flags.keywords.iter() {
        list.extend(flag_of(keyword));
    }
    if flags.deleted {
        list.push(Flag::Deleted);
    }
    list
}

/// A keyword's flag; `None` for one that is no IMAP atom.
pub(super) fn flag_of(keyword: &Keyword) -> Option<Flag> {
    Some(match keyword.as_str() {
        Keyword::SEEN => Flag::Seen,
        Keyword::ANSWERED => Flag::Answered,
        Keyword::FLAGGED => Flag::Flagged,
        Keyword::DRAFT => Flag::Draft,
        other => Flag::Keyword(imap::Keyword::new(other)?),
    })
}

/// As the store has them, with whether `\Deleted` is among them.
///
/// # Errors
/// The flag that is no keyword of ours.
pub(super) fn from_wire(flags: &[Flag]) -> Result<Flags, mail::KeywordError> {
    let mut keywords = Vec::with_capacity(flags.len());
    let mut deleted = false;
    for flag in flags {
        let name = match flag {
            Flag::Seen => Keyword::SEEN,
            Flag::Answered => Keyword::ANSWERED,
            Flag::Flagged => Keyword::FLAGGED,
            Flag::Draft => Keyword::DRAFT,
            Flag::Deleted => {
                deleted = true;
                continue;
            }
            Flag::Keyword(keyword) => keyword.as_str(),
        };
        keywords.push(Keyword::new(name)?);
    }
    Ok(Flags { keywords: keywords.into_iter().collect::<KeywordSet>(), deleted })
}

/// Whether a message carries the flag.
pub(super) fn has(flags: &Flags, flag: &Flag) -> bool {
    match flag {
        Flag::Deleted => flags.deleted,
        Flag::Seen => flags.keywords.contains(Keyword::SEEN),
        Flag::Answered => flags.keywords.contains(Keyword::ANSWERED),
        Flag::Flagged => flags.keywords.contains(Keyword::FLAGGED),
        Flag::Draft => flags.keywords.contains(Keyword::DRAFT),
        Flag::Keyword(keyword) => flags.keywords.contains(&keyword.as_str().to_ascii_lowercase()),
    }
}
