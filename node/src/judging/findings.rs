//! What was found of one message, and what follows.

use std::collections::BTreeSet;

use origin::{Digest, Judge, Verdicts};

use super::{
    client::Asked,
    decide::{Decision, decide},
};
use crate::settings::judging::Judging;

/// What was found of one message, and what follows.
pub(crate) struct Findings {
    pub(crate) asked: Asked,
    pub(crate) verdicts: Verdicts,
    pub(crate) decision: Decision,
}

impl Findings {
    /// Judges a message and decides for recipients in these domains of ours.
    pub(crate) async fn of(
        judge: &Judge,
        settings: &Judging,
        asked: Asked,
        digest: &Digest,
        domains: &BTreeSet<String>,
    ) -> Self {
        let verdicts = judge.judge_message(&asked.sender, digest).await;
        let decision = decide(settings, &asked, &verdicts, domains);
        Self { asked, verdicts, decision }
    }

    /// What goes on top of the message.
    pub(crate) fn field(&self, judge: &Judge) -> String {
        judge.authentication_results(&self.asked.connection, &self.asked.sender, &self.told())
    }

    /// What goes into a seal.
    pub(crate) fn results(&self, judge: &Judge) -> Vec<String> {
        judge.results(&self.asked.connection, &self.asked.sender, &self.told())
    }

    /// The verdicts with what was done, in place of what is asked for.
    fn told(&self) -> Verdicts {
        let mut told = self.verdicts.clone();
        told.dmarc.disposition = self.decision.disposition;
        told
    }

    /// One word each, for the log.
    pub(crate) fn summary(&self) -> String {
        self.results_by_method().map(|(method, result)| format!("{method}={result}")).join(" ")
    }

    /// What each method found; of several signatures the best.
    pub(crate) fn results_by_method(&self) -> [(&'static str, &'static str); 5] {
        let Verdicts { dkim, arc, dmarc } = &self.verdicts;
        let passed = dkim.iter().find(|it| it.result == origin::DkimResult::Pass);
        let best = passed.or(dkim.first()).map_or("none", |it| it.result.as_str());
        [
            ("iprev", self.asked.connection.iprev.result.as_str()),
            ("spf", self.asked.sender.result.as_str()),
            ("dkim", best),
            ("arc", arc.result.as_str()),
            ("dmarc", dmarc.result.as_str()),
        ]
    }
}
