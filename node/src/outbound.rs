//! Sends what the outbound queue holds to other servers.
//!
//! A zone of [`Kind::Outbound`] is a destination domain, so one node at a time sends to it: it looks
//! up the domain's servers once, keeps connections to them, and learns once that they are away.
//!
//! | file | what it does |
//! |---|---|
//! | `lane.rs` | one turn at one domain: which messages, how many at once |
//! | `lane/delivery.rs` | one message of it, over connections that are kept |
//! | `lane/settling.rs` | the turn's end: what becomes of what did not leave |
//! | `local.rs` | what is for a domain that is served here |
//! | `domain.rs` | what the store knows of a domain that is in trouble |
//! | `route.rs` | from a domain to servers: as a setting says, or RFC 5321 §5.1 |
//! | `ourselves.rs` | who we are: mail does not go round in circles |
//! | `reach.rs` | from servers to a connection |
//! | `terms.rs` | what a server's TLS has to show: DANE, MTA-STS, REQUIRETLS |
//! | `sts.rs` | MTA-STS policies, found and kept |
//! | `https.rs` | one request to another domain's web server |
//! | `content.rs` | a message's bytes, its signatures in front |
//! | `connection.rs` | moves bytes between a socket and [`smtp::client::Client`] |
//! | `security.rs` | TLS to other servers: handshakes, and certificates held against what is demanded |
//! | `tally.rs` | how TLS went, counted by domain and day |
//! | `tls_reports.rs` | the reports of it (RFC 8460) |
//! | `attempt.rs` | one message over one connection |
//! | `conclude.rs` | the transaction that takes recipients out of the queue |
//! | `schedule.rs` | when to try again, when to give up |
//! | `term.rs` | the times of one message |
//! | `pace.rs` | how many messages at once, how many a minute |
//! | `orders.rs` | what administrators want done with what is queued |
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
pub(crate) mod domain;
mod https;
mod lane;
mod local;
pub(crate) mod orders;
mod ourselves;
mod pace;
mod reach;
mod route;
mod schedule;
mod security;
mod sts;
mod tally;
mod term;
mod terms;
#[cfg(test)]
mod testing;
mod tls_reports;

use std::sync::Arc;

use blob::BlobStore;
use cluster::work::{Done, Held, Kind, Turn, Worker, zone::Item};
use dns::Resolver;
use env::{BoxFuture, Env};
use kv::Database;
use tokio::sync::watch;

pub(crate) use self::tls_reports::TlsReporter;
use self::{lane::Lane, ourselves::Ourselves, schedule::Schedule, security::Security};
use crate::{
    announce::Announcer, config, deliver::Deliverer, metrics::Metrics, services::Services,
    settings::Settings, signing::Signing, upkeep,
};

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
    deliverer: Deliverer,
    signing: Signing,
    resolver: Resolver,
    security: Security,
    schedule: Schedule,
    config: config::Outbound,
    /// Our own name, as in EHLO.
    hostname: String,
    /// Where this node takes mail, by its configuration.
    ourselves: Ourselves,
    /// When domains whose rate is bounded may be sent to again.
    slots: pace::Slots,
    /// What is in force of the settings that all nodes share.
    settings: watch::Receiver<Arc<Settings>>,
    metrics: Metrics,
}

impl Sender {
    pub(crate) fn new(services: &Services) -> Self {
        Self { parts: Arc::new(Parts::new(services)) }
    }
}

impl Parts {
    fn new(services: &Services) -> Self {
        let config = services.config.outbound.clone();
        Self {
            env: services.env.clone(),
            db: upkeep::background(services),
            blobs: services.blobs.clone(),
            announcer: services.announcer.clone(),
            deliverer: services.deliverer.clone(),
            signing: services.signing.clone(),
            resolver: services.resolver.clone(),
            security: Security::new(&services.env, config.tls_roots.clone()),
            settings: services.settings.subscribe(),
            metrics: services.metrics.clone(),
            schedule: Schedule::of(&config),
            hostname: services.config.hostname.clone(),
            ourselves: Ourselves::of(&services.config),
            slots: pace::Slots::default(),
            config,
        }
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
