//! Mailbox addresses and the paths around them: RFC 5321 §4.1.2 and §4.1.3 with the additions
//! of RFC 6531 §3.3.
//!
//! Invariant: a value that exists is valid on the wire, and `parse(x.to_string()) == x`. A local
//! part is kept without its quoting, for `"a"@x` and `a@x` are the same mailbox; a domain is kept
//! in lower case.
//!
//! Deliberately absent: IDNA mapping (policy of whoever compares domains), and address literals
//! of other kinds than IPv4 and IPv6, since no standard defines any.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::{
    ADDRESS_OCTETS_MAX, DOMAIN_OCTETS_MAX, HELO_OCTETS_MAX, LABEL_CHARS_MAX, LOCAL_PART_OCTETS_MAX,
};

mod path;

pub use path::{ForwardPath, ReversePath};
pub(crate) use path::{take_forward_path, take_reverse_path};

/// Why a text is no address. It does not carry the text: rejected input never reaches a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The local part is neither a dot-string nor a quoted string, or is too long.
    #[error("the local part is malformed")]
    LocalPart,
    /// The domain or address literal is malformed or too long.
    #[error("the domain is malformed")]
    Domain,
    /// Brackets, `@` or a source route are not where they belong.
    #[error("the path is malformed")]
    Path,
    /// The whole is longer than a path may be.
    #[error("the address is too long")]
    TooLong,
}

/// A domain name or an address literal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Parses `example.org`, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').and_then(parse_literal),
            None => parse_name(text),
        }
        .map(Domain)
        .ok_or(AddressError::Domain)
    }

    /// As it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if this is an address literal.
    pub fn literal(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.strip_prefix("IPv6:") {
            Some(v6) => v6.parse().ok().map(IpAddr::V6),
            None => inner.parse().ok().map(IpAddr::V4),
        }
    }
}

impl From<IpAddr> for Domain {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Domain(format!("[{v4}]")),
            IpAddr::V6(v6) => Domain(format!("[IPv6:{v6}]")),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A mailbox: local part and domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: String,
    domain: Domain,
}

impl Address {
    /// Parses a whole `Mailbox` (RFC 5321 §4.1.2), without brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match take_mailbox(text)? {
            (address, "") => Ok(address),
            _ => Err(AddressError::Domain),
        }
    }

    /// The local part, case preserved, without quoting.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain, in lower case.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the address can be used without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii() && self.domain.0.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", wire_local(&self.local), self.domain)
    }
}

/// The name a peer gave in HELO, EHLO or LHLO.
///
/// Wider than the grammar: underscores and bare literals are common among real hosts, and
/// RFC 5321 §4.1.4 forbids refusing mail for a name that fails verification. Narrow enough to be
/// put into a header field as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeloName(String);

impl HeloName {
    /// Parses a name of letters, digits and `-._:[]`.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-._:[]".contains(&octet);
        let fits = !text.is_empty() && text.len() <= HELO_OCTETS_MAX;
        (fits && text.bytes().all(allowed)).then(|| HeloName(text.to_owned()))
    }

    /// As the peer sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeloName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A mailbox at the start of `input`, and what follows it.
fn take_mailbox(input: &str) -> Result<(Address, &str), AddressError> {
    let (local, rest) = take_local(input)?;
    let rest = rest.strip_prefix('@').ok_or(AddressError::LocalPart)?;
    let (domain, rest) = take_domain(rest)?;
    let wire_length = wire_local(&local).len();
    if wire_length > LOCAL_PART_OCTETS_MAX {
        return Err(AddressError::LocalPart);
    }
    if wire_length + 1 + domain.0.len() > ADDRESS_OCTETS_MAX {
        return Err(AddressError::TooLong);
    }
    Ok((Address { local, domain }, rest))
}

fn take_local(input: &str) -> Result<(String, &str), AddressError> {
    if let Some(quoted) = input.strip_prefix('"') {
        return take_quoted(quoted).ok_or(AddressError::LocalPart);
    }
    let end = input.find(|c| !is_atext(c) && c != '.').unwrap_or(input.len());
    let (local, rest) = input.split_at(end);
    if is_dot_string(local) { Ok((local.to_owned(), rest)) } else { Err(AddressError::LocalPart) }
}

/// The content of a quoted string whose opening quote is gone, and what follows it.
fn take_quoted(input: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut chars = input.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((content, &input[index + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ' '..='~')) => content.push(escaped),
                _ => return None,
            },
            ' '..='~' => content.push(c),
            _ if is_utf8_non_ascii(c) => content.push(c),
            _ => return None,
        }
    }
    None
}

fn take_domain(input: &str) -> Result<(Domain, &str), AddressError> {
    let end = if input.starts_with('[') {
        input.find(']').map(|index| index + 1).ok_or(AddressError::Domain)?
    } else {
        let part = |c: char| c == '.' || is_label_char(c);
        input.find(|c| !part(c)).unwrap_or(input.len())
    };
    let (domain, rest) = input.split_at(end);
    Ok((Domain::parse(domain)?, rest))
}

fn parse_name(text: &str) -> Option<String> {
    let name = text.to_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().count() <= LABEL_CHARS_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(is_label_char)
    };
    (name.len() <= DOMAIN_OCTETS_MAX && name.split('.').all(label)).then_some(name)
}

fn parse_literal(inner: &str) -> Option<String> {
    let address = match inner.split_at_checked(5) {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPv6:") => {
            IpAddr::V6(v6.parse::<Ipv6Addr>().ok()?)
        }
        _ => IpAddr::V4(inner.parse::<Ipv4Addr>().ok()?),
    };
    Some(Domain::from(address).0)
}

/// The local part as it stands on the wire: quoted only where it must be.
fn wire_local(local: &str) -> String {
    if is_dot_string(local) {
        return local.to_owned();
    }
    let mut quoted = String::with_capacity(local.len() + 2);
    quoted.push('"');
    for c in local.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_non_ascii(c)
}

fn is_label_char(c: char) -> bool {
    // IDNA reads these as full stops: they would hide a further label.
    let stop = matches!(c, '\u{3002}' | '\u{ff0e}' | '\u{ff61}');
    c.is_ascii_alphanumeric() || c == '-' || (is_utf8_non_ascii(c) && !stop)
}

/// RFC 6531 §3.3 allows any non-ASCII character; controls and spaces would only deceive.
fn is_utf8_non_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace() && c != '\u{feff}'
}

#[cfg(test)]
mod tests;
