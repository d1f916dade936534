//! A node's life as a process: started, served, crashed, drained, started again.

use std::time::Duration;

use blob::BlobStore;
use env::Env;
use kv::Database;
use node::{Node, Stores, config::Config};
use tokio::sync::oneshot;

use super::{NodeId, Slot, Wanted, World};
use crate::{What, fact::NodeEvent};

/// How long a service manager waits before it starts a process again that has ended.
const START_PAUSE: Duration = Duration::from_secs(1);

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Nothing: it has no process.
    Down,
    /// Its process starts, or stands aside because administrators have drained it.
    Starting,
    /// Every port accepts.
    Serving,
    /// It says goodbye.
    Draining,
    /// Its process has ended by itself, and nobody has looked yet.
    Ended,
}

impl World {
    /// Begins a node's process, with a new incarnation of its host. What is left of the last one
    /// crashes.
    pub fn start_node(&self, node: NodeId) {
        let slot = self.slot(node);
        let env = slot.host.restart();
        let (sender, drain) = oneshot::channel();
        let mut config = slot.config.clone();
        let db = {
            let mut control = slot.control();
            config.cluster.node.clone_from(&control.name);
            let db = self.shared.db.handle_with_faults(env.clone(), control.store.clone());
            control.wanted = Wanted::Running;
            control.store_handle = Some(db.faults());
            control.drain = Some(sender);
            db
        };
        slot.state.send_replace(NodeState::Starting);
        let process = Process {
            world: self.clone(),
            node,
            db,
            blobs: BlobStore::on_model(slot.bucket.clone(), env.clone()),
            config,
            env: env.clone(),
        };
        env.spawn("node", Box::pin(process.run(drain))).detach();
        let world = self.clone();
        self.env().spawn("supervisor", async move { world.supervise(node).await }).detach();
    }

    /// Ends a node's process wherever it stands, and leaves it down.
    pub fn crash_node(&self, node: NodeId) {
        let slot = self.slot(node);
        slot.control().wanted = Wanted::Down;
        slot.host.crash();
    }

    /// Ends a node's process before the `polls`-th step of its tasks from now, and leaves it down.
    pub fn crash_node_after(&self, node: NodeId, polls: u64) {
        let slot = self.slot(node);
        slot.control().wanted = Wanted::Down;
        slot.host.crash_after(polls);
    }

    /// Crashes a node where it runs, and starts it.
    pub async fn restart_node(&self, node: NodeId) {
        self.crash_node(node);
        self.until_down(node).await;
        self.start_node(node);
    }

    /// Lets a node say goodbye, and leaves it down.
    pub async fn drain_node(&self, node: NodeId) {
        let drain = {
            let mut control = self.slot(node).control();
            control.wanted = Wanted::Down;
            control.drain.take()
        };
        if let Some(drain) = drain {
            // One that has ended needs no telling.
            let _ended = drain.send(());
        }
        self.until_down(node).await;
    }

    /// Waits until every port of a node accepts.
    pub async fn until_serving(&self, node: NodeId) {
        self.until_state(node, NodeState::Serving).await;
    }

    /// Waits until a node has no process.
    pub async fn until_down(&self, node: NodeId) {
        self.until_state(node, NodeState::Down).await;
    }

    async fn until_state(&self, node: NodeId, wanted: NodeState) {
        let mut state = self.slot(node).state.subscribe();
        // The sender lives as long as the world.
        let _there = state.wait_for(|state| *state == wanted).await;
    }

    /// Waits for the end of a node's process, and starts it again where it is wanted.
    async fn supervise(self, node: NodeId) {
        let slot = self.slot(node);
        let mut state = slot.state.subscribe();
        tokio::select! {
            biased;
            () = slot.host.crashed() => self.note(slot, NodeEvent::Crashed),
            _ended = state.wait_for(|state| *state == NodeState::Ended) => {}
        }
        // What is left of an ended process goes with it.
        slot.host.crash();
        {
            let mut control = slot.control();
            control.drain = None;
            control.store_handle = None;
        }
        slot.state.send_replace(NodeState::Down);
        if slot.control().wanted == Wanted::Running {
            self.env().sleep(START_PAUSE).await;
            if slot.control().wanted == Wanted::Running && !slot.host.is_up() {
                self.start_node(node);
            }
        }
    }

    fn note(&self, slot: &Slot, event: NodeEvent) {
        self.facts().note(&slot.id.to_string(), What::Node(event));
    }
}

/// What a process of a node is made of.
struct Process {
    world: World,
    node: NodeId,
    db: Database,
    blobs: BlobStore,
    config: Config,
    env: Env,
}

impl Process {
    async fn run(self, mut drain: oneshot::Receiver<()>) {
        let Self { world, node, db, blobs, config, env } = self;
        let slot = world.slot(node);
        world.note(slot, NodeEvent::Started);
        let started = tokio::select! {
            biased;
            // One that stands aside is ended by a signal too.
            Ok(()) = &mut drain => Err("told to before it served".to_owned()),
            started = Box::pin(start(db, blobs, config, env)) => {
                started.map_err(|error| error.to_string())
            }
        };
        match started {
            Ok(started) => {
                slot.state.send_replace(NodeState::Serving);
                world.note(slot, NodeEvent::Serving);
                let why = tokio::select! {
                    biased;
                    Ok(()) = &mut drain => "told to".to_owned(),
                    ending = started.asked_to_end() => format!("{ending:?}"),
                };
                slot.state.send_replace(NodeState::Draining);
                world.note(slot, NodeEvent::Draining);
                Box::pin(started.drain()).await;
                world.note(slot, NodeEvent::Ended(why));
            }
            Err(reason) => world.note(slot, NodeEvent::Failed(reason)),
        }
        slot.state.send_replace(NodeState::Ended);
    }
}

async fn start(
    db: Database,
    blobs: BlobStore,
    config: Config,
    env: Env,
) -> Result<Node, node::StartError> {
    mail::schema::open(&db).await?;
    blob::binding::bind(&db, &blobs, &env).await?;
    Node::start_on(Stores::new(db, blobs), config, env).await
}
