//! One message over one connection: what to send, and what the server's answers mean.

use env::Timestamp;
use smtp::{
    Charset, EnvelopeId, ForwardPath, Notify, OriginalRecipient, Permanence, Priority, RequireTls,
    Ret, ReversePath,
    client::{BeginError, Outcome, Recipient, RecipientOutcome, Response, Stage, Transaction},
};

use super::{connection::SendError, term};
use crate::deliver::{
    Trouble,
    outbound::{Body, OutboundRecipient, ReturnContent, SubmissionRecord, TlsWish},
};

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another server answers for it.
    Taken {
        /// That server.
        remote: String,
        /// Whether it tells the sender of a delivery.
        reports: Reports,
    },
    /// It will never be taken.
    Failed(Trouble),
    /// It may be taken later.
    Deferred(Trouble),
}

/// Whether a server knows DSN (RFC 3461).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reports {
    Yes,
    No,
    /// The sender is told whatever it knows: it does not watch the time that the sender gave, or the
    /// sender wants to hear of every hop (RFC 2852 §4.1.4).
    Untimed,
}

/// The envelope of a submission's message for some recipients. `Err` for those that cannot be
/// written on the wire.
pub(super) fn envelope(
    record: &SubmissionRecord,
    recipients: &[OutboundRecipient],
    now: Timestamp,
) -> Result<Transaction, Trouble> {
    let unusable = |what: &str| Trouble {
        status: "5.1.3".to_owned(),
        words: format!("{what} is no address of a mailbox"),
        remote: None,
    };
    let sender = match record.sender.as_str() {
        "" => ReversePath::Null,
        sender => ReversePath::parse(&format!("<{sender}>")).map_err(|_| unusable(sender))?,
    };
    let mut named = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        let address = ForwardPath::parse(&format!("<{}>", recipient.address))
            .map_err(|_| unusable(&recipient.address))?;
        let notify = recipient.notify.as_deref().and_then(Notify::parse);
        named.push(Recipient {
            address,
            notify: notify.unwrap_or_default(),
            orcpt: recipient.original.as_deref().and_then(OriginalRecipient::parse),
        });
    }
    Ok(Transaction {
        size: Some(record.size.saturating_sub(record.skip) + record.prepend.len() as u64),
        body: match record.body() {
            Body::SevenBit => smtp::Body::SevenBit,
            Body::EightBitMime => smtp::Body::EightBitMime,
            Body::BinaryMime => smtp::Body::BinaryMime,
        },
        charset: if record.utf8 { Charset::Utf8 } else { Charset::Ascii },
        envid: record.envelope_id.as_deref().and_then(EnvelopeId::parse),
        ret: match record.returns() {
            ReturnContent::Full => Some(Ret::Full),
            ReturnContent::Headers => Some(Ret::Headers),
            ReturnContent::Unspecified => None,
        },
        require_tls: match record.tls() {
            TlsWish::Required => RequireTls::Yes,
            TlsWish::Usual | TlsWish::Optional => RequireTls::No,
        },
        priority: i8::try_from(record.priority)
            .ok()
            .and_then(Priority::new)
            .filter(|priority| *priority != Priority::default()),
        deliver_by: term::remaining(record, now),
        ..Transaction::new(sender, named)
    })
}

/// How many of the first recipients can be written on the wire, at least one. `Err`: the first cannot.
pub(super) fn writable(
    record: &SubmissionRecord,
    recipients: &[OutboundRecipient],
    now: Timestamp,
) -> Result<usize, Trouble> {
    if envelope(record, recipients, now).is_ok() {
        return Ok(recipients.len());
    }
    let alone = |it| envelope(record, std::slice::from_ref(it), now);
    match recipients.iter().enumerate().find_map(|(at, it)| Some((at, alone(it).err()?))) {
        Some((0, trouble)) => Err(trouble),
        Some((at, _)) => Ok(at),
        None => Ok(recipients.len()),
    }
}

/// What a server's answers mean for each recipient.
pub(super) fn verdicts(outcome: Outcome, remote: &str, reports: Reports) -> Vec<Verdict> {
    let of = |recipient: RecipientOutcome| match &recipient {
        RecipientOutcome::Accepted(_) => Verdict::Taken { remote: remote.to_owned(), reports },
        RecipientOutcome::Refused { response, .. } => {
            refused(response, recipient.permanence(), remote)
        }
        RecipientOutcome::Unknown => {
            env::sometimes!("the reply to a message's end was not seen");
            deferred(remote, "4.4.0", "no reply to the end of the message")
        }
        RecipientOutcome::NotSent => {
            deferred(remote, BROKEN, "the connection broke before the message's end")
        }
    };
    outcome.recipients.into_iter().map(of).collect()
}

/// How many of the last recipients a server refused as too many, where it took some before them.
pub(super) fn crowded_out(outcome: &Outcome) -> usize {
    let recipients = &outcome.recipients;
    let takes_some = recipients.iter().any(|it| matches!(it, RecipientOutcome::Accepted(_)));
    let crowded = recipients.iter().rev().take_while(|it| is_crowded_out(it)).count();
    if takes_some { crowded } else { 0 }
}

/// RFC 5321 §4.5.3.1.10: 452, or 552 of servers from before it. Either may be said of something
/// else, which an extended code tells (RFC 3463 §3.6: too many recipients).
fn is_crowded_out(outcome: &RecipientOutcome) -> bool {
    let RecipientOutcome::Refused { at: Stage::Rcpt, response } = outcome else { return false };
    let says_so = response.enhanced.is_none_or(|code| (code.subject, code.detail) == (5, 3));
    matches!(response.code, 452 | 552) && says_so
}

/// What a server had to say to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// No more than that the connection ends: nothing of the message is there.
    Goodbye,
    /// That it takes it for nobody now: nothing of it is there.
    NotNow,
    /// That it lacks what the message needs, which another may have.
    NotHere,
    /// What holds whatever others would say, or may have been said too late to ask them.
    Verdict,
}

/// What an outcome says. A recipient whose reply to the message's end was not seen may have it, so that
/// nobody else is asked.
pub(super) fn said(outcome: &Outcome) -> Said {
    let is_put_off = |it: &RecipientOutcome| match it {
        RecipientOutcome::NotSent => true,
        RecipientOutcome::Refused { .. } => it.permanence() != Some(Permanence::Permanent),
        RecipientOutcome::Accepted(_) | RecipientOutcome::Unknown => false,
    };
    if outcome.recipients.iter().all(is_goodbye) {
        Said::Goodbye
    } else if outcome.recipients.iter().all(is_put_off) {
        Said::NotNow
    } else {
        Said::Verdict
    }
}

/// What it says that a message could not be begun.
pub(super) fn said_at_beginning(error: &BeginError) -> Said {
    match error {
        BeginError::NotReady | BeginError::Exhausted { .. } => Said::Goodbye,
        BeginError::Utf8Unsupported
        | BeginError::EightBitUnsupported
        | BeginError::BinaryUnsupported
        | BeginError::RequireTlsUnsupported
        | BeginError::DeliverByUnsupported
        | BeginError::DeliverByTooSoon { .. } => Said::NotHere,
        // A server behind it would pass on what this one then refuses (RFC 1870 §6).
        BeginError::TooLarge { .. }
        | BeginError::NoRecipients
        | BeginError::TooManyRecipients { .. } => Said::Verdict,
    }
}

/// Whether a server said no more than that it ends the connection, if so much (RFC 5321 §3.8: 421).
fn is_goodbye(outcome: &RecipientOutcome) -> bool {
    match outcome {
        RecipientOutcome::NotSent => true,
        RecipientOutcome::Refused { at, response } => response.code == 421 && *at != Stage::End,
        RecipientOutcome::Accepted(_) | RecipientOutcome::Unknown => false,
    }
}

/// Whether the connection broke before the server had the message.
pub(super) fn is_lost(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Deferred(trouble) if trouble.status == BROKEN)
}

/// RFC 3463 §3.5: a bad connection, where nothing of the message is at the server.
const BROKEN: &str = "4.4.2";

fn deferred(remote: &str, status: &str, words: &str) -> Verdict {
    Verdict::Deferred(Trouble {
        status: status.to_owned(),
        words: format!("{remote}: {words}"),
        remote: None,
    })
}

/// What our own trouble means for recipients whose server does not have the message (RFC 3463 §3.4).
pub(super) fn unsent(error: &SendError) -> Verdict {
    Verdict::Deferred(Trouble {
        status: "4.3.0".to_owned(),
        words: error.to_string(),
        remote: None,
    })
}

/// A refusal is for good only where the server says so.
fn refused(response: &Response, permanence: Option<Permanence>, remote: &str) -> Verdict {
    let trouble = trouble_of(response, permanence, remote);
    match permanence {
        Some(Permanence::Permanent) => Verdict::Failed(trouble),
        Some(Permanence::Temporary) | None => Verdict::Deferred(trouble),
    }
}

/// A server's words.
pub(super) fn of_response(response: &Response, remote: &str) -> Trouble {
    trouble_of(response, response.permanence(), remote)
}

fn trouble_of(response: &Response, permanence: Option<Permanence>, remote: &str) -> Trouble {
    let class = if permanence == Some(Permanence::Permanent) { '5' } else { '4' };
    let status = match response.enhanced {
        // RFC 3463 §2: its first number says whether another try may help, as we have found.
        Some(code) => format!("{class}.{}.{}", code.subject, code.detail),
        None => format!("{class}.0.0"),
    };
    Trouble { status, words: response.to_string(), remote: Some(remote.to_owned()) }
}

/// Why a server cannot take a message as it is: another may, or none (RFC 3463 §3).
pub(super) fn unfit(error: BeginError, remote: &str) -> Verdict {
    let failed = |status: &str, words: String| Verdict::Failed(Trouble::new(status, words));
    match error {
        BeginError::NotReady | BeginError::Exhausted { .. } => {
            deferred(remote, BROKEN, "the session is over")
        }
        BeginError::TooManyRecipients { limit } => {
            deferred(remote, "4.5.3", &format!("at most {limit} recipients at once"))
        }
        BeginError::NoRecipients => failed("5.5.3", "no recipients".to_owned()),
        BeginError::Utf8Unsupported => {
            failed("5.6.7", format!("{remote} takes no internationalized mail"))
        }
        BeginError::EightBitUnsupported | BeginError::BinaryUnsupported => {
            failed("5.6.3", format!("{remote} does not take the message's encoding"))
        }
        BeginError::RequireTlsUnsupported => {
            failed("5.7.30", format!("{remote} does not offer REQUIRETLS"))
        }
        BeginError::TooLarge { limit } => {
            failed("5.3.4", format!("{remote} takes messages of at most {limit} bytes"))
        }
        BeginError::DeliverByUnsupported | BeginError::DeliverByTooSoon { .. } => {
            failed("5.3.3", format!("{remote} does not promise delivery in time"))
        }
    }
}

/// What a failure to open a session means: the server's own refusal stands as its words.
pub(super) fn at(stage: Stage, response: &Response, remote: &str) -> Trouble {
    let trouble = of_response(response, remote);
    Trouble { words: format!("{} ({stage})", trouble.words), ..trouble }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sender: &str, recipients: &[&str], expected: Result<usize, &str>) {
        let record = SubmissionRecord { sender: sender.to_owned(), ..Default::default() };
        let named =
            |it: &&str| OutboundRecipient { address: (*it).to_owned(), ..Default::default() };
        let recipients: Vec<_> = recipients.iter().map(named).collect();
        let found = writable(&record, &recipients, Timestamp::from_unix_ms(0));
        let words = found.map_err(|trouble| trouble.words);
        assert_eq!(words.as_ref().map_err(String::as_str).copied(), expected);
    }

    #[test]
    fn an_address_that_cannot_be_written_fails_alone() {
        let (good, bad) = ("a@example.org", "a b@example.org");
        let failed = Err("a b@example.org is no address of a mailbox");
        check(good, &[good, good], Ok(2));
        check(good, &[good, bad, good], Ok(1));
        check(good, &[bad, good], failed);
        check("", &[good, good, bad], Ok(2));
        check(bad, &[good, good], failed);
    }
}
