//! What a session is told when it starts.

use std::fmt;

use crate::address::Domain;
use crate::limits::Limits;

/// Everything a session needs to know beforehand.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which protocol is spoken.
    pub role: Role,
    /// The server's own name, for greetings and farewells.
    pub hostname: Domain,
    /// Whether TLS can be had or is there already (implicit TLS, RFC 8314).
    pub tls: TlsState,
    /// What AUTH offers, in this order. Never offered without TLS.
    pub mechanisms: Vec<Mechanism>,
    /// What becomes of a peer that talks before it is greeted.
    pub early_talkers: EarlyTalkers,
    /// The limits of this session.
    pub limits: Limits,
}

/// The protocol spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// SMTP from other servers (RFC 5321).
    Exchange,
    /// SMTP from users (RFC 6409): MAIL needs AUTH.
    Submission,
    /// LMTP (RFC 2033): one reply for each recipient.
    Lmtp,
}

/// Where a connection stands with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsState {
    /// No certificate: STARTTLS is not offered.
    Absent,
    /// STARTTLS is offered.
    Available,
    /// The connection is encrypted.
    Active(TlsInfo),
}

/// What a handshake agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The protocol version for the trace header, e.g. `TLSv1.3`.
    pub version: String,
    /// The cipher suite for the trace header.
    pub cipher: String,
    /// Whether mechanisms with channel binding can be offered.
    pub channel_binding: ChannelBinding,
}

/// Whether the TLS stack yields channel binding data (RFC 9266, RFC 5929).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// It does: `-PLUS` mechanisms may be offered.
    Available,
    /// It does not.
    Absent,
}

/// A SASL mechanism. Its exchange is opaque to this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The obsolete LOGIN, for old clients.
    Login,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677 with channel binding.
    ScramSha256Plus,
}

impl Mechanism {
    const ALL: [Mechanism; 4] =
        [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn binds_channel(self) -> bool {
        self == Mechanism::ScramSha256Plus
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What becomes of a peer that talks before it is greeted (RFC 5321 §3.1: a client waits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyTalkers {
    /// Served; the driver can ask [`Session::talked_early`](crate::Session::talked_early).
    Serve,
    /// Refused with 554 in place of the greeting.
    Refuse,
}
