//! A Garage server of the test's own, found by `ROOKERY_GARAGE_BIN` or in `PATH`.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::super::{Credentials, S3Settings};

const BUCKET: &str = "mail";

/// Runs a server until standard input is closed, however this process ends.
const KEEPER: &str = r#"
    "$@" & server=$!
    cat >/dev/null
    kill -9 $server
"#;

pub(super) struct Garage {
    program: PathBuf,
    folder: tempfile::TempDir,
    keeper: Child,
    address: SocketAddr,
    credentials: Credentials,
}

impl Garage {
    /// Buckets are found below this name.
    pub(super) const DOMAIN: &str = "s3.garage.test";

    /// One node with a bucket and a key for it; `None`, visibly, where there is no Garage.
    pub(super) fn start() -> Option<Self> {
        let Some(program) = find() else {
            // Past the capture of what tests print.
            let _unseen = std::io::stderr().write_all(b"skipped: no garage\n");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (rpc, api) = (free(), free());
        let [rpc, address] = [rpc, api].map(|port| port.local_addr().unwrap());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "metadata_dir = {meta:?}\ndata_dir = {data:?}\nreplication_factor = 1\n\
             rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{secret}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{address}\"\n\
             root_domain = \".{domain}\"\n",
            meta = path("meta"),
            data = path("data"),
            secret = "5e".repeat(32),
            domain = Self::DOMAIN,
        );
        std::fs::write(path("garage.toml"), config).unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&program).args(["-c", &path("garage.toml")]);
        let mut keeper = keeper
            .arg("server")
            .env("RUST_LOG", "garage=info")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(keeper.stderr.take().unwrap());
        let credentials = Credentials::new(String::new(), String::new());
        let mut garage = Self { program, folder, keeper, address, credentials };
        garage.await_lines(log);
        garage.set_up();
        Some(garage)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn settings(&self, others: S3Settings) -> S3Settings {
        S3Settings {
            endpoint: format!("http://{}", self.address),
            region: "garage".to_owned(),
            bucket: BUCKET.to_owned(),
            credentials: self.credentials.clone(),
            ..others
        }
    }

    /// Waits until it listens at both ports; the rest of the log is read and dropped.
    fn await_lines(&self, log: BufReader<std::process::ChildStderr>) {
        let mut lines = log.lines().map_while(Result::ok);
        let mut seen = Vec::new();
        let mut missing = vec!["S3 API server listening", "Listening on"];
        while !missing.is_empty() {
            let Some(line) = lines.next() else { panic!("garage ends: {}", seen.join("\n")) };
            missing.retain(|words| !line.contains(words));
            seen.push(line);
        }
        std::thread::spawn(move || lines.for_each(drop));
    }

    fn set_up(&mut self) {
        let node = self.run(&["node", "id", "-q"]);
        let (node, _) = node.trim().split_once('@').expect("id@address");
        self.run(&["layout", "assign", "-z", "here", "-c", "1G", node]);
        self.run(&["layout", "apply", "--version", "1"]);
        self.run(&["bucket", "create", BUCKET]);
        let key = self.run(&["key", "create", "test"]);
        let field = |name: &str| {
            let line = key.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name:?} in {key}")).trim().to_owned()
        };
        let (id, secret) = (field("Key ID:"), field("Secret key:"));
        self.run(&["bucket", "allow", "--read", "--write", BUCKET, "--key", &id]);
        self.credentials = Credentials::new(id, secret);
    }

    fn run(&self, arguments: &[&str]) -> String {
        let config = self.folder.path().join("garage.toml");
        let mut command = Command::new(&self.program);
        let done = command.arg("-c").arg(config).args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "garage {arguments:?}: {told}");
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ROOKERY_GARAGE_BIN") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join("garage"));
    places.find(|place: &PathBuf| Path::is_file(place))
}
