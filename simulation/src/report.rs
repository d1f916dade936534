//! What is told of worlds.

use std::{
    io::{self, Write},
    time::Duration,
};

use simulation::{
    Outcome, Plan,
    coverage::{Coverage, POINTS},
};

/// The last facts of a failing world that are told.
const FACTS_TOLD: usize = 60;

/// The world outside's time, for what a world costs.
pub(crate) struct Stopwatch {
    begun: std::time::Instant,
}

#[expect(clippy::disallowed_methods, reason = "it measures the simulation itself, in real time")]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { begun: std::time::Instant::now() }
    }

    pub(crate) fn passed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// The command that plays a plan.
pub(crate) fn command(plan: &Plan) -> String {
    format!("cargo run --release -p simulation -- {plan}")
}

/// Who takes part.
pub(crate) fn parts(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let seconds = plan.duration.as_secs();
    writeln!(out, "{}: {} nodes, {seconds} s, {}", plan.seed, plan.nodes, plan.parts.join(" "))
}

/// What did not hold.
pub(crate) fn violations(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    for violation in &outcome.violations {
        writeln!(out, "VIOLATION {violation}")?;
    }
    Ok(())
}

/// What did not hold, what happened last, and how to see it again.
pub(crate) fn outcome(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    if outcome.is_clean() {
        return writeln!(out, "clean");
    }
    parts(out, &outcome.plan)?;
    // What happened after the last violation that has a moment explains nothing.
    let end = outcome.violations.iter().filter_map(|violation| violation.at).max();
    let facts = &outcome.facts;
    let end = end.map_or(facts.len(), |end| facts.partition_point(|fact| fact.at <= end));
    writeln!(out, "the last of {end} facts before it:")?;
    for fact in &facts[end.saturating_sub(FACTS_TOLD)..end] {
        writeln!(out, "  {fact}")?;
    }
    violations(out, outcome)?;
    writeln!(out, "again: {}", command(&outcome.plan))
}

/// What a world cost.
pub(crate) fn cost(out: &mut impl Write, outcome: &Outcome, took: Duration) -> io::Result<()> {
    let (virtual_time, polls) = (outcome.took.as_secs_f64(), outcome.polls);
    let times = virtual_time / took.as_secs_f64().max(1e-6);
    writeln!(
        out,
        "{virtual_time:.0} virtual seconds in {took:.2?}: {times:.0} times real time, {polls} steps"
    )
}

/// How often each named point was reached; how many never were.
pub(crate) fn coverage(out: &mut impl Write, coverage: &Coverage) -> io::Result<usize> {
    writeln!(out, "\nnamed points, in how many of {} worlds, how often:", coverage.worlds)?;
    for point in POINTS {
        let count = coverage.count(point);
        let mark = if count.times == 0 { "NEVER" } else { "" };
        let (worlds, times) = (count.worlds, count.times);
        writeln!(out, "{worlds:>8} {times:>10} {mark:<5} {} ({})", point.name, point.file)?;
    }
    Ok(coverage.missing().len())
}
