//! Reverse and forward paths (RFC 5321 §4.1.1.2 and §4.1.1.3).

use std::fmt;

use super::{Address, AddressError, take_domain, take_mailbox};

/// Whom a message comes from, as MAIL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: a notification, to which nobody may answer with another.
    Null,
    /// `<local@domain>`.
    Mailbox(Address),
}

impl ReversePath {
    /// Parses a path with its brackets. A source route is dropped.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        whole(take_reverse_path(text)?)
    }

    /// The address, unless this is the null path.
    pub fn address(&self) -> Option<&Address> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => formatter.write_str("<>"),
            ReversePath::Mailbox(address) => write!(formatter, "<{address}>"),
        }
    }
}

/// Whom a message goes to, as RCPT names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain (RFC 5321 §4.5.1): whoever runs this server.
    Postmaster,
    /// `<local@domain>`.
    Mailbox(Address),
}

impl ForwardPath {
    /// Parses a path with its brackets. A source route is dropped.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        whole(take_forward_path(text)?)
    }

    /// The address, unless this is the bare postmaster.
    pub fn address(&self) -> Option<&Address> {
        match self {
            ForwardPath::Postmaster => None,
            ForwardPath::Mailbox(address) => Some(address),
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardPath::Postmaster => formatter.write_str("<Postmaster>"),
            ForwardPath::Mailbox(address) => write!(formatter, "<{address}>"),
        }
    }
}

/// A reverse path at the start of `input`, and what follows it.
pub(crate) fn take_reverse_path(input: &str) -> Result<(ReversePath, &str), AddressError> {
    if let Some(rest) = input.strip_prefix("<>") {
        return Ok((ReversePath::Null, rest));
    }
    let (address, rest) = take_path(input)?;
    Ok((ReversePath::Mailbox(address), rest))
}

/// A forward path at the start of `input`, and what follows it.
pub(crate) fn take_forward_path(input: &str) -> Result<(ForwardPath, &str), AddressError> {
    const POSTMASTER: &str = "<Postmaster>";
    if let Some((path, rest)) = input.split_at_checked(POSTMASTER.len())
        && path.eq_ignore_ascii_case(POSTMASTER)
    {
        return Ok((ForwardPath::Postmaster, rest));
    }
    let (address, rest) = take_path(input)?;
    Ok((ForwardPath::Mailbox(address), rest))
}

fn take_path(input: &str) -> Result<(Address, &str), AddressError> {
    let inner = input.strip_prefix('<').ok_or(AddressError::Path)?;
    let (address, rest) = take_mailbox(skip_source_route(inner)?)?;
    Ok((address, rest.strip_prefix('>').ok_or(AddressError::Path)?))
}

/// RFC 5321 appendix C: a source route is accepted and ignored.
fn skip_source_route(input: &str) -> Result<&str, AddressError> {
    if !input.starts_with('@') {
        return Ok(input);
    }
    let mut rest = input;
    loop {
        let at_domain = rest.strip_prefix('@').ok_or(AddressError::Path)?;
        (_, rest) = take_domain(at_domain)?;
        if let Some(mailbox) = rest.strip_prefix(':') {
            return Ok(mailbox);
        }
        rest = rest.strip_prefix(',').ok_or(AddressError::Path)?;
    }
}

fn whole<T>((value, rest): (T, &str)) -> Result<T, AddressError> {
    if rest.is_empty() { Ok(value) } else { Err(AddressError::Path) }
}
