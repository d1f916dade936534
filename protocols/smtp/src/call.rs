//! What a session asks of its driver, and what the driver answers.
//!
//! Invariant: a session has at most one call outstanding and each is answered by exactly one
//! [`Reply`]. A message that was begun ends at the driver by `EndData`, by `AbortData`, by
//! `Reset`, by a refusal of `BeginData`, `Data` or `EndData`, or by the session's `Close`;
//! whichever it is, the transaction has then ended too.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::address::{Address, ForwardPath, HeloName, ReversePath};
use crate::config::Mechanism;
use crate::dsn::{EnvelopeId, Notify, OriginalRecipient, Ret};
use crate::handling::{DeliverBy, Hold, Priority, RequireTls};
use crate::limits::QUEUE_ID_OCTETS_MAX;
use crate::secret::Secret;
use crate::trace::Protocol;

/// What a session wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Write these octets to the peer.
    Send(Bytes),
    /// Execute this and answer with `handle_reply`.
    Call(Call),
    /// All sends before this are for clear text. Start the server's TLS handshake, then call
    /// `handle_tls_established`; where it fails, drop the connection.
    StartTls,
    /// Call `handle_timeout` at this time since the session began. Replaces earlier ones.
    WakeAt(Duration),
    /// Write what was sent, then close the connection and forget what was begun.
    Close,
}

/// A request to the driver.
#[derive(Debug)]
pub enum Call {
    /// May the peer be greeted? Any refusal ends the session.
    Connect,
    /// Begin an exchange; answered by `Challenge`, `Authenticated` or a refusal.
    Auth {
        /// The mechanism, one of those configured.
        mechanism: Mechanism,
        /// The initial response, if the peer sent one (an empty one is `Some`).
        initial: Option<Secret>,
    },
    /// The peer's answer to the last challenge; answered as `Auth`.
    AuthResponse(Secret),
    /// The peer gave the exchange up, or what it sent was no answer.
    AuthAbort,
    /// Begin a transaction.
    Mail(MailFrom),
    /// Add a recipient. A refusal leaves the transaction as it is.
    Rcpt(RcptTo),
    /// The message's content follows.
    BeginData {
        /// How it arrives, for the trace header.
        protocol: Protocol,
        /// The name the peer greeted with, for the trace header.
        helo: HeloName,
    },
    /// A piece of content, without dot-stuffing: [`CONTENT_CHUNK_OCTETS`] long but for the last.
    /// `Accepted` asks for more; a refusal is told to the peer at the content's end.
    ///
    /// [`CONTENT_CHUNK_OCTETS`]: crate::limits::CONTENT_CHUNK_OCTETS
    Data(Bytes),
    /// The content is complete. Answered by `MessageAccepted`, by a refusal or, in LMTP, by
    /// `Deliveries`: from that reply on the server answers for the message.
    EndData,
    /// The session refuses the message; drop it.
    AbortData,
    /// Drop the transaction with all that belongs to it.
    Reset,
}

/// The parameters of MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailFrom {
    /// Whom failures are reported to.
    pub sender: ReversePath,
    /// SIZE (RFC 1870): the size the peer expects; within the limit.
    pub size: Option<u64>,
    /// BODY (RFC 6152, RFC 3030).
    pub body: Body,
    /// SMTPUTF8 (RFC 6531).
    pub charset: Charset,
    /// AUTH (RFC 4954 §5): the identity the peer claims for the submitter. To be believed of
    /// trusted peers only.
    pub auth: Option<Submitter>,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461 §4.4).
    pub envid: Option<EnvelopeId>,
    /// REQUIRETLS (RFC 8689); over TLS only.
    pub require_tls: RequireTls,
    /// MT-PRIORITY (RFC 6710).
    pub priority: Option<Priority>,
    /// BY (RFC 2852); not below the configured least time.
    pub deliver_by: Option<DeliverBy>,
    /// HOLDFOR or HOLDUNTIL (RFC 4865); within the configured bounds.
    pub hold: Option<Hold>,
}

/// The parameters of RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RcptTo {
    /// The recipient.
    pub recipient: ForwardPath,
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Notify,
    /// ORCPT (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
}

/// What octets a message has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// 7BIT, the default.
    #[default]
    SevenBit,
    /// 8BITMIME: lines of any octets.
    EightBitMime,
    /// BINARYMIME: any octets; only by BDAT.
    BinaryMime,
}

/// What characters addresses and header fields have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charset {
    /// ASCII, the default.
    #[default]
    Ascii,
    /// UTF-8, as SMTPUTF8 announces.
    Utf8,
}

/// The value of MAIL's AUTH parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitter {
    /// `<>`: not known, or not trusted.
    Unknown,
    /// Who submitted the message.
    Mailbox(Address),
}

/// A driver's answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Go on.
    Accepted,
    /// Send this to the peer within AUTH. SCRAM's final server message is one, too: RFC 4954
    /// has no additional data with success.
    Challenge(Bytes),
    /// AUTH succeeded.
    Authenticated,
    /// To `EndData`: the server now answers for the message.
    MessageAccepted {
        /// Told to the peer.
        id: QueueId,
    },
    /// To `EndData` in LMTP: one for each accepted recipient, in the order of RCPT.
    Deliveries(Vec<Result<QueueId, Refusal>>),
    /// No.
    Refused(Refusal),
}

/// Why a driver refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// AUTH failed for good.
    #[error("authentication failed: {0}")]
    AuthFailed(AuthFailure),
    /// Credentials cannot be verified now.
    #[error("credentials cannot be verified now")]
    AuthTemporary,
    /// The operation needs AUTH.
    #[error("authentication required")]
    AuthenticationRequired,
    /// The operation needs TLS.
    #[error("encryption required")]
    EncryptionRequired,
    /// The authenticated user may not send as this sender.
    #[error("sender not owned by user")]
    SenderNotOwned,
    /// The sender's domain does not exist or cannot receive mail.
    #[error("sender domain unusable")]
    SenderDomainUnusable,
    /// No such recipient here.
    #[error("unknown recipient")]
    UnknownRecipient,
    /// The mailbox exists but takes no mail.
    #[error("mailbox disabled")]
    MailboxDisabled,
    /// Over quota.
    #[error("mailbox full")]
    MailboxFull(Permanence),
    /// A next hop or mailbox cannot take internationalized mail.
    #[error("SMTPUTF8 not supported by recipient")]
    Utf8NotSupported,
    /// The message exceeds a limit that only the driver knows.
    #[error("message too large")]
    MessageTooLarge,
    /// The recipient is not local and the peer may not relay.
    #[error("relay denied")]
    RelayDenied,
    /// The peer is to send this recipient in another transaction.
    #[error("too many recipients")]
    TooManyRecipients,
    /// The peer is to come back later (greylisting).
    #[error("greylisted")]
    Greylisted,
    /// The peer sends more than it may.
    #[error("rate limited")]
    RateLimited,
    /// Policy forbids it (block lists, DMARC, spam).
    #[error("rejected by policy")]
    PolicyRejected,
    /// The message's header or structure is beyond repair.
    #[error("message malformed")]
    MessageMalformed,
    /// The message went round in circles.
    #[error("routing loop")]
    RoutingLoop,
    /// No room to store messages.
    #[error("insufficient storage")]
    InsufficientStorage,
    /// Something failed that should work later.
    #[error("temporary failure")]
    TemporaryFailure,
    /// The server is too busy; ends the session.
    #[error("overloaded")]
    Overloaded,
    /// The server stops; ends the session.
    #[error("shutting down")]
    ShuttingDown,
    /// The sender's domain says that the peer does not send for it (RFC 7208).
    #[error("SPF failed")]
    SpfFailed,
    /// No signature of the message holds (RFC 6376).
    #[error("no DKIM signature passes")]
    DkimFailed,
    /// The author's domain asks for such mail to be refused (RFC 9989).
    #[error("refused by the author's domain")]
    AuthorNotVouchedFor,
    /// The peer's address has no name that leads back to it.
    #[error("no reverse name")]
    ReverseNameMissing,
    /// What the sender's or the author's domain says cannot be found out now.
    #[error("the sender's domain cannot be asked")]
    OriginUnknown,
    /// Policy forbids it for now.
    #[error("deferred by policy")]
    PolicyDeferred,
}

/// Why AUTH failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// Unknown user or wrong password; which of them is nobody's business.
    #[error("invalid credentials")]
    Credentials,
    /// What the peer sent is not in the mechanism's form.
    #[error("malformed exchange")]
    Malformed,
    /// This user needs a stronger mechanism.
    #[error("mechanism too weak")]
    MechanismTooWeak,
    /// The account is disabled.
    #[error("account disabled")]
    AccountDisabled,
}

/// Whether a peer should try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permanence {
    /// It should.
    Temporary,
    /// It need not.
    Permanent,
}

/// What the server calls an accepted message: letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueId(String);

impl QueueId {
    /// Checks `text`: 1 to 64 octets of the characters above.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
        let fits = !text.is_empty() && text.len() <= QUEUE_ID_OCTETS_MAX;
        (fits && text.bytes().all(allowed)).then_some(QueueId(text))
    }

    /// The id itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
