//! Plays a plan: starts its world, lets its parts work against each other until the deadline, lets
//! the world come to rest, and holds the checks against it.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use env::{Monotonic, Task, probe};

use crate::{
    Check, Fact, NodeState, Plan, Property, Random, Setup, Simulation, Tracer, Violation, Workload,
    World, checks, executor::current_host, fact::What, limits::SETTLE_TIME, plan,
};

/// How long a world is left alone after its last node has come back: a death is declared, claims
/// go back, and every zone is scanned.
const REST_TIME: Duration = Duration::from_secs(30);

/// What came of a plan.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was played.
    pub plan: Plan,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// What was seen.
    pub facts: Vec<Fact>,
    /// The named points that were reached, and how often.
    pub reached: BTreeMap<&'static str, u64>,
    /// How much virtual time it took.
    pub took: Duration,
    /// How many steps tasks made.
    pub polls: u64,
    /// All steps, folded into a number.
    pub digest: u64,
}

impl Outcome {
    /// Whether everything held.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Plays a plan with every check.
pub fn play(plan: &Plan) -> Outcome {
    play_with(plan, &checks::all())
}

/// Plays a plan with these checks alone.
pub fn play_with(plan: &Plan, checks: &[Arc<dyn Check>]) -> Outcome {
    play_in(&Simulation::new(plan.seed, plan.latency()), plan, checks)
}

/// Plays a plan with every check, and writes what happens.
pub fn play_traced(plan: &Plan, tracer: Tracer) -> Outcome {
    let simulation = Simulation::new(plan.seed, plan.latency());
    simulation.fabric.core.trace(tracer);
    play_in(&simulation, plan, &checks::all())
}

fn play_in(simulation: &Simulation, plan: &Plan, checks: &[Arc<dyn Check>]) -> Outcome {
    let facts = crate::Facts::new(Arc::clone(&simulation.fabric.core));
    let watched = {
        let facts = facts.clone();
        probe::watch(
            plan.planted,
            Box::new(move |seen| {
                let host = current_host().map_or_else(|| "world".into(), |host| host.name());
                facts.note(&host, What::Observed(seen));
            }),
        )
    };
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        simulation.run(Box::pin(script(simulation, plan, checks, facts.clone())))
    }));
    let mut violations = played.unwrap_or_else(|_| {
        let what = "the world itself panicked (its words are above)";
        vec![Violation::at(Property::World, simulation.now(), what)]
    });
    for panicked in simulation.panics() {
        let what = format!("{}: {} panicked: {}", panicked.host, panicked.task, panicked.message);
        violations.push(Violation::at(Property::P9, panicked.at, what));
    }
    Outcome {
        plan: plan.clone(),
        violations,
        facts: facts.all(),
        reached: watched.reached(),
        took: simulation.now().saturating_since(Monotonic::default()),
        polls: simulation.polls(),
        digest: simulation.digest(),
    }
}

async fn script(
    simulation: &Simulation,
    plan: &Plan,
    checks: &[Arc<dyn Check>],
    facts: crate::Facts,
) -> Vec<Violation> {
    let setup = Setup {
        nodes: plan.nodes,
        duration: plan.duration,
        wakeups: plan.wakeups(),
        ..Setup::default()
    };
    let world = World::start_noting(simulation, setup, facts).await;
    let mut parts: Vec<(&str, Arc<dyn Workload>)> = Vec::new();
    for share in plan::shares().filter(|share| plan.parts.contains(&share.name)) {
        let made = (share.make)(&mut Random::named(plan.seed, &format!("make/{}", share.name)));
        parts.push((share.name, made));
    }
    for (_, part) in &parts {
        part.setup(&world).await;
    }
    world.begin();
    let mut running: Vec<(&str, Task<()>)> = Vec::new();
    for (name, part) in parts {
        let in_world = world.clone();
        let run = async move { part.run(&in_world).await };
        running.push((name, world.env().spawn(name, run)));
    }
    let _watch = world.env().spawn("watch", checks::p9::watch(world.clone()));
    let mut violations = Vec::new();
    for (name, task) in running {
        let left = world.deadline().saturating_since(world.now()) + SETTLE_TIME;
        match world.env().timeout(left, task).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                violations.push(Violation::new(Property::World, format!("{name} panicked")));
            }
            Err(_) => {
                let what = format!("{name} went on after the deadline");
                violations.push(Violation::new(Property::World, what));
            }
        }
    }
    world.until_deadline().await;
    world.calm();
    if world.env().timeout(SETTLE_TIME, until_all_serve(&world)).await.is_err() {
        let down = world.nodes().filter(|node| world.state(*node) != NodeState::Serving);
        let down: Vec<String> = down.map(|node| node.to_string()).collect();
        let what = format!("{} cannot be brought back", down.join(", "));
        violations.push(Violation::new(Property::World, what));
    }
    world.env().sleep(REST_TIME).await;
    for check in checks {
        violations.extend(check.check(&world).await);
    }
    violations
}

async fn until_all_serve(world: &World) {
    for node in world.nodes() {
        world.until_serving(node).await;
    }
}
