//! What is kept of records and of messages that went alike. Texts are bounded: strangers wrote them.

use std::net::IpAddr;

use origin::{
    Alignment, Policy,
    reports::{DkimAuth, Evaluated, PolicyReason, PublishedPolicy, Row, SpfAuth},
};

use crate::{judging::Findings, limits};

/// What a domain's record says.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::judging) struct PublishedRecord {
    /// `adkim=s`.
    #[prost(bool, tag = "1")]
    strict_dkim: bool,
    /// `aspf=s`.
    #[prost(bool, tag = "2")]
    strict_spf: bool,
    /// `p`: 0 none, 1 quarantine, 2 reject.
    #[prost(uint32, tag = "3")]
    policy: u32,
    /// `sp`.
    #[prost(uint32, optional, tag = "4")]
    subdomain_policy: Option<u32>,
    /// `np`.
    #[prost(uint32, optional, tag = "5")]
    missing_policy: Option<u32>,
    /// `pct`, where it is below 100.
    #[prost(uint32, optional, tag = "6")]
    percent: Option<u32>,
    /// `t=y`.
    #[prost(bool, tag = "7")]
    testing: bool,
    /// `rua`: at most ten.
    #[prost(string, repeated, tag = "8")]
    pub(in crate::judging) report_to: Vec<String>,
}

/// Messages that went alike.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RowRecord {
    #[prost(string, tag = "1")]
    source: String,
    /// 0 none, 1 quarantine, 2 reject.
    #[prost(uint32, tag = "2")]
    disposition: u32,
    #[prost(bool, tag = "3")]
    dkim_passed: bool,
    #[prost(bool, tag = "4")]
    spf_passed: bool,
    #[prost(message, repeated, tag = "5")]
    reasons: Vec<ReasonRecord>,
    #[prost(string, tag = "6")]
    header_from: String,
    #[prost(string, optional, tag = "7")]
    envelope_from: Option<String>,
    #[prost(message, repeated, tag = "8")]
    dkim: Vec<DkimRecord>,
    #[prost(message, repeated, tag = "9")]
    spf: Vec<SpfRecord>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ReasonRecord {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, optional, tag = "2")]
    comment: Option<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct DkimRecord {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(string, optional, tag = "2")]
    selector: Option<String>,
    #[prost(string, tag = "3")]
    result: String,
    #[prost(string, optional, tag = "4")]
    comment: Option<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct SpfRecord {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(string, optional, tag = "2")]
    scope: Option<String>,
    #[prost(string, tag = "3")]
    result: String,
}

fn policy_number(policy: Policy) -> u32 {
    match policy {
        Policy::None => 0,
        Policy::Quarantine => 1,
        Policy::Reject => 2,
    }
}

fn policy_of(number: u32) -> Policy {
    match number {
        1 => Policy::Quarantine,
        2 => Policy::Reject,
        _ => Policy::None,
    }
}

impl PublishedRecord {
    pub(super) fn of(policy: &PublishedPolicy, report_to: &[String]) -> Self {
        Self {
            strict_dkim: policy.dkim == Alignment::Strict,
            strict_spf: policy.spf == Alignment::Strict,
            policy: policy_number(policy.policy),
            subdomain_policy: policy.subdomain_policy.map(policy_number),
            missing_policy: policy.missing_policy.map(policy_number),
            percent: policy.percent.map(u32::from),
            testing: policy.testing,
            report_to: report_to.iter().map(|uri| cut(uri)).collect(),
        }
    }

    pub(in crate::judging) fn policy(&self, domain: &str) -> PublishedPolicy {
        let alignment = |strict| if strict { Alignment::Strict } else { Alignment::Relaxed };
        PublishedPolicy {
            domain: domain.to_owned(),
            dkim: alignment(self.strict_dkim),
            spf: alignment(self.strict_spf),
            policy: policy_of(self.policy),
            subdomain_policy: self.subdomain_policy.map(policy_of),
            missing_policy: self.missing_policy.map(policy_of),
            percent: self.percent.and_then(|percent| u8::try_from(percent).ok()),
            testing: self.testing,
        }
    }
}

impl RowRecord {
    pub(super) fn of(findings: &Findings) -> Self {
        let asked = &findings.asked;
        let mut row = Row::of(&asked.connection, &asked.sender, &findings.verdicts, None);
        if let Some(reason) = &findings.decision.reason {
            row.reasons.push(reason.clone());
        }
        Self {
            source: row.source.to_string(),
            disposition: policy_number(findings.decision.disposition),
            dkim_passed: row.dkim == Evaluated::Pass,
            spf_passed: row.spf == Evaluated::Pass,
            reasons: row
                .reasons
                .into_iter()
                .map(|it| ReasonRecord { kind: it.kind, comment: it.comment.map(|it| cut(&it)) })
                .collect(),
            header_from: cut(&row.header_from),
            envelope_from: row.envelope_from.map(|it| cut(&it)),
            dkim: row
                .auth_dkim
                .into_iter()
                .map(|it| DkimRecord {
                    domain: cut(&it.domain),
                    selector: it.selector.map(|it| cut(&it)),
                    result: it.result,
                    comment: it.comment,
                })
                .collect(),
            spf: row
                .auth_spf
                .into_iter()
                .map(|it| SpfRecord { domain: cut(&it.domain), scope: it.scope, result: it.result })
                .collect(),
        }
    }

    pub(super) fn row(self, count: u64) -> Option<Row> {
        let evaluated = |passed| if passed { Evaluated::Pass } else { Evaluated::Fail };
        let source: IpAddr = self.source.parse().ok()?;
        let reason = |it: ReasonRecord| PolicyReason { kind: it.kind, comment: it.comment };
        let dkim = |it: DkimRecord| DkimAuth {
            domain: it.domain,
            selector: it.selector,
            result: it.result,
            comment: it.comment,
        };
        let spf = |it: SpfRecord| SpfAuth { domain: it.domain, scope: it.scope, result: it.result };
        Some(Row {
            source,
            count,
            disposition: policy_of(self.disposition),
            dkim: evaluated(self.dkim_passed),
            spf: evaluated(self.spf_passed),
            reasons: self.reasons.into_iter().map(reason).collect(),
            header_from: self.header_from,
            envelope_from: self.envelope_from,
            envelope_to: None,
            auth_dkim: self.dkim.into_iter().map(dkim).collect(),
            auth_spf: self.spf.into_iter().map(spf).collect(),
        })
    }
}

/// What a stranger wrote, at the length of the longest domain.
fn cut(text: &str) -> String {
    let mut end = text.len().min(limits::DMARC_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
