//! What a report says, and that it is a message as RFC 8460 has it.

use origin::reports::{ReportKind, Report as Read};

use super::*;
use crate::outbound::tally::{Policy, PolicyShown};

fn day() -> Day {
    let key = |policy, result: &str, host: &str| (policy, result.to_owned(), host.to_owned());
    let shown = PolicyShown {
        strings: vec!["version: STSv1".to_owned()],
        hosts: vec!["*.example.net".to_owned()],
    };
    Day {
        counts: [
            (key(Policy::Sts, SUCCESS, ""), 5),
            (key(Policy::Sts, "certificate-expired", "mx1.example.net"), 2),
            (key(Policy::Sts, "starttls-not-supported", "mx2.example.net"), 3),
            (key(Policy::None, SUCCESS, ""), 1),
        ]
        .into(),
        policies: [(Policy::Sts, shown)].into(),
    }
}

#[test]
fn a_report_sums_a_day_up_by_policy() {
    let report = report("mx.example.org", 20_000, "example.net", &day());
    let seconds = |days: i64| days * 86_400;
    let (begin, end) = report.range().unwrap();
    assert_eq!((begin.unix_seconds(), end.unix_seconds()), (seconds(20_000), seconds(20_001) - 1));
    let [none, sts] = &report.policies[..] else { panic!("{report:?}") };
    assert_eq!((none.policy_type.as_str(), none.successful, none.failed), ("no-policy-found", 1, 0));
    assert_eq!((sts.policy_type.as_str(), sts.successful, sts.failed), ("sts", 5, 5));
    assert_eq!((&sts.policy_strings[..], &sts.mx_hosts[..]), (&["version: STSv1".to_owned()][..], &["*.example.net".to_owned()][..]));
    let failures: Vec<_> = sts
        .failures
        .iter()
        .map(|it| (it.result_type.as_str(), it.receiving_mx_hostname.as_deref(), it.failed_session_count))
        .collect();
    assert_eq!(
        failures,
        [
            ("certificate-expired", Some("mx1.example.net"), 2),
            ("starttls-not-supported", Some("mx2.example.net"), 3)
        ]
    );
}

#[test]
fn the_mail_carries_the_report() {
    let report = report("mx.example.org", 20_000, "example.net", &day());
    let to = Address::parse("tls@example.net").unwrap();
    let packed = report.to_gzip();
    let now = Timestamp::from_unix_seconds(20_001 * 86_400);
    let bytes = mail(&report, &packed, "example.net", "mx.example.org", &to, now, 7);
    let mut scanner = message::Scanner::new(message::Limits::default());
    scanner.push(&bytes);
    let scanned = scanner.finish();
    let message::Content::Multipart(parts) = &scanned.structure.root.content else {
        panic!("not a multipart");
    };
    let kinds: Vec<_> = parts
        .iter()
        .map(|part| format!("{}/{}", part.content_type.kind, part.content_type.subtype))
        .collect();
    assert_eq!(kinds, ["text/plain", "application/tlsrpt+gzip"]);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("Return-Path: <>\r\nFrom: "), "{text}");
    assert!(text.contains("filename=\"mx.example.org!example.net!1728000000!1728086399!20000.example.net.json.gz\"\r\n"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 200));
    let encoded = text.split("\r\n\r\n").last().unwrap().split("\r\n--").next().unwrap();
    let decoded = BASE64_STANDARD.decode(encoded.replace("\r\n", "")).unwrap();
    let read = ReportKind::of("application/tlsrpt+gzip", None).unwrap().parse(&decoded);
    assert_eq!(read, Ok(Read::Tls(report)));
}
