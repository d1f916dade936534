//! Servers that are silent, lie, or try to exhaust us.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use dns::{LookupError, Resolver, Security, Settings, Unavailable, limits};
use env::Env;
use hickory_net::proto::{
    op::{Message, ResponseCode},
    rr::Record,
};

use crate::{
    server::{Server, Way, plain, reply, settings},
    signed::changed,
    world::{TTL, a, alias, name},
};

fn good(query: &Message) -> Vec<u8> {
    let mut reply = reply(query);
    let owner = query.queries[0].name().clone();
    reply.add_answer(Record::from_rdata(owner, TTL, a("192.0.2.1")));
    reply.to_vec().unwrap()
}

#[tokio::test]
async fn silence_ends_in_time_and_the_next_server_is_asked() {
    let env = Env::system();
    let silent = Server::start(&env, |_, _| vec![]).await;
    let timeout = Duration::from_millis(400);
    let settings = Settings { timeout, ..settings(&[&silent]) };
    let resolver = Resolver::new(&env, &settings).unwrap();
    let begin = env.monotonic();
    let looked = resolver.ipv4("host.example").await;
    assert_eq!(looked, Err(LookupError::Temporary(Unavailable::TimedOut)));
    assert!(env.monotonic() - begin < timeout * 10);

    let honest = Server::start(&env, |query, _| vec![good(query)]).await;
    let servers = vec![silent.address, honest.address];
    let resolver = Resolver::new(&env, &Settings { servers, ..settings }).unwrap();
    assert_eq!(resolver.ipv4("host.example").await.unwrap().records.len(), 1);
    let asked = silent.queries();
    assert_eq!(resolver.ipv4("other.example").await.unwrap().records.len(), 1);
    assert_eq!(silent.queries(), asked, "the one that answered is asked first");
}

/// Whoever writes a message chooses names whose servers are silent; the next message's names, and ours, are
/// asked about all the same.
#[tokio::test]
async fn a_message_waits_for_its_own_questions_alone() {
    let env = Env::system();
    let server = Server::start(&env, |query, _| {
        let is_slow = name("slow.example.").zone_of(query.queries[0].name());
        if is_slow { vec![] } else { vec![good(query)] }
    })
    .await;
    let resolver = plain(&env, &server);
    let message = resolver.for_message();
    let most = limits::MESSAGE_QUERIES_MAX;
    let slow: Vec<_> = (0..2 * most)
        .map(|number| {
            let message = message.clone();
            env.spawn("test-slow", async move {
                message.ipv4(&format!("n{number}.slow.example")).await.is_ok()
            })
        })
        .collect();
    while server.queries().0 < most {
        tokio::task::yield_now().await;
    }
    for other in [resolver.for_message(), resolver.for_strangers(), resolver.clone()] {
        let name = format!("h{}.example", server.queries().0);
        assert!(other.ipv4(&name).await.is_ok());
    }
    assert_eq!(server.queries().0, most + 3, "the other names wait");
    drop(slow);
    assert!(message.ipv4("last.example").await.is_ok());
}

#[tokio::test]
async fn nobody_there_is_a_temporary_failure() {
    let env = Env::system();
    let gone = Server::start(&env, |_, _| vec![]).await.address;
    let timeout = Duration::from_millis(400);
    let settings = Settings { servers: vec![gone], timeout, ..settings(&[]) };
    let looked = Resolver::new(&env, &settings).unwrap().ipv4("host.example").await;
    assert!(matches!(looked, Err(LookupError::Temporary(_))), "{looked:?}");
}

#[tokio::test]
async fn failures_are_passed_on_and_remembered() {
    let env = Env::system();
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr] {
        let server = Server::start(&env, move |query, _| {
            let mut reply = reply(query);
            reply.metadata.response_code = code;
            vec![reply.to_vec().unwrap()]
        })
        .await;
        let resolver = plain(&env, &server);
        let expected = Err(LookupError::Temporary(Unavailable::ServersFailed));
        assert_eq!(resolver.ipv4("host.example").await, expected);
        assert_eq!(resolver.ipv4("host.example").await, expected);
        assert_eq!(server.queries(), (limits::ROUNDS, 0));
    }
}

#[tokio::test]
async fn strays_are_passed_over() {
    let env = Env::system();
    let server = Server::start(&env, |query, _| {
        let mut guess = query.clone();
        guess.metadata.id = query.id.wrapping_add(1);
        let mut other = reply(query);
        other.queries[0].name = name("other.example.");
        other.add_answer(Record::from_rdata(name("other.example."), TTL, a("203.0.113.66")));
        vec![vec![], vec![0xff; 40], good(&guess), other.to_vec().unwrap(), good(query)]
    })
    .await;
    let found = plain(&env, &server).ipv4("host.example").await.unwrap();
    assert_eq!(found.records, [std::net::Ipv4Addr::new(192, 0, 2, 1)]);
}

#[tokio::test]
async fn a_storm_of_strays_ends_the_query() {
    let env = Env::system();
    let server = Server::start(&env, |_, _| vec![vec![0; 100]; 200]).await;
    let looked = plain(&env, &server).ipv4("host.example").await;
    assert_eq!(looked, Err(LookupError::Temporary(Unavailable::Garbled)));
}

#[tokio::test]
async fn garbled_answers_are_temporary_failures() {
    let env = Env::system();
    let cut = |query: &Message, way: Way| {
        let bytes = good(query);
        vec![match way {
            Way::Udp => bytes[..bytes.len() - 2].to_vec(),
            Way::Tcp => bytes,
        }]
    };
    let expected = Err(LookupError::Temporary(Unavailable::Garbled));
    let server = Server::start(&env, cut).await;
    assert_eq!(plain(&env, &server).ipv4("host.example").await, expected);
    // Truncated, and then over TCP truncated again, nonsense, or the connection ends.
    for tcp in [None, Some(vec![0; 12]), Some(vec![])] {
        let server = Server::start(&env, move |query, way| {
            let mut short = reply(query);
            short.metadata.truncation = true;
            match (way, &tcp) {
                (Way::Tcp, Some(bytes)) => vec![bytes.clone()],
                _ => vec![short.to_vec().unwrap()],
            }
        })
        .await;
        assert_eq!(plain(&env, &server).ipv4("host.example").await, expected);
    }
    let server = Server::start(&env, move |query, way| {
        let mut short = reply(query);
        short.metadata.truncation = true;
        if way == Way::Udp { vec![short.to_vec().unwrap()] } else { vec![] }
    })
    .await;
    let looked = plain(&env, &server).ipv4("host.example").await;
    assert_eq!(looked, Err(LookupError::Temporary(Unavailable::Unreachable)));
}

#[tokio::test]
async fn a_maze_of_aliases_ends() {
    let env = Env::system();
    let next = AtomicUsize::new(0);
    let server = Server::start(&env, move |query, _| {
        let mut reply = reply(query);
        let target = format!("n{}.example.", next.fetch_add(1, Ordering::SeqCst));
        let owner = query.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(owner, 0, alias(&target)));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let looked = plain(&env, &server).ipv4("host.example").await;
    assert_eq!(looked, Err(LookupError::Temporary(Unavailable::TooFar)));
    assert!(server.queries().0 <= limits::ALIASES_MAX + 1);
}

/// Signatures by ever deeper signers make a validator ask and ask.
#[tokio::test]
async fn a_maze_of_names_costs_a_bounded_number_of_queries() {
    let env = Env::system();
    let (server, resolver) = changed(&env, |query, _| {
        let mut reply = reply(query);
        reply.metadata.response_code = ResponseCode::NXDomain;
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let deep = format!("{}test", "a.".repeat(120));
    for _ in 0..2 {
        let looked = resolver.mx(&deep).await;
        assert!(looked.is_err(), "{looked:?}");
    }
    let (udp, tcp) = server.queries();
    assert!(udp + tcp <= 2 * limits::QUERIES_PER_LOOKUP, "{udp} and {tcp}");
}

#[tokio::test]
async fn more_records_than_anybody_needs_are_left_out() {
    let env = Env::system();
    let server = Server::start(&env, |query, way| {
        let mut reply = reply(query);
        let owner = query.queries[0].name().clone();
        for number in 0..2_000u32 {
            let address = std::net::Ipv4Addr::from(number).to_string();
            reply.add_answer(Record::from_rdata(owner.clone(), TTL, a(&address)));
        }
        let reply = if way == Way::Udp { reply.truncate() } else { reply };
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let found = plain(&env, &server).ipv4("host.example").await.unwrap();
    assert_eq!(found.records.len(), limits::RECORDS_MAX);
}

/// Flipped bits in signed answers: nothing else than what was signed is ever secure.
#[tokio::test]
async fn damaged_answers_are_never_secure() {
    let env = Env::system();
    let mut proven = 0;
    for bit in (0..1_600).step_by(13) {
        let (_server, resolver) = changed(&env, move |query, answer| {
            let mut bytes = answer.to_vec().unwrap();
            if query.queries[0].name() == &name("host.test.") {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            vec![bytes]
        })
        .await;
        let patience = Duration::from_millis(100);
        let looked = env.timeout(patience, resolver.ipv4("host.test")).await;
        if let Ok(Ok(answer)) = looked
            && answer.security == Security::Secure
        {
            assert_eq!(answer.records, [std::net::Ipv4Addr::new(192, 0, 2, 1)], "bit {bit}");
            proven += 1;
        }
    }
    assert!(proven > 0, "some bits matter to nobody");
}
