//! Domain names and addresses as people write them, in the form that the store keeps.
//!
//! Invariant: a domain that passed [`domain`] is made of A-labels in lower case and fits
//! RFC 1035 §2.3.4, so it can stand in a key, in EHLO and in a DNS query alike.

use mail::directory::Address;

/// RFC 1035 §2.3.4: octets of a whole name, as text without the final dot.
const DOMAIN_BYTES_MAX: usize = 253;

/// RFC 1035 §2.3.4: octets of one label.
const LABEL_BYTES_MAX: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not a domain.
    #[error("`{0}` is not a domain name")]
    Domain(String),
    /// Not an address.
    #[error("`{0}` is not an address of the form local@domain")]
    Address(String),
}

/// Folds a domain to A-labels in lower case.
///
/// # Errors
/// [`BadName::Domain`] where it is none, or longer than DNS allows.
pub fn domain(text: &str) -> Result<String, BadName> {
    let bad = || BadName::Domain(text.to_owned());
    let folded = idna::domain_to_ascii(text).map_err(|_| bad())?;
    // RFC 5890 §2.3.1: letters, digits and hyphens, none at an end.
    let label_fits = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let fits = folded.len() <= DOMAIN_BYTES_MAX && folded.split('.').all(label_fits);
    if fits { Ok(folded) } else { Err(bad()) }
}

/// Folds an address: the local part to lower case, the domain as [`domain`] does. Local parts
/// that would need quotes (RFC 5321 §4.1.2) are refused: too many clients cannot send to them.
///
/// # Errors
/// [`BadName::Address`].
pub fn address(text: &str) -> Result<Address, BadName> {
    let bad = || BadName::Address(text.to_owned());
    let (local, host) = text.rsplit_once('@').ok_or_else(bad)?;
    if !local.split('.').all(is_atom) {
        return Err(bad());
    }
    let host = domain(host).map_err(|_| bad())?;
    Address::parse(&format!("{local}@{host}")).map_err(|_| bad())
}

/// RFC 5322 §3.2.3 with RFC 6532 §3.2.
fn is_atom(text: &str) -> bool {
    let fits = |c: char| !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c);
    !text.is_empty() && text.chars().all(fits)
}

/// The last labels of a domain, so many; all of it where it has fewer.
pub(crate) fn last_labels(domain: &str, count: usize) -> &str {
    let dot = count.checked_sub(1).and_then(|nth| domain.rmatch_indices('.').nth(nth));
    dot.map_or(domain, |(at, _)| &domain[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_folded_or_refused() {
        assert_eq!(domain("Example.ORG").as_deref(), Ok("example.org"));
        assert_eq!(domain("bücher.example").as_deref(), Ok("xn--bcher-kva.example"));
        assert_eq!(domain("localhost").as_deref(), Ok("localhost"));
        let long_label = "a".repeat(64);
        let long_name = format!("{}a", "a.".repeat(127));
        for bad in [
            "",
            ".",
            "a..b",
            "a.",
            "-a.org",
            "a-.org",
            "a b",
            "a_b.org",
            "a@b",
            &long_label,
            &long_name,
        ] {
            assert_eq!(domain(bad), Err(BadName::Domain(bad.to_owned())), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_folded_or_refused() {
        let folded = |text| address(text).map(|address| address.to_string());
        assert_eq!(
            folded("Bob+Tag@BÜCHER.example").as_deref(),
            Ok("bob+tag@xn--bcher-kva.example")
        );
        for bad in [
            "",
            "bob",
            "@example.org",
            "bob@",
            "a b@example.org",
            "bob@ex ample.org",
            "a@b@c",
            "a..b@example.org",
            "\"a\"@example.org",
        ] {
            assert_eq!(folded(bad), Err(BadName::Address(bad.to_owned())), "{bad:?}");
        }
    }
}
