//! What a server offers (RFC 5321 §4.1.1.1), and what of a message it can therefore take.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use super::transaction::{BeginError, Transaction};
use crate::call::{Body, Charset};
use crate::config::Mechanism;
use crate::handling::{DateTime, Late, RequireTls};
use crate::trace::Encryption;

/// An extension, by its EHLO keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extension {
    /// 8BITMIME (RFC 6152).
    EightBitMime,
    /// AUTH (RFC 4954).
    Auth,
    /// BINARYMIME (RFC 3030).
    BinaryMime,
    /// CHUNKING (RFC 3030).
    Chunking,
    /// DELIVERBY (RFC 2852).
    DeliverBy,
    /// DSN (RFC 3461).
    Dsn,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    EnhancedStatusCodes,
    /// FUTURERELEASE (RFC 4865).
    FutureRelease,
    /// LIMITS (RFC 9422).
    Limits,
    /// MT-PRIORITY (RFC 6710).
    MtPriority,
    /// PIPELINING (RFC 2920).
    Pipelining,
    /// REQUIRETLS (RFC 8689).
    RequireTls,
    /// SIZE (RFC 1870).
    Size,
    /// SMTPUTF8 (RFC 6531).
    SmtpUtf8,
    /// STARTTLS (RFC 3207).
    StartTls,
}

impl Extension {
    const ALL: [Extension; 15] = [
        Extension::EightBitMime,
        Extension::Auth,
        Extension::BinaryMime,
        Extension::Chunking,
        Extension::DeliverBy,
        Extension::Dsn,
        Extension::EnhancedStatusCodes,
        Extension::FutureRelease,
        Extension::Limits,
        Extension::MtPriority,
        Extension::Pipelining,
        Extension::RequireTls,
        Extension::Size,
        Extension::SmtpUtf8,
        Extension::StartTls,
    ];

    /// The EHLO keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Extension::EightBitMime => "8BITMIME",
            Extension::Auth => "AUTH",
            Extension::BinaryMime => "BINARYMIME",
            Extension::Chunking => "CHUNKING",
            Extension::DeliverBy => "DELIVERBY",
            Extension::Dsn => "DSN",
            Extension::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Extension::FutureRelease => "FUTURERELEASE",
            Extension::Limits => "LIMITS",
            Extension::MtPriority => "MT-PRIORITY",
            Extension::Pipelining => "PIPELINING",
            Extension::RequireTls => "REQUIRETLS",
            Extension::Size => "SIZE",
            Extension::SmtpUtf8 => "SMTPUTF8",
            Extension::StartTls => "STARTTLS",
        }
    }

    fn parse(keyword: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.keyword().eq_ignore_ascii_case(keyword))
    }
}

/// What a server offers, as it said last: after TLS, if there is TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    name: String,
    encryption: Encryption,
    offered: BTreeSet<Extension>,
    mechanisms: Vec<Mechanism>,
    size_max: Option<NonZeroU64>,
    deliver_by_min: Option<u32>,
    hold_max: Option<HoldMax>,
    mails_max: Option<NonZeroU64>,
    recipients_max: Option<NonZeroU64>,
    recipient_domains_max: Option<NonZeroU64>,
}

/// How long a server would hold a message (RFC 4865 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldMax {
    /// HOLDFOR's most.
    pub seconds: u32,
    /// HOLDUNTIL's latest.
    pub until: DateTime,
}

impl Capabilities {
    /// A server of which nothing is known: without extensions.
    pub(super) fn none(encryption: Encryption) -> Self {
        Capabilities {
            name: String::new(),
            encryption,
            offered: BTreeSet::new(),
            mechanisms: Vec::new(),
            size_max: None,
            deliver_by_min: None,
            hold_max: None,
            mails_max: None,
            recipients_max: None,
            recipient_domains_max: None,
        }
    }

    /// From the lines of the answer to EHLO or LHLO. What is not understood is not offered.
    pub(super) fn parse(lines: &[String], encryption: Encryption) -> Self {
        let mut capabilities = Capabilities::none(encryption);
        let mut lines = lines.iter();
        if let Some(word) = lines.next().and_then(|line| line.split_whitespace().next()) {
            capabilities.name = word.to_owned();
        }
        for line in lines {
            capabilities.add(line);
        }
        capabilities
    }

    fn add(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let Some(mut keyword) = words.next() else { return };
        let parameters: Vec<&str> = match keyword.split_once('=') {
            // A form from before RFC 2554, which some servers still have beside the other.
            Some((auth, first)) if auth.eq_ignore_ascii_case("AUTH") => {
                keyword = auth;
                std::iter::once(first).chain(words).collect()
            }
            _ => words.collect(),
        };
        let Some(extension) = Extension::parse(keyword) else { return };
        self.offered.insert(extension);
        let first = parameters.first().copied();
        match extension {
            Extension::Auth => {
                for mechanism in parameters.iter().filter_map(|name| Mechanism::parse(name)) {
                    if !self.mechanisms.contains(&mechanism) {
                        self.mechanisms.push(mechanism);
                    }
                }
            }
            // RFC 1870 §3: 0 says that there is no limit.
            Extension::Size => self.size_max = first.and_then(number),
            Extension::DeliverBy => {
                self.deliver_by_min = first.and_then(|text| text.parse().ok());
            }
            Extension::FutureRelease => self.hold_max = hold_max(&parameters),
            Extension::Limits => parameters.iter().for_each(|limit| self.add_limit(limit)),
            _ => {}
        }
    }

    fn add_limit(&mut self, limit: &str) {
        let Some((name, value)) = limit.split_once('=') else { return };
        let slot = match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => &mut self.mails_max,
            "RCPTMAX" => &mut self.recipients_max,
            "RCPTDOMAINMAX" => &mut self.recipient_domains_max,
            _ => return,
        };
        *slot = number(value);
    }

    /// The name the server gave itself: its own claim, printable.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the connection is encrypted.
    pub fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// Whether the server offers it.
    pub fn offers(&self, extension: Extension) -> bool {
        self.offered.contains(&extension)
    }

    /// AUTH's mechanisms, as far as they are known here, in the server's order.
    pub fn mechanisms(&self) -> &[Mechanism] {
        &self.mechanisms
    }

    /// SIZE: the largest message in octets, if there is a limit.
    pub fn size_max(&self) -> Option<u64> {
        self.size_max.map(NonZeroU64::get)
    }

    /// DELIVERBY's least time in seconds, if it was named.
    pub fn deliver_by_min(&self) -> Option<u32> {
        self.deliver_by_min
    }

    /// FUTURERELEASE's bounds.
    pub fn hold_max(&self) -> Option<HoldMax> {
        self.hold_max
    }

    /// MAILMAX: transactions of one session (RFC 9422 §4.1).
    pub fn mails_max(&self) -> Option<u64> {
        self.mails_max.map(NonZeroU64::get)
    }

    /// RCPTMAX: recipients of one transaction (RFC 9422 §4.2).
    pub fn recipients_max(&self) -> Option<u64> {
        self.recipients_max.map(NonZeroU64::get)
    }

    /// RCPTDOMAINMAX: domains of a session's recipients (RFC 9422 §4.3). Left to the caller to honour.
    pub fn recipient_domains_max(&self) -> Option<u64> {
        self.recipient_domains_max.map(NonZeroU64::get)
    }

    /// Whether the server can take a message so described.
    pub fn check(&self, transaction: &Transaction) -> Result<(), BeginError> {
        let recipients = transaction.recipients.len() as u64;
        if recipients == 0 {
            return Err(BeginError::NoRecipients);
        }
        if let Some(limit) = self.recipients_max().filter(|limit| recipients > *limit) {
            return Err(BeginError::TooManyRecipients { limit });
        }
        if transaction.charset() == Charset::Utf8 && !self.offers(Extension::SmtpUtf8) {
            return Err(BeginError::Utf8Unsupported);
        }
        match transaction.body {
            Body::EightBitMime if !self.offers(Extension::EightBitMime) => {
                return Err(BeginError::EightBitUnsupported);
            }
            Body::BinaryMime
                if !(self.offers(Extension::BinaryMime) && self.offers(Extension::Chunking)) =>
            {
                return Err(BeginError::BinaryUnsupported);
            }
            _ => {}
        }
        let size = transaction.size.unwrap_or(0);
        if let Some(limit) = self.size_max().filter(|limit| size > *limit) {
            return Err(BeginError::TooLarge { limit });
        }
        // RFC 8689 §2: it means nothing without TLS, whatever the server says.
        let keeps_tls = self.encryption == Encryption::Tls && self.offers(Extension::RequireTls);
        if transaction.require_tls == RequireTls::Yes && !keeps_tls {
            return Err(BeginError::RequireTlsUnsupported);
        }
        self.check_deliver_by(transaction)
    }

    fn check_deliver_by(&self, transaction: &Transaction) -> Result<(), BeginError> {
        // Where delivery goes on when late, the sender is told that nobody watches the time.
        let Some(by) = transaction.deliver_by.filter(|by| by.late() == Late::Return) else {
            return Ok(());
        };
        if !self.offers(Extension::DeliverBy) {
            return Err(BeginError::DeliverByUnsupported);
        }
        let seconds = by.seconds().unsigned_abs();
        match self.deliver_by_min.filter(|minimum| seconds < *minimum) {
            Some(minimum) => Err(BeginError::DeliverByTooSoon { minimum }),
            None => Ok(()),
        }
    }
}

/// A limit; 0 and what is no number are none.
fn number(text: &str) -> Option<NonZeroU64> {
    text.parse().ok().and_then(NonZeroU64::new)
}

fn hold_max(parameters: &[&str]) -> Option<HoldMax> {
    let [seconds, until, ..] = parameters else { return None };
    Some(HoldMax { seconds: seconds.parse().ok()?, until: DateTime::parse(until)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Capabilities {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        Capabilities::parse(&lines, Encryption::Clear)
    }

    #[test]
    fn what_is_offered() {
        let all = parse(&[
            "mx.example at your service",
            "pipelining",
            "SIZE 1000",
            "8BITMIME",
            "AUTH=LOGIN PLAIN",
            "AUTH PLAIN GSSAPI SCRAM-SHA-256",
            "DELIVERBY 240",
            "FUTURERELEASE 86400 2026-11-23T05:20:00Z",
            "LIMITS MAILMAX=5 RCPTMAX=20 RCPTDOMAINMAX=1 X=y",
            "X-UNKNOWN",
            "",
        ]);
        assert_eq!(all.name(), "mx.example");
        assert!(all.offers(Extension::Pipelining) && all.offers(Extension::EightBitMime));
        assert!(!all.offers(Extension::StartTls));
        assert_eq!(all.size_max(), Some(1000));
        let known = [Mechanism::Login, Mechanism::Plain, Mechanism::ScramSha256];
        assert_eq!(all.mechanisms(), known);
        assert_eq!(all.deliver_by_min(), Some(240));
        assert_eq!(all.hold_max().map(|hold| hold.seconds), Some(86_400));
        let limits = (all.mails_max(), all.recipients_max(), all.recipient_domains_max());
        assert_eq!(limits, (Some(5), Some(20), Some(1)));
    }

    #[test]
    fn what_is_not_understood_is_no_limit() {
        let odd = parse(&["x", "SIZE 0", "LIMITS RCPTMAX=0 MAILMAX=x MAILMAX", "FUTURERELEASE 5"]);
        assert_eq!((odd.size_max(), odd.recipients_max(), odd.mails_max()), (None, None, None));
        assert_eq!(odd.hold_max(), None);
        assert!(odd.offers(Extension::Size));
        assert_eq!(parse(&[]), Capabilities::none(Encryption::Clear));
    }
}
