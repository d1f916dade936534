//! The stores that many nodes share: a FoundationDB server and an S3 bucket of the test's own, or
//! the bucket alone.
//!
//! `fdbserver` and `fdbcli` are looked for in the folder that `ROOKERY_FDB_BIN` names, then in
//! `PATH` and where packages put them. The S3 service is s3s-fs, in this process.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;

use crate::{program, report};

const BUCKET: &str = "mail";
const ACCESS_KEY: &str = "AKIABLACKBOX";
const SECRET_KEY: &str = "blackbox-secret-key";

/// Runs a server until standard input is closed, however this process ends.
const KEEPER: &str = r#"
    "$@" & server=$!
    cat >/dev/null
    kill -9 $server
"#;

/// What the names of all objects begin with.
const PREFIX: &str = "test/";

/// What the name of an object that says whose the bucket is begins with, behind the prefix.
const MARK: &str = "rookery-store-";

/// A bucket of an S3 service, empty.
#[derive(Debug)]
pub struct Bucket {
    folder: TempDir,
    endpoint: String,
    hangs: Arc<AtomicBool>,
}

impl Bucket {
    /// Starts the service.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("the temporary folder is writable");
        let hangs = Arc::default();
        let endpoint = serve_s3(&folder.path().join("objects"), &hangs);
        let credentials = format!("{ACCESS_KEY}\n{SECRET_KEY}\n");
        std::fs::write(folder.path().join("credentials"), credentials).expect("it is writable");
        Self { folder, endpoint, hangs }
    }

    /// From now on the service takes requests and never answers.
    pub fn hang(&self) {
        self.hangs.store(true, Ordering::Relaxed);
    }

    /// It answers requests that come from now on.
    pub fn go_on(&self) {
        self.hangs.store(false, Ordering::Relaxed);
    }

    /// The section of a configuration file that names it.
    pub fn config(&self) -> String {
        let credentials = self.folder.path().join("credentials").display().to_string();
        format!(
            "[blobs]\nengine = \"s3\"\nendpoint = {:?}\nbucket = {BUCKET:?}\n\
             prefix = {PREFIX:?}\ncredentials_file = {credentials:?}\n",
            self.endpoint,
        )
    }

    /// The files of the blobs, the largest last.
    ///
    /// # Panics
    /// Where the bucket's folder cannot be read.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut objects = self.files();
        objects.retain(|path| !is_mark(path));
        objects.sort_by_key(|path| std::fs::metadata(path).map_or(0, |about| about.len()));
        objects
    }

    /// The files that say whose the bucket is.
    ///
    /// # Panics
    /// Where the bucket's folder cannot be read.
    pub fn marks(&self) -> Vec<PathBuf> {
        let mut marks = self.files();
        marks.retain(|path| is_mark(path));
        marks
    }

    fn files(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("objects").join(BUCKET).join(PREFIX);
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| entry.expect("the folder is there").path()).collect()
    }
}

fn is_mark(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(MARK))
}

/// FoundationDB and S3.
#[derive(Debug)]
pub struct SharedStores {
    folder: TempDir,
    fdbserver: PathBuf,
    address: String,
    /// Runs the database; `None` while it is stopped.
    keeper: Option<Child>,
    bucket: Bucket,
}

impl SharedStores {
    /// Starts both, empty; `None`, visibly, where there is no FoundationDB.
    ///
    /// # Panics
    /// Where one does not start.
    pub fn start() -> Option<Self> {
        let (Some(fdbserver), Some(fdbcli)) = (find("fdbserver"), find("fdbcli")) else {
            report("skipped: no fdbserver");
            return None;
        };
        let folder = TempDir::new().expect("the temporary folder is writable");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let cluster = folder.path().join("fdb.cluster");
        std::fs::write(&cluster, format!("blackbox:blackbox@{address}")).expect("it is writable");
        let bucket = Bucket::start();
        let mut stores = Self { folder, fdbserver, address, keeper: None, bucket };
        stores.start_database();
        let mut configure = Command::new(fdbcli);
        configure.arg("-C").arg(&cluster);
        configure.args(["--timeout", "60", "--exec", "configure new single ssd"]);
        program::succeed(&mut configure, b"");
        Some(stores)
    }

    /// Starts the database on what it has, and does not wait for it.
    ///
    /// # Panics
    /// Where it runs.
    pub fn start_database(&mut self) {
        assert!(self.keeper.is_none(), "the database runs");
        let folder = self.folder.path();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.fdbserver)
            .arg("--cluster-file")
            .arg(folder.join("fdb.cluster"))
            .args(["--public-address", &self.address, "--listen-address", "public", "--datadir"])
            .arg(folder.join("data"))
            .arg("--logdir")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        self.keeper = Some(keeper);
    }

    /// Ends the database with SIGKILL.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn stop_database(&mut self) {
        let mut keeper = self.keeper.take().expect("the database runs");
        drop(keeper.stdin.take());
        let _ended = keeper.wait();
    }

    /// The sections of a configuration file that name them.
    pub fn config(&self) -> String {
        let cluster = self.folder.path().join("fdb.cluster").display().to_string();
        let blobs = self.bucket.config();
        format!("[store]\nengine = \"fdb\"\ncluster_file = {cluster:?}\n{blobs}")
    }

    /// The bucket.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }
}

impl Drop for SharedStores {
    fn drop(&mut self) {
        if self.keeper.is_some() {
            self.stop_database();
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ROOKERY_FDB_BIN").map(|folder| Path::new(&folder).join(name));
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(name));
    named
        .filter(|file| file.is_file())
        .or_else(|| program::find(name))
        .or_else(|| usual.into_iter().find(|file| file.is_file()))
}

/// Serves the folder as S3, on a thread that lives as long as the process; tells where.
fn serve_s3(folder: &Path, hangs: &Arc<AtomicBool>) -> String {
    std::fs::create_dir_all(folder.join(BUCKET)).expect("the folder is writable");
    let files = s3s_fs::FileSystem::new(folder).expect("the folder is there");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("sockets can be");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let hangs = Arc::clone(hangs);
    thread::spawn(move || {
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        builder.set_auth(s3s::auth::SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is bound");
            while let Ok((stream, _)) = listener.accept().await {
                // Without it every answer waits for an acknowledgement that is itself delayed.
                let _slower = stream.set_nodelay(true);
                let http = hyper::server::conn::http1::Builder::new();
                let (service, hangs) = (service.clone(), Arc::clone(&hangs));
                let answer = service_fn(move |request| {
                    let (service, hangs) = (service.clone(), Arc::clone(&hangs));
                    async move {
                        if hangs.load(Ordering::Relaxed) {
                            std::future::pending::<()>().await;
                        }
                        Service::call(&service, request).await
                    }
                });
                let served = http.serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(async move {
                    let _cut = served.await;
                });
            }
        });
    });
    format!("http://{address}")
}
