//! From a domain to the servers that take its mail: those of its MX records (RFC 5321 §5.1), or the one
//! that a setting names.

use std::{net::IpAddr, time::Duration};

use dns::{Answer, LookupError, Mx, Resolver, Security};
use env::Env;
use futures_util::future::join_all;

use super::ourselves::Ourselves;
use crate::{
    deliver::Trouble,
    limits::{HOST_ADDRESSES_MAX, ROUTE_HOSTS_MAX},
    settings::routes::{Path, Smarthost},
};

/// A domain's servers, those to be tried first in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) hosts: Vec<String>,
    /// The domain.
    pub(super) domain: String,
    /// Whether it is proven that these are its servers.
    pub(super) proof: Security,
    pub(super) hop: Hop,
}

/// What kind of server comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hop {
    /// The domain's own.
    Exchangers,
    /// One that passes mail on.
    Smarthost(Smarthost),
    /// One of ours, by LMTP.
    Lmtp { port: u16 },
}

impl Hop {
    /// Its port; `usual` is that of the domains' own.
    pub(super) fn port(&self, usual: u16) -> u16 {
        match self {
            Self::Exchangers => usual,
            Self::Smarthost(smarthost) => smarthost.port,
            Self::Lmtp { port } => *port,
        }
    }
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// There is none, and there will be none.
    Never(Trouble),
    /// It may be found later.
    Now(Trouble),
}

/// Finds the servers of a domain by the way that is set for it.
pub(super) async fn by(
    path: Path,
    env: &Env,
    resolver: &Resolver,
    domain: &str,
    ourselves: &Ourselves,
) -> Result<Route, NoRoute> {
    // Who sets a route says whose server it is: nothing has to prove it.
    let set = |host, hop| Route {
        hosts: vec![host],
        domain: domain.to_owned(),
        proof: Security::Secure,
        hop,
    };
    match path {
        Path::Direct => find(env, resolver, domain, ourselves).await,
        Path::Smarthost(smarthost) => Ok(set(smarthost.host.clone(), Hop::Smarthost(smarthost))),
        Path::Lmtp { host, port } => Ok(set(host, Hop::Lmtp { port })),
        Path::Local => {
            let words =
                format!("mail for {domain} goes to no other server, and it is not served here");
            Err(NoRoute::Never(Trouble::new("5.1.2", words)))
        }
    }
}

/// Finds the servers of a domain, or the one that an address literal names.
async fn find(
    env: &Env,
    resolver: &Resolver,
    domain: &str,
    ourselves: &Ourselves,
) -> Result<Route, NoRoute> {
    let exchangers =
        |hosts, proof| Ok(Route { hosts, domain: domain.to_owned(), proof, hop: Hop::Exchangers });
    if let Some(literal) = literal(domain) {
        if literal.is_some_and(|address| ourselves.are_at(&[address])) {
            return Err(comes_back(domain));
        }
        return exchangers(vec![domain.to_owned()], Security::Insecure);
    }
    let (mut exchanges, proof) = match resolver.mx(domain).await {
        Ok(answer) => (answer.records, answer.security),
        // RFC 5321 §5.1: the domain itself is its only exchanger then.
        Err(LookupError::NoRecords { security }) => {
            let found = resolver.addresses(domain).await;
            if let Some(never) = no_server_of_its_own(domain, ourselves, &found) {
                return Err(never);
            }
            return exchangers(vec![domain.to_owned()], security);
        }
        Err(LookupError::NoName { .. } | LookupError::BadName) => {
            let words = format!("there is no domain {domain}");
            return Err(NoRoute::Never(Trouble::new("5.1.2", words)));
        }
        Err(error @ (LookupError::Temporary(_) | LookupError::Bogus)) => {
            let words = format!("the mail servers of {domain} cannot be looked up: {error}");
            return Err(NoRoute::Now(Trouble::new("4.4.3", words)));
        }
    };
    // RFC 7505 §3.
    if exchanges.iter().all(|mx| mx.exchange.is_empty()) {
        let words = format!("{domain} takes no mail");
        return Err(NoRoute::Never(Trouble::new("5.1.10", words)));
    }
    exchanges.retain(|mx| !mx.exchange.is_empty());
    exchanges.sort_by_key(|mx| mx.preference);
    // RFC 5321 §5.1: those that we are no better than would send it back to us.
    if let Some(ours) = our_preference(resolver, ourselves, &exchanges).await {
        exchanges.retain(|mx| mx.preference < ours);
    }
    if exchanges.is_empty() {
        return Err(comes_back(domain));
    }
    let mut drawn: Vec<_> = exchanges
        .into_iter()
        .map(|mx| (mx.preference, env.random_below(u64::MAX), mx.exchange))
        .collect();
    drawn.sort_unstable();
    drawn.truncate(ROUTE_HOSTS_MAX);
    exchangers(drawn.into_iter().map(|(_, _, host)| host).collect(), proof)
}

/// Where among a domain's servers we are, if we are one of them. They are in order of preference.
async fn our_preference(
    resolver: &Resolver,
    ourselves: &Ourselves,
    exchanges: &[Mx],
) -> Option<u16> {
    let by_name = exchanges.iter().find(|mx| ourselves.is_name(&mx.exchange));
    // Who is behind those is not tried.
    let tried = exchanges.iter().take(ROUTE_HOSTS_MAX).filter(|_| ourselves.have_addresses());
    let looked = tried.map(|mx| async move {
        let found = resolver.addresses(&mx.exchange).await;
        found.is_ok_and(|found| ourselves.are_at(&found.records)).then_some(mx.preference)
    });
    let by_address = join_all(looked).await.into_iter().flatten();
    by_name.map(|mx| mx.preference).into_iter().chain(by_address).min()
}

/// Why a domain without exchangers is not its own: it has no address, as DNS says for sure, or it is us.
fn no_server_of_its_own(
    domain: &str,
    ourselves: &Ourselves,
    found: &Result<Answer<Vec<IpAddr>>, LookupError>,
) -> Option<NoRoute> {
    match found {
        _ if ourselves.is_name(domain) => Some(comes_back(domain)),
        Ok(found) if ourselves.are_at(&found.records) => Some(comes_back(domain)),
        // RFC 5321 §5.1: that is an error. RFC 3463 §3.2: the system does not exist, or takes no mail.
        Err(error) if error.is_denial() => {
            let words = format!("{domain} has neither mail servers nor an address");
            Some(NoRoute::Never(Trouble::new("5.1.2", words)))
        }
        Ok(_) | Err(_) => None,
    }
}

/// RFC 3463 §3.5: a loop.
fn comes_back(domain: &str) -> NoRoute {
    let words =
        format!("mail for {domain} would come back to this server, which does not serve it");
    NoRoute::Never(Trouble::new("5.4.6", words))
}

/// What an address literal names, where a host is one.
fn literal(host: &str) -> Option<Option<IpAddr>> {
    let literal = host.strip_prefix('[')?.strip_suffix(']')?;
    // RFC 5321 §4.1.3: the tag is in any case, and zones are in lower case.
    let address = match literal.split_at_checked("IPv6:".len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address,
        _ => literal,
    };
    Some(address.parse().ok())
}

/// A host's addresses, in the order in which they are tried: both families by turns, each in
/// random order.
pub(super) async fn addresses(
    env: &Env,
    resolver: &Resolver,
    host: &str,
) -> Result<Answer<Vec<IpAddr>>, LookupError> {
    if let Some(literal) = literal(host) {
        return Ok(Answer {
            records: vec![literal.ok_or(LookupError::BadName)?],
            security: Security::Insecure,
            canonical: host.to_owned(),
            alias_security: Security::Insecure,
            ttl: Duration::ZERO,
        });
    }
    let found = resolver.addresses(host).await?;
    Ok(found.map(|addresses| ordered(env, addresses)))
}

fn ordered(env: &Env, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut shuffled: Vec<_> =
        addresses.into_iter().map(|address| (env.random_below(u64::MAX), address)).collect();
    shuffled.sort_unstable();
    let (six, four): (Vec<_>, Vec<_>) =
        shuffled.into_iter().map(|(_, address)| address).partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut ordered = Vec::new();
    loop {
        let (next_six, next_four) = (six.next(), four.next());
        if next_six.is_none() && next_four.is_none() {
            break;
        }
        ordered.extend(next_six.into_iter().chain(next_four));
    }
    ordered.truncate(HOST_ADDRESSES_MAX);
    ordered
}

#[cfg(test)]
mod tests {
    use dns::Zone;

    use super::*;

    /// We are `mx.example.org`, and at 192.0.2.25.
    fn ourselves() -> Ourselves {
        let base = crate::config::PortBase::default();
        let mut config = crate::config::Config::dev(Some("/srv/mail".into()), base).unwrap();
        config.hostname = "mx.example.org".to_owned();
        config.outbound.own_hosts = vec!["192.0.2.25".to_owned()];
        Ourselves::of(&config)
    }

    async fn check(zone: Zone, expected: Result<&[&str], (&str, bool)>) {
        check_of("example.net", zone, expected).await;
    }

    async fn check_of(domain: &str, zone: Zone, expected: Result<&[&str], (&str, bool)>) {
        let (env, resolver) = (Env::system(), Resolver::fixed(zone));
        match (find(&env, &resolver, domain, &ourselves()).await, expected) {
            (Ok(route), Ok(hosts)) => assert_eq!(route.hosts, hosts),
            (Err(NoRoute::Never(trouble)), Err((status, true)))
            | (Err(NoRoute::Now(trouble)), Err((status, false))) => {
                assert_eq!(trouble.status, status);
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[tokio::test]
    async fn servers_are_tried_by_preference() {
        let zone = Zone::new();
        zone.mx("example.net", 20, "b.example.net").mx("example.net", 10, "a.example.net");
        check(zone, Ok(&["a.example.net", "b.example.net"])).await;
        let zone = Zone::new();
        zone.address("example.net", [192, 0, 2, 1]);
        check(zone, Ok(&["example.net"])).await;
    }

    #[tokio::test]
    async fn mail_that_would_come_back_is_not_sent() {
        let zone = Zone::new();
        zone.mx("example.net", 10, "a.example.net").mx("example.net", 20, "MX.example.org").mx(
            "example.net",
            20,
            "c.example.net",
        );
        check(zone, Ok(&["a.example.net"])).await;
        let zone = Zone::new();
        zone.mx("example.net", 10, "mx.example.org").mx("example.net", 20, "c.example.net");
        check(zone, Err(("5.4.6", true))).await;
    }

    #[tokio::test]
    async fn mail_that_would_come_back_by_its_address_is_not_sent() {
        let back = Err(("5.4.6", true));
        let ours = [192, 0, 2, 25];
        // One of a list: those that are no better go with it, also where they are drawn first.
        let listed = || {
            let zone = Zone::new();
            zone.mx("example.net", 10, "a.example.net").address("a.example.net", [192, 0, 2, 1]);
            zone.mx("example.net", 20, "b.example.net").address("b.example.net", [192, 0, 2, 2]);
            zone.mx("example.net", 20, "us.example.net").address("us.example.net", ours);
            zone.mx("example.net", 30, "c.example.net").address("c.example.net", [192, 0, 2, 3]);
            zone
        };
        for _ in 0..10 {
            check(listed(), Ok(&["a.example.net"])).await;
        }
        let zone = Zone::new();
        zone.mx("example.net", 10, "us.example.net").address("us.example.net", ours);
        check(zone, back).await;
        let zone = Zone::new();
        zone.address("example.net", ours).address("example.net", [192, 0, 2, 1]);
        check(zone, back).await;
        check_of("[192.0.2.25]", Zone::new(), back).await;
        check_of("[192.0.2.26]", Zone::new(), Ok(&["[192.0.2.26]"])).await;
        let zone = Zone::new();
        zone.address("mx.example.org", [192, 0, 2, 1]);
        check_of("mx.example.org", zone, back).await;
    }

    #[tokio::test]
    async fn a_domain_that_has_neither_servers_nor_an_address_takes_no_mail() {
        let zone = Zone::new();
        zone.txt("example.net", "nothing but words");
        check(zone, Err(("5.1.2", true))).await;
        let zone = Zone::new();
        zone.txt("www.example.net", "the domain has no records at all");
        check(zone, Err(("5.1.2", true))).await;
        // Only what is sure ends it.
        let (insecure, words) = (Security::Insecure, dns::Unavailable::ServersFailed);
        let check_error = |error: LookupError, is_sure: bool| {
            let found = no_server_of_its_own("example.net", &ourselves(), &Err(error));
            assert_eq!(found.is_some(), is_sure);
        };
        check_error(LookupError::NoName { security: insecure }, true);
        check_error(LookupError::NoRecords { security: insecure }, true);
        check_error(LookupError::Temporary(words), false);
        check_error(LookupError::Bogus, false);
    }

    #[tokio::test]
    async fn servers_of_one_preference_are_tried_in_any_order() {
        let zone = Zone::new();
        zone.mx("example.net", 10, "a.example.net").mx("example.net", 10, "b.example.net").mx(
            "example.net",
            20,
            "c.example.net",
        );
        let mut drawn = std::collections::BTreeSet::new();
        // That one of two never comes first is less likely than one in 10^18.
        for _ in 0..64 {
            let (env, resolver) = (Env::system(), Resolver::fixed(zone.clone()));
            let route = find(&env, &resolver, "example.net", &ourselves()).await.unwrap();
            assert_eq!(route.hosts[2], "c.example.net");
            drawn.insert(route.hosts[0].clone());
        }
        assert_eq!(drawn.len(), 2, "{drawn:?}");
    }

    #[tokio::test]
    async fn where_there_is_no_route_it_is_said_whether_there_will_be() {
        check(Zone::new(), Err(("5.1.2", true))).await;
        let zone = Zone::new();
        zone.mx("example.net", 0, "");
        check(zone, Err(("5.1.10", true))).await;
        let zone = Zone::new();
        zone.temporary("example.net");
        check(zone, Err(("4.4.3", false))).await;
        let zone = Zone::new();
        zone.bogus("example.net");
        check(zone, Err(("4.4.3", false))).await;
    }

    #[tokio::test]
    async fn a_route_that_is_set_asks_no_mx() {
        let zone = Zone::new();
        zone.mx("example.net", 10, "mx.example.net");
        let (env, resolver) = (Env::system(), Resolver::fixed(zone));
        let by = async |value: &str| {
            let mut routes = crate::settings::routes::Routes::default();
            routes.set("route.*", value).unwrap().unwrap();
            by(routes.path("example.net"), &env, &resolver, "example.net", &ourselves()).await
        };
        let route = by("smarthost relay.example.org").await.unwrap();
        assert_eq!(
            (&route.hosts[..], route.hop.port(25)),
            (&["relay.example.org".to_owned()][..], 587)
        );
        let route = by("lmtp 192.0.2.1:24").await.unwrap();
        assert_eq!(
            (&route.hosts[..], route.hop),
            (&["[192.0.2.1]".to_owned()][..], Hop::Lmtp { port: 24 })
        );
        let direct = by("direct").await.unwrap();
        assert_eq!(
            (&direct.hosts[..], direct.hop.port(25)),
            (&["mx.example.net".to_owned()][..], 25)
        );
        assert!(matches!(by("local").await, Err(NoRoute::Never(_))));
    }

    #[tokio::test]
    async fn both_families_take_turns() {
        let zone = Zone::new();
        zone.address("a.example.net", [192, 0, 2, 1])
            .address("a.example.net", [192, 0, 2, 2])
            .address("a.example.net", [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        let (env, resolver) = (Env::system(), Resolver::fixed(zone));
        let found = addresses(&env, &resolver, "a.example.net").await.unwrap();
        let families: Vec<bool> = found.records.iter().map(IpAddr::is_ipv6).collect();
        assert_eq!(families, [true, false, false]);
        for literal in ["[IPv6:2001:db8::7]", "[ipv6:2001:DB8::7]"] {
            let found = addresses(&env, &resolver, literal).await.unwrap();
            assert_eq!(found.records, ["2001:db8::7".parse::<IpAddr>().unwrap()], "{literal}");
        }
    }
}
