//! The end of a message: one delivery request, and what the client is told.
//!
//! SMTP has one reply for all recipients: where some fail and others do not, it is 250, and the
//! sender gets a report in the same transaction; where all fail it is the refusal. LMTP has a
//! reply for each.
//!
//! A message with more accounts than one transaction takes
//! ([`crate::limits::APPENDS_PER_TRANSACTION_MAX`]) is delivered in several, one after the other. Each
//! further one carries an append along that has been done: its operation id makes it a no-op,
//! and shows the deliverer that somebody is served, so that failures are reported. A failure of
//! the store between two of them is told as temporary, and the client's next try gives those
//! that were served a second copy: twice, not never.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use env::probe::{self, Planted};
use mail::{AccountId, OperationId, StoreError};
use smtp::{Permanence, QueueId, Refusal, Reply, Ret, Role};

use super::{
    address,
    envelope::{Envelope, Recipient},
    errors, handling,
    incoming::{Ended, Finished, Incoming},
    role,
};
use crate::{
    deliver::{
        Append, OnFailure, Reporting, Returned, Shares, Target,
        outbound::{Body, RemoteRecipient, ReturnContent, Submission},
    },
    judging::{self, Findings, received::Author},
    metrics::{Outcome, Protocol},
    services::Services,
    signing::Forgery,
};

/// What became of each account's copy.
type Results = BTreeMap<AccountId, Result<(), Refusal>>;

/// Ends a message: stores, delivers, counts and logs it.
pub(super) async fn finish(
    services: &Services,
    protocol: Protocol,
    envelope: Envelope,
    incoming: Incoming,
) -> Reply {
    let begun = services.env.monotonic();
    let sender = envelope.sender.as_ref().map_or_else(|| "<>".to_owned(), ToString::to_string);
    let recipients = envelope.recipients.len();
    let for_reports = protocol == Protocol::Smtp && is_for_reports(services, &envelope);
    let Ended { findings, message } = incoming.finish(services.env.wall()).await;
    let (reply, size, name) = match message {
        Err(refusal) => (Reply::Refused(refusal), 0, None),
        Ok(finished) => {
            let findings = findings.as_deref();
            let reply = deliver(services, role(protocol), envelope, &finished, findings).await;
            if for_reports && matches!(reply, Reply::MessageAccepted { .. }) {
                let author = Author::of(findings);
                services.received.offer(finished.blob, finished.email.size, author);
            }
            (reply, finished.email.size, Some(finished.name.queue_id()))
        }
    };
    let time = services.env.monotonic().saturating_since(begun);
    let outcome = outcome_of(&reply);
    services.metrics.message_received(protocol, outcome);
    if outcome == Outcome::Accepted {
        services.metrics.message_bytes(protocol, size);
        services.metrics.delivery_seconds(time);
    }
    // A message that only the store put off comes again, and is counted then.
    if let Some(findings) = &findings
        && (outcome == Outcome::Accepted || findings.decision.refusal.is_some())
    {
        judging::count(services, findings);
    }
    // Addresses are no content; without the sender's nobody finds a lost message.
    tracing::info!(
        id = name.as_ref().map_or("-", QueueId::as_str),
        sender,
        recipients,
        size,
        outcome = outcome.as_str(),
        verdicts = findings.as_ref().map(|found| tracing::field::display(found.summary())),
        refusal = first_refusal(&reply).map(tracing::field::display),
        ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        "message"
    );
    reply
}

/// Whether somebody who sends us reports is answered for.
fn is_for_reports(services: &Services, envelope: &Envelope) -> bool {
    let settings = services.settings.borrow();
    let wanted = &settings.judging.report_addresses;
    !wanted.is_empty() && envelope.recipients.iter().any(|it| wanted.contains(&it.address))
}

async fn deliver(
    services: &Services,
    role: Role,
    mut envelope: Envelope,
    finished: &Finished,
    findings: Option<&Findings>,
) -> Reply {
    let withheld = match withheld(services, &mut envelope, findings).await {
        Ok(withheld) => withheld,
        Err(refusal) => return Reply::Refused(refusal),
    };
    if let Some(refusal) = withheld
        && envelope.recipients.iter().all(|recipient| recipient.accounts.is_empty())
    {
        return Reply::Refused(refusal);
    }
    let none = BTreeSet::new();
    let junk = findings.map_or(&none, |findings| &findings.decision.junk);
    let outbound = match submission(services, &mut envelope, finished).await {
        Ok(outbound) => outbound,
        Err(error) => return Reply::Refused(errors::store(&error)),
    };
    let appends = appends(services, role, &envelope, finished, junk);
    let on_failure = on_failure(services, &envelope, finished);
    let shares = Shares::new(&appends, outbound, on_failure);
    let mut delivery = Delivery { served: Served::Nobody, results: Results::new(), queued: Ok(()) };
    let failed = delivery.run(services, shares).await;
    let id = finished.name.queue_id();
    match role {
        Role::Lmtp => Reply::Deliveries(
            envelope
                .recipients
                .iter()
                .map(|recipient| delivery.for_recipient(recipient).map(|()| id.clone()))
                .collect(),
        ),
        Role::Exchange | Role::Submission => match failed {
            Some(_) if probe::planted(Planted::AcceptUnstored) => Reply::MessageAccepted { id },
            Some(refusal) => Reply::Refused(refusal),
            None if let Some(refusal) = withheld => Reply::Refused(refusal),
            None if delivery.served == Served::Somebody => Reply::MessageAccepted { id },
            None => Reply::Refused(for_all(&delivery.results)),
        },
    }
}

/// Why the copies for elsewhere are not sent, which are taken out of the envelope then. The mailboxes here get
/// theirs, and the client is told the refusal: it tells the sender if there is one, whom we cannot believe.
async fn withheld(
    services: &Services,
    envelope: &mut Envelope,
    findings: Option<&Findings>,
) -> Result<Option<Refusal>, Refusal> {
    let (Some(findings), Some(domain)) = (findings, &envelope.forwarder) else { return Ok(None) };
    let forgery = services.signing.forgery(envelope.sender.as_ref(), domain, findings).await;
    match forgery.map_err(|error| errors::store(&error))? {
        Forgery::None => Ok(None),
        // Nobody gets it yet, so that nobody gets it twice.
        Forgery::Unknown => Err(Refusal::OriginUnknown),
        Forgery::Found => {
            envelope.remote.clear();
            Ok(Some(Refusal::PolicyRejected))
        }
    }
}

/// A message's delivery under way.
struct Delivery {
    served: Served,
    results: Results,
    /// What became of the copy for other servers.
    queued: Result<(), Refusal>,
}

/// Whether the message has reached anybody.
#[derive(Clone, PartialEq, Eq)]
enum Served {
    Nobody,
    Somebody,
}

impl Delivery {
    /// Returns why some destinations have no result of their own, if that is so.
    async fn run(&mut self, services: &Services, mut shares: Shares) -> Option<Refusal> {
        let mut failed = None;
        while let Some(share) = shares.next(&services.deliverer).await {
            let results = match share.results {
                Ok(results) => results,
                Err(error) => {
                    let refusal = errors::deliver(&error);
                    if share.has_outbound {
                        self.queued = Err(refusal);
                    }
                    let of_all = share.appends.iter().map(|it| (it.account, Err(refusal)));
                    self.results.extend(of_all);
                    failed = Some(refusal);
                    continue;
                }
            };
            if share.has_outbound || results.iter().any(Result::is_ok) {
                self.served = Served::Somebody;
            }
            for (append, result) in share.appends.iter().zip(results) {
                let result = result.map(drop).map_err(|refusal| errors::delivery(&refusal));
                self.results.insert(append.account, result);
            }
        }
        if self.served == Served::Somebody && shares.are_any_postponed() {
            // Only the queue took it, long before: nobody is left to carry the report along.
            failed.get_or_insert(for_all(&self.results));
        }
        failed
    }

    /// LMTP's reply for one recipient (RFC 2033 §4.2). Where some of its destinations took the
    /// message and a mailbox was full, that is told as permanent: the client reports it and does
    /// not send the message again to those that have it.
    fn for_recipient(&self, recipient: &Recipient) -> Result<(), Refusal> {
        let of_mine = || recipient.accounts.iter().filter_map(|account| self.results.get(account));
        let goes_elsewhere = recipient.destinations_elsewhere > 0;
        if goes_elsewhere {
            self.queued?;
        }
        let is_served = goes_elsewhere || of_mine().any(Result::is_ok);
        match of_mine().find_map(|result| result.err()) {
            None => Ok(()),
            Some(Refusal::MailboxFull(_)) if is_served => {
                Err(Refusal::MailboxFull(Permanence::Permanent))
            }
            Some(refusal) => Err(refusal),
        }
    }
}

/// One for each account, with the recipients that led there and want to be told. LMTP tells
/// failures in its replies.
fn appends(
    services: &Services,
    role: Role,
    envelope: &Envelope,
    finished: &Finished,
    junk: &BTreeSet<String>,
) -> Vec<Append> {
    let mut accounts: BTreeMap<AccountId, (Vec<String>, Vec<String>, Target)> = BTreeMap::new();
    for recipient in &envelope.recipients {
        for account in &recipient.accounts {
            let new = || (Vec::new(), Vec::new(), Target::Junk);
            let (failures, successes, target) = accounts.entry(*account).or_insert_with(new);
            if !junk.contains(&recipient.domain) {
                // One recipient whose domain takes it is enough.
                *target = Target::Inbox;
            }
            if role != Role::Lmtp && recipient.notify.failure() {
                push_distinct(failures, &recipient.text);
            }
            if recipient.wants_success() {
                push_distinct(successes, &recipient.text);
            }
        }
    }
    accounts
        .into_iter()
        .map(|(account, (recipients, tell_success, target))| Append {
            account,
            target,
            email: Arc::clone(&finished.email),
            operation: OperationId::random(&services.env),
            recipients,
            tell_success,
        })
        .collect()
}

fn push_distinct(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|held| held == text) {
        list.push(text.to_owned());
    }
}

/// What other servers get: signed where a user submits it, from a rewritten sender where an alias sends it on.
async fn submission(
    services: &Services,
    envelope: &mut Envelope,
    finished: &Finished,
) -> Result<Option<Submission>, StoreError> {
    if envelope.remote.is_empty() {
        return Ok(None);
    }
    let signing = &services.signing;
    let prepend = match (envelope.user, &finished.digest) {
        (Some(account), Some(digest)) => {
            signing.submitted(digest, account, envelope.sender.as_ref()).await?
        }
        _ => Vec::new(),
    };
    let mail = &envelope.mail;
    let sender = mail.sender.address().map(ToString::to_string).unwrap_or_default();
    let sender = match &envelope.forwarder {
        Some(domain) => signing.forwarded(&sender, domain).await?,
        None => sender,
    };
    // RFC 6531 §3.6: only what has such an address or header needs servers that know them.
    let is_ascii = |it: &RemoteRecipient| it.written.is_ascii();
    let needs_utf8 =
        finished.facts.has_8bit || !sender.is_ascii() || !envelope.remote.values().all(is_ascii);
    let utf8 = mail.charset == smtp::Charset::Utf8 && needs_utf8;
    Ok(Some(Submission {
        id: finished.name.0,
        blob: finished.blob,
        size: finished.email.size,
        skip: finished.skip,
        sender,
        account: envelope.user,
        received_at: services.env.wall(),
        envelope_id: mail.envid.as_ref().map(ToString::to_string),
        return_content: match mail.ret {
            None => ReturnContent::Unspecified,
            Some(Ret::Full) => ReturnContent::Full,
            Some(Ret::Headers) => ReturnContent::Headers,
        },
        body: match mail.body {
            smtp::Body::SevenBit => Body::SevenBit,
            smtp::Body::EightBitMime => Body::EightBitMime,
            smtp::Body::BinaryMime => Body::BinaryMime,
        }
        .needed(finished.facts.has_8bit),
        utf8,
        handling: handling::with_header(envelope.handling, finished.tls),
        prepend,
        recipients: std::mem::take(&mut envelope.remote).into_values().collect(),
    }))
}

/// RFC 5321 §4.5.5: a null sender is never answered.
fn on_failure(services: &Services, envelope: &Envelope, finished: &Finished) -> OnFailure {
    let handling = handling::with_header(envelope.handling, finished.tls);
    OnFailure::Report(envelope.sender.as_ref().map(|sender| Reporting {
        sender: sender.clone(),
        hostname: address::hostname(&services.config).to_string(),
        envelope_id: envelope.mail.envid.as_ref().map(ToString::to_string),
        arrived_at: services.env.wall(),
        returned: Returned::Header(finished.header.clone()),
        deliver_by: handling.deliver_by.map(|deadline| deadline.at),
        tls: handling.tls,
    }))
}

/// The one refusal for a message that nobody takes: a passing one, if there is any, so that the
/// client tries again.
fn for_all(results: &Results) -> Refusal {
    let refusals = || results.values().filter_map(|result| result.err());
    refusals()
        .find(|refusal| outcome(*refusal) == Outcome::Deferred)
        .or_else(|| refusals().next())
        .unwrap_or(Refusal::TemporaryFailure)
}

/// Whether a refusal is for good. Exhaustive, so that a new one is thought about.
pub(super) fn outcome(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::MailboxFull(Permanence::Temporary)
        | Refusal::AuthTemporary
        | Refusal::TooManyRecipients
        | Refusal::Greylisted
        | Refusal::RateLimited
        | Refusal::PolicyDeferred
        | Refusal::InsufficientStorage
        | Refusal::TemporaryFailure
        | Refusal::Overloaded
        | Refusal::OriginUnknown
        | Refusal::ShuttingDown => Outcome::Deferred,
        Refusal::MailboxFull(Permanence::Permanent)
        | Refusal::AuthFailed(_)
        | Refusal::AuthenticationRequired
        | Refusal::EncryptionRequired
        | Refusal::SenderNotOwned
        | Refusal::SenderDomainUnusable
        | Refusal::UnknownRecipient
        | Refusal::MailboxDisabled
        | Refusal::Utf8NotSupported
        | Refusal::MessageTooLarge
        | Refusal::RelayDenied
        | Refusal::PolicyRejected
        | Refusal::MessageMalformed
        | Refusal::RoutingLoop
        | Refusal::SpfFailed
        | Refusal::DkimFailed
        | Refusal::AuthorNotVouchedFor
        | Refusal::ReverseNameMissing => Outcome::Rejected,
    }
}

fn outcome_of(reply: &Reply) -> Outcome {
    match reply {
        Reply::Deliveries(results) if results.iter().any(Result::is_ok) => Outcome::Accepted,
        reply => first_refusal(reply).map_or(Outcome::Accepted, outcome),
    }
}

fn first_refusal(reply: &Reply) -> Option<Refusal> {
    match reply {
        Reply::Refused(refusal) => Some(*refusal),
        Reply::Deliveries(results) => {
            results.iter().find_map(|result| result.as_ref().err().copied())
        }
        Reply::Accepted
        | Reply::Challenge(_)
        | Reply::Authenticated
        | Reply::MessageAccepted { .. } => None,
    }
}
