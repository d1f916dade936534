//! What a seed makes of a world: its size, its workloads, its faults. A plan can be made smaller,
//! and then says so in the command that replays it.

use std::{fmt, time::Duration};

use env::probe::Planted;
use node::config::Wakeups;

use crate::{Latency, Random, Seed, Share, faults, workloads};

/// Nodes of a world, where nothing else is asked for.
pub const NODES: u8 = 5;

/// How long workloads and faults go on, where nothing else is asked for.
pub const DURATION: Duration = Duration::from_mins(10);

/// A world to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What everything else follows from.
    pub seed: Seed,
    /// Nodes.
    pub nodes: u8,
    /// How long workloads and faults go on.
    pub duration: Duration,
    /// A bug that is planted.
    pub planted: Option<Planted>,
    /// What takes part, by name: workloads and faults.
    pub parts: Vec<&'static str>,
    /// What the seed would have had take part and the plan leaves out.
    pub without: Vec<&'static str>,
}

impl Plan {
    /// What the seed makes of it.
    pub fn draw(seed: Seed, nodes: u8, duration: Duration) -> Self {
        let taking_part = |share: &&Share| {
            Random::named(seed, &format!("part/{}", share.name)).chance(share.per_mille)
        };
        let parts = shares().filter(taking_part).map(|share| share.name).collect();
        Self { seed, nodes, duration, planted: None, parts, without: Vec::new() }
    }

    /// The same without one of its parts.
    pub fn leave_out(&self, name: &str) -> Self {
        let mut plan = self.clone();
        let gone = plan.parts.extract_if(.., |part| *part == name);
        let gone: Vec<_> = gone.collect();
        plan.without.extend(gone);
        plan
    }

    /// How long a message is on its way between two hosts in this world.
    pub fn latency(&self) -> Latency {
        let mut random = Random::named(self.seed, "latency");
        let us = |micros| Duration::from_micros(micros);
        // One building, one country, one planet.
        let (min, max) = *random
            .pick(&[(us(100), us(800)), (us(1_000), us(15_000)), (us(20_000), us(120_000))])
            .expect("there are three");
        Latency { min, max }
    }

    /// The fastest way on which nodes hear of each other's commits in this world.
    pub fn wakeups(&self) -> Wakeups {
        let ways = [Wakeups::Mesh, Wakeups::Mesh, Wakeups::Mesh, Wakeups::Watch, Wakeups::Poll];
        *Random::named(self.seed, "wakeups").pick(&ways).expect("there are some")
    }
}

/// Every workload and every fault.
pub fn shares() -> impl Iterator<Item = &'static Share> {
    workloads::ALL.iter().chain(faults::ALL)
}

/// What makes the same world again, behind the program's name.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replay {}", self.seed)?;
        if self.nodes != NODES {
            write!(f, " --nodes {}", self.nodes)?;
        }
        if self.duration != DURATION {
            write!(f, " --seconds {}", self.duration.as_secs())?;
        }
        if !self.without.is_empty() {
            write!(f, " --without {}", self.without.join(","))?;
        }
        if let Some(planted) = self.planted {
            write!(f, " --plant {planted:?}")?;
        }
        Ok(())
    }
}
