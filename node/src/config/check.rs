//! What a type cannot say: ranges, names, and keys that depend on each other.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{BlobEngine, Config, Engine, outbound};
use crate::names;

/// A number's unit and range: for the check, for the reference file and for its test.
#[derive(Debug, Clone, Copy)]
pub struct NumberKey {
    /// The key's full name.
    pub key: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// The smallest value.
    pub min: u64,
    /// The largest value.
    pub max: u64,
    /// Takes it out of a configuration.
    pub read: fn(&Config) -> u64,
}

/// Every number in a [`Config`].
pub fn numbers() -> impl Iterator<Item = &'static NumberKey> {
    NUMBERS.iter().chain(&outbound::NUMBERS)
}

static NUMBERS: [NumberKey; 8] = [
    NumberKey {
        key: "limits.message_bytes_max",
        unit: "bytes",
        // RFC 5321 §4.5.3.1.7: at least 64 KiB.
        min: 64 << 10,
        max: 1 << 30,
        read: |config| config.limits.message_bytes_max,
    },
    NumberKey {
        key: "limits.recipients_max",
        unit: "recipients",
        // Above, one delivery's keys would no longer fit one transaction.
        min: 100,
        max: 1000,
        read: |config| config.limits.recipients_max,
    },
    NumberKey {
        key: "limits.connections_max",
        unit: "connections",
        min: 1,
        max: 1_000_000,
        read: |config| config.limits.connections_max,
    },
    NumberKey {
        key: "limits.connections_per_address_max",
        unit: "connections",
        min: 1,
        max: 1_000_000,
        read: |config| config.limits.connections_per_address_max,
    },
    NumberKey {
        key: "limits.view_cache_bytes",
        unit: "bytes",
        min: 1 << 20,
        max: 1 << 36,
        read: |config| config.limits.view_cache_bytes,
    },
    NumberKey {
        key: "limits.shutdown_seconds",
        unit: "seconds",
        min: 1,
        max: 300,
        read: |config| config.limits.shutdown_seconds,
    },
    NumberKey {
        key: "blobs.cache_bytes",
        unit: "bytes",
        // Below, one large message would push everything else out.
        min: 64 << 20,
        max: 1 << 44,
        read: |config| config.blobs.cache_bytes,
    },
    NumberKey {
        key: "cluster.time_to_live_ms",
        unit: "milliseconds",
        min: 500,
        max: 60_000,
        read: |config| config.cluster.time_to_live_ms,
    },
];

/// A value that a well-typed file must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The key's full name.
    pub(super) key: &'static str,
    /// What is wrong, after the key's name and a colon.
    pub(super) reason: String,
}

pub(super) fn check(config: &Config) -> Result<(), Problem> {
    let problem = |key, reason: String| Err(Problem { key, reason });
    if let Err(error) = names::domain(&config.hostname) {
        return problem("hostname", error.to_string());
    }
    let tls = config.tls.as_ref();
    let paths = [
        ("data", Some(&config.data)),
        ("tls.certificate", tls.map(|tls| &tls.certificate)),
        ("tls.key", tls.map(|tls| &tls.key)),
    ];
    for (key, path) in paths {
        if path.is_some_and(|path| path.as_os_str().is_empty()) {
            return problem(key, "must not be empty".to_owned());
        }
    }
    for number in numbers() {
        let value = (number.read)(config);
        if !(number.min..=number.max).contains(&value) {
            let NumberKey { key, unit, min, max, .. } = number;
            return problem(key, format!("must be from {min} to {max} {unit}, not {value}"));
        }
    }
    if config.limits.connections_per_address_max > config.limits.connections_max {
        return problem(
            "limits.connections_per_address_max",
            "must be at most limits.connections_max".to_owned(),
        );
    }
    check_level(&config.log.level).map_err(|reason| Problem { key: "log.level", reason })?;
    check_blobs(config)?;
    check_cluster(config)?;
    check_outbound(config)?;
    check_listen(config)
}

fn check_blobs(config: &Config) -> Result<(), Problem> {
    let problem = |key, reason: &str| Err(Problem { key, reason: reason.to_owned() });
    if config.blobs.engine == BlobEngine::Embedded {
        return match config.store.engine {
            Engine::Embedded => Ok(()),
            Engine::Fdb => problem("blobs.engine", "must be \"s3\" where the store is \"fdb\""),
        };
    }
    for (key, value) in
        [("blobs.endpoint", &config.blobs.endpoint), ("blobs.bucket", &config.blobs.bucket)]
    {
        if value.is_empty() {
            return problem(key, "must be set where the engine is \"s3\"");
        }
    }
    Ok(())
}

fn check_cluster(config: &Config) -> Result<(), Problem> {
    let problem = |key, reason: String| Err(Problem { key, reason });
    let cluster = &config.cluster;
    if !cluster.node.is_empty()
        && let Err(error) = cluster::NodeName::parse(&cluster.node)
    {
        return problem("cluster.node", error.to_string());
    }
    let mesh = &config.listen.mesh;
    if mesh.len() > 1 {
        return problem("listen.mesh", "is at most one address".to_owned());
    }
    if !cluster.advertise.is_empty() && cluster.advertise.parse::<SocketAddr>().is_err() {
        let reason = "is no address with a port, such as 192.0.2.1:7400".to_owned();
        return problem("cluster.advertise", reason);
    }
    if cluster.advertise.is_empty() && mesh.iter().any(|address| address.ip().is_unspecified()) {
        let reason = "must be set where listen.mesh is every address".to_owned();
        return problem("cluster.advertise", reason);
    }
    Ok(())
}

fn check_outbound(config: &Config) -> Result<(), Problem> {
    let outbound = &config.outbound;
    if outbound.retry_seconds_min > outbound.retry_seconds_max {
        let reason = "must be at least outbound.retry_seconds_min".to_owned();
        return Err(Problem { key: "outbound.retry_seconds_max", reason });
    }
    for host in &outbound.own_hosts {
        if host.parse::<IpAddr>().is_err() && names::domain(host).is_err() {
            let reason = format!("`{host}` is neither a name nor an address");
            return Err(Problem { key: "outbound.own_hosts", reason });
        }
    }
    Ok(())
}

/// Checks a log level: `level` or `target=level`, separated by commas. Narrower than what `tracing`
/// takes, so that a mistake is an error here and not a filter that silently matches nothing.
///
/// # Errors
/// What is wrong, in words.
pub fn check_level(text: &str) -> Result<(), String> {
    for directive in text.split(',') {
        let (target, level) = directive.split_once('=').unwrap_or(("all", directive));
        let target_fits = !target.is_empty()
            && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
        let level_fits = ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
        if !target_fits || !level_fits {
            return Err(format!(
                "`{directive}` is neither error, warn, info, debug, trace, off nor target=level"
            ));
        }
    }
    Ok(())
}

fn check_listen(config: &Config) -> Result<(), Problem> {
    let listen = &config.listen;
    let lists = [
        ("listen.smtp", &listen.smtp),
        ("listen.submission", &listen.submission),
        ("listen.submissions", &listen.submissions),
        ("listen.lmtp", &listen.lmtp),
        ("listen.imap", &listen.imap),
        ("listen.imaps", &listen.imaps),
        ("listen.http", &listen.http),
        ("listen.mesh", &listen.mesh),
    ];
    let mut owners: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for (key, addresses) in lists {
        for address in addresses {
            if address.port() == 0 {
                return Err(Problem { key, reason: "port 0 is no port to be found at".to_owned() });
            }
            if let Some(owner) = owners.insert(*address, key) {
                return Err(Problem { key, reason: format!("{address} is {owner}'s already") });
            }
        }
    }
    Ok(())
}
