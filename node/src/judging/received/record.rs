//! What is kept of a report. Strangers wrote it: texts are clean and bounded, and of its rows as many
//! are kept as fit [`limits::RECEIVED_DETAILS_BYTES_MAX`].

use env::Timestamp;
use origin::reports::{AggregateReport, Evaluated, FailureReport, Report, Row, TlsReport};
use serde_json::{Value, json};

use crate::limits;

/// Of what kind a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What became of mail in a domain's name (RFC 9990).
    Aggregate,
    /// What became of one message (RFC 9991, RFC 5965).
    Failure,
    /// How connections to a domain went (RFC 8460).
    Tls,
}

impl Kind {
    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Aggregate => "aggregate",
            Self::Failure => "failure",
            Self::Tls => "tls",
        }
    }
}

/// A report that somebody sent.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ReceivedRecord {
    /// 1 aggregate, 2 failure, 3 TLS.
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    /// When it came, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub(crate) received_ms: i64,
    /// Who reports.
    #[prost(string, tag = "3")]
    pub(crate) from: String,
    /// The domain that it is about.
    #[prost(string, tag = "4")]
    pub(crate) domain: String,
    /// Their number for it; empty where they give none.
    #[prost(string, tag = "5")]
    pub(crate) id: String,
    /// From when, milliseconds since 1970; 0 where it does not say.
    #[prost(int64, tag = "6")]
    pub(crate) begin_ms: i64,
    /// To when.
    #[prost(int64, tag = "7")]
    pub(crate) end_ms: i64,
    /// Messages, or connections, that it tells of.
    #[prost(uint64, tag = "8")]
    pub(crate) messages: u64,
    /// Those of them that failed.
    #[prost(uint64, tag = "9")]
    pub(crate) failed: u64,
    /// The rest as a JSON array: rows, policies, or the one report.
    #[prost(string, tag = "10")]
    pub(crate) details: String,
    /// Rows that the details lack.
    #[prost(uint64, tag = "11")]
    pub(crate) left_out: u64,
    /// The domain that vouches for its message; empty for what was kept before that was asked for.
    #[prost(string, tag = "12")]
    pub(crate) vouched_by: String,
}

impl ReceivedRecord {
    /// Of what kind it is.
    pub(crate) fn kind(&self) -> Kind {
        match self.kind {
            2 => Kind::Failure,
            3 => Kind::Tls,
            _ => Kind::Aggregate,
        }
    }

    pub(super) fn of(report: Report, now: Timestamp) -> Self {
        let mut record = match report {
            Report::Aggregate(report) => aggregate(&report),
            Report::Failure(report) => failure(&report),
            Report::Tls(report) => tls(&report),
        };
        record.received_ms = now.unix_ms();
        record
    }
}

fn aggregate(report: &AggregateReport) -> ReceivedRecord {
    let metadata = &report.metadata;
    let is_failed = |row: &&Row| row.dkim == Evaluated::Fail && row.spf == Evaluated::Fail;
    let count = |sum: u64, row: &Row| sum.saturating_add(row.count);
    let (details, left_out) = array(report.rows.iter().map(row));
    ReceivedRecord {
        kind: 1,
        from: clean(&metadata.organization),
        domain: clean(&report.policy.domain),
        id: clean(&metadata.id),
        begin_ms: metadata.begin.unix_ms(),
        end_ms: metadata.end.unix_ms(),
        messages: report.rows.iter().fold(0, count),
        failed: report.rows.iter().filter(is_failed).fold(0, count),
        details,
        left_out: left_out.saturating_add(report.rows_left_out),
        ..ReceivedRecord::default()
    }
}

fn row(row: &Row) -> Value {
    let dkim = row
        .auth_dkim
        .iter()
        .map(|it| json!({ "domain": it.domain, "selector": it.selector, "result": it.result }));
    let spf = row
        .auth_spf
        .iter()
        .map(|it| json!({ "domain": it.domain, "scope": it.scope, "result": it.result }));
    let reasons = row.reasons.iter().map(|it| json!({ "type": it.kind, "comment": it.comment }));
    json!({
        "source": row.source.to_string(),
        "count": row.count,
        "disposition": row.disposition.as_str(),
        "dkim": row.dkim.as_str(),
        "spf": row.spf.as_str(),
        "header_from": row.header_from,
        "envelope_from": row.envelope_from,
        "envelope_to": row.envelope_to,
        "reasons": reasons.collect::<Vec<_>>(),
        "signatures": dkim.collect::<Vec<_>>(),
        "senders": spf.collect::<Vec<_>>(),
    })
}

fn failure(report: &FailureReport) -> ReceivedRecord {
    let whole = json!({
        "type": report.feedback_type,
        "user_agent": report.user_agent,
        "mail_from": report.mail_from,
        "recipients": report.recipients,
        "arrival_date": report.arrival_date,
        "source": report.source.map(|source| source.to_string()),
        "reported_domains": report.reported_domains,
        "auth_failure": report.auth_failure,
        "delivery_result": report.delivery_result,
        "dkim_domain": report.dkim_domain,
        "dkim_selector": report.dkim_selector,
        "identity_alignment": report.identity_alignment,
        "authentication_results": report.authentication_results,
    });
    let (details, left_out) = array(std::iter::once(whole));
    ReceivedRecord {
        kind: 2,
        from: clean(report.reporting_host.as_deref().unwrap_or(&report.user_agent)),
        domain: clean(report.reported_domains.first().map_or("", String::as_str)),
        messages: report.incidents,
        failed: report.incidents,
        details,
        left_out,
        ..ReceivedRecord::default()
    }
}

fn tls(report: &TlsReport) -> ReceivedRecord {
    let policies = &report.policies;
    let sum = |of: fn(&origin::reports::TlsPolicy) -> u64| {
        policies.iter().fold(0_u64, |sum, policy| sum.saturating_add(of(policy)))
    };
    let values = policies.iter().filter_map(|policy| serde_json::to_value(policy).ok());
    let (details, left_out) = array(values);
    let (begin, end) = report.range().unwrap_or_default();
    ReceivedRecord {
        kind: 3,
        from: clean(&report.organization_name),
        domain: clean(policies.first().map_or("", |policy| &policy.domain)),
        id: clean(&report.report_id),
        begin_ms: begin.unix_ms(),
        end_ms: end.unix_ms(),
        messages: sum(|policy| policy.successful.saturating_add(policy.failed)),
        failed: sum(|policy| policy.failed),
        details,
        left_out,
        ..ReceivedRecord::default()
    }
}

/// As many values as fit, and how many do not.
fn array(values: impl Iterator<Item = Value>) -> (String, u64) {
    let (mut text, mut left_out) = ("[".to_owned(), 0);
    for value in values {
        let value = value.to_string();
        if text.len() + value.len() + 2 > limits::RECEIVED_DETAILS_BYTES_MAX {
            left_out += 1;
            continue;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&value);
    }
    text.push(']');
    (text, left_out)
}

/// One line, at the length of the longest domain.
fn clean(text: &str) -> String {
    let mut clean: String = text.chars().filter(|at| !at.is_control()).collect();
    let mut end = clean.len().min(limits::DMARC_TEXT_BYTES_MAX);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean.truncate(end);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_are_kept_as_fit() {
        let row = json!({ "text": "x".repeat(1_000) });
        let (text, left_out) = array(std::iter::repeat_n(row, 100));
        assert!(text.len() <= limits::RECEIVED_DETAILS_BYTES_MAX && left_out > 0);
        let kept: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(kept.len() as u64 + left_out, 100);
    }
}
