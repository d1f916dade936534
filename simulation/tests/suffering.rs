//! What can be done to hosts, the network, the store and the bucket is done, and undone.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use blob::{
    BlobError, BlobName, BlobStore,
    s3::model::{Bucket, BucketReach},
};
use env::Env;
use kv::{Database, Error, Faults, Probability};
use simulation::{Host, Latency, Seed, Simulation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

struct Two {
    simulation: Simulation,
    one: Host,
    other: Host,
}

fn two(latency: Latency) -> Two {
    let simulation = Simulation::new(Seed(5), latency);
    let one = simulation.host("one", IpAddr::from([192, 0, 2, 1]));
    let other = simulation.host("other", IpAddr::from([192, 0, 2, 2]));
    Two { simulation, one, other }
}

fn at(host: &Host) -> SocketAddr {
    SocketAddr::new(host.address(), 25)
}

/// A task that counts steps of 10 ms.
fn ticking(host: &Host) -> Arc<AtomicU64> {
    let (env, ticks) = (host.env(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&ticks);
    let own = env.clone();
    env.spawn("ticks", async move {
        loop {
            own.sleep(10 * MS).await;
            counted.fetch_add(1, Relaxed);
        }
    })
    .detach();
    ticks
}

#[test]
fn a_paused_host_stands_still_and_goes_on() {
    let Two { simulation, one, other } = two(Latency::NONE);
    let ticks = ticking(&one);
    let env = other.env();
    simulation.run(async {
        env.sleep(SECOND + MS).await;
        assert_eq!(ticks.load(Relaxed), 100);
        one.pause();
        let polls = one.polls();
        env.sleep(10 * SECOND).await;
        assert_eq!((ticks.load(Relaxed), one.polls()), (100, polls));
        one.resume();
        env.sleep(MS).await;
        assert_eq!(ticks.load(Relaxed), 101, "the timer that was late fires once");
        env.sleep(SECOND).await;
        assert_eq!(ticks.load(Relaxed), 201);
    });
}

#[test]
fn a_host_crashes_before_any_step_and_nothing_of_it_goes_on() {
    for steps in 1..20 {
        let Two { simulation, one, other } = two(Latency::NONE);
        let ticks = ticking(&one);
        let (env, old) = (other.env(), one.env());
        simulation.run(async {
            one.crash_after(steps);
            one.crashed().await;
            // It has set its first timer before; the last step it does not make.
            assert_eq!(ticks.load(Relaxed), steps - 1, "{steps}");
            assert!(!one.is_up());
            env.sleep(10 * SECOND).await;
            assert_eq!(ticks.load(Relaxed), steps - 1, "{steps}");
            let new = one.restart();
            assert!(old.listen(at(&one)).await.is_err(), "that life is over");
            assert!(new.listen(at(&one)).await.is_ok());
        });
    }
}

#[test]
fn a_crash_resets_what_was_connected() {
    let Two { simulation, one, other } = two(Latency::NONE);
    let (server, client) = (one.env(), other.env());
    simulation.run(async {
        let listener = server.listen(at(&one)).await.expect("it is free");
        let place = at(&one);
        server
            .spawn("server", async move {
                let mut held = Vec::new();
                while let Ok(connection) = listener.accept().await {
                    held.push(connection);
                }
            })
            .detach();
        let mut stream = client.connect(place).await.expect("it listens");
        client.sleep(SECOND).await;
        one.crash();
        let ended = stream.read_u8().await.map_err(|error| error.kind());
        assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
        let refused = client.connect(place).await.map(drop).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
    });
}

#[test]
fn a_cut_holds_one_direction_until_it_is_healed() {
    let Two { simulation, one, other } = two(Latency { min: MS, max: MS });
    let (server, client) = (one.env(), other.env());
    let network = simulation.network();
    simulation.run(async {
        let listener = server.listen(at(&one)).await.expect("it is free");
        let mut ours = client.connect(at(&one)).await.expect("it listens");
        let mut theirs = listener.accept().await.expect("somebody came").stream;
        network.cut(other.address(), one.address());
        ours.write_all(b"there").await.expect("nobody knows yet");
        theirs.write_all(b"back").await.expect("this way is open");
        let mut bytes = [0; 5];
        ours.read_exact(&mut bytes[..4]).await.expect("this way is open");
        assert!(server.timeout(10 * SECOND, theirs.read_exact(&mut bytes)).await.is_err());
        let begun = client.monotonic();
        let late = client.connect(at(&one)).await.map(drop).map_err(|error| error.kind());
        assert_eq!(late, Err(io::ErrorKind::TimedOut));
        let waited = client.monotonic().saturating_since(begun);
        assert_eq!(waited, simulation::limits::CONNECT_TIME_MAX);
        network.heal(other.address(), one.address());
        theirs.read_exact(&mut bytes).await.expect("it is healed");
        assert_eq!(&bytes, b"there");
        assert!(!network.is_cut(other.address(), one.address()));
    });
}

#[test]
fn datagrams_do_not_pass_a_cut() {
    let Two { simulation, one, other } = two(Latency::NONE);
    let (here, there) = (one.env(), other.env());
    let network = simulation.network();
    simulation.run(async {
        let ours = here.datagrams(at(&one)).await.expect("it is free");
        let theirs = there.datagrams(at(&other)).await.expect("it is free");
        network.cut(one.address(), other.address());
        ours.send_to(b"lost", at(&other)).await.expect("it is sent");
        theirs.send_to(b"open", at(&one)).await.expect("it is sent");
        let mut bytes = [0; 4];
        assert!(ours.receive(&mut bytes).await.is_ok());
        network.heal_all();
        assert!(there.timeout(SECOND, theirs.receive(&mut bytes)).await.is_err(), "lost for good");
    });
}

#[test]
fn streams_are_reset_at_both_ends() {
    let Two { simulation, one, other } = two(Latency::NONE);
    let (server, client) = (one.env(), other.env());
    simulation.run(async {
        let listener = server.listen(at(&one)).await.expect("it is free");
        let mut ours = client.connect(at(&one)).await.expect("it listens");
        let mut theirs = listener.accept().await.expect("somebody came").stream;
        assert_eq!(simulation.network().reset_streams(one.address(), other.address()), 2);
        for stream in [&mut ours, &mut theirs] {
            let read = stream.read_u8().await.map_err(|error| error.kind());
            assert_eq!(read, Err(io::ErrorKind::ConnectionReset));
            assert!(stream.write_all(b"x").await.is_err());
        }
    });
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken() {
    let Two { simulation, one, other } = two(Latency { min: MS, max: 50 * MS });
    let (here, there) = (one.env(), other.env());
    let network = simulation.network();
    network.set_loss(simulation::Loss { per_mille: 200 });
    network.set_duplication(200);
    simulation.run(async {
        let ours = here.datagrams(at(&one)).await.expect("it is free");
        let theirs = there.datagrams(at(&other)).await.expect("it is free");
        for number in 0..200_u8 {
            ours.send_to(&[number], at(&other)).await.expect("it is sent");
            here.sleep(MS).await;
        }
        let mut received = Vec::new();
        let mut byte = [0];
        while there.timeout(SECOND, theirs.receive(&mut byte)).await.is_ok() {
            received.push(byte[0]);
        }
        let kinds: BTreeSet<u8> = received.iter().copied().collect();
        assert!((120..190).contains(&kinds.len()), "{} of 200 arrived", kinds.len());
        let doubled = received.len() - kinds.len();
        assert!((10..70).contains(&doubled), "{doubled} arrived twice");
        assert!(!received.is_sorted(), "some overtook others");
    });
}

#[test]
fn a_skewed_host_waits_too_short_and_shows_another_time() {
    let Two { simulation, one, other } = two(Latency::NONE);
    let (fast, sound) = (one.env(), other.env());
    simulation.run(async {
        one.skew(20_000, -3_600_000);
        let begun = sound.monotonic();
        fast.sleep(102 * SECOND).await;
        let passed = sound.monotonic().saturating_since(begun);
        assert!(passed.abs_diff(100 * SECOND) < MS, "{passed:?}");
        assert_eq!(fast.wall().unix_ms() - sound.wall().unix_ms(), 2_000 - 3_600_000);
    });
}

fn with_bucket(script: impl AsyncFnOnce(&Env, &BlobStore, &dyn Fn(Change))) {
    let simulation = Simulation::new(Seed(6), Latency::NONE);
    let env = simulation.host("one", IpAddr::from([192, 0, 2, 1])).env();
    let link = Bucket::new(env.clone()).link();
    let blobs = BlobStore::on_model(link.clone(), env.clone());
    simulation.run(async { script(&env, &blobs, &|change| link.update(change)).await });
}

type Change = fn(&mut blob::s3::model::BucketFaults);

#[test]
fn the_bucket_refuses_rots_stalls_and_is_away() {
    with_bucket(async |env, blobs, faults| {
        let id = blobs.put(b"some bytes").await.expect("all is well");
        let read = async || blobs.read_to_vec(id, 0..10, 10).await;
        assert_eq!(read().await.expect("all is well"), b"some bytes");
        faults(|it| it.rotten = 1_000_000);
        let rotten = read().await;
        assert!(matches!(rotten, Err(BlobError::Damaged(_))), "never wrong bytes: {rotten:?}");
        let away: [(&str, Change); 6] = [
            ("refused", |it| it.refused = 1_000_000),
            ("broken", |it| it.broken = 1_000_000),
            ("stalled", |it| it.stalled = 1_000_000),
            ("away", |it| it.reach = BucketReach::CutOff),
            ("replies lost", |it| it.reach = BucketReach::RepliesLost),
            ("refusing", |it| it.reach = BucketReach::Refusing),
        ];
        for (what, change) in away {
            faults(|it| *it = blob::s3::model::BucketFaults::default());
            assert_eq!(read().await.expect("all is well again"), b"some bytes", "{what}");
            faults(change);
            let failed = read().await;
            assert!(matches!(failed, Err(BlobError::Unavailable { .. })), "{what}: {failed:?}");
        }
        faults(|it| {
            *it = blob::s3::model::BucketFaults::default();
            it.delay_min = 3 * SECOND;
            it.delay_max = 4 * SECOND;
        });
        let begun = env.monotonic();
        assert_eq!(read().await.expect("it is slow"), b"some bytes");
        assert!(env.monotonic().saturating_since(begun) >= 3 * SECOND);
    });
}

#[test]
fn a_blob_that_rots_where_it_is_kept_is_wrong_until_it_is_mended() {
    let simulation = Simulation::new(Seed(6), Latency::NONE);
    let env = simulation.host("one", IpAddr::from([192, 0, 2, 1])).env();
    let bucket = Bucket::new(env.clone());
    let blobs = BlobStore::on_model(bucket.link(), env);
    simulation.run(async {
        assert_eq!(bucket.rot(0, 0), None, "there is nothing that could rot");
        // One piece; a window; several windows, and the trailer at the end.
        for size in [10, 300_000, 2_000_000] {
            let bytes = vec![7; size];
            let id = blobs.put(&bytes).await.expect("all is well");
            let read = async || blobs.read_to_vec(id, 0..u64::MAX, size).await;
            for at in [0, size / 2, size - 1, size] {
                let name = bucket.rot(0, at).expect("one is sound");
                assert!(name.holds(&id) && bucket.rotten() == BTreeSet::from([name]));
                assert_eq!(bucket.rot(0, 0), None, "the other one rots");
                let rotten = read().await;
                assert!(matches!(rotten, Err(BlobError::Damaged(_))), "{size}, {at}");
                assert!(bucket.mend(name) && !bucket.mend(name));
                assert!(read().await.expect("it is mended") == bytes, "{size}, {at}");
            }
            blobs.remove(&BlobName::of(&id)).await.expect("all is well");
        }
    });
}

#[test]
fn a_put_whose_answer_is_lost_is_done() {
    with_bucket(async |_, blobs, faults| {
        faults(|it| it.reply_lost = 1_000_000);
        assert!(blobs.put(b"some bytes").await.is_err());
        faults(|it| it.reply_lost = 0);
        let listed = blobs.list(None, 10).await.expect("all is well again");
        assert!(!listed.names.is_empty(), "nobody was told of it");
    });
}

#[test]
fn the_store_refuses_leaps_and_loses_watches() {
    let simulation = Simulation::new(Seed(7), Latency::NONE);
    let env = simulation.host("one", IpAddr::from([192, 0, 2, 1])).env();
    let sound = Database::memory(env.clone());
    let suffering = |faults| sound.handle_with_faults(env.clone(), faults);
    simulation.run(async {
        let future = Faults { future_version: Probability::ALWAYS, ..Faults::default() };
        assert_eq!(suffering(future).begin().get(b"key").await, Err(Error::FutureVersion));

        let begun = sound.begin();
        let before = begun.read_version().await.expect("all is well");
        sound.leap_versions(100_000_000);
        assert_eq!(begun.get(b"key").await, Err(Error::TooOld), "a recovery forgets it");
        let after = sound.begin().read_version().await.expect("all is well");
        assert!(after >= before + 100_000_000, "{before} {after}");

        for (lost, expected) in [(Probability::NEVER, true), (Probability::ALWAYS, false)] {
            let db = suffering(Faults { lost_watch: lost, ..Faults::default() });
            let tx = db.begin();
            let watch = tx.watch(b"key");
            tx.commit().await.expect("all is well");
            let value = if expected { b"first" } else { b"other" };
            let set = sound.run(async |tx| {
                tx.set(b"key", value);
                Ok::<_, Error>(())
            });
            set.await.expect("all is well");
            let told = env.timeout(10 * SECOND, watch.changed()).await;
            assert_eq!(told.is_ok(), expected);
        }

        let slow = Faults { commit_time_min: SECOND, commit_time_max: SECOND, ..Faults::default() };
        let tx = suffering(slow).begin();
        tx.set(b"key", b"late");
        let begun = env.monotonic();
        tx.commit().await.expect("it takes its time");
        assert_eq!(env.monotonic().saturating_since(begun), SECOND);
    });
}
