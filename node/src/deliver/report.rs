//! Delivery status reports (RFC 3464): for recipients that were accepted and could not be
//! served, and for those whose sender asked to hear of a success.

use env::Timestamp;
use mail::directory::Address;

use super::Refusal;
use crate::date;

/// Whom to tell, and what about.
#[derive(Debug, Clone)]
pub struct Reporting {
    /// The reverse-path.
    pub sender: Address,
    /// Our own name.
    pub hostname: String,
    /// RFC 3461 ENVID.
    pub envelope_id: Option<String>,
    /// The message's header, to return with the report.
    pub header: Vec<u8>,
}

/// What a report says of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) recipient: String,
    pub(super) result: Result<(), Refusal>,
}

impl Status {
    /// For people, for the `Action` field, and for the `Status` field (RFC 3464 §2.3).
    fn words(&self) -> (String, &'static str, &'static str) {
        match &self.result {
            Ok(()) => ("delivered".to_owned(), "delivered", "2.0.0"),
            Err(refusal) => (refusal.to_string(), "failed", refusal.status()),
        }
    }
}

/// The report as a message with CRLF line ends.
pub(super) fn build(
    reporting: &Reporting,
    about: &[Status],
    now: Timestamp,
    unique: u128,
) -> Vec<u8> {
    let Reporting { sender, hostname, envelope_id, header } = reporting;
    let boundary = format!("report-{unique:032x}");
    let date = date::rfc5322(now);
    let mut text = String::new();
    let mut fields = String::new();
    for status in about {
        let recipient = &status.recipient;
        let (words, action, code) = status.words();
        text.push_str(&format!("  <{recipient}>: {words}\r\n"));
        fields.push_str(&format!(
            "\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: {action}\r\nStatus: {code}\r\n"
        ));
    }
    let any_failed = about.iter().any(|status| status.result.is_err());
    let (subject, opening) = if any_failed {
        ("Your message could not be delivered to everybody", "This is what became of your message:")
    } else {
        ("Your message was delivered", "Your message was delivered to:")
    };
    let envelope_id = envelope_id
        .as_ref()
        .map(|id| format!("Original-Envelope-Id: {id}\r\n"))
        .unwrap_or_default();
    let mut message = format!(
        "From: Mail Delivery System <postmaster@{hostname}>\r\n\
         To: <{sender}>\r\n\
         Subject: {subject}\r\n\
         Date: {date}\r\n\
         Message-ID: <{unique:032x}@{hostname}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\
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
         \r\n\
         --{boundary}\r\n\
         Content-Type: message/delivery-status\r\n\
         \r\n\
         {envelope_id}Reporting-MTA: dns; {hostname}\r\n\
         Arrival-Date: {date}\r\n\
         {fields}\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/rfc822-headers\r\n\
         \r\n"
    )
    .into_bytes();
    message.extend_from_slice(header);
    message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_multipart_with_a_status_for_each_recipient() {
        let reporting = Reporting {
            sender: Address::parse("a@example.com").unwrap(),
            hostname: "mx.example.org".to_owned(),
            envelope_id: Some("QQ1".to_owned()),
            header: b"Subject: hello\r\n".to_vec(),
        };
        let of = |recipient: &str, result| Status { recipient: recipient.to_owned(), result };
        let about = [of("full@example.org", Err(Refusal::OverQuota)), of("ok@example.org", Ok(()))];
        let bytes = build(&reporting, &about, Timestamp::from_unix_seconds(0), 7);
        let mut scanner = message::Scanner::new(message::Limits::default());
        scanner.push(&bytes);
        let scanned = scanner.finish();
        let message::Content::Multipart(parts) = &scanned.structure.root.content else {
            panic!("not a multipart");
        };
        let kinds: Vec<_> = parts.iter().map(|part| part.content_type.subtype.as_str()).collect();
        assert_eq!(kinds, ["plain", "delivery-status", "rfc822-headers"]);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("Final-Recipient: rfc822; full@example.org\r\n"));
        assert!(text.contains("Action: delivered\r\nStatus: 2.0.0\r\n"));
        assert!(text.contains("Status: 5.2.2\r\n") && text.contains("Original-Envelope-Id: QQ1"));
    }
}
