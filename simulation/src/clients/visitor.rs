//! Somebody who comes to one account again and again, to whichever node, with what is left of
//! earlier visits.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use env::BoxFuture;

use super::offline::{Copy, Revision, Session, Stopped, Way};
use crate::{Account, Door, Host, Random, What, World};

/// Earlier states that a visitor keeps of one mailbox.
const STATES_MAX: usize = 5;

/// From which state a visitor resyncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the last.
    Latest,
    /// From any that is kept, or from none.
    Any,
}

/// A client with a machine, an account and a memory.
pub struct Visitor {
    /// Where it is.
    pub world: World,
    /// Its machine.
    pub host: Host,
    /// Whose mail it reads.
    pub account: Account,
    /// Its chance.
    pub random: Random,
    states: BTreeMap<String, Vec<Copy>>,
}

impl Visitor {
    /// A client of this name. `account` counts from 0, and wraps.
    pub fn new(world: &World, name: &str, account: usize) -> Self {
        let accounts = world.accounts();
        Self {
            world: world.clone(),
            host: world.client_host(name),
            account: accounts[account % accounts.len()].clone(),
            random: world.random(name),
            states: BTreeMap::new(),
        }
    }

    /// Any node's door for IMAP.
    pub fn door(&mut self) -> SocketAddr {
        let doors = self.world.doors(Door::Imaps);
        *self.random.pick(&doors).expect("a world has nodes")
    }

    /// Waits for some time, in which the world may end.
    pub async fn rest(&mut self, least: Duration, most: Duration) {
        let time = least + self.random.up_to(most.saturating_sub(least));
        self.world.rest(time).await;
    }

    /// Logs in at any node.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn log_in(&mut self) -> Result<Session, Stopped> {
        let revision = if self.random.chance(500) { Revision::One } else { Revision::Two };
        let door = self.door();
        Session::open(&self.world, &self.host, &self.account, door, revision).await
    }

    /// Logs in at any node, resyncs a mailbox, and compares what came of it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn enter(&mut self, mailbox: &str, start: Start) -> Result<Session, Stopped> {
        let mut session = self.log_in().await?;
        let copy = self.state(mailbox, start);
        let way = if self.random.chance(600) { Way::CondStore } else { Way::Plain };
        session.resync(copy, way).await?;
        session.verify().await?;
        Ok(session)
    }

    fn state(&mut self, mailbox: &str, start: Start) -> Copy {
        let states = self.states.get(mailbox).map_or(&[][..], Vec::as_slice);
        let state = match start {
            Start::Latest => states.last(),
            Start::Any if self.random.chance(100) => None,
            Start::Any => self.random.pick(states),
        };
        state.cloned().unwrap_or_else(|| Copy::of(mailbox))
    }

    /// Keeps a copy as a state to come back from.
    pub fn keep(&mut self, copy: &Copy) {
        let states = self.states.entry(copy.mailbox.clone()).or_default();
        if states.len() == STATES_MAX {
            // Old ones and new ones stay.
            let among = states.len() as u64 - 1;
            states.remove(usize::try_from(self.random.below(among)).unwrap_or(0));
        }
        states.push(copy.clone());
    }

    /// Keeps the session's copy and ends the session, in good order or not.
    pub async fn leave(&mut self, session: Session) {
        self.keep(session.copy());
        if self.random.chance(500) {
            session.close().await;
        }
    }

    /// Tells of a visit that was not to be.
    pub fn stopped(&self, why: &Stopped) {
        env::sometimes!("a client's visit is broken off");
        let text = format!("visit broken off: {why:?}");
        self.world.facts().note(&self.host.name(), What::Note(text));
    }

    /// Notes every state that is kept, for the check that comes back from each.
    pub fn note_states(&self) {
        for copy in self.states.values().flatten() {
            let copy = std::sync::Arc::new(copy.clone());
            let account = self.account.id;
            self.world.facts().note(&self.host.name(), What::OfflineCopy { account, copy });
        }
    }
}

/// A mailbox name that belongs to one account alone.
pub fn mailbox_of(account: &Account, name: &str) -> String {
    format!("{}{name}", mailbox_prefix(account))
}

/// How the names of an account's mailboxes begin.
pub fn mailbox_prefix(account: &Account) -> String {
    format!("u{}-", account.id.0)
}

/// Makes mailboxes while nothing disturbs the world.
pub async fn make_mailboxes(world: &World, account: usize, names: &[&str]) {
    let mut visitor = Visitor::new(world, "setup", account);
    let mut session = visitor.log_in().await.expect("nothing disturbs the world yet");
    for name in names {
        let name = mailbox_of(&visitor.account, name);
        // Another workload may have made it.
        let _made = session.command(&format!("CREATE \"{name}\"")).await;
    }
    session.close().await;
}

/// Runs all of them until each has ended.
pub async fn all_of(world: &World, parts: Vec<BoxFuture<'static, ()>>) {
    let env = world.env();
    let tasks: Vec<_> = parts.into_iter().map(|part| env.spawn("client", part)).collect();
    for task in tasks {
        if task.await.is_err() {
            // The world tells of its panics by itself.
            return;
        }
    }
}
