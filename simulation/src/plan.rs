//! What a seed makes of a world: its size, its workloads, its faults. A plan can be made smaller,
//! and then says so in the command that replays it.

use std::{fmt, str::FromStr, time::Duration};

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

/// Why a text is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no seed.
    #[error("a seed is missing")]
    NoSeed,
    /// A number that is none, or too large.
    #[error("{0:?} is not a number that fits here")]
    Number(String),
    /// Neither a workload nor a fault.
    #[error("there is neither a workload nor a fault {0:?}")]
    Part(String),
    /// No bug that can be planted.
    #[error("there is no bug {0:?}; there are {all:?}", all = Planted::ALL)]
    Bug(String),
    /// An option that there is not, or one without its value.
    #[error("{0:?} is no option, or its value is missing")]
    Option(String),
}

/// What [`Plan`]'s `Display` writes: `[replay] SEED [--nodes N] [--seconds N] [--without A,B]
/// [--plant BUG]`.
impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut words = text.split_whitespace().skip_while(|word| *word == "replay");
        let seed = words.next().ok_or(PlanError::NoSeed)?.parse()?;
        let (mut nodes, mut duration, mut planted) = (NODES, DURATION, None);
        let mut without = Vec::new();
        while let Some(option) = words.next() {
            let missing = || PlanError::Option(option.to_owned());
            let value = words.next().ok_or_else(missing)?;
            let no_number = || PlanError::Number(value.to_owned());
            match option {
                "--nodes" => {
                    nodes = value.parse().ok().filter(|it| *it > 0).ok_or_else(no_number)?;
                }
                "--seconds" => {
                    let seconds: u32 = value.parse().map_err(|_| no_number())?;
                    duration = Duration::from_secs(seconds.into());
                }
                "--without" => without.extend(value.split(',').filter(|name| !name.is_empty())),
                "--plant" => {
                    let bug = Planted::ALL.iter().find(|bug| format!("{bug:?}") == value);
                    planted = Some(*bug.ok_or_else(|| PlanError::Bug(value.to_owned()))?);
                }
                _ => return Err(missing()),
            }
        }
        let mut plan = Self { planted, ..Self::draw(seed, nodes, duration) };
        for name in without {
            if !shares().any(|share| share.name == name) {
                return Err(PlanError::Part(name.to_owned()));
            }
            plan = plan.leave_out(name);
        }
        Ok(plan)
    }
}

/// In hexadecimal after `0x`, else in decimal.
impl FromStr for Seed {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.map(Self).map_err(|_| PlanError::Number(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back_from_its_command() {
        let drawn = Plan::draw(Seed(77), 3, Duration::from_secs(90));
        let mut plan = Plan { planted: Some(Planted::ALL[0]), ..drawn.clone() };
        for part in drawn.parts.iter().take(2) {
            plan = plan.leave_out(part);
        }
        for plan in [plan, drawn, Plan::draw(Seed(u64::MAX), NODES, DURATION)] {
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
        assert_eq!("255".parse(), Ok(Seed(255)));
        assert_eq!("0xff".parse(), Ok(Seed(255)));
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let refused = |text: &str| text.parse::<Plan>().expect_err(text);
        assert_eq!(refused(""), PlanError::NoSeed);
        assert_eq!(refused("0xfg"), PlanError::Number("0xfg".to_owned()));
        assert_eq!(refused("1 --nodes 0"), PlanError::Number("0".to_owned()));
        assert_eq!(refused("1 --nodes"), PlanError::Option("--nodes".to_owned()));
        assert_eq!(refused("1 --fast yes"), PlanError::Option("--fast".to_owned()));
        assert_eq!(refused("1 --without rain"), PlanError::Part("rain".to_owned()));
        assert!(matches!(refused("1 --plant Tree"), PlanError::Bug(_)));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = shares().map(|share| share.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
