//! Flags of messages (RFC 9051 §2.3.2). `\Recent` is gone with IMAP4rev2 and never stored.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::limits::KEYWORD_BYTES_MAX;
use crate::wire::is_atom_char;

/// A flag that a client may set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// `\Answered`
    Answered,
    /// `\Flagged`
    Flagged,
    /// `\Deleted`
    Deleted,
    /// `\Seen`
    Seen,
    /// `\Draft`
    Draft,
    /// Anything else, `$Forwarded` for one.
    Keyword(Keyword),
}

/// The system flags that can be stored, in the order in which we list them.
pub const SYSTEM_FLAGS: [Flag; 5] =
    [Flag::Answered, Flag::Flagged, Flag::Deleted, Flag::Seen, Flag::Draft];

impl Flag {
    /// Reads a flag as on the wire; `None` for `\Recent`, other unknown system flags, and what is
    /// no atom.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('\\') {
            Some(name) => {
                SYSTEM_FLAGS.into_iter().find(|flag| flag.as_str()[1..].eq_ignore_ascii_case(name))
            }
            None => Keyword::new(text).map(Self::Keyword),
        }
    }

    /// As on the wire, the system flags with their backslash.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Seen => "\\Seen",
            Self::Draft => "\\Draft",
            Self::Keyword(keyword) => keyword.as_str(),
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A keyword: an atom, compared without regard to ASCII case, kept as first written.
#[derive(Clone, Debug)]
pub struct Keyword(Box<str>);

impl Keyword {
    /// `None` when it is no atom or longer than [`KEYWORD_BYTES_MAX`].
    pub fn new(text: &str) -> Option<Self> {
        let valid = (1..=KEYWORD_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| is_atom_char(byte) && byte != b']');
        valid.then(|| Self(text.into()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(other.folded())
    }
}

impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Keyword {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.folded() {
            state.write_u8(byte);
        }
        state.write_u8(0xff);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, flag: Option<Flag>) {
        assert_eq!(Flag::parse(text), flag, "{text}");
    }

    #[test]
    fn flags_are_read() {
        check("\\seen", Some(Flag::Seen));
        check("\\DELETED", Some(Flag::Deleted));
        check("$Forwarded", Keyword::new("$forwarded").map(Flag::Keyword));
        check("\\Recent", None);
        check("\\", None);
        check("", None);
        check("a b", None);
        check("a]", None);
        check("ä", None);
        check(&"x".repeat(KEYWORD_BYTES_MAX + 1), None);
    }
}
