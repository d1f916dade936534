//! Whom to ask, whom to believe, how long to wait.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_net::proto::{dnssec, rr::Name, serialize::txt::trust_anchor};

use crate::limits::{FILE_BYTES_MAX, SERVERS_MAX};

/// Where the machine names its resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

const PORT: u16 = 53;

/// How a [`crate::Resolver`] works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Recursive servers, asked in this order; none: those of `/etc/resolv.conf`, read once, and
    /// where that names none, the one on this machine.
    pub servers: Vec<SocketAddr>,
    /// Who checks signatures.
    pub validation: Validation,
    /// How long one lookup may take, with all queries that it needs.
    pub timeout: Duration,
    /// What chains of trust begin at.
    pub trust_anchors: TrustAnchors,
    /// Answers that are remembered, of at most [`crate::limits::CACHED_BYTES_MAX`] each.
    pub cache_entries: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            validation: Validation::default(),
            timeout: Duration::from_secs(10),
            trust_anchors: TrustAnchors::default(),
            cache_entries: 10_000,
        }
    }
}

/// Who checks signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// We do. The servers have to hand on signatures: from one that drops them, everything below a trust
    /// anchor is refuted.
    #[default]
    On,
    /// Nobody: every answer is insecure.
    Off,
    /// The named servers do; their AD bit is believed. For servers that are reached over nothing
    /// but this machine or a network that is as trusted (RFC 7672 §1.2).
    TrustServers,
}

/// What chains of trust begin at. A name below none of them is insecure (RFC 4033 §5).
///
/// Of the root, the key-signing keys are enough. Of another zone all keys are needed, because the validator
/// looks for the zone's DS records where one is not an anchor itself.
#[derive(Debug, Clone, Default)]
pub enum TrustAnchors {
    /// The root's keys that came with this release.
    #[default]
    Root,
    /// A file of DNSKEY records, as zone files have them.
    File(PathBuf),
    /// Such records.
    Records(String),
}

/// Why a resolver cannot be made of the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The trust anchors are not DNSKEY records, or there is none among them.
    #[error("no trust anchors: {0}")]
    BadTrustAnchors(String),
    /// No time, no cache or too many servers.
    #[error("{0}")]
    OutOfRange(&'static str),
}

/// Trust anchors, and the names that they are for.
pub(crate) struct Anchors {
    pub(crate) keys: Arc<dnssec::TrustAnchors>,
    names: Vec<Name>,
}

impl Anchors {
    /// Whether something may be proven of the name.
    pub(crate) fn cover(&self, name: &Name) -> bool {
        self.names.iter().any(|anchor| anchor.zone_of(name))
    }
}

impl TrustAnchors {
    pub(crate) fn load(&self) -> Result<Anchors, SettingsError> {
        let text = match self {
            Self::Root => {
                let keys = Arc::new(dnssec::TrustAnchors::default());
                return Ok(Anchors { keys, names: vec![Name::root()] });
            }
            Self::File(path) => read(path)
                .map_err(|error| SettingsError::Unreadable { path: path.clone(), error })?,
            Self::Records(text) => text.clone(),
        };
        let bad = |error: &dyn std::fmt::Display| SettingsError::BadTrustAnchors(error.to_string());
        let entries =
            trust_anchor::Parser::new(text.as_str()).parse().map_err(|error| bad(&error))?;
        if entries.is_empty() {
            return Err(bad(&"there are no records"));
        }
        let name = |entry: &trust_anchor::Entry| match entry {
            trust_anchor::Entry::DNSKEY(record) => Some(record.name().clone()),
            _ => None,
        };
        let names = entries.iter().filter_map(name).collect();
        let keys = text.parse::<dnssec::TrustAnchors>().map_err(|error| bad(&error))?;
        Ok(Anchors { keys: Arc::new(keys), names })
    }
}

impl Settings {
    /// The servers to ask.
    pub(crate) fn servers(&self) -> Result<Vec<SocketAddr>, SettingsError> {
        if !self.servers.is_empty() {
            return Ok(self.servers.clone());
        }
        let path = Path::new(RESOLV_CONF);
        match read(path) {
            Ok(text) => Ok(servers_of(&text)),
            // resolv.conf(5): without the file, the server on this machine.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(servers_of("")),
            Err(error) => Err(SettingsError::Unreadable { path: path.to_owned(), error }),
        }
    }

    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        if self.timeout.is_zero() {
            return Err(SettingsError::OutOfRange("a lookup needs some time"));
        }
        if self.servers.len() > SERVERS_MAX {
            return Err(SettingsError::OutOfRange("too many servers"));
        }
        Ok(())
    }
}

/// The `nameserver` lines; an address with a scope is left out.
fn servers_of(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    };
    let mut servers: Vec<_> = text
        .lines()
        .filter_map(address)
        .map(|address| SocketAddr::new(address, PORT))
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), PORT));
    }
    servers
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_names_servers() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1 # ours\nnameserver fe80::1%eth0\noptions edns0\n";
        let expected: Vec<SocketAddr> =
            vec!["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(servers_of(text), expected);
        assert_eq!(servers_of("options edns0"), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn trust_anchors_are_checked() {
        assert!(TrustAnchors::Root.load().unwrap().cover(&Name::root()));
        for bad in ["", "example.org. IN A 192.0.2.1", "example.org. IN DNSKEY 257 3 8 !!!"] {
            assert!(TrustAnchors::Records(bad.to_owned()).load().is_err(), "{bad:?}");
        }
        assert!(matches!(
            TrustAnchors::File("/nonexistent/anchors".into()).load(),
            Err(SettingsError::Unreadable { .. })
        ));
    }
}
