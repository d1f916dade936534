//! Policy records (RFC 9989 §4.7).

use crate::{dmarc::Policy, tags::Tags};

/// Addresses of one kind that a record may name for reports; more are left out (RFC 9990 §3.5
/// leaves the bound to us, RFC 7489 §6.2 asked for two at least).
const REPORT_ADDRESSES_MAX: usize = 10;

/// How alike domains have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alignment {
    /// Of one organization.
    #[default]
    Relaxed,
    /// The same.
    Strict,
}

impl Alignment {
    /// As it is written in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relaxed => "r",
            Self::Strict => "s",
        }
    }
}

/// Whether domains below belong to others (RFC 9989 §4.7, `psd`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Psd {
    /// They do: it is a public suffix.
    Yes,
    /// They do not: it is an organization's.
    No,
    /// It does not say.
    #[default]
    Unknown,
}

/// When failure reports are wanted (RFC 9989 §4.7, `fo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FailureOptions {
    /// `1`: where anything did not pass. Otherwise where nothing did.
    pub any: bool,
    /// `d`: where a signature failed.
    pub dkim: bool,
    /// `s`: where SPF failed.
    pub spf: bool,
}

/// A policy record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcRecord {
    /// `p`.
    pub policy: Policy,
    /// `sp`: for domains below.
    pub subdomain_policy: Option<Policy>,
    /// `np`: for domains below that do not exist.
    pub missing_policy: Option<Policy>,
    /// `adkim`.
    pub dkim: Alignment,
    /// `aspf`.
    pub spf: Alignment,
    /// `pct`: to how many messages of a hundred the policy applies (RFC 7489 §6.3).
    pub percent: u8,
    /// `t=y`: the domain is only trying.
    pub testing: bool,
    /// `psd`.
    pub psd: Psd,
    /// `rua`: URIs that aggregate reports go to.
    pub aggregate_to: Vec<String>,
    /// `ruf`: URIs that failure reports go to.
    pub failure_to: Vec<String>,
    /// `fo`.
    pub failure_options: FailureOptions,
}

impl DmarcRecord {
    /// The one text that is a record; `None` where there is none, or several (RFC 9989 §4.10).
    pub(crate) fn find(texts: &[Vec<u8>]) -> Option<Self> {
        let mut found = texts.iter().filter_map(|text| Self::parse(text));
        match (found.next(), found.next()) {
            (Some(record), None) => Some(record),
            _ => None,
        }
    }

    /// Reads a record. Tags that are not known, are broken, or have no value that is known, count as left
    /// out, and of a tag that is there several times the first counts; but a policy that nobody knows makes
    /// the record one that asks for nothing.
    pub fn parse(text: &[u8]) -> Option<Self> {
        // RFC 9989 §4.8, RFC 7489 §6.3: only the version has to be right, and first.
        let tags = Tags::parse_lenient(text);
        if tags.first() != Some(("v", "DMARC1")) {
            return None;
        }
        // RFC 9989 §4.10.1, RFC 7489 §6.6.3: with one bad policy it is as `p=none`. Where there is no address
        // for reports either it is no record to be applied, which comes to the same.
        let is_known = |name: &&str| tags.get(name).is_none_or(|it| Policy::parse(it).is_some());
        let all_known = ["p", "sp", "np"].iter().all(is_known);
        let policy_of = |name: &str| tags.get(name).filter(|_| all_known).and_then(Policy::parse);
        let uris = |name: &str| -> Vec<String> {
            let list = tags.compact(name).unwrap_or_default();
            let uris = list.split(',').filter(|uri| !uri.is_empty()).map(str::to_owned);
            uris.take(REPORT_ADDRESSES_MAX).collect()
        };
        let alignment = |name: &str| match tags.get(name) {
            Some("s" | "S") => Alignment::Strict,
            _ => Alignment::Relaxed,
        };
        let options = tags.compact("fo").unwrap_or_default();
        let option = |wanted: &str| options.split(':').any(|it| it.eq_ignore_ascii_case(wanted));
        let percent = tags.get("pct").and_then(|text| text.parse().ok());
        Some(Self {
            // RFC 9989 §4.7: without a policy, none.
            policy: policy_of("p").unwrap_or_default(),
            subdomain_policy: policy_of("sp"),
            missing_policy: policy_of("np"),
            dkim: alignment("adkim"),
            spf: alignment("aspf"),
            percent: percent.filter(|percent| *percent <= 100).unwrap_or(100),
            testing: matches!(tags.get("t"), Some("y" | "Y")),
            psd: match tags.get("psd") {
                Some("y" | "Y") => Psd::Yes,
                Some("n" | "N") => Psd::No,
                _ => Psd::Unknown,
            },
            aggregate_to: uris("rua"),
            failure_to: uris("ruf"),
            failure_options: FailureOptions {
                any: option("1"),
                dkim: option("d"),
                spf: option("s"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let text = b"v=DMARC1; p=reject; sp=quarantine; np=reject; adkim=s; pct=20; t=y; psd=n; \
                     rua=mailto:a@b.example!10m, mailto:c@d.example; fo=1:d";
        let record = DmarcRecord::parse(text).unwrap();
        assert_eq!(record.policy, Policy::Reject);
        assert_eq!(record.subdomain_policy, Some(Policy::Quarantine));
        assert_eq!((record.dkim, record.spf), (Alignment::Strict, Alignment::Relaxed));
        assert_eq!((record.percent, record.testing, record.psd), (20, true, Psd::No));
        assert_eq!(record.aggregate_to, ["mailto:a@b.example!10m", "mailto:c@d.example"]);
        assert!(record.failure_options.any && record.failure_options.dkim);
        assert!(!record.failure_options.spf);
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bad in
            ["", "v=DMARC2; p=none", "p=none; v=DMARC1", "v=spf1 -all", "; v=DMARC1; p=reject"]
        {
            assert_eq!(DmarcRecord::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let twice = vec![b"v=DMARC1; p=none".to_vec(), b"v=DMARC1; p=reject".to_vec()];
        assert_eq!(DmarcRecord::find(&twice), None);
    }
    #[test]
    fn a_broken_tag_does_not_take_the_policy_away() {
        for broken in [
            "v=DMARC1; p=reject; rua=mailto:a@x.example;mailto:b@x.example",
            "v=DMARC1;; p=reject; rua=mailto:a@x.example;;",
            "v=DMARC1; p=reject; p=none; rua=mailto:a@x.example; rua=mailto:b@x.example",
            "v=DMARC1; x-y=1; adkim; p=reject; adkim=odd; pct=900; rua=mailto:a@x.example",
        ] {
            let record = DmarcRecord::parse(broken.as_bytes()).unwrap();
            assert_eq!((record.policy, record.percent), (Policy::Reject, 100), "{broken}");
            assert_eq!(record.aggregate_to, ["mailto:a@x.example"], "{broken}");
        }
        let record = DmarcRecord::parse(b"v=DMARC1; p=reject; ruf=mailto:\xff@x.example").unwrap();
        assert_eq!((record.policy, record.failure_to.len()), (Policy::Reject, 0));
    }

    #[test]
    fn a_policy_that_nobody_knows_asks_for_nothing() {
        let none = [
            "v=DMARC1",
            "v=DMARC1; p=nonsense; sp=reject; rua=mailto:a@x.example",
            "v=DMARC1; p=reject; sp=quarantin; rua=mailto:a@x.example",
            "v=DMARC1; p=reject; np=",
        ];
        for text in none {
            let record = DmarcRecord::parse(text.as_bytes()).unwrap();
            let policies = (record.policy, record.subdomain_policy, record.missing_policy);
            assert_eq!(policies, (Policy::None, None, None), "{text}");
        }
    }
}
