//! The search for a server: one after the other is called, and who takes long to greet is waited for beside
//! those that come after it.
//!
//! Invariant: a connection that stands gets the time that RFC 5321 §4.5.3.2 gives it, and hides no other
//! server. At most [`limits::CONNECT_TRIES_MAX`] stand at once.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{TlsFailed, Unreached, Way, Whose, is_tls, lacks_tls, of, of_passed};
use crate::{
    deliver::Trouble,
    limits,
    outbound::{
        Parts,
        connection::{ConnectError, Connection},
        route::{Hop, Route},
        sts::Sts,
        terms::{self, Asking, Need, Passed, Terms},
    },
};

/// RFC 8689 §4.2.1: no server offers REQUIRETLS.
const NEEDS_REQUIRETLS: &str = "5.7.30";

/// RFC 8689 §4.2.1: there is no TLS as it has to be.
const NEEDS_TLS: &str = "5.7.10";

/// Where nobody asks for a policy.
static NO_POLICY: Sts = Sts { policy: None, is_unknown: false, failure: None };

/// What came of calling one address.
type Called = Result<Connection, (Option<ConnectError>, Trouble)>;

/// What is known from the servers that were of no use.
struct Search {
    need: Need,
    last: Trouble,
    tls_failed: TlsFailed,
    /// None of them may ever have what requires TLS.
    all_lack_tls: bool,
    /// Why, where that is so.
    lacking: &'static str,
}

impl Way<'_> {
    /// A new connection to the first server that may have the message, but for those that have put it off
    /// or cannot carry it.
    pub(in crate::outbound) async fn connect(
        &self,
        route: &Route,
        need: Need,
        passed: &[String],
    ) -> Result<Connection, Unreached> {
        self.connect_within(route, need, passed, limits::REACH_TIME_MAX).await
    }

    /// The same, where servers are called for so long. After half of what is left of it the next one is
    /// called, too, so that one which says nothing does not hide those behind it.
    pub(super) async fn connect_within(
        &self,
        route: &Route,
        need: Need,
        passed: &[String],
        time: Duration,
    ) -> Result<Connection, Unreached> {
        let env = &self.parts.env;
        let end = env.monotonic() + time;
        let sts = self.policy(route, need).await?;
        let hosts: Vec<&String> = route.hosts.iter().filter(|it| !passed.contains(it)).collect();
        let mut search = Search::new(self.domain, need);
        let mut calls = FuturesUnordered::new();
        let mut tries = 0;
        'search: for (place, host) in hosts.iter().enumerate() {
            let Some(terms) = self.terms(&mut search, route, sts, host).await else { continue };
            for (at, address) in terms.addresses.iter().enumerate() {
                let left = end.saturating_since(env.monotonic());
                if tries == limits::CONNECT_TRIES_MAX || left.is_zero() {
                    break 'search;
                }
                tries += 1;
                calls.push(self.call(
                    tries,
                    *address,
                    host,
                    route,
                    (sts, need),
                    Arc::clone(&terms),
                ));
                if place + 1 == hosts.len() && at + 1 == terms.addresses.len() {
                    break 'search;
                }
                let mut turn = pin!(env.sleep(left / 2));
                loop {
                    tokio::select! {
                        biased;
                        Some((number, host, called)) = calls.next() => {
                            if let Some(connection) = self.heard(&mut search, host, called).await {
                                return Ok(connection);
                            }
                            if number == tries {
                                break;
                            }
                        }
                        () = &mut turn => break,
                    }
                }
            }
        }
        while let Some((_, host, called)) = calls.next().await {
            if let Some(connection) = self.heard(&mut search, host, called).await {
                return Ok(connection);
            }
        }
        Err(search.unreached(!hosts.is_empty()))
    }

    /// What the domain's policy is, as far as it says anything to such a message.
    async fn policy(&self, route: &Route, need: Need) -> Result<&Sts, Unreached> {
        match (&route.hop, self.domain.starts_with('[')) {
            (Hop::Exchangers, false) if need != Need::Nothing => {
                self.sts().await.map_err(|trouble| of(need, TlsFailed::Yes, trouble))
            }
            _ => Ok(&NO_POLICY),
        }
    }

    /// On which terms a host may have the message, if on any.
    async fn terms(
        &self,
        search: &mut Search,
        route: &Route,
        sts: &Sts,
        host: &str,
    ) -> Option<Arc<Terms>> {
        let Parts { env, resolver, config, .. } = self.parts;
        let asking = Asking { env, resolver, port: config.port };
        match terms::of(asking, route, sts, host, search.need).await {
            Ok(terms) => Some(Arc::new(terms)),
            Err(passed) => {
                self.count_passed(&passed, host, sts);
                search.passed(&passed, host);
                None
            }
        }
    }

    /// Calls one address. Gives its number back with what came of it.
    async fn call<'h>(
        &self,
        number: usize,
        address: IpAddr,
        host: &'h str,
        route: &Route,
        (sts, need): (&Sts, Need),
        terms: Arc<Terms>,
    ) -> (usize, &'h str, Called) {
        let connecting = Box::pin(self.connect_to(address, host, route, (sts, need), &terms));
        (number, host, connecting.await)
    }

    /// The connection, where it is one that may carry the message.
    async fn heard(&self, search: &mut Search, host: &str, called: Called) -> Option<Connection> {
        match called {
            Ok(connection) if connection.serves(search.need) => return Some(connection),
            Ok(connection) => {
                connection.close(&self.parts.security).await;
                search.lacks_requiretls(host);
            }
            Err((error, trouble)) => search.failed(error.as_ref(), trouble),
        }
        None
    }
}

impl Search {
    fn new(domain: &str, need: Need) -> Self {
        let words = format!("no mail server of {domain} has an address");
        let last = Trouble::new("4.4.1", words);
        let (tls_failed, all_lack_tls) = (TlsFailed::No, true);
        Self { need, last, tls_failed, all_lack_tls, lacking: NEEDS_TLS }
    }

    /// A host is not called.
    fn passed(&mut self, passed: &Passed, host: &str) {
        self.all_lack_tls &= passed.is_permanent();
        if passed.is_permanent() {
            self.lacking = NEEDS_REQUIRETLS;
        }
        if passed.is_tls() {
            self.tls_failed = TlsFailed::Yes;
        }
        self.last = of_passed(passed, host);
    }

    fn lacks_requiretls(&mut self, host: &str) {
        self.lacking = NEEDS_REQUIRETLS;
        let words = format!("{host} does not offer REQUIRETLS");
        self.last = Trouble::new(NEEDS_REQUIRETLS, words);
    }

    fn failed(&mut self, error: Option<&ConnectError>, trouble: Trouble) {
        self.all_lack_tls &= error.is_some_and(lacks_tls);
        if error.is_some_and(is_tls) {
            self.tls_failed = TlsFailed::Yes;
        }
        self.last = trouble;
    }

    /// Why no server is reached; `are_any` says whether there are hosts at all.
    fn unreached(self, are_any: bool) -> Unreached {
        if self.need == Need::RequireTls && self.all_lack_tls && are_any {
            let words = format!("the message requires TLS: {}", self.last.words);
            let trouble = Trouble::new(self.lacking, words);
            return Unreached { trouble, whose: Whose::MessageForGood };
        }
        of(self.need, self.tls_failed, self.last)
    }
}
