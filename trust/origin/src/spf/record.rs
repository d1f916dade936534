//! SPF records (RFC 7208 §4.5, §5, §6, §12).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    limits::{SPF_RECORD_BYTES_MAX, SPF_TERMS_MAX},
    spf::{SpfResult, macros::Spec},
};

/// The record has an error (RFC 7208 §4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRecord;

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) directives: Vec<Directive>,
    pub(crate) redirect: Option<Spec>,
    pub(crate) explanation: Option<Spec>,
}

#[derive(Debug)]
pub(crate) struct Directive {
    /// What the record says of a client that matches.
    pub(crate) result: SpfResult,
    pub(crate) mechanism: Mechanism,
    pub(crate) text: String,
}

/// Bits of an address that have to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) four: u8,
    pub(crate) six: u8,
}

#[derive(Debug)]
pub(crate) enum Mechanism {
    All,
    Include(Spec),
    A(Option<Spec>, Bits),
    Mx(Option<Spec>, Bits),
    Ptr(Option<Spec>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(Spec),
}

/// The one text that is an SPF record (RFC 7208 §4.5).
///
/// # Errors
/// [`BadRecord`] where there are several.
pub(crate) fn select(texts: &[Vec<u8>]) -> Result<Option<&[u8]>, BadRecord> {
    let ours = |text: &&Vec<u8>| {
        text.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"v=spf1"))
            && matches!(text.get(6), None | Some(b' '))
    };
    let mut found = texts.iter().filter(ours);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(BadRecord),
        (found, _) => Ok(found.map(|text| &text[6..])),
    }
}

impl Record {
    /// Reads what follows the version.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BadRecord> {
        let text = std::str::from_utf8(text).map_err(|_| BadRecord)?;
        // RFC 7208 §3.1: ASCII alone.
        if !text.is_ascii() || text.len() > SPF_RECORD_BYTES_MAX {
            return Err(BadRecord);
        }
        let mut record = Self { directives: Vec::new(), redirect: None, explanation: None };
        let terms = text.split(' ').filter(|term| !term.is_empty());
        for (count, term) in terms.enumerate() {
            if count == SPF_TERMS_MAX {
                return Err(BadRecord);
            }
            match modifier(term) {
                Some((name, value)) => record.add_modifier(name, value)?,
                None => record.directives.push(directive(term)?),
            }
        }
        Ok(record)
    }

    fn add_modifier(&mut self, name: &str, value: &str) -> Result<(), BadRecord> {
        let place = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explanation,
            // RFC 7208 §6: what is not known is passed over, if it is written rightly.
            _ => return Spec::parse_text(value).map(|_| ()),
        };
        // RFC 7208 §6: not more than once.
        match place.replace(Spec::parse_domain(value)?) {
            None => Ok(()),
            Some(_) => Err(BadRecord),
        }
    }
}

/// Name and value of a modifier: what begins with a name and `=`.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let mut bytes = name.bytes();
    let named = bytes.next()?.is_ascii_alphabetic()
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    named.then_some((name, value))
}

fn directive(term: &str) -> Result<Directive, BadRecord> {
    let (result, text) = match term.as_bytes().first() {
        Some(b'+') => (SpfResult::Pass, &term[1..]),
        Some(b'-') => (SpfResult::Fail, &term[1..]),
        Some(b'~') => (SpfResult::SoftFail, &term[1..]),
        Some(b'?') => (SpfResult::Neutral, &term[1..]),
        _ => (SpfResult::Pass, term),
    };
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let argument = rest.strip_prefix(':');
    let mechanism = match (name.to_ascii_lowercase().as_str(), argument) {
        ("all", None) if rest.is_empty() => Mechanism::All,
        ("include", Some(domain)) => Mechanism::Include(Spec::parse_domain(domain)?),
        ("exists", Some(domain)) => Mechanism::Exists(Spec::parse_domain(domain)?),
        ("ptr", None) if rest.is_empty() => Mechanism::Ptr(None),
        ("ptr", Some(domain)) => Mechanism::Ptr(Some(Spec::parse_domain(domain)?)),
        ("a", _) => {
            let (domain, bits) = domain_and_bits(rest)?;
            Mechanism::A(domain, bits)
        }
        ("mx", _) => {
            let (domain, bits) = domain_and_bits(rest)?;
            Mechanism::Mx(domain, bits)
        }
        ("ip4", Some(network)) => {
            let (address, bits) = network.split_once('/').map_or((network, None), split_bits);
            let bits = bits.map_or(Ok(32), |bits| number(bits, 32))?;
            Mechanism::Ip4(address.parse().map_err(|_| BadRecord)?, bits)
        }
        ("ip6", Some(network)) => {
            let (address, bits) = network.split_once('/').map_or((network, None), split_bits);
            let bits = bits.map_or(Ok(128), |bits| number(bits, 128))?;
            Mechanism::Ip6(address.parse().map_err(|_| BadRecord)?, bits)
        }
        _ => return Err(BadRecord),
    };
    Ok(Directive { result, mechanism, text: term.to_owned() })
}

fn split_bits<'a>((address, bits): (&'a str, &'a str)) -> (&'a str, Option<&'a str>) {
    (address, Some(bits))
}

fn number(text: &str, max: u8) -> Result<u8, BadRecord> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    // RFC 7208 §5.6: without leading zeros.
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(BadRecord);
    }
    text.parse().ok().filter(|number| *number <= max).ok_or(BadRecord)
}

/// `[":" domain-spec] [dual-cidr-length]`; a macro may have a slash in it as well.
fn domain_and_bits(rest: &str) -> Result<(Option<Spec>, Bits), BadRecord> {
    let mut bits = Bits { four: 32, six: 128 };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut rest = rest;
    if let Some((before, six)) = rest.rsplit_once("//")
        && digits(six)
    {
        bits.six = number(six, 128)?;
        rest = before;
    }
    if let Some((before, four)) = rest.rsplit_once('/')
        && digits(four)
    {
        bits.four = number(four, 32)?;
        rest = before;
    }
    let domain = match rest.strip_prefix(':') {
        Some(domain) => Some(Spec::parse_domain(domain)?),
        None if rest.is_empty() => None,
        None => return Err(BadRecord),
    };
    Ok((domain, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_is_selected() {
        let texts = |texts: &[&str]| texts.iter().map(|it| it.as_bytes().to_vec()).collect();
        let select = |list: Vec<Vec<u8>>| select(&list).map(|it| it.map(<[u8]>::to_vec));
        assert_eq!(select(texts(&["other", "V=SPF1 -all"])), Ok(Some(b" -all".to_vec())));
        assert_eq!(select(texts(&["v=spf1"])), Ok(Some(vec![])));
        assert_eq!(select(texts(&["v=spf10 -all", "v=spf2"])), Ok(None));
        assert_eq!(select(texts(&["v=spf1", "v=spf1 a"])), Err(BadRecord));
    }

    #[test]
    fn terms_are_read() {
        for good in [
            "",
            " all",
            " a",
            " a/24",
            " a//64",
            " a/24//64",
            " a:b.example/24",
            " mx:%{d}",
            " ip4:192.0.2.0/24",
            " ip6:2001:db8::/32",
            " ptr",
            " ?ptr:b.example",
            " exists:%{i}.b.example",
            " redirect=b.example",
            " exp=b.example",
            " op=%{s}",
            " unknown-name.x=",
            " A:B.EXAMPLE",
            " a:%{d1r/}.b.example/8",
        ] {
            assert!(Record::parse(good.as_bytes()).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn wrong_terms_are_refused() {
        for bad in [
            " all:x",
            " all/8",
            " include",
            " include:",
            " a:",
            " a/",
            " a/33",
            " a/08",
            " a//129",
            " a/8/8",
            " ip4:192.0.2",
            " ip4:192.0.2.0/33",
            " ip4",
            " ip6:192.0.2.1",
            " ip6:::1/129",
            " ptr/8",
            " exists",
            " nothing",
            " -",
            " a:example",
            " a:b.123",
            " a:b.example-",
            " redirect=a.example redirect=a.example",
            " exp=",
            " redirect=",
            " a:%{x}.example",
            " op=%",
            " a\t-all",
            " a:b.ex\u{e4}mple",
        ] {
            assert!(Record::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
