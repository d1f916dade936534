//! Abuse control: limits of rates, greylisting, lists in DNS, checks of names, delays and blocks.
//!
//! Everything is a setting ([`crate::settings::guard`]) that is in force on all nodes at once, and
//! everything that could lose or delay good mail is off until it is set. What is done shows in the
//! metric `rookery_guard_actions_total`, in the log, and in the field `Rookery-Filter` of messages.
//!
//! - Counters, greylist and blocks are in the store, so that all nodes act as one. With everything off
//!   nothing is read or written but a look at the number of the blocks' last change now and then.
//! - A message costs one transaction more where a limit or greylisting is on (`Guard::admit`); a
//!   connection to port 25 one where its rate is limited. Events that lead to blocks are gathered and
//!   counted some times a second at most, however many come (`event`).
//! - Who is blocked is refused when the connection is accepted, from memory (`blocked`).
//! - Nobody in `guard.trusted_networks` is held up, and no authenticated client is judged by where
//!   it comes from.
//!
//! The SMTP driver's side is `smtp/visitor.rs`.

pub(crate) mod block;
mod blocked;
mod event;
pub(crate) mod greylist;
mod lookup;
pub mod network;
pub(crate) mod rate;
pub(crate) mod score;
mod sweep;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dns::Resolver;
use env::{Env, Task};
use kv::{Database, Transaction};
use mail::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use event::Event;
pub(crate) use sweep::GuardSweep;

use crate::{
    limits,
    metrics::{GuardAction, Metrics},
    settings::{
        Settings,
        guard::{Guard as Rules, Mode},
    },
};
use blocked::Blocked;
use event::Events;
use greylist::Decision;
use network::Network;
use rate::{Charge, Scope, Subjects, Unit};
use score::Score;

/// A node's part in abuse control. Cloning is one reference count.
#[derive(Clone)]
pub(crate) struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    /// For what the node does by itself.
    db: Database,
    /// For whoever waits for mail to be taken.
    db_in_time: Database,
    resolver: Resolver,
    hostname: String,
    settings: watch::Receiver<Arc<Settings>>,
    metrics: Metrics,
    blocked: Blocked,
    events: Events,
    lookups: Arc<Semaphore>,
    held_up: AtomicU64,
}

/// A message before its content.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    pub(crate) subjects: &'a Subjects,
    pub(crate) recipients: u64,
    /// Who greylisting is for, if it is for anybody.
    pub(crate) greylisted: Option<Stranger<'a>>,
}

/// Whose mail may be put off.
#[derive(Debug)]
pub(crate) struct Stranger<'a> {
    pub(crate) peer: IpAddr,
    pub(crate) helo: &'a str,
    /// Empty for none.
    pub(crate) sender: &'a str,
    /// In their canonical form.
    pub(crate) recipients: &'a [String],
}

/// What becomes of a message before its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It is taken.
    Yes(score::Greylist),
    /// A limit is reached.
    Exceeds(Scope),
    /// It is to come again.
    PutOff,
}

/// A connection whose replies are held back; it counts until this is dropped.
pub(crate) struct HeldUp {
    shared: Arc<Shared>,
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        let left = self.shared.held_up.fetch_sub(1, Ordering::Relaxed) - 1;
        self.shared.metrics.guard_tarpitted(left);
    }
}

impl Guard {
    pub(crate) fn new(
        env: &Env,
        (db, db_in_time): (&Database, &Database),
        resolver: &Resolver,
        hostname: &str,
        settings: watch::Receiver<Arc<Settings>>,
        metrics: &Metrics,
    ) -> Self {
        let shared = Shared {
            env: env.clone(),
            db: db.counted_apart(),
            db_in_time: db_in_time.clone(),
            resolver: resolver.clone(),
            hostname: hostname.to_owned(),
            settings,
            metrics: metrics.clone(),
            blocked: Blocked::default(),
            events: Events::default(),
            lookups: Arc::new(Semaphore::new(limits::GUARD_LOOKUPS_MAX)),
            held_up: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What is in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.shared.settings.borrow())
    }

    pub(crate) fn did(&self, action: GuardAction) {
        self.shared.metrics.guard(action);
    }

    /// Whether a connection from there is refused.
    pub(crate) fn blocks(&self, peer: IpAddr) -> bool {
        let shared = &self.shared;
        shared.blocked.blocks(peer, shared.env.wall()) && !self.settings().guard.trusts(peer)
    }

    /// What has to go on beside the sessions, until it is dropped.
    pub(crate) fn start(&self) -> [Task<()>; 2] {
        let shared = &self.shared;
        let (env, db, metrics) = (&shared.env, shared.db.clone(), shared.metrics.clone());
        let follow = shared.blocked.clone().follow(env.clone(), db, metrics);
        [env.spawn("blocks", follow), env.spawn("guard-events", event::count(self.clone()))]
    }

    /// Something happened that is held against a client.
    pub(crate) fn note(&self, peer: IpAddr, event: Event) {
        let settings = self.settings();
        let limit = settings.guard.block.events_per_hour[event as usize];
        if limit > 0
            && !settings.guard.trusts(peer)
            && !self.shared.events.note(Network::client(peer), event)
        {
            self.did(GuardAction::EventsDropped);
        }
    }

    /// Whether a client may connect as often as it does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn connected(&self, subjects: &Subjects) -> Result<Option<Scope>, StoreError> {
        let rates = self.settings().guard.rates;
        let now = self.shared.env.wall();
        let charges = &rate::charges(&rates, subjects, &[(Unit::Connections, 1)], now);
        if charges.is_empty() {
            return Ok(None);
        }
        let run = |tx: Transaction| async move { charged(&tx, charges).await };
        let exceeded = self.shared.db_in_time.run(run).await?;
        self.told(exceeded);
        Ok(exceeded)
    }

    /// Decides on a message whose recipients are known, in one transaction, or in none where
    /// nothing is to be asked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn admit(&self, message: &Admission<'_>) -> Result<Admitted, StoreError> {
        let settings = self.settings();
        let rules = &settings.guard.greylist;
        let now = self.shared.env.wall();
        let amounts = [(Unit::Messages, 1), (Unit::Recipients, message.recipients)];
        let charges = &rate::charges(&settings.guard.rates, message.subjects, &amounts, now);
        let stranger = message.greylisted.as_ref();
        let stranger = stranger.filter(|it| rules.mode == Mode::On && !it.recipients.is_empty());
        if charges.is_empty() && stranger.is_none() {
            return Ok(Admitted::Yes(score::Greylist::Unasked));
        }
        let run = |tx: Transaction| async move {
            let exceeded = rate::exceeded(&tx, charges).await?;
            if exceeded.is_some() {
                return Ok::<_, StoreError>((exceeded, Decision::Known));
            }
            let decision = match stranger {
                None => Decision::Known,
                Some(it) => {
                    let network = Network::neighbourhood(it.peer);
                    greylist::check(&tx, rules, network, it.sender, it.recipients, now).await?
                }
            };
            if decision != Decision::PutOff {
                rate::charge(&tx, charges);
            }
            Ok((None, decision))
        };
        let (exceeded, decision) = self.shared.db_in_time.run(run).await?;
        self.told(exceeded);
        match (exceeded, decision, stranger) {
            (Some(scope), _, _) => Ok(Admitted::Exceeds(scope)),
            (None, Decision::PutOff, Some(it)) => self.put_off(it, charges, rules.spf_pass).await,
            (None, Decision::CameBack, _) => {
                self.did(GuardAction::GreylistPassed);
                Ok(Admitted::Yes(score::Greylist::Passed))
            }
            _ => Ok(Admitted::Yes(score::Greylist::Unasked)),
        }
    }

    /// A stranger's message: put off, unless its sender's domain vouches for the client.
    async fn put_off(
        &self,
        stranger: &Stranger<'_>,
        charges: &[Charge],
        spf_pass: Mode,
    ) -> Result<Admitted, StoreError> {
        if spf_pass == Mode::On && lookup::spf_passes(&self.shared, stranger).await {
            self.did(GuardAction::GreylistSpf);
            if !charges.is_empty() {
                let run = |tx: Transaction| async move {
                    rate::charge(&tx, charges);
                    Ok::<_, StoreError>(())
                };
                self.shared.db_in_time.run(run).await?;
            }
            return Ok(Admitted::Yes(score::Greylist::Unasked));
        }
        self.did(GuardAction::Greylisted);
        Ok(Admitted::PutOff)
    }

    fn told(&self, exceeded: Option<Scope>) {
        match exceeded {
            None => {}
            Some(Scope::Account) => self.did(GuardAction::RateAccount),
            Some(Scope::Sender) => self.did(GuardAction::RateSender),
            Some(Scope::Address) => self.did(GuardAction::RateAddress),
            Some(Scope::Network) => self.did(GuardAction::RateNetwork),
        }
    }

    /// Begins to find out what is known of an address; `None` where nothing is to be asked, or
    /// where too many are being asked about.
    pub(crate) fn look_up_address(&self, peer: IpAddr) -> Option<Task<Score>> {
        let rules = self.settings();
        let guard = &rules.guard;
        let wanted = guard.weights.no_ptr > 0
            || guard.weights.ptr_unconfirmed > 0
            || !guard.address_zones.is_empty();
        let permit = self.permit(wanted)?;
        let shared = Arc::clone(&self.shared);
        Some(self.shared.env.spawn("guard-lookup", async move {
            let _permit = permit;
            lookup::address(&shared, &rules.guard, peer).await
        }))
    }

    /// The same of the names that a client gives: its own, and its sender's domain.
    pub(crate) fn look_up_names(&self, helo: &str, sender: Option<&str>) -> Option<Task<Score>> {
        let rules = self.settings();
        let weights = &rules.guard.weights;
        let wanted = weights.ehlo_unresolvable > 0
            || weights.ehlo_literal > 0
            || weights.ehlo_ours > 0
            || !rules.guard.domain_zones.is_empty();
        let (helo, sender) = (helo.to_owned(), sender.map(str::to_owned));
        let permit = self.permit(wanted)?;
        let shared = Arc::clone(&self.shared);
        Some(self.shared.env.spawn("guard-lookup", async move {
            let _permit = permit;
            lookup::names(&shared, &rules.guard, &helo, sender.as_deref()).await
        }))
    }

    fn permit(&self, wanted: bool) -> Option<OwnedSemaphorePermit> {
        if !wanted {
            return None;
        }
        let permit = Arc::clone(&self.shared.lookups).try_acquire_owned().ok();
        if permit.is_none() {
            self.did(GuardAction::LookupsSkipped);
        }
        permit
    }

    /// Holds a connection's reply back, where there is room for it.
    pub(crate) fn hold_up(&self) -> Option<HeldUp> {
        let shared = &self.shared;
        let most = self.settings().guard.tarpit.connections_max;
        let taken = shared.held_up.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            (held < most).then_some(held + 1)
        });
        let Ok(before) = taken else {
            self.did(GuardAction::TarpitFull);
            return None;
        };
        self.did(GuardAction::Tarpitted);
        shared.metrics.guard_tarpitted(before + 1);
        Some(HeldUp { shared: Arc::clone(shared) })
    }
}

/// Counts what is allowed, or tells whose limit is reached.
async fn charged(tx: &Transaction, charges: &[Charge]) -> Result<Option<Scope>, StoreError> {
    let exceeded = rate::exceeded(tx, charges).await?;
    if exceeded.is_none() {
        rate::charge(tx, charges);
    }
    Ok(exceeded)
}

/// How long one reply is held back, of a connection that has been held up for so long.
pub(crate) fn delay(rules: &Rules, refusals: u32, score: i64, held_up: Duration) -> Duration {
    let tarpit = &rules.tarpit;
    let bad = u64::from(refusals) > tarpit.after_errors
        || (tarpit.score > 0 && i64::try_from(tarpit.score).is_ok_and(|most| score >= most));
    if !bad {
        return Duration::ZERO;
    }
    Duration::from_secs(tarpit.seconds).min(limits::TARPIT_TIME_MAX.saturating_sub(held_up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_held_back_after_errors_or_by_score_and_not_for_ever() {
        let mut rules = Rules::default();
        let at = |rules: &Rules, refusals, score, held_up| {
            delay(rules, refusals, score, Duration::from_secs(held_up)).as_secs()
        };
        assert_eq!(at(&rules, 99, 99, 0), 0, "off");
        rules.tarpit.seconds = 7;
        assert_eq!(at(&rules, 3, 99, 0), 0);
        assert_eq!(at(&rules, 4, 0, 0), 7);
        assert_eq!(at(&rules, 4, 0, limits::TARPIT_TIME_MAX.as_secs() - 2), 2);
        assert_eq!(at(&rules, 4, 0, limits::TARPIT_TIME_MAX.as_secs() + 2), 0);
        rules.tarpit.score = 5;
        assert_eq!((at(&rules, 0, 4, 0), at(&rules, 0, 5, 0)), (0, 7));
    }
}
