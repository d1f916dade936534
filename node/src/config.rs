//! What a node is told at its start: one TOML file.
//!
//! `ops/config/rookery.toml` is the reference: every key with its default, unit and range. A
//! test compares it with [`Config`], so that neither can change alone.
//!
//! Invariants:
//! - A [`Config`] that [`Config::parse`] or [`Config::dev`] returned is valid: names are names,
//!   numbers are in their ranges.
//! - A key that is unknown, missing or invalid is reported with file, line, column and key;
//!   nothing in the file is ignored.
//!
//! Deliberately absent: settings that all nodes share (domains, accounts, routing). They are in
//! the store, because a file on one node cannot be changed for all at once.

mod check;
mod error;
mod key;
mod outbound;
#[cfg(test)]
mod reference;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use check::{NumberKey, check_level, numbers};
pub use error::ConfigError;
pub use outbound::{Dns, Dnssec, Names, Outbound};

/// The embedded engine's folder, in the data folder.
pub const STORE_FOLDER: &str = "store";

/// The folder of large blobs' files, in the data folder.
pub const BLOB_FOLDER: &str = "blobs";

/// The folder of what is cached of the S3 service's objects, in the data folder.
pub const CACHE_FOLDER: &str = "blob-cache";

/// Everything a node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's own name, as in the greeting, EHLO and Received; best equal to the address's
    /// reverse DNS entry.
    pub hostname: String,
    /// The folder that holds the store and the node's own files. Created where it is missing.
    pub data: PathBuf,
    /// Where to listen.
    #[serde(default)]
    pub listen: Listen,
    /// The node's own certificate; what is shown beside those of the store.
    pub tls: Option<Tls>,
    /// What a node without one does.
    #[serde(skip)]
    pub without_tls: WithoutTls,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Logs.
    #[serde(default)]
    pub log: Log,
    /// Which store.
    #[serde(default)]
    pub store: Store,
    /// Where messages' bytes are.
    #[serde(default)]
    pub blobs: Blobs,
    /// This node among the others.
    #[serde(default)]
    pub cluster: Cluster,
    /// Sending to other servers.
    #[serde(default)]
    pub outbound: Outbound,
    /// Looking up names.
    #[serde(default)]
    pub dns: Dns,
    /// Where names come from.
    #[serde(skip)]
    pub names: Names,
}

/// Where to listen, by protocol. An empty list switches a protocol off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Mail from other servers (RFC 5321). Default: port 25.
    pub smtp: Vec<SocketAddr>,
    /// Mail from our users, STARTTLS (RFC 6409). Default: port 587.
    pub submission: Vec<SocketAddr>,
    /// Mail from our users, TLS from the start (RFC 8314 §3.3). Default: port 465.
    pub submissions: Vec<SocketAddr>,
    /// Mail from a server of our own that trusts no network in between (RFC 2033): no
    /// authentication, so keep it on a private address. Default: port 24 on 127.0.0.1.
    pub lmtp: Vec<SocketAddr>,
    /// IMAP, STARTTLS (RFC 9051). Default: port 143.
    pub imap: Vec<SocketAddr>,
    /// IMAP, TLS from the start (RFC 8314 §3.2). Default: port 993.
    pub imaps: Vec<SocketAddr>,
    /// Admin API, metrics and health, without TLS. Default: 127.0.0.1:8080.
    pub http: Vec<SocketAddr>,
    /// What other nodes say (QUIC, UDP), at most one address; keep it on a private network.
    /// Default: none, and wake-ups across nodes come through the store alone.
    pub mesh: Vec<SocketAddr>,
}

/// The certificate that the node shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file: the node's certificate first, then the issuers'.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// What a node without a certificate of its own shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WithoutTls {
    /// Those of the store, of which there has to be one.
    #[default]
    Store,
    /// One that it signs itself, for development.
    SelfSigned,
}

/// Bounds of what clients may use. Ranges are in [`numbers`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one message, as announced by SIZE (RFC 1870) and APPENDLIMIT (RFC 7889).
    pub message_bytes_max: u64,
    /// Recipients of one SMTP transaction; at least 100 (RFC 5321 §4.5.3.1.8).
    pub recipients_max: u64,
    /// Open SMTP, LMTP and IMAP connections of the node.
    pub connections_max: u64,
    /// Open SMTP, LMTP and IMAP connections from one IP address.
    pub connections_per_address_max: u64,
    /// Bytes of mailbox views that the node keeps in memory.
    pub view_cache_bytes: u64,
    /// Seconds from SIGTERM to the node's end, whatever is still in flight.
    pub shutdown_seconds: u64,
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The lines' format.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`; also by target: `info,kv=debug`.
    pub level: String,
}

/// The log lines' format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The engine.
    pub engine: Engine,
    /// FoundationDB's cluster file; for [`Engine::Fdb`].
    pub cluster_file: PathBuf,
    /// Where FoundationDB's client writes its own log; empty for nowhere.
    pub trace_folder: PathBuf,
}

/// The store's engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In this process, in the data folder: one node.
    #[default]
    Embedded,
    /// A FoundationDB cluster, which any number of nodes share. Only where the program was built
    /// with feature `fdb`.
    Fdb,
}

/// This node among the others that share its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// What people call the node; empty for the hostname. A node that registers under a name that
    /// another has takes its place.
    pub node: String,
    /// Where other nodes reach this one, such as `192.0.2.1:7400`; empty for the address in
    /// `listen.mesh`.
    pub advertise: String,
    /// Milliseconds that a node may be silent before the others take over what it had claimed.
    pub time_to_live_ms: u64,
    /// The fastest way on which this node hears of what others commit.
    pub wakeups: Wakeups,
}

/// Ways on which a node hears of what others commit; each stands in for those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wakeups {
    /// Datagrams, where `listen.mesh` has an address.
    #[default]
    Mesh,
    /// A watch in the store.
    Watch,
    /// A look at the inbox every second.
    Poll,
}

/// Where messages' bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blobs {
    /// The engine.
    pub engine: BlobEngine,
    /// URL of the S3 service.
    pub endpoint: String,
    /// The bucket's region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the names of all objects begin with.
    pub prefix: String,
    /// Where the bucket stands in the URL.
    pub addressing: Addressing,
    /// PEM file with the authorities that may vouch for the service's certificate; empty for the
    /// machine's own.
    pub ca_file: PathBuf,
    /// File with the access key; empty for the environment's `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`.
    pub credentials_file: PathBuf,
    /// Bytes of the cache in the data folder; 0 for none, which no file says.
    pub cache_bytes: u64,
}

/// The blobs' engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobEngine {
    /// Beside the embedded engine's keys and in the data folder; for [`Engine::Embedded`].
    #[default]
    Embedded,
    /// An S3-compatible service.
    S3,
}

/// Where the bucket stands in the URL of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// In the path, as most services other than Amazon's want it.
    #[default]
    Path,
    /// In the host's name.
    Host,
}

impl Listen {
    /// The same ports at another address.
    pub fn move_to(&mut self, address: IpAddr) {
        let lists = [
            &mut self.smtp,
            &mut self.submission,
            &mut self.submissions,
            &mut self.lmtp,
            &mut self.imap,
            &mut self.imaps,
            &mut self.http,
            &mut self.mesh,
        ];
        for socket in lists.into_iter().flatten() {
            socket.set_ip(address);
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        // On Linux [::] takes IPv4 as well; a machine without IPv6 needs 0.0.0.0 in its file.
        let any = |port| vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)];
        Self {
            smtp: any(25),
            submission: any(587),
            submissions: any(465),
            lmtp: loopback(24),
            imap: any(143),
            imaps: any(993),
            http: loopback(8080),
            mesh: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 50 << 20,
            recipients_max: 100,
            connections_max: 10_000,
            connections_per_address_max: 100,
            view_cache_bytes: 64 << 20,
            shutdown_seconds: 30,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            cluster_file: "/etc/foundationdb/fdb.cluster".into(),
            trace_folder: PathBuf::new(),
        }
    }
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            engine: BlobEngine::default(),
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            bucket: String::new(),
            prefix: String::new(),
            addressing: Addressing::default(),
            ca_file: PathBuf::new(),
            credentials_file: PathBuf::new(),
            cache_bytes: 1 << 30,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        let time_to_live_ms = u64::try_from(cluster::limits::TIME_TO_LIVE.as_millis());
        Self {
            node: String::new(),
            advertise: String::new(),
            time_to_live_ms: time_to_live_ms.unwrap_or(u64::MAX),
            wakeups: Wakeups::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned() }
    }
}

/// Where a development node's ports begin: each is this plus a fixed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortBase(u16);

impl PortBase {
    /// The largest base: the highest offset still gives a port.
    pub const MAX: u16 = u16::MAX - 993;

    /// `None` for a base from which some port would be privileged or above 65,535.
    pub const fn new(base: u16) -> Option<Self> {
        if base >= 1024 && base <= Self::MAX { Some(Self(base)) } else { None }
    }

    fn port(self, offset: u16) -> Vec<SocketAddr> {
        loopback(self.0 + offset)
    }
}

impl Default for PortBase {
    /// 2000, which gives SMTP 2525 and IMAPS 2993.
    fn default() -> Self {
        Self(2000)
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `path` is for the error alone.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::from_toml(path, text, &error))?;
        match check::check(&config) {
            Ok(()) => Ok(config),
            Err(problem) => Err(ConfigError::from_check(path, text, &problem)),
        }
    }

    /// What other nodes and administrators call the node.
    pub fn node_name(&self) -> cluster::NodeName {
        let name = match self.cluster.node.as_str() {
            "" => &self.hostname,
            name => name,
        };
        cluster::NodeName::parse(name).expect("a checked name, and every hostname is one")
    }

    /// A development node: 127.0.0.1, a certificate of its own making, and ports at `base` plus
    /// 525 (SMTP), 587 (submission), 465 (submissions), 424 (LMTP), 143 (IMAP), 993 (IMAPS) and
    /// 80 (HTTP). Without `data`, mail is kept in `$XDG_DATA_HOME/rookery-dev` or
    /// `~/.local/share/rookery-dev`, so that it survives restarts.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`] where `data` is missing and the environment names no home.
    pub fn dev(data: Option<PathBuf>, base: PortBase) -> Result<Self, ConfigError> {
        let data = match data {
            Some(data) => data,
            None => dev_data_folder()?,
        };
        let listen = Listen {
            smtp: base.port(525),
            submission: base.port(587),
            submissions: base.port(465),
            lmtp: base.port(424),
            imap: base.port(143),
            imaps: base.port(993),
            http: base.port(80),
            mesh: Vec::new(),
        };
        Ok(Self {
            hostname: "localhost".to_owned(),
            data,
            listen,
            tls: None,
            without_tls: WithoutTls::SelfSigned,
            limits: Limits::default(),
            log: Log::default(),
            store: Store::default(),
            blobs: Blobs::default(),
            cluster: Cluster::default(),
            outbound: Outbound::default(),
            dns: Dns::default(),
            names: Names::default(),
        })
    }
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]
}

fn dev_data_folder() -> Result<PathBuf, ConfigError> {
    // XDG Base Directory Specification: a relative path there is to be ignored.
    let folder =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let share = folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local").join("share")))
        .ok_or(ConfigError::NoHome)?;
    Ok(share.join("rookery-dev"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with nothing but what is required, then `rest`.
    fn file(rest: &str) -> String {
        format!(
            "hostname = \"mx.example.org\"\ndata = \"/srv/mail\"\n\
             tls = {{ certificate = \"c.pem\", key = \"k.pem\" }}\n{rest}"
        )
    }

    /// The error of a file, as a person sees it.
    fn error(text: &str) -> String {
        Config::parse(text, Path::new("r.toml")).expect_err("the file is refused").to_string()
    }

    fn check(text: &str, expected: &str) {
        let error = error(text);
        assert!(error.starts_with(expected), "expected {expected:?}, got {error:?}");
    }

    #[test]
    fn what_is_required_is_enough() {
        let config = Config::parse(&file(""), Path::new("r.toml")).unwrap();
        assert_eq!(config.hostname, "mx.example.org");
        assert_eq!(config.listen, Listen::default());
        assert_eq!(config.listen.imaps, ["[::]:993".parse().unwrap()]);
        assert_eq!(config.limits.message_bytes_max, 52_428_800);
    }

    #[test]
    fn a_node_may_rely_on_the_stores_certificates() {
        let text = "hostname = \"mx.example.org\"\ndata = \"/srv/mail\"\n";
        let config = Config::parse(text, Path::new("r.toml")).unwrap();
        assert_eq!((config.tls, config.without_tls), (None, WithoutTls::Store));
    }

    #[test]
    fn an_empty_list_switches_a_protocol_off() {
        let config = Config::parse(&file("[listen]\nimap = []\n"), Path::new("r.toml")).unwrap();
        assert!(config.listen.imap.is_empty());
        assert_eq!(config.listen.smtp, Listen::default().smtp);
    }

    #[test]
    fn unknown_keys_are_named_where_they_stand() {
        check(&file("hostnam = 1\n"), "r.toml:4:1: hostnam: unknown field `hostnam`");
        check(&file("[limits]\n  speed = 3\n"), "r.toml:5:3: limits.speed: unknown field `speed`");
        check(&file("[limit]\n"), "r.toml:4:2: limit: unknown field `limit`");
        check(&file("[store]\nengine = \"db\"\n"), "r.toml:5:10: store.engine: unknown variant");
        check(
            "hostname = \"a\"\ndata = \"b\"\ntls = { certificate = \"c\", key = \"k\", ca = \"x\" }\n",
            "r.toml:3:39: tls.ca: unknown field `ca`",
        );
    }

    #[test]
    fn missing_and_mistyped_keys_are_named() {
        check("hostname = \"a\"\n", "r.toml:1:1: missing field `data`");
        check(
            "hostname = \"a\"\ndata = \"b\"\n[tls]\nkey = \"k\"\n",
            "r.toml:3:1: tls: missing field `certificate`",
        );
        check(
            &file("[limits]\nrecipients_max = \"many\"\n"),
            "r.toml:5:18: limits.recipients_max: invalid type: string \"many\"",
        );
        check(
            &file("[listen]\nsmtp = [\"25\"]\n"),
            "r.toml:5:9: listen.smtp: invalid socket address",
        );
        check(&file("[limits\n"), "r.toml:4:8: ");
        check(&file("data = \"/x\"\n"), "r.toml:4:1: data: duplicate key");
    }

    #[test]
    fn values_outside_their_range_are_refused_with_the_range() {
        check(
            &file("[limits]\nrecipients_max = 99\n"),
            "r.toml:5:18: limits.recipients_max: must be from 100 to 1000 recipients, not 99",
        );
        check(
            &file("[limits]\nmessage_bytes_max = 1\n"),
            "r.toml:5:21: limits.message_bytes_max: must be from",
        );
        check(
            &file("[limits]\nconnections_max = 5\n"),
            "r.toml:4:2: limits.connections_per_address_max: must be at most limits.connections_max",
        );
        check(
            "hostname = \"no spaces\"\ndata = \"b\"\ntls = { certificate = \"c\", key = \"k\" }\n",
            "r.toml:1:12: hostname: `no spaces` is not a domain name",
        );
        check(&file("[log]\nlevel = \"loud\"\n"), "r.toml:5:9: log.level: `loud`");
        check(&file("[listen]\nimap = [\"[::]:0\"]\n"), "r.toml:5:8: listen.imap: port 0");
        check(
            &file("[listen]\nimap = [\"[::]:25\"]\n"),
            "r.toml:5:8: listen.imap: [::]:25 is listen.smtp's",
        );
        let empty = "hostname = \"a\"\ndata = \"\"\ntls = { certificate = \"c\", key = \"k\" }\n";
        check(empty, "r.toml:2:8: data: must not be empty");
    }

    #[test]
    fn columns_count_characters() {
        check(&file("# ü\nlog = { level = \"ü\", x = 1 }\n"), "r.toml:5:22: log.x: unknown");
    }

    #[test]
    fn a_missing_file_is_told_by_its_name() {
        let error = Config::load(Path::new("/nowhere/r.toml")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nowhere/r.toml: "), "{error}");
    }

    #[test]
    fn development_ports_follow_their_base() {
        let data = Some(PathBuf::from("/tmp/dev"));
        let config = Config::dev(data.clone(), PortBase::default()).unwrap();
        let ports = |listen: &Listen| {
            [
                &listen.smtp,
                &listen.submission,
                &listen.submissions,
                &listen.lmtp,
                &listen.imap,
                &listen.imaps,
                &listen.http,
            ]
            .map(|list| list.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(","))
        };
        assert_eq!(
            ports(&config.listen),
            [2525, 2587, 2465, 2424, 2143, 2993, 2080].map(|port| format!("127.0.0.1:{port}"))
        );
        let config = Config::dev(data, PortBase::new(PortBase::MAX).unwrap()).unwrap();
        assert_eq!(config.listen.imaps[0].port(), u16::MAX);
        assert_eq!(check::check(&config), Ok(()));
        assert_eq!(PortBase::new(PortBase::MAX + 1), None);
        assert_eq!(PortBase::new(1023), None);
    }
}
