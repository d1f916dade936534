//! `check_host()` (RFC 7208 §4).

use std::{collections::BTreeSet, future::Future, net::IpAddr, pin::Pin};

use dns::{LookupError, Resolver};
use env::Env;
use futures_util::future::join_all;

use crate::{
    domain,
    limits::{
        EXPLANATION_BYTES_MAX, SPF_LOOKUPS_MAX, SPF_NAMES_MAX, SPF_PTR_TIME_MAX,
        SPF_VOID_LOOKUPS_MAX,
    },
    spf::{
        SpfResult, SpfVerdict,
        macros::{Spec, Values},
        record::{Bits, Mechanism, Record, select},
    },
};

/// Which name a client gives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Identity<'a> {
    /// The name that it greets with.
    Helo,
    /// The envelope's sender, which has a domain.
    MailFrom(&'a str),
}

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) client: IpAddr,
    pub(crate) helo: &'a str,
    pub(crate) identity: Identity<'a>,
    /// Who judges.
    pub(crate) receiver: &'a str,
    /// Unix seconds.
    pub(crate) time: u64,
}

/// Why an evaluation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Temporary,
    Permanent,
}

type Checked<T> = Result<T, Broken>;

/// What a record said.
struct Said {
    result: SpfResult,
    mechanism: Option<String>,
    /// Where a failure's explanation is, and the domain whose record says so.
    explanation: Option<(Spec, String)>,
}

impl Question<'_> {
    /// The identity, what stands for it as an address, and its domain, where it has one of several
    /// labels (RFC 7208 §4.3).
    fn identity(&self) -> (&str, String, Option<String>) {
        let (identity, sender, host) = match self.identity {
            Identity::Helo => (self.helo, format!("postmaster@{}", self.helo), self.helo),
            Identity::MailFrom(sender) => match sender.rsplit_once('@') {
                // A missing local part is postmaster's.
                Some(("", host)) => (sender, format!("postmaster@{host}"), host),
                Some((_, host)) => (sender, sender.to_owned(), host),
                None => (sender, format!("postmaster@{sender}"), sender),
            },
        };
        (identity, sender, domain::ascii(host).filter(|domain| domain.contains('.')))
    }
}

/// What there is to say where the time ran out.
pub(crate) fn unanswered(question: Question<'_>) -> SpfVerdict {
    let (identity, _, domain) = question.identity();
    SpfVerdict {
        result: SpfResult::TempError,
        domain: domain.unwrap_or_default(),
        identity: identity.to_owned(),
        ..SpfVerdict::default()
    }
}

/// Asks the identity's domain.
pub(crate) async fn check(env: &Env, resolver: &Resolver, question: Question<'_>) -> SpfVerdict {
    let (identity, sender, domain) = question.identity();
    let mut verdict = SpfVerdict { identity: identity.to_owned(), ..SpfVerdict::default() };
    let Some(domain) = domain else { return verdict };
    let mut evaluation = Evaluation {
        env,
        resolver,
        question,
        sender: &sender,
        lookups: 0,
        void_lookups: 0,
        names: None,
        validated: None,
    };
    match evaluation.check_host(domain.clone()).await {
        Ok(Some(said)) => {
            verdict.result = said.result;
            verdict.mechanism = said.mechanism;
            if let (SpfResult::Fail, Some((spec, of))) = (said.result, said.explanation) {
                verdict.explanation = evaluation.explanation(&spec, &of).await;
            }
        }
        Ok(None) => {}
        Err(Broken::Temporary) => verdict.result = SpfResult::TempError,
        Err(Broken::Permanent) => verdict.result = SpfResult::PermError,
    }
    verdict.domain = domain;
    verdict
}

struct Evaluation<'a> {
    env: &'a Env,
    resolver: &'a Resolver,
    question: Question<'a>,
    sender: &'a str,
    lookups: usize,
    void_lookups: usize,
    /// Names of the client that lead back to it, or that it has none, once somebody wanted them.
    names: Option<Result<Vec<String>, LookupError>>,
    /// The macro `p`, once somebody wanted it.
    validated: Option<String>,
}

type Checking<'f> = Pin<Box<dyn Future<Output = Checked<Option<Said>>> + Send + 'f>>;

impl Evaluation<'_> {
    /// What the domain's record says; `None` where it has none. It calls itself at most as often as
    /// something may be looked up.
    fn check_host(&mut self, domain: String) -> Checking<'_> {
        Box::pin(async move {
            let texts = match self.resolver.txt(&domain).await {
                Ok(answer) => answer.records,
                Err(error) => return nothing(&error).map(|()| None),
            };
            let Some(text) = select(&texts).map_err(|_| Broken::Permanent)? else {
                return Ok(None);
            };
            let record = Record::parse(text).map_err(|_| Broken::Permanent)?;
            self.evaluate(record, domain).await.map(Some)
        })
    }

    async fn evaluate(&mut self, record: Record, domain: String) -> Checked<Said> {
        for directive in record.directives {
            if self.matches(&directive.mechanism, &domain).await? {
                let explanation = record.explanation.map(|spec| (spec, domain));
                let mechanism = Some(directive.text);
                return Ok(Said { result: directive.result, mechanism, explanation });
            }
        }
        let Some(redirect) = record.redirect else {
            return Ok(Said { result: SpfResult::Neutral, mechanism: None, explanation: None });
        };
        self.count_lookup()?;
        let target = self.expand(&redirect, &domain).await;
        if domain::ascii(&target).is_none() {
            return Err(Broken::Permanent);
        }
        // RFC 7208 §6.1: a target without record is an error.
        self.check_host(target).await?.ok_or(Broken::Permanent)
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Checked<bool> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, bits) => {
                let network = IpAddr::V4(*network);
                Ok(same_network(self.question.client, network, Bits { four: *bits, six: 128 }))
            }
            Mechanism::Ip6(network, bits) => {
                let network = IpAddr::V6(*network);
                Ok(same_network(self.question.client, network, Bits { four: 32, six: *bits }))
            }
            Mechanism::Include(spec) => {
                self.count_lookup()?;
                let target = self.expand(spec, domain).await;
                match self.check_host(target).await? {
                    Some(said) => Ok(said.result == SpfResult::Pass),
                    None => Err(Broken::Permanent),
                }
            }
            Mechanism::A(spec, bits) => {
                self.count_lookup()?;
                let target = self.target(spec.as_ref(), domain).await;
                self.address_matches(&target, *bits).await
            }
            Mechanism::Mx(spec, bits) => {
                self.count_lookup()?;
                let target = self.target(spec.as_ref(), domain).await;
                self.exchanger_matches(&target, *bits).await
            }
            Mechanism::Ptr(spec) => {
                self.count_lookup()?;
                let target = self.target(spec.as_ref(), domain).await.to_ascii_lowercase();
                let names = self.validated_names().await?;
                Ok(names.iter().any(|name| domain::is_within(name, &target)))
            }
            Mechanism::Exists(spec) => {
                self.count_lookup()?;
                let target = self.expand(spec, domain).await;
                match self.resolver.ipv4(&target).await {
                    Ok(answer) => Ok(!answer.records.is_empty()),
                    Err(error) => self.void(&error).map(|()| false),
                }
            }
        }
    }

    async fn target(&mut self, spec: Option<&Spec>, domain: &str) -> String {
        match spec {
            Some(spec) => self.expand(spec, domain).await,
            None => domain.to_owned(),
        }
    }

    fn count_lookup(&mut self) -> Checked<()> {
        self.lookups += 1;
        if self.lookups > SPF_LOOKUPS_MAX { Err(Broken::Permanent) } else { Ok(()) }
    }

    /// A lookup that gave nothing.
    fn void(&mut self, error: &LookupError) -> Checked<()> {
        nothing(error)?;
        if error.is_denial() {
            self.void_lookups += 1;
        }
        if self.void_lookups > SPF_VOID_LOOKUPS_MAX { Err(Broken::Permanent) } else { Ok(()) }
    }

    /// The host's addresses of the client's kind (RFC 7208 §5).
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        Ok(self.resolver.addresses_like(host, self.question.client).await?.records)
    }

    async fn address_matches(&mut self, host: &str, bits: Bits) -> Checked<bool> {
        let client = self.question.client;
        match self.addresses(host).await {
            Ok(addresses) => {
                Ok(addresses.into_iter().any(|address| same_network(client, address, bits)))
            }
            Err(error) => self.void(&error).map(|()| false),
        }
    }

    async fn exchanger_matches(&mut self, domain: &str, bits: Bits) -> Checked<bool> {
        let mut exchangers = match self.resolver.mx(domain).await {
            Ok(answer) => answer.records,
            Err(error) => return self.void(&error).map(|()| false),
        };
        if exchangers.len() > SPF_NAMES_MAX {
            return Err(Broken::Permanent);
        }
        exchangers.sort();
        for exchanger in exchangers {
            let client = self.question.client;
            match self.addresses(&exchanger.exchange).await {
                Ok(addresses) => {
                    if addresses.into_iter().any(|address| same_network(client, address, bits)) {
                        return Ok(true);
                    }
                }
                // They are lookups of one mechanism, which has found something.
                Err(error) => nothing(&error)?,
            }
        }
        Ok(false)
    }

    /// Names of the client that lead back to it.
    async fn validated_names(&mut self) -> Checked<Vec<String>> {
        let known = match self.names.take() {
            Some(known) => known,
            None => self.look_names_up().await,
        };
        match self.names.insert(known) {
            Ok(names) => Ok(names.clone()),
            Err(denial) => {
                let denial = denial.clone();
                self.void(&denial).map(|()| Vec::new())
            }
        }
    }

    /// The same, or the denial of any name. What cannot be looked up in time is passed over (RFC 7208 §5.5):
    /// the client's owner answers, or does not, for a domain that may be somebody else's.
    async fn look_names_up(&self) -> Result<Vec<String>, LookupError> {
        let client = self.question.client;
        let names = match self.env.timeout(SPF_PTR_TIME_MAX, self.resolver.ptr(client)).await {
            Ok(Ok(answer)) => answer.records,
            Ok(Err(error)) if error.is_denial() => return Err(error),
            Ok(Err(_)) | Err(_) => return Ok(Vec::new()),
        };
        let leading_back = names.into_iter().take(SPF_NAMES_MAX).map(|name| async move {
            let looked = self.env.timeout(SPF_PTR_TIME_MAX, self.addresses(&name)).await;
            looked.is_ok_and(|it| it.is_ok_and(|them| them.contains(&client))).then_some(name)
        });
        Ok(join_all(leading_back).await.into_iter().flatten().collect())
    }

    async fn expand(&mut self, spec: &Spec, domain: &str) -> String {
        self.prepare(spec, domain).await;
        spec.expand_domain(&self.values(domain))
    }

    /// Looks up what the macro `p` stands for: a validated name, best one that is the domain or below
    /// it (RFC 7208 §7.3).
    async fn prepare(&mut self, spec: &Spec, domain: &str) {
        if !spec.wants_validated() || self.validated.is_some() {
            return;
        }
        let names: BTreeSet<String> =
            self.validated_names().await.unwrap_or_default().into_iter().collect();
        let best = names
            .get(domain)
            .or_else(|| names.iter().find(|name| domain::is_within(name, domain)))
            .or_else(|| names.first());
        self.validated = Some(best.map_or_else(|| "unknown".to_owned(), String::clone));
    }

    fn values<'v>(&'v self, domain: &'v str) -> Values<'v> {
        Values {
            client: self.question.client,
            sender: self.sender,
            domain,
            helo: self.question.helo,
            receiver: self.question.receiver,
            time: self.question.time,
            validated: self.validated.as_deref().unwrap_or("unknown"),
        }
    }

    /// What the client is to be told (RFC 7208 §6.2). Whatever is wrong with it, there is none.
    async fn explanation(&mut self, spec: &Spec, domain: &str) -> Option<String> {
        let name = self.expand(spec, domain).await;
        let texts = self.resolver.txt(&name).await.ok()?.records;
        let [text] = &texts[..] else { return None };
        let text = std::str::from_utf8(text).ok()?;
        let spec = Spec::parse_explanation(text).ok()?;
        self.prepare(&spec, domain).await;
        let told = spec.expand(&self.values(domain));
        let plain = told.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        (plain && !told.is_empty() && told.len() <= EXPLANATION_BYTES_MAX).then_some(told)
    }
}

/// Whether an error says that there is nothing, and not that nothing is known.
fn nothing(error: &LookupError) -> Checked<()> {
    match error {
        LookupError::NoName { .. } | LookupError::NoRecords { .. } | LookupError::BadName => Ok(()),
        LookupError::Temporary(_) | LookupError::Bogus => Err(Broken::Temporary),
    }
}

fn same_network(client: IpAddr, network: IpAddr, bits: Bits) -> bool {
    match (client, network) {
        (IpAddr::V4(client), IpAddr::V4(network)) => {
            let differs = client.to_bits() ^ network.to_bits();
            differs.checked_shr(32 - u32::from(bits.four)).unwrap_or(0) == 0
        }
        (IpAddr::V6(client), IpAddr::V6(network)) => {
            let differs = client.to_bits() ^ network.to_bits();
            differs.checked_shr(128 - u32::from(bits.six)).unwrap_or(0) == 0
        }
        _ => false,
    }
}
