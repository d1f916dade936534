//! Membership and work on virtual time: nodes that die, are cut off, and take each other's place.

mod membership;
mod work;

use std::{future::Future, net::Ipv4Addr, time::Duration};

use cluster::{Membership, NodeName, Registration, Standing};
use env::Env;
use kv::{Database, FaultHandle, Faults, Reach};
use simulation::{Latency, Seed, Simulation};

const TIME_TO_LIVE: Duration = Duration::from_secs(5);

/// Longer than anything here takes: a run that hangs fails by this.
const PATIENCE: Duration = Duration::from_hours(1);

/// Machines that share one store.
pub(crate) struct World<'a> {
    simulation: &'a Simulation,
    pub(crate) env: Env,
    pub(crate) db: Database,
    machines: std::cell::Cell<u8>,
}

/// One machine, and how it reaches the store.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) env: Env,
    pub(crate) db: Database,
    pub(crate) faults: FaultHandle,
}

impl World<'_> {
    pub(crate) fn machine(&self) -> Machine {
        let env = self.simulation.machine(self.address().into());
        self.with_env(env)
    }

    /// A machine whose wall clock is ahead of the others' by so much.
    pub(crate) fn fast_machine(&self, ahead: Duration) -> Machine {
        let host = self.simulation.host("fast", self.address().into());
        host.skew(0, i64::try_from(ahead.as_millis()).expect("hours at most"));
        self.with_env(host.env())
    }

    fn address(&self) -> Ipv4Addr {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        Ipv4Addr::new(192, 0, 2, number)
    }

    fn with_env(&self, env: Env) -> Machine {
        let db = self.db.handle_with_faults(env.clone(), Faults::default());
        Machine { faults: db.faults(), env, db }
    }
}

impl Machine {
    pub(crate) async fn join(&self, name: &str) -> Membership {
        let registration = Registration {
            name: NodeName::parse(name).expect("a name"),
            release: "1".to_owned(),
            address: String::new(),
            certificate: Vec::new(),
            admin_address: String::new(),
            time_to_live: TIME_TO_LIVE,
        };
        Membership::join(self.db.clone(), self.env.clone(), registration)
            .await
            .expect("the store lets it join")
    }

    pub(crate) fn cut_off(&self) {
        self.faults.update(|faults| faults.reach = Reach::CutOff);
    }

    pub(crate) fn reconnect(&self) {
        self.faults.clear();
    }
}

pub(crate) async fn standing(member: &Membership, wanted: impl Fn(Standing) -> bool) -> Standing {
    *member.standing().wait_for(|standing| wanted(*standing)).await.expect("it is a member")
}

/// Waits until a member sees exactly these names.
pub(crate) async fn sees(member: &Membership, names: &[&str]) {
    let mut roster = member.roster();
    let seen = roster.wait_for(|roster| {
        let mut seen: Vec<_> = roster.values().map(|it| it.record.name.as_str()).collect();
        seen.sort_unstable();
        seen == names
    });
    seen.await.expect("it is a member");
}

/// Runs `script` in a fresh world, and fails where it hangs.
pub(crate) fn play<F: Future<Output = ()>>(seed: u64, script: impl FnOnce(&World) -> F) {
    let latency = Latency { min: Duration::from_millis(1), max: Duration::from_millis(20) };
    let simulation = Simulation::new(Seed(seed), latency);
    let env = simulation.machine(Ipv4Addr::new(192, 0, 2, 250).into());
    let db = Database::memory(env.clone());
    let world =
        World { simulation: &simulation, env: env.clone(), db, machines: std::cell::Cell::new(0) };
    let script = script(&world);
    let played = simulation.run(env.timeout(PATIENCE, script));
    assert!(played.is_ok(), "seed {seed}: hangs");
}
