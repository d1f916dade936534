//! Macros (RFC 7208 §7).

use std::net::IpAddr;

use crate::spf::record::BadRecord;

/// Bytes of a name (RFC 7208 §7.3: longer ones lose labels on the left).
const NAME_BYTES_MAX: usize = 253;

/// A text with macros.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Macro { letter: u8, case: Case, keep: usize, order: Order, delimiters: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Plain,
    /// An upper-case letter: escaped for URLs.
    Escaped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    AsIs,
    Reversed,
}

/// What macros stand for.
pub(crate) struct Values<'a> {
    pub(crate) client: IpAddr,
    /// `local@domain` of the identity.
    pub(crate) sender: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) helo: &'a str,
    /// Who judges.
    pub(crate) receiver: &'a str,
    /// Unix seconds.
    pub(crate) time: u64,
    /// A name of the client that leads back to it.
    pub(crate) validated: &'a str,
}

impl Spec {
    /// A domain: it ends in a macro or in a name below the root (RFC 7208 §7.1, `domain-spec`).
    pub(crate) fn parse_domain(text: &str) -> Result<Self, BadRecord> {
        let spec = Self::parse(text, b"slodiphv")?;
        match spec.parts.last() {
            Some(Part::Text(_)) if text.ends_with("%%") => Err(BadRecord),
            Some(Part::Text(text)) => {
                let text = text.strip_suffix('.').unwrap_or(text);
                let (_, top) = text.rsplit_once('.').ok_or(BadRecord)?;
                let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                let good = !top.is_empty()
                    && top.bytes().all(known)
                    && !top.bytes().all(|byte| byte.is_ascii_digit())
                    && !top.starts_with('-')
                    && !top.ends_with('-');
                if good { Ok(spec) } else { Err(BadRecord) }
            }
            Some(Part::Macro { .. }) => Ok(spec),
            None => Err(BadRecord),
        }
    }

    /// The value of a modifier that nobody knows.
    pub(crate) fn parse_text(text: &str) -> Result<Self, BadRecord> {
        Self::parse(text, b"slodiphv")
    }

    /// An explanation: it may have blanks, and more letters.
    pub(crate) fn parse_explanation(text: &str) -> Result<Self, BadRecord> {
        Self::parse(text, b"slodiphvcrt")
    }

    fn parse(text: &str, letters: &[u8]) -> Result<Self, BadRecord> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let kind = rest.bytes().next().ok_or(BadRecord)?;
            match kind {
                b'%' => plain.push('%'),
                b'_' => plain.push(' '),
                b'-' => plain.push_str("%20"),
                b'{' => {
                    let end = rest.find('}').ok_or(BadRecord)?;
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(parse_macro(&rest.as_bytes()[1..end], letters)?);
                    rest = &rest[end + 1..];
                    continue;
                }
                _ => return Err(BadRecord),
            }
            rest = &rest[1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// Whether it has the macro `p`, which takes lookups.
    pub(crate) fn wants_validated(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Macro { letter: b'p', .. }))
    }

    /// The text that it stands for.
    pub(crate) fn expand(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Macro { letter, case, keep, order, delimiters } => {
                    let value = value(*letter, values);
                    let mut labels: Vec<&str> = value
                        .split(|at: char| delimiters.contains(&(at as u32 as u8)) && at.is_ascii())
                        .collect();
                    if *order == Order::Reversed {
                        labels.reverse();
                    }
                    let from = labels.len().saturating_sub(*keep);
                    let joined = labels[from..].join(".");
                    match case {
                        Case::Plain => out.push_str(&joined),
                        Case::Escaped => escape(&joined, &mut out),
                    }
                }
            }
        }
        out
    }

    /// The name that it stands for, which loses labels on the left where it is too long.
    pub(crate) fn expand_domain(&self, values: &Values<'_>) -> String {
        let expanded = self.expand(values);
        let mut name = expanded.strip_suffix('.').unwrap_or(&expanded);
        while name.len() > NAME_BYTES_MAX {
            match name.split_once('.') {
                Some((_, rest)) => name = rest,
                None => break,
            }
        }
        name.to_owned()
    }
}

fn parse_macro(text: &[u8], letters: &[u8]) -> Result<Part, BadRecord> {
    let (&first, rest) = text.split_first().ok_or(BadRecord)?;
    let letter = first.to_ascii_lowercase();
    if !letters.contains(&letter) {
        return Err(BadRecord);
    }
    let case = if first.is_ascii_uppercase() { Case::Escaped } else { Case::Plain };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    let keep = match number {
        [] => usize::MAX,
        number => {
            let text = std::str::from_utf8(number).map_err(|_| BadRecord)?;
            text.parse().unwrap_or(usize::MAX)
        }
    };
    let (order, rest) = match rest.split_first() {
        Some((b'r' | b'R', rest)) => (Order::Reversed, rest),
        _ => (Order::AsIs, rest),
    };
    if keep == 0 || !rest.iter().all(|byte| b".-+,/_=".contains(byte)) {
        return Err(BadRecord);
    }
    let delimiters = if rest.is_empty() { b".".to_vec() } else { rest.to_vec() };
    Ok(Part::Macro { letter, case, keep, order, delimiters })
}

fn value(letter: u8, values: &Values<'_>) -> String {
    let (local, host) = values.sender.rsplit_once('@').unwrap_or(("postmaster", values.sender));
    match letter {
        b's' => values.sender.to_owned(),
        b'l' => local.to_owned(),
        b'o' => host.to_owned(),
        b'd' => values.domain.to_owned(),
        b'i' => match values.client {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let digits: Vec<String> =
                    format!("{:032x}", address.to_bits()).chars().map(String::from).collect();
                digits.join(".")
            }
        },
        b'p' => values.validated.to_owned(),
        b'v' => match values.client {
            IpAddr::V4(_) => "in-addr".to_owned(),
            IpAddr::V6(_) => "ip6".to_owned(),
        },
        b'h' => values.helo.to_owned(),
        b'c' => values.client.to_string(),
        b'r' => values.receiver.to_owned(),
        b't' => values.time.to_string(),
        _ => String::new(),
    }
}

/// RFC 7208 §7.3: all but RFC 3986's unreserved characters.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(client: &str, text: &str, expected: &str) {
        let values = Values {
            client: client.parse().unwrap(),
            sender: "strong-bad@email.example.com",
            domain: "email.example.com",
            helo: "mail.example.com",
            receiver: "mx.example.org",
            time: 1,
            validated: "unknown",
        };
        let spec = Spec::parse_explanation(text).unwrap();
        assert_eq!(spec.expand(&values), expected, "{text}");
    }

    /// RFC 7208 §7.4.
    #[test]
    fn macros_are_expanded() {
        let four = "192.0.2.3";
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{S}", "strong-bad%40email.example.com"),
            ("a%_b%%c%-d", "a b%c%20d"),
        ] {
            check(four, text, expected);
        }
        let six = "2001:db8::cb01";
        let nibbles = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
        check(six, "%{ir}.%{v}._spf.%{d2}", &format!("{nibbles}.ip6._spf.example.com"));
    }

    #[test]
    fn what_is_no_macro_is_refused() {
        for bad in ["%", "%x", "%{", "%{}", "%{z}", "%{d0}", "%{d!}", "%{c}", "%{drr}"] {
            assert_eq!(Spec::parse_text(bad), Err(BadRecord), "{bad}");
        }
    }
}
