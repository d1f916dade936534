//! What a caller wants sent, and its MAIL and RCPT lines (RFC 5321 §4.1.1.2, §4.1.1.3).
//!
//! Invariant: a line holds nothing the server did not offer. Where DSN, MT-PRIORITY or AUTH is
//! not offered their parameters are left out (RFC 3461 §5.2.1); what may not be left out is
//! refused by [`Capabilities::check`] before.

use std::fmt::{self, Write};

use super::capabilities::{Capabilities, Extension};
use crate::address::{Address, ForwardPath, ReversePath};
use crate::call::{Body, Charset, Submitter};
use crate::dsn::{EnvelopeId, Notify, NotifyOn, OriginalRecipient, Ret, write_xtext};
use crate::handling::{DeliverBy, Late, Priority, RequireTls};
use crate::limits::ORCPT_CHARS_MAX;

/// A message's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Whom failures are reported to.
    pub sender: ReversePath,
    /// Whom the message is for; at least one.
    pub recipients: Vec<Recipient>,
    /// Octets of the content, without dot-stuffing, if known.
    pub size: Option<u64>,
    /// What octets the content has.
    pub body: Body,
    /// What characters the header has. Addresses beyond ASCII make it UTF-8 anyway.
    pub charset: Charset,
    /// ENVID (RFC 3461 §4.4).
    pub envid: Option<EnvelopeId>,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: RequireTls,
    /// MT-PRIORITY (RFC 6710); left out where not offered.
    pub priority: Option<Priority>,
    /// BY (RFC 2852); left out where not offered, unless late messages are to be returned.
    pub deliver_by: Option<DeliverBy>,
    /// AUTH (RFC 4954 §5); left out where not offered.
    pub auth: Option<Submitter>,
}

/// A recipient with what is to be reported of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Where to.
    pub address: ForwardPath,
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Notify,
    /// ORCPT (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
}

impl Recipient {
    /// A recipient of whom nothing special is to be reported.
    pub fn new(address: ForwardPath) -> Self {
        Recipient { address, notify: Notify::Default, orcpt: None }
    }
}

/// Why a transaction was not begun. Nothing was sent, and the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// The session is not ready, has a transaction open, or is over.
    #[error("the session can take no transaction now")]
    NotReady,
    /// The server takes no more transactions in this session (RFC 9422 §4.1).
    #[error("the session has had its {limit} transactions")]
    Exhausted {
        /// MAILMAX.
        limit: u64,
    },
    /// There is no recipient.
    #[error("no recipients")]
    NoRecipients,
    /// More recipients than the server takes at once (RFC 9422 §4.2).
    #[error("more than {limit} recipients")]
    TooManyRecipients {
        /// RCPTMAX.
        limit: u64,
    },
    /// The server does not know SMTPUTF8.
    #[error("SMTPUTF8 is not offered")]
    Utf8Unsupported,
    /// The server does not know 8BITMIME.
    #[error("8BITMIME is not offered")]
    EightBitUnsupported,
    /// The server does not know BINARYMIME and CHUNKING.
    #[error("BINARYMIME is not offered")]
    BinaryUnsupported,
    /// There is no TLS, or the server does not know REQUIRETLS.
    #[error("REQUIRETLS is not offered")]
    RequireTlsUnsupported,
    /// The message exceeds the server's SIZE.
    #[error("larger than {limit} octets")]
    TooLarge {
        /// In octets.
        limit: u64,
    },
    /// The message is to be returned when late, and the server does not know DELIVERBY.
    #[error("DELIVERBY is not offered")]
    DeliverByUnsupported,
    /// The message is to be returned sooner than the server can promise.
    #[error("DELIVERBY needs {minimum} seconds")]
    DeliverByTooSoon {
        /// In seconds.
        minimum: u32,
    },
}

impl Transaction {
    /// A plain message: 7BIT, ASCII, nothing special.
    pub fn new(sender: ReversePath, recipients: Vec<Recipient>) -> Self {
        Transaction {
            sender,
            recipients,
            size: None,
            body: Body::SevenBit,
            charset: Charset::Ascii,
            envid: None,
            ret: None,
            require_tls: RequireTls::No,
            priority: None,
            deliver_by: None,
            auth: None,
        }
    }

    /// What the transaction needs: its own word, or what its addresses say.
    pub(super) fn charset(&self) -> Charset {
        let paths = self.recipients.iter().filter_map(|recipient| recipient.address.address());
        let submitter = match &self.auth {
            Some(Submitter::Mailbox(address)) => Some(address),
            Some(Submitter::Unknown) | None => None,
        };
        let mut addresses = self.sender.address().into_iter().chain(paths).chain(submitter);
        match self.charset {
            Charset::Ascii if addresses.all(Address::is_ascii) => Charset::Ascii,
            _ => Charset::Utf8,
        }
    }

    /// MAIL with its CRLF.
    pub(super) fn mail_line(&self, peer: &Capabilities) -> String {
        Mail { transaction: self, peer }.to_string()
    }

    /// RCPT with its CRLF.
    pub(super) fn rcpt_line(&self, index: usize, peer: &Capabilities) -> String {
        let recipient = &self.recipients[index];
        let mut line = format!("RCPT TO:{}", recipient.address);
        if peer.offers(Extension::Dsn) {
            line.push_str(&notify_parameter(self.notify(recipient, peer)));
            // An address kept in UTF-8 grows when it is escaped; a refused recipient would be
            // a high price for its report's beauty.
            let orcpt = recipient.orcpt.as_ref().map(ToString::to_string);
            if let Some(orcpt) = orcpt.filter(|orcpt| orcpt.len() <= ORCPT_CHARS_MAX) {
                line.push_str(&format!(" ORCPT={orcpt}"));
            }
        }
        line.push_str("\r\n");
        line
    }

    /// RFC 2852 §4.1.4.2: a server that does not watch the time for a sender who wants to hear of a
    /// delay is asked to tell of the delays that it knows.
    fn notify(&self, recipient: &Recipient, peer: &Capabilities) -> Notify {
        let wants_delays = self.deliver_by.is_some_and(|by| by.late() == Late::Notify);
        match recipient.notify {
            asked if !wants_delays || peer.offers(Extension::DeliverBy) => asked,
            Notify::Never => Notify::Never,
            Notify::Default => Notify::On(NotifyOn { success: false, failure: true, delay: true }),
            Notify::On(on) => Notify::On(NotifyOn { delay: true, ..on }),
        }
    }
}

fn notify_parameter(notify: Notify) -> String {
    match notify {
        Notify::Default => String::new(),
        Notify::Never => " NOTIFY=NEVER".to_owned(),
        Notify::On(on) => {
            let names: Vec<_> = on.names().collect();
            if names.is_empty() { String::new() } else { format!(" NOTIFY={}", names.join(",")) }
        }
    }
}

struct Mail<'a> {
    transaction: &'a Transaction,
    peer: &'a Capabilities,
}

impl fmt::Display for Mail<'_> {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mail { transaction, peer } = self;
        write!(line, "MAIL FROM:{}", transaction.sender)?;
        if let Some(size) = transaction.size.filter(|_| peer.offers(Extension::Size)) {
            write!(line, " SIZE={size}")?;
        }
        match transaction.body {
            Body::SevenBit => {}
            Body::EightBitMime => line.write_str(" BODY=8BITMIME")?,
            Body::BinaryMime => line.write_str(" BODY=BINARYMIME")?,
        }
        if transaction.charset() == Charset::Utf8 {
            line.write_str(" SMTPUTF8")?;
        }
        if peer.offers(Extension::Dsn) {
            if let Some(ret) = transaction.ret {
                write!(line, " RET={ret}")?;
            }
            if let Some(envid) = &transaction.envid {
                write!(line, " ENVID={envid}")?;
            }
        }
        if transaction.require_tls == RequireTls::Yes {
            line.write_str(" REQUIRETLS")?;
        }
        if let Some(priority) = transaction.priority.filter(|_| peer.offers(Extension::MtPriority))
        {
            write!(line, " MT-PRIORITY={priority}")?;
        }
        if let Some(by) = transaction.deliver_by.filter(|_| peer.offers(Extension::DeliverBy)) {
            write!(line, " BY={by}")?;
        }
        match transaction.auth.as_ref().filter(|_| peer.offers(Extension::Auth)) {
            None => {}
            Some(Submitter::Unknown) => line.write_str(" AUTH=<>")?,
            Some(Submitter::Mailbox(address)) => {
                line.write_str(" AUTH=")?;
                write_xtext(line, &address.to_string())?;
            }
        }
        line.write_char('\r')?;
        line.write_char('\n')
    }
}
