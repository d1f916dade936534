//! What a domain's TLS policy says (RFC 8461 §3).

use std::time::Duration;

use crate::limits::{STS_AGE_MAX, STS_PATTERNS_MAX};

/// A domain's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::outbound) struct Policy {
    pub(in crate::outbound) mode: Mode,
    /// Names of mail servers; `*.` at the beginning stands for one label. In lower case.
    pub(in crate::outbound) patterns: Vec<String>,
    /// How long it holds.
    pub(super) age_max: Duration,
}

/// How a policy is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::outbound) enum Mode {
    /// Mail goes nowhere else.
    Enforce,
    /// It is told where mail would not have gone.
    Testing,
    /// There is none any more.
    None,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.as_str() == text)
    }
}

impl Policy {
    /// Reads a policy; `None` where it is not one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (mut version, mut mode, mut age) = (None, None, None);
        let mut patterns = Vec::new();
        for line in text.lines() {
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once(':')?;
            let value = value.trim();
            match key {
                // RFC 8461 §3.2: of a field that is there twice the first counts.
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => age = age.or(Some(value)),
                "mx" if patterns.len() < STS_PATTERNS_MAX => patterns.push(pattern(value)?),
                _ => {}
            }
        }
        let mode = Mode::parse(mode?)?;
        let digits =
            age.filter(|age| age.len() <= 10 && age.bytes().all(|it| it.is_ascii_digit()))?;
        let age_max = Duration::from_secs(digits.parse().ok()?).min(STS_AGE_MAX);
        let is_whole = mode == Mode::None || !patterns.is_empty();
        (version == Some("STSv1") && is_whole).then_some(Self { mode, patterns, age_max })
    }

    /// Whether mail may go to a server (RFC 8461 §4.1).
    pub(in crate::outbound) fn allows(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_of = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => *pattern == host,
        };
        self.patterns.iter().any(is_of)
    }

    /// Its lines, as reports show them (RFC 8460 §4.4).
    pub(in crate::outbound) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode.as_str())];
        lines.extend(self.patterns.iter().map(|pattern| format!("mx: {pattern}")));
        lines.push(format!("max_age: {}", self.age_max.as_secs()));
        lines
    }
}

fn pattern(text: &str) -> Option<String> {
    let (star, name) = match text.strip_prefix("*.") {
        Some(parent) => ("*.", parent),
        None => ("", text),
    };
    let name = crate::names::domain(name.trim_end_matches('.')).ok()?;
    Some(format!("{star}{name}"))
}

/// The policy's id in the texts at `_mta-sts.DOMAIN` (RFC 8461 §3.1); `None` where no policy is said
/// to be there.
pub(super) fn id(texts: &[Vec<u8>]) -> Option<String> {
    let records = texts.iter().filter_map(|text| std::str::from_utf8(text).ok());
    let mut records =
        records.filter(|text| text.split(';').next().map(str::trim) == Some("v=STSv1"));
    // RFC 8461 §3.1: more than one is none.
    let (Some(record), None) = (records.next(), records.next()) else { return None };
    let id = record.split(';').find_map(|field| field.trim().strip_prefix("id="))?.trim();
    let fits = (1..=32).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_alphanumeric());
    fits.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\n\
                         mx: *.Example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";

    #[test]
    fn policies_are_read() {
        let policy = Policy::parse(WHOLE.as_bytes()).unwrap();
        assert_eq!((policy.mode, policy.age_max.as_secs()), (Mode::Enforce, 604_800));
        assert_eq!(policy.patterns, ["mail.example.com", "*.example.net", "backupmx.example.com"]);
        assert_eq!(Policy::parse(policy.lines().join("\n").as_bytes()), Some(policy));
        let none = Policy::parse(b"version:STSv1\nmode:none\nmax_age:0\nfuture: x\nmode: enforce")
            .unwrap();
        assert_eq!((none.mode, none.patterns.len()), (Mode::None, 0));
        let long = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 9999999999\n").unwrap();
        assert_eq!(long.age_max, STS_AGE_MAX);
        for bad in [
            "",
            "<html>",
            "mode: none\nmax_age: 1\n",
            "version: STSv2\nmode: none\nmax_age: 1\n",
            "version: STSv1\nmode: enforce\nmax_age: 1\n",
            "version: STSv1\nmode: strict\nmx: a.example\nmax_age: 1\n",
            "version: STSv1\nmode: enforce\nmx: a.example\n",
            "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1\n",
            "version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1\n",
            "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n",
        ] {
            assert_eq!(Policy::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_star_is_one_label() {
        let policy = Policy::parse(WHOLE.as_bytes()).unwrap();
        for good in ["mail.example.com", "MAIL.example.com.", "a.example.net"] {
            assert!(policy.allows(good), "{good}");
        }
        for bad in ["example.com", "example.net", "a.b.example.net", "xmail.example.com", ""] {
            assert!(!policy.allows(bad), "{bad}");
        }
    }

    #[test]
    fn one_record_names_an_id() {
        let of = |texts: &[&str]| {
            id(&texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(of(&["other", "v=STSv1;id=1"]).as_deref(), Some("1"));
        for bad in [
            &["v=STSv1; id=1", "v=STSv1; id=2"][..],
            &["v=STSv1"],
            &["v=STSv1; id="],
            &["v=STSv1; id=a-b"],
            &["v=STSv11; id=1"],
            &[],
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(of(&[&format!("v=STSv1; id={}", "1".repeat(33))]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "[a-z_:*. \r\n0-9STv]{0,120}") {
            let _unwanted = Policy::parse(text.as_bytes());
            let _unwanted = id(&[text.into_bytes()]);
        }
    }
}
