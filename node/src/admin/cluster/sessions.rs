//! Who is connected, to whichever node; and ending one.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cluster::{Epoch, Membership, membership::registry};
use env::{BoxFuture, Env};
use kv::Transaction;
use mail::{AccountId, StoreError};
use serde::{Deserialize, Serialize};

use super::{
    Admin, AdminError, LogFeed,
    logs::{OwnFeed, TOO_MANY},
};
use crate::{
    limits::ADMIN_PAGE_ROWS_MAX,
    logs::LogQuery,
    sessions::{OpenSession, Sessions},
};

/// A session, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// As in its log lines: 16 hexadecimal digits.
    pub id: String,
    /// The node's name; empty until whoever asked the node has filled it in.
    pub node: String,
    /// The node's epoch.
    pub epoch: u64,
    /// What it speaks.
    pub protocol: String,
    /// Where the client is.
    pub peer: String,
    /// Since when, by the node's clock, milliseconds since 1970.
    pub since_ms: i64,
    /// The account's number, once the client has logged in.
    pub account: Option<u64>,
    /// The account's address; `None` until whoever asked the node has filled it in.
    pub address: Option<String>,
    /// Bytes that came from the client.
    pub bytes_in: u64,
    /// Bytes that the client took.
    pub bytes_out: u64,
}

/// Which sessions of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFilter {
    /// Those behind this id.
    pub after: Option<u64>,
    /// Those of this account.
    pub account: Option<u64>,
    /// So many at most.
    pub limit: usize,
}

/// Why a node did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct NotReached(pub String);

/// Nodes, to be asked for what each alone knows.
pub trait Fleet: fmt::Debug + Send + Sync {
    /// The epoch of the node that asks, if it is one.
    fn here(&self) -> Option<Epoch>;

    /// Sessions of a node, in the order of their ids.
    fn list_sessions(
        &self,
        epoch: Epoch,
        filter: SessionFilter,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, NotReached>>;

    /// Asks a session of a node to say goodbye; `None` where the node has none of that id.
    fn end_session(
        &self,
        epoch: Epoch,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<SessionInfo>, NotReached>>;

    /// Begins to read a node's log.
    fn follow_log(
        &self,
        epoch: Epoch,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<LogFeed, NotReached>>;
}

/// What is said of nodes that there is no way to.
const NO_WAY: &str = "not reachable";

/// No node: nobody answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Fleet for Nowhere {
    fn here(&self) -> Option<Epoch> {
        None
    }

    fn list_sessions(
        &self,
        _: Epoch,
        _: SessionFilter,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, NotReached>> {
        Box::pin(async { Err(NotReached(NO_WAY.to_owned())) })
    }

    fn end_session(
        &self,
        _: Epoch,
        _: u64,
    ) -> BoxFuture<'_, Result<Option<SessionInfo>, NotReached>> {
        Box::pin(async { Err(NotReached(NO_WAY.to_owned())) })
    }

    fn follow_log(&self, _: Epoch, _: LogQuery) -> BoxFuture<'_, Result<LogFeed, NotReached>> {
        Box::pin(async { Err(NotReached(NO_WAY.to_owned())) })
    }
}

/// The own node, which answers for itself alone.
#[derive(Clone)]
pub struct OwnNode {
    env: Env,
    sessions: Sessions,
    membership: Membership,
}

impl fmt::Debug for OwnNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnNode")
    }
}

impl OwnNode {
    pub(crate) fn new(env: &Env, sessions: Sessions, membership: Membership) -> Arc<Self> {
        Arc::new(Self { env: env.clone(), sessions, membership })
    }

    /// Begins to read the own node's log.
    ///
    /// # Errors
    /// [`NotReached`] where too many do already.
    pub(super) fn own_log(&self, query: &LogQuery) -> Result<OwnFeed, NotReached> {
        let feed = OwnFeed::new(&self.env, self.membership.name(), query);
        feed.ok_or_else(|| NotReached(TOO_MANY.to_owned()))
    }

    /// The own node's sessions, under whatever epoch it has: what another node is answered with.
    pub fn own_sessions(&self, filter: SessionFilter) -> Vec<SessionInfo> {
        let epoch = self.membership.fence().epoch();
        let wanted = |session: &OpenSession| {
            filter.account.is_none_or(|account| session.account() == Some(AccountId(account)))
        };
        let limit = filter.limit.min(ADMIN_PAGE_ROWS_MAX);
        let found = self.sessions.list(filter.after, limit, wanted);
        found.iter().map(|session| info(session, epoch)).collect()
    }

    /// Has the next look at who is registered come now.
    pub(super) fn look_again(&self) {
        self.membership.hurry();
    }

    /// Asks one of the own node's sessions to say goodbye.
    pub fn end_own_session(&self, id: u64) -> Option<SessionInfo> {
        let epoch = self.membership.fence().epoch();
        self.sessions.end(id).map(|session| info(&session, epoch))
    }
}

impl Fleet for OwnNode {
    fn here(&self) -> Option<Epoch> {
        Some(self.membership.fence().epoch())
    }

    fn list_sessions(
        &self,
        epoch: Epoch,
        filter: SessionFilter,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, NotReached>> {
        Box::pin(async move {
            match self.here() == Some(epoch) {
                true => Ok(self.own_sessions(filter)),
                false => Nowhere.list_sessions(epoch, filter).await,
            }
        })
    }

    fn end_session(
        &self,
        epoch: Epoch,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<SessionInfo>, NotReached>> {
        Box::pin(async move {
            match self.here() == Some(epoch) {
                true => Ok(self.end_own_session(id)),
                false => Nowhere.end_session(epoch, id).await,
            }
        })
    }

    fn follow_log(
        &self,
        epoch: Epoch,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<LogFeed, NotReached>> {
        Box::pin(async move {
            match self.here() == Some(epoch) {
                true => self.own_log(&query).map(LogFeed::Own),
                false => Nowhere.follow_log(epoch, query).await,
            }
        })
    }
}

fn info(session: &OpenSession, epoch: Epoch) -> SessionInfo {
    let (bytes_in, bytes_out) = session.bytes();
    SessionInfo {
        id: format!("{:016x}", session.id),
        node: String::new(),
        epoch: epoch.0,
        protocol: session.protocol.as_str().to_owned(),
        peer: session.peer.to_string(),
        since_ms: session.since.unix_ms(),
        account: session.account().map(|account| account.0),
        address: None,
        bytes_in,
        bytes_out,
    }
}

/// Which sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionQuery {
    /// An earlier page's [`SessionPage::next`]; the first page without.
    pub after: Option<String>,
    /// Rows, at most [`ADMIN_PAGE_ROWS_MAX`]; that many without.
    pub limit: Option<usize>,
    /// Present, whatever it says: only those of the node that is asked.
    pub local: Option<String>,
    /// Only those of the account with this address.
    pub account: Option<String>,
}

/// A node that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// Its name.
    pub node: String,
    /// Its epoch.
    pub epoch: u64,
    /// Why.
    pub reason: String,
}

/// One page of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    /// The sessions, node by node.
    pub items: Vec<SessionInfo>,
    /// Ask for what comes after this; absent on the last page.
    pub next: Option<String>,
    /// Nodes that were asked for this page and did not answer: their sessions are missing.
    pub unanswered: Vec<Unanswered>,
}

/// A session that was asked to say goodbye.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// The session.
    pub session: SessionInfo,
}

/// One page of the sessions of all nodes, or of the own one.
///
/// # Errors
/// [`AdminError::Page`], [`AdminError::Missing`] for the account, [`AdminError::Name`].
pub async fn list_sessions(
    admin: &Admin,
    fleet: &dyn Fleet,
    query: &SessionQuery,
) -> Result<SessionPage, AdminError> {
    let after = query.after.as_deref().map(|after| {
        let place = after.split_once('-');
        let place = place.and_then(|(epoch, id)| {
            Some((Epoch(epoch.parse().ok()?), u64::from_str_radix(id, 16).ok()?))
        });
        place.ok_or_else(|| AdminError::Page(after.to_owned()))
    });
    let after = after.transpose()?;
    let account = match &query.account {
        Some(address) => Some(super::super::accounts::id_of(admin, address).await?.0),
        None => None,
    };
    let limit = query.limit.unwrap_or(ADMIN_PAGE_ROWS_MAX).clamp(1, ADMIN_PAGE_ROWS_MAX);
    let mut page = SessionPage { items: Vec::new(), next: None, unanswered: Vec::new() };
    for (epoch, node) in nodes(admin, fleet, query.local.is_some()).await? {
        if after.is_some_and(|(reached, _)| epoch < reached) {
            continue;
        }
        let behind = after.filter(|(reached, _)| *reached == epoch).map(|(_, id)| id);
        let filter = SessionFilter { after: behind, account, limit: limit - page.items.len() };
        match fleet.list_sessions(epoch, filter).await {
            Ok(mut found) => {
                found.truncate(filter.limit);
                found.iter_mut().for_each(|session| session.node.clone_from(&node));
                page.items.extend(found);
            }
            Err(NotReached(reason)) => {
                page.unanswered.push(Unanswered { node, epoch: epoch.0, reason });
            }
        }
        if page.items.len() == limit {
            page.next = page.items.last().map(|last| format!("{}-{}", last.epoch, last.id));
            break;
        }
    }
    name_accounts(admin, &mut page.items).await?;
    Ok(page)
}

/// Asks a session to say goodbye, whichever node has it.
///
/// # Errors
/// [`AdminError::NoSession`]; [`AdminError::Unanswered`] where a node that did not answer may have
/// it; [`AdminError::Page`] where the id is none.
pub async fn end_session(
    admin: &Admin,
    fleet: &dyn Fleet,
    id: &str,
) -> Result<EndedSession, AdminError> {
    let number = u64::from_str_radix(id, 16).map_err(|_| AdminError::NoSession(id.to_owned()))?;
    let mut silent = Vec::new();
    for (epoch, node) in nodes(admin, fleet, false).await? {
        match fleet.end_session(epoch, number).await {
            Ok(Some(session)) => {
                let mut found = [SessionInfo { node, ..session }];
                name_accounts(admin, &mut found).await?;
                let [session] = found;
                return Ok(EndedSession { session });
            }
            Ok(None) => {}
            Err(_not_reached) => silent.push(node),
        }
    }
    match silent.is_empty() {
        true => Err(AdminError::NoSession(id.to_owned())),
        false => Err(AdminError::Unanswered(id.to_owned(), silent.join(", "))),
    }
}

/// Whom to ask: everybody who is registered, or the own node.
async fn nodes(
    admin: &Admin,
    fleet: &dyn Fleet,
    is_local: bool,
) -> Result<BTreeMap<Epoch, String>, AdminError> {
    let registered = admin.db.run(|tx| async move { registry::registered(&tx).await }).await?;
    let here = fleet.here();
    let asked = registered.into_iter().filter(|(epoch, _)| !is_local || Some(*epoch) == here);
    Ok(asked.map(|(epoch, it)| (epoch, it.record.name)).collect())
}

/// Fills in the addresses of accounts that are still there.
async fn name_accounts(admin: &Admin, sessions: &mut [SessionInfo]) -> Result<(), AdminError> {
    let mut names: BTreeMap<u64, Option<String>> =
        sessions.iter().filter_map(|session| session.account).map(|id| (id, None)).collect();
    for (id, name) in &mut names {
        let id = AccountId(*id);
        let read = |tx: Transaction| async move {
            match mail::account_record(&tx, id).await {
                Ok(account) => Ok(Some(account.name)),
                Err(StoreError::NoAccount(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        *name = admin.db.run(read).await?;
    }
    for session in sessions {
        session.address = session.account.and_then(|id| names.get(&id).cloned().flatten());
    }
    Ok(())
}
