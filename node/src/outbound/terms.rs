//! On which terms mail goes to a host: its addresses, and what its TLS has to show.
//!
//! | what is known | demand |
//! |---|---|
//! | proven exchangers and addresses, TLSA records that we understand | DANE (RFC 7672) |
//! | the same, none of which we understand | TLS with any certificate (RFC 7672 §2.2) |
//! | TLSA records that cannot be looked up, or are refuted | not there, now (RFC 7672 §2.1.2) |
//! | no TLSA records, a policy that is enforced and allows the host | a certificate that authorities vouch for (RFC 8461) |
//! | the same, and it does not allow the host | not there |
//! | a policy that is tested | nothing; what would have failed is told |
//! | a smarthost | a certificate, unless its route says that TLS is opportunistic |
//! | nothing | nothing |
//! | a message for which TLS is optional (RFC 8689 §4.2.2), but to a smarthost | nothing |
//!
//! DANE stands before MTA-STS (RFC 8461 §2). A message that requires TLS (RFC 8689) demands a certificate that
//! is verified, of a server whose name is proven to be its domain's, whatever else is known.

use std::{net::IpAddr, sync::Arc};

use dns::{Answer, LookupError, Resolver, Security as Proof, Tlsa};
use env::Env;

use super::{
    route::{self, Hop, Route},
    security::{Dane, Demand, Otherwise},
    sts::{Mode, Sts},
    tally::Policy,
};
use crate::{
    deliver::outbound::{SubmissionRecord, TlsWish},
    settings::routes::SmarthostTls,
};

/// What a message wants of the way to its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// What the domain wants.
    Ordinary,
    /// TLS with a verified certificate, from here on (RFC 8689).
    RequireTls,
    /// That it arrives, whatever TLS comes to (RFC 8689 §4.2.2): TLS is taken where it works.
    Nothing,
}

impl Need {
    pub(super) fn of(record: &SubmissionRecord) -> Self {
        match record.tls() {
            TlsWish::Required => Self::RequireTls,
            TlsWish::Optional => Self::Nothing,
            TlsWish::Usual => Self::Ordinary,
        }
    }
}

/// A host, and on which terms mail goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) demand: Demand,
    /// Under whose policy its sessions are counted.
    pub(super) policy: Policy,
    /// RFC 8460 §4.4: the records, where the policy is they.
    pub(super) records: Vec<Tlsa>,
    /// The host is none of those that a policy which is tested allows.
    pub(super) is_outside: bool,
}

/// Why mail does not go to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Passed {
    /// It has no address that is known now.
    #[error("{0}")]
    Lookup(LookupError),
    /// What its domain says of its certificate cannot be known now.
    #[error("its TLSA records cannot be looked up: {0}")]
    Tlsa(LookupError),
    /// The domain's policy does not name it.
    #[error("the domain's TLS policy (MTA-STS) does not name it as a server of the domain")]
    Policy,
    /// The message requires TLS, and nothing proves that the server is the domain's.
    #[error(
        "the message requires TLS, and neither DNSSEC nor a TLS policy (MTA-STS) proves that it is a server of the domain"
    )]
    Unproven,
    /// The same, and it may be proven later.
    #[error("the message requires TLS, and the domain's TLS policy (MTA-STS) cannot be had now")]
    PolicyUnknown,
}

impl Passed {
    /// RFC 8460 §4.3.
    pub(super) fn result_type(&self) -> Option<&'static str> {
        match self {
            Self::Lookup(_) | Self::Unproven | Self::PolicyUnknown => None,
            Self::Tlsa(_) => Some("dnssec-invalid"),
            Self::Policy => Some("validation-failure"),
        }
    }

    /// Whether it is only what is known of its TLS.
    pub(super) fn is_tls(&self) -> bool {
        !matches!(self, Self::Lookup(_))
    }

    /// Whether another try may help.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Unproven)
    }
}

/// Whom to ask.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) env: &'a Env,
    pub(super) resolver: &'a Resolver,
    /// The port of domains' own servers.
    pub(super) port: u16,
}

/// On which terms a message that needs this goes to a host.
pub(super) async fn of(
    asking: Asking<'_>,
    route: &Route,
    sts: &Sts,
    host: &str,
    need: Need,
) -> Result<Terms, Passed> {
    let found =
        route::addresses(asking.env, asking.resolver, host).await.map_err(Passed::Lookup)?;
    let mut terms = Terms {
        addresses: found.records.clone(),
        demand: Demand::Nothing,
        policy: Policy::None,
        records: Vec::new(),
        is_outside: false,
    };
    let has_name = !host.starts_with('[');
    let is_smarthost = matches!(&route.hop, Hop::Smarthost(smarthost) if smarthost.tls != SmarthostTls::Opportunistic);
    if need == Need::Nothing && route.hop == Hop::Exchangers {
        return Ok(terms);
    }
    let by_records = match &route.hop {
        // Whose server of ours it is, the route says.
        Hop::Lmtp { .. } => None,
        _ if has_name && route.proof == Proof::Secure => {
            let port = route.hop.port(asking.port);
            tlsa(asking.resolver, host, port, &found).await?
        }
        _ => None,
    };
    let mut is_proven = route.proof == Proof::Secure;
    if let Some((base, records)) = by_records {
        let names = names(host, &base, &route.domain);
        terms.policy = Policy::Tlsa;
        terms.records = records.clone();
        terms.demand = match Dane::new(base, names, records) {
            Some(dane) => Demand::Dane(Arc::new(dane)),
            None => Demand::Encryption,
        };
    } else if is_smarthost {
        terms.demand = Demand::Authority(Otherwise::Refused);
    } else if let (Hop::Exchangers, Some(policy)) = (&route.hop, &sts.policy) {
        let allows = has_name && policy.allows(host);
        is_proven |= allows;
        terms.policy = Policy::Sts;
        terms.is_outside = !allows;
        match policy.mode {
            Mode::Enforce if !allows => return Err(Passed::Policy),
            Mode::Enforce => terms.demand = Demand::Authority(Otherwise::Refused),
            _ if has_name => terms.demand = Demand::Authority(Otherwise::Told),
            _ => {}
        }
    }
    if need == Need::RequireTls {
        // RFC 8689 §4.2.1.
        terms.demand = match terms.demand {
            demand @ (Demand::Dane(_) | Demand::Authority(Otherwise::Refused)) => demand,
            _ if is_proven && has_name => Demand::Authority(Otherwise::Refused),
            _ if sts.is_unknown => return Err(Passed::PolicyUnknown),
            _ => return Err(Passed::Unproven),
        };
    }
    Ok(terms)
}

/// The host's TLSA records and the name that has them, where it has any that are proven.
async fn tlsa(
    resolver: &Resolver,
    host: &str,
    port: u16,
    found: &Answer<Vec<IpAddr>>,
) -> Result<Option<(String, Vec<Tlsa>)>, Passed> {
    // RFC 7672 §2.2.2: the last of its aliases where all of them are proven, then the host itself.
    let canonical = (found.security == Proof::Secure).then_some(found.canonical.as_str());
    let itself = (found.alias_security == Proof::Secure).then_some(host);
    let itself = itself.filter(|host| canonical.is_none_or(|it| !it.eq_ignore_ascii_case(host)));
    for base in canonical.into_iter().chain(itself) {
        match resolver.tlsa(&format!("_{port}._tcp.{base}")).await {
            Ok(answer) if answer.security == Proof::Secure && !answer.records.is_empty() => {
                return Ok(Some((base.trim_end_matches('.').to_owned(), answer.records)));
            }
            Ok(_) => {}
            Err(error) if error.is_denial() => {}
            // RFC 7672 §2.1.2: whoever suppresses the answer must not win by it.
            Err(error) => return Err(Passed::Tlsa(error)),
        }
    }
    Ok(None)
}

/// RFC 7672 §3.2.2: the records' base, the host that has been expanded to it, the next-hop domain.
fn names(host: &str, base: &str, domain: &str) -> Vec<String> {
    let mut names = Vec::new();
    for name in [base, host, domain] {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests;
