//! Who counts as a member, and when.

use std::time::Duration;

use cluster::{
    NodeName, Standing,
    membership::registry::{self, End, Wish, Wished},
};

use crate::{TIME_TO_LIVE, play, sees, standing};

#[test]
fn those_who_join_see_each_other_and_see_who_leaves() {
    play(1, |world| {
        let machines = [world.machine(), world.machine(), world.machine()];
        async move {
            let one = machines[0].join("one").await;
            let two = machines[1].join("two").await;
            let three = machines[2].join("three").await;
            for member in [&one, &two, &three] {
                sees(member, &["one", "three", "two"]).await;
            }
            two.leave().await.unwrap();
            sees(&one, &["one", "three"]).await;
            sees(&three, &["one", "three"]).await;
        }
    });
}

#[test]
fn who_dies_is_declared_dead_within_the_time_to_live_and_a_look() {
    play(2, |world| {
        let (here, there, env) = (world.machine(), world.machine(), world.env.clone());
        let db = world.db.clone();
        async move {
            let one = here.join("one").await;
            let two = there.join("two").await;
            sees(&one, &["one", "two"]).await;
            drop(two);
            let died = env.monotonic();
            sees(&one, &["one"]).await;
            let took = env.monotonic() - died;
            let look = TIME_TO_LIVE / cluster::limits::BEATS_PER_LIFE;
            assert!(took <= TIME_TO_LIVE + look * 2, "{took:?}");
            let name = NodeName::parse("two").unwrap();
            let found = db.run(|tx| {
                let name = name.clone();
                async move { registry::name(&tx, &name).await }
            });
            assert_eq!(found.await.unwrap().expect("it is remembered").end, End::Died as i32);
        }
    });
}

#[test]
fn who_is_cut_off_stops_before_it_is_declared_dead_and_joins_again() {
    for seed in 0..20 {
        play(seed, |world| {
            let (here, there) = (world.machine(), world.machine());
            async move {
                let one = here.join("one").await;
                let two = there.join("two").await;
                sees(&one, &["one", "two"]).await;
                let fence = two.fence();
                assert!(fence.is_live());
                // At any point between two heartbeats.
                there.env.sleep(Duration::from_millis(there.env.random_below(1_000))).await;
                there.cut_off();
                let mut roster = one.roster();
                while roster.borrow_and_update().len() == 2 {
                    roster.changed().await.unwrap();
                    if roster.borrow().len() == 1 {
                        assert!(!fence.is_live(), "seed {seed}: dead, and acts");
                    }
                }
                there.reconnect();
                let old = fence.epoch();
                let new = standing(&two, |it| matches!(it, Standing::Member(new) if new != old));
                assert!(matches!(new.await, Standing::Member(_)));
                assert!(!fence.is_live() && two.fence().is_live());
                let over = here.db.run(|tx| {
                    let fence = fence.clone();
                    async move { fence.check(&tx).await }
                });
                assert!(over.await.is_err());
                sees(&one, &["one", "two"]).await;
            }
        });
    }
}

#[test]
fn a_short_absence_costs_nothing() {
    play(4, |world| {
        let (here, there) = (world.machine(), world.machine());
        async move {
            let one = here.join("one").await;
            let two = there.join("two").await;
            sees(&one, &["one", "two"]).await;
            let epoch = two.fence().epoch();
            for _ in 0..10 {
                there.cut_off();
                there.env.sleep(TIME_TO_LIVE / 2).await;
                there.reconnect();
                there.env.sleep(TIME_TO_LIVE / 2).await;
            }
            assert_eq!(two.fence().epoch(), epoch);
            assert!(two.fence().is_live());
        }
    });
}

#[test]
fn a_name_belongs_to_whoever_took_it_last() {
    play(5, |world| {
        let (here, there) = (world.machine(), world.machine());
        async move {
            let old = here.join("mx").await;
            let new = there.join("mx").await;
            assert!(new.fence().is_live());
            standing(&old, |it| it == Standing::Superseded).await;
            assert!(!old.fence().is_live());
            sees(&new, &["mx"]).await;
        }
    });
}

#[test]
fn a_wish_reaches_its_node_and_outlives_it() {
    play(6, |world| {
        let (here, db) = (world.machine(), world.db.clone());
        async move {
            let mx = here.join("mx").await;
            let name = mx.name().clone();
            let asked = &name;
            let wish = |it| db.run(move |tx| async move { registry::wish(&tx, asked, it).await });
            assert_eq!(wish(Wish::Drain).await.unwrap(), Wished::Noted);
            mx.wish().wait_for(|wish| *wish == Wish::Drain).await.unwrap();
            mx.leave().await.unwrap();
            let mx = here.join("mx").await;
            assert_eq!(*mx.wish().borrow(), Wish::Drain);
            assert_eq!(wish(Wish::Serve).await.unwrap(), Wished::Noted);
            mx.wish().wait_for(|wish| *wish == Wish::Serve).await.unwrap();
            let forget = |name| db.run(move |tx| async move { registry::forget(&tx, name).await });
            assert_eq!(forget(&name).await.unwrap(), registry::Forgotten::Registered);
            mx.leave().await.unwrap();
            assert_eq!(forget(&name).await.unwrap(), registry::Forgotten::Yes);
            assert_eq!(wish(Wish::Drain).await.unwrap(), Wished::Unknown);
        }
    });
}
