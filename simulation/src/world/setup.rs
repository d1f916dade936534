//! How a world is made: its size, and its nodes' configuration.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use kv::Faults;
use node::config::{Config, Names, PortBase, Tls, Wakeups};

use super::{NodeId, tls::TlsFiles};

/// How a world is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Nodes; at most 200.
    pub nodes: u8,
    /// Accounts.
    pub accounts: u8,
    /// How long workloads and faults go on.
    pub duration: Duration,
    /// The fastest way on which nodes hear of each other's commits.
    pub wakeups: Wakeups,
    /// What every node's handle to the store does while nothing is wrong.
    pub store: Faults,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 5,
            accounts: 6,
            duration: Duration::from_mins(10),
            wakeups: Wakeups::default(),
            store: Faults {
                commit_time_min: Duration::from_millis(1),
                commit_time_max: Duration::from_millis(8),
                ..Faults::default()
            },
        }
    }
}

/// What a node listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    /// Mail from other servers.
    Smtp,
    /// Mail from users, with STARTTLS.
    Submission,
    /// Mail from users, TLS from the start.
    Submissions,
    /// Mail from a server of our own.
    Lmtp,
    /// IMAP, with STARTTLS.
    Imap,
    /// IMAP, TLS from the start.
    Imaps,
    /// Admin API, metrics and health.
    Http,
}

impl Door {
    pub(super) fn of(self, config: &Config) -> SocketAddr {
        let listen = &config.listen;
        let list = match self {
            Self::Smtp => &listen.smtp,
            Self::Submission => &listen.submission,
            Self::Submissions => &listen.submissions,
            Self::Lmtp => &listen.lmtp,
            Self::Imap => &listen.imap,
            Self::Imaps => &listen.imaps,
            Self::Http => &listen.http,
        };
        *list.first().expect("a world's nodes listen for everything")
    }
}

/// The mesh's port.
const MESH_PORT: u16 = 7400;

/// A folder in memory where the machine has one: a node syncs small files when it starts, and
/// nothing here outlives the process.
pub(super) fn data_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("there is room for a few small files")
}

/// RFC 5737's first block: a node's number is its last byte.
pub(super) fn node_address(node: NodeId) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, node.0)
}

/// Production's defaults, at the node's own address.
pub(super) fn config(node: NodeId, data: &Path, tls: &TlsFiles, setup: &Setup) -> Config {
    let folder = data.join(node.to_string());
    std::fs::create_dir_all(&folder).expect("there is room for a folder");
    let mut config = Config::dev(Some(folder), PortBase::default()).expect("a folder is given");
    let address = node_address(node);
    config.hostname = format!("mx{}.example.org", node.0);
    config.listen.move_to(address.into());
    config.listen.mesh = vec![SocketAddr::new(address.into(), MESH_PORT)];
    config.tls = Some(Tls { certificate: tls.certificate.clone(), key: tls.key.clone() });
    config.cluster.node = node.to_string();
    config.cluster.wakeups = setup.wakeups;
    config.names = names();
    config
}

/// Other mail servers, in the order in which their domain names them. Machines stand there only
/// where a workload sets them up. RFC 5737's third block.
pub(crate) const PEERS: [(&str, Ipv4Addr); 2] =
    [("peer-1", Ipv4Addr::new(203, 0, 113, 1)), ("peer-2", Ipv4Addr::new(203, 0, 113, 2))];

/// What DNS says: one domain beyond the world's own.
fn names() -> Names {
    let zone = dns::Zone::new();
    for (number, (name, address)) in (1..).zip(PEERS) {
        let host = format!("{name}.remote.test");
        zone.mx("remote.test", 10 * number, &host);
        zone.address(&host, address);
    }
    Names::Given(zone)
}
