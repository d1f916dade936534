//! Nodes asking each other over the mesh for what each alone knows.
//!
//! A request is JSON; the answer is a frame of JSON for each session, or for each batch of lines of
//! a log. A node that does not know a request resets its answer.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use cluster::{
    Epoch,
    mesh::{Mesh, MeshError, Reply, ReplySender},
};
use env::{BoxFuture, Env};
use serde::{Deserialize, Serialize};

use super::{Fleet, LogFeed, NotReached, OwnNode, SessionFilter, SessionInfo};
use crate::{
    limits::{FLEET_PATIENCE, FLEET_PAUSE},
    logs::LogQuery,
};

/// What one node asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    ListSessions(SessionFilter),
    EndSession(u64),
    FollowLog(LogQuery),
}

/// All nodes: the own one by itself, the others over the mesh.
pub(crate) struct Wired {
    env: Env,
    own: Arc<OwnNode>,
    mesh: Arc<Mesh>,
}

impl fmt::Debug for Wired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wired")
    }
}

impl Wired {
    pub(crate) fn new(env: Env, own: Arc<OwnNode>, mesh: Arc<Mesh>) -> Arc<Self> {
        Arc::new(Self { env, own, mesh })
    }

    /// Asks a node that is registered; the mesh knows one that came a moment ago after the next look
    /// at the store.
    async fn reach(&self, epoch: Epoch, request: Bytes) -> Result<Reply, MeshError> {
        let patience = self.env.monotonic() + FLEET_PATIENCE;
        loop {
            match self.mesh.request(epoch, request.clone()).await {
                Err(MeshError::Unknown(_)) if self.env.monotonic() < patience => {
                    self.own.look_again();
                    self.env.sleep(FLEET_PAUSE).await;
                }
                reached => return reached,
            }
        }
    }

    async fn call(&self, epoch: Epoch, request: &Request) -> Result<Reply, NotReached> {
        let request = serde_json::to_vec(request).map_err(not_reached)?;
        self.reach(epoch, request.into()).await.map_err(not_reached)
    }

    async fn ask(&self, epoch: Epoch, request: &Request) -> Result<Vec<SessionInfo>, NotReached> {
        let mut reply = self.call(epoch, request).await?;
        let mut sessions = Vec::new();
        while let Some(frame) = reply.next().await.map_err(not_reached)? {
            sessions.push(serde_json::from_slice(&frame).map_err(not_reached)?);
        }
        Ok(sessions)
    }
}

fn not_reached(error: impl fmt::Display) -> NotReached {
    NotReached(error.to_string())
}

impl Fleet for Wired {
    fn here(&self) -> Option<Epoch> {
        self.own.here()
    }

    fn list_sessions(
        &self,
        epoch: Epoch,
        filter: SessionFilter,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, NotReached>> {
        match self.here() == Some(epoch) {
            true => self.own.list_sessions(epoch, filter),
            false => Box::pin(async move {
                let mut found = self.ask(epoch, &Request::ListSessions(filter)).await?;
                found.truncate(filter.limit);
                Ok(found)
            }),
        }
    }

    fn end_session(
        &self,
        epoch: Epoch,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<SessionInfo>, NotReached>> {
        match self.here() == Some(epoch) {
            true => self.own.end_session(epoch, id),
            false => Box::pin(async move {
                Ok(self.ask(epoch, &Request::EndSession(id)).await?.into_iter().next())
            }),
        }
    }

    fn follow_log(
        &self,
        epoch: Epoch,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<LogFeed, NotReached>> {
        match self.here() == Some(epoch) {
            true => self.own.follow_log(epoch, query),
            false => Box::pin(async move {
                let reply = self.call(epoch, &Request::FollowLog(query)).await?;
                Ok(LogFeed::Peer(Box::new(reply)))
            }),
        }
    }
}

/// What answers other nodes, once there is something to answer with. Cloning is one reference count.
#[derive(Clone, Default)]
pub(crate) struct Answering {
    own: Arc<OnceLock<Arc<OwnNode>>>,
}

impl Answering {
    /// Answers from now on.
    pub(crate) fn begin(&self, own: &Arc<OwnNode>) {
        // A second time is the same node.
        let _first = self.own.set(Arc::clone(own));
    }

    /// Answers one request. What is not known is not answered: its asker sees the reset.
    pub(crate) async fn answer(self, request: Bytes, mut reply: ReplySender) {
        let Some(own) = self.own.get() else { return };
        let Ok(request) = serde_json::from_slice::<Request>(&request) else { return };
        let sessions = match request {
            Request::ListSessions(filter) => own.own_sessions(filter),
            Request::EndSession(id) => own.end_own_session(id).into_iter().collect(),
            Request::FollowLog(query) => return tell_log(own, &query, reply).await,
        };
        for session in sessions {
            let Ok(frame) = serde_json::to_vec(&session) else { return };
            if reply.send(frame.into()).await.is_err() {
                return;
            }
        }
        reply.finish();
    }
}

/// Sends the own log until its end, or until the asker hangs up, which ends this.
async fn tell_log(own: &OwnNode, query: &LogQuery, mut reply: ReplySender) {
    let Ok(mut feed) = own.own_log(query) else { return };
    while let Some(batch) = feed.next().await {
        let Ok(frame) = serde_json::to_vec(&batch) else { return };
        if reply.send(frame.into()).await.is_err() {
            return;
        }
    }
    reply.finish();
}
