//! Response codes (RFC 9051 §7.1, RFC 7162 §3.1, RFC 6154 §3, RFC 4978 and others).

use crate::capability::CapabilityList;
use crate::flag::Flag;
use crate::ids::{ModSeq, SeqNo, Uid, UidValidity};
use crate::sequence::{IdSet, SequenceSet};
use crate::wire::Writer;

/// A response code. [`crate::Session`] writes `CAPABILITY` and `CLOSED` by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// `ALERT`
    Alert,
    /// `ALREADYEXISTS`
    AlreadyExists,
    /// `APPENDUID`
    AppendUid {
        /// Of the mailbox appended to.
        validity: UidValidity,
        /// Of the new message.
        uid: Uid,
    },
    /// `AUTHENTICATIONFAILED`
    AuthenticationFailed,
    /// `AUTHORIZATIONFAILED`
    AuthorizationFailed,
    /// `BADCHARSET`, with the charsets that we do understand.
    BadCharset,
    /// `CANNOT`
    Cannot,
    /// `CAPABILITY`
    Capability(CapabilityList),
    /// `CLIENTBUG`
    ClientBug,
    /// `CLOSED`
    Closed,
    /// `CONTACTADMIN`
    ContactAdmin,
    /// `COPYUID`
    CopyUid(CopyUid),
    /// `CORRUPTION`
    Corruption,
    /// `EXPIRED`
    Expired,
    /// `EXPUNGEISSUED`
    ExpungeIssued,
    /// `HASCHILDREN`
    HasChildren,
    /// `HIGHESTMODSEQ`
    HighestModSeq(ModSeq),
    /// `INUSE`
    InUse,
    /// `LIMIT`
    Limit,
    /// `MODIFIED`, numbers as the command used them.
    Modified(SequenceSet),
    /// `NOMODSEQ`
    NoModSeq,
    /// `NONEXISTENT`
    NonExistent,
    /// `NOPERM`
    NoPerm,
    /// `NOTSAVED`
    NotSaved,
    /// `OVERQUOTA`
    OverQuota,
    /// `PARSE`
    Parse,
    /// `PERMANENTFLAGS`
    PermanentFlags {
        /// Flags that can be changed for good.
        flags: Vec<Flag>,
        /// Whether `\*` is among them.
        new_keywords: NewKeywords,
    },
    /// `PRIVACYREQUIRED`
    PrivacyRequired,
    /// `READ-ONLY`
    ReadOnly,
    /// `READ-WRITE`
    ReadWrite,
    /// `SERVERBUG`
    ServerBug,
    /// `TOOBIG`
    TooBig,
    /// `TRYCREATE`
    TryCreate,
    /// `UIDNEXT`
    UidNext(Uid),
    /// `UIDNOTSTICKY`
    UidNotSticky,
    /// `UIDVALIDITY`
    UidValidity(UidValidity),
    /// `UNAVAILABLE`
    Unavailable,
    /// `UNKNOWN-CTE`
    UnknownCte,
    /// `UNSEEN` (RFC 3501 §7.1); left out once IMAP4rev2 is enabled.
    Unseen(SeqNo),
    /// `USEATTR` (RFC 6154 §3)
    UseAttr,
}

/// Whether clients can make new keywords in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKeywords {
    /// `\*` is listed.
    Allowed,
    /// It is not.
    Refused,
}

/// Where copied messages went (RFC 9051 §7.1): both sets in ascending order, pairwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyUid {
    validity: UidValidity,
    source: IdSet,
    destination: IdSet,
}

impl CopyUid {
    /// `None` when nothing was copied or the sets differ in size; leave the code out then.
    pub fn new(validity: UidValidity, source: IdSet, destination: IdSet) -> Option<Self> {
        let pairs = !source.is_empty() && source.len() == destination.len();
        pairs.then_some(Self { validity, source, destination })
    }
}

impl ResponseCode {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        let word = match self {
            Self::Alert => "ALERT",
            Self::AlreadyExists => "ALREADYEXISTS",
            Self::AppendUid { validity, uid } => {
                return w.raw_fmt(format_args!("APPENDUID {validity} {uid}"));
            }
            Self::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Self::AuthorizationFailed => "AUTHORIZATIONFAILED",
            Self::BadCharset => "BADCHARSET (US-ASCII UTF-8)",
            Self::Cannot => "CANNOT",
            Self::Capability(list) => return w.raw_fmt(format_args!("CAPABILITY {list}")),
            Self::ClientBug => "CLIENTBUG",
            Self::Closed => "CLOSED",
            Self::ContactAdmin => "CONTACTADMIN",
            Self::CopyUid(CopyUid { validity, source, destination }) => {
                return w.raw_fmt(format_args!("COPYUID {validity} {source} {destination}"));
            }
            Self::Corruption => "CORRUPTION",
            Self::Expired => "EXPIRED",
            Self::ExpungeIssued => "EXPUNGEISSUED",
            Self::HasChildren => "HASCHILDREN",
            Self::HighestModSeq(modseq) => {
                return w.raw_fmt(format_args!("HIGHESTMODSEQ {modseq}"));
            }
            Self::InUse => "INUSE",
            Self::Limit => "LIMIT",
            Self::Modified(set) => return w.raw_fmt(format_args!("MODIFIED {set}")),
            Self::NoModSeq => "NOMODSEQ",
            Self::NonExistent => "NONEXISTENT",
            Self::NoPerm => "NOPERM",
            Self::NotSaved => "NOTSAVED",
            Self::OverQuota => "OVERQUOTA",
            Self::Parse => "PARSE",
            Self::PermanentFlags { flags, new_keywords } => {
                w.raw("PERMANENTFLAGS (");
                w.flags(flags);
                if *new_keywords == NewKeywords::Allowed {
                    w.raw(if flags.is_empty() { "\\*" } else { " \\*" });
                }
                ")"
            }
            Self::PrivacyRequired => "PRIVACYREQUIRED",
            Self::ReadOnly => "READ-ONLY",
            Self::ReadWrite => "READ-WRITE",
            Self::ServerBug => "SERVERBUG",
            Self::TooBig => "TOOBIG",
            Self::TryCreate => "TRYCREATE",
            Self::UidNext(uid) => return w.raw_fmt(format_args!("UIDNEXT {uid}")),
            Self::UidNotSticky => "UIDNOTSTICKY",
            Self::UidValidity(validity) => {
                return w.raw_fmt(format_args!("UIDVALIDITY {validity}"));
            }
            Self::Unavailable => "UNAVAILABLE",
            Self::UnknownCte => "UNKNOWN-CTE",
            Self::Unseen(seq) => return w.raw_fmt(format_args!("UNSEEN {seq}")),
            Self::UseAttr => "USEATTR",
        };
        w.raw(word);
    }
}
