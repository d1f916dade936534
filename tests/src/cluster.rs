//! Several nodes on one store: in one process on the embedded engine, or a process each on
//! FoundationDB and S3.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Deadline, PATIENCE, program,
    server::{PASSWORD, Server},
    shared::SharedStores,
};

/// How long a check of ten thousand messages may take, on S3 and a busy machine.
const FSCK_PATIENCE: Duration = Duration::from_secs(600);

/// Where clients find a node.
#[derive(Debug, Clone)]
pub struct Door {
    /// Mail exchange.
    pub smtp: SocketAddr,
    /// Submission over TLS.
    pub submissions: SocketAddr,
    /// IMAP over TLS.
    pub imaps: SocketAddr,
    /// The file with the certificate that it shows.
    pub certificate: PathBuf,
}

/// Nodes that share a store; they are numbered from 1.
#[derive(Debug)]
pub enum Cluster {
    /// `rookery dev-cluster`: in one process.
    Together(DevCluster),
    /// `rookery serve`, a process each.
    Apart(Apart),
}

impl Cluster {
    /// Where clients find a node, whether it runs or not.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn door(&self, node: usize) -> Door {
        match self {
            Self::Together(cluster) => cluster.door(node),
            Self::Apart(apart) => apart.door(node),
        }
    }

    /// Where clients find them all.
    pub fn doors(&self) -> Vec<Door> {
        let nodes = match self {
            Self::Together(cluster) => cluster.nodes,
            Self::Apart(apart) => apart.doors.len(),
        };
        (1..=nodes).map(|node| self.door(node)).collect()
    }

    /// Ends a node as a crash would.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self, node: usize) {
        match self {
            Self::Together(cluster) => cluster.order(&format!("kill {node}"), "killed"),
            Self::Apart(apart) => {
                let server = &mut apart.servers[node - 1];
                server.kill();
                server.reap();
            }
        }
    }

    /// Starts a node again, and waits until it is ready. Clients may find it at another door.
    ///
    /// # Panics
    /// Where it runs, or does not get ready.
    pub fn start(&mut self, node: usize) {
        match self {
            Self::Together(cluster) => cluster.order(&format!("start {node}"), "started"),
            Self::Apart(apart) => {
                apart.servers[node - 1].restart();
                apart.doors[node - 1] = door(&apart.servers[node - 1]);
            }
        }
    }

    /// Lets a node say goodbye, and waits for its end.
    ///
    /// # Panics
    /// Where it does not end, or not in order.
    pub fn drain(&mut self, node: usize) {
        match self {
            Self::Together(cluster) => cluster.order(&format!("drain {node}"), "drained"),
            Self::Apart(apart) => {
                let server = &mut apart.servers[node - 1];
                server.terminate();
                let status = server.wait();
                assert!(status.success(), "{status}");
            }
        }
    }

    /// Checks the store through a node that runs, and returns the summary.
    ///
    /// # Panics
    /// Where something is not right.
    pub fn fsck(&self, node: usize) -> String {
        let arguments = ["fsck", "--speed", "100"];
        let mut command = match self {
            Self::Together(cluster) => cluster.cli_command(node, &arguments),
            Self::Apart(apart) => apart.servers[node - 1].cli_command(&arguments),
        };
        program::succeed_within(&mut command, b"", FSCK_PATIENCE)
    }
}

/// A running `rookery dev-cluster`.
#[derive(Debug)]
pub struct DevCluster {
    nodes: usize,
    base: u16,
    folder: TempDir,
    child: Child,
    orders: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl DevCluster {
    /// Starts nodes on an empty folder, with these further arguments, and waits until every port
    /// accepts.
    ///
    /// # Panics
    /// Where they do not get ready.
    pub fn start(nodes: usize, arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("the temporary folder is writable");
        let base = free_base(nodes);
        let log = File::create(folder.path().join("log")).expect("the folder is writable");
        let mut child = Command::new(program::rookery())
            .args(["dev-cluster", "--nodes", &nodes.to_string()])
            .args(["--port-base", &base.to_string(), "--data"])
            .arg(folder.path().join("data"))
            .args(arguments)
            .env("ROOKERY_DEV_PASSWORD", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program runs");
        let orders = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let (say, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens at the end.
                let _ignored = say.send(line);
            }
        });
        let cluster = Self { nodes, base, folder, child, orders, lines };
        cluster.wait_for("all ready");
        cluster
    }

    /// What the nodes have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The lowest port is somewhat above this, and the same at each node's address.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// Runs `rookery ARGUMENTS` against one of the nodes, which has to exit with `code`; what it
    /// prints, errors too.
    ///
    /// # Panics
    /// Where it exits otherwise.
    #[track_caller]
    pub fn exits(&self, node: usize, arguments: &[&str], code: i32) -> String {
        let output = program::run(&mut self.cli_command(node, arguments), b"");
        let (stdout, stderr) = (output.stdout, output.stderr);
        let printed = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
        printed
    }

    /// Where clients find a node.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn door(&self, node: usize) -> Door {
        assert!((1..=self.nodes).contains(&node), "there is no node {node}");
        let ip = Ipv4Addr::new(127, 0, 0, u8::try_from(node).expect("there are few"));
        Door {
            smtp: (ip, self.base + 525).into(),
            submissions: (ip, self.base + 465).into(),
            imaps: (ip, self.base + 993).into(),
            certificate: self.data(node).join("dev-cert.pem"),
        }
    }

    /// The folder of one node's own files.
    pub fn data(&self, node: usize) -> PathBuf {
        self.folder.path().join("data").join(format!("node-{node}"))
    }

    /// The command for `rookery ARGUMENTS` against one of the nodes.
    ///
    /// # Panics
    /// Where the cluster has written no token.
    pub fn cli_command(&self, node: usize, arguments: &[&str]) -> Command {
        let token = std::fs::read_to_string(self.folder.path().join("data").join("admin-token"));
        let mut command = Command::new(program::rookery());
        command
            .args(arguments)
            .arg("--url")
            .arg(format!("http://127.0.0.{node}:{}", self.base + 80))
            .env("ROOKERY_TOKEN", token.expect("the cluster has written it").trim_end());
        command
    }

    /// Gives an order on its standard input, and waits for the answer.
    ///
    /// # Panics
    /// Where it refuses.
    pub fn order(&mut self, order: &str, answer: &str) {
        writeln!(self.orders, "{order}").expect("the cluster takes orders");
        let said = self.wait_for(answer);
        assert!(said.starts_with(answer), "{order}: {said}");
    }

    /// Waits for a line that begins so, or a refusal.
    fn wait_for(&self, begin: &str) -> String {
        let deadline = Deadline::usual();
        loop {
            match self.lines.recv_timeout(deadline.left()) {
                Ok(line) if line.starts_with(begin) || line.starts_with("refused") => return line,
                Ok(_) => {}
                Err(error) => panic!("no line {begin:?} in {PATIENCE:?}: {error}\n{}", self.log()),
            }
        }
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        // It may have ended by itself; then the test has seen that.
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if thread::panicking() {
            crate::report(&format!("the cluster's log:\n{}", self.log()));
        }
    }
}

/// A base of ports that is free at every node's address.
fn free_base(nodes: usize) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 20).expect("it is below 20");
    for _ in 0..40 {
        // Between those of single servers, below the range of outgoing connections.
        let turn = start + NEXT.fetch_add(1, Ordering::Relaxed);
        let base = 10_500 + turn % 20 * 1_000;
        let taken = (1..=nodes).any(|node| {
            let ip = Ipv4Addr::new(127, 0, 0, u8::try_from(node).expect("there are few"));
            [80, 143, 424, 465, 525, 587, 740, 993]
                .iter()
                .any(|offset| TcpListener::bind((ip, base + offset)).is_err())
        });
        if !taken {
            return base;
        }
    }
    panic!("no free ports on this machine");
}

/// A process for each node, on FoundationDB and S3.
#[derive(Debug)]
pub struct Apart {
    /// The processes.
    pub servers: Vec<Server>,
    doors: Vec<Door>,
    /// What they share.
    pub stores: SharedStores,
}

impl Apart {
    /// Starts both stores and then the nodes, each with these further lines for its `[cluster]`;
    /// `None`, visibly, where there is no FoundationDB.
    ///
    /// # Panics
    /// Where one does not start.
    pub fn start(nodes: usize, cluster: &str) -> Option<Self> {
        let stores = SharedStores::start()?;
        let mut servers = Vec::new();
        for node in 1..=nodes {
            let sections =
                format!("{}[cluster]\nnode = \"node-{node}\"\n{cluster}", stores.config());
            servers.push(match node {
                1 => Server::start_shared(&sections),
                _ => Server::join_shared(&sections),
            });
        }
        let doors = servers.iter().map(door).collect();
        Some(Self { servers, doors, stores })
    }

    /// Where clients find a node.
    pub fn door(&self, node: usize) -> Door {
        self.doors[node - 1].clone()
    }
}

fn door(server: &Server) -> Door {
    Door {
        smtp: (Ipv4Addr::LOCALHOST, server.ports.smtp).into(),
        submissions: (Ipv4Addr::LOCALHOST, server.ports.submissions).into(),
        imaps: (Ipv4Addr::LOCALHOST, server.ports.imaps).into(),
        certificate: server.certificate(),
    }
}
