//! Orders as a lane obeys them.

use std::time::Duration;

use blob::BlobFaults;
use dns::Zone;
use env::Env;

use super::*;
use crate::{
    deliver::outbound::Handling,
    outbound::testing::{Manner, Mx, World},
};

const DOMAIN: &str = "example.net";

async fn order(world: &World, submission: [u8; 16], action: Action) {
    let (now, submission) = (world.env.wall(), &submission);
    let order = |tx| async move { give(&tx, DOMAIN, submission, action, 0, now).await };
    assert_eq!(world.parts.db.run(order).await.unwrap(), Given::Yes);
}

#[tokio::test]
async fn an_order_finds_its_message_among_many_however_short_a_turn_is() {
    let world = World::new(Zone::new(), |_, _| {}).await;
    let now = world.env.wall();
    let due = Timestamp::from_unix_ms(now.unix_ms() + 3_600_000);
    // More than one look takes.
    for thousand in 0_u64..3 {
        let put = |tx: Transaction| async move {
            for number in 0..1_000 {
                let id = (thousand * 1_000 + number).to_be_bytes();
                cluster::work::enqueue(&tx, Kind::Outbound, DOMAIN, due, &id, b"\xff").await?;
            }
            Ok::<_, StoreError>(())
        };
        world.parts.db.run(put).await.unwrap();
    }
    let read = |tx| async move { zone::items_from(&tx, Kind::Outbound, Some(DOMAIN), None).await };
    assert!(world.parts.db.run(read).await.unwrap().next.is_some());
    let behind = Some(Timestamp::from_unix_ms(due.unix_ms() + 1));
    let handling = Handling { hold_until: behind, ..Handling::default() };
    world.submit(1, &[format!("x@{DOMAIN}")], handling).await;
    order(&world, [1; 16], Action::Cancel).await;
    let runner = world.work(Duration::ZERO);
    let gone = |submission: Option<_>| submission.is_none();
    let end = world.env.monotonic() + Duration::from_secs(20);
    let read = |tx| async move { outbound::submission(&tx, &[1; 16]).await };
    while !gone(world.parts.db.run(read).await.unwrap()) {
        assert!(world.env.monotonic() < end, "it is looked for again and again");
        world.env.sleep(Duration::from_millis(5)).await;
    }
    runner.stop().await;
}

#[tokio::test]
async fn what_is_to_be_cancelled_with_a_report_that_cannot_be_written_is_held() {
    let mx = Mx::start(&Env::system(), Manner::default()).await;
    let zone = Zone::new();
    zone.mx(DOMAIN, 10, "mx.example.net").address("mx.example.net", [127, 0, 0, 1]);
    let world = World::new(zone, |config, _| config.outbound.port = mx.port).await;
    world.submit(1, &[format!("x@{DOMAIN}")], Handling::default()).await;
    order(&world, [1; 16], Action::CancelTelling).await;
    let faults = world.sender.parts.blobs.faults();
    faults.set(BlobFaults { refused: BlobFaults::ALWAYS, ..BlobFaults::default() });
    let runner = world.work(Duration::from_secs(60));
    let left = world.reach(DOMAIN, |queued| queued.iter().all(|(_, it)| it.held != 0)).await;
    runner.stop().await;
    let [(item, message)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((message.held, item.due.unix_ms()), (HELD_ALONE, HELD_DUE_MS));
    let why = message.recipients[0].last.as_ref().unwrap();
    assert!(why.words.contains("report"), "{why:?}");
    assert_eq!(mx.letters(), []);
}
