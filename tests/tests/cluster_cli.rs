//! `rookery cluster` on several nodes: what it shows, what it does, and what it exits with.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use blackbox::{
    Deadline, PATIENCE, Stopwatch,
    program::{self, rookery},
    server::{ALICE, PASSWORD},
    wire::Wire,
};
use serde_json::Value;
use tempfile::TempDir;

/// The time-to-live that nodes have unless they are told otherwise.
const TIME_TO_LIVE: Duration = Duration::from_secs(5);

/// Three nodes in one process.
struct Nodes {
    folder: TempDir,
    base: u16,
    child: Child,
    orders: ChildStdin,
    said: mpsc::Receiver<String>,
}

impl Nodes {
    fn start() -> Self {
        let folder = TempDir::new().expect("the temporary folder is writable");
        let seed = u16::try_from(std::process::id() % 200).expect("it is below 200");
        for turn in 0..40 {
            // Below the ports of outgoing connections, and not where other tests' servers are.
            let base = 10_017 + (seed + turn * 7) % 200 * 100;
            let free = |port: u16| {
                (1..=3).all(|node| {
                    TcpListener::bind((Ipv4Addr::new(127, 0, 0, node), base + port)).is_ok()
                })
            };
            if ![525, 587, 465, 424, 143, 993, 80].into_iter().all(free) {
                continue;
            }
            let mut child = Command::new(rookery())
                .args(["dev-cluster", "--nodes", "3", "--data"])
                .arg(folder.path())
                .args(["--port-base", &base.to_string()])
                .env("ROOKERY_DEV_PASSWORD", PASSWORD)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("the program is built");
            let (say, said) = mpsc::channel();
            let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
            thread::spawn(move || {
                stdout.lines().map_while(Result::ok).try_for_each(|l| say.send(l))
            });
            let orders = child.stdin.take().expect("it is piped");
            let mut nodes = Self { folder, base, child, orders, said };
            if nodes.hear("all ready") {
                return nodes;
            }
            // Somebody else has taken a port meanwhile.
            nodes.child.wait().expect("the child is ours");
            return Self::start();
        }
        panic!("no free ports on this machine");
    }

    /// Waits for a line; `false` where the process ends before.
    fn hear(&mut self, wanted: &str) -> bool {
        let deadline = Deadline::usual();
        loop {
            match self.said.recv_timeout(deadline.left()) {
                Ok(line) if line == wanted => return true,
                Ok(line) => assert!(!line.starts_with("refused"), "{line}"),
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("`{wanted}` was not said"),
            }
        }
    }

    fn order(&mut self, order: &str, answer: &str) {
        writeln!(self.orders, "{order}").expect("the nodes run");
        assert!(self.hear(answer), "the nodes have ended");
    }

    fn data(&self, node: u8) -> PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    /// `rookery cluster ARGUMENTS`, by the admin API of a node.
    fn command(&self, node: u8, arguments: &[&str]) -> Command {
        let token = std::fs::read_to_string(self.data(node).join("admin-token"))
            .expect("the node has made it");
        let mut command = Command::new(rookery());
        command.arg("cluster").args(arguments).env("ROOKERY_TOKEN", token.trim());
        command.arg("--url").arg(format!("http://127.0.0.{node}:{}", self.base + 80));
        command
    }

    fn run(&self, node: u8, arguments: &[&str]) -> Output {
        program::run(&mut self.command(node, arguments), b"")
    }

    /// Runs what has to exit with `code`, and returns what it prints.
    #[track_caller]
    fn exits(&self, node: u8, arguments: &[&str], code: i32) -> String {
        let output = self.run(node, arguments);
        let stdout = String::from_utf8(output.stdout).expect("it is text");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// Each node's state, by name, as a node tells it.
    fn states(&self, node: u8) -> Vec<String> {
        let rows = self.exits(node, &["nodes", "--json"], 0);
        rows.lines()
            .map(|row| {
                let row: Value = serde_json::from_str(row).expect("a row is JSON");
                format!(
                    "{} {}",
                    row["name"].as_str().expect("a name"),
                    row["state"].as_str().expect("a state")
                )
            })
            .collect()
    }

    /// Asks again and again until the states are these.
    #[track_caller]
    fn reach(&self, node: u8, expected: [&str; 3]) {
        let deadline = Deadline::usual();
        loop {
            let states = self.states(node);
            if states == expected {
                return;
            }
            assert!(!deadline.is_over(), "{states:?} is not {expected:?}");
        }
    }

    fn ready(&self, node: u8) -> String {
        let at = format!("127.0.0.{node}:{}", self.base + 80);
        let mut stream = std::net::TcpStream::connect(at).expect("the node answers");
        let request = "GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("the node listens");
        std::io::read_to_string(stream).expect("the node answers")
    }

    /// Waits until the node takes clients: the store calls a node up a moment before it listens.
    fn serves(&self, node: u8) {
        let deadline = Deadline::usual();
        loop {
            let ready = self.ready(node);
            if ready.starts_with("HTTP/1.1 200") {
                return;
            }
            assert!(!deadline.is_over(), "{ready}");
        }
    }

    /// Logs in over IMAP at node 1.
    fn imap(&self) -> Wire {
        let wire = Wire::connect(self.base + 993).expect("the node accepts");
        let mut wire = wire.start_tls(&self.data(1).join("dev-cert.pem"));
        assert!(wire.try_line().expect("the node answers").starts_with("* OK"));
        wire.send(format!("a LOGIN {ALICE} {PASSWORD}\r\n").as_bytes());
        loop {
            let line = wire.try_line().expect("the node answers");
            if let Some(status) = line.strip_prefix("a ") {
                assert!(status.starts_with("OK"), "{line}");
                return wire;
            }
        }
    }

    fn sessions(&self) -> Vec<Value> {
        let rows = self.exits(1, &["sessions", "--local", "--json"], 0);
        rows.lines().map(|row| serde_json::from_str(row).expect("a row is JSON")).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // It may have ended already; the test has seen that.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

const ALL_UP: [&str; 3] = ["node-1 up", "node-2 up", "node-3 up"];

#[test]
fn a_status_is_for_people_programs_and_scripts() {
    let nodes = Nodes::start();
    nodes.reach(1, ALL_UP);
    let table = nodes.exits(1, &["status"], 0);
    for part in ["NODE", "node-2  up", "commit ", "log-trim", "all is well"] {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    let status: Value = serde_json::from_str(&nodes.exits(2, &["status", "--json"], 0)).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(status["nodes"][2]["epoch"], 3);
    assert_eq!(status["asked"], 2);
    assert!(status["health"]["store_commit"]["error"].is_null());
    assert_eq!(nodes.exits(3, &["doctor"], 0), "all is well\n");
    let work = nodes.exits(1, &["work", "--json"], 0);
    let kinds: Vec<Value> = work.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let trim = kinds.iter().find(|kind| kind["kind"] == "log-trim").unwrap();
    assert_eq!(trim["zones"]["count"], 8);
    assert_eq!(nodes.exits(1, &["work", "log-trim"], 0).lines().count(), 9);
    assert_eq!(nodes.exits(1, &["work", "log-trim", "3"], 0).lines().count(), 2);
    nodes.exits(1, &["work", "weeding"], 1);

    let mut watch = nodes.command(1, &["status", "--watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (say, said) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
    for _ in 0..3 {
        let line: Value = serde_json::from_str(&said.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!(line["problems"].as_array().unwrap().len(), 0, "{line}");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn what_cannot_be_looked_at_is_no_illness() {
    for what in ["status", "doctor"] {
        let mut command = Command::new(rookery());
        command.args(["cluster", what, "--url", "http://127.0.0.1:1", "--token", "x"]);
        let output = program::run(&mut command, b"");
        assert_eq!(output.status.code(), Some(2), "{what}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("cannot be looked at"), "{stderr}");
    }
}

#[test]
fn a_drained_node_stands_aside_until_it_is_undrained() {
    let mut nodes = Nodes::start();
    nodes.reach(1, ALL_UP);
    let told = nodes.exits(1, &["drain", "node-2"], 0);
    assert!(told.starts_with("node node-2 is drained"), "{told}");
    let aside = ["node-1 up", "node-2 drained", "node-3 up"];
    nodes.reach(3, aside);
    // Whoever stands aside takes no clients, and answers administrators.
    let smtp = (Ipv4Addr::new(127, 0, 0, 2), nodes.base + 525);
    assert!(std::net::TcpStream::connect(smtp).is_err());
    let ready = nodes.ready(2);
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("drained"), "{ready}");
    nodes.exits(2, &["status"], 0);
    // A crash and a start change nothing.
    nodes.order("kill 2", "killed 2");
    nodes.order("start 2", "aside 2");
    nodes.reach(1, aside);
    nodes.exits(2, &["undrain", "node-2"], 0);
    nodes.reach(1, ALL_UP);
    nodes.serves(2);
    // A node drains itself as well, and another one tells that it has.
    nodes.exits(1, &["drain", "node-1"], 0);
    nodes.reach(2, ["node-1 drained", "node-2 up", "node-3 up"]);
    nodes.exits(2, &["drain", "node-9"], 1);
    nodes.exits(2, &["undrain", "node-1", "--json"], 0);
    nodes.reach(2, ALL_UP);
}

#[test]
fn a_dead_node_is_seen_told_and_forgotten() {
    let mut nodes = Nodes::start();
    nodes.reach(1, ALL_UP);
    nodes.order("kill 2", "killed 2");
    let since = Stopwatch::start();
    nodes.reach(1, ["node-1 up", "node-2 dead", "node-3 up"]);
    let took = since.elapsed();
    assert!(took < 2 * TIME_TO_LIVE, "dead after {took:?}");
    let status = nodes.exits(3, &["status"], 1);
    assert!(status.contains("problem: node node-2 is dead"), "{status}");
    let doctor: Value = serde_json::from_str(&nodes.exits(1, &["doctor", "--json"], 1)).unwrap();
    assert_eq!(doctor["findings"][0]["code"], "node_dead", "{doctor}");
    nodes.exits(1, &["forget", "node-3"], 1);
    nodes.exits(1, &["forget", "node-2"], 0);
    nodes.exits(1, &["doctor"], 0);
    assert_eq!(nodes.states(1), ["node-1 up", "node-3 up"]);
}

#[test]
fn sessions_are_listed_and_say_goodbye() {
    let nodes = Nodes::start();
    nodes.reach(1, ALL_UP);
    let mut alice = nodes.imap();
    let mut smtp = Wire::connect(nodes.base + 525).unwrap();
    assert!(smtp.try_line().unwrap().starts_with("220"));
    let sessions = nodes.sessions();
    let of = |protocol: &str| {
        let found = sessions.iter().find(|session| session["protocol"] == protocol);
        found.unwrap_or_else(|| panic!("no {protocol} in {sessions:?}")).clone()
    };
    let (imap, mail) = (of("imaps"), of("smtp"));
    assert_eq!((imap["address"].as_str(), imap["node"].as_str()), (Some(ALICE), Some("node-1")));
    assert!(imap["bytes_in"].as_u64() > Some(20) && imap["bytes_out"].as_u64() > Some(20));
    assert!(mail["account"].is_null());
    let hers = nodes.exits(1, &["sessions", "--local", "--account", ALICE], 0);
    assert_eq!(hers.lines().count(), 2, "{hers}");

    // Any node tells of all, and reaches all.
    let everywhere = nodes.exits(2, &["sessions", "--json"], 0);
    assert_eq!(everywhere.lines().count(), 2, "{everywhere}");

    nodes.exits(3, &["kill-session", imap["id"].as_str().unwrap()], 0);
    let bye = alice.try_line().unwrap();
    assert!(bye.starts_with("* BYE") && bye.contains("administrator"), "{bye}");
    nodes.exits(1, &["kill-session", mail["id"].as_str().unwrap()], 0);
    let bye = smtp.try_line().unwrap();
    assert!(bye.starts_with("421"), "{bye}");
    let deadline = Deadline::usual();
    while !nodes.sessions().is_empty() {
        assert!(!deadline.is_over(), "sessions stay");
    }
    nodes.exits(1, &["kill-session", imap["id"].as_str().unwrap()], 1);
}

#[test]
fn the_store_tells_where_no_node_runs() {
    let mut nodes = Nodes::start();
    nodes.reach(1, ALL_UP);
    let terminate = format!("kill -TERM {}", nodes.child.id());
    program::succeed(Command::new("sh").args(["-c", &terminate]), b"");
    assert!(nodes.child.wait().unwrap().success());
    let told = |arguments: &[&str], code: i32| {
        let mut command = Command::new(rookery());
        command.arg("cluster").args(arguments).arg("--data").arg(nodes.folder.path());
        let output = program::run(&mut command, b"");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = told(&["nodes"], 0);
    assert_eq!(listed.matches(" left ").count(), 3, "{listed}");
    assert!(told(&["status"], 1).contains("problem: no node serves"));
    assert!(told(&["doctor"], 1).contains("error: no node serves"));
    told(&["drain", "node-1"], 0);
    told(&["forget", "node-3"], 0);
    assert_eq!(told(&["nodes"], 0).lines().count(), 3);
}

/// What a node announces as the largest message.
fn announced_size(nodes: &Nodes, node: u8) -> String {
    let address = (std::net::Ipv4Addr::new(127, 0, 0, node), nodes.base + 525);
    let mut smtp = Wire::connect_to(address.into()).expect("it serves");
    smtp.try_line().expect("it greets");
    smtp.send(b"EHLO client.blackbox.test\r\n");
    loop {
        let line = smtp.try_line().expect("it answers");
        if let Some((_, size)) = line.split_once("SIZE ") {
            return size.to_owned();
        }
        assert!(line.starts_with("250-"), "{line}");
    }
}

#[test]
fn a_setting_holds_on_all_nodes_without_a_restart() {
    let nodes = Nodes::start();
    nodes.reach(1, ALL_UP);
    let usual = announced_size(&nodes, 3);
    let name = "limits.message_bytes_max";
    let reaches = |size: &str| {
        let deadline = Deadline::usual();
        while (1..=3).any(|node| announced_size(&nodes, node) != size) {
            assert!(!deadline.is_over(), "not all nodes have {size}");
        }
    };
    nodes.exits(2, &["settings", "set", name, "100000"], 0);
    reaches("100000");
    nodes.exits(2, &["settings", "set", name, "many"], 1);
    nodes.exits(2, &["settings", "set", "no.such.setting", "1"], 1);
    let shown = nodes.exits(3, &["settings", "get", name], 0);
    assert!(shown.contains("100000"), "{shown}");
    nodes.exits(1, &["settings", "set", name], 0);
    reaches(&usual);
    let history = nodes.exits(3, &["settings", "history", "--json"], 0);
    assert_eq!(history.lines().count(), 2, "{history}");
}
