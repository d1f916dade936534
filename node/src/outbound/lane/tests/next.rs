//! Servers that do not take a message, and those behind them.

use super::*;
use crate::{deliver::outbound::Body, outbound::testing::Leaves};

/// A node, and servers of one domain in the order of their preference, each with its manner.
async fn world_of_many(manners: Vec<Manner>) -> (World, Vec<Mx>) {
    let env = Env::system();
    let zone = Zone::new();
    let mut servers: Vec<Mx> = Vec::new();
    for (place, manner) in (1..).zip(manners) {
        let port = servers.first().map_or(0, |first| first.port);
        let address = std::net::SocketAddr::from(([127, 0, 0, place], port));
        let host = format!("mx{place}.example.net");
        zone.mx(DOMAIN, u16::from(place), &host).address(&host, [127, 0, 0, place]);
        servers.push(Mx::start_at(&env, address, manner).await);
    }
    let port = servers[0].port;
    let world = World::new(zone, |config, _| {
        config.outbound.port = port;
        config.outbound.connections_per_domain_max = 1;
    });
    let world = world.await;
    hold(&world, "example.org").await;
    (world, servers)
}

/// Sends one message, and waits for what came of its first try. What waits then, and what servers got.
async fn sent(world: &World, servers: &[Mx]) -> (Vec<OutboundItem>, Vec<usize>) {
    let runner = world.work(LONG);
    let left = world.reach(DOMAIN, |queued| queued.iter().all(|(_, it)| it.tries > 0)).await;
    runner.stop().await;
    let got = servers.iter().map(|mx| mx.letters().len()).collect();
    (left.into_iter().map(|(_, item)| item).collect(), got)
}

#[tokio::test]
async fn what_a_server_takes_for_nobody_now_goes_to_the_next_at_once() {
    let manner = Manner::default;
    for first in [
        Manner { mail: "451 4.3.2 not now", ..manner() },
        Manner { rcpt: |_, _| "450 4.2.0 come back", ..manner() },
        Manner { data: "451 4.3.0 no", ..manner() },
        Manner { end: "452 4.3.1 no room", ..manner() },
        Manner { end: "421 4.3.2 bye", ..manner() },
        Manner { mail: "421 4.3.2 bye", ..manner() },
        Manner { leaves: Leaves::AtData, ..manner() },
    ] {
        let (world, servers) = world_of_many(vec![first, manner()]).await;
        world.submit(1, &recipients(2), Handling::default()).await;
        let (left, got) = sent(&world, &servers).await;
        assert_eq!((left, got), (Vec::new(), vec![0, 1]));
        assert_eq!(servers[1].letters()[0].recipients, recipients(2));
    }
}

#[tokio::test]
async fn what_a_server_may_have_is_offered_to_no_other() {
    let leaves = Leaves::WithTheMessage;
    let (world, servers) =
        world_of_many(vec![Manner { leaves, ..Manner::default() }, Manner::default()]).await;
    world.submit(1, &recipients(1), Handling::default()).await;
    let (left, got) = sent(&world, &servers).await;
    let [item] = &left[..] else { panic!("{left:?}") };
    assert_eq!(item.recipients[0].last.as_ref().unwrap().status, "4.4.0");
    assert_eq!((got, servers[1].connections()), (vec![1, 0], 0));
}

#[tokio::test]
async fn what_a_server_says_of_some_recipients_holds() {
    let one: Rcpt = |_, to| if to.starts_with("r0") { "250 ok" } else { "450 4.2.0 later" };
    let never: Rcpt =
        |_, to| if to.starts_with("r0") { "550 5.1.1 who" } else { "450 4.2.0 later" };
    for (rcpt, got) in [(one, 1), (never, 0)] {
        let first = Manner { rcpt, ..Manner::default() };
        let (world, servers) = world_of_many(vec![first, Manner::default()]).await;
        world.submit(1, &recipients(2), Handling::default()).await;
        let (left, found) = sent(&world, &servers).await;
        let [item] = &left[..] else { panic!("{left:?}") };
        let waits: Vec<_> = item.recipients.iter().map(|it| it.address.as_str()).collect();
        assert_eq!((waits, found), (vec!["r1@example.net"], vec![got, 0]));
        assert_eq!(servers[1].connections(), 0);
    }
    // For good is for good.
    let first = Manner { end: "554 5.7.1 spam", ..Manner::default() };
    let (world, servers) = world_of_many(vec![first, Manner::default()]).await;
    world.submit(1, &recipients(1), Handling::default()).await;
    assert_eq!(sent(&world, &servers).await, (Vec::new(), vec![0, 0]));
}

#[tokio::test]
async fn not_all_servers_are_asked_where_all_put_it_off() {
    let many = limits::HOSTS_OFFERED_MAX + 1;
    let manner = Manner { end: "451 4.3.0 no", ..Manner::default() };
    let (world, servers) = world_of_many(vec![manner; many]).await;
    world.submit(1, &recipients(1), Handling::default()).await;
    let (left, _) = sent(&world, &servers).await;
    assert_eq!((left.len(), left[0].tries), (1, 1));
    let connections: Vec<_> = servers.iter().map(Mx::connections).collect();
    assert_eq!(connections, [vec![1; many - 1], vec![0]].concat());
}

#[tokio::test]
async fn what_one_server_cannot_carry_another_may() {
    let wants = |submission: &mut crate::deliver::outbound::Submission| {
        submission.body = Body::EightBitMime;
    };
    let carries = || Manner { offers: vec!["8BITMIME"], ..Manner::default() };
    let not_now = || Manner { mail: "451 4.3.2 not now", ..carries() };
    let lacks = Manner::default;
    // Those that are there, how many recipients wait after the first try, and what each server got.
    for (manners, waits, expected) in [
        (vec![lacks(), carries()], 0, vec![0, 1]),
        (vec![lacks(), lacks()], 0, vec![0, 0]),
        // One that may carry it has put it off.
        (vec![lacks(), not_now()], 1, vec![0, 0]),
        (vec![not_now(), lacks()], 1, vec![0, 0]),
    ] {
        let (world, servers) = world_of_many(manners).await;
        world.submit_as(1, &recipients(1), wants).await;
        let (left, got) = sent(&world, &servers).await;
        assert_eq!((left.len(), got), (waits, expected));
        let reports = world.queued("example.org").await.len();
        assert_eq!(reports, usize::from(expected_report(waits, &servers)));
    }
    // A size is the message's own.
    let small = Manner { offers: vec!["SIZE 10"], ..Manner::default() };
    let (world, servers) = world_of_many(vec![small, Manner::default()]).await;
    world.submit(1, &recipients(1), Handling::default()).await;
    assert_eq!(sent(&world, &servers).await, (Vec::new(), vec![0, 0]));
}

/// A message that neither waits nor was taken is reported.
fn expected_report(waits: usize, servers: &[Mx]) -> bool {
    waits == 0 && servers.iter().all(|mx| mx.letters().is_empty())
}

#[tokio::test]
async fn with_the_others_away_a_message_that_was_put_off_waits_with_its_servers_words() {
    let first = Manner { mail: "451 4.3.2 not now", ..Manner::default() };
    let (world, mut servers) = world_of_many(vec![first, Manner::default()]).await;
    drop(servers.pop());
    world.submit(1, &recipients(1), Handling::default()).await;
    let (left, _) = sent(&world, &servers).await;
    let last = left[0].recipients[0].last.as_ref().unwrap();
    assert_eq!((last.status.as_str(), last.remote.as_str()), ("4.3.2", "mx1.example.net"));
    // The domain is not away: the next message is tried as ever.
    assert_eq!(known(&world).await, None);
}
