//! Sends what the outbound queue holds to other servers.
//!
//! A zone of [`Kind::Outbound`] is a destination domain, so one node at a time sends to it: it looks
//! up the domain's servers once, keeps connections to them, and learns once that they are away.
//!
//! | file | what it does |
//! |---|---|
//! | `lane.rs` | one turn at one domain: which messages, how many at once |
//! | `domain.rs` | what the store knows of a domain that is in trouble |
//! | `route.rs` | from a domain to servers (RFC 5321 §5.1) |
//! | `content.rs` | a message's bytes, its signatures in front |
//! | `connection.rs` | moves bytes between a socket and [`smtp::client::Client`] |
//! | `security.rs` | TLS to other servers |
//! | `attempt.rs` | one message over one connection |
//! | `conclude.rs` | the transaction that takes recipients out of the queue |
//! | `schedule.rs` | when to try again, when to give up |
//!
//! Architecture invariants:
//! - A recipient leaves the queue in a transaction that reads the claim, with the report that its
//!   sender is due in the same transaction. So a recipient is delivered, reported or in the queue.
//! - The content's end is sent only while the claim is sure to be ours ([`cluster::Fence::is_live`]).
//!   A message arrives twice only where the reply to its end was lost (P7).
//! - A report is never sent about a report: its reverse-path is null (RFC 5321 §4.5.5).

mod attempt;
mod conclude;
mod connection;
mod content;
mod domain;
mod lane;
mod route;
mod schedule;
mod security;

use std::sync::Arc;

use blob::BlobStore;
use cluster::work::{Done, Held, Kind, Turn, Worker, zone::Item};
use dns::Resolver;
use env::{BoxFuture, Env};
use kv::Database;

use self::{lane::Lane, schedule::Schedule, security::Security};
use crate::{announce::Announcer, config, services::Services, signing::Signing, upkeep};

/// The worker of a node's queue.
pub(crate) struct Sender {
    parts: Arc<Parts>,
}

/// What every lane needs.
struct Parts {
    env: Env,
    db: Database,
    blobs: BlobStore,
    announcer: Announcer,
    signing: Signing,
    resolver: Resolver,
    security: Security,
    schedule: Schedule,
    config: config::Outbound,
    /// Our own name, as in EHLO.
    hostname: String,
}

impl Sender {
    pub(crate) fn new(services: &Services) -> Self {
        let config = services.config.outbound.clone();
        let parts = Parts {
            env: services.env.clone(),
            db: upkeep::background(services),
            blobs: services.blobs.clone(),
            announcer: services.announcer.clone(),
            signing: services.signing.clone(),
            resolver: services.resolver.clone(),
            security: Security::new(),
            schedule: Schedule::of(&config),
            hostname: services.config.hostname.clone(),
            config,
        };
        Self { parts: Arc::new(parts) }
    }
}

impl Worker for Sender {
    fn kind(&self) -> Kind {
        Kind::Outbound
    }

    fn zones_at_once(&self) -> usize {
        usize::try_from(self.parts.config.domains_at_once).unwrap_or(usize::MAX)
    }

    fn items_at_once(&self) -> usize {
        usize::try_from(self.parts.config.connections_per_domain_max).unwrap_or(usize::MAX)
    }

    /// One message outside of any lane: nobody asks for that, and it works all the same.
    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let lane = Lane::open(&self.parts, held).await?;
            lane.send(item).await
        })
    }

    fn work_zone<'a>(&'a self, turn: &'a Turn) -> BoxFuture<'a, ()> {
        Box::pin(lane::run(&self.parts, turn))
    }
}
