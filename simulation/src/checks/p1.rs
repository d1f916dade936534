//! P1: every message acknowledged with 250 is in each recipient's mailbox once, or in the queue, or
//! its sender got a report; and no message is anywhere twice, whatever its sender was told.
//!
//! A message is known by its token, which is its subject. Strict for the recipients whose
//! mailboxes nobody but the delivery touches, and for those elsewhere; of the others it is told
//! only that no message reached one twice.

use std::collections::{BTreeMap, BTreeSet};

use blob::BlobId;
use cluster::work::{self, Kind};
use env::BoxFuture;
use kv::{RangeQuery, Transaction};
use mail::{
    AccountId,
    directory::{self, Address},
    keys,
    keys::directory::Target,
};
use node::deliver::outbound::{self, OutboundItem};
use prost::Message;

use super::remote;
use crate::{Check, DOMAIN, Fact, Property, Violation, What, World, workloads::KEEPERS};

/// Bytes of a report or a queued message that are looked at.
const LOOKED_AT_MAX: usize = 64 * 1024;

pub(super) struct Acknowledged;

impl Found {
    /// What other servers have.
    fn elsewhere(&mut self, facts: &[Fact]) {
        self.delivered = remote::deliveries(facts).into_keys().collect();
        let returned = facts.iter().filter_map(|fact| match &fact.what {
            What::Returned { text } => Some(text.clone()),
            _ => None,
        });
        self.reports.extend(returned);
    }
}

/// What a sender knows of one recipient's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// It was acknowledged.
    Made,
    /// It was not, or nobody knows.
    None,
}

/// Where messages are, by token and recipient.
#[derive(Default)]
struct Found {
    /// Different messages with the token in the recipient's mailboxes: copies that a client made
    /// are one.
    held: BTreeMap<(String, String), BTreeSet<Vec<u8>>>,
    /// Emails with the token.
    emails: BTreeMap<(String, String), usize>,
    /// In the queue.
    queued: BTreeMap<(String, String), usize>,
    /// At another server, however often.
    delivered: BTreeSet<(String, String)>,
    /// Texts of reports.
    reports: Vec<String>,
}

impl Check for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn property(&self) -> Property {
        Property::P1
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let promises = world.facts().with(promises);
            let recipients: BTreeSet<_> =
                promises.keys().map(|(_, recipient)| recipient.clone()).collect();
            match find(world, &recipients).await {
                Ok(mut found) => {
                    world.facts().with(|facts| found.elsewhere(facts));
                    judge(&promises, &found)
                }
                Err(error) => vec![Violation::new(Property::World, error)],
            }
        })
    }
}

fn promises(facts: &[Fact]) -> BTreeMap<(String, String), Promise> {
    let mut promises = BTreeMap::new();
    for fact in facts {
        match &fact.what {
            What::Sending { token, recipients } => {
                for recipient in recipients {
                    promises.entry((token.clone(), recipient.clone())).or_insert(Promise::None);
                }
            }
            What::Accepted { token, recipient, .. } => {
                promises.insert((token.clone(), recipient.clone()), Promise::Made);
            }
            _ => {}
        }
    }
    promises
}

fn is_keeper(recipient: &str) -> bool {
    recipient.starts_with(KEEPERS)
}

fn is_elsewhere(recipient: &str) -> bool {
    !recipient.ends_with(&format!("@{DOMAIN}"))
}

fn judge(promises: &BTreeMap<(String, String), Promise>, found: &Found) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut tell = |what: String| violations.push(Violation::new(Property::P1, what));
    for (copy, promise) in promises {
        let (token, recipient) = copy;
        let count = match (is_elsewhere(recipient), is_keeper(recipient)) {
            (true, _) => found.queued.get(copy).copied().unwrap_or(0),
            (false, true) => found.emails.get(copy).copied().unwrap_or(0),
            (false, false) => found.held.get(copy).map_or(0, BTreeSet::len),
        };
        if count > 1 {
            tell(format!("{recipient} has {token} {count} times"));
        }
        let is_strict = is_elsewhere(recipient) || is_keeper(recipient);
        let is_there = count > 0 || found.delivered.contains(copy);
        if !is_there && is_strict && *promise == Promise::Made {
            if found.reports.iter().any(|text| reports(text, token, recipient)) {
                env::sometimes!("a sender learned of a failed recipient");
            } else {
                tell(format!("{recipient} has no {token}, which was acknowledged"));
            }
        }
    }
    let of_keepers = found.emails.keys().filter(|(_, recipient)| is_keeper(recipient));
    for copy in of_keepers.filter(|copy| !promises.contains_key(*copy)) {
        // A report has a subject of its own.
        if copy.0.chars().all(|it| it.is_ascii_alphanumeric()) {
            tell(format!("{} has {}, which nobody sent there", copy.1, copy.0));
        }
    }
    violations
}

/// Whether a report says that this recipient did not get this message.
fn reports(text: &str, token: &str, recipient: &str) -> bool {
    text.contains(&format!("Final-Recipient: rfc822; {recipient}\r\n"))
        && text.contains(&format!("\r\nSubject: {token}\r\n"))
        && text.contains("Action: failed")
}

async fn find(world: &World, recipients: &BTreeSet<String>) -> Result<Found, String> {
    let mut found = Found::default();
    // First what is queued: the nodes go on, and what leaves the queue goes to a mailbox.
    queue(world, &mut found).await?;
    for recipient in recipients.iter().filter(|recipient| !is_elsewhere(recipient)) {
        let Some(account) = account(world, recipient).await? else {
            return Err(format!("{recipient} is no account"));
        };
        mailbox(world, account, recipient, &mut found).await?;
    }
    // Reports may reach those to whom nothing else was sent.
    let users = world.accounts().iter().map(|account| account.address.clone());
    for extra in users.chain([format!("{KEEPERS}reporter@{DOMAIN}")]) {
        if !recipients.contains(&extra)
            && let Some(account) = account(world, &extra).await?
        {
            mailbox(world, account, &extra, &mut found).await?;
        }
    }
    Ok(found)
}

async fn account(world: &World, recipient: &str) -> Result<Option<AccountId>, String> {
    let address = &Address::parse(recipient).map_err(|error| error.to_string())?;
    let look = |tx: Transaction| async move { directory::record(&tx, address).await };
    match world.db().run(look).await.map_err(|error| error.to_string())? {
        Some(Target::Account(id)) => Ok(Some(AccountId(id))),
        _ => Ok(None),
    }
}

async fn mailbox(
    world: &World,
    account: AccountId,
    recipient: &str,
    found: &mut Found,
) -> Result<(), String> {
    let (begin, end) = keys::email::meta_range(account);
    let query = RangeQuery::new(begin, end);
    let query = &query;
    let read = |tx: Transaction| async move { tx.range(query.clone()).collect().await };
    for row in world.db().run(read).await.map_err(|error: kv::Error| error.to_string())? {
        let meta = keys::email::EmailMeta::decode(&row.value[..]).map_err(|it| it.to_string())?;
        let subject = meta.envelope.and_then(|it| it.subject).unwrap_or_default();
        if subject.starts_with("Your message could not") {
            found.reports.push(text(world, &meta.blob, meta.size).await?);
        }
        let copy = (subject, recipient.to_owned());
        *found.emails.entry(copy.clone()).or_default() += 1;
        found.held.entry(copy).or_default().insert(meta.blob);
    }
    Ok(())
}

/// What is queued, and for whom.
async fn queue(world: &World, found: &mut Found) -> Result<(), String> {
    // In one transaction, since an item's end may end its submission too.
    let look = |tx: Transaction| async move {
        let (begin, end) = outbound::submission_range();
        let submissions = tx.range(RangeQuery::new(begin, end)).collect().await?;
        let (begin, end) = work::item_range(Kind::Outbound);
        let items = tx.range(RangeQuery::new(begin, end)).collect().await?;
        Ok::<_, kv::Error>((submissions, items))
    };
    let (submissions, items) = world.db().run(look).await.map_err(|error| error.to_string())?;
    let mut tokens: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for row in submissions {
        let id = outbound::submission_of(&row.key).ok_or("a bad key")?;
        let record =
            outbound::SubmissionRecord::decode(&row.value[..]).map_err(|it| it.to_string())?;
        let text = text(world, &record.blob, record.size).await?;
        if record.sender.is_empty() {
            found.reports.push(text);
        } else {
            tokens.insert(id.to_vec(), subject(&text).to_owned());
        }
    }
    for row in items {
        let item = OutboundItem::decode(&row.value[..]).map_err(|error| error.to_string())?;
        let Some(token) = tokens.get(&item.submission) else { continue };
        for recipient in item.recipients {
            *found.queued.entry((token.clone(), recipient.address)).or_default() += 1;
        }
    }
    Ok(())
}

fn subject(text: &str) -> &str {
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_default().trim_end()
}

async fn text(world: &World, blob: &[u8], size: u64) -> Result<String, String> {
    let blob = BlobId::from_slice(blob).ok_or("no blob's id")?;
    let range = 0..size.min(LOOKED_AT_MAX as u64);
    let bytes = world.blobs().read_to_vec(blob, range, LOOKED_AT_MAX).await;
    Ok(String::from_utf8_lossy(&bytes.map_err(|error| error.to_string())?).into_owned())
}
