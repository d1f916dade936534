//! What each combination of records and policies demands.

use dns::Zone;

use super::*;
use crate::outbound::ourselves::Ourselves;
use crate::{outbound::route::Hop, settings::routes::Routes};

const DOMAIN: &str = "example.net";
const HOST: &str = "mx.example.net";
const TLSA: &str = "_25._tcp.mx.example.net";

/// A domain with one server, whose zone is proven.
fn zone() -> Zone {
    let zone = Zone::new();
    zone.address(HOST, [192, 0, 2, 1]).secure(DOMAIN);
    zone
}

fn record(usage: u8) -> Tlsa {
    Tlsa { usage, selector: 1, matching: 1, data: vec![7; 32] }
}

fn exchangers(proof: Proof) -> Route {
    let hosts = vec![HOST.to_owned()];
    Route { hosts, domain: DOMAIN.to_owned(), proof, hop: Hop::Exchangers }
}

fn sts(mode: &str, mx: &str) -> Sts {
    Sts::of(&format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n"))
}

async fn ask(zone: Zone, route: &Route, sts: &Sts, need: Need) -> Result<Terms, Passed> {
    let (env, resolver) = (Env::system(), Resolver::fixed(zone));
    let asking = Asking { env: &env, resolver: &resolver, port: 25 };
    of(asking, route, sts, &route.hosts[0], need).await
}

/// What is demanded of ordinary mail, and under whose policy.
async fn check(zone: Zone, proof: Proof, sts: &Sts, demand: Demand, policy: Policy) {
    let terms = ask(zone, &exchangers(proof), sts, Need::Ordinary).await.unwrap();
    assert_eq!((terms.demand, terms.policy), (demand, policy));
}

fn dane(base: &str, names: &[&str]) -> Demand {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Demand::Dane(Arc::new(Dane::new(base.to_owned(), names, vec![record(3)]).unwrap()))
}

const STRICT: Demand = Demand::Authority(Otherwise::Refused);

#[tokio::test]
async fn tlsa_records_count_where_everything_on_the_way_to_them_is_proven() {
    let none = Sts::default();
    let signed = zone();
    signed.tlsa(TLSA, record(3));
    let proven = dane(HOST, &[HOST, DOMAIN]);
    check(signed.clone(), Proof::Secure, &none, proven, Policy::Tlsa).await;
    // MX records that anybody may have made lead to servers that anybody may have signed.
    check(signed, Proof::Insecure, &none, Demand::Nothing, Policy::None).await;
    let plain = Zone::new();
    plain.address(HOST, [192, 0, 2, 1]).tlsa(TLSA, record(3));
    check(plain, Proof::Secure, &none, Demand::Nothing, Policy::None).await;
    check(zone(), Proof::Secure, &none, Demand::Nothing, Policy::None).await;
}

#[tokio::test]
async fn records_that_nobody_understands_still_promise_tls() {
    let signed = zone();
    signed.tlsa(TLSA, record(1));
    check(signed.clone(), Proof::Secure, &Sts::default(), Demand::Encryption, Policy::Tlsa).await;
    let required = ask(signed, &exchangers(Proof::Secure), &Sts::default(), Need::RequireTls).await;
    assert_eq!(required.unwrap().demand, STRICT);
}

#[tokio::test]
async fn records_that_cannot_be_had_let_nothing_through() {
    for break_it in [Zone::temporary, Zone::bogus] {
        let signed = zone();
        break_it(&signed, TLSA);
        let policy = sts("enforce", HOST);
        let passed = ask(signed, &exchangers(Proof::Secure), &policy, Need::Ordinary).await;
        let passed = passed.unwrap_err();
        assert!(matches!(passed, Passed::Tlsa(_)), "{passed:?}");
        assert_eq!(passed.result_type(), Some("dnssec-invalid"));
    }
    let bogus = Zone::new();
    bogus.bogus(HOST);
    let passed = ask(bogus, &exchangers(Proof::Secure), &Sts::default(), Need::Ordinary).await;
    assert_eq!(passed, Err(Passed::Lookup(LookupError::Bogus)));
}

#[tokio::test]
async fn an_aliass_own_records_come_second() {
    let alias = || {
        let zone = Zone::new();
        zone.alias(HOST, "host.example.com").address("host.example.com", [192, 0, 2, 1]);
        zone.secure(DOMAIN);
        zone
    };
    let none = Sts::default();
    let both = alias();
    both.secure("example.com").tlsa("_25._tcp.host.example.com", record(3)).tlsa(TLSA, record(2));
    let expanded = dane("host.example.com", &["host.example.com", HOST, DOMAIN]);
    check(both, Proof::Secure, &none, expanded, Policy::Tlsa).await;
    let own = alias();
    own.secure("example.com").tlsa(TLSA, record(3));
    check(own, Proof::Secure, &none, dane(HOST, &[HOST, DOMAIN]), Policy::Tlsa).await;
    // What it leads to is not proven, the alias is.
    let partly = alias();
    partly.tlsa("_25._tcp.host.example.com", record(2)).tlsa(TLSA, record(3));
    check(partly, Proof::Secure, &none, dane(HOST, &[HOST, DOMAIN]), Policy::Tlsa).await;
}

#[tokio::test]
async fn a_policy_counts_where_there_are_no_records() {
    let (enforced, tested) = (sts("enforce", "*.example.net"), sts("testing", HOST));
    let told = Demand::Authority(Otherwise::Told);
    check(zone(), Proof::Insecure, &enforced, STRICT, Policy::Sts).await;
    check(zone(), Proof::Insecure, &tested, told, Policy::Sts).await;
    check(zone(), Proof::Insecure, &sts("none", HOST), Demand::Nothing, Policy::None).await;
    let signed = zone();
    signed.tlsa(TLSA, record(3));
    check(signed, Proof::Secure, &enforced, dane(HOST, &[HOST, DOMAIN]), Policy::Tlsa).await;
    let route = exchangers(Proof::Insecure);
    let other = ask(zone(), &route, &sts("enforce", "mx2.example.net"), Need::Ordinary).await;
    assert_eq!(other, Err(Passed::Policy));
    let outside = ask(zone(), &route, &sts("testing", "mx2.example.net"), Need::Ordinary).await;
    assert!(outside.unwrap().is_outside);
    let inside = ask(zone(), &route, &tested, Need::Ordinary).await;
    assert!(!inside.unwrap().is_outside);
}

#[tokio::test]
async fn what_requires_tls_goes_to_servers_that_are_proven_to_be_the_domains() {
    let demand = async |proof, sts: &Sts| {
        let asked = ask(zone(), &exchangers(proof), sts, Need::RequireTls).await;
        asked.map(|terms| terms.demand)
    };
    assert_eq!(demand(Proof::Secure, &Sts::default()).await, Ok(STRICT));
    assert_eq!(demand(Proof::Insecure, &Sts::default()).await, Err(Passed::Unproven));
    let unknown = Sts { is_unknown: true, ..Sts::default() };
    assert_eq!(demand(Proof::Insecure, &unknown).await, Err(Passed::PolicyUnknown));
    assert_eq!(demand(Proof::Secure, &unknown).await, Ok(STRICT));
    assert_eq!(demand(Proof::Insecure, &sts("enforce", HOST)).await, Ok(STRICT));
    assert_eq!(demand(Proof::Insecure, &sts("testing", HOST)).await, Ok(STRICT));
    let elsewhere = sts("testing", "mx2.example.net");
    assert_eq!(demand(Proof::Insecure, &elsewhere).await, Err(Passed::Unproven));
}

#[tokio::test]
async fn a_smarthost_shows_its_certificate_unless_its_route_says_otherwise() {
    let demand = async |value: &str| {
        let mut routes = Routes::default();
        routes.set("route.*", value).unwrap().unwrap();
        let (env, resolver) = (Env::system(), Resolver::fixed(zone()));
        let path = routes.path(DOMAIN);
        let ourselves = Ourselves::default();
        let route = route::by(path, &env, &resolver, DOMAIN, &ourselves).await.unwrap();
        // The domain's policy is about its own servers.
        ask(zone(), &route, &sts("enforce", "other.example"), Need::Ordinary).await.unwrap().demand
    };
    assert_eq!(demand("smarthost mx.example.net").await, STRICT);
    assert_eq!(demand("smarthost mx.example.net tls=implicit").await, STRICT);
    assert_eq!(demand("smarthost mx.example.net tls=opportunistic").await, Demand::Nothing);
    assert_eq!(demand("lmtp mx.example.net:24").await, Demand::Nothing);
}
