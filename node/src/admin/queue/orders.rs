//! What administrators want done with messages: it is written down for the nodes that have them.

use cluster::work::{Kind, census, orders::Given};
use kv::Transaction;
use mail::StoreError;
use serde::{Deserialize, Serialize};

use super::{Row, Walk, domain_name, first_due, parse_id};
use crate::{
    admin::{Admin, AdminError},
    deliver::outbound::{self, HELD_ALONE, SubmissionRecord},
    hex::hex,
    limits::{
        QUEUE_DOMAINS_TOLD_MAX, QUEUE_HELD_DOMAINS_ROWS, QUEUE_ORDERS_PER_REQUEST,
        QUEUE_ORDERS_PER_TRANSACTION,
    },
    outbound::{
        domain,
        orders::{self, Action},
    },
};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueAction {
    /// Tried at once, with what is not held.
    Retry,
    /// Kept, and neither tried nor given up, until it is released.
    Hold,
    /// Tried at once, after a hold.
    Release,
    /// Taken out, and nobody is told.
    Cancel,
    /// Taken out, and the sender gets it back.
    CancelAndNotify,
}

impl QueueAction {
    fn action(self) -> Action {
        match self {
            Self::Retry => Action::Retry,
            Self::Hold => Action::Hold,
            Self::Release => Action::Release,
            Self::Cancel => Action::Cancel,
            Self::CancelAndNotify => Action::CancelTelling,
        }
    }

    /// Whether it changes anything about a message. What waits for its sender's time is released by
    /// its id alone.
    fn concerns(self, row: &Row) -> bool {
        match self {
            Self::Retry => row.message.held == 0,
            Self::Hold => row.message.held != HELD_ALONE,
            Self::Release => row.message.held != 0,
            Self::Cancel | Self::CancelAndNotify => true,
        }
    }
}

/// Messages that have something in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// As [`QueueQuery::domain`](super::QueueQuery::domain).
    pub domain: Option<String>,
    /// As [`QueueQuery::sender`](super::QueueQuery::sender).
    pub sender: Option<String>,
    /// As [`QueueQuery::older_than_seconds`](super::QueueQuery::older_than_seconds).
    pub older_than_seconds: Option<u64>,
}

/// Which messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// These, to all their domains.
    Messages(Vec<String>),
    /// A domain: all that is there, and to hold it, what comes later too.
    Domain(String),
    /// Those that are there and match.
    Matching(Filter),
    /// All that are there.
    All,
}

/// A request to do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// What.
    pub action: QueueAction,
    /// With which messages.
    pub selection: Selection,
    /// An earlier answer's [`Ordered::next`]; absent at first.
    #[serde(default)]
    pub after: Option<String>,
}

/// What was ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Messages, each once for each of its domains.
    pub messages: u64,
    /// Whole domains.
    pub domains: u64,
    /// Ask again with this: there is more.
    pub next: Option<String>,
}

/// Gives the orders that a request asks for, or some and says where to go on.
///
/// # Errors
/// [`AdminError::NoMessage`], and nothing is ordered; [`AdminError::Name`], [`AdminError::Page`],
/// [`AdminError::ManyMessages`].
pub async fn order(admin: &Admin, request: &OrderRequest) -> Result<Ordered, AdminError> {
    let (action, after) = (request.action, request.after.as_deref());
    match (&request.selection, action) {
        (Selection::Messages(ids), _) => of_messages(admin, action, ids).await,
        (Selection::Domain(domain), _) => {
            let domain = domain_name(domain)?;
            let domains = of_domains(admin, action, &[domain]).await?;
            Ok(Ordered { domains, ..Ordered::default() })
        }
        (Selection::Matching(filter), _) => matching(admin, action, filter, after).await,
        (Selection::All, QueueAction::Hold) => {
            matching(admin, action, &Filter::default(), after).await
        }
        (Selection::All, QueueAction::Release) => {
            let domains = match after {
                None => of_domains(admin, action, &held_domains(admin).await?).await?,
                Some(_) => 0,
            };
            let messages = matching(admin, action, &Filter::default(), after).await?;
            Ok(Ordered { domains, ..messages })
        }
        (Selection::All, _) => everywhere(admin, action, after).await,
    }
}

async fn of_messages(
    admin: &Admin,
    action: QueueAction,
    ids: &[String],
) -> Result<Ordered, AdminError> {
    if ids.len() > QUEUE_ORDERS_PER_REQUEST {
        return Err(AdminError::ManyMessages);
    }
    let mut found = Vec::with_capacity(ids.len());
    for text in ids {
        let id = parse_id(text)?;
        let id_here = &id;
        let read = |tx| async move { outbound::submission(&tx, id_here).await };
        let record = admin.db.run(read).await?;
        found.push((id, record.ok_or_else(|| AdminError::NoMessage(text.clone()))?));
    }
    let mut ordered = Ordered::default();
    for (id, record) in found {
        let domains = domains_of(admin, &id, &record).await?;
        let seen_due_ms = first_due(&record).unix_ms();
        for some in domains.chunks(QUEUE_ORDERS_PER_TRANSACTION) {
            let (id, now) = (&id, admin.env.wall());
            let give = |tx: Transaction| async move {
                let mut given = 0;
                for domain in some {
                    let action = action.action();
                    let one = orders::give(&tx, domain, id, action, seen_due_ms, now).await?;
                    given += u64::from(one == Given::Yes);
                }
                Ok::<_, StoreError>(given)
            };
            ordered.messages += admin.db.run(give).await?;
        }
        told(action, &format!("message {}", hex(&id)));
    }
    Ok(ordered)
}

/// The domains that a message may still be in.
async fn domains_of(
    admin: &Admin,
    id: &[u8; 16],
    record: &SubmissionRecord,
) -> Result<Vec<String>, AdminError> {
    if !record.domains.is_empty() {
        return Ok(record.domains.clone());
    }
    let found = super::find(admin, *id).await?;
    Ok(found.shares.into_iter().map(|(domain, ..)| domain).collect())
}

/// Orders about whole domains; returns for how many there was anything to order.
async fn of_domains(
    admin: &Admin,
    action: QueueAction,
    domains: &[String],
) -> Result<u64, AdminError> {
    let mut ordered = 0;
    for some in domains.chunks(QUEUE_ORDERS_PER_TRANSACTION) {
        let now = admin.env.wall();
        let give = |tx: Transaction| async move {
            let mut given = 0;
            for domain in some {
                let one = orders::give_domain(&tx, domain, action.action(), now).await?;
                // A release is something even where nothing waits.
                let counts = one == Given::Yes || action == QueueAction::Release;
                given += u64::from(counts);
            }
            Ok::<_, StoreError>(given)
        };
        ordered += admin.db.run(give).await?;
    }
    match domains {
        [domain] => told(action, &format!("domain {domain}")),
        some => told(action, &format!("{} domains", some.len())),
    }
    Ok(ordered)
}

async fn matching(
    admin: &Admin,
    action: QueueAction,
    filter: &Filter,
    after: Option<&str>,
) -> Result<Ordered, AdminError> {
    let mut walk = Walk::new(admin, filter, after)?;
    let mut ordered = Ordered::default();
    let mut asked = 0;
    loop {
        let mut some = Vec::new();
        while some.len() < QUEUE_ORDERS_PER_TRANSACTION {
            match walk.next().await? {
                Some(row) if action.concerns(&row) => some.push(row),
                Some(_) => {}
                None => break,
            }
        }
        if some.is_empty() {
            break;
        }
        asked += some.len();
        let (rows, now) = (&some, admin.env.wall());
        let give = |tx: Transaction| async move {
            let mut given = 0;
            for Row { domain, item, .. } in rows {
                let (action, due_ms) = (action.action(), item.due.unix_ms());
                let one = orders::give(&tx, domain, &item.id, action, due_ms, now).await?;
                given += u64::from(one == Given::Yes);
            }
            Ok::<_, StoreError>(given)
        };
        ordered.messages += admin.db.run(give).await?;
        if asked >= QUEUE_ORDERS_PER_REQUEST {
            break;
        }
    }
    ordered.next = walk.position();
    told(action, &format!("{} messages that match", ordered.messages));
    Ok(ordered)
}

/// Orders about every domain that has something in the queue.
async fn everywhere(
    admin: &Admin,
    action: QueueAction,
    after: Option<&str>,
) -> Result<Ordered, AdminError> {
    let from = after.map(|after| census::behind_zone(Kind::Outbound, after));
    let from = from.as_deref();
    let read = |tx| async move { census::zones(&tx, Kind::Outbound, from).await };
    let mut zones: Vec<String> =
        admin.db.run(read).await?.rows.into_iter().map(|(zone, _)| zone).collect();
    zones.truncate(QUEUE_ORDERS_PER_REQUEST);
    let domains = of_domains(admin, action, &zones).await?;
    // Pages of the store are cut by bytes, so a short one need not be the last: an empty one is.
    Ok(Ordered { messages: 0, domains, next: zones.pop() })
}

/// Domains that are held, at most [`QUEUE_DOMAINS_TOLD_MAX`].
pub(super) async fn held_domains(admin: &Admin) -> Result<Vec<String>, AdminError> {
    let (mut held, mut from, mut rows) = (Vec::new(), None::<Vec<u8>>, 0);
    while rows < QUEUE_HELD_DOMAINS_ROWS && held.len() < QUEUE_DOMAINS_TOLD_MAX {
        let begin = from.as_deref();
        let read = |tx| async move { domain::some(&tx, begin, QUEUE_DOMAINS_TOLD_MAX).await };
        let (some, next) = admin.db.run(read).await?;
        rows += some.len();
        held.extend(some.into_iter().filter(|(_, it)| it.held_ms != 0).map(|(domain, _)| domain));
        match next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    held.truncate(QUEUE_DOMAINS_TOLD_MAX);
    Ok(held)
}

fn told(action: QueueAction, about: &str) {
    tracing::info!(?action, about, "the queue was given an order");
}
