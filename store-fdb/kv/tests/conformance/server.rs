//! FoundationDB servers of the tests' own.
//!
//! `fdbserver` and `fdbcli` are looked for in the folder that `ROOKERY_FDB_BIN` names, then in
//! `PATH` and where packages put them.

use std::{
    io::Write,
    net::TcpListener as Port,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

/// A cluster of one process. It ends with whoever holds it, however that ends.
pub(crate) struct Server {
    fdbserver: PathBuf,
    folder: PathBuf,
    address: String,
    keeper: Child,
}

/// Runs a server until standard input is closed; then takes its folder away, unless it is to be
/// started again.
const KEEPER: &str = r#"
    folder=$1; shift
    "$@" & server=$!
    cat >/dev/null
    kill -9 $server; wait $server
    [ -e "$folder/again" ] || rm -rf "$folder"
"#;

/// The whole test process's server: the cluster's file. `None`, visibly, where none can be started.
pub(crate) fn shared() -> Option<&'static Path> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(Server::start).as_ref().map(|server| &*server.folder).map(cluster_file)
}

fn cluster_file(folder: &Path) -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| folder.join("fdb.cluster"))
}

fn program(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ROOKERY_FDB_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    folder
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(extra)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Both programs; says once, past the test runner's capture, where one is missing.
fn programs() -> Option<(PathBuf, PathBuf)> {
    static FOUND: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = program("fdbserver").zip(program("fdbcli"));
        if found.is_none() {
            // A print would be captured; this is not.
            let _told = writeln!(std::io::stderr(), "skipped: no fdbserver");
        }
        found
    });
    found.clone()
}

fn free_port() -> u16 {
    Port::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// A new, empty cluster.
    pub(crate) fn start() -> Option<Self> {
        let (fdbserver, fdbcli) = programs()?;
        let folder = tempfile::tempdir().unwrap().keep();
        let address = format!("127.0.0.1:{}", free_port());
        std::fs::write(folder.join("fdb.cluster"), format!("kvtest:kvtest@{address}")).unwrap();
        let keeper = keep(&fdbserver, &folder, &address);
        let mut server = Self { fdbserver, folder, address, keeper };
        let configured = Command::new(fdbcli)
            .arg("-C")
            .arg(server.cluster())
            .args(["--timeout", "60", "--exec", "configure new single memory"])
            .output()
            .unwrap();
        if !configured.status.success() {
            drop(server.keeper.stdin.take());
            panic!("fdbcli: {}", String::from_utf8_lossy(&configured.stdout));
        }
        Some(server)
    }

    /// The cluster's file.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.folder.join("fdb.cluster")
    }

    /// Kills the server and starts it again over what it left.
    pub(crate) fn restart(&mut self) {
        let again = self.folder.join("again");
        std::fs::write(&again, "").unwrap();
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
        std::fs::remove_file(again).unwrap();
        self.keeper = keep(&self.fdbserver, &self.folder, &self.address);
    }
}

fn keep(fdbserver: &Path, folder: &Path, address: &str) -> Child {
    Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(folder)
        .arg(fdbserver)
        .arg("--cluster-file")
        .arg(folder.join("fdb.cluster"))
        .args(["--public-address", address, "--listen-address", "public"])
        .arg("--datadir")
        .arg(folder.join("data"))
        .arg("--logdir")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
