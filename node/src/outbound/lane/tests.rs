//! Turns at a domain with a server in this process, or with none.

mod next;
mod reports;

use std::time::Duration;

use blob::{BlobFaults, BlobId, BlobName};
use dns::Zone;
use env::{Env, Timestamp};
use kv::Subspace;
use prost::Message;

use super::*;
use crate::{
    config,
    deliver::outbound::{
        Deadline, HELD_WITH_DOMAIN, Handling, OutboundItem, SubmissionRecord, TlsWish,
        submission_key,
    },
    outbound::{
        schedule::later,
        testing::{Letter, Manner, Mx, Rcpt, World},
    },
};

mod waiting;

const DOMAIN: &str = "example.net";

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

/// A node that finds a server for the domain which behaves in this manner.
async fn world(manner: Manner) -> (World, Mx) {
    let mx = Mx::start(&Env::system(), manner).await;
    (world_at(mx.port).await, mx)
}

async fn world_at(port: u16) -> World {
    world_with(port, |_| {}).await
}

async fn world_with(port: u16, change: impl FnOnce(&mut config::Outbound)) -> World {
    world_of(Zone::new(), port, change).await
}

async fn world_of(zone: Zone, port: u16, change: impl FnOnce(&mut config::Outbound)) -> World {
    zone.mx(DOMAIN, 10, "mx.example.net").address("mx.example.net", [127, 0, 0, 1]);
    let world = World::new(zone, |config, _| {
        config.outbound.port = port;
        config.outbound.connections_per_domain_max = 1;
        change(&mut config.outbound);
    });
    let world = world.await;
    // Reports to the senders stay where they are.
    hold(&world, "example.org").await;
    world
}

async fn hold(world: &World, domain: &str) {
    let now = world.env.wall();
    world.parts.db.run(|tx| async move { domain::hold(&tx, domain, now).await }).await.unwrap();
}

fn recipients(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("r{number}@{DOMAIN}")).collect()
}

fn counts(letters: &[Letter]) -> Vec<usize> {
    letters.iter().map(|letter| letter.recipients.len()).collect()
}

/// Waits until nothing is queued.
async fn emptied(world: &World) {
    world.reach(DOMAIN, <[_]>::is_empty).await;
}

#[tokio::test]
async fn what_a_server_took_is_not_sent_again_where_the_rest_cannot_be_read() {
    let mx = Mx::start(&Env::system(), Manner::default()).await;
    let world = world_at(mx.port).await;
    let faults = world.sender.parts.blobs.faults();
    // The server has one share of the recipients when the blobs go away.
    let letters = std::sync::Arc::clone(&mx.letters);
    let breaking = world.env.spawn("breaking", {
        let (env, faults) = (world.env.clone(), faults.clone());
        async move {
            while letters.lock().unwrap().is_empty() {
                env.sleep(Duration::from_millis(1)).await;
            }
            faults.set(BlobFaults { refused: BlobFaults::ALWAYS, ..BlobFaults::default() });
        }
    });
    let many = recipients(limits::OUTBOUND_RECIPIENTS_MAX * 8);
    world.submit(1, &many, Handling::default()).await;
    let runner = world.work(LONG);
    let left = world.reach(DOMAIN, |queued| queued.iter().any(|(_, it)| it.tries > 0)).await;
    breaking.await.unwrap();
    let [(_, item)] = &left[..] else { panic!("{left:?}") };
    let last = item.recipients[0].last.as_ref().unwrap();
    assert!(last.status == "4.3.0" && last.words.contains("cannot be read"), "{last:?}");
    let taken: Vec<_> = mx.letters().into_iter().flat_map(|letter| letter.recipients).collect();
    assert!(!taken.is_empty());
    let waits: Vec<_> = item.recipients.iter().map(|it| it.address.clone()).collect();
    assert_eq!([taken, waits].concat(), many, "each has it, or waits");
    runner.stop().await;
}

#[tokio::test]
async fn a_message_whose_bytes_are_gone_is_given_up_at_its_end() {
    let mx = Mx::start(&Env::system(), Manner::default()).await;
    let world = world_with(mx.port, |outbound| outbound.expire_seconds = 0).await;
    let id = world.submit(1, &recipients(1), Handling::default()).await;
    world.parts.blobs.remove(&BlobName::of(&id)).await.unwrap();
    let runner = world.work(LONG);
    emptied(&world).await;
    runner.stop().await;
    // The report, which goes elsewhere.
    let rows = world.rows(Subspace::Submission).await;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let record = SubmissionRecord::decode(&row.value[..]).unwrap();
    let blob = BlobId::from_slice(&record.blob).unwrap();
    let report = world.parts.blobs.read_to_vec(blob, 0..record.size, 100_000).await.unwrap();
    let report = String::from_utf8(report).unwrap();
    assert!(report.contains("Action: failed\r\nStatus: 5.4.7\r\n"), "{report}");
    assert!(report.contains("does not exist"), "{report}");
}

#[tokio::test]
async fn a_server_gets_no_more_recipients_at_once_than_it_says() {
    let offers = vec!["LIMITS RCPTMAX=2"];
    let (world, mx) = world(Manner { offers, ..Manner::default() }).await;
    world.submit(1, &recipients(5), Handling::default()).await;
    let runner = world.work(LONG);
    emptied(&world).await;
    runner.stop().await;
    assert_eq!(counts(&mx.letters()), [2, 2, 1]);
}

#[tokio::test]
async fn recipients_that_were_too_many_come_in_the_next_transaction() {
    let answers: [Rcpt; 3] = [
        |held, _| if held < 3 { "250 ok" } else { "452 4.5.3 too many" },
        |held, _| if held < 3 { "250 ok" } else { "452 too many" },
        |held, _| if held < 3 { "250 ok" } else { "552 too many" },
    ];
    for rcpt in answers {
        let (world, mx) = world(Manner { rcpt, ..Manner::default() }).await;
        world.submit(1, &recipients(8), Handling::default()).await;
        let runner = world.work(LONG);
        emptied(&world).await;
        runner.stop().await;
        assert_eq!(counts(&mx.letters()), [3, 3, 2]);
    }
}

#[tokio::test]
async fn a_server_that_has_no_room_for_anybody_is_asked_once() {
    let answers: [(Rcpt, &str); 3] = [
        (|_, _| "452 4.5.3 too many", "4.5.3"),
        (|_, _| "552 too many", "4.0.0"),
        (|_, _| "552 5.5.3 too many", "4.5.3"),
    ];
    for (rcpt, status) in answers {
        let (world, mx) = world(Manner { rcpt, ..Manner::default() }).await;
        world.submit(1, &recipients(3), Handling::default()).await;
        let runner = world.work(LONG);
        let left = world.reach(DOMAIN, |queued| queued.iter().all(|(_, it)| it.tries > 0)).await;
        runner.stop().await;
        let [(_, item)] = &left[..] else { panic!("{left:?}") };
        assert_eq!((item.tries, item.recipients.len(), mx.letters()), (1, 3, Vec::new()));
        assert_eq!(item.recipients[0].last.as_ref().unwrap().status, status);
    }
}

#[tokio::test]
async fn a_connection_that_has_had_its_messages_is_closed_and_another_goes_on() {
    let offers = vec!["LIMITS MAILMAX=2"];
    let (world, mx) = world(Manner { offers, ..Manner::default() }).await;
    for number in 1..=5 {
        world.submit(number, &recipients(1), Handling::default()).await;
    }
    let runner = world.work(LONG);
    let left = world.reach(DOMAIN, |queued| queued.iter().all(|(_, it)| it.tries > 0)).await;
    runner.stop().await;
    assert_eq!(left, [], "nothing waits for a second try");
    let connections: Vec<_> = mx.letters().iter().map(|letter| letter.connection).collect();
    assert_eq!(connections, [1, 1, 2, 2, 3]);
}

#[tokio::test]
async fn a_server_that_says_goodbye_on_a_kept_connection_gets_the_message_over_another() {
    let (world, mx) = world(Manner { messages_max: 2, ..Manner::default() }).await;
    for number in 1..=5 {
        world.submit(number, &recipients(1), Handling::default()).await;
    }
    let runner = world.work(LONG);
    let left = world.reach(DOMAIN, |queued| queued.iter().all(|(_, it)| it.tries > 0)).await;
    runner.stop().await;
    assert_eq!(left, [], "nothing waits for a second try");
    let connections: Vec<_> = mx.letters().iter().map(|letter| letter.connection).collect();
    assert_eq!(connections, [1, 1, 2, 2, 3]);
}

#[tokio::test]
async fn a_domain_that_is_away_is_asked_once_however_many_recipients_a_message_has() {
    let count = limits::OUTBOUND_RECIPIENTS_MAX * 3;
    let (world, mx) = world(Manner { messages_max: 0, ..Manner::default() }).await;
    let port = mx.port;
    drop(mx);
    let listener = loop {
        // Whoever connects is counted, and hears nothing.
        match world.env.listen(([127, 0, 0, 1], port).into()).await {
            Ok(listener) => break listener,
            Err(_) => world.env.sleep(Duration::from_millis(1)).await,
        }
    };
    world.submit(1, &recipients(count), Handling::default()).await;
    let runner = world.work(LONG);
    let mut connections = 0;
    let left = loop {
        tokio::select! {
            accepted = listener.accept() => {
                drop(accepted.unwrap());
                connections += 1;
            }
            left = world.reach(DOMAIN, |queued| queued.iter().all(|(_, it)| it.tries > 0)) => break left,
        }
    };
    runner.stop().await;
    let [(_, item)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((item.recipients.len(), connections), (count, 1));
}

async fn known(world: &World) -> Option<DomainTrouble> {
    world.parts.db.run(|tx| async move { domain::trouble(&tx, DOMAIN).await }).await.unwrap()
}

/// Notes that the domain could not be reached, and when it is tried again.
async fn in_trouble(world: &World, retry_ms: i64) {
    let since_ms = world.env.wall().unix_ms();
    let retry_ms = since_ms + retry_ms;
    let trouble = &DomainTrouble { failures: 3, since_ms, retry_ms, ..DomainTrouble::default() };
    let fence = &world.peers.membership.fence();
    let note = |tx| async move { domain::note(&tx, fence, DOMAIN, Some(trouble)).await };
    world.parts.db.run(note).await.unwrap();
}

#[tokio::test]
async fn with_its_last_message_gone_nothing_is_known_of_a_domain() {
    let (world, _mx) = world(Manner::default()).await;
    in_trouble(&world, -1).await;
    assert!(known(&world).await.is_some());
    // It is returned without anybody being asked.
    let at = Timestamp::from_unix_ms(world.env.wall().unix_ms() - 1);
    let late = Deadline { at, late: smtp::Late::Return, trace: smtp::Trace::No };
    let handling = Handling { deliver_by: Some(late), ..Handling::default() };
    world.submit(1, &recipients(1), handling).await;
    let runner = world.work(LONG);
    emptied(&world).await;
    // With the zone let go the turn is over.
    runner.stop().await;
    assert_eq!(known(&world).await, None);
}

/// Waits for the turn at a domain that sends nothing to end, among whose items are some that say
/// nothing, and one whose submission is gone. What is queued then, but for those that say nothing.
async fn after_turn(world: &World) -> Vec<(zone::Item, OutboundItem)> {
    let due = Timestamp::from_unix_ms(world.env.wall().unix_ms() - 1_000);
    let damaged = cluster::limits::ITEMS_PER_READ;
    for number in 0..damaged {
        world.damage(DOMAIN, &(number as u64).to_be_bytes(), due).await;
    }
    world.submit(1, &recipients(1), Handling::default()).await;
    world.submit(2, &recipients(1), Handling::default()).await;
    let key = &submission_key(&[2; 16]);
    let clear = |tx: kv::Transaction| async move {
        tx.clear(key);
        Ok::<_, StoreError>(())
    };
    world.parts.db.run(clear).await.unwrap();
    let runner = world.work(LONG);
    let now = world.env.wall();
    world.reach(DOMAIN, |queued| queued.iter().all(|(item, _)| item.due > now)).await;
    let end = world.env.monotonic() + Duration::from_secs(20);
    let state = || async {
        let kind = cluster::work::Kind::Outbound;
        let read = |tx| async move { zone::state(&tx, kind, DOMAIN).await };
        world.parts.db.run(read).await.unwrap()
    };
    while !matches!(state().await, Some(zone::ZoneState::Waiting { .. })) {
        assert!(world.env.monotonic() < end, "the turn goes on and on");
        world.env.sleep(Duration::from_millis(5)).await;
    }
    runner.stop().await;
    let (silent, left): (Vec<_>, Vec<_>) =
        world.queued(DOMAIN).await.into_iter().partition(|(item, _)| item.id.len() == 8);
    let long = later(now, limits::DAMAGED_PUT_OFF);
    assert!(silent.len() == damaged && silent.iter().all(|(item, _)| item.due >= long));
    left
}

#[tokio::test]
async fn a_domain_that_is_down_does_not_go_round_what_cannot_be_read() {
    // Nobody listens there, and who waits for anything is told at once.
    let world = world_with(1, |outbound| outbound.delay_notice_seconds = 0).await;
    in_trouble(&world, 60_000).await;
    let left = after_turn(&world).await;
    let [(ours, item)] = &left[..] else { panic!("{left:?}") };
    assert!(ours.id == [1; 16] && item.waits_for_domain && item.is_late_told, "{left:?}");
}

#[tokio::test]
async fn a_domain_that_is_held_does_not_go_round_what_cannot_be_read() {
    let world = world_at(1).await;
    hold(&world, DOMAIN).await;
    let left = after_turn(&world).await;
    assert!(left.len() == 2 && left.iter().all(|(_, item)| item.held == HELD_WITH_DOMAIN));
}

#[tokio::test]
async fn what_cannot_be_read_comes_again_in_a_long_time() {
    let (world, _mx) = world(Manner::default()).await;
    let now = world.env.wall();
    world.damage(DOMAIN, b"silent", now).await;
    let runner = world.work(LONG);
    let left = world.reach(DOMAIN, |queued| queued.iter().all(|(item, _)| item.due > now)).await;
    runner.stop().await;
    assert!(left.len() == 1 && left[0].0.due >= later(now, limits::DAMAGED_PUT_OFF), "{left:?}");
}

#[tokio::test]
async fn what_needs_no_tls_leaves_where_tls_keeps_the_rest_from_leaving() {
    let mx = Mx::start(&Env::system(), Manner::default()).await;
    let zone = Zone::new();
    zone.secure(DOMAIN);
    // The server does not offer what the domain promises.
    let tlsa = dns::Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
    zone.tlsa(&format!("_{}._tcp.mx.example.net", mx.port), tlsa);
    let world = world_of(zone, mx.port, |_| {}).await;
    let without = Handling { tls: TlsWish::Optional, ..Handling::default() };
    let runner = world.work(LONG);
    for (first, second) in [(1, 2), (3, 4)] {
        world.submit(first, &recipients(2), Handling::default()).await;
        world.submit(second, &recipients(1), without).await;
        let is_put_off = |(item, it): &(zone::Item, OutboundItem)| {
            item.due > Timestamp::from_unix_ms(it.received_ms) && it.waits_for_domain
        };
        let left = world.reach(DOMAIN, |queued| {
            queued.len() == usize::from(second / 2) && queued.iter().all(is_put_off)
        });
        left.await;
        // The domain stays as it is: others must not follow over the connection in clear.
        let known = known(&world).await.unwrap();
        assert!(known.is_of_tls && known.failures == 1, "{known:?}");
        assert!(
            mx.letters().len() == usize::from(second / 2)
                && counts(&mx.letters()).iter().all(|it| *it == 1)
        );
    }
    runner.stop().await;
}

#[tokio::test]
async fn a_sender_hears_of_every_hop_that_watches_its_time_where_it_wants_to() {
    let at = Timestamp::from_unix_ms(Env::system().wall().unix_ms() + 3_600_000);
    for (trace, reports) in [(smtp::Trace::Yes, 1), (smtp::Trace::No, 0)] {
        let offers = vec!["DELIVERBY", "DSN"];
        let (world, mx) = world(Manner { offers, ..Manner::default() }).await;
        let by = Deadline { at, late: smtp::Late::Return, trace };
        let handling = Handling { deliver_by: Some(by), ..Handling::default() };
        world.submit(1, &recipients(1), handling).await;
        let runner = world.work(LONG);
        emptied(&world).await;
        runner.stop().await;
        assert_eq!(mx.letters().len(), 1);
        // The report is on its way to the sender.
        assert_eq!(world.queued("example.org").await.len(), reports, "{trace:?}");
    }
}
