//! FoundationDB away or wrong where a program starts: what it says, and that a node waits.

#![cfg(feature = "fdb")]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use blackbox::{
    Deadline, PATIENCE, Stopwatch, http, program, server::Server, shared::SharedStores,
};

/// How long a command may take to say that FoundationDB does not answer.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// Sections of a configuration file with another cluster file.
fn with_cluster_file(stores: &SharedStores, file: &Path) -> String {
    let sections = stores.config();
    let (_, blobs) = sections.split_once("[blobs]").expect("it names both");
    format!(
        "[store]\nengine = \"fdb\"\ncluster_file = {:?}\n[blobs]{blobs}",
        file.display().to_string()
    )
}

/// What commands and a server say about a cluster file, and that they end with 1.
fn says(stores: &SharedStores, file: &Path, expected: &[&str]) {
    let server = Server::stopped(&with_cluster_file(stores, file));
    for arguments in [&["domain", "list"][..], &["cluster", "nodes"]] {
        let output = program::run(&mut server.cli_command(arguments), b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(expected.iter().all(|part| told.contains(part)), "{expected:?}: {told}");
    }
    let output = program::run(&mut server.command(), b"");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(expected.iter().all(|part| told.contains(part)), "{expected:?}: {told}");
}

#[test]
fn cluster_files_of_fdb_that_are_none_are_named() {
    let Some(stores) = SharedStores::start() else { return };
    let folder = tempfile::TempDir::new().expect("the temporary folder is writable");
    let file = folder.path().join("wrong.cluster");
    says(&stores, &file, &["wrong.cluster", "No such file"]);
    says(&stores, folder.path(), &["cannot open", "directory"]);
    for (text, reason) in [
        ("", "it is empty"),
        ("127.0.0.1:4500", "there is no `@`"),
        ("a:b@127.0.0.1", "a coordinator is not ADDRESS:PORT"),
        ("a:b@127.0.0.1:99999", "a coordinator is not ADDRESS:PORT"),
    ] {
        std::fs::write(&file, text).expect("the folder is writable");
        says(&stores, &file, &["wrong.cluster", reason, "DESCRIPTION:ID@ADDRESS:PORT"]);
    }
}

/// A client library that has every function that `program` needs and knows no API version after
/// 7.1's; `None` where the tools to make one are not there.
fn old_library(folder: &Path, program: &Path) -> Option<()> {
    let symbols = Command::new("nm").args(["-D", "--undefined-only"]).arg(program).output().ok()?;
    let symbols = String::from_utf8(symbols.stdout).expect("symbols are ASCII");
    let names = symbols.lines().filter_map(|line| line.split_whitespace().next_back());
    let mut source = String::from("#include <stdlib.h>\n");
    for name in names.filter(|name| name.starts_with("fdb_")) {
        let function = match name {
            // FoundationDB's 2203 is `api_version_not_supported`.
            "fdb_select_api_version_impl" => "int NAME(int v) { return v > 710 ? 2203 : 0; }",
            "fdb_get_max_api_version" => "int NAME(void) { return 710; }",
            "fdb_get_error" => {
                "const char *NAME(int code) { return \"too new for an old library\"; }"
            }
            "fdb_error_predicate" => "int NAME(int test, int code) { return 0; }",
            _ => "void NAME(void) { abort(); }",
        };
        source += &function.replace("NAME", name);
        source.push('\n');
    }
    assert!(source.contains("fdb_select_api_version_impl"), "the program is built with fdb");
    let file = folder.join("old.c");
    std::fs::write(&file, source).expect("the folder is writable");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libfdb_c.so", "-o"])
        .args([&folder.join("libfdb_c.so"), &file])
        .status()
        .ok()?;
    assert!(built.success(), "the library is C");
    Some(())
}

#[test]
fn a_library_of_fdb_that_is_too_old_is_named() {
    let Some(stores) = SharedStores::start() else { return };
    let server = Server::stopped(&stores.config());
    let folder = tempfile::TempDir::new().expect("the temporary folder is writable");
    let program = server.command().get_program().to_owned();
    if old_library(folder.path(), Path::new(&program)).is_none() {
        println!("skipped: an old client library (no nm or no cc)");
        return;
    }
    for mut command in [server.cli_command(&["domain", "list"]), server.command()] {
        let output = program::run(command.env("LD_LIBRARY_PATH", folder.path()), b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        for part in ["libfdb_c", "730", "too new for an old library"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}

/// A server that has not become ready.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended by itself; then the test has seen that.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn a_node_waits_for_fdb_and_commands_do_not() {
    let Some(mut stores) = SharedStores::start() else { return };
    let mut server = Server::start_shared(&stores.config());
    server.terminate();
    assert!(server.wait().success());
    stores.stop_database();

    let watch = Stopwatch::start();
    let output = program::run(&mut server.cli_command(&["domain", "list"]), b"");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in ["FoundationDB does not answer", "fdb.cluster", "127.0.0.1:", "fdbcli -C"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(watch.elapsed() < TOLD_WITHIN, "{:?}", watch.elapsed());

    let log = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let mut command: Command = server.command();
    command.stdout(Stdio::null()).stderr(log.reopen().expect("it is there"));
    let mut waiting = Waiting(command.spawn().expect("the program runs"));
    let logged = || std::fs::read_to_string(log.path()).expect("it is text");
    let deadline = Deadline::usual();
    while !logged().contains("waiting for FoundationDB") {
        assert!(!deadline.is_over(), "{}", logged());
    }
    let probe = |path: &str| {
        let mut http = http::Http::try_connect(&server).ok()?;
        http.get(path).ok().map(|response| (response.status, response.body))
    };
    while probe("/healthz/live").is_none_or(|(status, _)| status != 200) {
        assert!(!deadline.is_over(), "{}", logged());
    }
    let (status, body) = probe("/healthz/ready").expect("it answers");
    assert_eq!((status, &*body), (503, r#"{"status":"waiting for the store"}"#));
    assert_eq!(probe("/admin/v1/domains").map(|(status, _)| status), Some(503));

    stores.start_database();
    let back = Deadline::after(PATIENCE);
    while probe("/healthz/ready").is_none_or(|(status, _)| status != 200) {
        assert!(!back.is_over(), "{}", logged());
    }
    let lines = logged();
    assert_eq!(lines.matches("waiting for FoundationDB").count(), 1, "{lines}");
    let terminate = format!("kill -TERM {}", waiting.0.id());
    program::succeed(Command::new("sh").args(["-c", &terminate]), b"");
    assert!(waiting.0.wait().expect("it is our child").success());
}

#[test]
fn a_node_that_waits_for_fdb_ends_at_sigterm() {
    let Some(mut stores) = SharedStores::start() else { return };
    let server = Server::stopped(&stores.config());
    stores.stop_database();
    let log = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let mut command: Command = server.command();
    command.stdout(Stdio::null()).stderr(log.reopen().expect("it is there"));
    let mut waiting = Waiting(command.spawn().expect("the program runs"));
    let deadline = Deadline::usual();
    while !std::fs::read_to_string(log.path()).expect("text").contains("waiting for FoundationDB") {
        assert!(!deadline.is_over(), "it does not wait");
    }
    let watch = Stopwatch::start();
    let terminate = format!("kill -TERM {}", waiting.0.id());
    program::succeed(Command::new("sh").args(["-c", &terminate]), b"");
    assert!(waiting.0.wait().expect("it is our child").success());
    assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", watch.elapsed());
}
