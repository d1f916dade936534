//! Capabilities: what the server can do, and what of it is said in which state.

use std::fmt;

/// A capability that this crate implements and that a driver may hold back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// RFC 3501
    Imap4Rev1,
    /// RFC 9051
    Imap4Rev2,
    /// RFC 7888; it includes LITERAL-.
    LiteralPlus,
    /// RFC 5161
    Enable,
    /// RFC 2971
    Id,
    /// RFC 2342
    Namespace,
    /// RFC 3348
    Children,
    /// RFC 6154
    SpecialUse,
    /// RFC 6154
    CreateSpecialUse,
    /// RFC 4315
    UidPlus,
    /// RFC 6851
    Move,
    /// RFC 2177
    Idle,
    /// RFC 3691
    Unselect,
    /// RFC 4731
    Esearch,
    /// RFC 5182
    SearchRes,
    /// RFC 5258
    ListExtended,
    /// RFC 5819
    ListStatus,
    /// RFC 8438
    StatusSize,
    /// RFC 7162
    CondStore,
    /// RFC 3516
    Binary,
    /// RFC 6855
    Utf8Accept,
}

impl Capability {
    /// All that this crate implements.
    pub const IMPLEMENTED: [Self; 21] = [
        Self::Imap4Rev1,
        Self::Imap4Rev2,
        Self::LiteralPlus,
        Self::Enable,
        Self::Id,
        Self::Namespace,
        Self::Children,
        Self::SpecialUse,
        Self::CreateSpecialUse,
        Self::UidPlus,
        Self::Move,
        Self::Idle,
        Self::Unselect,
        Self::Esearch,
        Self::SearchRes,
        Self::ListExtended,
        Self::ListStatus,
        Self::StatusSize,
        Self::CondStore,
        Self::Binary,
        Self::Utf8Accept,
    ];

    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imap4Rev1 => "IMAP4rev1",
            Self::Imap4Rev2 => "IMAP4rev2",
            Self::LiteralPlus => "LITERAL+",
            Self::Enable => "ENABLE",
            Self::Id => "ID",
            Self::Namespace => "NAMESPACE",
            Self::Children => "CHILDREN",
            Self::SpecialUse => "SPECIAL-USE",
            Self::CreateSpecialUse => "CREATE-SPECIAL-USE",
            Self::UidPlus => "UIDPLUS",
            Self::Move => "MOVE",
            Self::Idle => "IDLE",
            Self::Unselect => "UNSELECT",
            Self::Esearch => "ESEARCH",
            Self::SearchRes => "SEARCHRES",
            Self::ListExtended => "LIST-EXTENDED",
            Self::ListStatus => "LIST-STATUS",
            Self::StatusSize => "STATUS=SIZE",
            Self::CondStore => "CONDSTORE",
            Self::Binary => "BINARY",
            Self::Utf8Accept => "UTF8=ACCEPT",
        }
    }

    /// Whether it is worth saying before login; the rest follows with the login's OK.
    pub(crate) const fn before_login(self) -> bool {
        matches!(
            self,
            Self::Imap4Rev1 | Self::Imap4Rev2 | Self::LiteralPlus | Self::Enable | Self::Id
        )
    }
}

/// Capabilities as one line; made by the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityList(String);

impl CapabilityList {
    pub(crate) fn new(words: &[String]) -> Self {
        Self(words.join(" "))
    }
}

impl fmt::Display for CapabilityList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
