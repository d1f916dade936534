//! What `ops/deploy` says is so: its configuration files are good, its dashboard and alerts are of
//! metrics that a node has, and the page explains every alert.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use blackbox::{
    Deadline,
    http::Http,
    message, program,
    server::{ALICE, BOB, Server},
    smtp::Smtp,
    wire::Wire,
    workspace,
};

/// Labels that Prometheus itself puts on what it scrapes.
const SCRAPED: [&str; 2] = ["job", "instance"];

const ALERTS: &str = "monitoring/alerts.yml";
const DASHBOARD: &str = "monitoring/dashboard.json";
const KUBERNETES: &str = "kubernetes/rookery.yaml";

fn path(name: &str) -> PathBuf {
    workspace::root().join("ops/deploy").join(name)
}

fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics that a text names, each with the labels that it asks of them in braces.
fn metrics(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (at, _) in text.match_indices("rookery_") {
        let rest = &text[at..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, rest) = rest.split_at(length.unwrap_or(rest.len()));
        let labels = found.entry(name).or_default();
        let Some((inside, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            continue;
        };
        labels.extend(inside.split(',').map(|matcher| {
            let end = matcher.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &matcher[..end.unwrap_or(matcher.len())]
        }));
    }
    found
}

#[test]
fn metrics_and_labels_are_found() {
    let text = r#"sum by (le) (rate(rookery_a_bucket{job="x",le=~"1|2"}[5m])) > rookery_b"#;
    let found = metrics(text);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["rookery_a_bucket", "rookery_b"]);
    assert_eq!(found["rookery_a_bucket"].iter().copied().collect::<Vec<_>>(), ["job", "le"]);
    assert!(found["rookery_b"].is_empty());
    // As it stands in JSON.
    assert!(metrics(r#""rookery_a{job=\"$job\"}""#)["rookery_a"].contains("job"));
}

/// A server that has shown each of its metrics once: a family without a label's value is none.
fn busy_server() -> Server {
    let server = Server::start();
    let mail = message(BOB, ALICE, "counted", "for the counters");
    Smtp::exchange(&server).deliver(BOB, ALICE, mail.as_bytes());
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    imap.ok("FETCH 1 (FLAGS)");
    imap.ok("STORE 1 +FLAGS (\\Seen)");
    let mut clear = Wire::connect(server.ports.submissions).expect("the server accepts");
    clear.send(b"no TLS\r\n");
    // Its goodbye is not for people.
    let _ended = clear.try_line();
    server
}

/// The samples once they hold this metric, or at the end of all patience.
fn samples_with(server: &Server, metric: &str) -> String {
    let deadline = Deadline::usual();
    let mut http = Http::connect(server);
    loop {
        let body = http.get("/metrics").expect("the server answers").body;
        if deadline.is_over() || body.lines().any(|line| line.starts_with(metric)) {
            return body;
        }
    }
}

#[test]
fn dashboard_and_alerts_are_of_metrics_that_a_node_has() {
    let server = busy_server();
    let samples = samples_with(&server, "rookery_connections_refused_total");
    let lines: Vec<&str> = samples.lines().filter(|line| !line.starts_with('#')).collect();
    let mut wrong = Vec::new();
    for file in [ALERTS, DASHBOARD] {
        let text = text(file);
        let used = metrics(&text);
        assert!(used.len() > 10, "{file}: {used:?}");
        for (metric, labels) in used {
            let is_of = |line: &&&str| {
                line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let Some(sample) = lines.iter().find(is_of) else {
                wrong.push(format!("{file}: no node has {metric}"));
                continue;
            };
            let missing = labels.into_iter().filter(|label| {
                !SCRAPED.contains(label)
                    && !sample.contains(&format!("{{{label}=\""))
                    && !sample.contains(&format!(",{label}=\""))
            });
            wrong.extend(missing.map(|label| format!("{file}: {metric} has no label {label}")));
        }
    }
    assert!(wrong.is_empty(), "{}\n\n{samples}", wrong.join("\n"));
}

#[test]
fn every_alert_is_explained() {
    let (alerts, page) = (text(ALERTS), text("README.md"));
    let raised: BTreeSet<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let explained: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|title| title.starts_with("Rookery"))
        .collect();
    assert!(raised.len() > 10, "{raised:?}");
    assert_eq!(raised, explained);
    let tests = text("monitoring/alerts.test.yml");
    let untested: Vec<_> =
        raised.iter().filter(|name| !tests.contains(&format!("\"{name}\""))).collect();
    assert!(untested.is_empty(), "no test raises {untested:?}");
}

#[test]
fn alerts_do_what_their_tests_say() {
    let Some(promtool) = program::find("promtool") else { return };
    program::succeed(
        Command::new(&promtool).args(["check", "config"]).arg(path("monitoring/prometheus.yml")),
        b"",
    );
    program::succeed(
        Command::new(&promtool).args(["test", "rules"]).arg(path("monitoring/alerts.test.yml")),
        b"",
    );
}

#[test]
fn the_configuration_of_three_nodes_is_good() {
    let nodes: Vec<String> = (1..=3).map(|node| format!("three-nodes/node-{node}.toml")).collect();
    for node in &nodes {
        let mut check = Command::new(program::rookery());
        program::succeed(check.args(["config", "check"]).arg(path(node)), b"");
    }
    let first = text(&nodes[0]);
    for node in &nodes[1..] {
        let other = text(node);
        assert_eq!(first.lines().count(), other.lines().count(), "{node}");
        for (here, there) in first.lines().zip(other.lines()).filter(|(here, there)| here != there)
        {
            let may = ["# Node ", "hostname = ", "http = ", "mesh = ", "node = "];
            assert!(may.iter().any(|key| there.starts_with(key)), "{node}: {here} / {there}");
        }
    }
}

#[test]
fn the_configuration_in_kubernetes_is_good() {
    let manifest = text(KUBERNETES);
    let (_, block) = manifest.split_once("  rookery.toml: |\n").expect("it has a configuration");
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let config = lines.fold(String::new(), |config, line| config + line.trim_start() + "\n");
    assert!(config.contains("@NODE@") && config.contains("@ADDRESS@"), "{config}");
    let config = config.replace("@NODE@", "rookery-0").replace("@ADDRESS@", "192.0.2.1");
    let folder = tempfile::TempDir::new().expect("the temporary folder is writable");
    let file = folder.path().join("rookery.toml");
    fs::write(&file, config).expect("the folder is writable");
    let mut check = Command::new(program::rookery());
    program::succeed(check.args(["config", "check"]).arg(&file), b"");
}

/// The number behind the first line of this file that begins so, spaces aside.
fn number(file: &str, begin: &str) -> u64 {
    let text = text(file);
    let value = text.lines().find_map(|line| line.trim().strip_prefix(begin));
    let value = value.unwrap_or_else(|| panic!("{file} has no line {begin}"));
    value.trim().parse().unwrap_or_else(|_| panic!("{file}: {begin}{value}"))
}

#[test]
fn nobody_kills_a_node_that_drains() {
    let drain = number("../config/rookery.toml", "shutdown_seconds =");
    assert!(number("systemd/rookery.service", "TimeoutStopSec=") > drain);
    let drain = number("three-nodes/node-1.toml", "shutdown_seconds =");
    assert!(number("systemd/rookery.service", "TimeoutStopSec=") > drain);
    let manifest = text(KUBERNETES);
    let (_, pause) = manifest.split_once(r#"command: ["sleep", ""#).expect("it has a preStop");
    let (pause, _) = pause.split_once('"').expect("it is a string");
    let pause: u64 = pause.parse().expect("it is a number");
    let drain = number(KUBERNETES, "shutdown_seconds =");
    assert!(number(KUBERNETES, "terminationGracePeriodSeconds:") > pause + drain);
}
