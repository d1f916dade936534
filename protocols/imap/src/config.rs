//! What a session is told at its start.

use crate::capability::Capability;
use crate::mailbox::Delimiter;

/// Configuration of one session.
#[derive(Clone, Debug)]
pub struct Config {
    /// State of the connection.
    pub tls: TlsState,
    /// SASL mechanisms in order of preference, in upper case. Those ending in `-PLUS` are offered
    /// only where TLS gives a channel binding, those that show the password (PLAIN, LOGIN,
    /// XOAUTH2, OAUTHBEARER) only as `plaintext` says.
    pub mechanisms: Vec<String>,
    /// Whether passwords may come in clear.
    pub plaintext: PlaintextPolicy,
    /// What is advertised; [`Capability::IMPLEMENTED`] as a rule.
    pub capabilities: Vec<Capability>,
    /// Octets of the largest message for APPEND, advertised as `APPENDLIMIT` (RFC 7889).
    pub append_limit: u32,
    /// What the server says of itself in ID (RFC 2971), `name` and `version` for instance.
    pub id: Vec<(String, String)>,
    /// Between the levels of names.
    pub delimiter: Delimiter,
    /// Text of the greeting.
    pub greeting: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls: TlsState::Unavailable,
            mechanisms: vec!["PLAIN".to_owned()],
            plaintext: PlaintextPolicy::TlsOnly,
            capabilities: Capability::IMPLEMENTED.to_vec(),
            append_limit: 50 * 1024 * 1024,
            id: Vec::new(),
            delimiter: Delimiter::SLASH,
            greeting: "IMAP server ready".to_owned(),
        }
    }
}

/// TLS of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsState {
    /// In clear, and STARTTLS cannot change that.
    Unavailable,
    /// In clear, and STARTTLS is offered.
    Available,
    /// Protected, from the start or after STARTTLS.
    Active(TlsInfo),
}

/// What the session has to know of a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// Whether `-PLUS` mechanisms can be used.
    pub channel_binding: ChannelBinding,
}

/// Whether the driver can tell the channel binding of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// It can.
    Available,
    /// It cannot.
    Unavailable,
}

/// Whether passwords may come over connections without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaintextPolicy {
    /// Never: LOGINDISABLED (RFC 9051 §6.2.3).
    TlsOnly,
    /// They may: for tests, and behind a proxy that ends TLS.
    Always,
}
