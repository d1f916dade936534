//! What a session is told when it starts.

use std::fmt;

use crate::address::Domain;
use crate::call::MailFrom;
use crate::handling::{DateTime, Hold, HoldSeconds, Late};
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
    /// Extensions of which a driver must do its part.
    pub extensions: Extensions,
    /// The limits of this session.
    pub limits: Limits,
}

/// Extensions that bind whoever passes the message on; none is offered by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// REQUIRETLS (RFC 8689); offered over TLS only.
    pub require_tls: Offer,
    /// MT-PRIORITY (RFC 6710).
    pub priority: Offer,
    /// DELIVERBY (RFC 2852).
    pub deliver_by: Option<DeliverByOffer>,
    /// FUTURERELEASE (RFC 4865). For users: whoever takes it holds messages back.
    pub future_release: Option<FutureRelease>,
}

/// Whether an extension is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    /// It is not.
    #[default]
    No,
    /// It is.
    Yes,
}

/// How DELIVERBY is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverByOffer {
    /// The least time in seconds for a message that is to be returned when late.
    pub seconds_min: u32,
}

/// How FUTURERELEASE is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureRelease {
    /// HOLDFOR's most.
    pub interval_max: HoldSeconds,
    /// HOLDUNTIL's latest. A session has no clock: whoever starts it adds the interval to now.
    pub until_max: DateTime,
}

impl Extensions {
    /// Whether this server does what is asked for. Only what was offered can be asked for.
    pub(crate) fn allow(&self, mail: &MailFrom) -> bool {
        // RFC 2852 §4: the least time binds where late messages are returned.
        let in_time = match (mail.deliver_by, self.deliver_by) {
            (Some(by), Some(offer)) if by.late() == Late::Return => {
                by.seconds().unsigned_abs() >= offer.seconds_min
            }
            _ => true,
        };
        let held_shortly = match (mail.hold, self.future_release) {
            (Some(Hold::For(seconds)), Some(offer)) => seconds <= offer.interval_max,
            (Some(Hold::Until(time)), Some(offer)) => time <= offer.until_max,
            (_, None) | (None, _) => true,
        };
        in_time && held_shortly
    }
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
