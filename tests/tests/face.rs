//! One face: whichever node a client meets, it is shown the same certificates, the same logins
//! hold and the same failures count; and administrators see all logs through any node.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

#[cfg(feature = "fdb")]
use blackbox::cluster::Apart;
use blackbox::{
    Deadline,
    cluster::{Cluster, DevCluster, Door},
    imap::Imap,
    message, program,
    server::{ALICE, BOB, PASSWORD, Server},
    smtp::Smtp,
    wire::Wire,
};
use serde_json::Value;
use tempfile::TempDir;

const NODES: usize = 3;

/// Guesses after which an account is refused to their network, on every node.
const GUESSES: usize = 50;

/// A certificate and its key, in files.
struct Made {
    certificate: PathBuf,
    key: PathBuf,
}

/// A self-signed certificate that is good until a year begins.
fn made(folder: &Path, name: &str, hosts: &[&str], until: i32) -> Made {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(hosts).expect("they are names");
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let signed = params.self_signed(&key).expect("the key fits");
    let at = |end: &str| folder.join(format!("{name}-{end}.pem"));
    let made = Made { certificate: at("cert"), key: at("key") };
    std::fs::write(&made.certificate, signed.pem()).expect("the folder is writable");
    std::fs::write(&made.key, key.serialize_pem()).expect("the folder is writable");
    made
}

/// Doors by the ports' distance from the base, with what leads to the handshake.
const DOORS: [(u16, &[(&str, &str)]); 6] = [
    (525, &[("", "220"), ("EHLO c.blackbox.test", "250 "), ("STARTTLS", "220")]),
    (587, &[("", "220"), ("EHLO c.blackbox.test", "250 "), ("STARTTLS", "220")]),
    (465, &[]),
    (424, &[("", "220"), ("LHLO c.blackbox.test", "250 "), ("STARTTLS", "220")]),
    (143, &[("", "* OK"), ("a STARTTLS", "a OK")]),
    (993, &[]),
];

/// Whether a node shows just this certificate to whoever asks for `host`.
fn shows(base: u16, node: usize, door: (u16, &[(&str, &str)]), host: &str, file: &Path) -> bool {
    let ip = Ipv4Addr::new(127, 0, 0, u8::try_from(node).expect("there are few"));
    let mut wire = Wire::connect_to((ip, base + door.0).into()).expect("the node accepts");
    for (line, answer) in door.1 {
        if !line.is_empty() {
            wire.send(format!("{line}\r\n").as_bytes());
        }
        while !wire.line().starts_with(answer) {}
    }
    wire.try_start_tls_as(host, file).is_ok()
}

const IMAPS: (u16, &[(&str, &str)]) = DOORS[5];

/// Waits until all nodes show this certificate to whoever asks for `host`.
#[track_caller]
fn all_show(cluster: &DevCluster, host: &str, file: &Path) {
    let deadline = Deadline::usual();
    while !(1..=NODES).all(|node| shows(cluster.base(), node, IMAPS, host, file)) {
        assert!(!deadline.is_over(), "not all nodes show {} to {host}", file.display());
    }
}

fn add(cluster: &DevCluster, node: usize, made: &Made, more: &[&str]) {
    cluster.exits(node, &adding(made, more), 0);
}

fn adding<'a>(made: &'a Made, more: &[&'a str]) -> Vec<&'a str> {
    let path = |path: &'a Path| path.to_str().expect("it is text");
    let (cert, key) = (path(&made.certificate), path(&made.key));
    let add = ["cluster", "certificate", "add", "--cert", cert, "--key", key];
    [&add[..], more].concat()
}

#[test]
fn all_nodes_show_the_stores_certificates_without_a_restart() {
    let cluster = DevCluster::start(NODES, &[]);
    let folder = TempDir::new().expect("the temporary folder is writable");
    let (mx, imap, other) = ("mx.blackbox.test", "imap.blackbox.test", "a.imap.blackbox.test");
    let own = |node| cluster.door(node).certificate;
    let first = made(folder.path(), "first", &[mx], 2400);
    let wild = made(folder.path(), "wild", &["*.blackbox.test"], 2500);
    // For the name that the nodes' own certificates are for: otherwise a client that trusts one of
    // these takes it for no other name.
    let local = made(folder.path(), "local", &["localhost"], 2400);
    add(&cluster, 1, &first, &[]);
    add(&cluster, 2, &wild, &["--name", "wild"]);
    all_show(&cluster, mx, &first.certificate);
    all_show(&cluster, imap, &wild.certificate);
    for node in 1..=NODES {
        // Names that it has none for, as before.
        assert!(shows(cluster.base(), node, IMAPS, "localhost", &own(node)));
        assert!(!shows(cluster.base(), node, IMAPS, other, &wild.certificate));
        // The name goes before the wildcard, though that expires later.
        assert!(!shows(cluster.base(), node, IMAPS, mx, &wild.certificate));
    }
    for door in DOORS {
        assert!(shows(cluster.base(), 2, door, mx, &first.certificate), "port {}", door.0);
        assert!(shows(cluster.base(), 2, door, "localhost", &own(2)), "port {}", door.0);
    }

    // A renewed one takes the place of its name's, and of two the one that expires last is shown.
    let renewed = made(folder.path(), "renewed", &[mx], 2401);
    let printed = cluster.exits(3, &adding(&renewed, &[]), 0);
    assert_eq!(printed, format!("replaced certificate {mx} for {mx}\n"));
    all_show(&cluster, mx, &renewed.certificate);
    add(&cluster, 1, &first, &["--name", "spare"]);
    add(&cluster, 1, &local, &[]);
    all_show(&cluster, "localhost", &local.certificate);
    all_show(&cluster, mx, &renewed.certificate);

    let listed = cluster.exits(3, &["cluster", "certificate", "list", "--json"], 0);
    let rows: Vec<Value> =
        listed.lines().map(|row| serde_json::from_str(row).expect("a row is JSON")).collect();
    let told: Vec<_> = rows.iter().map(|row| (&row["name"], &row["state"])).collect();
    let told: Vec<_> = told.iter().map(|(n, s)| (n.as_str(), s.as_str())).collect();
    let used = Some("used");
    let expected = [
        (Some("localhost"), used),
        (Some(mx), used),
        (Some("spare"), Some("unused")),
        (Some("wild"), used),
    ];
    assert_eq!(told, expected);
    let table = cluster.exits(2, &["cluster", "certificate", "list"], 0);
    assert!(table.contains("EXPIRES IN") && table.contains("*.blackbox.test"), "{table}");

    for name in ["localhost", mx, "spare", "wild"] {
        cluster.exits(2, &["cluster", "certificate", "remove", name], 0);
    }
    for node in 1..=NODES {
        let deadline = Deadline::usual();
        while !shows(cluster.base(), node, IMAPS, "localhost", &own(node)) {
            assert!(!deadline.is_over(), "node {node} goes on to show what was removed");
        }
        assert!(!shows(cluster.base(), node, IMAPS, mx, &renewed.certificate));
    }
    let gone = cluster.exits(2, &["cluster", "certificate", "remove", mx], 1);
    assert!(gone.contains("there is no certificate"), "{gone}");
    let key = std::fs::read_to_string(&renewed.key).expect("it was written");
    let secret = key.lines().nth(1).expect("a key has lines");
    let log = cluster.log();
    assert!(log.contains("administration") && !log.contains(secret) && !log.contains("PRIVATE"));
    assert!(!listed.contains(secret) && !listed.contains("PRIVATE"));
}

#[test]
fn certificates_that_are_no_good_are_refused_in_words() {
    let cluster = DevCluster::start(1, &[]);
    let folder = TempDir::new().expect("the temporary folder is writable");
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path
    };
    let good = made(folder.path(), "good", &["a.blackbox.test"], 2400);
    let other = made(folder.path(), "other", &["a.blackbox.test"], 2400);
    let old = made(folder.path(), "old", &["a.blackbox.test"], 2020);
    let with = |certificate: &Path, key: &Path| Made {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    let refused = |made: &Made, more: &[&str], code: i32, expected: &str| {
        let printed = cluster.exits(1, &adding(made, more), code);
        assert!(printed.contains(expected), "{printed}");
    };
    refused(&with(&good.certificate, &other.key), &[], 1, "the key does not belong to");
    refused(&with(&good.key, &good.certificate), &[], 1, "holds no certificate");
    refused(&with(&good.certificate, &good.certificate), &[], 1, "holds no private key");
    refused(&old, &[], 1, "has expired: Wed, 1 Jan 2020");
    refused(&with(&file("bytes", &[0xff; 999]), &good.key), &[], 1, "bytes");
    refused(&with(&file("large", &[b'x'; 2 << 20]), &good.key), &[], 1, "large");
    let many = std::fs::read(&good.certificate).expect("it was written").repeat(400);
    refused(&with(&file("many", &many), &good.key), &[], 1, "chain and key together have");
    let hollow = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    refused(&with(&file("hollow", hollow), &good.key), &[], 1, "cannot be read");
    refused(&good, &["--name", "../x"], 1, "a certificate's name has");
    assert_eq!(cluster.exits(1, &["cluster", "certificate", "list", "--json"], 0), "");
}

#[test]
fn a_node_without_certificate_files_shows_the_stores() {
    let mut server = Server::start_configured();
    server.terminate();
    assert!(server.wait().success());
    let folder = TempDir::new().expect("the temporary folder is writable");
    // Its configuration, without the files.
    let given = server.command().get_args().last().map(PathBuf::from).expect("a file");
    let given = std::fs::read_to_string(given).expect("it was written");
    let is_other =
        |line: &&str| !["[tls]", "certificate", "key"].iter().any(|k| line.starts_with(k));
    let config = folder.path().join("rookery.toml");
    let lines: Vec<&str> = given.lines().filter(is_other).collect();
    std::fs::write(&config, lines.join("\n")).expect("the folder is writable");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(program::rookery());
        command.args(arguments).arg("--config").arg(&config);
        command
    };
    let refused = program::run(&mut command(&["serve"]), b"");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("there is no certificate") && told.contains("certificate add"), "{told}");

    let mx = made(folder.path(), "mx", &["mx.blackbox.test"], 2400);
    let later = made(folder.path(), "later", &["imap.blackbox.test"], 2500);
    for made in [&mx, &later] {
        program::succeed(&mut command(&adding(made, &[])), b"");
    }
    let mut child = command(&["serve"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let printed = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let ready = printed.map_while(Result::ok).find(|line| line.starts_with("ready"));
    assert!(ready.is_some(), "it does not get ready");
    let shows = |host: &str, file: &Path| {
        let wire = Wire::connect(server.ports.imaps).expect("the node accepts");
        wire.try_start_tls_as(host, file).is_ok()
    };
    assert!(shows("mx.blackbox.test", &mx.certificate));
    assert!(shows("imap.blackbox.test", &later.certificate));
    let kill = |name: &str| {
        let kill = format!("kill -{name} {}", child.id());
        program::succeed(Command::new("sh").args(["-c", &kill]), b"");
    };
    // There is nothing to read again, and nothing to fail at.
    kill("HUP");
    // The last certificate goes, and connections are not refused.
    for name in ["imap.blackbox.test", "mx.blackbox.test"] {
        program::succeed(&mut command(&["cluster", "certificate", "remove", name]), b"");
    }
    assert!(shows("mx.blackbox.test", &mx.certificate));
    kill("TERM");
    assert!(child.wait().expect("it is our child").success());
}

/// `rookery cluster log`, as it goes on.
struct Followed {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Followed {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let printed = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (say, lines) = mpsc::channel();
        thread::spawn(move || printed.map_while(Result::ok).try_for_each(|line| say.send(line)));
        Self { child, lines }
    }

    /// Reads on until an event is of this kind and `wanted`.
    #[track_caller]
    fn event(&self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Deadline::usual();
        loop {
            let line = self.lines.recv_timeout(deadline.left()).expect("it goes on");
            let event: Value = serde_json::from_str(&line).expect("a line is JSON");
            if let Some(event) = event.get(kind).filter(|event| wanted(event)) {
                return event.clone();
            }
        }
    }

    /// Interrupts it, and takes how it ended.
    fn interrupt(mut self) -> Option<i32> {
        let interrupt = format!("kill -INT {}", self.child.id());
        program::succeed(Command::new("sh").args(["-c", &interrupt]), b"");
        self.child.wait().expect("it is our child").code()
    }
}

fn deliver(cluster: &DevCluster, node: usize, id: &str) {
    let mut smtp = Smtp::try_exchange_at(cluster.door(node).smtp).expect("the node serves");
    smtp.deliver(BOB, ALICE, message(BOB, ALICE, id, "for the log").as_bytes());
}

#[test]
fn logs_of_all_nodes_are_followed_through_any() {
    let mut cluster = DevCluster::start(NODES, &[]);
    let follow = ["cluster", "log", "--follow", "--json"];
    let followed = Followed::start(cluster.cli_command(1, &follow));
    let of = |node: &'static str| move |event: &Value| event["node"] == node;
    let begun = || followed.event("begun", |_| true)["node"].as_str().map(str::to_owned);
    let begun: BTreeSet<String> = std::iter::from_fn(begun).take(NODES).collect();
    assert_eq!(begun, ["node-1", "node-2", "node-3"].map(str::to_owned).into());
    for node in 1..=NODES {
        deliver(&cluster, node, &format!("m{node}"));
        let name = format!("node-{node}");
        let line = followed.event("line", |line| line["message"] == "message");
        assert_eq!(line["node"], name.as_str(), "{line}");
        assert_eq!((&line["level"], &line["fields"]["sender"]), (&"info".into(), &BOB.into()));
        assert_eq!(line["fields"]["session.protocol"], "smtp");
    }
    cluster.order("kill 3", "killed");
    let gone = followed.event("gone", of("node-3"));
    assert!(gone["reason"].is_string(), "{gone}");
    cluster.order("start 3", "started");
    followed.event("begun", of("node-3"));
    deliver(&cluster, 3, "again");
    let is_mail = |line: &Value| line["message"] == "message";
    assert_eq!(followed.event("line", is_mail)["node"], "node-3");
    assert_eq!(followed.interrupt(), Some(0));

    // The last lines of one, through another.
    let last = |cluster: &DevCluster, arguments: &[&str], code: i32| {
        let arguments = [&["cluster", "log"], arguments].concat();
        cluster.exits(3, &arguments, code)
    };
    deliver(&cluster, 2, "last");
    let lines = last(&cluster, &["node-2", "--lines", "3", "--json"], 0);
    let rows: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(rows.len(), 3, "{lines}");
    assert!(rows.iter().all(|row| row["line"]["node"] == "node-2"), "{lines}");
    assert!(rows.iter().any(|row| row["line"]["message"] == "message"), "{lines}");
    let people = last(&cluster, &["node-2", "-n", "5"], 0);
    assert!(people.contains(" INFO node-2 node::smtp::delivery: message "), "{people}");
    assert!(!last(&cluster, &["--level", "warn", "--json"], 0).contains("\"level\":\"info\""));
    assert!(last(&cluster, &["node-9"], 1).contains("there is no node node-9"));
    cluster.order("drain 2", "drained");
    let without = last(&cluster, &["node-2"], 1);
    assert!(without.contains("node-2 (it does not run)"), "{without}");
    assert!(!last(&cluster, &["-n", "10000", "--json"], 0).contains(PASSWORD));
}

#[test]
fn nobody_who_does_not_read_holds_a_node_up() {
    let cluster = DevCluster::start(2, &[]);
    let follow = ["cluster", "log", "--follow", "--json", "--lines", "10000"];
    // Nobody reads its output: it fills its pipe, and then the node's connection.
    let mut command = cluster.cli_command(1, &follow);
    let mut stuck = command.stdout(Stdio::piped()).spawn().expect("the program runs");
    let mut smtp = Smtp::try_exchange_at(cluster.door(2).smtp).expect("the node serves");
    for number in 0..300 {
        let mail = message(BOB, ALICE, &format!("m{number}"), "goes on");
        smtp.deliver(BOB, ALICE, mail.as_bytes());
    }
    let beside = cluster.exits(1, &["cluster", "log", "node-2", "-n", "5", "--json"], 0);
    assert_eq!(beside.lines().count(), 5, "{beside}");
    stuck.kill().expect("it runs");
    stuck.wait().expect("it is our child");
}

/// A login by LOGIN; the tagged answer.
fn login(door: &Door, password: &str) -> String {
    match Imap::try_login_at(door, ALICE, password) {
        Ok(_) => "OK".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn failed_logins_at_one_node_count_at_every_other() {
    let cluster = DevCluster::start(NODES, &[]);
    let (here, there) = (cluster.door(1), [cluster.door(2), cluster.door(3)]);
    assert_eq!(login(&there[0], PASSWORD), "OK");
    // At once: each failure waits longer for its answer.
    thread::scope(|threads| {
        let guesses: Vec<_> = (0..GUESSES)
            .map(|number| {
                let here = &here;
                threads.spawn(move || login(here, &format!("guess-{number}-of-many")))
            })
            .collect();
        for guess in guesses {
            let told = guess.join().expect("it does not panic");
            assert!(told.starts_with("NO"), "{told}");
        }
    });
    // A login whose turn did not come in time was not checked, and is no failure.
    let mut more = 0;
    let deadline = Deadline::usual();
    while !login(&here, &format!("guess-more-{more}")).starts_with("NO [LIMIT]") {
        more += 1;
        assert!(!deadline.is_over(), "{more} further guesses are not refused");
    }
    for door in there {
        let told = login(&door, PASSWORD);
        assert!(told.starts_with("NO [LIMIT]"), "{door:?}: {told}");
    }
}

#[test]
fn a_password_that_was_set_at_one_node_proves_itself_at_another_by_scram() {
    let cluster = DevCluster::start(NODES, &[]);
    let add = ["account", "add", "carol@example.org", "--password-stdin"];
    let password = format!("{PASSWORD}\n");
    program::succeed(&mut cluster.cli_command(1, &add), password.as_bytes());
    for node in 1..=NODES {
        // Without TLS nothing but SCRAM is offered.
        let (host, port) = (format!("127.0.0.{node}"), (cluster.base() + 143).to_string());
        let mut bench = Command::new(program::rookery());
        bench.args(["bench", "imap", "--json", "--host", &host, "--port", &port]);
        bench.args(["--user", "carol@example.org", "--workload", "append", "--count", "2"]);
        bench.args(["--connections", "1"]).env("ROOKERY_BENCH_PASSWORD", PASSWORD);
        let report: Value = serde_json::from_str(&program::succeed(&mut bench, b"")).unwrap();
        assert_eq!(report["operations"], 2, "node {node}: {report}");
    }
}

#[test]
fn a_node_that_stands_aside_leaves_when_it_is_told_to_end() {
    let mut cluster = Cluster::Together(DevCluster::start(NODES, &[]));
    let state = |cluster: &Cluster, node: usize| {
        let Cluster::Together(dev) = cluster else { unreachable!("it is this kind") };
        let rows = dev.exits(1, &["cluster", "nodes", "--json"], 0);
        let row: Value = serde_json::from_str(rows.lines().nth(node - 1).expect("it is known"))
            .expect("a row is JSON");
        row["state"].as_str().expect("a state").to_owned()
    };
    if let Cluster::Together(dev) = &cluster {
        dev.exits(1, &["cluster", "drain", "node-2"], 0);
    }
    let deadline = Deadline::usual();
    while state(&cluster, 2) != "drained" {
        assert!(!deadline.is_over(), "node 2 does not stand aside");
    }
    cluster.drain(2);
    assert_eq!(state(&cluster, 2), "left", "at once, and not found dead later");
}

/// The same with a process of its own, on FoundationDB.
#[cfg(feature = "fdb")]
#[test]
fn a_node_on_fdb_that_stands_aside_leaves_at_sigterm() {
    let Some(mut apart) = Apart::start(2, "") else { return };
    let told = apart.servers[0].cli(&["cluster", "drain", "node-2"]);
    assert!(told.contains("node-2"), "{told}");
    assert!(apart.servers[1].wait().success());
    let mut aside = apart.servers[1].command();
    aside.stdout(Stdio::null()).stderr(Stdio::null());
    let mut aside = aside.spawn().expect("the program runs");
    let state = |apart: &Apart| {
        let rows = apart.servers[0].cli(&["cluster", "nodes", "--json"]);
        let row: Value = serde_json::from_str(rows.lines().nth(1).expect("two are known")).unwrap();
        row["state"].as_str().expect("a state").to_owned()
    };
    let deadline = Deadline::usual();
    while state(&apart) != "drained" {
        assert!(!deadline.is_over(), "{}", state(&apart));
    }
    let terminate = format!("kill -TERM {}", aside.id());
    program::succeed(Command::new("sh").args(["-c", &terminate]), b"");
    assert!(aside.wait().expect("it is our child").success());
    assert_eq!(state(&apart), "left");
}
