//! From a route to a connection: one host after the other (`reach/search.rs`), each on its terms
//! (`terms.rs`), and what came of it counted (`tally.rs`).

mod search;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use dns::Tlsa;
use smtp::{
    HeloName, Secret,
    client::{Dialect, Encryption, Failure, Login, Timeouts},
};
use tokio::sync::OnceCell;

use super::{
    Parts,
    attempt::{self, Verdict},
    connection::{Call, ConnectError, Connection},
    route::{Hop, Route},
    security::{Assurance, Demand, HandshakeError},
    sts::{self, Sts},
    tally::{self, Policy, PolicyShown, SUCCESS, Tally},
    terms::{Need, Passed, Terms},
};
use crate::{
    deliver::Trouble,
    limits,
    metrics::TlsOutcome,
    settings::routes::{Smarthost, SmarthostTls},
};

/// What is known of reaching a domain, for one turn at it.
pub(super) struct Way<'a> {
    parts: &'a Parts,
    domain: &'a str,
    sts: OnceCell<Sts>,
    tally: Mutex<Tally>,
    /// How long servers are waited for.
    timeouts: Timeouts,
}

/// Why no server is reached.
#[derive(Debug, Clone)]
pub(super) struct Unreached {
    pub(super) trouble: Trouble,
    whose: Whose,
}

/// What of a domain's a trouble keeps from leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// All but messages for which TLS is optional.
    OverTls,
}

/// What a trouble is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Whatever goes to the domain.
    Domain,
    /// The same, but for messages for which TLS is optional.
    DomainsTls,
    /// A message that wants more than others do.
    Message,
    /// The same, and it will never be served.
    MessageForGood,
}

impl Unreached {
    /// Whether the domain's other messages are in the same trouble.
    pub(super) fn is_domains(&self) -> bool {
        matches!(self.whose, Whose::Domain | Whose::DomainsTls)
    }

    /// What of the domain's is kept from leaving.
    pub(super) fn scope(&self) -> Scope {
        if self.whose == Whose::DomainsTls { Scope::OverTls } else { Scope::All }
    }

    /// What it means for a recipient.
    pub(super) fn verdict(self) -> Verdict {
        match self.whose {
            Whose::Domain | Whose::DomainsTls | Whose::Message => Verdict::Deferred(self.trouble),
            Whose::MessageForGood => Verdict::Failed(self.trouble),
        }
    }
}

/// RFC 3463 §3.8: a cryptographic failure, which may pass.
const UNSAFE: &str = "4.7.5";

impl<'a> Way<'a> {
    pub(super) fn new(parts: &'a Parts, domain: &'a str) -> Self {
        let (sts, tally, timeouts) = (OnceCell::new(), Mutex::default(), Timeouts::default());
        Self { parts, domain, sts, tally, timeouts }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sts(&self) -> Result<&Sts, Trouble> {
        let find = || async {
            let sts = sts::find(self.parts, self.domain).await?;
            if let Some(failure) = sts.failure {
                self.count(Policy::Sts, failure, "", &sts, &[]);
            }
            Ok::<_, String>(sts)
        };
        self.sts.get_or_try_init(find).await.map_err(|reason| Trouble {
            status: "4.3.0".to_owned(),
            words: format!("it is not known what TLS {} wants: {reason}", self.domain),
            remote: None,
        })
    }

    async fn connect_to(
        &self,
        address: IpAddr,
        host: &str,
        route: &Route,
        (sts, need): (&Sts, Need),
        terms: &Terms,
    ) -> Result<Connection, (Option<ConnectError>, Trouble)> {
        let Parts { env, security, config, .. } = self.parts;
        let address = SocketAddr::new(address, route.hop.port(config.port));
        let encryption = encryption(route, &terms.demand);
        let call = |encryption, demand| async move {
            Ok(Call {
                address,
                source: self.source(address.ip()),
                host: host.to_owned(),
                helo: HeloName::parse(&self.parts.hostname)
                    .expect("the configuration has checked the name"),
                dialect: match route.hop {
                    Hop::Lmtp { .. } => Dialect::Lmtp,
                    Hop::Exchangers | Hop::Smarthost(_) => Dialect::Smtp,
                },
                encryption,
                login: self.login(route).await.map_err(|trouble| (None, trouble))?,
                demand,
                need,
                timeouts: self.timeouts.clone(),
            })
        };
        let first = call(encryption, terms.demand.clone()).await?;
        let opened = Connection::open(env, security, first).await;
        // RFC 8460 §3: a report's own session is in no report. What TLS comes to is nothing to it.
        if need != Need::Nothing {
            self.count_session(&opened, host, sts, terms);
        }
        let opened = match opened {
            // Nothing says that it must not.
            Err(ConnectError::Handshake(reason)) if !terms.demand.is_strict() => {
                tracing::debug!(host, %reason, "mail goes in clear: the TLS handshake failed");
                let again = call(Encryption::Never, Demand::Nothing).await?;
                Connection::open(env, security, again).await
            }
            opened => opened,
        };
        opened.map_err(|error| {
            let trouble = trouble_of(&error, host, address);
            (Some(error), trouble)
        })
    }

    /// One of our addresses of the server's family, where some are named.
    fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let named = &self.parts.config.source_addresses;
        let fitting: Vec<_> = named.iter().filter(|it| it.is_ipv4() == to.is_ipv4()).collect();
        let one = self.parts.env.random_below(fitting.len() as u64);
        fitting.get(usize::try_from(one).unwrap_or(0)).copied().copied()
    }

    async fn login(&self, route: &Route) -> Result<Option<Login>, Trouble> {
        let Hop::Smarthost(Smarthost { login: Some(login), host, .. }) = &route.hop else {
            return Ok(None);
        };
        let file = login.secret.clone();
        let read = self.parts.env.run_blocking(move || std::fs::read(file)).await;
        let trouble = |reason: &str| Trouble {
            status: "4.3.5".to_owned(),
            words: format!("there is no password for {host} here: {reason}"),
            remote: None,
        };
        let mut password = match read {
            Ok(Ok(password)) => password,
            Ok(Err(error)) => return Err(trouble(&error.to_string())),
            Err(env::TaskEnded) => return Err(trouble("reading was broken off")),
        };
        while password.last().is_some_and(|it| b"\r\n".contains(it)) {
            password.pop();
        }
        let made = Login::new(login.user.clone(), Secret::new(password));
        made.map(Some).ok_or_else(|| trouble("the file has none"))
    }

    fn count_passed(&self, passed: &Passed, host: &str, sts: &Sts) {
        let policy = match passed {
            Passed::Tlsa(_) => Policy::Tlsa,
            _ => Policy::Sts,
        };
        if let Some(result) = passed.result_type() {
            self.parts.metrics.outbound_tls(policy.label(), TlsOutcome::Refused);
            self.count(policy, result, host, sts, &[]);
        }
    }

    fn count_session(
        &self,
        opened: &Result<Connection, ConnectError>,
        host: &str,
        sts: &Sts,
        terms: &Terms,
    ) {
        let (result, outcome) = match opened {
            Ok(connection) => match (connection.assurance(), connection.unproven()) {
                (Assurance::Clear, _) => ("starttls-not-supported", TlsOutcome::Clear),
                (_, Some(unproven)) => (unproven.result_type(), TlsOutcome::Encrypted),
                (Assurance::Encrypted, None) if terms.demand == Demand::Encryption => {
                    ("tlsa-invalid", TlsOutcome::Encrypted)
                }
                (Assurance::Encrypted, None) => (SUCCESS, TlsOutcome::Encrypted),
                (Assurance::Verified, None) => (SUCCESS, TlsOutcome::Verified),
            },
            Err(ConnectError::Handshake(HandshakeError::Unproven(unproven))) => {
                (unproven.result_type(), TlsOutcome::Refused)
            }
            Err(ConnectError::Handshake(HandshakeError::Failed(_))) => {
                let strict = terms.demand.is_strict();
                let outcome = if strict { TlsOutcome::Refused } else { TlsOutcome::Clear };
                ("validation-failure", outcome)
            }
            Err(ConnectError::Session(Failure::TlsNotOffered)) => {
                ("starttls-not-supported", TlsOutcome::Refused)
            }
            // It did not come to TLS.
            Err(ConnectError::Session(_) | ConnectError::Socket(_)) => return,
        };
        self.parts.metrics.outbound_tls(terms.policy.label(), outcome);
        let result = match result {
            SUCCESS if terms.is_outside => "validation-failure",
            result => result,
        };
        self.count(terms.policy, result, host, sts, &terms.records);
    }

    fn count(&self, policy: Policy, result: &'static str, host: &str, sts: &Sts, records: &[Tlsa]) {
        let mut tally = self.tally();
        tally.count(policy, result, host);
        match (policy, &sts.policy) {
            (Policy::Tlsa, _) if !records.is_empty() => tally.show(policy, || shown(records)),
            (Policy::Sts, Some(found)) => tally.show(policy, || PolicyShown {
                strings: found.lines(),
                hosts: found.patterns.clone(),
            }),
            _ => {}
        }
    }

    /// Writes down what was counted, where the domain wants reports.
    pub(super) async fn conclude(&self) {
        let tally = std::mem::take(&mut *self.tally());
        if tally.is_empty() || self.domain.starts_with('[') {
            return;
        }
        let Parts { env, db, resolver, .. } = self.parts;
        let texts = resolver.txt(&format!("_smtp._tls.{}", self.domain)).await;
        let Ok(texts) = texts else { return };
        if origin::reports::tls_report_uris(&texts.records).is_none() {
            return;
        }
        let (day, domain, tally) = (tally::day_of(env.wall()), self.domain, &tally);
        let add = |tx| async move { tally::add(&tx, day, domain, tally).await };
        if let Err(error) = db.run(add).await {
            tracing::warn!(domain, %error, "how TLS to a domain went is not counted");
        }
    }
}

fn shown(records: &[Tlsa]) -> PolicyShown {
    let text = |it: &Tlsa| {
        let data: String = it.data.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{} {} {} {data}", it.usage, it.selector, it.matching)
    };
    let strings = records.iter().take(limits::TLS_REPORT_STRINGS_MAX).map(text).collect();
    PolicyShown { strings, hosts: Vec::new() }
}

fn encryption(route: &Route, demand: &Demand) -> Encryption {
    match &route.hop {
        Hop::Smarthost(Smarthost { tls: SmarthostTls::Implicit, .. }) => Encryption::Implicit,
        _ if demand.is_strict() => Encryption::Required,
        _ => Encryption::IfOffered,
    }
}

/// Whether TLS kept us from any of a domain's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsFailed {
    Yes,
    No,
}

fn of(need: Need, tls_failed: TlsFailed, trouble: Trouble) -> Unreached {
    let whose = match (need, tls_failed) {
        (Need::Ordinary, TlsFailed::Yes) => Whose::DomainsTls,
        (Need::Ordinary, TlsFailed::No) | (Need::Nothing, _) => Whose::Domain,
        // Others may go where this one may not.
        (Need::RequireTls, _) => Whose::Message,
    };
    Unreached { trouble, whose }
}

/// Whether the server might be reached if TLS were nothing to us.
fn is_tls(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Handshake(_) | ConnectError::Session(Failure::TlsNotOffered))
}

/// Whether it is TLS alone that a server lacks.
fn lacks_tls(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Handshake(HandshakeError::Unproven(_))
            | ConnectError::Session(Failure::TlsNotOffered)
    )
}

fn of_passed(passed: &Passed, host: &str) -> Trouble {
    let status = match passed {
        Passed::Lookup(_) => "4.4.1",
        Passed::Tlsa(_) | Passed::Policy | Passed::Unproven | Passed::PolicyUnknown => UNSAFE,
    };
    Trouble::new(status, format!("{host}: {passed}"))
}

fn trouble_of(error: &ConnectError, host: &str, address: SocketAddr) -> Trouble {
    let (status, words) = match error {
        ConnectError::Session(
            Failure::Refused { at, response } | Failure::Closing { at, response },
        ) => return attempt::at(*at, response, host),
        ConnectError::Handshake(error) => (UNSAFE, format!("TLS: {error}")),
        ConnectError::Session(Failure::TlsNotOffered) => {
            (UNSAFE, "TLS is demanded, and the server does not offer it".to_owned())
        }
        error @ (ConnectError::Session(_) | ConnectError::Socket(_)) => {
            ("4.4.1", error.to_string())
        }
    };
    let words = format!("{host} [{}]: {words}", address.ip());
    Trouble::new(status, words)
}

#[cfg(test)]
mod tests;
