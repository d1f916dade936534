//! What a report says, and that it is a message as RFC 8460 has it.

use dns::Zone;
use env::Env;
use kv::Subspace;
use origin::reports::{Report as Read, ReportKind};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use super::*;
use crate::{
    deliver::outbound::SubmissionRecord,
    outbound::{
        tally::{Policy, PolicyShown, Tally},
        testing::{Web, World},
    },
};

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
    assert_eq!(
        (none.policy_type.as_str(), none.successful, none.failed),
        ("no-policy-found", 1, 0)
    );
    assert_eq!((sts.policy_type.as_str(), sts.successful, sts.failed), ("sts", 5, 5));
    assert_eq!(
        (&sts.policy_strings[..], &sts.mx_hosts[..]),
        (&["version: STSv1".to_owned()][..], &["*.example.net".to_owned()][..])
    );
    let failures: Vec<_> = sts
        .failures
        .iter()
        .map(|it| {
            (it.result_type.as_str(), it.receiving_mx_hostname.as_deref(), it.failed_session_count)
        })
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

const DOMAIN: &str = "example.net";

/// A node that has counted a session with the domain on a day.
async fn counted(zone: &Zone, day: i64) -> World {
    counted_by(World::new(zone.clone(), |_, _| {}).await, day).await
}

async fn counted_by(world: World, day: i64) -> World {
    let mut tally = Tally::default();
    tally.count(Policy::None, "starttls-not-supported", "mx.example.net");
    let tally = &tally;
    let add = |tx| async move { tally::add(&tx, day, DOMAIN, tally).await };
    world.parts.db.run(add).await.unwrap();
    world
}

async fn round(world: &World) -> Timestamp {
    let fence = world.peers.membership.fence();
    let (due, progress) = world.reporter.round(&fence, Progress::default()).await.unwrap();
    assert_eq!(progress, Progress::default(), "it is done");
    due
}

#[tokio::test]
async fn a_day_that_is_over_is_reported_once_and_forgotten() {
    let zone = Zone::new();
    zone.txt(
        "_smtp._tls.example.net",
        "v=TLSRPTv1; rua=mailto:tls@example.net,mailto:x@example.com!1",
    );
    let today = tally::day_of(Env::system().wall());
    let world = counted(&zone, today - 1).await;
    let due = round(&world).await;
    let (next, midnight) = (due.unix_ms(), (today + 1) * DAY_MS);
    assert!((midnight + 3_600_000..midnight + 5 * 3_600_000).contains(&next), "{next}");
    assert_eq!(world.rows(Subspace::TlsReport).await.len(), 0);
    // The other's is too large.
    let [row] = &world.rows(Subspace::Submission).await[..] else { panic!("one report") };
    let record = SubmissionRecord::decode(&row.value[..]).unwrap();
    assert_eq!((record.sender.as_str(), record.tls_optional), ("", true));
    let blob = blob::BlobId::from_slice(&record.blob).unwrap();
    let mail =
        world.parts.blobs.read_to_vec(blob, record.skip..record.size, 100_000).await.unwrap();
    let mail = String::from_utf8(mail).unwrap();
    assert!(mail.starts_with("From: ") && mail.contains("To: <tls@example.net>\r\n"), "{mail}");
    round(&world).await;
    assert_eq!(world.rows(Subspace::Submission).await.len(), 1);
}

#[tokio::test]
async fn a_day_that_is_not_over_waits() {
    let zone = Zone::new();
    zone.txt("_smtp._tls.example.net", "v=TLSRPTv1; rua=mailto:tls@example.net");
    let world = counted(&zone, tally::day_of(Env::system().wall())).await;
    round(&world).await;
    assert_eq!(world.rows(Subspace::TlsReport).await.len(), 1);
    assert_eq!(world.rows(Subspace::Submission).await.len(), 0);
}

#[tokio::test]
async fn what_cannot_be_sent_is_kept_for_some_days() {
    let zone = Zone::new();
    zone.temporary("_smtp._tls.example.net");
    let today = tally::day_of(Env::system().wall());
    let world = counted(&zone, today - 1).await;
    let wait = round(&world).await.unix_ms() - world.env.wall().unix_ms();
    assert!((3_500_000..=3_600_000).contains(&wait), "{wait}");
    assert_eq!(world.rows(Subspace::TlsReport).await.len(), 1);
    let old = counted(&zone, today - 1 - limits::TLS_REPORT_DAYS).await;
    round(&old).await;
    assert_eq!(old.rows(Subspace::TlsReport).await.len(), 0);
    // Nobody wants it any more.
    let unwanted = counted(&Zone::new(), today - 1).await;
    round(&unwanted).await;
    assert_eq!(unwanted.rows(Subspace::TlsReport).await.len(), 0);
    assert_eq!(unwanted.rows(Subspace::Submission).await.len(), 0);
}

#[tokio::test]
async fn a_report_is_handed_in_where_the_domain_names_a_web_server() {
    let env = Env::system();
    let today = tally::day_of(env.wall());
    for (status, waits) in [("200 OK", false), ("500 Oh", true)] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["reports.example.net".to_owned()]).unwrap();
        let made = params.self_signed(&key).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let mut web = Web::start(&env, vec![made.der().clone()], der, answer).await;
        let zone = Zone::new();
        let url = format!("https://reports.example.net:{}/tls", web.address.port());
        zone.txt("_smtp._tls.example.net", format!("v=TLSRPTv1; rua={url}"));
        zone.address("reports.example.net", [127, 0, 0, 1]);
        let world = World::new(zone, |config, folder| {
            config.outbound.tls_roots = folder.path().join("roots.pem");
            std::fs::write(&config.outbound.tls_roots, made.pem()).unwrap();
        });
        let world = counted_by(world.await, today - 1).await;
        round(&world).await;
        let (head, body) = web.asked.recv().await.unwrap();
        assert!(head.starts_with("POST /tls HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/tlsrpt+gzip\r\n"), "{head}");
        let read = ReportKind::of("application/tlsrpt+gzip", None).unwrap().parse(&body);
        let Ok(Read::Tls(report)) = read else { panic!("{read:?}") };
        assert_eq!((report.policies.len(), report.policies[0].failed), (1, 1));
        assert_eq!(world.rows(Subspace::TlsReport).await.len(), usize::from(waits));
    }
}
