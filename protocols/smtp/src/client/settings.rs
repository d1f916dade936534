//! What a client is told when it starts.

use std::time::Duration;

use crate::address::HeloName;
use crate::secret::Secret;

/// Everything a session needs to know beforehand.
#[derive(Debug)]
pub struct Settings {
    /// Which protocol is spoken.
    pub dialect: Dialect,
    /// This client's name.
    pub helo: HeloName,
    /// Whether and how TLS comes about.
    pub encryption: Encryption,
    /// Who logs in, if anyone does. A server that does not let it in ends the session.
    pub login: Option<Login>,
    /// Whether the password may go in clear.
    pub login_in_clear: LoginInClear,
    /// Whether content goes by BDAT.
    pub chunking: Chunking,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Settings {
    /// SMTP to another server: TLS if offered, no login, DATA, the timeouts of RFC 5321.
    pub fn new(helo: HeloName) -> Self {
        Settings {
            dialect: Dialect::Smtp,
            helo,
            encryption: Encryption::IfOffered,
            login: None,
            login_in_clear: LoginInClear::Never,
            chunking: Chunking::WhereNeeded,
            timeouts: Timeouts::default(),
        }
    }
}

/// The protocol spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SMTP (RFC 5321); HELO where the server knows no EHLO.
    Smtp,
    /// LMTP (RFC 2033): one reply for each recipient.
    Lmtp,
}

/// Whether and how TLS comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// In clear, whatever the server offers.
    Never,
    /// By STARTTLS if offered; in clear if not, or if the server refuses STARTTLS.
    IfOffered,
    /// By STARTTLS, or not at all.
    Required,
    /// The connection is encrypted from its start (RFC 8314).
    Implicit,
}

/// Who logs in.
#[derive(Debug)]
pub struct Login {
    identity: String,
    password: Secret,
}

impl Login {
    /// Neither part may be empty or hold NUL, which PLAIN separates them by (RFC 4616 §2).
    pub fn new(identity: impl Into<String>, password: Secret) -> Option<Self> {
        let identity = identity.into();
        let fits = |part: &[u8]| !part.is_empty() && !part.contains(&0);
        let valid = fits(identity.as_bytes()) && fits(password.expose());
        valid.then_some(Login { identity, password })
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn password(&self) -> &[u8] {
        self.password.expose()
    }
}

/// Whether a password may be sent without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginInClear {
    /// It may not: the session fails instead.
    #[default]
    Never,
    /// It may: the path to the server is known to be safe.
    Allowed,
}

/// Whether content goes by BDAT (RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunking {
    /// Only for BINARYMIME, which has no other way.
    #[default]
    WhereNeeded,
    /// Wherever the server offers it.
    IfOffered,
}

/// How long to wait for what. The defaults are those of RFC 5321 §4.5.3.2 where it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The greeting (RFC 5321 §4.5.3.2.1).
    pub greeting: Duration,
    /// EHLO, HELO, LHLO, STARTTLS, AUTH and RSET.
    pub command: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// MAIL (RFC 5321 §4.5.3.2.2).
    pub mail: Duration,
    /// RCPT (RFC 5321 §4.5.3.2.3).
    pub rcpt: Duration,
    /// DATA (RFC 5321 §4.5.3.2.4).
    pub data: Duration,
    /// Writing a piece of content (RFC 5321 §4.5.3.2.5), and the reply to a chunk.
    pub block: Duration,
    /// The reply to the content's end (RFC 5321 §4.5.3.2.6). Shorter ones make duplicates.
    pub end: Duration,
    /// QUIT, whose reply changes nothing.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Timeouts {
            greeting: minutes(5),
            command: minutes(5),
            handshake: minutes(2),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
            quit: Duration::from_secs(10),
        }
    }
}
