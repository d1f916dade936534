//! How a session can fail, and where.

use super::reply::Response;

/// What a client was doing, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Waiting for the greeting.
    Greeting,
    /// EHLO, LHLO, or HELO after it.
    Hello,
    /// STARTTLS.
    StartTls,
    /// The TLS handshake.
    Handshake,
    /// AUTH.
    Auth,
    /// Between transactions.
    Idle,
    /// RSET.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The message's content, before its end.
    Content,
    /// The end of the content: the final dot, or the last chunk.
    End,
    /// QUIT.
    Quit,
}

impl Stage {
    /// The command as a report names it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Greeting => "greeting",
            Stage::Hello => "EHLO",
            Stage::StartTls => "STARTTLS",
            Stage::Handshake => "TLS handshake",
            Stage::Auth => "AUTH",
            Stage::Idle => "no command",
            Stage::Reset => "RSET",
            Stage::Mail => "MAIL",
            Stage::Rcpt => "RCPT",
            Stage::Data => "DATA",
            Stage::Content => "content",
            Stage::End => "end of content",
            Stage::Quit => "QUIT",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a session is over. A transaction that was open has been answered before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused what a session cannot do without.
    #[error("refused at {at}: {response}")]
    Refused {
        /// `Greeting`, `Hello`, `StartTls`, `Auth` or `Reset`.
        at: Stage,
        /// Its words.
        response: Response,
    },
    /// The server said 421: it closes the connection (RFC 5321 §3.8).
    #[error("the server closes the session at {at}: {response}")]
    Closing {
        /// What was waited for.
        at: Stage,
        /// Its words.
        response: Response,
    },
    /// TLS is required, and the server offers none.
    #[error("TLS is not offered")]
    TlsNotOffered,
    /// A login is set, and the server offers none, or no mechanism known here.
    #[error("no usable AUTH mechanism is offered")]
    LoginNotOffered,
    /// A login is set, there is no TLS, and passwords must not go in clear.
    #[error("login needs TLS")]
    LoginNeedsTls,
    /// The server broke the protocol.
    #[error("protocol violation at {at}: {violation}")]
    Protocol {
        /// What was waited for.
        at: Stage,
        /// How.
        violation: Violation,
    },
    /// The server took too long.
    #[error("timed out at {0}")]
    TimedOut(Stage),
    /// The connection broke.
    #[error("connection closed at {0}")]
    Closed(Stage),
}

impl Failure {
    /// The server's words, where it had any.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Failure::Refused { response, .. } | Failure::Closing { response, .. } => Some(response),
            Failure::TlsNotOffered
            | Failure::LoginNotOffered
            | Failure::LoginNeedsTls
            | Failure::Protocol { .. }
            | Failure::TimedOut(_)
            | Failure::Closed(_) => None,
        }
    }
}

/// How a server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// What it sent is no reply.
    #[error("malformed reply")]
    Malformed,
    /// A line beyond [`REPLY_LINE_OCTETS_MAX`](crate::limits::REPLY_LINE_OCTETS_MAX).
    #[error("reply line too long")]
    LineTooLong,
    /// A reply beyond [`REPLY_OCTETS_MAX`](crate::limits::REPLY_OCTETS_MAX) or
    /// [`REPLY_LINES_MAX`](crate::limits::REPLY_LINES_MAX).
    #[error("reply too long")]
    ReplyTooLong,
    /// A reply to nothing.
    #[error("reply without a command")]
    Unsolicited,
    /// A code that cannot answer the command.
    #[error("unexpected reply code {0}")]
    UnexpectedCode(u16),
    /// Octets in clear behind the reply to STARTTLS (RFC 3207 §5): someone may have put them
    /// there so that they seem to come through TLS.
    #[error("octets in clear before the TLS handshake")]
    ClearBeforeTls,
}
