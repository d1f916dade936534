//! How a node sends mail to other servers, and whom it asks about them.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::NumberKey;

/// Sending to other servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbound {
    /// The port of other servers; anything but 25 is for tests.
    pub port: u16,
    /// Domains that the node sends to at once.
    pub domains_at_once: u64,
    /// Connections to one domain's servers.
    pub connections_per_domain_max: u64,
    /// Seconds before a message that failed is tried again; twice as long after each try.
    pub retry_seconds_min: u64,
    /// The longest time between two tries, in seconds.
    pub retry_seconds_max: u64,
    /// Seconds after which a message is given up and reported.
    pub expire_seconds: u64,
    /// Seconds after which the sender is told that a message is late.
    pub delay_notice_seconds: u64,
    /// Messages that leave for one domain in a minute; 0 for no bound.
    pub messages_per_minute_per_domain: u64,
    /// The longest time for which users may have a message held back (RFC 4865), in seconds; 0 where
    /// they may not.
    pub hold_seconds_max: u64,
    /// The port of other domains' web servers, for their policies; anything but 443 is for tests.
    pub https_port: u16,
    /// The addresses that connections come from, one of them at random; empty for the system's choice.
    pub source_addresses: Vec<IpAddr>,
    /// Names and addresses at which the cluster takes mail, beside its nodes' own: mail that would go
    /// there comes back instead.
    pub own_hosts: Vec<String>,
    /// PEM file with the authorities that may vouch for other servers; empty for the machine's own.
    pub tls_roots: PathBuf,
}

/// Looking up names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Recursive servers; empty for those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Who checks signatures.
    pub dnssec: Dnssec,
    /// A file of DNSKEY records in place of the root's keys.
    pub trust_anchor_file: PathBuf,
}

/// Who checks DNSSEC's signatures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dnssec {
    /// The node.
    #[default]
    Validate,
    /// The named servers, over a path that can be trusted: their AD bit is believed.
    Trust,
    /// Nobody.
    Off,
}

/// Where names come from.
#[derive(Debug, Clone, Default)]
pub enum Names {
    /// DNS servers.
    #[default]
    Asked,
    /// A list, for tests and the simulation.
    Given(dns::Zone),
}

/// For whoever compares configurations: none that a file gives has a list.
impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Asked, Self::Asked))
    }
}

impl Eq for Names {}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            port: 25,
            domains_at_once: 100,
            connections_per_domain_max: 20,
            retry_seconds_min: 300,
            retry_seconds_max: 4 * 3_600,
            expire_seconds: 5 * 86_400,
            delay_notice_seconds: 4 * 3_600,
            messages_per_minute_per_domain: 0,
            hold_seconds_max: 30 * 86_400,
            https_port: 443,
            source_addresses: Vec::new(),
            own_hosts: Vec::new(),
            tls_roots: PathBuf::new(),
        }
    }
}

impl Dns {
    /// What a resolver is made with.
    pub(crate) fn settings(&self) -> dns::Settings {
        let is_default = self.trust_anchor_file.as_os_str().is_empty();
        dns::Settings {
            servers: self.servers.clone(),
            validation: match self.dnssec {
                Dnssec::Validate => dns::Validation::On,
                Dnssec::Trust => dns::Validation::TrustServers,
                Dnssec::Off => dns::Validation::Off,
            },
            trust_anchors: if is_default {
                dns::TrustAnchors::Root
            } else {
                dns::TrustAnchors::File(self.trust_anchor_file.clone())
            },
            ..dns::Settings::default()
        }
    }
}

/// The numbers of [`Outbound`].
pub(super) static NUMBERS: [NumberKey; 10] = [
    NumberKey {
        key: "outbound.port",
        unit: "port",
        min: 1,
        max: 65_535,
        read: |config| u64::from(config.outbound.port),
    },
    NumberKey {
        key: "outbound.domains_at_once",
        unit: "domains",
        min: 1,
        max: 10_000,
        read: |config| config.outbound.domains_at_once,
    },
    NumberKey {
        key: "outbound.connections_per_domain_max",
        unit: "connections",
        min: 1,
        max: 1_000,
        read: |config| config.outbound.connections_per_domain_max,
    },
    NumberKey {
        key: "outbound.retry_seconds_min",
        unit: "seconds",
        min: 1,
        max: 3_600,
        read: |config| config.outbound.retry_seconds_min,
    },
    NumberKey {
        key: "outbound.retry_seconds_max",
        unit: "seconds",
        min: 1,
        max: 86_400,
        read: |config| config.outbound.retry_seconds_max,
    },
    NumberKey {
        key: "outbound.expire_seconds",
        unit: "seconds",
        min: 1,
        max: 30 * 86_400,
        read: |config| config.outbound.expire_seconds,
    },
    NumberKey {
        key: "outbound.delay_notice_seconds",
        unit: "seconds",
        min: 1,
        max: 30 * 86_400,
        read: |config| config.outbound.delay_notice_seconds,
    },
    NumberKey {
        key: "outbound.messages_per_minute_per_domain",
        unit: "messages",
        min: 0,
        max: 1_000_000,
        read: |config| config.outbound.messages_per_minute_per_domain,
    },
    NumberKey {
        key: "outbound.hold_seconds_max",
        unit: "seconds",
        min: 0,
        max: 365 * 86_400,
        read: |config| config.outbound.hold_seconds_max,
    },
    NumberKey {
        key: "outbound.https_port",
        unit: "port",
        min: 1,
        max: 65_535,
        read: |config| u64::from(config.outbound.https_port),
    },
];
