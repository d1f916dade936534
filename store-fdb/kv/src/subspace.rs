//! The numbered subspaces: the first element of every key. A number is never reused.

use crate::tuple;

/// Which family a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Subspace {
    /// The cluster's own record.
    Meta = 1,
    /// Login names to accounts.
    Directory = 2,
    /// Accounts.
    Account = 3,
    /// Mailboxes.
    Mailbox = 4,
    /// What never changes about an email.
    EmailMeta = 5,
    /// What changes about an email.
    EmailState = 6,
    /// Next ids.
    Next = 7,
    /// Accounts' logs.
    Log = 8,
    /// Mailbox views' headers.
    ViewHeader = 9,
    /// Mailbox views' pages.
    ViewPage = 10,
    /// Thread keys.
    Thread = 11,
    /// Counters.
    Counter = 12,
    /// Operation ids that have been done.
    Operation = 13,
    /// Who refers to a blob.
    BlobReference = 14,
    /// Blobs to be swept.
    BlobDue = 15,
    /// The work queue.
    Work = 16,
    /// Submissions.
    Submission = 17,
    /// Which nodes have sessions on an account.
    Interest = 18,
    /// Nodes' inboxes.
    Inbox = 19,
    /// Nodes' bells.
    Bell = 20,
    /// Credentials.
    Credential = 21,
    /// Rate counters.
    RateCounter = 22,
    /// Nodes' registrations.
    Node = 23,
    /// Blobs whose bytes are being removed.
    BlobDying = 24,
    /// Keys and certificates that nodes share.
    Secret = 25,
    /// Settings that nodes share.
    Setting = 26,
    /// Domains that mail is sent to and that are in trouble.
    Destination = 27,
    /// Submissions that were put into the queue.
    Submitted = 28,
    /// MTA-STS policies of other domains.
    MtaSts = 29,
    /// How TLS to other domains went, for reports.
    TlsReport = 30,
    /// What came in domains' names, for reports.
    DmarcSeen = 33,
    /// Reports that others sent.
    ReceivedReport = 34,
    /// Keys that domains sign mail with.
    DkimKey = 31,
    /// What rewritten senders of forwarded mail are made with.
    SrsSecret = 32,
    /// What clients may do in an hour or a day, counted.
    Rate = 35,
    /// Strangers' mail that was put off, and networks that came back.
    Greylist = 36,
    /// Networks that are refused.
    Block = 37,
    /// Senders of forwarded mail that rewritten addresses are too short for.
    SrsToken = 38,
}

impl Subspace {
    /// The packed tuple element that every key of the family begins with.
    pub fn prefix(self) -> Vec<u8> {
        tuple::pack(&(self as u8 as i64,))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_begins_every_key_of_its_family() {
        let key = tuple::pack(&(8_i64, 77_i64, "x"));
        assert!(key.starts_with(&Subspace::Log.prefix()));
        assert!(!key.starts_with(&Subspace::ViewHeader.prefix()));
    }
}
