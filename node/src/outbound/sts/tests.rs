//! When a policy is fetched, how long it holds, and what it is worth where it cannot be had.

use dns::Zone;
use env::Env;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use super::*;
use crate::outbound::testing::{Web, World};

const DAY_MS: i64 = 86_400_000;

fn record() -> PolicyRecord {
    PolicyRecord {
        id: "1".to_owned(),
        mode: "enforce".to_owned(),
        patterns: vec!["mx.example.net".to_owned()],
        age_max_seconds: 7 * 86_400,
        fetched_ms: 1_000 * DAY_MS,
        ..PolicyRecord::default()
    }
}

fn at(days_after: i64) -> Timestamp {
    Timestamp::from_unix_ms((1_000 + days_after) * DAY_MS)
}

#[test]
fn a_policy_holds_until_it_ends() {
    assert!(record().live(at(6)).is_some());
    assert!(record().live(at(7)).is_none());
    assert!(!record().is_over(at(6)) && record().is_over(at(7)));
    assert!(PolicyRecord::default().live(at(0)).is_none());
}

#[test]
fn it_is_fetched_when_its_id_changes_and_before_it_ends() {
    let soon = Timestamp::from_unix_ms(at(0).unix_ms() + 60_000);
    assert!(!record().wants("1", soon));
    assert!(record().wants("2", soon));
    assert!(record().wants("1", at(1)), "long before the week is over");
    assert!(PolicyRecord::default().wants("1", soon));
    let failed = PolicyRecord { failed_id: "2".to_owned(), failed_ms: at(0).unix_ms(), ..record() };
    assert!(!failed.wants("2", soon), "not again at once");
    assert!(failed.wants("3", soon));
    assert!(failed.wants("2", Timestamp::from_unix_ms(at(0).unix_ms() + 300_000)));
    assert!(failed.live(soon).is_some(), "what is held still counts");
}

const DOMAIN: &str = "example.net";
const POLICY: &str = "version: STSv1\nmode: enforce\nmx: mx.example.net\nmax_age: 86400\n";

fn ok(kind: &str, text: &str) -> String {
    let length = text.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{text}")
}

fn zone(id: &str) -> Zone {
    let zone = Zone::new();
    zone.txt("_mta-sts.example.net", format!("v=STSv1; id={id}"));
    zone.address("mta-sts.example.net", [127, 0, 0, 1]);
    zone
}

/// A node, and a web server with a certificate for `host` that the node believes.
async fn world(zone: &Zone, host: &str, answer: String) -> (World, Web) {
    let env = Env::system();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let web = Web::start(&env, vec![certificate.der().clone()], der, answer).await;
    let world = World::new(zone.clone(), |config, folder| {
        let roots = folder.path().join("roots.pem");
        std::fs::write(&roots, certificate.pem()).unwrap();
        config.outbound.tls_roots = roots;
        config.outbound.https_port = web.address.port();
    });
    (world.await, web)
}

async fn found(world: &World) -> Sts {
    find(&world.parts, DOMAIN).await.unwrap()
}

#[tokio::test]
async fn a_policy_that_was_fetched_counts_though_somebody_hides_it() {
    let zone = zone("1");
    let (world, mut web) = world(&zone, "mta-sts.example.net", ok("text/plain", POLICY)).await;
    let sts = found(&world).await;
    assert_eq!(sts.policy, Policy::parse(POLICY.as_bytes()));
    let (asked, _) = web.asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: mta-sts.example.net\r\n"), "{asked}");
    assert_eq!(found(&world).await, sts);
    assert!(web.asked.try_recv().is_err(), "it is held");
    drop(web);
    zone.remove("_mta-sts.example.net");
    assert_eq!(found(&world).await, sts);
    // Another id, and nobody there to ask what has changed.
    zone.txt("_mta-sts.example.net", "v=STSv1; id=2");
    let again = found(&world).await;
    assert_eq!((again.policy, again.failure), (sts.policy, Some("sts-policy-fetch-error")));
    let (now, at) =
        (world.env.wall(), later(world.env.wall(), std::time::Duration::from_secs(86_401)));
    let sweep = async |now| {
        world.parts.db.run(|tx| async move { sweep(&tx, None, now).await }).await.unwrap()
    };
    let behind = sweep(now).await;
    assert_eq!((behind.is_some(), world.rows(Subspace::MtaSts).await.len()), (true, 1));
    sweep(at).await;
    assert_eq!(world.rows(Subspace::MtaSts).await.len(), 0);
}

async fn check_failure(host: &str, answer: String, failure: &'static str) {
    let (world, _web) = world(&zone("1"), host, answer).await;
    assert_eq!(found(&world).await, Sts { policy: None, failure: Some(failure), is_unknown: true });
    // Not again at once.
    let unknown = Sts { is_unknown: true, ..Sts::default() };
    assert_eq!(found(&world).await, unknown);
}

#[tokio::test]
async fn a_policy_that_cannot_be_had_is_none() {
    let host = "mta-sts.example.net";
    check_failure("www.example.net", ok("text/plain", POLICY), "sts-webpki-invalid").await;
    check_failure(host, ok("text/html", POLICY), "sts-policy-fetch-error").await;
    check_failure(host, ok("text/plain", "<html>"), "sts-policy-invalid").await;
    let moved = "HTTP/1.1 301 Moved\r\nLocation: https://example.net/\r\nContent-Length: 0\r\n\r\n";
    check_failure(host, moved.to_owned(), "sts-policy-fetch-error").await;
    let large = format!("{POLICY}{}", "x: y\n".repeat(limits::STS_POLICY_BYTES_MAX / 5));
    check_failure(host, ok("text/plain", &large), "sts-policy-fetch-error").await;
    check_failure(host, "HTTP/1.1 200 OK\r\nContent-Ty".to_owned(), "sts-policy-fetch-error").await;
}

#[tokio::test]
async fn where_no_record_names_a_policy_nobody_is_asked() {
    let (world, mut web) =
        world(&Zone::new(), "mta-sts.example.net", ok("text/plain", POLICY)).await;
    assert_eq!(found(&world).await, Sts::default());
    assert!(web.asked.try_recv().is_err());
    assert_eq!(world.rows(Subspace::MtaSts).await.len(), 0);
}
