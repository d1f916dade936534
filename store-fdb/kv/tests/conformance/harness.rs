//! Stores to test, and what the tests share.

use std::any::Any;

use env::Env;
use kv::{
    Database, KeyValue, RangeQuery, Transaction,
    embedded::{Embedded, EmbeddedOptions},
};

/// A database, and a prefix that no other test uses.
pub(crate) struct Store {
    pub(crate) db: Database,
    prefix: Vec<u8>,
    /// What must outlive the database.
    _keep: Box<dyn Any + Send + Sync>,
}

impl Store {
    fn new(db: Database, keep: impl Any + Send + Sync) -> Self {
        let prefix = [b"t".as_slice(), &Env::system().random_array::<8>()].concat();
        Self { db, prefix, _keep: Box::new(keep) }
    }

    pub(crate) fn memory() -> Self {
        Self::new(Database::memory(Env::system()), ())
    }

    pub(crate) fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions::default();
        let embedded = Embedded::open(directory.path(), Env::system(), options).unwrap();
        Self::new(embedded.database(), (embedded, directory))
    }

    #[cfg(feature = "fdb")]
    pub(crate) fn fdb() -> Option<Self> {
        let cluster = server::cluster_file()?;
        Some(Self::new(kv::fdb::open(Some(cluster), Env::system()).unwrap(), ()))
    }

    /// This test's key of that name.
    pub(crate) fn key(&self, name: impl AsRef<[u8]>) -> Vec<u8> {
        [&self.prefix, name.as_ref()].concat()
    }

    /// Every key of this test.
    pub(crate) fn all(&self) -> RangeQuery {
        RangeQuery::prefix(&self.prefix)
    }

    /// This test's keys from `begin` up to `end`.
    pub(crate) fn range(&self, begin: &str, end: &str) -> RangeQuery {
        RangeQuery::new(self.key(begin), self.key(end))
    }

    /// A key's name without the prefix.
    pub(crate) fn name(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(&key[self.prefix.len()..]).into_owned()
    }

    /// Rows as names and values.
    pub(crate) fn named(&self, rows: &[KeyValue]) -> Vec<(String, String)> {
        rows.iter()
            .map(|row| (self.name(&row.key), String::from_utf8_lossy(&row.value).into_owned()))
            .collect()
    }

    /// Sets keys in one committed transaction.
    pub(crate) async fn fill(&self, rows: &[(&str, &str)]) {
        self.write(|tx| {
            for (name, value) in rows {
                tx.set(&self.key(name), value.as_bytes());
            }
        })
        .await;
    }

    /// Commits what `write` does.
    pub(crate) async fn write(&self, write: impl Fn(&Transaction)) {
        let tx = self.db.begin();
        write(&tx);
        tx.commit().await.unwrap();
    }

    /// The committed value of a key.
    pub(crate) async fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.db.begin().get(&self.key(name)).await.unwrap().map(|value| value.to_vec())
    }

    /// Every committed row.
    pub(crate) async fn rows(&self) -> Vec<(String, String)> {
        self.named(&self.db.begin().range(self.all()).collect().await.unwrap())
    }
}

/// One `fdbserver` for the whole test process.
#[cfg(feature = "fdb")]
mod server {
    use std::{
        io::Write,
        net::TcpListener as Port,
        path::{Path, PathBuf},
        process::{Child, Command, Stdio},
        sync::OnceLock,
    };

    struct Server {
        cluster: PathBuf,
        /// Ends the server when this process is gone, however it went.
        _keeper: Child,
    }

    /// Runs a server until standard input is closed, then takes its folder away.
    const KEEPER: &str = r#"
        folder=$1; shift
        "$@" & server=$!
        cat >/dev/null
        kill $server; wait $server
        rm -rf "$folder"
    "#;

    static SERVER: OnceLock<Option<Server>> = OnceLock::new();

    /// The cluster's file; `None`, visibly, where there is no server to start.
    pub(super) fn cluster_file() -> Option<&'static Path> {
        let server = SERVER.get_or_init(|| {
            let server = start();
            if server.is_none() {
                // Past the test runner's capture, and once.
                let _told = writeln!(std::io::stderr(), "skipped: no fdbserver");
            }
            server
        });
        server.as_ref().map(|server| server.cluster.as_path())
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

    fn free_port() -> u16 {
        Port::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn start() -> Option<Server> {
        let (fdbserver, fdbcli) = (program("fdbserver")?, program("fdbcli")?);
        let folder = tempfile::tempdir().unwrap().keep();
        let cluster = folder.join("fdb.cluster");
        let address = format!("127.0.0.1:{}", free_port());
        std::fs::write(&cluster, format!("kvtest:kvtest@{address}")).unwrap();
        let mut process = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .arg(fdbserver)
            .arg("--cluster-file")
            .arg(&cluster)
            .args(["--public-address", &address, "--listen-address", "public"])
            .arg("--datadir")
            .arg(folder.join("data"))
            .arg("--logdir")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let configured = Command::new(fdbcli)
            .arg("-C")
            .arg(&cluster)
            .args(["--timeout", "60", "--exec", "configure new single memory"])
            .output()
            .unwrap();
        if !configured.status.success() {
            drop(process.stdin.take());
            panic!("fdbcli: {}", String::from_utf8_lossy(&configured.stdout));
        }
        Some(Server { cluster, _keeper: process })
    }
}
