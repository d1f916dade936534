//! MAIL and RCPT: who a message is from, and where it goes in the end.
//!
//! Every recipient is resolved to accounts and remote addresses when it is named, so that the
//! client hears of an unknown one at once. What changes until the message ends is found by the
//! delivery's transaction: an account that is gone, or full, by then is refused or reported.
//!
//! Invariant: an envelope's destinations are bounded by
//! [`limits::ENVELOPE_DESTINATIONS_MAX`] and [`limits::REMOTE_RECIPIENT_BYTES_MAX`]; what goes
//! beyond is refused with "too many recipients", and the client sends it on its own (RFC 5321
//! §4.5.3.1.10).

use std::collections::{BTreeMap, BTreeSet};

use kv::Transaction;
use mail::{
    AccountId, AccountUsage,
    directory::{self, Address, Expansion, ResolveError},
};
use smtp::{ForwardPath, MailFrom, Notify, NotifyOn, Permanence, RcptTo, Refusal, ReversePath};

use super::{
    address::{self, Canonical, POSTMASTER},
    errors, handling,
};
use crate::{
    auth::Identity,
    deliver::outbound::{Handling, RemoteRecipient},
    limits,
    services::Services,
    signing::Back,
};

/// A mail transaction.
pub(super) struct Envelope {
    pub(super) mail: MailFrom,
    /// What MAIL asked for, counted from then.
    pub(super) handling: Handling,
    /// The sender as the directory writes it; `None` for the null sender.
    pub(super) sender: Option<Address>,
    /// Who submits.
    pub(super) user: Option<AccountId>,
    paths: Vec<ForwardPath>,
    /// In RCPT's order, beside `paths`.
    pub(super) recipients: Vec<Recipient>,
    /// Where it goes elsewhere, each address once.
    pub(super) remote: BTreeMap<Address, RemoteRecipient>,
    /// The domain of the first address that sends mail from elsewhere on to elsewhere.
    pub(super) forwarder: Option<String>,
    remote_bytes: usize,
    destinations: usize,
}

/// An accepted recipient.
pub(super) struct Recipient {
    /// As the client wrote it.
    pub(super) text: String,
    /// The same as the directory writes it.
    pub(super) address: String,
    /// Its domain, the same way.
    pub(super) domain: String,
    pub(super) notify: Notify,
    /// The accounts that it leads to.
    pub(super) accounts: BTreeSet<AccountId>,
    /// How many addresses on other servers.
    pub(super) destinations_elsewhere: usize,
}

/// Where a recipient leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To who is named, or whom an alias names.
    On,
    /// To the sender of something that was forwarded.
    Back,
}

/// What the directory says of a recipient.
struct Found {
    expansion: Expansion,
    /// Of the account, where there is only one destination.
    usage: Option<AccountUsage>,
}

impl Envelope {
    /// MAIL.
    pub(super) async fn begin(
        services: &Services,
        user: Option<&Identity>,
        mail: MailFrom,
    ) -> Result<Self, Refusal> {
        let sender = match &mail.sender {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(sender(mailbox)?),
        };
        let user = user.map(|identity| identity.account);
        if let (Some(account), Some(sender)) = (user, &sender) {
            let owned = services
                .db_in_time
                .run(|tx| async move { directory::owns(&tx, account, sender).await })
                .await
                .map_err(|error| errors::store(&error))?;
            if !owned {
                return Err(Refusal::SenderNotOwned);
            }
        }
        Ok(Self {
            handling: handling::asked(&mail, services.env.wall()),
            mail,
            sender,
            user,
            paths: Vec::new(),
            recipients: Vec::new(),
            remote: BTreeMap::new(),
            forwarder: None,
            remote_bytes: 0,
            destinations: 0,
        })
    }

    /// RCPT. A refusal changes nothing.
    pub(super) async fn add(&mut self, services: &Services, rcpt: RcptTo) -> Result<(), Refusal> {
        let hostname = address::hostname(&services.config);
        let named = |path: &ForwardPath| match address::recipient(path, &hostname) {
            Canonical::Named(address) => Ok(address),
            Canonical::Literal => Err(Refusal::RelayDenied),
            Canonical::Unusable => Err(Refusal::UnknownRecipient),
        };
        let (rcpt, way) = self.way_back(services, rcpt).await?;
        let address = named(&rcpt.recipient)?;
        let (wanted, host) = (&address, hostname.as_str());
        let look_up = |tx| async move { look_up(&tx, wanted, host).await };
        let found = services.db_in_time.run(look_up).await;
        let found = match found {
            Ok(found) => found,
            Err(ResolveError::NotLocal(_)) if self.user.is_some() || way == Way::Back => Found {
                expansion: Expansion {
                    accounts: BTreeSet::new(),
                    remote: BTreeSet::from([address.to_string()]),
                },
                usage: None,
            },
            Err(error) => return Err(errors::resolve(&error)),
        };
        if let Some(usage) = &found.usage {
            check_quota(usage, self.mail.size)?;
        }
        if way == Way::On && self.user.is_none() && !found.expansion.remote.is_empty() {
            self.forwarder.get_or_insert_with(|| address.domain().to_owned());
        }
        self.accept(rcpt, &address, found.expansion)
    }

    /// A bounce to a sender that was rewritten goes to whoever stands behind it.
    async fn way_back(&self, services: &Services, rcpt: RcptTo) -> Result<(RcptTo, Way), Refusal> {
        let ForwardPath::Mailbox(mailbox) = &rcpt.recipient else { return Ok((rcpt, Way::On)) };
        let back = services.signing.back(&mailbox.to_string(), self.sender.as_ref()).await;
        match back.map_err(|error| errors::store(&error))? {
            Back::NotRewritten => Ok((rcpt, Way::On)),
            Back::To(original) => {
                let recipient = ForwardPath::parse(&format!("<{original}>"));
                let recipient = recipient.map_err(|_| Refusal::UnknownRecipient)?;
                Ok((RcptTo { recipient, ..rcpt }, Way::Back))
            }
            Back::Refused => Err(Refusal::UnknownRecipient),
            Back::TooMany => Err(Refusal::RateLimited),
        }
    }

    /// Whether anything of it leaves as a user's own.
    pub(super) fn may_be_signed(&self) -> bool {
        self.user.is_some() && !self.remote.is_empty()
    }

    fn accept(
        &mut self,
        rcpt: RcptTo,
        address: &Address,
        expansion: Expansion,
    ) -> Result<(), Refusal> {
        let destinations = expansion.accounts.len() + expansion.remote.len();
        let too_many = self.destinations + destinations > limits::ENVELOPE_DESTINATIONS_MAX;
        if too_many && !self.recipients.is_empty() {
            return Err(Refusal::TooManyRecipients);
        }
        let expansion = match self.handling.hold_until {
            None => expansion,
            // The directory has no such address: nobody would be found when the message leaves the queue.
            Some(_) if address.local() == POSTMASTER => return Err(Refusal::PolicyRejected),
            // Whoever it leads to then gets it.
            Some(_) => Expansion {
                accounts: BTreeSet::new(),
                remote: BTreeSet::from([address.to_string()]),
            },
        };
        let remote = remote_recipients(&rcpt, address, &expansion);
        let remote_bytes: usize = remote.iter().map(record_bytes).sum();
        if self.remote_bytes + remote_bytes > limits::REMOTE_RECIPIENT_BYTES_MAX {
            return Err(Refusal::TooManyRecipients);
        }
        self.destinations += destinations;
        self.remote_bytes += remote_bytes;
        for recipient in remote {
            self.remote.entry(recipient.address.clone()).or_insert(recipient);
        }
        let text = match &rcpt.recipient {
            ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
            ForwardPath::Postmaster => address.to_string(),
        };
        self.recipients.push(Recipient {
            text,
            address: address.to_string(),
            domain: address.domain().to_owned(),
            notify: rcpt.notify,
            accounts: expansion.accounts,
            destinations_elsewhere: expansion.remote.len(),
        });
        self.paths.push(rcpt.recipient);
        Ok(())
    }

    /// The recipients as the client named them.
    pub(super) fn paths(&self) -> &[ForwardPath] {
        &self.paths
    }
}

impl Recipient {
    /// Whether the sender wants to hear that it was delivered here (RFC 3461 §4.1). Not where
    /// it goes to several: one's success is not all's.
    pub(super) fn wants_success(&self) -> bool {
        let single = self.accounts.len() == 1 && self.destinations_elsewhere == 0;
        single && self.notify.success()
    }
}

/// The sender in the directory's form. One that is in no usable form could never be told of a
/// failure, so it is refused now.
fn sender(mailbox: &smtp::Address) -> Result<Address, Refusal> {
    match address::canonical(mailbox) {
        Canonical::Named(address) => Ok(address),
        Canonical::Literal => {
            Address::parse(&mailbox.to_string()).map_err(|_| Refusal::SenderDomainUnusable)
        }
        Canonical::Unusable => Err(Refusal::SenderDomainUnusable),
    }
}

async fn look_up(tx: &Transaction, address: &Address, host: &str) -> Result<Found, ResolveError> {
    let expansion = match directory::resolve(tx, address).await {
        Err(ResolveError::Unknown(_)) if address.local() == POSTMASTER => {
            postmaster(tx, address, host).await?
        }
        Err(ResolveError::NotLocal(_))
            if address.local() == POSTMASTER && address.domain() == host =>
        {
            postmaster(tx, address, host).await?
        }
        resolved => resolved?,
    };
    let usage = match expansion.accounts.first() {
        Some(account) if expansion.accounts.len() == 1 && expansion.remote.is_empty() => {
            Some(mail::usage(tx, *account).await?)
        }
        _ => None,
    };
    Ok(Found { expansion, usage })
}

/// RFC 5321 §4.5.1: mail to a postmaster reaches somebody. Where the domain has none of its own
/// it is the node's: that of its host name, of a domain above it, or of the first domain.
async fn postmaster(
    tx: &Transaction,
    address: &Address,
    host: &str,
) -> Result<Expansion, ResolveError> {
    let mut domains: Vec<String> = vec![host.to_owned()];
    let mut above = host;
    while let Some((_, parent)) = above.split_once('.') {
        domains.push(parent.to_owned());
        above = parent;
    }
    let first = directory::domains(tx, None, 1).await?;
    domains.extend(first.into_iter().map(|(name, _)| name));
    for domain in domains {
        let Ok(candidate) = Address::parse(&format!("{POSTMASTER}@{domain}")) else { continue };
        match directory::resolve(tx, &candidate).await {
            Err(ResolveError::NotLocal(_) | ResolveError::Unknown(_)) => {}
            resolved => return resolved,
        }
    }
    tracing::warn!(%address, "mail to a postmaster is refused: no domain here has one");
    Err(ResolveError::Unknown(address.clone()))
}

/// What is sure not to fit is refused before it is sent; the delivery has the last word.
fn check_quota(usage: &AccountUsage, declared: Option<u64>) -> Result<(), Refusal> {
    let size = declared.unwrap_or(0);
    match usage.quota_bytes {
        0 => Ok(()),
        quota if size > quota => Err(Refusal::MailboxFull(Permanence::Permanent)),
        quota if usage.bytes >= quota || usage.bytes.saturating_add(size) > quota => {
            Err(Refusal::MailboxFull(Permanence::Temporary))
        }
        _ => Ok(()),
    }
}

/// What the queue is told (RFC 3461 §5.2). Where an alias has several targets, the original
/// recipient is none of them, and a success of one is not a success of all.
fn remote_recipients(
    rcpt: &RcptTo,
    named: &Address,
    expansion: &Expansion,
) -> Vec<RemoteRecipient> {
    let is_single = expansion.remote.len() == 1 && expansion.accounts.is_empty();
    let (notify, original) = if is_single {
        (rcpt.notify, rcpt.orcpt.as_ref().map(ToString::to_string))
    } else {
        (without_success(rcpt.notify), None)
    };
    let parsed = expansion.remote.iter().filter_map(|text| Address::parse(text).ok());
    parsed
        .map(|address| RemoteRecipient {
            written: match &rcpt.recipient {
                ForwardPath::Mailbox(mailbox) if address == *named => {
                    format!("{}@{}", mailbox.local(), named.domain())
                }
                _ => address.to_string(),
            },
            address,
            notify: notify_text(notify),
            original: original.clone(),
        })
        .collect()
}

fn without_success(notify: Notify) -> Notify {
    match notify {
        Notify::On(NotifyOn { failure: false, delay: false, .. }) | Notify::Never => Notify::Never,
        Notify::On(on) => Notify::On(NotifyOn { success: false, ..on }),
        Notify::Default => Notify::Default,
    }
}

/// RFC 3461 §4.1, as it stands after `NOTIFY=`.
fn notify_text(notify: Notify) -> Option<String> {
    match notify {
        Notify::Default => None,
        Notify::Never => Some("NEVER".to_owned()),
        Notify::On(on) => {
            let cases = [(on.success, "SUCCESS"), (on.failure, "FAILURE"), (on.delay, "DELAY")];
            let named = cases.iter().filter(|(wanted, _)| *wanted).map(|(_, name)| *name);
            Some(named.collect::<Vec<_>>().join(","))
        }
    }
}

/// What a recipient takes in the queue's record, framing included.
fn record_bytes(recipient: &RemoteRecipient) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 4);
    recipient.written.len()
        + optional(&recipient.notify)
        + optional(&recipient.original)
        + limits::REMOTE_RECIPIENT_FRAMING_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_checked_before_the_message_is_sent() {
        let full = |p| Err(Refusal::MailboxFull(p));
        for (bytes, quota_bytes, declared, expected) in [
            (900, 0, Some(u64::MAX), Ok(())),
            (900, 1000, None, Ok(())),
            (900, 1000, Some(100), Ok(())),
            (900, 1000, Some(101), full(Permanence::Temporary)),
            (1000, 1000, None, full(Permanence::Temporary)),
            (0, 1000, Some(1001), full(Permanence::Permanent)),
        ] {
            let usage = AccountUsage { bytes, emails: 1, quota_bytes };
            assert_eq!(check_quota(&usage, declared), expected, "{usage:?} {declared:?}");
        }
    }

    #[test]
    fn an_alias_of_several_gets_no_promise_of_success() {
        let on = |success, failure, delay| Notify::On(NotifyOn { success, failure, delay });
        for (notify, single, several) in [
            (Notify::Default, None, None),
            (Notify::Never, Some("NEVER"), Some("NEVER")),
            (on(true, false, false), Some("SUCCESS"), Some("NEVER")),
            (on(true, true, true), Some("SUCCESS,FAILURE,DELAY"), Some("FAILURE,DELAY")),
        ] {
            assert_eq!(notify_text(notify).as_deref(), single);
            assert_eq!(notify_text(without_success(notify)).as_deref(), several);
        }
    }
}
