//! Delivery status reports (RFC 3464): for recipients that were accepted and could not be served,
//! for those that wait for long, and for those whose sender asked to hear of a success.
//!
//! Addresses beyond ASCII make it a report of RFC 6533.

use env::Timestamp;
use mail::directory::Address;
use smtp::OriginalRecipient;

use super::{Refusal, outbound::TlsWish};
use crate::date;

/// Whom to tell, and what about.
#[derive(Debug, Clone)]
pub struct Reporting {
    /// The reverse-path.
    pub sender: Address,
    /// Our own name.
    pub hostname: String,
    /// RFC 3461 ENVID, as given.
    pub envelope_id: Option<String>,
    /// When the message arrived.
    pub arrived_at: Timestamp,
    /// What of the message goes back with the report.
    pub returned: Returned,
    /// When the sender wanted it delivered (RFC 2852).
    pub deliver_by: Option<Timestamp>,
    /// How the report travels.
    pub tls: TlsWish,
}

/// What of a message goes back with a report (RFC 3461 §4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// Its header.
    Header(Vec<u8>),
    /// The same where all of it was asked for: it is binary, which many servers take no report of
    /// (RFC 3030 §3).
    HeaderOfBinary(Vec<u8>),
    /// All of it.
    Whole(Vec<u8>),
}

/// What a report says of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The address that it was sent to.
    pub(crate) recipient: String,
    /// RFC 3461 ORCPT, as given.
    pub(crate) original: Option<String>,
    /// What became of it.
    pub(crate) fate: Fate,
}

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the mailbox.
    Delivered,
    /// A server took it that sends no reports.
    Relayed {
        /// Its name; empty where it was not kept.
        remote: String,
    },
    /// It waits.
    Delayed {
        /// Why.
        trouble: Trouble,
        /// Until when it is tried.
        until: Timestamp,
    },
    /// It is given up.
    Failed(Trouble),
}

/// Why a recipient is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// RFC 3463's code.
    pub(crate) status: String,
    /// For people.
    pub(crate) words: String,
    /// The server whose reply the words are, where they are one.
    pub(crate) remote: Option<String>,
}

impl Trouble {
    /// Something of our own that is in the way.
    pub(crate) fn new(status: &str, words: impl Into<String>) -> Self {
        Self { status: status.to_owned(), words: words.into(), remote: None }
    }

    /// A refusal of our own.
    pub(crate) fn of(refusal: &Refusal) -> Self {
        Self::new(refusal.status(), refusal.to_string())
    }
}

impl Fate {
    /// The `Action` and `Status` fields (RFC 3464 §2.3).
    fn fields(&self) -> (&'static str, &str) {
        match self {
            Self::Delivered => ("delivered", "2.0.0"),
            Self::Relayed { .. } => ("relayed", "2.0.0"),
            Self::Delayed { trouble, .. } => ("delayed", &trouble.status),
            Self::Failed(trouble) => ("failed", &trouble.status),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Delivered => "delivered".to_owned(),
            Self::Relayed { remote } => {
                let remote = if remote.is_empty() { "another server" } else { remote };
                format!("passed on to {remote}, which may not tell what becomes of it")
            }
            Self::Delayed { trouble, until } => {
                format!(
                    "not delivered yet, tried until {}: {}",
                    date::rfc5322(*until),
                    trouble.words
                )
            }
            Self::Failed(trouble) => trouble.words.clone(),
        }
    }

    fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Delivered | Self::Relayed { .. } => None,
            Self::Delayed { trouble, .. } | Self::Failed(trouble) => Some(trouble),
        }
    }
}

impl Status {
    fn is_ascii(&self) -> bool {
        self.recipient.is_ascii() && self.original.as_ref().is_none_or(|it| it.is_ascii())
    }

    /// The recipient's fields (RFC 3464 §2.3), in their order, behind an empty line.
    fn write(&self, fields: &mut String, now: Timestamp) {
        let (action, status) = self.fate.fields();
        let kind = if self.recipient.is_ascii() { "rfc822" } else { "utf-8" };
        fields.push_str("\r\n");
        let original = self.original.as_deref().and_then(OriginalRecipient::parse);
        if let Some(original) = original {
            let (kind, address) = (original.kind(), original.address());
            fields.push_str(&format!("Original-Recipient: {kind}; {address}\r\n"));
        }
        fields.push_str(&format!("Final-Recipient: {kind}; {}\r\n", self.recipient));
        fields.push_str(&format!("Action: {action}\r\nStatus: {status}\r\n"));
        let remote = match &self.fate {
            Fate::Relayed { remote } => Some(remote),
            fate => fate.trouble().and_then(|trouble| trouble.remote.as_ref()),
        };
        if let Some(remote) = remote.filter(|remote| !remote.is_empty()) {
            fields.push_str(&format!("Remote-MTA: dns; {remote}\r\n"));
        }
        if let Some(trouble) = self.fate.trouble().filter(|trouble| trouble.remote.is_some()) {
            let words = one_line(&trouble.words);
            fields.push_str(&format!("Diagnostic-Code: smtp; {words}\r\n"));
        }
        if !matches!(self.fate, Fate::Delivered) {
            fields.push_str(&format!("Last-Attempt-Date: {}\r\n", date::rfc5322(now)));
        }
        if let Fate::Delayed { until, .. } = &self.fate {
            fields.push_str(&format!("Will-Retry-Until: {}\r\n", date::rfc5322(*until)));
        }
    }
}

/// What a server said, as one header field can hold it.
fn one_line(words: &str) -> String {
    let clean = words.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    clean.chars().filter(|c| !c.is_control()).collect()
}

/// What a report is called and how it begins.
fn opening(about: &[Status]) -> (&'static str, &'static str) {
    let any = |wanted: fn(&Fate) -> bool| about.iter().any(|status| wanted(&status.fate));
    if any(|fate| matches!(fate, Fate::Failed(_))) {
        ("Your message could not be delivered to everybody", "This is what became of your message:")
    } else if any(|fate| matches!(fate, Fate::Delayed { .. })) {
        (
            "Your message is delayed",
            "Your message has not reached these recipients yet. You need not send it again:",
        )
    } else {
        ("Your message was delivered", "This is what became of your message:")
    }
}

/// RFC 5321 §4.4: what a mailbox's copy of a report begins with, and other servers are not sent.
pub(crate) const RETURN_PATH: &str = "Return-Path: <>\r\n";

/// The report as a message with CRLF line ends.
pub(super) fn build(
    reporting: &Reporting,
    about: &[Status],
    now: Timestamp,
    unique: u128,
) -> Vec<u8> {
    let Reporting { sender, hostname, envelope_id, arrived_at, returned, .. } = reporting;
    let boundary = format!("report-{unique:032x}");
    let (date, arrival) = (date::rfc5322(now), date::rfc5322(*arrived_at));
    let mut text = String::new();
    let mut fields = String::new();
    for status in about {
        text.push_str(&format!("  <{}>: {}\r\n", status.recipient, one_line(&status.fate.words())));
        status.write(&mut fields, now);
    }
    let (subject, opening) = opening(about);
    let is_ascii = about.iter().all(Status::is_ascii);
    // RFC 6533 §3 and §4.
    let status_type = if is_ascii { "delivery-status" } else { "global-delivery-status" };
    let (returned_type, returned) = match (returned, is_ascii) {
        (Returned::Header(header) | Returned::HeaderOfBinary(header), true) => {
            ("text/rfc822-headers", header)
        }
        (Returned::Header(header) | Returned::HeaderOfBinary(header), false) => {
            ("message/global-headers", header)
        }
        (Returned::Whole(message), true) => ("message/rfc822", message),
        (Returned::Whole(message), false) => ("message/global", message),
    };
    let binary = match reporting.returned {
        Returned::HeaderOfBinary(_) => {
            "The message is binary, so only its header comes back with this report.\r\n"
        }
        _ => "",
    };
    // RFC 2852 §5: a field of the message's own.
    let deliver_by = reporting.deliver_by.map(date::rfc5322);
    let deliver_by =
        deliver_by.map(|date| format!("Deliver-By-Date: {date}\r\n")).unwrap_or_default();
    let envelope_id = envelope_id
        .as_deref()
        .and_then(smtp::EnvelopeId::parse)
        .map(|id| format!("Original-Envelope-Id: {}\r\n", id.as_str()))
        .unwrap_or_default();
    let mut message = format!(
        "{RETURN_PATH}From: Mail Delivery System <postmaster@{hostname}>\r\n\
         To: <{sender}>\r\n\
         Subject: {subject}\r\n\
         Date: {date}\r\n\
         Message-ID: <{unique:032x}@{hostname}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={status_type};\r\n\
         \tboundary=\"{boundary}\"\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         \r\n\
         {opening}\r\n\
         \r\n\
         {text}\
         \r\n\
         Its other recipients, if any, are not mentioned here.\r\n\
         {binary}\
         \r\n\
         --{boundary}\r\n\
         Content-Type: message/{status_type}\r\n\
         \r\n\
         {envelope_id}Reporting-MTA: dns; {hostname}\r\n\
         Arrival-Date: {arrival}\r\n\
         {deliver_by}\
         {fields}\
         \r\n\
         --{boundary}\r\n\
         Content-Type: {returned_type}\r\n\
         \r\n"
    )
    .into_bytes();
    message.extend_from_slice(returned);
    message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporting(returned: Returned) -> Reporting {
        Reporting {
            sender: Address::parse("a@example.com").unwrap(),
            hostname: "mx.example.org".to_owned(),
            envelope_id: Some("QQ+2B1".to_owned()),
            arrived_at: Timestamp::from_unix_seconds(0),
            returned,
            deliver_by: None,
            tls: TlsWish::Usual,
        }
    }

    fn status(recipient: &str, fate: Fate) -> Status {
        Status { recipient: recipient.to_owned(), original: None, fate }
    }

    /// The report's text and its parts' types.
    fn built(returned: Returned, about: &[Status]) -> (String, Vec<String>) {
        let bytes = build(&reporting(returned), about, Timestamp::from_unix_seconds(60), 7);
        let mut scanner = message::Scanner::new(message::Limits::default());
        scanner.push(&bytes);
        let scanned = scanner.finish();
        let message::Content::Multipart(parts) = &scanned.structure.root.content else {
            panic!("not a multipart");
        };
        let kinds = parts.iter().map(|part| part.content_type.subtype.as_str().to_owned());
        (String::from_utf8(bytes).unwrap(), kinds.collect())
    }

    #[test]
    fn a_report_is_a_multipart_with_a_status_for_each_recipient() {
        let about = [
            status("full@example.org", Fate::Failed(Trouble::of(&Refusal::OverQuota))),
            status("ok@example.org", Fate::Delivered),
        ];
        let (text, kinds) = built(Returned::Header(b"Subject: hello\r\n".to_vec()), &about);
        assert_eq!(kinds, ["plain", "delivery-status", "rfc822-headers"]);
        assert!(text.contains("Final-Recipient: rfc822; full@example.org\r\n"));
        assert!(text.contains("Action: delivered\r\nStatus: 2.0.0\r\n"));
        assert!(text.contains("Status: 5.2.2\r\n") && text.contains("Original-Envelope-Id: QQ+1"));
        assert!(!text.contains("Diagnostic-Code"));
    }

    #[test]
    fn a_binary_message_comes_back_as_its_header_and_a_wish_for_time_is_told() {
        let about = [status("x@example.net", Fate::Failed(Trouble::of(&Refusal::NoMailbox)))];
        let header = || b"Subject: hello\r\n".to_vec();
        let (text, kinds) = built(Returned::HeaderOfBinary(header()), &about);
        assert_eq!(kinds, ["plain", "delivery-status", "rfc822-headers"]);
        assert!(text.contains("is binary, so only its header comes back"), "{text}");
        assert!(!text.contains("Deliver-By-Date"));
        let deliver_by = Some(Timestamp::from_unix_seconds(86_400));
        let reporting = Reporting { deliver_by, ..reporting(Returned::Header(header())) };
        let text = build(&reporting, &about, Timestamp::from_unix_seconds(60), 7);
        let text = String::from_utf8(text).unwrap();
        let line = "Arrival-Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n\
                    Deliver-By-Date: Fri, 2 Jan 1970 00:00:00 +0000\r\n\r\nFinal-Recipient:";
        assert!(text.contains(line) && !text.contains("is binary"), "{text}");
    }

    #[test]
    fn a_servers_words_stand_in_their_field() {
        let trouble = Trouble {
            status: "4.2.1".to_owned(),
            words: "450 4.2.1 come\r\nback later".to_owned(),
            remote: Some("mx.example.net".to_owned()),
        };
        let until = Timestamp::from_unix_seconds(86_400);
        let mut late = status("x@example.net", Fate::Delayed { trouble, until });
        late.original = Some("rfc822;y+40example.net".to_owned());
        let (text, kinds) = built(Returned::Whole(b"A: b\r\n\r\nc\r\n".to_vec()), &[late]);
        assert_eq!(kinds, ["plain", "delivery-status", "rfc822"]);
        for line in [
            "Original-Recipient: rfc822; y@example.net\r\nFinal-Recipient: rfc822; x@example.net\r\n",
            "Action: delayed\r\nStatus: 4.2.1\r\nRemote-MTA: dns; mx.example.net\r\n",
            "Diagnostic-Code: smtp; 450 4.2.1 come back later\r\n",
            "Will-Retry-Until: Fri, 2 Jan 1970 00:00:00 +0000\r\n",
            "Arrival-Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n",
            "Subject: Your message is delayed\r\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn addresses_beyond_ascii_make_it_a_global_report() {
        let relayed = Fate::Relayed { remote: "mx.example.net".to_owned() };
        let (text, kinds) =
            built(Returned::Header(Vec::new()), &[status("pelé@example.com", relayed)]);
        assert_eq!(kinds, ["plain", "global-delivery-status", "global-headers"]);
        assert!(text.contains("Final-Recipient: utf-8; pelé@example.com\r\nAction: relayed\r\n"));
    }
}
