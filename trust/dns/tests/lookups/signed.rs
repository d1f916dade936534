//! What is proven, what is not, and what is refuted.

use dns::{LookupError, Resolver, Security, Settings, TrustAnchors, Unavailable, Validation};
use env::Env;
use hickory_net::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};

use crate::{
    server::{Replies, Server, reply, settings},
    world::{Signing, TTL, World, a, alias, mx, name, soa, tlsa},
};

fn records() -> Vec<(&'static str, RData)> {
    vec![
        ("test.", mx(10, "host.test.")),
        ("host.test.", a("192.0.2.1")),
        ("_25._tcp.host.test.", tlsa(3, &[1; 32])),
        ("near.test.", alias("host.test.")),
        ("far.test.", alias("host.plain.test.")),
        ("off.test.", alias("missing.plain.test.")),
        ("gone.test.", alias("missing.test.")),
        ("host.plain.test.", a("192.0.2.2")),
        ("back.plain.test.", alias("host.test.")),
        ("*.wild.test.", a("192.0.2.4")),
        ("taken.wild.test.", a("192.0.2.5")),
        ("below.inner.wild.test.", a("192.0.2.6")),
        ("wrong.test.", a("192.0.2.3")),
        ("expired.test.", a("192.0.2.3")),
        ("missing-signature.test.", a("192.0.2.3")),
    ]
}

fn world(env: &Env) -> World {
    let mut world = World::new(env, &records());
    world.signing.insert(name("wrong.test."), Signing::Wrong);
    world.signing.insert(name("expired.test."), Signing::Expired);
    world.signing.insert(name("missing-signature.test."), Signing::Missing);
    world
}

/// A server of the world that can change what it says, and a resolver that trusts its key.
pub(crate) async fn changed(
    env: &Env,
    change: impl Fn(&Message, Message) -> Replies + Send + Sync + 'static,
) -> (Server, Resolver) {
    let world = world(env);
    let trust_anchors = TrustAnchors::Records(world.anchor());
    let server = Server::start(env, move |query, _| change(query, world.answer(query))).await;
    let settings = Settings { validation: Validation::On, trust_anchors, ..settings(&[&server]) };
    let resolver = Resolver::new(env, &settings).unwrap();
    (server, resolver)
}

async fn honest(env: &Env) -> (Server, Resolver) {
    changed(env, |_, answer| vec![answer.to_vec().unwrap()]).await
}

#[tokio::test]
async fn what_is_signed_is_secure() {
    let env = Env::system();
    let (server, resolver) = honest(&env).await;
    assert_eq!(resolver.mx("test").await.unwrap().security, Security::Secure);
    let host = resolver.addresses("host.test").await.unwrap();
    assert_eq!((host.security, host.records.len()), (Security::Secure, 1));
    let tlsa = resolver.tlsa("_25._tcp.host.test").await.unwrap();
    assert_eq!((tlsa.security, tlsa.records.len()), (Security::Secure, 1));
    let near = resolver.ipv4("near.test").await.unwrap();
    assert_eq!((near.security, &*near.canonical), (Security::Secure, "host.test"));
    let asked = server.queries();
    assert_eq!(resolver.mx("test").await.unwrap().security, Security::Secure);
    assert_eq!(server.queries(), asked, "the chain of trust is remembered");
}

#[tokio::test]
async fn what_is_denied_by_a_signed_zone_is_so_securely() {
    let env = Env::system();
    let (_server, resolver) = honest(&env).await;
    let security = Security::Secure;
    assert_eq!(resolver.txt("nobody.test").await, Err(LookupError::NoName { security }));
    assert_eq!(resolver.txt("host.test").await, Err(LookupError::NoRecords { security }));
    assert_eq!(resolver.tlsa("_25._tcp.nobody.test").await, Err(LookupError::NoName { security }));
    assert_eq!(resolver.ipv4("gone.test").await, Err(LookupError::NoName { security }));
}

#[tokio::test]
async fn what_is_delegated_unsigned_is_insecure() {
    let env = Env::system();
    let (_server, resolver) = honest(&env).await;
    let security = Security::Insecure;
    assert_eq!(resolver.ipv4("host.plain.test").await.unwrap().security, security);
    assert_eq!(resolver.ipv4("nobody.plain.test").await, Err(LookupError::NoName { security }));
    assert_eq!(resolver.txt("host.plain.test").await, Err(LookupError::NoRecords { security }));
    // RFC 7672 §2.2.2: the alias is proven, what it leads to is not.
    let far = resolver.ipv4("far.test").await.unwrap();
    assert_eq!((far.security, far.alias_security), (security, Security::Secure));
    assert_eq!(far.canonical, "host.plain.test");
    assert_eq!(resolver.ipv4("off.test").await, Err(LookupError::NoName { security }));
    let back = resolver.ipv4("back.plain.test").await.unwrap();
    assert_eq!((back.security, back.alias_security), (security, security));
}

#[tokio::test]
async fn what_is_below_no_anchor_is_insecure() {
    let env = Env::system();
    let (_server, resolver) = changed(&env, |query, _| {
        let mut reply = reply(query);
        reply.add_answer(Record::from_rdata(name("elsewhere.example."), TTL, a("192.0.2.1")));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let found = resolver.ipv4("elsewhere.example").await.unwrap();
    assert_eq!(found.security, Security::Insecure);
}

#[tokio::test]
async fn what_is_signed_wrongly_is_bogus() {
    let env = Env::system();
    let (_server, resolver) = honest(&env).await;
    for host in ["wrong.test", "expired.test", "missing-signature.test"] {
        assert_eq!(resolver.ipv4(host).await, Err(LookupError::Bogus), "{host}");
        assert_eq!(resolver.addresses(host).await, Err(LookupError::Bogus), "{host}");
    }
}

/// TLSA records that go away by a forgery would turn DANE off.
#[tokio::test]
async fn a_forged_denial_is_bogus() {
    let env = Env::system();
    let forge = |owners: &'static [&'static str]| {
        move |query: &Message, answer: Message| {
            if query.queries[0].query_type() != RecordType::TLSA {
                return vec![answer.to_vec().unwrap()];
            }
            let mut forged = reply(query);
            forged.metadata.response_code = ResponseCode::NXDomain;
            for owner in owners {
                forged.add_authority(Record::from_rdata(name(owner), TTL, soa()));
            }
            vec![forged.to_vec().unwrap()]
        }
    };
    let attempts: [&'static [&'static str]; 5] = [
        &[],
        &["test."],
        &["host.test."],
        // Of a zone that is insecure indeed, which says nothing about this one.
        &["plain.test."],
        &["plain.test.", "test."],
    ];
    for owners in attempts {
        let (_server, resolver) = changed(&env, forge(owners)).await;
        let denied = resolver.tlsa("_25._tcp.host.test").await;
        assert_eq!(denied, Err(LookupError::Bogus), "{owners:?}");
    }
}

#[tokio::test]
async fn a_forged_record_is_bogus() {
    let env = Env::system();
    let (_server, resolver) = changed(&env, |_, mut answer| {
        for record in &mut answer.answers {
            if record.record_type() == RecordType::A {
                record.data = a("203.0.113.66");
            }
        }
        vec![answer.to_vec().unwrap()]
    })
    .await;
    assert_eq!(resolver.ipv4("host.test").await, Err(LookupError::Bogus));
    assert_eq!(resolver.ipv4("near.test").await, Err(LookupError::Bogus));
}

/// A wildcard's record is for names that do not exist, and that has to be shown.
#[tokio::test]
async fn a_wildcard_is_not_played_back_for_a_name_that_exists() {
    let env = Env::system();
    let look = async |host: &'static str, denial: fn(&World, &str) -> Vec<Record>| {
        let world = world(&env);
        let trust_anchors = TrustAnchors::Records(world.anchor());
        let owner = format!("{host}.");
        let server = Server::start(&env, move |query, _| {
            let question = &query.queries[0];
            if question.name() != &name(&owner) || question.query_type() != RecordType::A {
                return vec![world.answer(query).to_vec().unwrap()];
            }
            let mut reply = reply(query);
            reply.add_answers(world.expanded("*.wild.test.", &owner));
            reply.add_authorities(denial(&world, &owner));
            vec![reply.to_vec().unwrap()]
        })
        .await;
        let settings =
            Settings { validation: Validation::On, trust_anchors, ..settings(&[&server]) };
        let resolver = Resolver::new(&env, &settings).unwrap();
        resolver.ipv4(host).await.map(|answer| answer.security)
    };
    let free = "free.wild.test";
    for host in [free, "a.b.free.wild.test", "zz.wild.test"] {
        let found = look(host, |world, owner| world.denial(owner)).await;
        assert_eq!(found, Ok(Security::Secure), "{host}");
    }
    // Names below show that it is there.
    let inner = look("inner.wild.test", |world, owner| world.denial(owner)).await;
    assert_eq!(inner, Err(LookupError::Bogus));
    for host in [free, "taken.wild.test"] {
        assert_eq!(look(host, |world, _| world.plain_soa()).await, Err(LookupError::Bogus));
        assert_eq!(look(host, |_, _| vec![]).await, Err(LookupError::Bogus));
    }
    let taken = look("taken.wild.test", |world, owner| world.denial(owner)).await;
    assert_eq!(taken, Err(LookupError::Bogus));
}

#[tokio::test]
async fn a_missing_piece_of_the_chain_is_no_forgery() {
    let env = Env::system();
    let (_server, resolver) = changed(&env, |query, mut answer| {
        if query.queries[0].query_type() == RecordType::DNSKEY {
            answer = reply(query);
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let expected = LookupError::Temporary(Unavailable::ServersFailed);
    assert_eq!(resolver.ipv4("host.test").await, Err(expected));
}
