//! Programs: ours, built once, and the clients of others, run with a bound.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Deadline, PATIENCE, report,
    server::{ALICE, BOB, CONTENT, PASSWORD, Server},
    workspace,
};

/// Names a program `rookery` to test instead of the one that this workspace builds.
const GIVEN: &str = "ROOKERY_BIN";

/// The program `rookery`, built by the cargo that runs these tests, in the same profile.
pub fn rookery() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os(GIVEN) {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace::root()).args([
        "build",
        "--package",
        "rookery",
        "--bin",
        "rookery",
        "--message-format=json",
    ]);
    // What cargo tells a test of its package would look to build scripts like a change, and they and all
    // that needs them would be built again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_package) {
            cargo.env_remove(name);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if cfg!(feature = "fdb") {
        cargo.args(["--features", "fdb"]);
    }
    // Where cargo was told to build by an option, the test program's own place tells it.
    if let Some(target) = target_folder() {
        cargo.arg("--target-dir").arg(target);
    }
    let built = cargo.stderr(Stdio::inherit()).output().expect("cargo runs these tests");
    assert!(built.status.success(), "rookery does not build");
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["target"]["name"] == "rookery")
        .find_map(|line| line["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the program that it built")
}

fn is_of_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|start| variable.starts_with(start))
        || variable == "OUT_DIR"
}

/// `target`, from `target/PROFILE/deps/PROGRAM`; `None` where the program lies elsewhere.
fn target_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let deps = program.parent().filter(|folder| folder.file_name() == Some(OsStr::new("deps")))?;
    let profile = deps.parent()?;
    let named = |name| profile.file_name() == Some(OsStr::new(name));
    (named("debug") || named("release")).then(|| profile.parent().map(Path::to_owned))?
}

/// Finds a client program in the search path. Where it is missing, says so, past the capture.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|at| at.is_file());
    if found.is_none() {
        report(&format!("skipped: no {name} on this machine"));
    }
    found
}

/// The same, for the programs of administrators, which stand in folders of their own.
pub fn find_server(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(name));
    folders.into_iter().find(|at| at.is_file()).or_else(|| find(name))
}

/// Runs one of our scripts in `tests/python` against a server, which has to succeed; it finds
/// ports and accounts in its environment. `false` where there is no Python.
///
/// # Panics
/// Where the script fails, with what it printed.
pub fn python(server: &Server, script: &str, arguments: &[&str]) -> bool {
    let Some(python) = find("python3") else { return false };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("python");
    let ports = &server.ports;
    let mut command = Command::new(python);
    // Nothing is left behind in the source folder.
    command.arg("-B").arg(folder.join(script)).args(arguments);
    for (name, port) in [
        ("SMTP", ports.smtp),
        ("SUBMISSION", ports.submission),
        ("SUBMISSIONS", ports.submissions),
        ("LMTP", ports.lmtp),
        ("IMAP", ports.imap),
        ("IMAPS", ports.imaps),
    ] {
        command.env(name, port.to_string());
    }
    command.env("CERTIFICATE", server.certificate()).env("PASSWORD", PASSWORD);
    command.env("ALICE", ALICE).env("BOB", BOB).env("CONTENT", CONTENT);
    succeed(&mut command, b"");
    true
}

/// Runs a program to its end, with `input` on its standard input.
///
/// # Panics
/// Where it does not start or runs longer than [`PATIENCE`]; then it is killed first.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    run_within(command, input, PATIENCE)
}

fn run_within(command: &mut Command, input: &[u8], patience: Duration) -> Output {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // A program that ends early closes the pipe; its status tells more than the write's error.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let (out_done, out) = mpsc::channel();
    let (err_done, err) = mpsc::channel();
    thread::spawn(move || drop(out_done.send(read_all(&mut stdout))));
    thread::spawn(move || drop(err_done.send(read_all(&mut stderr))));
    let deadline = Deadline::after(patience);
    // Both pipes end when the program does.
    let (Ok(stdout), Ok(stderr)) =
        (out.recv_timeout(deadline.left()), err.recv_timeout(deadline.left()))
    else {
        let _ended = child.kill();
        panic!("{shown}: still running after {patience:?}");
    };
    let status = child.wait().expect("the child is ours");
    writer.join().expect("writing does not panic");
    Output { status, stdout, stderr }
}

/// Runs a program that has to succeed, and returns its standard output.
///
/// # Panics
/// As [`run`], and with all that it printed where it fails.
pub fn succeed(command: &mut Command, input: &[u8]) -> String {
    succeed_within(command, input, PATIENCE)
}

/// The same for what takes its time.
///
/// # Panics
/// As [`succeed`], and where it runs longer than `patience`.
pub fn succeed_within(command: &mut Command, input: &[u8], patience: Duration) -> String {
    let output = run_within(command, input, patience);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
    stdout
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A broken pipe ends the output as its end does.
    let _count = from.read_to_end(&mut bytes);
    bytes
}
