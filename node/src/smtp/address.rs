//! From addresses on the wire to those that the directory knows.
//!
//! A local part that needs quotes names no mailbox here: the directory has none with blanks or a
//! second `@`.

use mail::directory;
use smtp::{Address, Domain, ForwardPath};

use crate::{config::Config, names};

/// What an address on the wire stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Canonical {
    /// One that the directory, or DNS, can look up.
    Named(directory::Address),
    /// Its domain is an address literal (RFC 5321 §4.1.3).
    Literal,
    /// No lookup can find it.
    Unusable,
}

/// Folds case and maps the domain to A-labels (RFC 5890 §2.3.2.1).
pub(super) fn canonical(address: &Address) -> Canonical {
    if address.domain().literal().is_some() {
        return Canonical::Literal;
    }
    // As written: quotes stay, and make the address unusable.
    if address.to_string().starts_with('"') {
        return Canonical::Unusable;
    }
    let named = names::domain(address.domain().as_str()).ok().and_then(|domain| {
        directory::Address::parse(&format!("{}@{domain}", address.local())).ok()
    });
    named.map_or(Canonical::Unusable, Canonical::Named)
}

/// The recipient; the bare postmaster (RFC 5321 §4.5.1) is the node's own.
pub(super) fn recipient(path: &ForwardPath, hostname: &Domain) -> Canonical {
    match path {
        ForwardPath::Mailbox(address) => canonical(address),
        ForwardPath::Postmaster => directory::Address::parse(&format!("{POSTMASTER}@{hostname}"))
            .map_or(Canonical::Unusable, Canonical::Named),
    }
}

/// RFC 5321 §4.5.1: the mailbox that every domain has.
pub(super) const POSTMASTER: &str = "postmaster";

/// The node's own name. It was checked with the configuration.
pub(super) fn hostname(config: &Config) -> Domain {
    names::domain(&config.hostname)
        .ok()
        .and_then(|name| Domain::parse(&name).ok())
        .unwrap_or_else(|| Domain::parse("localhost").expect("a domain name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let address = Address::parse(text).unwrap();
        let expected = expected.map_or(Canonical::Unusable, |expected| {
            Canonical::Named(directory::Address::parse(expected).unwrap())
        });
        assert_eq!(canonical(&address), expected, "{text}");
    }

    #[test]
    fn addresses_are_folded_or_unusable() {
        check("Bob+Tag@Example.ORG", Some("bob+tag@example.org"));
        check("\"bob\"@example.org", Some("bob@example.org"));
        check("bob@B\u{fc}cher.example", Some("bob@xn--bcher-kva.example"));
        check("bob@xn--bcher-kva.example", Some("bob@xn--bcher-kva.example"));
        check("\"bob smith\"@example.org", None);
        check("\"bob@evil\"@example.org", None);
        let literal = Address::parse("bob@[192.0.2.1]").unwrap();
        assert_eq!(canonical(&literal), Canonical::Literal);
    }

    #[test]
    fn the_bare_postmaster_is_the_nodes() {
        let hostname = Domain::parse("mx.example.org").unwrap();
        let path = ForwardPath::parse("<POSTMASTER>").unwrap();
        let expected = directory::Address::parse("postmaster@mx.example.org").unwrap();
        assert_eq!(recipient(&path, &hostname), Canonical::Named(expected));
    }
}
