//! Plays many seeds on some threads, one world a thread at a time.

use std::{
    io::{self, IsTerminal, Write},
    panic,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use simulation::{Outcome, Plan, Seed, Violation, coverage::Coverage, play, shrink};

use crate::{
    code,
    report::{self, Stopwatch},
};

/// Failing worlds that are made smaller and told in full; of more, the commands are told.
const TOLD_IN_FULL: usize = 3;

/// How long a line of progress stands.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// What a named point means that no seed has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uncovered {
    Fails,
    IsTold,
}

/// Many seeds.
pub(crate) struct Batch {
    pub(crate) first: Seed,
    pub(crate) seeds: u64,
    pub(crate) jobs: usize,
    pub(crate) uncovered: Uncovered,
    pub(crate) shrink_tries: usize,
    pub(crate) plan: Box<dyn Fn(Seed) -> Plan + Sync>,
}

/// What is kept of all worlds.
#[derive(Default)]
struct Sum {
    played: u64,
    took: Duration,
    polls: u64,
    coverage: Coverage,
    failed: Vec<Outcome>,
    slowest: Option<(Duration, Plan)>,
}

impl Batch {
    /// Plays them and tells what came of it.
    pub(crate) fn run(&self, out: &mut impl Write) -> io::Result<ExitCode> {
        writeln!(out, "{} seeds from {} on {} threads", self.seeds, self.first, self.jobs)?;
        out.flush()?;
        let begun = Stopwatch::start();
        // What panics in a world is part of its outcome; many worlds' panics are noise.
        let loud = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let sum = self.play(&begun);
        panic::set_hook(loud);
        let sum = sum?;
        self.tell(out, &sum, begun.passed())
    }

    fn play(&self, begun: &Stopwatch) -> io::Result<Sum> {
        let next = AtomicU64::new(0);
        let mut sum = Sum::default();
        let (sender, outcomes) = mpsc::channel();
        std::thread::scope(|threads| {
            for _ in 0..self.jobs {
                let (sender, next) = (sender.clone(), &next);
                threads.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Relaxed);
                        if number >= self.seeds {
                            return;
                        }
                        let plan = (self.plan)(Seed(self.first.0.wrapping_add(number)));
                        let watch = Stopwatch::start();
                        let mut outcome = play(&plan);
                        if outcome.is_clean() {
                            // Nobody reads them, and many worlds have many.
                            outcome.facts = Vec::new();
                        }
                        if sender.send((outcome, watch.passed())).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut progress = Progress::new(self.seeds);
            for (outcome, cost) in outcomes {
                sum.add(outcome, cost);
                progress.show(&sum, begun.passed())?;
            }
            progress.end()
        })?;
        Ok(sum)
    }

    fn tell(&self, out: &mut impl Write, sum: &Sum, took: Duration) -> io::Result<ExitCode> {
        for (number, outcome) in sum.failed.iter().enumerate() {
            writeln!(out, "\n== FAILED: {}", outcome.plan)?;
            if number >= TOLD_IN_FULL {
                report::violations(out, outcome)?;
                continue;
            }
            report::outcome(out, outcome)?;
            out.flush()?;
            let smaller = self.smaller(outcome);
            if smaller != outcome.plan {
                writeln!(out, "smaller, and still failing:\n  {}", report::command(&smaller))?;
            }
        }
        let seconds = took.as_secs_f64().max(0.001);
        let hours = sum.took.as_secs_f64() / 3_600.0;
        writeln!(
            out,
            "\n{} worlds in {seconds:.1} s: {:.2} a second, {hours:.1} virtual hours, {:.0} times \
             real time, {:.2} million steps a second",
            sum.played,
            count(sum.played) / seconds,
            sum.took.as_secs_f64() / seconds,
            count(sum.polls) / seconds / 1e6,
        )?;
        if let Some((cost, plan)) = &sum.slowest {
            writeln!(out, "slowest: {cost:.1?} for {plan}")?;
        }
        let missing = report::coverage(out, &sum.coverage)?;
        writeln!(out, "{} of {} worlds failed", sum.failed.len(), sum.played)?;
        let covered = missing == 0 || self.uncovered == Uncovered::IsTold;
        if !covered {
            writeln!(out, "{missing} named points were never reached: the run fails")?;
        }
        Ok(code(sum.failed.is_empty() && covered))
    }

    /// The smallest plan that breaks the same property.
    fn smaller(&self, outcome: &Outcome) -> Plan {
        let Some(property) = outcome.violations.first().map(|first| first.property) else {
            return outcome.plan.clone();
        };
        let loud = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let same = |found: &Violation| found.property == property;
        let smaller =
            shrink(&outcome.plan, self.shrink_tries, |plan| play(plan).violations.iter().any(same));
        panic::set_hook(loud);
        smaller
    }
}

impl Sum {
    fn add(&mut self, outcome: Outcome, cost: Duration) {
        self.played += 1;
        self.took += outcome.took;
        self.polls += outcome.polls;
        self.coverage.add(&outcome.reached);
        if self.slowest.as_ref().is_none_or(|(slowest, _)| *slowest < cost) {
            self.slowest = Some((cost, outcome.plan.clone()));
        }
        if !outcome.is_clean() {
            self.failed.push(outcome);
            // Threads end in any order.
            self.failed.sort_by_key(|failed| failed.plan.seed);
        }
    }
}

/// Shows how far a batch is: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    seeds: u64,
    is_terminal: bool,
    shown_at: Duration,
    tenths: u64,
    err: Mutex<io::Stderr>,
}

impl Progress {
    fn new(seeds: u64) -> Self {
        let err = io::stderr();
        let is_terminal = err.is_terminal();
        Self { seeds, is_terminal, shown_at: Duration::ZERO, tenths: 0, err: Mutex::new(err) }
    }

    fn show(&mut self, sum: &Sum, passed: Duration) -> io::Result<()> {
        let tenths = sum.played * 10 / self.seeds.max(1);
        let due = if self.is_terminal {
            passed.saturating_sub(self.shown_at) >= PROGRESS_PERIOD || sum.played == self.seeds
        } else {
            tenths > self.tenths
        };
        if !due {
            return Ok(());
        }
        (self.shown_at, self.tenths) = (passed, tenths);
        let filled = usize::try_from(sum.played * 30 / self.seeds.max(1)).unwrap_or(30);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30_usize.saturating_sub(filled)));
        let seconds = passed.as_secs_f64().max(0.001);
        let line = format!(
            "[{bar}] {}/{} {:.2}/s {:.1} virtual h, {} failed",
            sum.played,
            self.seeds,
            count(sum.played) / seconds,
            sum.took.as_secs_f64() / 3_600.0,
            sum.failed.len()
        );
        let mut err = self.err.lock().expect("nothing panics while it writes");
        if self.is_terminal { write!(err, "\r{line}") } else { writeln!(err, "{line}") }
    }

    fn end(&self) -> io::Result<()> {
        let mut err = self.err.lock().expect("nothing panics while it writes");
        if self.is_terminal { writeln!(err) } else { Ok(()) }
    }
}

/// For quotients.
#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 worlds or steps")]
fn count(number: u64) -> f64 {
    number as f64
}
