//! Names of mailboxes: UTF-8 inside, modified UTF-7 on the wire of IMAP4rev1 ([`crate::mutf7`]).

use std::fmt;

use crate::limits::MAILBOX_NAME_BYTES_MAX;

/// A name of 1 to [`MAILBOX_NAME_BYTES_MAX`] octets of UTF-8 without control characters. `INBOX`,
/// in whatever case, is always `INBOX` (RFC 9051 §5.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxName(String);

impl MailboxName {
    /// `None` when the name is empty, too long, or holds control characters.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        if name.eq_ignore_ascii_case("INBOX") {
            return Some(Self::inbox());
        }
        // RFC 9051 §5.1: no control characters; U+2028 and U+2029 are line ends to some.
        let refused = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let valid = (1..=MAILBOX_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(refused);
        valid.then_some(Self(name))
    }

    /// `INBOX`
    pub fn inbox() -> Self {
        Self("INBOX".to_owned())
    }

    /// Whether this is the INBOX.
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }

    /// In UTF-8.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hierarchy delimiter: a printable ASCII character that is no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiter(u8);

impl Delimiter {
    /// `/`
    pub const SLASH: Self = Self(b'/');

    /// `None` for what cannot delimit.
    pub fn new(delimiter: char) -> Option<Self> {
        let byte = u8::try_from(delimiter).ok()?;
        (byte.is_ascii_graphic() && !matches!(byte, b'*' | b'%' | b'&')).then_some(Self(byte))
    }

    /// The character.
    pub fn as_char(self) -> char {
        char::from(self.0)
    }
}

/// Special use of a mailbox (RFC 6154 §2, RFC 8457 for `\Important`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecialUse {
    /// `\All`
    All,
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Flagged`
    Flagged,
    /// `\Important`
    Important,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

impl SpecialUse {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::All,
        Self::Archive,
        Self::Drafts,
        Self::Flagged,
        Self::Important,
        Self::Junk,
        Self::Sent,
        Self::Trash,
    ];

    /// As on the wire, with the backslash.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Important => "\\Important",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }

    /// Reads it with its backslash, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|used| used.as_str().eq_ignore_ascii_case(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, valid: Option<&str>) {
        assert_eq!(MailboxName::new(name).as_ref().map(MailboxName::as_str), valid, "{name:?}");
    }

    #[test]
    fn names_are_checked() {
        check("inBox", Some("INBOX"));
        check("Inbox/x", Some("Inbox/x"));
        check("Entwürfe", Some("Entwürfe"));
        check("", None);
        check("a\nb", None);
        check("a\u{2028}b", None);
        check(&"x".repeat(MAILBOX_NAME_BYTES_MAX + 1), None);
    }

    #[test]
    fn delimiters_are_checked() {
        assert_eq!(Delimiter::new('.').map(Delimiter::as_char), Some('.'));
        assert_eq!(Delimiter::new('%'), None);
        assert_eq!(Delimiter::new('é'), None);
    }
}
