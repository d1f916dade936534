//! How one message is sent: to some of its recipients after the others, over connections that are kept.

use std::cmp::Reverse;

use cluster::{
    NodeName,
    work::{Done, PutOff, zone},
};

use super::{Lane, Reach};
use crate::{
    deliver::outbound::{LATE_NOTIFIES, OutboundRecipient},
    limits,
    outbound::{
        Parts,
        attempt::{self, Reports, Said, Verdict},
        conclude::{self, ReadError, Task, Unreported, Waits},
        connection::{Connection, SendError},
        content::Content,
        reach::{Scope, Unreached},
        route::{self, NoRoute, Route},
        term,
        terms::Need,
    },
};

/// What came of one transaction.
struct Tried {
    verdicts: Vec<Verdict>,
    said: Said,
}

/// The servers that have put some recipients of a message off, or cannot carry it: nothing of it is there,
/// and another may take it at once (RFC 5321 §5.1).
#[derive(Default)]
struct Passed {
    hosts: Vec<String>,
    /// What it comes to where no other takes it.
    verdicts: Vec<Verdict>,
}

impl Passed {
    fn add(&mut self, host: String, verdicts: Vec<Verdict>) {
        self.hosts.push(host);
        // Who cannot carry it says nothing of those that may, later.
        let is_final = |it: &Verdict| matches!(it, Verdict::Failed(_));
        if self.verdicts.iter().all(is_final) || !verdicts.iter().any(is_final) {
            self.verdicts = verdicts;
        }
    }

    /// Whether none of a route's servers is to be asked any more.
    fn are_all(&self, route: &Route) -> bool {
        let most = limits::HOSTS_OFFERED_MAX;
        self.hosts.len() >= most || route.hosts.iter().all(|host| self.hosts.contains(host))
    }

    /// What it comes to where the others cannot be reached.
    fn but_for(self, unreached: Unreached, count: usize) -> Vec<Verdict> {
        match self.verdicts.first() {
            Some(Verdict::Deferred(_)) => self.verdicts,
            _ => vec![unreached.verdict(); count],
        }
    }
}

impl Lane<'_> {
    /// Sends one message to its recipients in the domain.
    pub(in crate::outbound) async fn send(&self, item: &zone::Item) -> Result<Done, String> {
        let task = match Task::read(self.parts, self.held, item).await {
            Ok(Some(task)) => task,
            Ok(None) => return Ok(Done::Finished),
            Err(ReadError::Damaged(reason)) => {
                let PutOff { due, payload, .. } = self.set_aside(item.clone(), &reason);
                return Ok(Done::Again { due, payload });
            }
            Err(error) => return Err(error.to_string()),
        };
        if task.is_domain_held {
            // It stays as it is; the turn's end sees to it.
            self.state().is_held = true;
            return Ok(Done::Completed);
        }
        let verdicts = match self.deliver(&task).await {
            Ok(verdicts) => verdicts,
            Err(SendError::Unclaimed) => return Err("the claim is lost".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let waits = self.waits(&task);
        let (parts, held, unreported) = (self.parts, self.held, Unreported::Waits);
        conclude::conclude(parts, held, item, task, verdicts, waits, unreported).await?;
        Ok(Done::Completed)
    }

    /// What a message waits for that does not leave now.
    fn waits(&self, task: &Task) -> Waits {
        let state = self.state();
        let goes_all_the_same = state.is_down_by_tls() && Need::of(&task.record) == Need::Nothing;
        match state.reach {
            Reach::Down if !goes_all_the_same => Waits::ForDomain,
            _ => Waits::ForItsTime,
        }
    }

    /// One verdict for each recipient. An error tells nothing of any of them.
    async fn deliver(&self, task: &Task) -> Result<Vec<Verdict>, SendError> {
        let recipients = &task.item.recipients;
        if recipients.is_empty() {
            // All have it; only their reports are owed.
            return Ok(Vec::new());
        }
        let of_all = |verdict: Verdict| vec![verdict; recipients.len()];
        if let Some(trouble) = term::overdue(&task.record, self.parts.env.wall()) {
            return Ok(of_all(Verdict::Failed(trouble)));
        }
        if self.is_here {
            self.is_reached().await;
            let verdicts = self.deliver_here(task).await;
            self.adapt(&verdicts);
            return Ok(verdicts);
        }
        let route = match self.route().await {
            Ok(route) => route,
            Err(NoRoute::Never(trouble)) => return Ok(of_all(Verdict::Failed(trouble.clone()))),
            Err(NoRoute::Now(trouble)) => {
                self.is_down(trouble, Scope::All).await;
                return Ok(of_all(Verdict::Deferred(trouble.clone())));
            }
        };
        let mut verdicts = Vec::with_capacity(recipients.len());
        while verdicts.len() < recipients.len() {
            let rest = &recipients[verdicts.len()..];
            let some = &rest[..rest.len().min(self.state().recipients_max)];
            let count = match attempt::writable(&task.record, some, self.parts.env.wall()) {
                Ok(count) => count,
                Err(trouble) => {
                    verdicts.push(Verdict::Failed(trouble));
                    continue;
                }
            };
            match self.deliver_some(task, route, count, verdicts.len()).await {
                Ok(of_some) => {
                    verdicts.extend(of_some);
                    // The rest would go and see the same.
                    if self.waits(task) == Waits::ForDomain
                        && let Some(last @ Verdict::Deferred(_)) = verdicts.last().cloned()
                    {
                        verdicts.resize(recipients.len(), last);
                    }
                }
                Err(SendError::Unclaimed) if verdicts.is_empty() => {
                    return Err(SendError::Unclaimed);
                }
                // Who has it must not get it again: that is noted as long as it can be,
                // also where our claim is in doubt.
                Err(error) => verdicts.resize(recipients.len(), attempt::unsent(&error)),
            }
        }
        Ok(verdicts)
    }

    /// Sends to `count` recipients from the one at `first` on, or to some of them, over a connection
    /// that is open or a new one. A server that takes the message for nobody now is not the last that is
    /// asked. What became of the first of them, at least of one.
    async fn deliver_some(
        &self,
        task: &Task,
        route: &Route,
        count: usize,
        first: usize,
    ) -> Result<Vec<Verdict>, SendError> {
        let some = &task.item.recipients[first..first + count];
        let need = Need::of(&task.record);
        let mut passed = Passed::default();
        loop {
            self.close_exhausted().await;
            let reused = self.idle(need, route, &passed.hosts);
            let is_reused = reused.is_some();
            let connected = match reused {
                Some(connection) => Ok(connection),
                None => self.connect(route, need, &passed.hosts).await,
            };
            let mut connection = match connected {
                Ok(connection) => connection,
                Err(unreached) if !passed.hosts.is_empty() => {
                    let verdicts = passed.but_for(unreached, some.len());
                    self.adapt(&verdicts);
                    return Ok(verdicts);
                }
                Err(unreached) => {
                    if unreached.is_domains() {
                        self.turned_away(&unreached).await;
                    }
                    return Ok(vec![unreached.verdict(); some.len()]);
                }
            };
            let most = connection.recipients_max().unwrap_or(usize::MAX);
            let some = &some[..some.len().min(most)];
            let tried = self.over(&mut connection, task, some).await;
            let (is_broken, host) = (!connection.is_ready(), connection.host.clone());
            if !is_broken {
                self.state().idle.push(connection);
            }
            let Tried { verdicts, said } = tried?;
            // The server may have closed a connection that it had waited on for long, or that had
            // as many messages as it wants.
            if is_reused && is_broken && said == Said::Goodbye {
                continue;
            }
            let verdicts = if said == Said::Verdict {
                verdicts
            } else {
                passed.add(host, verdicts);
                if !passed.are_all(route) {
                    env::sometimes!("a server put a message off, and the next one was asked");
                    continue;
                }
                passed.verdicts
            };
            self.adapt(&verdicts);
            return Ok(verdicts);
        }
    }

    /// Closes connections whose servers take no more messages over them. Here, because whoever has
    /// delivered a message must not wait for a farewell before noting it.
    async fn close_exhausted(&self) {
        let exhausted: Vec<_> = self.state().idle.extract_if(.., |it| it.is_exhausted()).collect();
        for connection in exhausted {
            connection.close(&self.parts.security).await;
        }
    }

    /// A connection that is open and may carry what needs this: to the server that comes first, and of
    /// those the one that was used last.
    fn idle(&self, need: Need, route: &Route, passed: &[String]) -> Option<Connection> {
        let idle = &mut self.state().idle;
        let fits = |it: &Connection| it.serves(need) && !passed.contains(&it.host);
        let place = |it: &Connection| route.hosts.iter().position(|host| *host == it.host);
        let fitting = idle.iter().enumerate().filter(|(_, it)| fits(it));
        let (at, _) =
            fitting.max_by_key(|(_, it)| Reverse(place(it).unwrap_or(route.hosts.len())))?;
        Some(idle.remove(at))
    }

    async fn over(
        &self,
        connection: &mut Connection,
        task: &Task,
        some: &[OutboundRecipient],
    ) -> Result<Tried, SendError> {
        let spoken = |verdicts| Tried { verdicts, said: Said::Verdict };
        let host = connection.host.clone();
        let transaction = match attempt::envelope(&task.record, some, self.parts.env.wall()) {
            Ok(transaction) => transaction,
            Err(trouble) => return Ok(spoken(vec![Verdict::Failed(trouble); some.len()])),
        };
        let content = self.parts.blobs.read(task.blob, task.record.skip..u64::MAX).await;
        let content = Content::new(&task.record.prepend, content.map_err(SendError::Blob)?);
        let record = &task.record;
        let is_traced = record.deliver_by_mode != 0 && record.deliver_by_trace;
        let reports = match (connection.keeps_time(), connection.reports()) {
            _ if is_traced => Reports::Untimed,
            (false, _) if record.deliver_by_mode == LATE_NOTIFIES => Reports::Untimed,
            (_, true) => Reports::Yes,
            (_, false) => Reports::No,
        };
        let may_end = || self.held.fence.is_live();
        match connection.send(&self.parts.security, transaction, content, may_end).await {
            Ok(mut outcome) => {
                let left = outcome.recipients.len() - attempt::crowded_out(&outcome);
                if left < outcome.recipients.len() {
                    // RFC 5321 §4.5.3.1.10: they come in a transaction of their own.
                    outcome.recipients.truncate(left);
                    self.state().recipients_max = left;
                }
                let said = attempt::said(&outcome);
                Ok(Tried { verdicts: attempt::verdicts(outcome, &host, reports), said })
            }
            Err(SendError::Begin(error)) => {
                let said = attempt::said_at_beginning(&error);
                let verdict = attempt::unfit(error, &host);
                Ok(Tried { verdicts: vec![verdict; some.len()], said })
            }
            Err(error) => Err(error),
        }
    }

    async fn route(&self) -> &Result<Route, NoRoute> {
        let Parts { env, resolver, ourselves, settings, .. } = self.parts;
        let zone = &self.held.zone;
        let find = || async {
            let path = settings.borrow().routes.path(zone);
            let ourselves = ourselves.clone().with_names(self.nodes.iter().map(NodeName::as_str));
            route::by(path, env, resolver, zone, &ourselves).await
        };
        self.route.get_or_init(find).await
    }

    /// A new connection to the first server that answers, but for those that were asked.
    async fn connect(
        &self,
        route: &Route,
        need: Need,
        passed: &[String],
    ) -> Result<Connection, Unreached> {
        let connection = self.way.connect(route, need, passed).await?;
        match need {
            // It says nothing of what others may be sent over.
            Need::Nothing => self.state().width.connected(),
            Need::Ordinary | Need::RequireTls => self.is_reached().await,
        }
        Ok(connection)
    }

    /// A message that a server refused for now, with all its recipients, makes fewer go at once.
    fn adapt(&self, verdicts: &[Verdict]) {
        let is_refused = |verdict: &Verdict| matches!(verdict, Verdict::Deferred(trouble) if trouble.remote.is_some());
        let mut state = self.state();
        if verdicts.iter().all(is_refused) {
            state.width.slowed();
        } else if !verdicts.iter().all(attempt::is_lost) {
            state.width.went();
        }
    }
}
