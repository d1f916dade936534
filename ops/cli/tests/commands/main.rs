//! The command itself: a development server, and administration with it and without it.

#![expect(clippy::unwrap_used, reason = "in a test's helpers, too, a panic is the test's failure")]

mod fsck;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");

/// A `rookery` with nothing in its environment that would lead it elsewhere.
fn rookery(args: &[&str]) -> Command {
    let mut command = Command::new(ROOKERY);
    command.args(args).stdin(Stdio::null()).env("no_proxy", "*");
    for name in ["ROOKERY_URL", "ROOKERY_TOKEN", "ROOKERY_PASSWORD", "ROOKERY_DEV_PASSWORD"] {
        command.env_remove(name);
    }
    command
}

#[track_caller]
fn check(command: &mut Command, code: i32, expected: &str) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{command:?}: {stdout}{stderr}");
    let told = if code == 0 { &stdout } else { &stderr };
    assert!(told.contains(expected), "{command:?}: no {expected:?} in {stdout}{stderr}");
    stdout
}

/// One sub-command on one data folder.
fn on(data: &Path, args: &str) -> Command {
    let mut command = rookery(&args.split(' ').collect::<Vec<_>>());
    command.arg("--data").arg(data);
    command
}

/// A development server. Killed when dropped.
struct Server {
    child: Child,
    lines: Vec<String>,
    base: u16,
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut log = String::new();
        for _ in 0..STARTS_MAX {
            match Self::start_at(free_port_base(), data) {
                Ok(server) => return server,
                Err(printed) => log = printed,
            }
            // Another program was faster.
            if !log.contains("Address already in use") {
                break;
            }
        }
        panic!("no server: {log}");
    }

    /// What it logs where it does not get ready.
    fn start_at(base: u16, data: &Path) -> Result<Self, String> {
        let mut command = rookery(&["serve", "--dev", "--port-base", &base.to_string(), "--data"]);
        let log = data.with_extension("log");
        command.arg(data).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut server = Self { child: command.spawn().unwrap(), lines: Vec::new(), base };
        for line in BufReader::new(server.child.stdout.take().unwrap()).lines() {
            server.lines.push(line.unwrap());
            if server.lines.last().is_some_and(|line| line.starts_with("read: ")) {
                return Ok(server);
            }
        }
        Err(fs::read_to_string(log).unwrap())
    }

    /// Ends it as an init system does; its exit code.
    fn terminate(mut self) -> Option<i32> {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is just as good.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// How often another base is tried where a port is taken.
const STARTS_MAX: usize = 20;

/// A base whose ports nobody listened on a moment ago. Each call begins elsewhere, below the ports
/// that the system gives to outgoing connections.
fn free_port_base() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) % 8;
    let first = 10_007 + u16::try_from(std::process::id() % 1_000).unwrap() + turn * 1_100;
    (first..31_000)
        .step_by(7)
        .find(|base| {
            let ports = [80, 143, 424, 465, 525, 587, 993];
            let bound = ports.map(|offset| TcpListener::bind(("127.0.0.1", base + offset)));
            bound.iter().all(Result::is_ok)
        })
        .expect("some ports are free")
}

#[test]
fn a_store_is_administered_without_a_server() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    check(&mut on(data, "domain add Example.ORG"), 0, "added domain example.org");
    check(&mut on(data, "domain add example.org"), 1, "example.org exists already");
    let password = |command: &mut Command| {
        command.env("ROOKERY_PASSWORD", "correct horse");
    };
    let mut add = on(data, "account add alice@example.org --quota 1GiB --description Alice");
    password(&mut add);
    check(&mut add, 0, "added account alice@example.org");
    check(
        &mut on(data, "account list"),
        0,
        "ADDRESS            STATE    QUOTA    DESCRIPTION\n\
         alice@example.org  enabled  1.0 GiB  Alice\n",
    );
    check(&mut on(data, "account disable alice@example.org"), 0, "is disabled");
    check(&mut on(data, "account show alice@example.org"), 0, "state        disabled\n");
    check(&mut on(data, "account quota alice@example.org none"), 0, "quota of alice");
    let json = check(&mut on(data, "account show alice@example.org --json"), 0, "");
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&shown["quota_bytes"], &shown["emails"]), (&serde_json::Value::Null, &0.into()));
    check(&mut on(data, "alias add info@example.org alice@example.org"), 0, "added alias");
    check(&mut on(data, "alias add-target info@example.org x@example.com"), 0, "x@example.com");
    check(&mut on(data, "group add team@example.org"), 0, "added group");
    check(&mut on(data, "group show team@example.org"), 0, "nobody");
    check(&mut on(data, "domain catch-all example.org alice@example.org"), 0, "goes to alice");
    check(&mut on(data, "domain remove example.org"), 1, "still has addresses");
    check(&mut on(data, "account remove alice@example.org"), 0, "removed account");
    check(&mut on(data, "account show alice@example.org"), 1, "does not exist");
}

#[test]
fn passwords_come_by_standard_input() {
    let data = tempfile::tempdir().unwrap();
    check(&mut on(data.path(), "domain add example.org"), 0, "");
    let add = "account add alice@example.org";
    check(&mut on(data.path(), add), 2, "no terminal to ask for a password");
    let mut child = on(data.path(), &format!("{add} --password-stdin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    assert!(child.wait().unwrap().success());
    check(&mut on(data.path(), "account list"), 0, "alice@example.org");
}

#[test]
fn wrong_usage_and_configuration_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    check(&mut rookery(&["serve"]), 2, "--config");
    check(&mut rookery(&["domain", "list"]), 2, "say which server");
    check(&mut rookery(&["domain", "list", "--data", "/nowhere/at/all"]), 1, "/nowhere/at/all");
    let file = folder.path().join("r.toml");
    fs::write(&file, "hostname = \"mx.example.org\"\nhost = 1\n").unwrap();
    let path = file.to_str().unwrap();
    check(&mut rookery(&["config", "check", path]), 2, "r.toml:2:1: host: unknown field");
    check(&mut rookery(&["serve", "--config", path]), 2, "r.toml:2:1: host: unknown field");
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/rookery.toml");
    check(&mut rookery(&["config", "check", reference]), 0, "good");
    check(&mut rookery(&["version"]), 0, env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_running_server_is_administered_through_its_port() {
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("dev");
    let server = Server::start(data);
    let [who, ready, send, read] = server.lines.as_slice() else { panic!("{:?}", server.lines) };
    assert!(who.contains("(shown only now)"), "{who}");
    assert!(ready.starts_with("ready"), "{ready}");
    assert!(send.starts_with("send: ") && read.contains("imaps://"), "{send} {read}");

    check(&mut on(data, "account list"), 0, "bob@example.org");
    check(&mut on(data, "domain add example.com"), 0, "added domain example.com");
    check(&mut on(data, "domain add example.com"), 1, "exists already");
    let mut password = on(data, "account password bob@example.org");
    check(password.env("ROOKERY_PASSWORD", "battery staple"), 0, "set a new password");
    check(&mut on(data, "alias add a+b@example.com bob@example.org"), 0, "added alias");
    check(&mut on(data, "alias remove-target a+b@example.com bob@example.org"), 1, "one target");
    check(&mut on(data, "alias list --json"), 0, "{\"address\":\"a+b@example.com\"");
    check(&mut on(data, "account remove alice@example.org"), 0, "removed account");

    let url = fs::read_to_string(data.join("admin-url")).unwrap();
    let mut by_url = rookery(&["domain", "list", "--url", url.trim()]);
    check(&mut by_url, 2, "a URL needs a token");
    check(by_url.env("ROOKERY_TOKEN", "wrong"), 1, "needs the token");
    let token = fs::read_to_string(data.join("admin-token")).unwrap();
    check(by_url.env("ROOKERY_TOKEN", token.trim()), 0, "example.com");

    assert_eq!(server.terminate(), Some(0));
    assert!(!data.join("admin-url").exists());
    check(&mut on(data, "alias list"), 0, "a+b@example.com");

    let again = Server::start(data);
    assert!(again.lines[0].contains("alice@example.org, with"), "{:?}", again.lines);
    assert!(!again.lines[0].contains("bob"), "bob is known already: {:?}", again.lines);
    assert_eq!(again.terminate(), Some(0));
}

#[test]
fn load_is_put_on_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("dev");
    let server = Server::start(data);
    let port = |name: &str| {
        let ready = server.lines.iter().find(|line| line.starts_with("ready: ")).unwrap();
        let mut ports =
            ready["ready: ".len()..].split(", ").filter_map(|each| each.split_once(' '));
        let (_, address) = ports.find(|(protocol, _)| *protocol == name).unwrap();
        address.rsplit_once(':').unwrap().1.to_owned()
    };
    let password = server.lines[0].split_once("the password ").unwrap().1;
    let password = password.split_once(' ').unwrap().0;
    let bench = |protocol: &str, port: String, more: &str| {
        let connections = if more.contains("--connections") { "" } else { "--connections 2" };
        let line = format!("bench {protocol} --json --port {port} {more} {connections}");
        let mut command = rookery(&line.split_whitespace().collect::<Vec<_>>());
        command.env("ROOKERY_BENCH_PASSWORD", password);
        command
    };
    let measured = |protocol: &str, port: String, more: &str| {
        let json = check(&mut bench(protocol, port, more), 0, "");
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(report["errors"], serde_json::json!([]), "{protocol} {more}");
        (report["operations"].as_u64().unwrap(), report["items"].as_u64().unwrap())
    };

    let alice = "--to alice@example.org --count 10";
    assert_eq!(measured("smtp", port("SMTP"), alice), (10, 10));
    assert_eq!(measured("lmtp", port("LMTP"), alice), (10, 10));
    let submit = format!("{alice} --user bob@example.org --from bob@example.org --insecure");
    assert_eq!(measured("smtp", port("submission"), &format!("{submit} --tls starttls")), (10, 10));
    assert_eq!(
        measured("smtp", port("submissions"), &format!("{submit} --tls implicit")),
        (10, 10)
    );

    let user = "--user alice@example.org";
    let imap = |more: &str| measured("imap", port("IMAP"), &format!("{user} {more}"));
    assert_eq!(imap("--workload fetch-flags --count 4"), (4, 160));
    assert_eq!(imap("--workload fetch-envelope --count 4"), (4, 160));
    assert_eq!(imap("--workload fetch-body --count 4 --set one"), (4, 4));
    assert_eq!(imap("--workload store --count 4 --set 1:5 --connections 1").0, 4);
    assert_eq!(imap("--workload search --count 4"), (4, 160));
    assert_eq!(imap("--workload idle --duration 0.2"), (2, 2));
    assert_eq!(imap("--workload append --count 4 --tls starttls --insecure"), (4, 4));
    let imaps = format!("{user} --workload select --count 4 --tls implicit --insecure");
    assert_eq!(measured("imap", port("IMAPS"), &imaps), (4, 4 * 44));
    assert_eq!(imap("--workload mixed --count 20").0, 20);

    let nobody = "--to nobody@example.org --count 3 --connections 1";
    check(&mut bench("lmtp", port("LMTP"), nobody), 1, "nothing succeeded");
    let untrusted = format!("{alice} --tls implicit");
    check(&mut bench("smtp", port("submissions"), &untrusted), 2, "--insecure");
    assert_eq!(server.terminate(), Some(0));
}
