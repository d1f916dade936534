//! [`Resolver`]: the lookups.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use env::Env;
use futures_util::StreamExt;
use hickory_net::{
    DnsError, NetError,
    dnssec::DnssecDnsHandle,
    proto::{
        dnssec::Proof,
        op::{DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, Query},
        rr::{Name, RData, Record, RecordType},
    },
    xfer::DnsHandle,
};

use crate::{
    answer::{Answer, LookupError, Mx, Security, Tlsa, Unavailable},
    chain::{self, Reply},
    limits::{PROOFS_MAX, UDP_BYTES},
    name,
    places::Share,
    proof::{is_shown_wildcard, proven},
    scope::Scope,
    settings::{Anchors, Settings, SettingsError, Validation},
    transport::Transport,
    zone::Zone,
};

/// How many exchanges with silent servers fit into a lookup.
const EXCHANGES_PER_LOOKUP: u32 = 4;

/// Looks names up. Cloning is a reference count or two; clones share the cache.
#[derive(Clone)]
pub struct Resolver {
    source: Arc<Source>,
    share: Share,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

enum Source {
    Servers(Servers),
    Fixed(Zone),
}

struct Servers {
    env: Env,
    timeout: Duration,
    transport: Transport,
    trust: Trust,
}

/// Whom an answer's security comes from.
enum Trust {
    Ourselves(Box<DnssecDnsHandle<Transport>>, Anchors),
    TheServers,
    Nobody,
}

impl Resolver {
    /// A resolver that asks servers.
    ///
    /// # Errors
    /// [`SettingsError`]: the settings are out of range, or a file that they name cannot be read.
    pub fn new(env: &Env, settings: &Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let patience = settings.timeout / EXCHANGES_PER_LOOKUP;
        let transport = Transport::new(env, settings.servers()?, patience, settings.cache_entries);
        let trust = match settings.validation {
            Validation::On => {
                let anchors = settings.trust_anchors.load()?;
                let keys = anchors.keys.clone();
                let validator = DnssecDnsHandle::with_trust_anchor(transport.clone(), keys)
                    .validation_cache_size(PROOFS_MAX);
                Trust::Ourselves(Box::new(validator), anchors)
            }
            Validation::TrustServers => Trust::TheServers,
            Validation::Off => Trust::Nobody,
        };
        let servers = Servers { env: env.clone(), timeout: settings.timeout, transport, trust };
        Ok(Self { source: Arc::new(Source::Servers(servers)), share: Share::default() })
    }

    /// A resolver that knows what the zone says, and asks nobody: for tests and simulations.
    pub fn fixed(zone: Zone) -> Self {
        Self { source: Arc::new(Source::Fixed(zone)), share: Share::default() }
    }

    /// The same for what strangers make us ask: it leaves places for our own questions
    /// ([`crate::limits::STRANGERS_QUERIES_MAX`]).
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        Self { source: Arc::clone(&self.source), share: Share::Strangers }
    }

    /// The same for one message of a stranger's, and all clones of it together
    /// ([`crate::limits::MESSAGE_QUERIES_MAX`]).
    #[must_use]
    pub fn for_message(&self) -> Self {
        Self { source: Arc::clone(&self.source), share: Share::of_message() }
    }

    /// Where the domain wants its mail, in the answer's order. A null MX (RFC 7505) is a record
    /// with an empty exchange. That a domain without any is its own exchanger (RFC 5321 §5.1) is
    /// the caller's to know.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, LookupError> {
        let answer = self.look(name::parse(domain)?, RecordType::MX).await?;
        Ok(each(answer, |data| match data {
            RData::MX(mx) => {
                Some(Mx { preference: mx.preference, exchange: name::text(&mx.exchange) })
            }
            _ => None,
        }))
    }

    /// The host's addresses, IPv4 before IPv6. Both kinds are asked for at once.
    ///
    /// Where one kind cannot be had for now, the other is given; where one is bogus, nothing is.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn addresses(&self, host: &str) -> Result<Answer<Vec<IpAddr>>, LookupError> {
        let name = name::parse(host)?;
        let (four, six) =
            tokio::join!(self.look(name.clone(), RecordType::A), self.look(name, RecordType::AAAA));
        let address = |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        let four = four.map(|answer| each(answer, address));
        both(four, six.map(|answer| each(answer, address)))
    }

    /// The name's texts, each with its strings joined (RFC 7208 §3.3, RFC 6376 §3.6.2.2).
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn txt(&self, name: &str) -> Result<Answer<Vec<Vec<u8>>>, LookupError> {
        let answer = self.look(name::parse(name)?, RecordType::TXT).await?;
        Ok(each(answer, |data| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        }))
    }

    /// The same, asked again though it is remembered: for who waits for a text to come or go. Servers may
    /// remember for themselves.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn txt_anew(&self, name: &str) -> Result<Answer<Vec<Vec<u8>>>, LookupError> {
        if let Source::Servers(servers) = &*self.source {
            servers.transport.forget(&name::parse(name)?, RecordType::TXT);
        }
        self.txt(name).await
    }

    /// What a service's certificate is held against; the name is such as `_25._tcp.mx.example.org`.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn tlsa(&self, name: &str) -> Result<Answer<Vec<Tlsa>>, LookupError> {
        let answer = self.look(name::parse(name)?, RecordType::TLSA).await?;
        Ok(each(answer, |data| match data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data,
            }),
            _ => None,
        }))
    }

    /// The address' names.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn ptr(&self, address: IpAddr) -> Result<Answer<Vec<String>>, LookupError> {
        let answer = self.look(name::reverse(address.to_canonical()), RecordType::PTR).await?;
        Ok(each(answer, |data| match data {
            RData::PTR(target) => Some(name::text(&target.0)),
            _ => None,
        }))
    }

    /// The name's IPv4 addresses alone, as lists of addresses are asked (RFC 5782 §2.1).
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn ipv4(&self, name: &str) -> Result<Answer<Vec<Ipv4Addr>>, LookupError> {
        let answer = self.look(name::parse(name)?, RecordType::A).await?;
        Ok(each(answer, |data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        }))
    }

    /// The name's IPv6 addresses alone.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn ipv6(&self, name: &str) -> Result<Answer<Vec<Ipv6Addr>>, LookupError> {
        let answer = self.look(name::parse(name)?, RecordType::AAAA).await?;
        Ok(each(answer, |data| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        }))
    }

    /// The name's addresses of the kind that `like` is of: for who looks whether that one is among them,
    /// and must not take the other kind's for all there are.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn addresses_like(
        &self,
        name: &str,
        like: IpAddr,
    ) -> Result<Answer<Vec<IpAddr>>, LookupError> {
        Ok(match like.to_canonical() {
            IpAddr::V4(_) => each(self.ipv4(name).await?, |it| Some(it.into())),
            IpAddr::V6(_) => each(self.ipv6(name).await?, |it| Some(it.into())),
        })
    }

    async fn look(&self, name: Name, kind: RecordType) -> Result<Answer<Vec<RData>>, LookupError> {
        match &*self.source {
            Source::Fixed(zone) => chain::follow(name, kind, |name| zone.ask(name, kind)).await,
            // Behind a pointer, because validation's future is large.
            Source::Servers(servers) => {
                Box::pin(servers.look(name, kind, self.share.clone())).await
            }
        }
    }
}

fn each<T, U>(answer: Answer<Vec<T>>, read: impl FnMut(T) -> Option<U>) -> Answer<Vec<U>> {
    answer.map(|records| records.into_iter().filter_map(read).collect())
}

/// What two kinds of address say together.
fn both(
    four: Result<Answer<Vec<IpAddr>>, LookupError>,
    six: Result<Answer<Vec<IpAddr>>, LookupError>,
) -> Result<Answer<Vec<IpAddr>>, LookupError> {
    use LookupError::{Bogus, NoName, NoRecords, Temporary};
    match (four, six) {
        (Err(Bogus), _) | (_, Err(Bogus)) => Err(Bogus),
        (Ok(mut four), Ok(six)) => {
            four.records.extend(six.records);
            four.security = four.security.min(six.security);
            four.alias_security = four.alias_security.min(six.alias_security);
            four.ttl = four.ttl.min(six.ttl);
            Ok(four)
        }
        (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
        (Err(Temporary(why)), _) | (_, Err(Temporary(why))) => Err(Temporary(why)),
        (
            Err(NoName { security: one } | NoRecords { security: one }),
            Err(NoRecords { security: other }),
        )
        | (Err(NoRecords { security: one }), Err(NoName { security: other })) => {
            Err(NoRecords { security: one.min(other) })
        }
        (Err(NoName { security: one }), Err(NoName { security: other })) => {
            Err(NoName { security: one.min(other) })
        }
        (Err(error), Err(_)) => Err(error),
    }
}

impl Servers {
    async fn look(
        &self,
        name: Name,
        kind: RecordType,
        share: Share,
    ) -> Result<Answer<Vec<RData>>, LookupError> {
        let scope = Scope::new(self.env.clone(), share);
        let following = chain::follow(name, kind, |name| self.ask(name, kind));
        let looked = self.env.timeout(self.timeout, scope.clone().run(following)).await;
        match looked.unwrap_or(Err(LookupError::Temporary(Unavailable::TimedOut))) {
            // A chain of trust that has a piece missing is not refuted.
            Err(LookupError::Bogus) => {
                Err(scope.failure().map_or(LookupError::Bogus, LookupError::Temporary))
            }
            looked => looked,
        }
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Reply, LookupError> {
        match &self.trust {
            Trust::Ourselves(validator, anchors) if anchors.cover(&name) => {
                match self.validated(validator, &name, kind).await {
                    // The denial of an alias' target is not proven by the alias' zone. The alias
                    // itself is, asked for by its own kind.
                    Ok(Validated::AliasUnproven) => {
                        let alias = self.validated(validator, &name, RecordType::CNAME).await?;
                        alias.reply()
                    }
                    validated => validated?.reply(),
                }
            }
            Trust::TheServers => self.unvalidated(name, kind, Believe::AuthenticData).await,
            Trust::Ourselves(..) | Trust::Nobody => {
                self.unvalidated(name, kind, Believe::Nothing).await
            }
        }
    }

    async fn validated(
        &self,
        validator: &DnssecDnsHandle<Transport>,
        name: &Name,
        kind: RecordType,
    ) -> Result<Validated, LookupError> {
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        options.edns_payload_len = UDP_BYTES;
        let request = DnsRequest::from_query(Query::query(name.clone(), kind), options);
        let asked = validator.send(request).next().await.unwrap_or(Err(NetError::NoConnections));
        match asked {
            Ok(response) => Ok(Validated::Reply(proven(name, kind, response)?)),
            Err(NetError::Dns(DnsError::Nsec { response, proof, .. })) => match proof {
                // RFC 9276 §3.2: denials that take too many iterations prove nothing.
                Proof::Insecure => {
                    let records = with_proof(response.answers.clone(), Proof::Insecure);
                    let code = response.response_code;
                    Ok(Validated::Reply(Reply { records, code, denial: Security::Insecure }))
                }
                _ if is_shown_wildcard(name, kind, &response) => {
                    Ok(Validated::Reply(proven(name, kind, *response)?))
                }
                _ if kind != RecordType::CNAME && has_alias(&response, name) => {
                    Ok(Validated::AliasUnproven)
                }
                _ => Err(LookupError::Bogus),
            },
            Err(NetError::Timeout) => Err(LookupError::Temporary(Unavailable::TimedOut)),
            Err(NetError::NoConnections) => Err(LookupError::Temporary(Unavailable::Unreachable)),
            Err(NetError::Busy) => Err(LookupError::Temporary(Unavailable::TooFar)),
            Err(NetError::Dns(DnsError::ResponseCode(_))) => {
                Err(LookupError::Temporary(Unavailable::ServersFailed))
            }
            Err(_) => Err(LookupError::Temporary(Unavailable::Garbled)),
        }
    }

    async fn unvalidated(
        &self,
        name: Name,
        kind: RecordType,
        believe: Believe,
    ) -> Result<Reply, LookupError> {
        let mut message = Message::query();
        message.add_query(Query::query(name, kind));
        message.metadata.recursion_desired = true;
        // RFC 6840 §5.7: whoever sets it understands the answer's.
        message.metadata.authentic_data = believe == Believe::AuthenticData;
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES);
        message.set_edns(edns);
        let response = self.transport.ask(message).await.map_err(LookupError::Temporary)?;
        let (proof, denial) = match believe {
            Believe::AuthenticData if response.authentic_data => (Proof::Secure, Security::Secure),
            _ => (Proof::Insecure, Security::Insecure),
        };
        let code = response.response_code;
        Ok(Reply { records: with_proof(response.into_message().answers, proof), code, denial })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Believe {
    AuthenticData,
    Nothing,
}

enum Validated {
    Reply(Reply),
    AliasUnproven,
}

impl Validated {
    fn reply(self) -> Result<Reply, LookupError> {
        match self {
            Self::Reply(reply) => Ok(reply),
            Self::AliasUnproven => Err(LookupError::Bogus),
        }
    }
}

fn with_proof(mut records: Vec<Record>, proof: Proof) -> Vec<Record> {
    for record in &mut records {
        record.proof = proof;
    }
    records
}

fn has_alias(response: &DnsResponse, name: &Name) -> bool {
    let alias = |record: &Record| record.name == *name && chain::alias_of(record).is_some();
    response.answers.iter().any(alias)
}
