//! Every reply line that is no greeting and no challenge.
//!
//! Invariant: the one place where an outcome becomes a reply code (RFC 5321 §4.2), an enhanced
//! status code (RFC 3463, RFC 5248) and a text is [`Response::status`].

use crate::call::{AuthFailure as A, Permanence, QueueId, Refusal as F};

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    // Success.
    Ok,
    SenderOk,
    RecipientOk,
    ChunkOk,
    MessageAccepted(QueueId),
    Authenticated,
    StartTls,
    CannotVerify,
    Help,
    Bye,
    // Refused by the session itself.
    UnknownCommand,
    NotImplemented,
    BadSequence,
    NoRecipients,
    LineMalformed,
    LineTooLong,
    AuthLineTooLong,
    AuthMalformed,
    AuthAborted,
    AuthNeedsTls,
    UnknownMechanism,
    BadArguments,
    BadSender,
    BadRecipient,
    UnknownParameter,
    BeyondOffer,
    Utf8Required,
    BareLineEnding,
    // Farewells.
    TalkedEarly,
    TimedOut,
    TooManyErrors,
    MessageEndless,
    // Refused by the driver.
    Refused(F),
}

/// A reply without its text's variable part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) enhanced: &'static str,
    pub(crate) text: &'static str,
}

impl Response {
    /// The reply for an outcome. Long because it is a table.
    #[rustfmt::skip]
    pub(crate) fn status(&self) -> Status {
        use Response as R;
        let (code, enhanced, text) = match self {
            R::Ok => (250, "2.0.0", "OK"),
            R::SenderOk => (250, "2.1.0", "Sender OK"),
            R::RecipientOk => (250, "2.1.5", "Recipient OK"),
            R::ChunkOk => (250, "2.0.0", "Chunk received"),
            R::MessageAccepted(_) => (250, "2.0.0", "Message accepted as"),
            R::Authenticated => (235, "2.7.0", "Authentication successful"),
            R::StartTls => (220, "2.0.0", "Ready to start TLS"),
            R::CannotVerify => (252, "2.5.0", "Cannot verify, but will take mail and try to deliver"),
            R::Help => (214, "2.0.0", "See RFC 5321"),
            R::Bye => (221, "2.0.0", "closing connection"),
            R::UnknownCommand => (500, "5.5.1", "Unknown command"),
            R::NotImplemented => (502, "5.5.1", "Command not implemented"),
            R::BadSequence => (503, "5.5.1", "Bad sequence of commands"),
            R::NoRecipients => (503, "5.5.1", "No valid recipients"),
            R::LineMalformed => (500, "5.5.2", "Malformed command line"),
            R::LineTooLong => (500, "5.5.2", "Command line too long"),
            // RFC 4954 §6: 500 5.5.6.
            R::AuthLineTooLong => (500, "5.5.6", "Authentication exchange line is too long"),
            R::AuthMalformed => (501, "5.5.2", "Cannot decode base64"),
            R::AuthAborted => (501, "5.7.0", "Authentication aborted"),
            R::AuthNeedsTls => (538, "5.7.11", "Encryption required for authentication"),
            R::UnknownMechanism => (504, "5.5.4", "Unrecognized authentication mechanism"),
            R::BadArguments => (501, "5.5.4", "Invalid arguments"),
            R::BadSender => (501, "5.1.7", "Bad sender address syntax"),
            R::BadRecipient => (501, "5.1.3", "Bad recipient address syntax"),
            R::UnknownParameter => (555, "5.5.4", "Parameter not recognized"),
            R::BeyondOffer => (501, "5.5.4", "Parameter beyond what is offered"),
            R::Utf8Required => (553, "5.6.7", "Address needs SMTPUTF8"),
            R::BareLineEnding => (550, "5.6.11", "Message contains a bare CR or LF"),
            R::TalkedEarly => (554, "5.5.0", "Protocol error: talked before the greeting"),
            R::TimedOut => (421, "4.4.2", "timeout, closing connection"),
            R::TooManyErrors => (421, "4.7.0", "too many errors, closing connection"),
            R::MessageEndless => (421, "4.3.4", "message too large, closing connection"),
            R::Refused(refusal) => match refusal {
                F::AuthFailed(A::Credentials) => (535, "5.7.8", "Authentication credentials invalid"),
                F::AuthFailed(A::Malformed) => (501, "5.5.2", "Malformed authentication exchange"),
                F::AuthFailed(A::MechanismTooWeak) => (534, "5.7.9", "Authentication mechanism is too weak"),
                F::AuthFailed(A::AccountDisabled) => (525, "5.7.13", "User account disabled"),
                F::AuthTemporary => (454, "4.7.0", "Temporary authentication failure"),
                F::AuthenticationRequired => (530, "5.7.0", "Authentication required"),
                F::EncryptionRequired => (530, "5.7.0", "Must issue a STARTTLS command first"),
                F::SenderNotOwned => (553, "5.7.1", "Sender address not owned by user"),
                F::SenderDomainUnusable => (550, "5.1.8", "Sender domain does not take mail"),
                F::UnknownRecipient => (550, "5.1.1", "No such recipient"),
                F::MailboxDisabled => (550, "5.2.1", "Mailbox disabled"),
                F::MailboxFull(Permanence::Temporary) => (452, "4.2.2", "Mailbox full"),
                F::MailboxFull(Permanence::Permanent) => (552, "5.2.2", "Mailbox full"),
                F::Utf8NotSupported => (553, "5.6.7", "Recipient cannot take SMTPUTF8 mail"),
                F::MessageTooLarge => (552, "5.3.4", "Message too large"),
                F::RelayDenied => (550, "5.7.1", "Relaying denied"),
                F::TooManyRecipients => (452, "4.5.3", "Too many recipients"),
                F::Greylisted => (450, "4.7.1", "Greylisted, try again later"),
                F::RateLimited => (450, "4.7.1", "Too much mail, try again later"),
                F::PolicyRejected => (550, "5.7.1", "Rejected by policy"),
                F::MessageMalformed => (554, "5.6.0", "Malformed message"),
                F::RoutingLoop => (554, "5.4.6", "Routing loop detected"),
                F::InsufficientStorage => (452, "4.3.1", "Insufficient system storage"),
                F::TemporaryFailure => (451, "4.3.0", "Temporary failure, try again later"),
                F::Overloaded => (421, "4.3.2", "too busy, try again later"),
                F::ShuttingDown => (421, "4.3.2", "shutting down"),
                // RFC 7372 §3.
                F::SpfFailed => (550, "5.7.23", "SPF validation failed"),
                F::DkimFailed => (550, "5.7.20", "No passing DKIM signature found"),
                F::AuthorNotVouchedFor => (550, "5.7.26", "The author's domain does not vouch for this message (DMARC)"),
                F::ReverseNameMissing => (550, "5.7.25", "Reverse DNS validation failed"),
                F::OriginUnknown => (451, "4.4.3", "The sender's domain cannot be asked, try again later"),
                F::PolicyDeferred => (451, "4.7.1", "Deferred by policy, try again later"),
            },
        };
        Status { code, enhanced, text }
    }

    /// The reply in place of a greeting, where RFC 5321 §4.3.2 knows 554 and 421 only.
    pub(crate) fn status_at_connect(&self) -> Status {
        let status = self.status();
        Status { code: if status.is_permanent() { 554 } else { 421 }, ..status }
    }
}

impl Status {
    pub(crate) fn is_permanent(self) -> bool {
        self.code >= 500
    }

    /// RFC 5321 §3.8: 421 announces that the server closes the connection.
    pub(crate) fn closes(self) -> bool {
        self.code == 421
    }

    /// RFC 5321 §4.2.2: these texts begin with the server's name.
    pub(crate) fn names_server(self) -> bool {
        matches!(self.code, 221 | 421)
    }
}
