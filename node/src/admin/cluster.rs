//! Many nodes as one: who is there and how they are, what there is to do, who is connected, and
//! what is wrong.
//!
//! Everything but the sessions is read from the store, so any node tells of all, and so does the
//! command line where no node runs. Sessions are asked for node by node, through a [`Fleet`].
//!
//! Invariants:
//! - No transaction reads a range without a bound; a count that was not finished says so.
//! - Looking never conflicts with the work, nor wakes anybody.
//! - Wall clocks are compared for people alone; nothing is decided by them.

mod certificates;
mod doctor;
mod fleet;
mod health;
mod logs;
mod sessions;
mod settings;
mod work;

use std::collections::BTreeMap;

use blob::BlobStore;
use cluster::{
    Epoch, NodeName,
    membership::{
        registry::{self, Activity, End, Forgotten, NameRecord, Registered, Wished},
        roll,
    },
};
use env::Timestamp;
use kv::Transaction;
use serde::{Deserialize, Serialize};

pub use certificates::{
    AddedCertificate, CertificateInfo, CertificateState, NewCertificate, add_certificate,
    certificates, remove_certificate,
};
pub use cluster::membership::registry::Wish;
pub use doctor::{Finding, Report, Severity, doctor};
pub(crate) use fleet::{Answering, Wired};
pub use health::{Health, Probe};
pub use logs::{Following, LogEvent, LogFeed, LogRequest, OwnFeed, next_event};
pub use sessions::{
    EndedSession, Fleet, NotReached, Nowhere, OwnNode, SessionFilter, SessionInfo, SessionPage,
    SessionQuery, Unanswered, end_session, list_sessions,
};
pub use settings::{SettingChange, SettingInfo, change_setting, setting_history, settings};
pub(super) use work::node_names;
pub use work::{
    ClaimedBy, Counted, FailingItem, ItemInfo, WorkInfo, WorkLag, ZoneInfo, items, kinds, lags,
    zones,
};

use super::{Admin, AdminError, Page, PageQuery};
use crate::limits::{STATUS_NODES_MAX, WORK_LATE};

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It serves.
    Up,
    /// It binds its ports.
    Starting,
    /// It says goodbye.
    Draining,
    /// It runs, and stands aside because it was told to.
    Drained,
    /// It is registered, and by the clocks its last heartbeat is older than it may be: it is dead
    /// and nobody has declared it so, or clocks differ.
    Silent,
    /// Its heartbeat stood still, and it was declared dead.
    Dead,
    /// It ended in order.
    Left,
}

impl NodeState {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Silent => "silent",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }

    /// Whether the node needs somebody to look after it.
    pub fn is_wrong(self) -> bool {
        matches!(self, Self::Silent | Self::Dead)
    }
}

/// A node, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: NodeState,
    /// The release that it runs, or ran last.
    pub release: String,
    /// Its present life, or its last one.
    pub epoch: u64,
    /// When it registered, by its own clock, milliseconds since 1970; `None` where it is not
    /// registered.
    pub since_ms: Option<i64>,
    /// When its life ended, by the clock of whoever ended it; `None` where it is registered.
    pub ended_ms: Option<i64>,
    /// How long ago its last heartbeat was, by the clocks; `None` where it is not registered or
    /// does not say.
    pub beat_age_ms: Option<i64>,
    /// Sessions that it serves.
    pub sessions: u64,
    /// Zones of work that it has claimed.
    pub claims: u64,
    /// Where other nodes reach it; empty where they do not.
    pub address: String,
    /// Where its administration listens; empty where it does not.
    pub admin_address: String,
    /// Whether administrators want it to stand aside.
    pub drain: bool,
}

impl NodeInfo {
    fn new(
        name: &NodeName,
        record: NameRecord,
        registered: Option<&Registered>,
        now: Timestamp,
    ) -> Self {
        let gone = || match record.end() {
            End::Died => NodeState::Dead,
            End::Left | End::Superseded => NodeState::Left,
        };
        let beat_age_ms = registered
            .filter(|it| it.beat.wall_ms != 0)
            .map(|it| now.unix_ms().saturating_sub(it.beat.wall_ms));
        let it = registered.map(|it| &it.record);
        Self {
            name: name.to_string(),
            state: registered.map_or_else(gone, |it| state(it, beat_age_ms)),
            epoch: record.epoch,
            since_ms: it.map(|it| it.since_ms),
            ended_ms: it.is_none().then_some(record.ended_ms),
            beat_age_ms,
            sessions: registered.map_or(0, |it| it.beat.sessions),
            claims: registered.map_or(0, |it| it.beat.claims),
            address: it.map(|it| it.address.clone()).unwrap_or_default(),
            admin_address: it.map(|it| it.admin_address.clone()).unwrap_or_default(),
            drain: record.drain,
            release: record.release,
        }
    }
}

fn state(node: &Registered, beat_age_ms: Option<i64>) -> NodeState {
    let time_to_live_ms = i64::try_from(node.beat.time_to_live_ms).unwrap_or(i64::MAX);
    if beat_age_ms.is_some_and(|age| age > time_to_live_ms) {
        return NodeState::Silent;
    }
    match node.beat.activity() {
        Activity::Starting => NodeState::Starting,
        Activity::Serving => NodeState::Up,
        Activity::Draining => NodeState::Draining,
        Activity::Drained => NodeState::Drained,
    }
}

/// One page of the nodes, by name: those that are registered, and those that were and are not
/// forgotten.
///
/// # Errors
/// [`AdminError::Unavailable`], [`AdminError::NodeName`] for the page's token.
pub async fn nodes(admin: &Admin, query: &PageQuery) -> Result<Page<NodeInfo>, AdminError> {
    let after = query.after.as_deref().map(NodeName::parse).transpose()?;
    let (rows, after, now) = (query.rows(), after.as_ref(), admin.env.wall());
    let read = |tx: Transaction| async move {
        let names = roll::names(&tx, after, rows).await?;
        Ok::<_, AdminError>((names, registry::registered(&tx).await?))
    };
    let (names, registered) = admin.db.run(read).await?;
    let registered: BTreeMap<Epoch, Registered> = registered.into_iter().collect();
    let next = names.last().map(|(name, _)| name.to_string());
    let items: Vec<_> = names
        .into_iter()
        .map(|(name, record)| {
            let epoch = Epoch(record.epoch);
            NodeInfo::new(&name, record, registered.get(&epoch), now)
        })
        .collect();
    let next = next.filter(|_| items.len() == rows);
    Ok(Page { items, next })
}

/// One node.
///
/// # Errors
/// [`AdminError::NoNode`], [`AdminError::NodeName`].
pub async fn node(admin: &Admin, name: &str) -> Result<NodeInfo, AdminError> {
    let name = &NodeName::parse(name)?;
    let now = admin.env.wall();
    let read = |tx: Transaction| async move {
        let Some(record) = registry::name(&tx, name).await? else {
            return Err(AdminError::NoNode(name.to_string()));
        };
        let registered = registry::registered(&tx).await?;
        let epoch = Epoch(record.epoch);
        let registered = registered.iter().find(|(held, _)| *held == epoch).map(|(_, it)| it);
        Ok(NodeInfo::new(name, record, registered, now))
    };
    admin.db.run(read).await
}

/// Notes what an administrator wants of a node: it acts on it within its next heartbeat, and again
/// whenever it starts.
///
/// # Errors
/// [`AdminError::NoNode`], [`AdminError::NodeName`].
pub async fn wish(admin: &Admin, name: &str, wish: Wish) -> Result<NodeInfo, AdminError> {
    let parsed = &NodeName::parse(name)?;
    let noted = admin.db.run(|tx| async move { registry::wish(&tx, parsed, wish).await }).await?;
    match noted {
        Wished::Noted => node(admin, name).await,
        Wished::Unknown => Err(AdminError::NoNode(parsed.to_string())),
    }
}

/// Forgets a node that does not run. If it is started again it is a new one.
///
/// # Errors
/// [`AdminError::NoNode`], [`AdminError::NodeRuns`], [`AdminError::NodeName`].
pub async fn forget(admin: &Admin, name: &str) -> Result<(), AdminError> {
    let name = &NodeName::parse(name)?;
    admin
        .run(async |tx, run| {
            let forgotten = match registry::forget(&tx, name).await? {
                Forgotten::Yes => Ok(()),
                Forgotten::Unknown => Err(AdminError::NoNode(name.to_string())),
                Forgotten::Registered => Err(AdminError::NodeRuns(name.to_string())),
            };
            run.settle(forgotten, |error| matches!(error, AdminError::NoNode(_)))
        })
        .await
}

/// How all is, at one glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When, by the clock of who looked, milliseconds since 1970.
    pub at_ms: i64,
    /// The epoch of the node that looked; `None` where the command line did.
    pub asked: Option<u64>,
    /// The nodes, at most [`STATUS_NODES_MAX`].
    pub nodes: Vec<NodeInfo>,
    /// Whether there are more.
    pub more_nodes: bool,
    /// How store and blobs answer.
    pub health: Health,
    /// How far behind each kind of work is.
    pub work: Vec<WorkLag>,
    /// What is wrong, in words; the doctor says more.
    pub problems: Vec<String>,
}

/// How all is. What cannot be seen is a problem and no error.
///
/// # Errors
/// [`AdminError::Internal`] for records that cannot be read.
pub async fn status(
    admin: &Admin,
    blobs: Option<&BlobStore>,
    asked: Option<Epoch>,
) -> Result<Status, AdminError> {
    let health = health::probe(admin, blobs, health::Care::Once).await;
    let mut status = Status {
        at_ms: admin.env.wall().unix_ms(),
        asked: asked.map(|epoch| epoch.0),
        nodes: Vec::new(),
        more_nodes: false,
        problems: health.problems(),
        health,
        work: Vec::new(),
    };
    if status.health.store_read.error.is_some() {
        return Ok(status);
    }
    let query = PageQuery { after: None, limit: Some(STATUS_NODES_MAX) };
    let page = nodes(admin, &query).await?;
    (status.nodes, status.more_nodes) = (page.items, page.next.is_some());
    status.work = lags(admin).await?;
    for node in status.nodes.iter().filter(|node| node.state.is_wrong()) {
        status.problems.push(format!("node {} is {}", node.name, node.state.as_str()));
    }
    if !status.nodes.iter().any(|node| node.state == NodeState::Up) {
        status.problems.push("no node serves".to_owned());
    }
    for lag in status.work.iter().filter(|lag| u128::from(lag.lag_ms) > WORK_LATE.as_millis()) {
        let late = lag.lag_ms / 1_000;
        status.problems.push(format!("work of kind {} is {late} s late", lag.kind));
    }
    Ok(status)
}

#[cfg(test)]
mod tests;
