//! The logs of all nodes, as they grow: each node tells its own, over the mesh.
//!
//! Every node has a reader of its own here, which waits for whoever asked; behind a client that
//! does not read, the node's lines go and are counted as lost ([`crate::logs`]), and no node waits.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ::cluster::{Epoch, NodeName, membership::registry, mesh::Reply};
use env::{BoxFuture, Env};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::SendError};

use super::{Admin, AdminError, Fleet, NotReached};
use crate::{
    limits::{LOG_GATHER, LOG_PULSE, LOG_RING_LINES_MAX, LOG_ROSTER_PERIOD},
    logs::{Level, LogBatch, LogLine, LogQuery, Logs, Tail, Then},
};

/// Whose lines, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// Names of nodes; none for all, those that come meanwhile among them.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// So many of each node's last lines, at most [`LOG_RING_LINES_MAX`].
    pub lines: usize,
    /// Of this level and worse.
    pub level: Level,
    /// Whether to go on.
    pub then: Then,
}

/// What whoever follows logs is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogEvent {
    /// A node is listened to.
    Begun {
        /// Its name.
        node: String,
        /// Its life.
        epoch: u64,
    },
    /// A line of a node.
    Line {
        /// The node's name.
        node: String,
        /// The line.
        #[serde(flatten)]
        line: LogLine,
    },
    /// Lines of a node went before they could be sent: the reader is too slow, or the node too
    /// talkative.
    Lost {
        /// The node's name.
        node: String,
        /// How many, of whatever level.
        lines: u64,
    },
    /// A node cannot be listened to, or no longer.
    Gone {
        /// Its name.
        node: String,
        /// Why.
        reason: String,
    },
    /// Nothing to say, for now.
    Pulse,
    /// The node that was asked ends; nothing more comes.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Lines of one node, as they come. Dropping it ends it.
pub enum LogFeed {
    /// This process's.
    Own(OwnFeed),
    /// Another node's: frames of [`LogBatch`].
    Peer(Box<Reply>),
}

impl fmt::Debug for LogFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFeed")
    }
}

impl LogFeed {
    /// The next lines, the first time perhaps none; `None` at the end.
    ///
    /// # Errors
    /// [`NotReached`] where the node went away.
    pub async fn next(&mut self) -> Result<Option<LogBatch>, NotReached> {
        match self {
            Self::Own(own) => Ok(own.next().await),
            Self::Peer(reply) => {
                let frame = reply.next().await.map_err(|error| NotReached(error.to_string()))?;
                let batch = frame.map(|frame| serde_json::from_slice(&frame)).transpose();
                batch.map_err(|error| NotReached(format!("its log cannot be read: {error}")))
            }
        }
    }
}

/// This process's lines.
pub struct OwnFeed {
    env: Env,
    tail: Tail,
    then: Then,
    begun: bool,
}

impl OwnFeed {
    /// `None` where too many read already.
    pub(super) fn new(env: &Env, node: &NodeName, query: &LogQuery) -> Option<Self> {
        let query = LogQuery { lines: query.lines.min(LOG_RING_LINES_MAX), ..*query };
        let tail = Logs::process().tail(node.as_str(), &query)?;
        Some(Self { env: env.clone(), tail, then: query.then, begun: false })
    }

    pub(super) async fn next(&mut self) -> Option<LogBatch> {
        loop {
            let batch = self.tail.take();
            let is_first = !std::mem::replace(&mut self.begun, true);
            if is_first || batch != LogBatch::default() {
                return Some(batch);
            }
            if self.then == Then::End {
                return None;
            }
            self.tail.grown().await;
            self.env.sleep(LOG_GATHER).await;
        }
    }
}

/// What is said where a node has no place for another reader.
pub(super) const TOO_MANY: &str = "too many read its log already";

/// Tells the lines of nodes, until the last line, or for ever; ends where nobody listens.
pub struct Following {
    admin: Admin,
    fleet: Arc<dyn Fleet>,
    request: LogRequest,
    /// Who was there when it was asked for.
    nodes: Vec<Node>,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Following").field(&self.request).finish()
    }
}

/// How one life of a node is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Now,
    /// It was lost.
    Lost,
}

/// A node that is registered.
#[derive(Debug, Clone)]
struct Node {
    epoch: Epoch,
    name: String,
    /// When it registered, by the clock that its lines have.
    since_ms: i64,
}

/// One reader's end.
type Read = (Node, Result<(), NotReached>);

impl Following {
    /// Checks what is asked for, and who is there.
    ///
    /// # Errors
    /// [`AdminError::NoNode`], [`AdminError::NodeName`], [`AdminError::Unavailable`].
    pub async fn new(
        admin: &Admin,
        fleet: &Arc<dyn Fleet>,
        request: LogRequest,
    ) -> Result<Self, AdminError> {
        for name in &request.nodes {
            super::node(admin, name).await?;
        }
        let nodes = registered(admin, &request.nodes).await?;
        Ok(Self { admin: admin.clone(), fleet: Arc::clone(fleet), request, nodes })
    }

    /// Tells whoever listens.
    pub async fn run(self, tell: mpsc::Sender<LogEvent>) {
        // The sender is gone where nobody listens any more: so is whoever would want the error.
        let _nobody_listens = self.follow(&tell).await;
    }

    async fn follow(&self, tell: &mpsc::Sender<LogEvent>) -> Result<(), SendError<LogEvent>> {
        let mut readers: FuturesUnordered<BoxFuture<'_, Read>> = FuturesUnordered::new();
        let mut known: BTreeMap<Epoch, (String, Reading)> = BTreeMap::new();
        let nodes = self.nodes.clone();
        for wanted in &self.request.nodes {
            if !nodes.iter().any(|node| node.name == *wanted) {
                let (node, reason) = (wanted.clone(), "it does not run".to_owned());
                tell.send(LogEvent::Gone { node, reason }).await?;
            }
        }
        for node in nodes {
            known.insert(node.epoch, (node.name.clone(), Reading::Now));
            readers.push(Box::pin(self.read(node, self.query(self.request.lines, 0), tell)));
        }
        // The store may be away for long, and just then logs are wanted: nobody waits for the look.
        let mut look = Box::pin(self.look());
        loop {
            if readers.is_empty() && self.request.then == Then::End {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = tell.closed() => return Ok(()),
                Some((node, read)) = readers.next() => {
                    let Err(NotReached(reason)) = read else { continue };
                    let lost = (node.name.clone(), Reading::Lost);
                    if known.insert(node.epoch, lost).is_none_or(|(_, it)| it == Reading::Now) {
                        tell.send(LogEvent::Gone { node: node.name, reason }).await?;
                    }
                }
                nodes = &mut look, if self.request.then == Then::Follow => {
                    for node in nodes {
                        let is_read = |(name, it): &(String, Reading)| {
                            *name == node.name && *it == Reading::Now
                        };
                        // A node that registers again is still read under its former epoch.
                        if known.values().any(is_read) {
                            continue;
                        }
                        // What came while it was lost is not known; what was shown is not shown
                        // again; the first lines of a new life are what is waited for.
                        let query = match known.get(&node.epoch) {
                            Some(_) => self.query(0, 0),
                            None => self.query(LOG_RING_LINES_MAX, node.since_ms),
                        };
                        known.entry(node.epoch).or_insert((node.name.clone(), Reading::Now));
                        readers.push(Box::pin(self.read(node, query, tell)));
                    }
                    look = Box::pin(self.look());
                }
            }
        }
    }

    fn query(&self, lines: usize, since_ms: i64) -> LogQuery {
        let LogRequest { level, then, .. } = self.request;
        LogQuery { lines, level, since_ms, then }
    }

    /// Who is there, a while later.
    async fn look(&self) -> Vec<Node> {
        self.admin.env.sleep(LOG_ROSTER_PERIOD).await;
        registered(&self.admin, &self.request.nodes).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the nodes whose logs are followed cannot be looked for");
            Vec::new()
        })
    }

    /// Tells one node's lines.
    async fn read(&self, node: Node, query: LogQuery, tell: &mpsc::Sender<LogEvent>) -> Read {
        let read = async {
            let mut feed = self.fleet.follow_log(node.epoch, query).await?;
            let mut next = feed.next().await?;
            let begun = LogEvent::Begun { node: node.name.clone(), epoch: node.epoch.0 };
            // Where nobody listens any more, the whole ends.
            let mut told = tell.send(begun).await;
            while let (Some(batch), Ok(())) = (next, &told) {
                told = tell_batch(&node.name, batch, tell).await;
                next = feed.next().await?;
            }
            Ok(())
        };
        let read = read.await;
        (node, read)
    }
}

/// The nodes that are wanted and there.
async fn registered(admin: &Admin, wanted: &[String]) -> Result<Vec<Node>, AdminError> {
    let look = |tx| async move { registry::registered(&tx).await };
    let registered = admin.db.run(look).await?;
    let nodes = registered.into_iter().map(|(epoch, it)| Node {
        epoch,
        name: it.record.name,
        since_ms: it.record.since_ms,
    });
    Ok(nodes.filter(|node| wanted.is_empty() || wanted.contains(&node.name)).collect())
}

async fn tell_batch(
    node: &str,
    batch: LogBatch,
    tell: &mpsc::Sender<LogEvent>,
) -> Result<(), SendError<LogEvent>> {
    if batch.lost > 0 {
        tell.send(LogEvent::Lost { node: node.to_owned(), lines: batch.lost }).await?;
    }
    for line in batch.lines {
        tell.send(LogEvent::Line { node: node.to_owned(), line }).await?;
    }
    Ok(())
}

/// The next event; a pulse where there is none for long, `None` after the last.
pub async fn next_event(env: &Env, told: &mut mpsc::Receiver<LogEvent>) -> Option<LogEvent> {
    env.timeout(LOG_PULSE, told.recv()).await.unwrap_or(Some(LogEvent::Pulse))
}
