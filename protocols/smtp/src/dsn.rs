//! The parameters of delivery status notifications (RFC 3461) and their xtext.
//!
//! Invariant: values are kept decoded; `Display` gives the encoded form of the wire.

use std::fmt;

use crate::limits::{ENVID_CHARS_MAX, ORCPT_CHARS_MAX};

/// RET: what a failure notification returns of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

impl fmt::Display for Ret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Ret::Full => "FULL",
            Ret::Headers => "HDRS",
        })
    }
}

/// NOTIFY: when the sender wants to hear of a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notify {
    /// Not said: the server's default, i.e. failures and perhaps delays.
    #[default]
    Default,
    /// In no case.
    Never,
    /// In these cases, of which there is at least one.
    On(NotifyOn),
}

/// The cases of NOTIFY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyOn {
    /// When the message was delivered.
    pub success: bool,
    /// When it cannot be delivered.
    pub failure: bool,
    /// When it is late.
    pub delay: bool,
}

impl Ret {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            _ if text.eq_ignore_ascii_case("FULL") => Some(Ret::Full),
            _ if text.eq_ignore_ascii_case("HDRS") => Some(Ret::Headers),
            _ => None,
        }
    }
}

impl Notify {
    /// Parses what stands behind `NOTIFY=`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Notify::Never);
        }
        let mut on = NotifyOn::default();
        for case in text.split(',') {
            let flag = match case {
                _ if case.eq_ignore_ascii_case("SUCCESS") => &mut on.success,
                _ if case.eq_ignore_ascii_case("FAILURE") => &mut on.failure,
                _ if case.eq_ignore_ascii_case("DELAY") => &mut on.delay,
                _ => return None,
            };
            *flag = true;
        }
        Some(Notify::On(on))
    }

    /// Whether the sender wants to hear of a delivery: only if it says so.
    pub fn success(self) -> bool {
        matches!(self, Notify::On(on) if on.success)
    }

    /// Whether it wants to hear of a failure: also if it says nothing (RFC 3461 §4.1).
    pub fn failure(self) -> bool {
        match self {
            Notify::Default => true,
            Notify::Never => false,
            Notify::On(on) => on.failure,
        }
    }

    /// Whether it wants to hear of a delay: also if it says nothing (RFC 3461 §4.1).
    pub fn delay(self) -> bool {
        match self {
            Notify::Default => true,
            Notify::Never => false,
            Notify::On(on) => on.delay,
        }
    }
}

impl NotifyOn {
    /// The cases' names, as NOTIFY lists them.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let cases = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        cases.into_iter().filter_map(|(on, name)| on.then_some(name))
    }
}

/// ENVID: the sender's own name for the transaction; printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeId(String);

impl EnvelopeId {
    /// Parses the encoded form.
    pub fn parse(xtext: &str) -> Option<Self> {
        if xtext.is_empty() || xtext.len() > ENVID_CHARS_MAX {
            return None;
        }
        // RFC 3461 §4.4: decoded, it has printable US-ASCII only.
        let text = decode_xtext(xtext)?;
        text.bytes().all(|octet| matches!(octet, b' '..=b'~')).then_some(EnvelopeId(text))
    }

    /// Decoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_xtext(formatter, &self.0)
    }
}

/// ORCPT: the address that the sender gave before anyone rewrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    kind: String,
    address: String,
}

impl OriginalRecipient {
    /// Parses `addr-type ";" xtext`, or the utf-8 forms of RFC 6533 §3.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > ORCPT_CHARS_MAX {
            return None;
        }
        let (kind, encoded) = text.split_once(';')?;
        let kind_char = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        if kind.is_empty() || !kind.bytes().all(kind_char) || encoded.is_empty() {
            return None;
        }
        let kind = kind.to_ascii_lowercase();
        let address = match kind.as_str() {
            "utf-8" => decode_utf8_address(encoded)?,
            _ => decode_xtext(encoded)?,
        };
        let clean = !address.chars().any(char::is_control);
        clean.then_some(OriginalRecipient { kind, address })
    }

    /// The address type, e.g. `rfc822`, in lower case.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The address, decoded. It need not be valid in its type.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it was sent in ASCII, as it must be without SMTPUTF8.
    pub(crate) fn is_ascii(&self) -> bool {
        self.address.is_ascii()
    }
}

impl fmt::Display for OriginalRecipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{};", self.kind)?;
        if self.kind != "utf-8" {
            return write_xtext(formatter, &self.address);
        }
        for c in self.address.chars() {
            match c {
                '!'..='~' if !matches!(c, '+' | '=' | '\\') => write!(formatter, "{c}")?,
                _ => write!(formatter, "\\x{{{:02X}}}", u32::from(c))?,
            }
        }
        Ok(())
    }
}

/// RFC 3461 §4: `+` and two upper-case hexadecimal digits for what is no xchar.
pub(crate) fn decode_xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => upper_hex(rest.next()?)? << 4 | upper_hex(rest.next()?)?,
            b'!'..=b'~' if octet != b'=' => octet,
            _ => return None,
        });
    }
    String::from_utf8(octets).ok()
}

/// RFC 6533 §3: `\x{...}` for characters that cannot stand for themselves.
fn decode_utf8_address(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(escape) = rest.strip_prefix("\\x{") {
            let (digits, after) = escape.split_once('}')?;
            let hex = (2..=6).contains(&digits.len())
                && digits.bytes().all(|octet| upper_hex(octet).is_some());
            let point = u32::from_str_radix(digits, 16).ok().filter(|_| hex)?;
            decoded.push(char::from_u32(point)?);
            rest = after;
        } else {
            if !matches!(c, '!'..='~' | '\u{80}'..) || matches!(c, '+' | '=' | '\\') {
                return None;
            }
            decoded.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Some(decoded)
}

pub(crate) fn write_xtext(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for octet in text.bytes() {
        match octet {
            b'!'..=b'~' if !matches!(octet, b'+' | b'=') => {
                write!(formatter, "{}", char::from(octet))?;
            }
            _ => write!(formatter, "+{octet:02X}")?,
        }
    }
    Ok(())
}

fn upper_hex(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_orcpt(text: &str, expected: Option<(&str, &str)>) {
        let parsed = OriginalRecipient::parse(text);
        let fields = parsed.as_ref().map(|orcpt| (orcpt.kind(), orcpt.address()));
        assert_eq!(fields, expected, "{text:?}");
        if let Some(orcpt) = parsed {
            assert_eq!(OriginalRecipient::parse(&orcpt.to_string()), Some(orcpt), "{text:?}");
        }
    }

    #[test]
    fn original_recipients() {
        check_orcpt("RFC822;a+2Bb@c", Some(("rfc822", "a+b@c")));
        check_orcpt("x-y;+20", Some(("x-y", " ")));
        check_orcpt("utf-8;j\u{f6}@c", Some(("utf-8", "j\u{f6}@c")));
        check_orcpt("utf-8;j\\x{F6}\\x{5C}@c", Some(("utf-8", "j\u{f6}\\@c")));
        for text in ["", "rfc822", "rfc822;", ";a", "rfc822;a+2", "rfc822;a+2b", "rfc822;a=b"] {
            check_orcpt(text, None);
        }
        for text in ["rfc822;+0D", "rfc822;+FF", "utf-8;\\x{D800}", "utf-8;\\x{+41}", "r c;a"] {
            check_orcpt(text, None);
        }
        check_orcpt(&format!("rfc822;{}", "a".repeat(ORCPT_CHARS_MAX)), None);
    }

    #[test]
    fn envelope_ids() {
        let shown =
            |text| EnvelopeId::parse(text).map(|id| (id.as_str().to_owned(), id.to_string()));
        assert_eq!(shown("a+20b"), Some(("a b".to_owned(), "a+20b".to_owned())));
        assert_eq!(shown("a+2B"), Some(("a+".to_owned(), "a+2B".to_owned())));
        for text in ["", "a b", "+0A", "+C3+A9", "+", "a=b", &"a".repeat(ENVID_CHARS_MAX + 1)] {
            assert_eq!(shown(text), None, "{text:?}");
        }
    }

    #[test]
    fn notify_and_ret() {
        let on = |success, failure, delay| Some(Notify::On(NotifyOn { success, failure, delay }));
        assert_eq!(Notify::parse("never"), Some(Notify::Never));
        assert_eq!(Notify::parse("SUCCESS,delay"), on(true, false, true));
        assert_eq!(Notify::parse("FAILURE"), on(false, true, false));
        for text in ["", "NEVER,DELAY", "SUCCESS,", "x"] {
            assert_eq!(Notify::parse(text), None, "{text:?}");
        }
        let wants = |notify: Notify| (notify.success(), notify.failure(), notify.delay());
        assert_eq!(wants(Notify::Default), (false, true, true));
        assert_eq!(wants(Notify::Never), (false, false, false));
        for (text, wanted) in [
            ("SUCCESS", (true, false, false)),
            ("FAILURE", (false, true, false)),
            ("DELAY,SUCCESS", (true, false, true)),
        ] {
            assert_eq!(Notify::parse(text).map(wants), Some(wanted));
        }
        assert_eq!(Ret::parse("hdrs"), Some(Ret::Headers));
        assert_eq!(Ret::parse("FULL"), Some(Ret::Full));
        assert_eq!(Ret::parse("HALF"), None);
    }

    proptest! {
        #[test]
        fn parsed_values_round_trip(text in "(rfc822|utf-8);[ -~\u{e4}\u{1f600}]{1,20}", id in "[!-~]{1,20}") {
            if let Some(orcpt) = OriginalRecipient::parse(&text) {
                prop_assert_eq!(OriginalRecipient::parse(&orcpt.to_string()), Some(orcpt));
            }
            if let Some(envid) = EnvelopeId::parse(&id) {
                prop_assert_eq!(EnvelopeId::parse(&envid.to_string()), Some(envid));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = OriginalRecipient::parse(&text);
            let _ = EnvelopeId::parse(&text);
            let _ = Notify::parse(&text);
        }
    }
}
