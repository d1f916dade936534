//! A running `rookery serve`.
//!
//! Invariants:
//! - Its data folder is its own and outlives restarts; it is removed with the [`Server`].
//! - Its ports lie below the range that the system gives to outgoing connections, so that no
//!   test takes another's.
//! - Neither [`PASSWORD`] nor [`CONTENT`] is ever in its log: this is checked when it ends.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tempfile::TempDir;

use crate::{Deadline, PATIENCE, imap::Imap, program};

/// One of the development accounts.
pub const ALICE: &str = "alice@example.org";

/// The other.
pub const BOB: &str = "bob@example.org";

/// The password of both.
pub const PASSWORD: &str = "blackbox-Pa55phrase";

/// Stands in the messages' bodies, and must not stand in a log.
pub const CONTENT: &str = "private-c0ntent-of-a-message";

/// The lowest base of ports: above what other servers use.
const BASE_MIN: u16 = 10_000;

/// Bases lie this far apart: more than the highest port's offset, so that no two overlap.
const BASE_STEP: u16 = 1_000;

/// So many bases fit below 32,768, where outgoing connections begin.
const BASES: u16 = 21;

/// How often another base is tried where a port is taken.
const TRIES: u32 = 40;

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    base: u16,
    /// Mail exchange.
    pub smtp: u16,
    /// Submission with STARTTLS.
    pub submission: u16,
    /// Submission over TLS.
    pub submissions: u16,
    /// LMTP.
    pub lmtp: u16,
    /// IMAP with STARTTLS.
    pub imap: u16,
    /// IMAP over TLS.
    pub imaps: u16,
    /// Health, metrics, administration.
    pub http: u16,
    /// What other nodes say, over UDP.
    pub mesh: u16,
}

impl Ports {
    fn new(base: u16) -> Self {
        Self {
            base,
            smtp: base + 525,
            submission: base + 587,
            submissions: base + 465,
            lmtp: base + 424,
            imap: base + 143,
            imaps: base + 993,
            http: base + 80,
            mesh: base + 740,
        }
    }

    /// Ports that were free a moment ago.
    fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Test programs that run at once start at different places.
        let seed = u16::try_from(std::process::id() % 997).expect("it is below 997");
        for _ in 0..BASES * 16 {
            let turn = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(seed);
            // Within a step the offsets move too, so that there are more places than bases.
            let ports = Self::new(BASE_MIN + turn % BASES * BASE_STEP + turn / BASES % 16);
            let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
            if ports.all().iter().all(free) {
                return ports;
            }
        }
        panic!("no free ports on this machine");
    }

    /// All of them.
    pub fn all(&self) -> [u16; 7] {
        [self.smtp, self.submission, self.submissions, self.lmtp, self.imap, self.imaps, self.http]
    }
}

/// How a server is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `serve --dev`.
    Development,
    /// `serve --config FILE`, with the most talkative log.
    Configured,
}

/// A server process and its data.
#[derive(Debug)]
pub struct Server {
    /// Where it listens now; a restart may change it.
    pub ports: Ports,
    kind: Kind,
    /// Further sections of the configuration file.
    sections: String,
    folder: TempDir,
    process: Option<Process>,
    log: Log,
}

#[derive(Debug)]
struct Process {
    child: Child,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics while appending")
    }
}

impl Server {
    /// Starts a development server on an empty folder, and waits until every port accepts.
    ///
    /// # Panics
    /// Where it does not get ready.
    pub fn start() -> Self {
        Self::start_kind(Kind::Development, "")
    }

    /// Starts a server from a configuration file, with a log that tells everything. Its domain
    /// and its accounts are made with the command line before it starts.
    ///
    /// # Panics
    /// Where it does not get ready.
    pub fn start_configured() -> Self {
        Self::start_kind(Kind::Configured, "")
    }

    /// Starts a development server on a packed data folder: a tar archive whose only entry is a
    /// folder `store`, which becomes [`Server::data`].
    ///
    /// # Panics
    /// Where the archive cannot be unpacked, or the server does not get ready.
    pub fn start_on(archive: &Path) -> Self {
        let mut server = Self::new(Kind::Development);
        let mut unpack = Command::new("tar");
        unpack.arg("-xf").arg(archive).arg("-C").arg(server.folder.path());
        program::succeed(&mut unpack, b"");
        std::fs::rename(server.folder.path().join("store"), server.data())
            .expect("the archive holds a folder `store`");
        server.run();
        server
    }

    fn new(kind: Kind) -> Self {
        let folder = TempDir::new().expect("the temporary folder is writable");
        Self {
            ports: Ports::new(BASE_MIN),
            kind,
            sections: String::new(),
            folder,
            process: None,
            log: Log::default(),
        }
    }

    /// The same on stores that these sections of a configuration file name.
    ///
    /// # Panics
    /// Where it does not get ready.
    pub fn start_shared(sections: &str) -> Self {
        Self::start_kind(Kind::Configured, sections)
    }

    /// The same, not started and without accounts.
    ///
    /// # Panics
    /// Where its folder cannot be made.
    pub fn stopped(sections: &str) -> Self {
        let mut server = Self::new(Kind::Configured);
        sections.clone_into(&mut server.sections);
        std::fs::create_dir(server.data()).expect("the folder is writable");
        server
    }

    /// A further node on stores that have the accounts already.
    ///
    /// # Panics
    /// Where it does not get ready.
    pub fn join_shared(sections: &str) -> Self {
        let mut server = Self::stopped(sections);
        server.run();
        server
    }

    fn start_kind(kind: Kind, sections: &str) -> Self {
        let mut server = Self::new(kind);
        sections.clone_into(&mut server.sections);
        if kind == Kind::Configured {
            std::fs::create_dir(server.data()).expect("the folder is writable");
            server.cli(&["domain", "add", "example.org"]);
            for address in [ALICE, BOB] {
                server.cli(&["account", "add", address, "--password-stdin"]);
            }
        }
        server.run();
        server
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The file with the certificate that the server shows.
    pub fn certificate(&self) -> PathBuf {
        match self.kind {
            Kind::Development => self.data().join("dev-cert.pem"),
            Kind::Configured => self.folder.path().join("cert.pem"),
        }
    }

    /// An IMAP session of one of the development accounts.
    ///
    /// # Panics
    /// Where the login fails.
    pub fn imap(&self, user: &str) -> Imap {
        Imap::login(self, user, PASSWORD)
    }

    /// Runs `rookery ARGUMENTS --data …`, which has to succeed, with [`PASSWORD`] on its standard
    /// input; returns what it prints.
    ///
    /// # Panics
    /// Where it fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let input = format!("{PASSWORD}\n");
        program::succeed(&mut self.cli_command(arguments), input.as_bytes())
    }

    /// The command for `rookery ARGUMENTS --data …`.
    pub fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program::rookery());
        command.args(arguments);
        match self.sections.is_empty() {
            true => command.arg("--data").arg(self.data()),
            false => command.arg("--config").arg(self.write_config()),
        };
        command
    }

    /// The server's process id.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").child.id()
    }

    /// Ends the server with SIGKILL, at once, whatever it is doing. [`Server::reap`] comes next.
    ///
    /// # Panics
    /// Where the signal cannot be sent.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// Takes the end of a server that was killed.
    ///
    /// # Panics
    /// Where it ended in another way.
    pub fn reap(&mut self) {
        let status = self.wait();
        assert_eq!(status.signal(), Some(9), "the server ended by itself: {status}");
    }

    /// Starts it again on the same data.
    ///
    /// # Panics
    /// Where it runs, or does not get ready.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the server runs");
        self.run();
    }

    /// Gives it other sections of its configuration from its next start on.
    pub fn configure(&mut self, sections: &str) {
        sections.clone_into(&mut self.sections);
    }

    /// Starts it again on other data, which takes the place of its own.
    ///
    /// # Panics
    /// Where it runs, or does not get ready.
    pub fn restart_on(&mut self, data: &Path) {
        std::fs::remove_dir_all(self.data()).expect("the folder is the server's own");
        std::fs::rename(data, self.data()).expect("both are temporary");
        self.restart();
    }

    /// Stops all of the server's threads with SIGSTOP, wherever they are.
    ///
    /// # Panics
    /// Where the signal cannot be sent.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a server that was paused go on.
    ///
    /// # Panics
    /// Where the signal cannot be sent.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// Sends SIGTERM, and does not wait.
    ///
    /// # Panics
    /// Where the signal cannot be sent.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        program::succeed(Command::new("sh").args(["-c", &kill]), b"");
    }

    /// Waits for the end of a server that was sent a signal.
    ///
    /// # Panics
    /// Where it is still there after [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let process = self.process.take().expect("the server runs");
        let status = process.wait(PATIENCE).unwrap_or_else(|| panic!("it goes on\n{}", self.log()));
        self.check_log();
        status
    }

    /// All that the server printed, of every run.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.bytes()).into_owned()
    }

    /// A figure of `/proc/PID/status`, such as `VmRSS`, in bytes; `None` where there is no such
    /// file.
    pub fn memory(&self, figure: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with(figure))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }

    /// Lets the peak `VmHWM` start from now.
    pub fn reset_peak(&self) {
        // Where the kernel does not know it, the peak is the start's, and the test is stricter.
        let _ignored = std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
    }

    fn run(&mut self) {
        for _ in 0..TRIES {
            self.ports = Ports::free();
            let before = self.log.bytes().len();
            match Process::start(self.command(), &self.log) {
                Ok(process) => {
                    self.process = Some(process);
                    return;
                }
                Err(status) => {
                    let printed = String::from_utf8_lossy(&self.log.bytes()[before..]).into_owned();
                    // Another program was faster: the system's own words.
                    assert!(
                        printed.contains("Address already in use"),
                        "the server does not start: {status}\n{printed}"
                    );
                }
            }
        }
        panic!("every port is taken before the server gets it");
    }

    /// The command that serves.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program::rookery());
        command.arg("serve");
        match self.kind {
            Kind::Development => {
                command.arg("--dev").arg("--data").arg(self.data());
                command.arg("--port-base").arg(self.ports.base.to_string());
                command.env("ROOKERY_DEV_PASSWORD", PASSWORD);
            }
            Kind::Configured => {
                command.arg("--config").arg(self.write_config());
            }
        }
        command
    }

    fn write_config(&self) -> PathBuf {
        let folder = self.folder.path();
        let ports = &self.ports;
        if !self.certificate().exists() {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
                .expect("localhost is a name");
            for (name, pem) in
                [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())]
            {
                std::fs::write(folder.join(name), pem).expect("the folder is writable");
            }
        }
        let at = |port: u16| format!("[\"127.0.0.1:{port}\"]");
        let shown = |path: &Path| format!("{:?}", path.display().to_string());
        let text = format!(
            "hostname = \"mx.blackbox.test\"\ndata = {data}\n\
             [tls]\ncertificate = {certificate}\nkey = {key}\n\
             [log]\nlevel = \"trace\"\n\
             [listen]\nsmtp = {smtp}\nsubmission = {submission}\nsubmissions = {submissions}\n\
             lmtp = {lmtp}\nimap = {imap}\nimaps = {imaps}\nhttp = {http}\n\
             mesh = {mesh}\n{sections}",
            sections = self.sections,
            data = shown(&self.data()),
            certificate = shown(&folder.join("cert.pem")),
            key = shown(&folder.join("key.pem")),
            smtp = at(ports.smtp),
            submission = at(ports.submission),
            submissions = at(ports.submissions),
            lmtp = at(ports.lmtp),
            imap = at(ports.imap),
            imaps = at(ports.imaps),
            http = at(ports.http),
            mesh = at(ports.mesh),
        );
        let file = folder.join("rookery.toml");
        std::fs::write(&file, text).expect("the folder is writable");
        file
    }

    fn check_log(&self) {
        let log = self.log();
        let encoded = |text: String| BASE64_STANDARD.encode(text);
        let secrets = [
            PASSWORD.to_owned(),
            encoded(PASSWORD.to_owned()),
            encoded(format!("\0{ALICE}\0{PASSWORD}")),
            encoded(format!("\0{BOB}\0{PASSWORD}")),
            CONTENT.to_owned(),
        ];
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(&secret));
            assert!(line.is_none(), "a secret or a message's content is in the log: {line:?}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; then the test has seen that.
            let _ended = process.child.kill();
            process.end();
        }
        if thread::panicking() {
            crate::report(&format!("the server's log:\n{}", self.log()));
        } else {
            self.check_log();
        }
    }
}

impl Process {
    /// Starts it and waits for its line `ready`; the status where it ended before.
    fn start(mut command: Command, log: &Log) -> Result<Self, ExitStatus> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (say_ready, ready) = mpsc::channel();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let (out_log, err_log) = (log.clone(), log.clone());
        let readers = vec![
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let is_ready = line.starts_with("ready");
                    out_log.bytes().extend_from_slice(format!("{line}\n").as_bytes());
                    if is_ready {
                        // Nobody waits any more where it is said twice.
                        let _ignored = say_ready.send(());
                    }
                }
            }),
            thread::spawn(move || copy(stderr, &err_log)),
        ];
        let process = Self { child, readers };
        match ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(process),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(process.wait(PATIENCE).expect("what closed its output ends"))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let mut process = process;
                let _ended = process.child.kill();
                process.end();
                panic!("not ready after {PATIENCE:?}");
            }
        }
    }

    /// Its status, once it has ended within this time and all it printed is in the log.
    fn wait(mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Deadline::after(patience);
        let pid = self.child.id();
        let (say_ended, ended) = mpsc::channel();
        let readers = std::mem::take(&mut self.readers);
        let waiting = thread::spawn(move || {
            let status = self.child.wait().expect("it is our child");
            let _ignored = say_ended.send(());
            status
        });
        if ended.recv_timeout(deadline.left()).is_err() {
            let kill = format!("kill -KILL {pid}");
            program::run(Command::new("sh").args(["-c", &kill]), b"");
            return None;
        }
        for reader in readers {
            reader.join().expect("readers do not panic");
        }
        Some(waiting.join().expect("waiting does not panic"))
    }

    /// After it was killed: takes its status and the rest of its output.
    fn end(mut self) {
        let _status = self.child.wait();
        for reader in self.readers {
            reader.join().expect("readers do not panic");
        }
    }
}

fn copy(mut from: impl Read, log: &Log) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        log.bytes().extend_from_slice(&buffer[..count]);
    }
}
