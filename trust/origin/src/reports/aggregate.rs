//! Aggregate reports: what became of mail in a domain's name, in a day or so (RFC 9990).

use std::net::IpAddr;

use env::Timestamp;

use crate::{
    Alignment, Connection, DmarcResult, DmarcVerdict, Override, Policy, SpfVerdict, Verdicts,
    reports::{ReportError, gzip, read_xml, write_xml},
};

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateReport {
    /// Who reports of when.
    pub metadata: ReportMetadata,
    /// What the domain's record says.
    pub policy: PublishedPolicy,
    /// What came; of a report that is read at most [`crate::limits::REPORT_ROWS_MAX`].
    pub rows: Vec<Row>,
    /// Rows of a report that is read which were left out: too many, or not understood.
    pub rows_left_out: u64,
}

/// Who reports of when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportMetadata {
    /// Who.
    pub organization: String,
    /// Their address.
    pub email: String,
    /// Where else to ask.
    pub contact: Option<String>,
    /// Tells it from others of the same sender.
    pub id: String,
    /// From when.
    pub begin: Timestamp,
    /// To when.
    pub end: Timestamp,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// What the domain's record says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishedPolicy {
    /// Where it is.
    pub domain: String,
    /// `adkim`.
    pub dkim: Alignment,
    /// `aspf`.
    pub spf: Alignment,
    /// `p`.
    pub policy: Policy,
    /// `sp`.
    pub subdomain_policy: Option<Policy>,
    /// `np`.
    pub missing_policy: Option<Policy>,
    /// `pct`, where it is told.
    pub percent: Option<u8>,
    /// `t=y`.
    pub testing: bool,
}

/// Messages that went alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where they came from.
    pub source: IpAddr,
    /// How many.
    pub count: u64,
    /// What was done.
    pub disposition: Policy,
    /// Whether an aligned signature passed.
    pub dkim: Evaluated,
    /// Whether SPF passed, aligned.
    pub spf: Evaluated,
    /// Why less, or more, was done than the policy asks for.
    pub reasons: Vec<PolicyReason>,
    /// The author's domain.
    pub header_from: String,
    /// The envelope's domain; empty for an empty sender.
    pub envelope_from: Option<String>,
    /// The recipient's domain.
    pub envelope_to: Option<String>,
    /// The signatures.
    pub auth_dkim: Vec<DkimAuth>,
    /// What SPF said.
    pub auth_spf: Vec<SpfAuth>,
}

/// Whether something aligned passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Evaluated {
    /// It did.
    Pass,
    /// It did not.
    #[default]
    Fail,
}

impl Evaluated {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }

    fn of<T>(aligned: Option<&T>) -> Self {
        aligned.map_or(Self::Fail, |_| Self::Pass)
    }
}

/// Why something else was done than the policy asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyReason {
    /// `local_policy`, `mailing_list`, `trusted_forwarder`, `policy_test_mode`, `sampled_out`, `other`.
    pub kind: String,
    /// In words.
    pub comment: Option<String>,
}

/// A signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DkimAuth {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: Option<String>,
    /// In the words of RFC 8601.
    pub result: String,
    /// Why.
    pub comment: Option<String>,
}

/// What SPF said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpfAuth {
    /// The domain that was asked.
    pub domain: String,
    /// `mfrom` or `helo`.
    pub scope: Option<String>,
    /// In the words of RFC 8601.
    pub result: String,
}

impl PublishedPolicy {
    /// What a verdict's record says; `None` where there is none.
    pub fn of(verdict: &DmarcVerdict) -> Option<Self> {
        let record = verdict.record.as_ref()?;
        Some(Self {
            domain: verdict.policy_domain.clone(),
            dkim: record.dkim,
            spf: record.spf,
            policy: record.policy,
            subdomain_policy: record.subdomain_policy,
            missing_policy: record.missing_policy,
            percent: (record.percent != 100).then_some(record.percent),
            testing: record.testing,
        })
    }
}

impl Row {
    /// A message, as it was judged. What else was done than the verdict says is to be set by who did it.
    pub fn of(
        connection: &Connection,
        sender: &SpfVerdict,
        verdicts: &Verdicts,
        recipient_domain: Option<&str>,
    ) -> Self {
        let dmarc = &verdicts.dmarc;
        let reason = |kind: &str| vec![PolicyReason { kind: kind.to_owned(), comment: None }];
        let scope = if sender.identity == connection.helo { "helo" } else { "mfrom" };
        let signatures = verdicts.dkim.iter().filter(|signature| !signature.domain.is_empty());
        Self {
            source: connection.peer,
            count: 1,
            disposition: match dmarc.result {
                DmarcResult::Fail => dmarc.disposition,
                _ => Policy::None,
            },
            dkim: Evaluated::of(dmarc.aligned_dkim.as_ref()),
            spf: Evaluated::of(dmarc.aligned_spf.as_ref()),
            reasons: match dmarc.reason {
                Override::None => Vec::new(),
                Override::SampledOut => reason("sampled_out"),
                Override::Testing => reason("policy_test_mode"),
            },
            header_from: dmarc.author_domain.clone(),
            envelope_from: (scope == "mfrom").then(|| sender.domain.clone()),
            envelope_to: recipient_domain.map(str::to_owned),
            auth_dkim: signatures
                .map(|signature| DkimAuth {
                    domain: signature.domain.clone(),
                    selector: Some(signature.selector.clone()),
                    result: signature.result.as_str().to_owned(),
                    comment: signature.reason.map(|reason| reason.to_string()),
                })
                .collect(),
            auth_spf: vec![SpfAuth {
                domain: sender.domain.clone(),
                scope: Some(scope.to_owned()),
                result: sender.result.as_str().to_owned(),
            }],
        }
    }

    /// Whether two rows tell the same of different messages, so that they are one with both counts.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { count: _, source, disposition, dkim, spf, reasons, header_from, .. } = self;
        *source == other.source
            && *disposition == other.disposition
            && (*dkim, *spf) == (other.dkim, other.spf)
            && *reasons == other.reasons
            && *header_from == other.header_from
            && self.envelope_from == other.envelope_from
            && self.envelope_to == other.envelope_to
            && self.auth_dkim == other.auth_dkim
            && self.auth_spf == other.auth_spf
    }
}

impl AggregateReport {
    /// A report without rows.
    pub fn new(metadata: ReportMetadata, policy: PublishedPolicy) -> Self {
        Self { metadata, policy, rows: Vec::new(), rows_left_out: 0 }
    }

    /// Reads a report that is unpacked.
    ///
    /// # Errors
    /// [`ReportError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        read_xml::read(bytes)
    }

    /// The report as XML (RFC 9990, appendix A).
    pub fn to_xml(&self) -> String {
        write_xml::write(self)
    }

    /// The report as it goes into a message, packed: `application/gzip`.
    pub fn to_gzip(&self) -> Vec<u8> {
        gzip(self.to_xml().as_bytes())
    }

    /// The name of its file, which is its message's subject in part too (RFC 9990 §3.5.2).
    pub fn file_name(&self, receiver: &str) -> String {
        let metadata = &self.metadata;
        let (begin, end) = (metadata.begin.unix_seconds(), metadata.end.unix_seconds());
        format!("{receiver}!{}!{begin}!{end}!{}.xml.gz", self.policy.domain, metadata.id)
    }
}
