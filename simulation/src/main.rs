//! The program `simulation`: plays seeds, replays one, shows what happens in it, hunts planted bugs.

mod batch;
mod report;

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, BufWriter, Write},
    num::NonZeroUsize,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use env::probe::Planted;
use simulation::{Detail, Plan, PlanError, Seed, Tracer, hunt, plan, play, play_traced};

use batch::{Batch, Uncovered};

#[derive(Parser)]
#[command(name = "simulation", about = "Whole Rookery nodes on virtual time, from a seed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play many seeds, one world each; fails where a property does not hold.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first one; drawn where none is given.
        #[arg(long)]
        first: Option<Seed>,
        /// Threads; as many as there are cores where nothing is said.
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
        /// What a named point means that no seed has reached.
        #[arg(long, value_enum, default_value_t = OnUncovered::Fail)]
        uncovered: OnUncovered,
        /// How often a failing world is tried to be made smaller.
        #[arg(long, default_value_t = 60)]
        shrink: usize,
        #[command(flatten)]
        size: Size,
    },
    /// Play one world again and tell what it found: `replay SEED [--nodes N] [--seconds N]
    /// [--without A,B] [--plant BUG]`.
    Replay {
        /// The plan, as a failing run prints it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        plan: Vec<String>,
    },
    /// Write what happens in a world, line by line; takes what `replay` takes.
    Trace {
        /// Every step of every task as well.
        #[arg(long)]
        steps: bool,
        /// The plan.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        plan: Vec<String>,
    },
    /// Plant each bug that there is, and see it found.
    Planted {
        /// How many seeds each may take.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value = "1")]
        first: Seed,
        #[command(flatten)]
        size: Size,
    },
}

/// How large worlds are.
#[derive(Args, Clone, Copy)]
struct Size {
    /// Nodes.
    #[arg(long, default_value_t = plan::NODES)]
    nodes: u8,
    /// Virtual seconds of work and faults.
    #[arg(long, default_value_t = plan::DURATION.as_secs())]
    seconds: u64,
}

impl Size {
    fn plan(self, seed: Seed) -> Plan {
        Plan::draw(seed, self.nodes.max(1), Duration::from_secs(self.seconds))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnUncovered {
    /// The run fails.
    Fail,
    /// It is told.
    Tell,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // There is nobody left to tell.
            let _unheard = writeln!(io::stderr(), "simulation: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> io::Result<ExitCode> {
    let out = &mut io::stdout().lock();
    match cli.command {
        Command::Run { seeds, first, jobs, uncovered, shrink, size } => {
            let jobs = jobs.or_else(|| std::thread::available_parallelism().ok());
            let batch = Batch {
                first: first.unwrap_or_else(drawn),
                seeds,
                jobs: jobs.map_or(1, NonZeroUsize::get),
                uncovered: match uncovered {
                    OnUncovered::Fail => Uncovered::Fails,
                    OnUncovered::Tell => Uncovered::IsTold,
                },
                shrink_tries: shrink,
                plan: Box::new(move |seed| size.plan(seed)),
            };
            batch.run(out)
        }
        Command::Replay { plan } => {
            let plan = read(&plan)?;
            report::parts(out, &plan)?;
            let begun = report::Stopwatch::start();
            let outcome = play(&plan);
            report::outcome(out, &outcome)?;
            report::cost(out, &outcome, begun.passed())?;
            Ok(code(outcome.is_clean()))
        }
        Command::Trace { steps, plan } => {
            let plan = read(&plan)?;
            let detail = if steps { Detail::Steps } else { Detail::Facts };
            let outcome = play_traced(&plan, Tracer::new(detail, BufWriter::new(io::stdout())));
            for violation in &outcome.violations {
                writeln!(out, "VIOLATION {violation}")?;
            }
            writeln!(out, "digest {:#018x} after {} steps", outcome.digest, outcome.polls)?;
            Ok(code(outcome.is_clean()))
        }
        Command::Planted { seeds, first, size } => planted(out, seeds, first, size),
    }
}

/// Hunts every bug and tells the catch.
fn planted(out: &mut impl Write, seeds: u64, first: Seed, size: Size) -> io::Result<ExitCode> {
    let mut missed = 0;
    for bug in Planted::ALL {
        match hunt(*bug, first, seeds, |seed| size.plan(seed)) {
            Some(caught) => {
                let name = format!("{bug:?}");
                writeln!(out, "{name:<24} seed {:>3}  {}", caught.seeds, caught.violations[0])?;
                writeln!(out, "{:<24}           {}", "", caught.plan)?;
            }
            None => {
                missed += 1;
                writeln!(out, "{:<24} NOT FOUND within {seeds} seeds", format!("{bug:?}"))?;
            }
        }
        out.flush()?;
    }
    Ok(code(missed == 0))
}

fn read(words: &[String]) -> io::Result<Plan> {
    words.join(" ").parse().map_err(|error: PlanError| io::Error::other(error.to_string()))
}

/// A fresh seed, from the standard library's own chance.
fn drawn() -> Seed {
    Seed(RandomState::new().hash_one("seed"))
}

fn code(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
