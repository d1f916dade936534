//! SIGTERM, health and metrics: what a provider's machinery sees of a node.

use std::{collections::BTreeSet, time::Duration};

use blackbox::{
    Deadline, Stopwatch,
    http::{Http, get},
    message, report,
    server::{ALICE, BOB, Server},
    smtp::{Smtp, stuffed},
    wire::Wire,
};

/// The bound for the way out.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);

#[test]
fn sigterm_lets_what_is_in_flight_finish() {
    let mut server = Server::start();
    let mut http = Http::connect(&server);
    assert_eq!(http.get("/healthz/ready").expect("the server answers").status, 200);
    let mut idling = server.imap(ALICE);
    idling.ok("SELECT INBOX");
    idling.idle();
    let mut waiting = Smtp::exchange(&server);
    let mut sending = Smtp::exchange(&server);
    sending.envelope(BOB, &[ALICE]);
    sending.expect("DATA", 354);
    let mail = message(BOB, ALICE, "in-flight", "sent while the server shuts down");
    let bytes = stuffed(mail.as_bytes());
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    sending.wire().send(first);

    let watch = Stopwatch::start();
    server.terminate();
    idling.wait_for("* BYE");
    idling.wire().to_end();
    let goodbye = waiting.reply();
    assert_eq!(goodbye.code, 421, "{goodbye}");
    refused(&server);
    // Probes go on, and tell to send nobody here.
    assert_eq!(get(&server, "/healthz/ready").status, 503);
    assert_eq!(get(&server, "/healthz/live").status, 200);
    assert_eq!(http.get("/healthz/ready").expect("the connection is kept").status, 503);
    sending.wire().send(rest);
    let reply = sending.reply();
    assert_eq!(reply.code, 250, "{reply}");
    let status = server.wait();
    let time = watch.elapsed();
    assert!(status.success(), "{status}");
    assert!(time < SHUTDOWN_MAX, "{time:?}");
    report(&format!("shutdown with a message in flight: {} ms", time.as_millis()));

    server.restart();
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    assert_eq!(imap.ok("UID SEARCH ALL").search(), [1]);
    assert!(imap.body(1).ends_with(mail.as_bytes()));
}

/// Waits until no mail port takes a connection any more.
fn refused(server: &Server) {
    let deadline = Deadline::usual();
    for port in server.ports.all().into_iter().filter(|port| *port != server.ports.http) {
        while let Ok(mut wire) = Wire::connect(port) {
            // The system accepted it before the port was closed; nobody will serve it.
            let _ended = wire.try_line();
            assert!(!deadline.is_over(), "port {port} still accepts");
        }
    }
}

#[test]
fn sigterm_ends_a_quiet_server_at_once() {
    let mut server = Server::start();
    let watch = Stopwatch::start();
    server.terminate();
    let status = server.wait();
    let time = watch.elapsed();
    assert!(status.success(), "{status}");
    assert!(time < SHUTDOWN_MAX, "{time:?}");
    report(&format!("shutdown of a quiet server: {} ms", time.as_millis()));
}

#[test]
fn sigterm_does_not_wait_for_a_client_that_says_nothing() {
    let mut server = Server::start();
    let mut stuck = Smtp::exchange(&server);
    stuck.envelope(BOB, &[ALICE]);
    stuck.expect("DATA", 354);
    stuck.wire().send(b"Subject: never to be finished\r\n");
    let watch = Stopwatch::start();
    server.terminate();
    let status = server.wait();
    let time = watch.elapsed();
    assert!(status.success(), "{status}");
    // The bound is the server's; the rest is the machine's.
    assert!(time < SHUTDOWN_MAX + Duration::from_secs(3), "{time:?}");
    report(&format!("shutdown with a stuck client: {} ms", time.as_millis()));
}

#[test]
fn health_and_metrics_are_told() {
    let server = Server::start_configured();
    assert_eq!(get(&server, "/healthz/live").status, 200);
    assert_eq!(get(&server, "/healthz/ready").status, 200);
    assert_eq!(get(&server, "/nothing").status, 404);
    let mail = message(BOB, ALICE, "counted", "for the counters");
    Smtp::exchange(&server).deliver(BOB, ALICE, mail.as_bytes());
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    let metrics = get(&server, "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.content_type.starts_with("application/openmetrics-text; version=1.0.0"),
        "{}",
        metrics.content_type
    );
    let samples = openmetrics(&metrics.body);
    assert!(samples.len() > 20, "{samples:?}");
    assert!(samples.iter().all(|name| name.starts_with("rookery_")), "{samples:?}");
    for secret in [ALICE, BOB] {
        assert!(!metrics.body.contains(secret), "an address is in the metrics");
    }
}

/// The names of the samples of an OpenMetrics 1.0 text, whose form is checked.
fn openmetrics(text: &str) -> BTreeSet<String> {
    let text = text.strip_suffix("# EOF\n").expect("it ends with EOF");
    let name_is_good = |name: &str| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    let mut families = BTreeSet::new();
    let mut samples = BTreeSet::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# ") {
            let mut words = described.splitn(3, ' ');
            let (kind, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind) && name_is_good(name), "{line}");
            if kind == "TYPE" {
                assert!(families.insert(name.to_owned()), "{name} is described twice");
            }
            continue;
        }
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
        let name = &line[..end];
        assert!(name_is_good(name), "{line}");
        assert!(families.iter().any(|family| name.starts_with(family)), "{name} is not described");
        let rest = match line[end..].strip_prefix('{') {
            Some(labels) => {
                let (labels, rest) = labels.split_once("} ").unwrap_or_else(|| panic!("{line}"));
                for label in labels.split("\",").filter(|label| !label.is_empty()) {
                    let (key, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    assert!(
                        name_is_good(key) && !value.trim_end_matches('"').contains('"'),
                        "{line}"
                    );
                }
                rest
            }
            None => line[end..].trim_start(),
        };
        let value = rest.split(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        samples.insert(name.to_owned());
    }
    samples
}
