//! Which certificate a client is shown.
//!
//! By the name that it asks for (SNI, RFC 6066 §3): among the store's certificates the one for just
//! this name, then the one with a wildcard for its first label (RFC 9525 §6.3); of several for one
//! name that which expires last. One that has expired gives way to one that has not. Where none
//! is for the name, or the client asks for none: the one of the node's own files; without such
//! files, the store's one for the node's hostname; else the store's one that expires last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use env::Timestamp;
use rustls::ServerConfig;

use super::facts::Facts;

/// A certificate in use, and what is derived from it.
pub(super) struct Served {
    pub(super) config: Arc<ServerConfig>,
    /// RFC 5929 §4 `tls-server-end-point`.
    pub(super) end_point: Option<Vec<u8>>,
    pub(super) facts: Facts,
}

/// Certificates to choose from.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) own: Option<Arc<Served>>,
    /// The store's, by name, each with the change that it is of.
    pub(super) stored: BTreeMap<String, (u64, Arc<Served>)>,
    /// The store's, by host, `*.` included.
    by_host: HashMap<String, Arc<Served>>,
    fallback: Option<Arc<Served>>,
}

impl Shelf {
    pub(super) fn new(
        own: Option<Arc<Served>>,
        stored: BTreeMap<String, (u64, Arc<Served>)>,
        hostname: &str,
    ) -> Self {
        let all: Vec<&Arc<Served>> = stored.values().map(|(_, served)| served).collect();
        let facts: Vec<&Facts> = all.iter().map(|served| &served.facts).collect();
        let chosen = chosen(&facts).into_iter();
        let by_host = chosen.map(|(host, at)| (host.to_owned(), Arc::clone(all[at]))).collect();
        let last = all.iter().max_by_key(|served| served.facts.not_after).map(|it| Arc::clone(it));
        let mut shelf = Self { own, by_host, fallback: None, stored };
        let own = shelf.own.clone();
        shelf.fallback = own.or_else(|| shelf.named(hostname).next().cloned()).or(last);
        shelf
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.fallback.is_none()
    }

    /// What a client is shown; `None` on an empty shelf.
    pub(super) fn choose(&self, asked_for: Option<&str>, now: Timestamp) -> Option<Arc<Served>> {
        let name = asked_for.map(str::to_ascii_lowercase).unwrap_or_default();
        let good = self.named(&name).find(|served| served.facts.not_after >= now);
        good.or_else(|| self.named(&name).next()).or(self.fallback.as_ref()).cloned()
    }

    /// For just this name, then for its first label's wildcard.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Served>> {
        let name = name.trim_end_matches('.');
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let exact = self.by_host.get(name);
        exact.into_iter().chain(wildcard.and_then(|host| self.by_host.get(&host)))
    }

    /// When the first of the store's certificates that are shown to anybody expires.
    pub(super) fn stored_until(&self) -> Option<Timestamp> {
        let of_hosts = self.by_host.values();
        // With files, the one that is left over is shown to nobody.
        let left_over = self.fallback.iter().filter(|_| self.own.is_none());
        of_hosts.chain(left_over).map(|served| served.facts.not_after).min()
    }
}

/// Which of several certificates is shown for each host: the one that expires last, of equals the
/// first.
pub(crate) fn chosen<'a>(all: &[&'a Facts]) -> BTreeMap<&'a str, usize> {
    let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, facts) in all.iter().enumerate() {
        for host in &facts.hosts {
            let held = chosen.entry(host).or_insert(at);
            if facts.not_after > all[*held].not_after {
                *held = at;
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;

    /// A certificate that is told by when it expires.
    fn served(hosts: &[&str], until: i64) -> Arc<Served> {
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let facts = Facts {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            not_before: Timestamp::from_unix_seconds(0),
            not_after: Timestamp::from_unix_seconds(until),
            subject: Vec::new(),
            issuer: Vec::new(),
        };
        Arc::new(Served { config: Arc::new(config), end_point: None, facts })
    }

    fn shelf(own: Option<i64>, stored: &[(&[&str], i64)], hostname: &str) -> Shelf {
        let own = own.map(|until| served(&["own.example.org"], until));
        let numbered = stored.iter().enumerate();
        let stored =
            numbered.map(|(at, (hosts, until))| (format!("{at}"), (1, served(hosts, *until))));
        Shelf::new(own, stored.collect(), hostname)
    }

    #[track_caller]
    fn check(shelf: &Shelf, asked_for: &[&str], expected: i64) {
        for name in asked_for {
            let name = Some(*name).filter(|name| !name.is_empty());
            let shown = shelf.choose(name, Timestamp::from_unix_seconds(100)).unwrap();
            assert_eq!(shown.facts.not_after.unix_seconds(), expected, "{name:?}");
        }
    }

    #[test]
    fn the_name_chooses_then_the_wildcard_then_the_file() {
        let stored: [(&[&str], i64); 4] = [
            (&["mx.example.org", "imap.example.org"], 200),
            (&["*.example.org"], 300),
            (&["imap.example.org"], 400),
            (&["old.example.org"], 50),
        ];
        let with_file = shelf(Some(999), &stored, "mx.example.org");
        check(&with_file, &["mx.example.org", "MX.Example.ORG", "mx.example.org."], 200);
        check(&with_file, &["smtp.example.org", "own.example.org"], 300);
        check(&with_file, &["imap.example.org"], 400);
        // Expired: the wildcard is better.
        check(&with_file, &["old.example.org"], 300);
        check(&with_file, &["", "example.org", "a.b.example.org", "example.com", "org"], 999);
        assert_eq!(with_file.stored_until().unwrap().unix_seconds(), 50);
        let without = shelf(None, &stored, "mx.example.org");
        check(&without, &["", "example.com"], 200);
        check(&shelf(None, &stored, "mx.example.net"), &["", "example.com"], 400);
    }

    #[test]
    fn an_expired_one_is_shown_where_there_is_no_other() {
        let shelf = shelf(Some(999), &[(&["old.example.org"], 50)], "x");
        check(&shelf, &["old.example.org"], 50);
    }

    #[test]
    fn an_empty_shelf_has_nothing() {
        let empty = Shelf::new(None, BTreeMap::new(), "x");
        assert!(empty.is_empty() && empty.stored_until().is_none());
        assert!(empty.choose(Some("x"), Timestamp::from_unix_seconds(0)).is_none());
        // Without a host it is shown where nothing else is.
        check(&shelf(None, &[(&[], 200)], "x"), &["", "x"], 200);
    }
}
