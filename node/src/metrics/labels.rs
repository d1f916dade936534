//! The labels, each with a closed set of values.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// An enum whose variants are label values.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value of the label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

label! {
    /// What a listener speaks.
    Protocol {
        /// Port 25.
        Smtp = "smtp",
        /// Port 587.
        Submission = "submission",
        /// Port 465.
        Submissions = "submissions",
        /// Port 24.
        Lmtp = "lmtp",
        /// Port 143.
        Imap = "imap",
        /// Port 993.
        Imaps = "imaps",
        /// Admin API, metrics, health.
        Http = "http",
    }
}

label! {
    /// Whose policy a session to another server was under.
    TlsPolicyLabel {
        /// Nobody's.
        None = "none",
        /// TLSA records.
        Dane = "dane",
        /// MTA-STS.
        MtaSts = "mta_sts",
    }
}

label! {
    /// What became of TLS to another server.
    TlsOutcome {
        /// Mail goes in clear.
        Clear = "clear",
        /// The server has shown some certificate.
        Encrypted = "encrypted",
        /// The server has shown its certificate.
        Verified = "verified",
        /// No mail goes there.
        Refused = "refused",
    }
}

label! {
    /// What became of a try to send a message to a recipient.
    Sent {
        /// Another server has it.
        Sent = "sent",
        /// No server will ever take it.
        Failed = "failed",
        /// It is tried again, or is given up for the time that it took.
        Deferred = "deferred",
    }
}

label! {
    /// What became of a message that a client sent.
    Outcome {
        /// In every mailbox, or in the queue.
        Accepted = "accepted",
        /// Refused for good (5yz).
        Rejected = "rejected",
        /// Refused for now (4yz).
        Deferred = "deferred",
    }
}

label! {
    /// Why a connection got no session.
    RefusedReason {
        /// The node has as many as it may.
        NodeLimit = "node_limit",
        /// Its address has as many as it may.
        AddressLimit = "address_limit",
        /// The node is on its way down.
        Draining = "draining",
        /// The TLS handshake failed.
        Tls = "tls",
        /// Its address is blocked.
        Blocked = "blocked",
    }
}

label! {
    /// How an attempt to authenticate ended.
    AuthOutcome {
        /// The client may use the account.
        Success = "success",
        /// Wrong password, or no such account.
        WrongPassword = "wrong_password",
        /// Right or wrong was not looked at: too many attempts before.
        Slowed = "slowed",
        /// The account may not log in.
        Disabled = "disabled",
        /// The client gave up, or spoke nonsense.
        Aborted = "aborted",
        /// The store failed.
        Failed = "failed",
    }
}

label! {
    /// What became of telling a domain what came in its name in a day.
    ReportOutcome {
        /// A report is in the queue.
        Sent = "sent",
        /// Nobody who is named wants one.
        Unwanted = "unwanted",
        /// It is larger than those who want it take.
        TooLarge = "too_large",
        /// It failed, and comes again.
        Failed = "failed",
    }
}

label! {
    /// What became of a report that somebody sent.
    ReportReceived {
        /// Kept: of mail in a domain's name.
        Aggregate = "aggregate",
        /// Kept: of one message.
        Failure = "failure",
        /// Kept: of connections.
        Tls = "tls",
        /// It cannot be read.
        Unreadable = "unreadable",
        /// Nobody vouches for its message.
        Unvouched = "unvouched",
        /// There are too many, or it is too large, or the store failed.
        LeftOut = "left_out",
    }
}

label! {
    /// What abuse control did.
    GuardAction {
        /// A message of an account was put off.
        RateAccount = "rate_account",
        /// A message of a sender was put off.
        RateSender = "rate_sender",
        /// A client's message or connection was put off.
        RateAddress = "rate_address",
        /// The same for the client's neighbourhood.
        RateNetwork = "rate_network",
        /// A stranger's message was put off.
        Greylisted = "greylisted",
        /// One that was put off came back.
        GreylistPassed = "greylist_passed",
        /// A stranger's message was taken, because SPF passed it.
        GreylistSpf = "greylist_spf",
        /// A message was marked.
        ScoreMarked = "score_marked",
        /// A recipient was refused for now.
        ScoreDeferred = "score_deferred",
        /// A recipient was refused.
        ScoreRejected = "score_rejected",
        /// A connection's replies began to wait.
        Tarpitted = "tarpitted",
        /// They did not, because there are too many of these.
        TarpitFull = "tarpit_full",
        /// A network was blocked.
        Blocked = "blocked",
        /// It was not, because there are too many of these.
        BlockListFull = "block_list_full",
        /// A lookup failed.
        LookupFailed = "lookup_failed",
        /// A connection was not looked up, because there are too many of these.
        LookupsSkipped = "lookups_skipped",
        /// Events were not counted, because there were too many or the store was away.
        EventsDropped = "events_dropped",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReceivedLabels {
    pub(super) outcome: ReportReceived,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReportLabels {
    pub(super) outcome: ReportOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct GuardLabels {
    pub(super) action: GuardAction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProtocolLabels {
    pub(super) protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusedLabels {
    pub(super) protocol: Protocol,
    pub(super) reason: RefusedReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) protocol: Protocol,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CommandLabels {
    pub(super) command: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AuthLabels {
    pub(super) outcome: AuthOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SentLabels {
    pub(super) outcome: Sent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TlsLabels {
    pub(super) policy: TlsPolicyLabel,
    pub(super) outcome: TlsOutcome,
}

/// Both are literals: methods, and results of RFC 8601.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VerdictLabels {
    pub(super) method: &'static str,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ActionLabels {
    pub(super) action: &'static str,
}
