//! One turn at one domain.
//!
//! The first connection is a probe: only once a server has answered do more messages leave at the
//! same time, twice as many after each success, half as many where a server turns one away. While
//! no server can be reached the domain's messages are put off together, without a try of their
//! own, and whoever is late or expired is reported.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cluster::work::{Done, Held, PutOff, Turn, zone};
use env::Timestamp;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mail::{StoreError, keys::encode_over};
use tokio::sync::OnceCell;

use super::{
    Parts,
    attempt::{self, Reports, Verdict},
    conclude::{self, Task, of_trouble},
    connection::{Connection, SendError},
    domain::{self, DomainTrouble},
    reach::{Unreached, Way},
    route::{self, NoRoute, Route},
    schedule::later,
    terms::Need,
};
use crate::{deliver::Trouble, limits};

/// A domain while this node has claimed it.
pub(super) struct Lane<'a> {
    parts: &'a Parts,
    held: &'a Held,
    way: Way<'a>,
    route: OnceCell<Result<Route, NoRoute>>,
    state: Mutex<State>,
}

struct State {
    idle: Vec<Connection>,
    trouble: Option<DomainTrouble>,
    reach: Reach,
    /// Messages that may be on their way at once.
    width: usize,
}

/// Whether the domain's servers can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Unknown,
    Reached,
    Down,
}

/// Works on a domain until nothing of it is due.
pub(super) async fn run(parts: &Parts, turn: &Turn) {
    let lane = match Lane::open(parts, turn.held()).await {
        Ok(lane) => lane,
        Err(reason) => {
            tracing::warn!(domain = turn.held().zone, reason, "a domain is not sent to");
            return;
        }
    };
    let mut flying = FuturesUnordered::new();
    let mut on_their_way = BTreeSet::new();
    let mut ready = VecDeque::new();
    loop {
        if turn.goes_on() && lane.takes(flying.len()) {
            if ready.is_empty() {
                match lane.read_due(&on_their_way).await {
                    Ok(found) => ready.extend(found),
                    Err(error) => tracing::warn!(%error, "a domain's messages cannot be read"),
                }
            }
            if let Some(item) = ready.pop_front() {
                on_their_way.insert(item.id.clone());
                let lane = &lane;
                flying.push(Box::pin(async move {
                    turn.note(&item, Box::pin(lane.send(&item))).await;
                    item.id
                }));
                continue;
            }
        }
        match flying.next().await {
            Some(id) => on_their_way.remove(&id),
            None => break,
        };
    }
    drop(flying);
    lane.settle(turn).await;
    lane.close().await;
    lane.way.conclude().await;
}

impl<'a> Lane<'a> {
    /// Reads what is known of the domain.
    pub(super) async fn open(parts: &'a Parts, held: &'a Held) -> Result<Self, String> {
        let zone = &held.zone;
        let trouble = parts.db.run(|tx| async move { domain::trouble(&tx, zone).await }).await;
        let trouble = trouble.map_err(|error| error.to_string())?;
        let now = parts.env.wall();
        let reach = match &trouble {
            Some(trouble) if trouble.failures > 0 && trouble.retry_at() > now => Reach::Down,
            _ => Reach::Unknown,
        };
        let state = State { idle: Vec::new(), trouble, reach, width: 1 };
        let way = Way::new(parts, zone);
        Ok(Self { parts, held, way, route: OnceCell::new(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more message may leave beside so many.
    fn takes(&self, flying: usize) -> bool {
        let state = self.state();
        state.reach != Reach::Down && flying < state.width
    }

    /// What may leave now, but for what is on its way. A domain that can be reached again sends
    /// what has waited for that, too.
    async fn read_due(
        &self,
        on_their_way: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<zone::Item>, StoreError> {
        let (kind, zone) = (self.held.kind, &self.held.zone);
        let limit = cluster::limits::ITEMS_PER_READ;
        let read = |tx| async move { zone::first_items(&tx, kind, zone, limit).await };
        let mut items = self.parts.db.run(read).await?;
        let now = self.parts.env.wall();
        let recovers = self.recovers();
        items.retain(|item| {
            let may_go = item.due <= now || (recovers && conclude::waits_for_domain(item));
            may_go && !on_their_way.contains(&item.id)
        });
        Ok(items)
    }

    /// Whether the domain was in trouble and is reached again.
    fn recovers(&self) -> bool {
        let state = self.state();
        state.reach == Reach::Reached && state.trouble.is_some()
    }

    /// Sends one message to its recipients in the domain.
    pub(super) async fn send(&self, item: &zone::Item) -> Result<Done, String> {
        let Some(task) = Task::read(self.parts, item).await? else { return Ok(Done::Finished) };
        let verdicts = match self.deliver(&task).await {
            Ok(verdicts) => verdicts,
            Err(SendError::Unclaimed) => return Err("the claim is lost".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let retry_at = self.down_until();
        conclude::conclude(self.parts, self.held, item, task, verdicts, retry_at).await?;
        Ok(Done::Completed)
    }

    fn down_until(&self) -> Option<Timestamp> {
        let state = self.state();
        match (&state.trouble, state.reach) {
            (Some(trouble), Reach::Down) => Some(trouble.retry_at()),
            _ => None,
        }
    }

    /// One verdict for each recipient.
    async fn deliver(&self, task: &Task) -> Result<Vec<Verdict>, SendError> {
        let recipients = &task.item.recipients;
        let of_all = |verdict: Verdict| vec![verdict; recipients.len()];
        let route = match self.route().await {
            Ok(route) => route,
            Err(NoRoute::Never(trouble)) => return Ok(of_all(Verdict::Failed(trouble.clone()))),
            Err(NoRoute::Now(trouble)) => {
                self.is_down(trouble).await;
                return Ok(of_all(Verdict::Deferred(trouble.clone())));
            }
        };
        let mut verdicts = Vec::with_capacity(recipients.len());
        while verdicts.len() < recipients.len() {
            let rest = &recipients[verdicts.len()..];
            let some = &rest[..rest.len().min(limits::OUTBOUND_RECIPIENTS_MAX)];
            match attempt::envelope(&task.record, some) {
                Err(trouble) => {
                    verdicts.extend(vec![Verdict::Failed(trouble); some.len()]);
                }
                Ok(_) => verdicts
                    .extend(self.deliver_some(task, route, some.len(), verdicts.len()).await?),
            }
        }
        Ok(verdicts)
    }

    /// Sends to `count` recipients from the one at `first` on, over a connection that is open or a
    /// new one.
    async fn deliver_some(
        &self,
        task: &Task,
        route: &Route,
        count: usize,
        first: usize,
    ) -> Result<Vec<Verdict>, SendError> {
        let some = &task.item.recipients[first..first + count];
        let need = Need::of(&task.record);
        loop {
            let reused = self.idle(need);
            let is_reused = reused.is_some();
            let connected = match reused {
                Some(connection) => Ok(connection),
                None => self.connect(route, need).await,
            };
            let mut connection = match connected {
                Ok(connection) => connection,
                Err(unreached) => {
                    if unreached.is_domains() {
                        self.turned_away(&unreached.trouble).await;
                    }
                    return Ok(vec![unreached.verdict(); some.len()]);
                }
            };
            let verdicts = self.over(&mut connection, task, some).await;
            let is_broken = !connection.is_ready();
            if !is_broken {
                self.state().idle.push(connection);
            }
            let verdicts = verdicts?;
            // The server may have closed a connection that it had waited on for long.
            let nothing_sent = verdicts.iter().all(attempt::is_lost);
            if is_reused && is_broken && nothing_sent {
                continue;
            }
            return Ok(verdicts);
        }
    }

    /// A connection that is open and may carry what needs this.
    fn idle(&self, need: Need) -> Option<Connection> {
        let idle = &mut self.state().idle;
        let place = idle.iter().rposition(|connection| connection.serves(need))?;
        Some(idle.remove(place))
    }

    async fn over(
        &self,
        connection: &mut Connection,
        task: &Task,
        some: &[crate::deliver::outbound::OutboundRecipient],
    ) -> Result<Vec<Verdict>, SendError> {
        let host = connection.host.clone();
        let transaction = match attempt::envelope(&task.record, some) {
            Ok(transaction) => transaction,
            Err(trouble) => return Ok(vec![Verdict::Failed(trouble); some.len()]),
        };
        let content = self.parts.blobs.read(task.blob, task.record.skip..u64::MAX).await;
        let content = content.map_err(SendError::Blob)?;
        let reports = if connection.reports() { Reports::Yes } else { Reports::No };
        let may_end = || self.held.fence.is_live();
        match connection.send(&self.parts.security, transaction, content, may_end).await {
            Ok(outcome) => Ok(attempt::verdicts(outcome, &host, reports)),
            Err(SendError::Begin(error)) => Ok(vec![attempt::unfit(error, &host); some.len()]),
            Err(error) => Err(error),
        }
    }

    async fn route(&self) -> &Result<Route, NoRoute> {
        let Parts { env, resolver, hostname, settings, .. } = self.parts;
        let zone = &self.held.zone;
        let path = settings.borrow().routes.path(zone);
        self.route.get_or_init(|| route::by(path, env, resolver, zone, hostname)).await
    }

    /// A new connection to the first server that answers.
    async fn connect(&self, route: &Route, need: Need) -> Result<Connection, Unreached> {
        let connection = self.way.connect(route, need).await?;
        self.is_reached().await;
        Ok(connection)
    }

    /// A server has answered.
    async fn is_reached(&self) {
        let recovered = {
            let mut state = self.state();
            let first = state.reach != Reach::Reached;
            state.reach = Reach::Reached;
            state.width = (state.width * 2).min(self.width_max());
            let mut trouble = state.trouble.clone();
            match &mut trouble {
                Some(trouble) if first && trouble.failures > 0 => {
                    trouble.failures = 0;
                    trouble.retry_ms = 0;
                    state.trouble = Some(trouble.clone());
                    Some(trouble.clone())
                }
                _ => None,
            }
        };
        if let Some(recovered) = recovered {
            env::sometimes!("a domain can be reached again");
            self.note(Some(&recovered)).await;
        }
    }

    fn width_max(&self) -> usize {
        usize::try_from(self.parts.config.connections_per_domain_max).unwrap_or(usize::MAX).max(1)
    }

    /// A connection did not come about: fewer at once where others did, none where none did.
    async fn turned_away(&self, trouble: &Trouble) {
        let is_reached = {
            let mut state = self.state();
            state.width = (state.width / 2).max(1);
            state.reach == Reach::Reached
        };
        if !is_reached {
            self.is_down(trouble).await;
        }
    }

    /// No server can be reached: the domain waits.
    async fn is_down(&self, trouble: &Trouble) {
        let (env, schedule) = (&self.parts.env, &self.parts.schedule);
        let now = env.wall();
        let noted = {
            let mut state = self.state();
            if state.reach == Reach::Down {
                return;
            }
            state.reach = Reach::Down;
            let held = state.trouble.clone().unwrap_or_default();
            let failures = held.failures.saturating_add(1);
            let noted = DomainTrouble {
                failures,
                since_ms: if held.failures == 0 { now.unix_ms() } else { held.since_ms },
                retry_ms: schedule.next(env, failures, now).unix_ms(),
                status: trouble.status.clone(),
                reason: trouble.words.clone(),
            };
            state.trouble = Some(noted.clone());
            noted
        };
        let (domain, failures) = (&self.held.zone, noted.failures);
        tracing::info!(domain, failures, reason = noted.reason, "a domain cannot be reached");
        env::sometimes!("a domain could not be reached");
        self.note(Some(&noted)).await;
    }

    async fn note(&self, trouble: Option<&DomainTrouble>) {
        let (fence, zone) = (&self.held.fence, &self.held.zone);
        let note = |tx| async move { domain::note(&tx, fence, zone, trouble).await };
        if let Err(error) = self.parts.db.run(note).await {
            tracing::warn!(domain = zone, %error, "what is known of a domain is not noted");
        }
    }

    /// The turn's end: a domain that is down puts off what is due; one that has sent all that
    /// waited for it is in no trouble any more.
    async fn settle(&self, turn: &Turn) {
        let (reach, trouble) = {
            let state = self.state();
            (state.reach, state.trouble.clone())
        };
        let settled = match (reach, &trouble) {
            (Reach::Down, Some(trouble)) => self.put_off_due(turn, trouble).await,
            (Reach::Reached, Some(_)) => self.recover(turn).await,
            _ => Ok(()),
        };
        if let Err(error) = settled {
            tracing::warn!(domain = self.held.zone, error, "a domain's messages are not put off");
        }
    }

    async fn put_off_due(&self, turn: &Turn, trouble: &DomainTrouble) -> Result<(), String> {
        let env = &self.parts.env;
        while turn.goes_on() {
            let due = self.read_due(&BTreeSet::new()).await.map_err(|error| error.to_string())?;
            if due.is_empty() {
                return Ok(());
            }
            let now = env.wall();
            let mut together = Vec::new();
            for item in due {
                let Ok(mut message) = conclude::decode(&item) else { continue };
                let received = Timestamp::from_unix_ms(message.received_ms);
                let schedule = &self.parts.schedule;
                let is_late = schedule.late(received) <= now && !message.is_late_told;
                if message.received_ms == 0 || is_late || schedule.end(received) <= now {
                    let Some(task) = Task::read(self.parts, &item).await? else { continue };
                    let verdict = Verdict::Deferred(of_trouble(trouble));
                    let verdicts = vec![verdict; task.item.recipients.len()];
                    let (parts, held, at) = (self.parts, self.held, Some(trouble.retry_at()));
                    conclude::conclude(parts, held, &item, task, verdicts, at).await?;
                    continue;
                }
                message.waits_for_domain = true;
                let spread = env.random_below(limits::DOMAIN_SPREAD_MS);
                let due = later(trouble.retry_at(), std::time::Duration::from_millis(spread));
                let due = due.min(schedule.end(received)).max(later(now, limits::PUT_OFF_MIN));
                let payload = encode_over(&message, &item.payload);
                together.push(PutOff { item, due, payload });
            }
            turn.put_off(&together).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Nothing waits for the domain any more; or something does, and comes next.
    async fn recover(&self, turn: &Turn) -> Result<(), String> {
        let waiting = self.read_due(&BTreeSet::new()).await.map_err(|error| error.to_string())?;
        match waiting.into_iter().next() {
            None => self.note(None).await,
            Some(item) => {
                let (due, payload) = (self.parts.env.wall(), item.payload.to_vec());
                let first = [PutOff { item, due, payload }];
                turn.put_off(&first).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    async fn close(&self) {
        let idle = std::mem::take(&mut self.state().idle);
        let security = &self.parts.security;
        futures_util::future::join_all(idle.into_iter().map(|it| it.close(security))).await;
    }
}
