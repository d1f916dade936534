//! From findings to what is done: a pure function of them and of the settings.
//!
//! - A rule applies to a recipient by its domain. A message is refused only where every recipient's rules
//!   refuse it, because SMTP has one answer for all; otherwise those whose rules refuse it get it as junk.
//! - A message whose author's domain vouches for it is not held to SPF or to other signatures: forwarding
//!   breaks the one, and lists add the others.
//! - Where the author's domain asks for something, and whether it vouches could not be found out, the
//!   message is put off, whatever is set: it can be brought about by whoever writes a message, who would
//!   otherwise only need a name in that domain which is never answered.
//! - A chain of seals stands in for the author's domain where every sealer is believed, and the first one
//!   found that the author's domain vouched (RFC 8617 §7.2.1, RFC 9989 §7.4).

use std::collections::BTreeSet;

use origin::{
    ArcResult, ArcVerdict, DkimResult, DmarcResult, DmarcVerdict, IprevResult, Policy, SpfResult,
    Verdicts, reports::PolicyReason,
};
use smtp::Refusal;

use super::client::Asked;
use crate::settings::judging::{Action, Judging, Rule, WhenUnknown};

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decision {
    /// Why the message is refused.
    pub(crate) refusal: Option<Refusal>,
    /// The strictest that is done for anybody.
    pub(crate) action: Action,
    /// Our domains whose recipients get it as junk.
    pub(crate) junk: BTreeSet<String>,
    /// What is done of what the author's domain asks for.
    pub(crate) disposition: Policy,
    /// Why that is not what it asks for.
    pub(crate) reason: Option<PolicyReason>,
    /// Whether seals stand in for the author's domain.
    pub(crate) is_sealed: bool,
}

pub(crate) fn decide(
    settings: &Judging,
    asked: &Asked,
    verdicts: &Verdicts,
    domains: &BTreeSet<String>,
) -> Decision {
    let sealers = trusted_sealers(settings, &verdicts.arc);
    let faults = faults(asked, verdicts, sealers.is_some());
    // What each domain does, and the rule that makes it do so.
    let acts: Vec<(&String, Action, Option<Rule>)> = domains
        .iter()
        .map(|domain| {
            let act = |rule: &Rule| (settings.action(*rule, domain), *rule);
            let worst = faults.iter().map(act).max();
            worst.map_or((domain, Action::Mark, None), |(it, rule)| (domain, it, Some(rule)))
        })
        .collect();
    let is_refused = !acts.is_empty() && acts.iter().all(|(_, act, _)| *act == Action::Reject);
    let mut decision = Decision { is_sealed: sealers.is_some(), ..Decision::default() };
    if is_seal_open(settings, verdicts, domains) {
        decision.refusal = Some(Refusal::OriginUnknown);
    } else if is_refused {
        let rule = acts.iter().filter_map(|(_, _, rule)| *rule).max();
        decision.refusal = rule.map(refusal);
        decision.action = Action::Reject;
    } else if is_author_open(settings, verdicts, domains)
        || settings.when_unknown == WhenUnknown::Defer && is_unknown(asked, verdicts)
    {
        decision.refusal = Some(Refusal::OriginUnknown);
    } else {
        let junk = acts.iter().filter(|(_, act, _)| *act > Action::Mark);
        decision.junk = junk.map(|(domain, ..)| (*domain).clone()).collect();
        decision.action = if decision.junk.is_empty() { Action::Mark } else { Action::Quarantine };
    }
    let dmarc = &verdicts.dmarc;
    if dmarc.result == DmarcResult::Fail {
        decision.disposition = match decision.action {
            Action::Mark => Policy::None,
            Action::Quarantine => Policy::Quarantine,
            Action::Reject => Policy::Reject,
        };
        if decision.disposition != dmarc.disposition {
            decision.reason = Some(match sealers {
                Some(sealers) => PolicyReason {
                    kind: "trusted_forwarder".to_owned(),
                    comment: Some(format!("arc=pass {sealers}")),
                },
                None => PolicyReason { kind: "local_policy".to_owned(), comment: None },
            });
        }
    }
    decision
}

fn refusal(rule: Rule) -> Refusal {
    match rule {
        Rule::SpfFail => Refusal::SpfFailed,
        Rule::DkimFail => Refusal::DkimFailed,
        Rule::IprevFail => Refusal::ReverseNameMissing,
        Rule::AuthorUnclear | Rule::DmarcQuarantine | Rule::DmarcReject => {
            Refusal::AuthorNotVouchedFor
        }
    }
}

/// What is wrong with a message.
fn faults(asked: &Asked, verdicts: &Verdicts, is_sealed: bool) -> Vec<Rule> {
    let dmarc = &verdicts.dmarc;
    let is_vouched_for = dmarc.result == DmarcResult::Pass || is_sealed;
    let of_signatures = |wanted| verdicts.dkim.iter().any(|it| it.result == wanted);
    let mut faults = Vec::new();
    if asked.sender.result == SpfResult::Fail && !is_vouched_for {
        faults.push(Rule::SpfFail);
    }
    if !verdicts.dkim.is_empty()
        && !of_signatures(DkimResult::Pass)
        && !of_signatures(DkimResult::TempError)
        && !is_vouched_for
    {
        faults.push(Rule::DkimFail);
    }
    if matches!(asked.connection.iprev.result, IprevResult::Fail | IprevResult::PermError) {
        faults.push(Rule::IprevFail);
    }
    if !is_sealed {
        match dmarc.disposition {
            Policy::None if is_author_unclear(dmarc) => faults.push(Rule::AuthorUnclear),
            Policy::None => {}
            Policy::Quarantine => faults.push(Rule::DmarcQuarantine),
            Policy::Reject => faults.push(Rule::DmarcReject),
        }
    }
    faults
}

/// Whether what could not be found out decides whether the author's domain vouches, which asks for something
/// that is done here.
fn is_author_open(settings: &Judging, verdicts: &Verdicts, domains: &BTreeSet<String>) -> bool {
    let dmarc = &verdicts.dmarc;
    let is_asked = dmarc.record.as_ref().is_some_and(|it| !it.testing && it.percent > 0);
    dmarc.result == DmarcResult::TempError
        && is_asked
        && trusted_sealers(settings, &verdicts.arc).is_none()
        && is_done(settings, dmarc.policy, domains)
}

/// Whether seals that could not be checked for now would stand in for the author's domain.
fn is_seal_open(settings: &Judging, verdicts: &Verdicts, domains: &BTreeSet<String>) -> bool {
    verdicts.dmarc.result == DmarcResult::Fail
        && verdicts.arc.result == ArcResult::TempError
        && claimed_sealers(settings, &verdicts.arc).is_some()
        && is_done(settings, verdicts.dmarc.disposition, domains)
}

/// Whether anything is done for somebody of what an author's domain asks for.
fn is_done(settings: &Judging, policy: Policy, domains: &BTreeSet<String>) -> bool {
    let rule = match policy {
        Policy::None => return false,
        Policy::Quarantine => Rule::DmarcQuarantine,
        Policy::Reject => Rule::DmarcReject,
    };
    domains.iter().any(|domain| settings.action(rule, domain) > Action::Mark)
}

/// Whether there is nobody whose domain could have been asked.
fn is_author_unclear(dmarc: &DmarcVerdict) -> bool {
    dmarc.result == DmarcResult::PermError && dmarc.author_domain.is_empty()
}

/// Whether what could not be asked might make a difference.
fn is_unknown(asked: &Asked, verdicts: &Verdicts) -> bool {
    match verdicts.dmarc.result {
        DmarcResult::Pass => false,
        DmarcResult::TempError => true,
        DmarcResult::None | DmarcResult::Fail | DmarcResult::PermError => {
            asked.sender.result == SpfResult::TempError
        }
    }
}

/// Who sealed, for people, where the seals stand in for the author's domain.
fn trusted_sealers(settings: &Judging, arc: &ArcVerdict) -> Option<String> {
    claimed_sealers(settings, arc).filter(|_| arc.result == ArcResult::Pass)
}

/// The same as the message has it, whether the seals hold or not.
fn claimed_sealers(settings: &Judging, arc: &ArcVerdict) -> Option<String> {
    let trusted = |domain: &String| settings.trusted_sealers.contains(domain);
    let first = arc.sets.first()?;
    let all = arc.sets.iter().map(|set| &set.domain);
    (all.clone().all(trusted) && says_dmarc_pass(&first.results))
        .then(|| all.map(|domain| format!("as={domain}")).collect::<Vec<_>>().join(" "))
}

/// Whether results (RFC 8601 §2.2) have one that begins with `dmarc=pass`: neither what stands in quotes,
/// which a sender may choose, nor in comments begins one.
fn says_dmarc_pass(results: &str) -> bool {
    let (mut plain, mut depth, mut is_quoted) = (String::new(), 0_usize, false);
    let mut characters = results.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if is_quoted || depth > 0 => drop(characters.next()),
            '"' if depth == 0 => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth = depth.saturating_sub(1),
            _ if !is_quoted && depth == 0 => plain.push(character),
            _ => {}
        }
    }
    plain.split(';').any(|result| {
        let method: String = result.split_ascii_whitespace().next().unwrap_or_default().into();
        method.eq_ignore_ascii_case("dmarc=pass")
    })
}

#[cfg(test)]
mod tests {
    use origin::{ArcSet, Connection, DkimVerdict, IprevVerdict, SpfVerdict};

    use super::*;

    fn asked(spf: SpfResult) -> Asked {
        let iprev = IprevVerdict { result: IprevResult::Pass, name: None };
        Asked {
            connection: Connection {
                peer: "192.0.2.1".parse().unwrap(),
                helo: "a.example".to_owned(),
                iprev,
                spf_helo: SpfVerdict::default(),
            },
            sender: SpfVerdict { result: spf, ..SpfVerdict::default() },
        }
    }

    fn failing(asks: Policy) -> Verdicts {
        Verdicts {
            dmarc: DmarcVerdict {
                result: DmarcResult::Fail,
                policy: asks,
                disposition: asks,
                ..DmarcVerdict::default()
            },
            ..Verdicts::default()
        }
    }

    fn settings(values: &[(&str, &str)]) -> Judging {
        let mut settings = crate::settings::Settings::default();
        for (name, value) in values {
            settings.set(name, value).unwrap();
        }
        settings.judging
    }

    fn domains(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_a_domain_asks_for_is_done() {
        let ours = domains(&["example.org"]);
        let asked = asked(SpfResult::None);
        let of = |asks| decide(&Judging::default(), &asked, &failing(asks), &ours);
        assert_eq!(of(Policy::None), Decision::default());
        let found = of(Policy::Quarantine);
        assert_eq!((found.refusal, found.action), (None, Action::Quarantine));
        assert_eq!((found.junk, found.reason), (ours.clone(), None));
        let found = of(Policy::Reject);
        assert_eq!(found.refusal, Some(Refusal::AuthorNotVouchedFor));
        assert_eq!((found.disposition, found.reason), (Policy::Reject, None));
    }

    #[test]
    fn authors_in_disorder_free_no_message() {
        let ours = domains(&["example.org"]);
        let asked = asked(SpfResult::Pass);
        let mut verdicts = failing(Policy::Reject);
        verdicts.dmarc.result = DmarcResult::PermError;
        let found = decide(&Judging::default(), &asked, &verdicts, &ours);
        assert_eq!(found.refusal, Some(Refusal::AuthorNotVouchedFor));
        verdicts.dmarc.disposition = Policy::None;
        let of = |settings: &Judging| decide(settings, &asked, &verdicts, &ours);
        let found = of(&Judging::default());
        assert_eq!((found.refusal, found.junk), (None, ours.clone()), "nobody has written it");
        let found = of(&settings(&[("judging.author_unclear", "mark")]));
        assert_eq!(found, Decision::default());
        let found = of(&settings(&[("judging.author_unclear", "reject")]));
        assert_eq!(found.refusal, Some(Refusal::AuthorNotVouchedFor));
        verdicts.dmarc.author_domain = "example.com".to_owned();
        let found = decide(&Judging::default(), &asked, &verdicts, &ours);
        assert_eq!(found, Decision::default(), "its domain was asked");
    }

    #[test]
    fn a_message_is_refused_where_every_recipient_refuses_it() {
        let settings = settings(&[("judging.dmarc_reject.example.net", "mark")]);
        let (asked, verdicts) = (asked(SpfResult::None), failing(Policy::Reject));
        let both = domains(&["example.org", "example.net"]);
        let found = decide(&settings, &asked, &verdicts, &both);
        assert_eq!((found.refusal, found.junk), (None, domains(&["example.org"])));
        assert_eq!(found.reason.unwrap().kind, "local_policy");
        let found = decide(&settings, &asked, &verdicts, &domains(&["example.net"]));
        assert_eq!((found.action, found.disposition), (Action::Mark, Policy::None));
    }

    #[test]
    fn an_author_who_is_vouched_for_needs_no_spf() {
        let settings = settings(&[("judging.spf_fail", "reject"), ("judging.dkim_fail", "reject")]);
        let ours = domains(&["example.org"]);
        let mut verdicts = Verdicts::default();
        let found = decide(&settings, &asked(SpfResult::Fail), &verdicts, &ours);
        assert_eq!(found.refusal, Some(Refusal::SpfFailed));
        let found = decide(&settings, &asked(SpfResult::SoftFail), &verdicts, &ours);
        assert_eq!(found.refusal, None);
        verdicts.dmarc.result = DmarcResult::Pass;
        let found = decide(&settings, &asked(SpfResult::Fail), &verdicts, &ours);
        assert_eq!(found.refusal, None);
    }

    #[test]
    fn broken_signatures_count_where_none_holds() {
        let settings = settings(&[("judging.dkim_fail", "quarantine")]);
        let ours = domains(&["example.org"]);
        let signature = |result| DkimVerdict {
            result,
            reason: None,
            domain: "a.example".to_owned(),
            selector: String::new(),
            identity: String::new(),
            algorithm: None,
            signature_start: String::new(),
            testing: false,
        };
        for (results, expected) in [
            (vec![], Action::Mark),
            (vec![DkimResult::Fail], Action::Quarantine),
            (vec![DkimResult::Fail, DkimResult::Pass], Action::Mark),
            (vec![DkimResult::Fail, DkimResult::TempError], Action::Mark),
        ] {
            let dkim = results.iter().map(|result| signature(*result)).collect();
            let verdicts = Verdicts { dkim, ..Verdicts::default() };
            let found = decide(&settings, &asked(SpfResult::None), &verdicts, &ours);
            assert_eq!(found.action, expected, "{results:?}");
        }
    }

    #[test]
    fn seals_count_where_all_sealers_are_believed() {
        let set = |domain: &str, results: &str| ArcSet {
            domain: domain.to_owned(),
            selector: String::new(),
            results: results.to_owned(),
        };
        let ours = domains(&["example.org"]);
        let check = |trusted: &str, sets: Vec<ArcSet>, expected: bool| {
            let settings = settings(&[("judging.trusted_sealers", trusted)]);
            let mut verdicts = failing(Policy::Reject);
            verdicts.arc = ArcVerdict { result: ArcResult::Pass, sets, ..ArcVerdict::default() };
            let found = decide(&settings, &asked(SpfResult::None), &verdicts, &ours);
            assert_eq!(found.refusal.is_none(), expected);
            let reason = found.reason.map(|reason| reason.kind);
            assert_eq!(reason.is_some_and(|kind| kind == "trusted_forwarder"), expected);
        };
        let good = "mx; spf=pass smtp.mailfrom=a@b.example; dmarc=pass header.from=b.example";
        check("list.example", vec![set("list.example", good)], true);
        check("none", vec![set("list.example", good)], false);
        check("list.example", vec![set("list.example", "dmarc=fail")], false);
        let injected = "spf=pass smtp.mailfrom=\"x\\\"; dmarc=pass \"@b.example (;dmarc=pass)";
        check("list.example", vec![set("list.example", injected)], false);
        let two = || vec![set("list.example", good), set("other.example", "dmarc=fail")];
        check("list.example", two(), false);
        check("list.example,other.example", two(), true);
    }

    #[test]
    fn what_cannot_be_asked_is_taken_or_put_off() {
        let ours = domains(&["example.org"]);
        let mut verdicts = Verdicts::default();
        verdicts.dmarc.result = DmarcResult::TempError;
        let found = decide(&Judging::default(), &asked(SpfResult::None), &verdicts, &ours);
        assert_eq!(found, Decision::default());
        let settings = settings(&[("judging.when_unknown", "defer")]);
        let found = decide(&settings, &asked(SpfResult::None), &verdicts, &ours);
        assert_eq!(found.refusal, Some(Refusal::OriginUnknown));
        let fine = Verdicts::default();
        assert_eq!(decide(&settings, &asked(SpfResult::Pass), &fine, &ours).refusal, None);
    }

    /// Anybody can name a key or a sender below a bank's domain that is never answered for.
    #[test]
    fn what_is_wanted_of_a_message_is_not_got_around_by_silence() {
        let ours = domains(&["example.org"]);
        let mut verdicts = failing(Policy::None);
        verdicts.dmarc.result = DmarcResult::TempError;
        let record = |text: &str| origin::DmarcRecord::parse(text.as_bytes());
        let mut check = |text: &str, values: &[(&str, &str)], expected: Option<Refusal>| {
            verdicts.dmarc.record = record(text);
            verdicts.dmarc.policy = verdicts.dmarc.record.as_ref().unwrap().policy;
            let found = decide(&settings(values), &asked(SpfResult::TempError), &verdicts, &ours);
            assert_eq!(found.refusal, expected, "{text} {values:?}");
        };
        let put_off = Some(Refusal::OriginUnknown);
        check("v=DMARC1; p=reject", &[], put_off);
        check("v=DMARC1; p=quarantine", &[], put_off);
        check("v=DMARC1; p=none", &[], None);
        check("v=DMARC1; p=reject; t=y", &[], None);
        check("v=DMARC1; p=reject; pct=0", &[], None);
        check("v=DMARC1; p=reject", &[("judging.dmarc_reject", "mark")], None);
        check("v=DMARC1; p=reject", &[("judging.dmarc_reject.example.org", "mark")], None);
    }

    #[test]
    fn believed_seals_that_cannot_be_checked_put_a_message_off() {
        let ours = domains(&["example.org"]);
        let set = ArcSet {
            domain: "list.example".to_owned(),
            selector: String::new(),
            results: "mx; dmarc=pass header.from=b.example".to_owned(),
        };
        let mut verdicts = failing(Policy::Reject);
        verdicts.arc =
            ArcVerdict { result: ArcResult::TempError, sets: vec![set], ..ArcVerdict::default() };
        let of = |verdicts: &Verdicts, trusted: &str| {
            let settings = settings(&[("judging.trusted_sealers", trusted)]);
            decide(&settings, &asked(SpfResult::None), verdicts, &ours).refusal
        };
        assert_eq!(of(&verdicts, "list.example"), Some(Refusal::OriginUnknown));
        assert_eq!(of(&verdicts, "other.example"), Some(Refusal::AuthorNotVouchedFor));
        verdicts.arc.result = ArcResult::Fail;
        assert_eq!(of(&verdicts, "list.example"), Some(Refusal::AuthorNotVouchedFor));
    }
}
