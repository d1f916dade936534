//! A cluster in a simulation: it starts, it takes mail, and it outlives what happens to its nodes.

use std::{sync::Arc, time::Duration};

use env::{BoxFuture, Env};
use simulation::{
    Check, Door, Latency, NodeEvent, NodeId, NodeState, Plan, Property, Seed, Setup, Simulation,
    Violation, What, World, play as play_plan, play_with, shrink,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const LATENCY: Latency = Latency { min: Duration::from_micros(200), max: Duration::from_millis(2) };

fn play<T>(seed: u64, nodes: u8, script: impl AsyncFnOnce(&Simulation, World) -> T) -> T {
    let simulation = Simulation::new(Seed(seed), LATENCY);
    simulation.run(async {
        let setup = Setup { nodes, ..Setup::default() };
        let world = Box::pin(World::start(&simulation, setup)).await;
        script(&simulation, world).await
    })
}

/// Delivers one message over LMTP; the reply to it, where there was one.
async fn deliver(env: &Env, world: &World, node: NodeId, token: &str) -> Option<String> {
    let stream = env.connect(world.door(node, Door::Lmtp)).await.ok()?;
    let mut stream = BufReader::new(stream);
    let to = &world.accounts()[0].address;
    let lines = [
        String::new(),
        "LHLO client.test\r\n".to_owned(),
        "MAIL FROM:<sender@remote.test>\r\n".to_owned(),
        format!("RCPT TO:<{to}>\r\n"),
        "DATA\r\n".to_owned(),
        format!("Subject: {token}\r\n\r\nbody\r\n.\r\n"),
    ];
    let mut reply = String::new();
    for line in lines {
        stream.write_all(line.as_bytes()).await.ok()?;
        loop {
            reply.clear();
            if stream.read_line(&mut reply).await.ok()? == 0 {
                return None;
            }
            if reply.as_bytes().get(3) == Some(&b' ') {
                break;
            }
        }
    }
    Some(reply)
}

#[test]
fn every_node_takes_mail_and_so_does_one_that_crashed() {
    play(1, 3, async |_, world| {
        let client = world.client("client");
        for node in world.nodes() {
            let reply = deliver(&client, &world, node, "first").await.expect("it serves");
            assert!(reply.starts_with("250"), "{reply}");
        }
        let node = NodeId(2);
        world.crash_node(node);
        world.until_down(node).await;
        assert_eq!(deliver(&client, &world, node, "nobody").await, None);
        world.start_node(node);
        world.until_serving(node).await;
        let reply = deliver(&client, &world, node, "second").await.expect("it serves again");
        assert!(reply.starts_with("250"), "{reply}");
        world.drain_node(node).await;
        assert_eq!(world.state(node), NodeState::Down);
        let account = world.accounts()[0].id;
        let db = world.db();
        let found = db.run(async |tx| mail::fold::check_account(&tx, account).await).await;
        assert_eq!(found.expect("the store answers"), []);
        world.facts().note("client", What::Note("done".to_owned()));
        assert!(world.facts().count() > 6);
    });
}

#[test]
fn a_world_takes_the_same_steps_again() {
    let run = |seed| {
        play(seed, 3, async |simulation, world| {
            let client = world.client("client");
            for round in 0..20 {
                let node = NodeId(1 + round % 3);
                let _reply = deliver(&client, &world, node, &format!("{round}")).await;
                world.rest(Duration::from_secs(3)).await;
            }
            (simulation.digest(), simulation.polls(), world.facts().all())
        })
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

#[test]
fn a_world_in_which_nothing_happens_is_clean() {
    let plan = Plan { parts: Vec::new(), ..Plan::draw(Seed(3), 3, Duration::from_secs(60)) };
    let outcome = play_plan(&plan);
    assert!(outcome.is_clean(), "{:?}", outcome.violations);
    assert!(outcome.took > Duration::from_secs(90), "it was left alone for a while");
    assert_eq!(outcome.digest, play_plan(&plan).digest);
}

/// Asks for what no world with a `kill` has.
struct NobodyCrashes;

const CRASHED: &str = "somebody crashed";

impl Check for NobodyCrashes {
    fn name(&self) -> &'static str {
        "nobody-crashes"
    }

    fn property(&self) -> Property {
        Property::P7
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        let crashed = world
            .facts()
            .with(|facts| facts.iter().any(|fact| fact.what == What::Node(NodeEvent::Crashed)));
        let found = crashed.then(|| Violation::new(self.property(), CRASHED));
        Box::pin(std::future::ready(found.into_iter().collect()))
    }
}

#[test]
fn a_world_that_fails_is_made_smaller() {
    let fails = |plan: &Plan| {
        let outcome = play_with(plan, &[Arc::new(NobodyCrashes)]);
        outcome.violations.iter().any(|found| found.what == CRASHED)
    };
    let mut drawn = (1..).map(|seed| Plan::draw(Seed(seed), 3, Duration::from_secs(90)));
    let plan = drawn.find(|plan| plan.parts.len() > 3 && fails(plan)).expect("seeds do not end");
    let smaller = shrink(&plan, 60, fails);
    assert!(fails(&smaller));
    assert_eq!((smaller.nodes, smaller.parts.len()), (1, 1), "{smaller}");
    assert!(smaller.duration < plan.duration);
    let again: Plan = smaller.to_string().parse().expect("it says so itself");
    assert_eq!(again, smaller);
}
