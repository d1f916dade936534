//! TLS reports (RFC 8460 §4), made and read.

use std::fmt;

use env::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use crate::reports::{ReportError, gzip, time};

/// Policies of one report that are kept: each is a domain's; the rest is left out.
const POLICIES_MAX: usize = 100;

/// Failures of one policy that are kept, and strings of one. A few bytes of a report make an entry of some
/// hundred in memory.
const DETAILS_MAX: usize = 200;

/// How connections to a domain went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsReport {
    /// Who reports.
    #[serde(default)]
    pub organization_name: String,
    /// Of when.
    date_range: DateRange,
    /// Whom to ask about it.
    #[serde(default)]
    pub contact_info: String,
    /// Tells it from others of the same sender.
    pub report_id: String,
    /// How it went, by policy.
    #[serde(deserialize_with = "bounded::<_, _, POLICIES_MAX>")]
    pub policies: Vec<TlsPolicy>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

/// A policy, and how connections under it went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WirePolicy", into = "WirePolicy")]
pub struct TlsPolicy {
    /// `tlsa`, `sts` or `no-policy-found`.
    pub policy_type: String,
    /// The policy's lines or records.
    pub policy_strings: Vec<String>,
    /// Whose it is.
    pub domain: String,
    /// The hosts that it allows.
    pub mx_hosts: Vec<String>,
    /// Sessions that went well.
    pub successful: u64,
    /// Sessions that did not.
    pub failed: u64,
    /// Why not.
    pub failures: Vec<TlsFailure>,
}

/// Sessions that failed alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TlsFailure {
    /// Such as `starttls-not-supported`, `certificate-expired`, `tlsa-invalid` (RFC 8460 §4.3).
    pub result_type: String,
    /// The sender's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sending_mta_ip: Option<String>,
    /// The receiver's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiving_mx_hostname: Option<String>,
    /// The name that the receiver greeted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiving_mx_helo: Option<String>,
    /// The receiver's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiving_ip: Option<String>,
    /// How many.
    pub failed_session_count: u64,
    /// Where there is more about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_information: Option<String>,
    /// What the program said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason_code: Option<String>,
}

/// A policy as it is nested on the wire.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct WirePolicy {
    policy: WirePolicyNames,
    summary: WireSummary,
    #[serde(
        deserialize_with = "bounded::<_, _, DETAILS_MAX>",
        skip_serializing_if = "Vec::is_empty"
    )]
    failure_details: Vec<TlsFailure>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct WirePolicyNames {
    policy_type: String,
    #[serde(
        deserialize_with = "bounded::<_, _, DETAILS_MAX>",
        skip_serializing_if = "Vec::is_empty"
    )]
    policy_string: Vec<String>,
    policy_domain: String,
    #[serde(
        deserialize_with = "bounded::<_, _, DETAILS_MAX>",
        skip_serializing_if = "Vec::is_empty"
    )]
    mx_host: Vec<String>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct WireSummary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

impl From<WirePolicy> for TlsPolicy {
    fn from(wire: WirePolicy) -> Self {
        Self {
            policy_type: wire.policy.policy_type,
            policy_strings: wire.policy.policy_string,
            domain: wire.policy.policy_domain,
            mx_hosts: wire.policy.mx_host,
            successful: wire.summary.total_successful_session_count,
            failed: wire.summary.total_failure_session_count,
            failures: wire.failure_details,
        }
    }
}

impl From<TlsPolicy> for WirePolicy {
    fn from(policy: TlsPolicy) -> Self {
        Self {
            policy: WirePolicyNames {
                policy_type: policy.policy_type,
                policy_string: policy.policy_strings,
                policy_domain: policy.domain,
                mx_host: policy.mx_hosts,
            },
            summary: WireSummary {
                total_successful_session_count: policy.successful,
                total_failure_session_count: policy.failed,
            },
            failure_details: policy.failures,
        }
    }
}

impl TlsReport {
    /// A report of what was between two times.
    pub fn new(
        organization: &str,
        contact: &str,
        id: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Self {
        Self {
            organization_name: organization.to_owned(),
            date_range: DateRange {
                start_datetime: time::write(from),
                end_datetime: time::write(to),
            },
            contact_info: contact.to_owned(),
            report_id: id.to_owned(),
            policies: Vec::new(),
        }
    }

    /// From when to when it is, where that is written as a time.
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let range = &self.date_range;
        Some((time::read(&range.start_datetime)?, time::read(&range.end_datetime)?))
    }

    /// Reads a report that is unpacked.
    ///
    /// # Errors
    /// [`ReportError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        serde_json::from_slice(bytes).map_err(|_| ReportError::Malformed)
    }

    /// The report as it goes into a message, packed: `application/tlsrpt+gzip`.
    pub fn to_gzip(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("there are only texts and numbers in it");
        gzip(&json)
    }

    /// The name of its file (RFC 8460 §5.1).
    pub fn file_name(&self, sender: &str, domain: &str) -> String {
        let seconds = |at: Timestamp| at.unix_seconds();
        let (from, to) = self.range().map_or((0, 0), |(from, to)| (seconds(from), seconds(to)));
        format!("{sender}!{domain}!{from}!{to}!{}.json.gz", self.report_id)
    }
}

/// A list of which no more than `MAX` entries are kept. One that is null is empty.
fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut kept = Vec::new();
            while kept.len() < MAX {
                match list.next_element()? {
                    Some(entry) => kept.push(entry),
                    None => return Ok(kept),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }

    deserializer.deserialize_any(Bounded::<T, MAX>(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reports::{Report, ReportKind};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn report() -> TlsReport {
        let mut report = TlsReport::new("Example", "a@b.example", "1", at(0), at(86_399));
        report.policies.push(TlsPolicy {
            policy_type: "sts".to_owned(),
            policy_strings: vec!["version: STSv1".to_owned()],
            domain: "example.org".to_owned(),
            mx_hosts: vec!["*.example.org".to_owned()],
            successful: 5,
            failed: 2,
            failures: vec![TlsFailure {
                result_type: "certificate-expired".to_owned(),
                receiving_mx_hostname: Some("mx.example.org".to_owned()),
                failed_session_count: 2,
                ..TlsFailure::default()
            }],
        });
        report
    }

    #[test]
    fn what_is_made_is_read() {
        let packed = report().to_gzip();
        let read = ReportKind::of("application/tlsrpt+gzip", None).unwrap().parse(&packed);
        assert_eq!(read, Ok(Report::Tls(report())));
        let name = report().file_name("mx.example.net", "example.org");
        assert_eq!(name, "mx.example.net!example.org!0!86399!1.json.gz");
    }

    /// The shape of RFC 8460's appendix B.
    #[test]
    fn what_others_write_is_read() {
        let json = br#"{"organization-name":"Company-X","date-range":{
            "start-datetime":"2016-04-01T00:00:00Z","end-datetime":"2016-04-01T23:59:59Z"},
            "contact-info":"x@company-x.example","report-id":"5065427c","policies":[{
            "policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: testing"],
            "policy-domain":"company-y.example","mx-host":["*.mail.company-y.example"],"odd":1},
            "summary":{"total-successful-session-count":5326,"total-failure-session-count":303},
            "failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"2001:db8:abcd:12::1",
            "failed-session-count":100}]},{"policy":{"policy-type":"no-policy-found","mx-host":null}}]}"#;
        let report = TlsReport::parse(json).unwrap();
        assert_eq!(report.range(), Some((at(1_459_468_800), at(1_459_555_199))));
        let policy = &report.policies[0];
        assert_eq!(
            (policy.successful, policy.failed, policy.failures[0].failed_session_count),
            (5326, 303, 100)
        );
        for bad in ["", "[]", "{}", "{\"report-id\":1}"] {
            assert_eq!(TlsReport::parse(bad.as_bytes()), Err(ReportError::Malformed));
        }
    }

    #[test]
    fn floods_are_bounded() {
        let policy = format!("{{\"failure-details\":[{}]}}", vec!["{}"; 5_000].join(","));
        let json = format!(
            "{{\"report-id\":\"\",\"date-range\":{{\"start-datetime\":\"\",\"end-datetime\":\"\"}},\"policies\":[{}]}}",
            vec![policy.as_str(); 200].join(",")
        );
        let report = TlsReport::parse(json.as_bytes()).unwrap();
        assert_eq!(report.policies.len(), POLICIES_MAX);
        assert!(report.policies.iter().all(|policy| policy.failures.len() == DETAILS_MAX));
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert!(TlsReport::parse(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "[{}\\[\\]\",:a-z0-9-]{0,80}") {
            let _unwanted = TlsReport::parse(text.as_bytes());
        }
    }
}
