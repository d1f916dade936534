//! Every kind of lookup, aliases, denials, the way to TCP, the cache, and the stub.

use std::{net::IpAddr, time::Duration};

use dns::{LookupError, Mx, Resolver, Security, Tlsa, Unavailable, Validation, Zone};
use env::Env;
use hickory_net::proto::rr::RData;

use crate::{
    server::{Server, Way, plain, settings},
    world::{World, a, aaaa, alias, mx, ptr, tlsa, txt},
};

fn records() -> Vec<(&'static str, RData)> {
    vec![
        ("plain.test.", mx(20, "Two.plain.test.")),
        ("plain.test.", mx(10, "one.plain.test.")),
        ("null.plain.test.", mx(0, ".")),
        ("one.plain.test.", a("192.0.2.1")),
        ("one.plain.test.", a("192.0.2.2")),
        ("one.plain.test.", aaaa("2001:db8::1")),
        ("four.plain.test.", a("192.0.2.4")),
        ("text.plain.test.", txt(&[b"v=spf1 ", b"-all"])),
        ("text.plain.test.", txt(&[b"\xff\0"])),
        ("_25._tcp.one.plain.test.", tlsa(3, &[7; 32])),
        ("www.plain.test.", alias("alias.plain.test.")),
        ("alias.plain.test.", alias("one.plain.test.")),
        ("nowhere.plain.test.", alias("missing.plain.test.")),
        ("loop.plain.test.", alias("pool.plain.test.")),
        ("pool.plain.test.", alias("loop.plain.test.")),
        ("1.2.0.192.in-addr.arpa.", ptr("One.plain.test.")),
    ]
}

async fn served(env: &Env) -> Server {
    let world = World::new(env, &records());
    Server::start(env, move |query, _| vec![world.answer(query).to_vec().unwrap()]).await
}

fn stub() -> Zone {
    let zone = Zone::new();
    zone.mx("plain.test", 20, "two.plain.test")
        .mx("plain.test", 10, "one.plain.test")
        .mx("null.plain.test", 0, "")
        .address("one.plain.test", [192, 0, 2, 1])
        .address("one.plain.test", [192, 0, 2, 2])
        .address("one.plain.test", "2001:db8::1".parse::<IpAddr>().unwrap())
        .address("four.plain.test", [192, 0, 2, 4])
        .txt("text.plain.test", "v=spf1 -all")
        .txt("text.plain.test", b"\xff\0")
        .tlsa(
            "_25._tcp.one.plain.test",
            Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] },
        )
        .alias("www.plain.test", "alias.plain.test")
        .alias("alias.plain.test", "one.plain.test")
        .alias("nowhere.plain.test", "missing.plain.test")
        .alias("loop.plain.test", "pool.plain.test")
        .alias("pool.plain.test", "loop.plain.test")
        .ptr([192, 0, 2, 1], "one.plain.test");
    zone
}

async fn everything_is_found(resolver: &Resolver) {
    let answer = resolver.mx("PLAIN.test").await.unwrap();
    let of = |preference, exchange: &str| Mx { preference, exchange: exchange.to_owned() };
    assert_eq!(answer.records, [of(20, "two.plain.test"), of(10, "one.plain.test")]);
    assert_eq!((answer.security, &*answer.canonical), (Security::Insecure, "plain.test"));
    assert!(answer.ttl > Duration::from_secs(60));
    assert_eq!(resolver.mx("null.plain.test.").await.unwrap().records, [of(0, "")]);

    let three = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|it| it.parse::<IpAddr>().unwrap());
    assert_eq!(resolver.addresses("one.plain.test").await.unwrap().records, three);
    let answer = resolver.addresses("www.plain.test").await.unwrap();
    assert_eq!((&answer.records[..], &*answer.canonical), (&three[..], "one.plain.test"));
    let four = resolver.addresses("four.plain.test").await.unwrap().records;
    assert_eq!(four, ["192.0.2.4".parse::<IpAddr>().unwrap()]);
    assert_eq!(resolver.ipv4("www.plain.test").await.unwrap().records.len(), 2);
    for (like, expected) in
        [("192.0.2.9", &three[..2]), ("::ffff:192.0.2.9", &three[..2]), ("::1", &three[2..])]
    {
        let like = like.parse().unwrap();
        assert_eq!(
            resolver.addresses_like("one.plain.test", like).await.unwrap().records,
            expected
        );
    }

    let texts = resolver.txt("text.plain.test").await.unwrap().records;
    assert_eq!(texts, [&b"v=spf1 -all"[..], b"\xff\0"]);
    let tlsa = resolver.tlsa("_25._tcp.one.plain.test").await.unwrap().records;
    assert_eq!(tlsa, [Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] }]);
    let names = resolver.ptr("192.0.2.1".parse().unwrap()).await.unwrap().records;
    assert_eq!(names, ["one.plain.test"]);
    let mapped = resolver.ptr("::ffff:192.0.2.1".parse().unwrap()).await.unwrap().records;
    assert_eq!(mapped, names);

    let security = Security::Insecure;
    let none = |looked: Result<_, LookupError>| looked.err();
    let missing = LookupError::NoName { security };
    let empty = LookupError::NoRecords { security };
    assert_eq!(none(resolver.addresses("missing.plain.test").await), Some(missing.clone()));
    assert_eq!(none(resolver.addresses("nowhere.plain.test").await), Some(missing));
    assert_eq!(none(resolver.addresses("text.plain.test").await), Some(empty.clone()));
    assert_eq!(none(resolver.addresses("_tcp.one.plain.test").await), Some(empty));
    let too_far = LookupError::Temporary(Unavailable::TooFar);
    assert_eq!(none(resolver.addresses("loop.plain.test").await), Some(too_far));
    assert_eq!(none(resolver.addresses("bücher.test").await), Some(LookupError::BadName));
}

#[tokio::test]
async fn everything_is_found_on_a_server() {
    let env = Env::system();
    let server = served(&env).await;
    everything_is_found(&plain(&env, &server)).await;
}

#[tokio::test]
async fn everything_is_found_in_a_stub() {
    everything_is_found(&Resolver::fixed(stub())).await;
}

#[tokio::test]
async fn a_stub_fails_as_it_is_told() {
    let env = Env::system();
    let zone = stub();
    let resolver = Resolver::fixed(zone.clone());
    zone.temporary("down.test").bogus("forged.test").secure("safe.test");
    zone.mx("forged.test", 1, "a.test").mx("safe.test", 1, "b.test");
    let temporary = LookupError::Temporary(Unavailable::ServersFailed);
    assert_eq!(resolver.mx("down.test").await, Err(temporary));
    assert_eq!(resolver.addresses("forged.test").await, Err(LookupError::Bogus));
    assert_eq!(resolver.mx("forged.test").await.unwrap().records.len(), 1);
    assert_eq!(resolver.mx("safe.test").await.unwrap().security, Security::Secure);
    let denied = resolver.tlsa("_25._tcp.safe.test").await;
    assert_eq!(denied, Err(LookupError::NoName { security: Security::Secure }));
    assert_eq!(zone.remove("safe.test").lookups(), 6, "an address is two questions");

    zone.address("slow.test", [192, 0, 2, 9]).slow(&env, "slow.test", Duration::from_millis(50));
    let begin = env.monotonic();
    resolver.ipv4("slow.test").await.unwrap();
    assert!(env.monotonic() - begin >= Duration::from_millis(50));
}

#[tokio::test]
async fn what_was_answered_is_not_asked_again() {
    let env = Env::system();
    let server = served(&env).await;
    let resolver = plain(&env, &server);
    for _ in 0..5 {
        resolver.mx("plain.test").await.unwrap();
        resolver.mx("missing.plain.test").await.unwrap_err();
    }
    assert_eq!(server.queries(), (2, 0));
}

#[tokio::test]
async fn what_udp_cannot_hold_comes_over_tcp() {
    let env = Env::system();
    let long: Vec<&[u8]> = vec![&[b'x'; 255]; 100];
    let world = World::new(&env, &[("long.plain.test.", txt(&long))]);
    let server = Server::start(&env, move |query, way| {
        let full = world.answer(query);
        let sent = if way == Way::Udp { full.truncate() } else { full };
        vec![sent.to_vec().unwrap()]
    })
    .await;
    let found = plain(&env, &server).txt("long.plain.test").await.unwrap();
    assert_eq!(found.records, [vec![b'x'; 25_500]]);
    assert_eq!(server.queries(), (1, 1));
}

#[tokio::test]
async fn trusted_servers_say_what_is_proven() {
    let env = Env::system();
    let world = World::new(&env, &records());
    let server = Server::start(&env, move |query, _| {
        assert!(query.authentic_data, "it is asked whether it is proven");
        let mut answer = world.answer(query);
        answer.metadata.authentic_data = query.queries[0].name().to_ascii().starts_with("one");
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let settings = dns::Settings { validation: Validation::TrustServers, ..settings(&[&server]) };
    let resolver = Resolver::new(&env, &settings).unwrap();
    let security = async |host| resolver.ipv4(host).await.unwrap().security;
    assert_eq!(security("one.plain.test").await, Security::Secure);
    assert_eq!(security("four.plain.test").await, Security::Insecure);
}
