//! Command lines (RFC 5321 §4.1.1): the verb, and what each verb's arguments mean.
//!
//! Invariant: parsing knows no session state; the session checks the sequence first and then
//! asks for the arguments.

use crate::config::Mechanism;
use crate::response::Response;
use crate::secret::Secret;

mod parameters;

pub(crate) use parameters::{Offered, mail, rcpt};

/// The first word of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Helo,
    Ehlo,
    Lhlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    Auth,
    StartTls,
    /// Known, but deliberately not implemented.
    Absent,
    Unknown,
}

const VERBS: [(&str, Verb); 22] = [
    ("HELO", Verb::Helo),
    ("EHLO", Verb::Ehlo),
    ("LHLO", Verb::Lhlo),
    ("MAIL", Verb::Mail),
    ("RCPT", Verb::Rcpt),
    ("DATA", Verb::Data),
    ("BDAT", Verb::Bdat),
    ("RSET", Verb::Rset),
    ("NOOP", Verb::Noop),
    ("QUIT", Verb::Quit),
    ("VRFY", Verb::Vrfy),
    ("HELP", Verb::Help),
    ("AUTH", Verb::Auth),
    ("STARTTLS", Verb::StartTls),
    ("EXPN", Verb::Absent),
    ("ETRN", Verb::Absent),
    ("ATRN", Verb::Absent),
    ("TURN", Verb::Absent),
    ("BURL", Verb::Absent),
    ("SEND", Verb::Absent),
    ("SOML", Verb::Absent),
    ("SAML", Verb::Absent),
];

/// Splits a line, without its CRLF, into verb and arguments.
pub(crate) fn split(line: &[u8]) -> Result<(Verb, &str), Response> {
    let line = std::str::from_utf8(line).map_err(|_| Response::LineMalformed)?;
    // RFC 5321 §4.1.1: white space before the CRLF is tolerated.
    let line = line.trim_end_matches([' ', '\t']);
    if line.chars().any(char::is_control) {
        return Err(Response::LineMalformed);
    }
    let (word, arguments) = line.split_once(' ').unwrap_or((line, ""));
    let known = VERBS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    let verb = known.map_or(Verb::Unknown, |(_, verb)| *verb);
    Ok((verb, arguments.trim_start_matches(' ')))
}

/// Whether a BDAT chunk is the message's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Yes,
    No,
}

/// RFC 3030 §2: `chunk-size [SP "LAST"]`.
pub(crate) fn bdat(arguments: &str) -> Option<(u64, Last)> {
    let (size, last) = match arguments.split_once(' ') {
        None => (arguments, Last::No),
        Some((size, last)) if last.trim().eq_ignore_ascii_case("LAST") => (size, Last::Yes),
        Some(_) => return None,
    };
    Some((number(size)?, last))
}

/// RFC 4954 §4: `mechanism [SP initial-response]`.
pub(crate) fn auth(arguments: &str) -> Result<(Mechanism, Option<Secret>), Response> {
    let (name, initial) = match arguments.split_once(' ') {
        None => (arguments, None),
        Some((name, initial)) => (name, Some(initial)),
    };
    if name.is_empty() {
        return Err(Response::BadArguments);
    }
    let mechanism = Mechanism::parse(name).ok_or(Response::UnknownMechanism)?;
    let initial = match initial {
        None => None,
        // An empty response would look like none at all.
        Some("=") => Some(Secret::new(Vec::new())),
        Some("") => return Err(Response::BadArguments),
        Some(text) => Some(Secret::from_base64(text).ok_or(Response::AuthMalformed)?),
    };
    Ok((mechanism, initial))
}

/// 1 to 20 digits. What exceeds 64 bits is above every limit anyway.
fn number(text: &str) -> Option<u64> {
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split() {
        assert_eq!(split(b"mail FROM:<>"), Ok((Verb::Mail, "FROM:<>")));
        assert_eq!(split(b"NOOP \t "), Ok((Verb::Noop, "")));
        assert_eq!(split(b""), Ok((Verb::Unknown, "")));
        assert_eq!(split(b"MAILFROM:<>"), Ok((Verb::Unknown, "")));
        assert_eq!(split(b"EXPN list"), Ok((Verb::Absent, "list")));
        for line in [b"NOOP\0".as_slice(), b"NO\rOP", b"NOOP \n x", b"NOOP \xff", b"NOOP\tx"] {
            assert_eq!(split(line), Err(Response::LineMalformed), "{line:?}");
        }
    }

    #[test]
    fn bdat_arguments() {
        assert_eq!(bdat("0"), Some((0, Last::No)));
        assert_eq!(bdat("86 last"), Some((86, Last::Yes)));
        assert_eq!(bdat("99999999999999999999"), Some((u64::MAX, Last::No)));
        for text in ["", "LAST", "-1", "+1", "1 2", "1 LAST x", "999999999999999999999", "0x1"] {
            assert_eq!(bdat(text), None, "{text:?}");
        }
    }

    #[test]
    fn auth_arguments() {
        let parsed = |text| {
            auth(text).map(|(name, initial)| (name, initial.map(|octets| octets.expose().to_vec())))
        };
        assert_eq!(parsed("plain"), Ok((Mechanism::Plain, None)));
        assert_eq!(parsed("LOGIN ="), Ok((Mechanism::Login, Some(Vec::new()))));
        assert_eq!(parsed("SCRAM-SHA-256 bg=="), Ok((Mechanism::ScramSha256, Some(b"n".to_vec()))));
        assert_eq!(parsed(""), Err(Response::BadArguments));
        assert_eq!(parsed("GSSAPI"), Err(Response::UnknownMechanism));
        assert_eq!(parsed("PLAIN b"), Err(Response::AuthMalformed));
        assert_eq!(parsed("PLAIN bg== x"), Err(Response::AuthMalformed));
    }
}
