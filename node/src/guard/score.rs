//! One score for all that is held against a client, or speaks for it.

use std::{fmt::Write, time::Duration};

/// The field that tells recipients and their filters what was found of a message. One that a
/// client sends is removed.
pub(crate) const FIELD: &str = "Rookery-Filter";

/// From which score on something is done; 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Thresholds {
    /// The message is marked.
    pub(crate) mark: u64,
    /// The recipient is refused for now.
    pub(crate) tempfail: u64,
    /// The recipient is refused.
    pub(crate) reject: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Pass,
    Marked,
    Deferred,
    Rejected,
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Marked => "marked",
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
        }
    }
}

/// Whether greylisting had a part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greylist {
    /// It was not asked, or knew the client's network.
    Unasked,
    /// It put the message off, and then let it pass.
    Passed,
}

/// One thing that was found. Its name is one of ours or a zone of the settings, never a client's
/// text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) weight: i32,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Score {
    pub(crate) findings: Vec<Finding>,
}

impl Score {
    /// Adds a finding; one without weight tells nothing.
    pub(crate) fn add(&mut self, name: impl Into<String>, weight: i32) {
        if weight != 0 {
            self.findings.push(Finding { name: name.into(), weight });
        }
    }

    pub(crate) fn total(&self) -> i64 {
        self.findings.iter().map(|finding| i64::from(finding.weight)).sum()
    }

    pub(crate) fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let total = self.total();
        let reached =
            |threshold: u64| threshold > 0 && i64::try_from(threshold).is_ok_and(|it| total >= it);
        if reached(thresholds.reject) {
            Verdict::Rejected
        } else if reached(thresholds.tempfail) {
            Verdict::Deferred
        } else if reached(thresholds.mark) {
            Verdict::Marked
        } else {
            Verdict::Pass
        }
    }

    /// For the log and the header: `no-ptr=2; bl.example=4`.
    pub(crate) fn describe(&self) -> String {
        let each: Vec<_> =
            self.findings.iter().map(|it| format!("{}={}", it.name, it.weight)).collect();
        each.join("; ")
    }

    /// The header's field, a whole line; `held_up` is how long the client's replies were held back.
    pub(crate) fn field(&self, verdict: Verdict, greylist: Greylist, held_up: Duration) -> String {
        let mut line = format!("{FIELD}: {}; score={}", verdict.as_str(), self.total());
        if greylist == Greylist::Passed {
            line.push_str("; greylist=passed");
        }
        if !held_up.is_zero() {
            let _infallible = write!(line, "; tarpit={}", held_up.as_secs());
        }
        // A line each, because names are long and fields are not (RFC 5322 §2.1.1).
        for finding in &self.findings {
            let _infallible = write!(line, ";\r\n\t{}={}", finding.name, finding.weight);
        }
        line.push_str("\r\n");
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(weights: &[i32]) -> Score {
        let mut score = Score::default();
        for weight in weights {
            score.add("x", *weight);
        }
        score
    }

    #[test]
    fn the_highest_threshold_that_is_reached_decides() {
        let thresholds = Thresholds { mark: 3, tempfail: 5, reject: 8 };
        for (weights, expected) in [
            (&[][..], Verdict::Pass),
            (&[2], Verdict::Pass),
            (&[3], Verdict::Marked),
            (&[3, 2], Verdict::Deferred),
            (&[9], Verdict::Rejected),
            (&[9, -4], Verdict::Deferred),
            (&[-100], Verdict::Pass),
        ] {
            assert_eq!(score(weights).verdict(&thresholds), expected, "{weights:?}");
        }
        assert_eq!(score(&[i32::MAX]).verdict(&Thresholds::default()), Verdict::Pass);
        let reject = Thresholds { reject: 1, ..Thresholds::default() };
        assert_eq!(score(&[1]).verdict(&reject), Verdict::Rejected);
    }

    #[test]
    fn a_field_tells_verdict_score_and_findings() {
        let mut found = Score::default();
        found.add("no-ptr", 2);
        found.add("nothing", 0);
        found.add("wl.example", -1);
        assert_eq!(found.describe(), "no-ptr=2; wl.example=-1");
        assert_eq!(
            found.field(Verdict::Marked, Greylist::Passed, Duration::ZERO),
            "Rookery-Filter: marked; score=1; greylist=passed;\r\n\tno-ptr=2;\r\n\twl.example=-1\r\n"
        );
        assert_eq!(
            Score::default().field(Verdict::Pass, Greylist::Unasked, Duration::from_secs(7)),
            "Rookery-Filter: pass; score=0; tarpit=7\r\n"
        );
    }
}
