//! Who we are: mail that would come back to us is not sent (RFC 5321 §5.1).
//!
//! Invariant: an address that the node listens on, or that its connections come from, is ours only where
//! mail for other servers goes to a port that we take mail at. What is beside us on the same machine is
//! another server.
//!
//! Deliberately absent: addresses that follow from listening on every address. Which those are only the
//! operating system knows, and behind a translation of addresses it does not either: a setting names them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::config::Config;

/// Names and addresses at which this cluster takes mail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ourselves {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Ourselves {
    /// What a node's configuration says.
    pub(super) fn of(config: &Config) -> Self {
        let outbound = &config.outbound;
        let mut ourselves = Self::default();
        ourselves.add_name(&config.hostname);
        for host in &outbound.own_hosts {
            match host.parse::<IpAddr>() {
                Ok(address) => ourselves.add_address(address),
                Err(_) => ourselves.add_name(host),
            }
        }
        let here = || config.listen.smtp.iter().filter(|it| it.port() == outbound.port);
        here().map(SocketAddr::ip).for_each(|address| ourselves.add_address(address));
        if here().next().is_some() {
            outbound.source_addresses.iter().for_each(|it| ourselves.add_address(*it));
        }
        ourselves
    }

    /// The same, and the nodes that have these names.
    pub(super) fn with_names<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().for_each(|name| self.add_name(name));
        self
    }

    fn add_name(&mut self, name: &str) {
        self.names.insert(folded(name));
    }

    fn add_address(&mut self, address: IpAddr) {
        if !address.is_unspecified() {
            self.addresses.insert(address.to_canonical());
        }
    }

    /// Whether a host of this name is one of us.
    pub(super) fn is_name(&self, name: &str) -> bool {
        self.names.contains(&folded(name))
    }

    /// Whether any address is known to be ours.
    pub(super) fn have_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Whether any of these addresses is ours.
    pub(super) fn are_at(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().any(|address| self.addresses.contains(&address.to_canonical()))
    }
}

fn folded(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortBase;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::dev(Some("/srv/mail".into()), PortBase::default()).unwrap();
        config.hostname = "mx.example.org".to_owned();
        config.listen.smtp = vec!["192.0.2.1:25".parse().unwrap(), "[::]:2525".parse().unwrap()];
        config.outbound.source_addresses = vec!["192.0.2.2".parse().unwrap()];
        config.outbound.own_hosts = vec!["192.0.2.3".to_owned(), "Old.example.org".to_owned()];
        change(&mut config);
        config
    }

    #[track_caller]
    fn check(config: &Config, expected: &[&str]) {
        let ourselves = Ourselves::of(config);
        let found: Vec<String> = ourselves.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_address_is_ours_with_the_port_that_we_listen_on() {
        check(&config(|_| {}), &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        // Every address is no address, but what connections come from is one of them.
        check(&config(|it| it.outbound.port = 2525), &["192.0.2.2", "192.0.2.3"]);
        // Another server's port on the same machine.
        check(&config(|it| it.outbound.port = 26), &["192.0.2.3"]);
    }

    #[test]
    fn names_are_ours_however_they_are_written() {
        let ourselves = Ourselves::of(&config(|_| {})).with_names(["b.example.org"]);
        for name in ["MX.example.org", "mx.example.org.", "old.example.org", "b.EXAMPLE.org"] {
            assert!(ourselves.is_name(name), "{name}");
        }
        assert!(!ourselves.is_name("example.org"));
        assert!(ourselves.are_at(&["::ffff:192.0.2.1".parse().unwrap()]));
        assert!(!ourselves.are_at(&["192.0.2.9".parse().unwrap()]));
    }
}
