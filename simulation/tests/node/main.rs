//! A whole node on a simulated machine: real drivers, real transactions, virtual time.

mod aside;
mod client;
mod workload;
mod world;

use std::{net::Ipv4Addr, time::Duration};

use blob::BlobFaults;
use env::Monotonic;
use kv::Reach;
use simulation::{Event, Latency, Seed, Simulation};

use client::{Client, Greeting};
use workload::deliver_through_faults;
use world::{LMTP, SMTP, World};

const LATENCY: Latency = Latency { min: Duration::from_millis(1), max: Duration::from_millis(40) };

/// Longer than anything here takes in virtual time: a run that hangs fails by this.
const PATIENCE: Duration = Duration::from_secs(7 * 86_400);

/// Runs `script` in a fresh world, and fails where it hangs.
fn play<T>(seed: u64, script: impl AsyncFnOnce(&Simulation, World) -> T) -> T {
    let simulation = Simulation::new(Seed(seed), LATENCY);
    let env = simulation.machine(Ipv4Addr::new(198, 51, 100, 1).into());
    let played = simulation.run(async {
        let world = Box::pin(World::start(&simulation)).await;
        env.timeout(PATIENCE, Box::pin(script(&simulation, world))).await
    });
    played.unwrap_or_else(|_| panic!("seed {}: hangs", Seed(seed)))
}

fn check_delivery(seed: u64) -> Vec<Event> {
    play(seed, async |simulation, world| deliver_through_faults(simulation, world).await)
}

#[test]
fn what_is_acknowledged_is_in_the_mailbox_once() {
    for seed in 1..=8 {
        check_delivery(seed);
    }
}

#[test]
fn a_seed_gives_one_trace_and_another_seed_another() {
    let trace = check_delivery(11);
    let again = check_delivery(11);
    for (line, (first, second)) in trace.iter().zip(&again).enumerate() {
        assert_eq!(first, second, "the traces part at line {line}");
    }
    assert_eq!(trace.len(), again.len());
    assert_ne!(trace, check_delivery(12));
}

#[test]
fn silent_clients_are_timed_out_in_virtual_time() {
    play(21, async |simulation, mut world| {
        let env = simulation.machine(Ipv4Addr::new(198, 51, 100, 2).into());
        let mut silent = Client::open(&env, SMTP, Greeting::Ehlo).await;
        let mut stuck = Client::open(&env, LMTP, Greeting::Lhlo).await;
        stuck.expect("MAIL FROM:<a@remote.test>", 250).await;
        stuck.expect("RCPT TO:<alice@example.org>", 250).await;
        stuck.expect("DATA", 354).await;
        stuck.send("Subject: half a me").await;
        let begun = env.monotonic();
        // RFC 5321 §4.5.3.2.7 and §4.5.3.2.5: both are five minutes here.
        for client in [&mut silent, &mut stuck] {
            assert_eq!(client.reply().await.expect("a farewell").code, 421);
            assert_eq!(client.reply().await, None);
            let waited = (env.monotonic() - begun).as_secs_f64();
            assert!((299.0..301.0).contains(&waited), "{waited}");
        }
        // A day of housekeeping, for which no test would wait.
        env.sleep(Duration::from_secs(86_400)).await;
        assert!(env.monotonic() >= Monotonic::from_start(Duration::from_secs(86_700)));
        Client::open(&env, SMTP, Greeting::Ehlo).await.expect("QUIT", 221).await;
        assert_eq!(world.messages().await, []);
        world.take_node().drain().await;
    });
}

#[test]
fn blobs_that_hang_cost_a_sender_a_minute() {
    play(51, async |simulation, mut world| {
        let env = simulation.machine(Ipv4Addr::new(198, 51, 100, 5).into());
        world.blobs.faults().set(BlobFaults { stalled: BlobFaults::ALWAYS, ..Default::default() });
        let mut client = Client::open(&env, SMTP, Greeting::Ehlo).await;
        client.expect("MAIL FROM:<a@remote.test>", 250).await;
        client.expect("RCPT TO:<alice@example.org>", 250).await;
        client.expect("DATA", 354).await;
        let begun = env.monotonic();
        let reply = client.command("Subject: slow\r\n\r\nbody\r\n.").await;
        assert_eq!(reply.code, 451, "{}", reply.text);
        assert!(reply.text.contains("4.3.0"), "{}", reply.text);
        // RFC 5321 §4.5.3.2.6: the sender waits ten minutes.
        let waited = (env.monotonic() - begun).as_secs_f64();
        assert!((59.0..62.0).contains(&waited), "{waited}");
        world.blobs.faults().set(BlobFaults::default());
        client.expect("MAIL FROM:<a@remote.test>", 250).await;
        client.expect("RCPT TO:<alice@example.org>", 250).await;
        client.expect("DATA", 354).await;
        client.expect("From: a@remote.test\r\nSubject: well\r\n\r\nbody\r\n.", 250).await;
        assert_eq!(world.messages().await.len(), 1);
        world.take_node().drain().await;
    });
}

#[test]
fn a_store_that_is_away_costs_a_sender_seconds() {
    play(61, async |simulation, mut world| {
        let env = simulation.machine(Ipv4Addr::new(198, 51, 100, 6).into());
        let mut client = Client::open(&env, SMTP, Greeting::Ehlo).await;
        client.expect("MAIL FROM:<a@remote.test>", 250).await;
        client.expect("RCPT TO:<alice@example.org>", 250).await;
        client.expect("DATA", 354).await;
        world.db.faults().update(|faults| faults.reach = Reach::CutOff);
        let begun = env.monotonic();
        let reply = client.command("Subject: slow\r\n\r\nbody\r\n.").await;
        assert_eq!(reply.code, 451, "{}", reply.text);
        let waited = (env.monotonic() - begun).as_secs_f64();
        assert!((4.0..11.0).contains(&waited), "{waited}");
        world.db.faults().clear();
        world.take_node().drain().await;
    });
}

#[test]
fn draining_ends_every_session_in_its_own_words() {
    play(31, async |simulation, mut world| {
        let env = simulation.machine(Ipv4Addr::new(198, 51, 100, 3).into());
        let mut smtp = Client::open(&env, SMTP, Greeting::Ehlo).await;
        let mut lmtp = Client::open(&env, LMTP, Greeting::Lhlo).await;
        let mut imap = Client::connect(&env, world::IMAP).await;
        assert!(imap.line().await.expect("a greeting").starts_with("* OK"));
        let mut busy = Client::open(&env, LMTP, Greeting::Lhlo).await;
        busy.expect("MAIL FROM:<a@remote.test>", 250).await;
        busy.expect("RCPT TO:<alice@example.org>", 250).await;
        busy.expect("DATA", 354).await;
        let begun = env.monotonic();
        let draining = {
            let (node, env) = (world.take_node(), env.clone());
            world.env.spawn("drain", async move {
                node.drain().await;
                env.monotonic()
            })
        };
        for client in [&mut smtp, &mut lmtp] {
            assert_eq!(client.reply().await.expect("a farewell").code, 421);
            assert_eq!(client.reply().await, None);
        }
        assert!(imap.line().await.expect("a farewell").starts_with("* BYE"));
        assert!(env.connect(SMTP).await.is_err(), "nobody new is let in");
        // What is in flight is finished.
        env.sleep(Duration::from_secs(5)).await;
        busy.expect("Subject: in flight\r\n\r\n.", 250).await;
        assert_eq!(busy.reply().await.expect("a farewell").code, 421);
        let ended = draining.await.expect("draining does not panic");
        let took = (ended - begun).as_secs_f64();
        assert!((5.0..6.0).contains(&took), "{took}");
        assert_eq!(world.messages().await.len(), 1);
    });
}

#[test]
fn draining_waits_for_nobody_longer_than_its_time() {
    play(41, async |simulation, mut world| {
        let env = simulation.machine(Ipv4Addr::new(198, 51, 100, 4).into());
        let mut stuck = Client::open(&env, SMTP, Greeting::Ehlo).await;
        stuck.expect("MAIL FROM:<a@remote.test>", 250).await;
        stuck.expect("RCPT TO:<alice@example.org>", 250).await;
        stuck.expect("DATA", 354).await;
        let begun = env.monotonic();
        world.take_node().drain().await;
        let took = (env.monotonic() - begun).as_secs_f64();
        // The node keeps some of its 30 seconds for closing the store.
        assert!((20.0..=30.0).contains(&took), "{took}");
        assert_eq!(stuck.reply().await, None);
    });
}
