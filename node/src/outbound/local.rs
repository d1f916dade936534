//! Mail in the queue for a domain that is served here: what its sender had held back (RFC 4865), and what
//! waited for a domain that came to us meanwhile.
//!
//! A recipient is looked up when the message leaves the queue, as if it came then. Its copies have bytes of
//! their own, because those of the queue may be older than a mailbox may adopt.
//!
//! Invariant: what a recipient gets follows from the submission by id, so a node that takes over after a
//! crash delivers nothing twice within the life of an operation's id.

use std::sync::Arc;

use mail::{
    AccountId, KeywordSet, NewEmail, OperationId, StoreError,
    directory::{self, Address, Expansion, ResolveError},
};
use smtp::Notify;

use super::{
    attempt::{Reports, Verdict},
    conclude::{self, Task},
    lane::Lane,
};
use crate::deliver::{
    Append, DeliverError, OnFailure, Refusal, Reporting, Shares, Target, Trouble,
    outbound::{Handling, OutboundRecipient, RemoteRecipient, Submission},
};

/// A message that is to be delivered here, and who hears of it.
struct Letter {
    email: Arc<NewEmail>,
    reporting: Option<Reporting>,
}

/// Whether a recipient's message has reached anybody.
enum Served {
    Somebody,
    Nobody(Refusal),
}

impl Lane<'_> {
    /// One verdict for each recipient.
    pub(super) async fn deliver_here(&self, task: &Task) -> Vec<Verdict> {
        let recipients = &task.item.recipients;
        let letter = match self.letter(task).await {
            Ok(letter) => letter,
            Err(reason) => {
                return vec![Verdict::Deferred(Trouble::new("4.3.0", reason)); recipients.len()];
            }
        };
        let mut verdicts = Vec::with_capacity(recipients.len());
        for recipient in recipients {
            verdicts.push(self.deliver_to(task, &letter, recipient).await);
        }
        verdicts
    }

    async fn letter(&self, task: &Task) -> Result<Letter, String> {
        let email = self.copy(task).await;
        let email = email.map_err(|error| format!("the message cannot be read: {error}"))?;
        let reporting = conclude::reporting(self.parts(), task, &[]).await?;
        Ok(Letter { email: Arc::new(email), reporting })
    }

    /// Puts the message's bytes again.
    async fn copy(&self, task: &Task) -> Result<NewEmail, blob::BlobError> {
        let (blobs, env) = (&self.parts().blobs, &self.parts().env);
        let mut from = blobs.read(task.blob, 0..u64::MAX).await?;
        let mut writer = blobs.writer();
        let mut scanner = message::Scanner::new(message::Limits::default());
        while let Some(piece) = from.next().await? {
            scanner.push(&piece);
            writer.write(&piece).await?;
        }
        let blob = writer.finish().await?;
        Ok(NewEmail::from_scan(blob, &scanner.finish(), env.wall(), KeywordSet::default()))
    }

    async fn deliver_to(
        &self,
        task: &Task,
        letter: &Letter,
        recipient: &OutboundRecipient,
    ) -> Verdict {
        let Ok(address) = Address::parse(&recipient.address) else {
            let words = format!("{} is no address", recipient.address);
            return Verdict::Failed(Trouble::new("5.1.3", words));
        };
        let wanted = &address;
        let resolved =
            self.parts().db.run(|tx| async move { directory::resolve(&tx, wanted).await }).await;
        let expansion = match resolved {
            Ok(expansion) => expansion,
            Err(error) => return unresolved(&error),
        };
        let notify = recipient.notify.as_deref().and_then(Notify::parse).unwrap_or_default();
        let outbound = match self.passed_on(task, &letter.email, recipient, &expansion).await {
            Ok(outbound) => outbound,
            Err(error) => return Verdict::Deferred(Trouble::new("4.3.0", error.to_string())),
        };
        let appends = appends(task, &letter.email, recipient, notify, &expansion);
        match self.submit(&appends, outbound, letter).await {
            Ok(Served::Somebody) => {
                Verdict::Taken { remote: self.parts().hostname.clone(), reports: Reports::Yes }
            }
            Ok(Served::Nobody(refusal)) => refused(&refusal),
            // What was done of it is found done by the next try.
            Err(error) => Verdict::Deferred(Trouble::new("4.3.0", undelivered(&error))),
        }
    }

    /// Delivers to any number of accounts.
    async fn submit(
        &self,
        appends: &[Append],
        outbound: Option<Submission>,
        letter: &Letter,
    ) -> Result<Served, DeliverError> {
        let on_failure = OnFailure::Report(letter.reporting.clone());
        let mut shares = Shares::new(appends, outbound, on_failure);
        let mut refusal = None;
        while let Some(share) = shares.next(&self.parts().deliverer).await {
            let refused = share.results?.into_iter().find_map(Result::err);
            refusal = refusal.or(refused);
        }
        match refusal {
            Some(refusal) if shares.are_any_postponed() => Ok(Served::Nobody(refusal)),
            _ => Ok(Served::Somebody),
        }
    }

    /// What an alias or a group sends on to other servers.
    async fn passed_on(
        &self,
        task: &Task,
        email: &NewEmail,
        recipient: &OutboundRecipient,
        expansion: &Expansion,
    ) -> Result<Option<Submission>, StoreError> {
        let record = &task.record;
        let is_single = expansion.remote.len() == 1 && expansion.accounts.is_empty();
        let named = |it: &Option<String>| it.clone().filter(|_| is_single);
        let recipients: Vec<_> = expansion
            .remote
            .iter()
            .filter_map(|text| Address::parse(text).ok())
            .map(|address| RemoteRecipient {
                written: address.to_string(),
                address,
                // A success of one is not a success of all (RFC 3461 §5.2.7).
                notify: named(&recipient.notify).or_else(|| never(recipient)),
                original: named(&recipient.original),
            })
            .collect();
        if recipients.is_empty() {
            return Ok(None);
        }
        let signing = &self.parts().signing;
        // What came from elsewhere is a forward.
        let sender = match record.account {
            0 => signing.forwarded(&record.sender, &self.held().zone).await?,
            _ => record.sender.clone(),
        };
        Ok(Some(Submission {
            id: derived(task, "s", &recipient.address),
            blob: email.blob,
            size: email.size,
            skip: record.skip,
            sender,
            account: (record.account != 0).then_some(AccountId(record.account)),
            received_at: self.parts().env.wall(),
            envelope_id: record.envelope_id.clone(),
            return_content: record.returns(),
            body: record.body(),
            utf8: record.utf8,
            handling: Handling { tls: record.tls(), ..Handling::default() },
            prepend: record.prepend.clone(),
            recipients,
        }))
    }
}

/// NOTIFY for destinations of which the sender wants to hear nothing that is only theirs.
fn never(recipient: &OutboundRecipient) -> Option<String> {
    let notify = recipient.notify.as_deref().and_then(Notify::parse).unwrap_or_default();
    let wants_none = !notify.failure() && !notify.delay();
    wants_none.then(|| "NEVER".to_owned())
}

fn appends(
    task: &Task,
    email: &Arc<NewEmail>,
    recipient: &OutboundRecipient,
    notify: Notify,
    expansion: &Expansion,
) -> Vec<Append> {
    let told = |wanted: bool| wanted.then(|| recipient.address.clone()).into_iter().collect();
    // One's success is not all's.
    let is_single = expansion.accounts.len() == 1 && expansion.remote.is_empty();
    let of = |account: &AccountId| Append {
        account: *account,
        target: Target::Inbox,
        email: Arc::clone(email),
        // One copy, however many recipients lead there.
        operation: OperationId::of(derived(task, "a", &account.0.to_string())),
        recipients: told(notify.failure()),
        tell_success: told(is_single && notify.success()),
    };
    expansion.accounts.iter().map(of).collect()
}

/// Sixteen bytes that are the same whenever the same is done.
fn derived(task: &Task, kind: &str, of: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&task.id);
    hasher.update(kind.as_bytes()).update(of.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    id
}

fn unresolved(error: &ResolveError) -> Verdict {
    match error {
        ResolveError::Unknown(_) => Verdict::Failed(Trouble::new("5.1.1", error.to_string())),
        // An administrator can mend the alias, or give the domain back, before the message is given up.
        ResolveError::TooMany(_) | ResolveError::NotLocal(_) => {
            Verdict::Deferred(Trouble::new("4.3.5", error.to_string()))
        }
        ResolveError::Store(_) => {
            Verdict::Deferred(Trouble::new("4.3.0", "the store cannot be read"))
        }
    }
}

fn refused(refusal: &Refusal) -> Verdict {
    let words = refusal.to_string();
    match refusal {
        // The owner may make room before the message is given up.
        Refusal::OverQuota => Verdict::Deferred(Trouble::new("4.2.2", words)),
        Refusal::NoMailbox | Refusal::LargerThanQuota | Refusal::TooManyKeywords => {
            Verdict::Failed(Trouble::new(refusal.status(), words))
        }
    }
}

fn undelivered(error: &DeliverError) -> &'static str {
    match error {
        DeliverError::Store(_) => "the store does not take it now",
        DeliverError::Blob(_) => "a report cannot be written now",
        DeliverError::Stopping => "the node is stopping",
    }
}
