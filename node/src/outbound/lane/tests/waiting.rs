//! Messages that wait for a domain which cannot be reached.

use super::*;

/// A port at which nobody listens.
async fn free_port(env: &Env) -> u16 {
    env.listen(([127, 0, 0, 1], 0).into()).await.unwrap().local_address().unwrap().port()
}

/// A node that tries a domain which is away once a second, with these messages for it.
async fn away(messages: u8) -> World {
    let world = world_with(free_port(&Env::system()).await, |outbound| {
        outbound.retry_seconds_min = 1;
        outbound.retry_seconds_max = 1;
    })
    .await;
    for number in 1..=messages {
        world.submit(number, &recipients(1), Handling::default()).await;
    }
    world
}

/// Its server, from now on.
async fn back(world: &World) -> Mx {
    let at = ([127, 0, 0, 1], world.parts.config.port).into();
    Mx::start_at(&world.env, at, Manner::default()).await
}

async fn tried(world: &World, times: u32) {
    let end = world.env.monotonic() + Duration::from_secs(20);
    while known(world).await.is_none_or(|trouble| trouble.failures < times) {
        assert!(world.env.monotonic() < end, "{:?}", known(world).await);
        world.env.sleep(Duration::from_millis(5)).await;
    }
}

fn all_wait(queued: &[(zone::Item, OutboundItem)]) -> bool {
    queued.iter().all(|(_, message)| message.waits_for_domain)
}

#[tokio::test]
async fn a_try_of_a_domain_that_is_away_rewrites_one_of_its_messages() {
    let world = away(20).await;
    let runner = world.work(LONG);
    let before = world.reach(DOMAIN, all_wait).await;
    let had = known(&world).await.unwrap().failures;
    tried(&world, had + 2).await;
    runner.stop().await;
    let after = world.queued(DOMAIN).await;
    let same = after.iter().filter(|it| before.contains(it)).count();
    assert_eq!((before.len(), after.len()), (20, 20));
    assert!(same >= 17, "{same} are as they were");
    let soonest = world.env.wall().unix_ms() + 3_600_000;
    assert!(
        after.iter().all(|(item, _)| item.due.unix_ms() > soonest),
        "none has a try of its own"
    );
}

#[tokio::test]
async fn what_waited_leaves_when_its_domain_is_back() {
    let world = away(20).await;
    let runner = world.work(LONG);
    world.reach(DOMAIN, all_wait).await;
    let mx = back(&world).await;
    emptied(&world).await;
    assert_eq!(mx.letters().len(), 20);
    assert!(known(&world).await.is_none_or(|trouble| trouble.failures == 0));
    runner.stop().await;
}

#[tokio::test]
async fn what_waited_leaves_with_the_next_holder_of_a_domain_that_is_back() {
    let world = away(20).await;
    let runner = world.work(LONG);
    world.reach(DOMAIN, all_wait).await;
    runner.stop().await;
    let mx = back(&world).await;
    // Every turn is over before all have left.
    let runner = world.work(Duration::from_millis(5));
    emptied(&world).await;
    assert_eq!(mx.letters().len(), 20);
    runner.stop().await;
}

#[tokio::test]
async fn what_waited_is_found_behind_much_that_waits_for_its_time() {
    let world = away(3).await;
    let runner = world.work(LONG);
    world.reach(DOMAIN, all_wait).await;
    let hold_until = Some(later(world.env.wall(), Duration::from_secs(600)));
    let pages = u8::try_from(2 * cluster::limits::ITEMS_PER_READ + 10).unwrap();
    for number in 10..10 + pages {
        world.submit(number, &recipients(1), Handling { hold_until, ..Handling::default() }).await;
    }
    let mx = back(&world).await;
    world.reach(DOMAIN, |queued| queued.len() == usize::from(pages)).await;
    assert_eq!(mx.letters().len(), 3);
    runner.stop().await;
}

#[tokio::test]
async fn what_comes_late_to_a_domain_that_is_being_sent_to_is_found() {
    let (world, _mx) = world(Manner::default()).await;
    world.submit(1, &recipients(1), Handling::default()).await;
    let fence = world.peers.membership.fence();
    let (kind, now) = (cluster::work::Kind::Outbound, world.env.wall());
    let claim = |tx: kv::Transaction| {
        let fence = fence.clone();
        async move { zone::claim(&tx, &fence, kind, DOMAIN, now).await }
    };
    let claimed = world.parts.db.run(claim).await.unwrap();
    let zone::Claimed::Ours { since_ms } = claimed else { panic!("{claimed:?}") };
    let held = Held { fence, kind, zone: DOMAIN.to_owned(), since_ms };
    let lane = Lane::open(&world.parts, &held).await.unwrap();
    let read = async || {
        let found = lane.read_due(&BTreeSet::new()).await.unwrap();
        found.iter().map(|item| item.id[0]).collect::<Vec<_>>()
    };
    assert_eq!(read().await, [1]);
    // It is due minutes before the claim, and overtakes all that wait.
    let priority = smtp::Priority::new(9).unwrap();
    world.submit(2, &recipients(1), Handling { priority, ..Handling::default() }).await;
    // One look learns of it, and the next from the begin finds it.
    let end = world.env.monotonic() + Duration::from_secs(20);
    while read().await != [2, 1] {
        assert!(world.env.monotonic() < end);
        world.env.sleep(Duration::from_millis(20)).await;
    }
}
