//! The envelope in IMAP's terms (RFC 9051 §2.3.5 and §7.5.2).

use crate::address::{Address, parse_addresses};
use crate::header::{Fields, first, unfold};

/// The fields of a header block that IMAP's `ENVELOPE` consists of. Texts are unfolded, encoded
/// words kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `Date` as written.
    pub date: Option<String>,
    /// `Subject` as written.
    pub subject: Option<String>,
    /// `From`.
    pub from: Vec<Address>,
    /// `Sender`; `from` if it is absent or empty.
    pub sender: Vec<Address>,
    /// `Reply-To`; `from` if it is absent or empty.
    pub reply_to: Vec<Address>,
    /// `To`, all of them where a header has more than one.
    pub to: Vec<Address>,
    /// `Cc`, likewise.
    pub cc: Vec<Address>,
    /// `Bcc`, likewise.
    pub bcc: Vec<Address>,
    /// `In-Reply-To` as written.
    pub in_reply_to: Option<String>,
    /// `Message-ID` as written, angle brackets included.
    pub message_id: Option<String>,
}

impl Envelope {
    /// Reads a header block; takes the addresses it adds off `addresses_left`. Of a field that
    /// stands twice, the first counts.
    pub(crate) fn new(block: &[u8], addresses_left: &mut usize) -> Self {
        let mut addresses = |name: &str| {
            let mut list = Vec::new();
            let repeated = matches!(name, "To" | "Cc" | "Bcc");
            for field in Fields::new(block).filter(|field| field.is(name)) {
                let found = parse_addresses(field.value, *addresses_left);
                *addresses_left = addresses_left.saturating_sub(found.len());
                list.extend(found);
                if !repeated {
                    break;
                }
            }
            list
        };
        let from = addresses("From");
        let mut or_from = |name: &str| {
            let list = addresses(name);
            if list.is_empty() { from.clone() } else { list }
        };
        let (sender, reply_to) = (or_from("Sender"), or_from("Reply-To"));
        let text = |name: &str| first(block, name).map(unfold);
        Self {
            date: text("Date"),
            subject: text("Subject"),
            sender,
            reply_to,
            to: addresses("To"),
            cc: addresses("Cc"),
            bcc: addresses("Bcc"),
            in_reply_to: text("In-Reply-To"),
            message_id: text("Message-ID"),
            from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope() {
        let block = b"Date: Mon,\r\n 7 Feb\r\nSubject: =?utf-8?Q?a?=\r\n b\r\nFrom: A <a@x>\r\n\
            Reply-To:\r\nSender: s@x\r\nTo: b@x\r\nTo: c@x\r\nMessage-Id: <1@x>\r\n\
            In-Reply-To: <0@x>\r\nSubject: second\r\n\r\n";
        let envelope = Envelope::new(block, &mut 100);
        assert_eq!(envelope.date.as_deref(), Some("Mon, 7 Feb"));
        assert_eq!(envelope.subject.as_deref(), Some("=?utf-8?Q?a?= b"));
        assert_eq!(envelope.reply_to, envelope.from);
        assert_eq!(envelope.sender[0].mailbox.as_deref(), Some("s"));
        assert_eq!(envelope.to.len(), 2);
        assert_eq!(envelope.cc, []);
        assert_eq!(envelope.message_id.as_deref(), Some("<1@x>"));
        assert_eq!(envelope.in_reply_to.as_deref(), Some("<0@x>"));
    }

    #[test]
    fn the_address_budget_is_shared() {
        let mut left = 3;
        let envelope = Envelope::new(b"From: a@x\nTo: b@x, c@x, d@x\nCc: e@x\n", &mut left);
        assert_eq!((envelope.from.len(), envelope.to.len(), envelope.cc.len()), (1, 2, 0));
        assert_eq!(left, 0);
    }
}
