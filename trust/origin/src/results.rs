//! `Authentication-Results` (RFC 8601): saying what was found, and finding who says it was us.

use std::ops::Range;

use message::Field;

use crate::{
    Connection, Verdicts, dkim::DkimVerdict, dmarc::DmarcResult, iprev::IprevResult,
    spf::SpfVerdict,
};

/// Bytes of one value that are repeated; addresses and domains in use are shorter.
const VALUE_BYTES_MAX: usize = 320;

/// One result a line, without what is between them.
pub(crate) fn results(
    connection: &Connection,
    sender: &SpfVerdict,
    verdicts: &Verdicts,
) -> Vec<String> {
    let mut lines = Vec::new();
    let iprev = &connection.iprev;
    let name = match (iprev.result, &iprev.name) {
        (IprevResult::Pass, Some(name)) => format!(" ({})", comment(name)),
        _ => String::new(),
    };
    let peer = value(&connection.peer.to_string());
    lines.push(format!("iprev={}{name} policy.iprev={peer}", iprev.result.as_str()));
    let helo = &connection.spf_helo;
    lines.push(format!("spf={} smtp.helo={}", helo.result.as_str(), value(&helo.identity)));
    if sender.identity != helo.identity {
        let identity = value(&sender.identity);
        lines.push(format!("spf={} smtp.mailfrom={identity}", sender.result.as_str()));
    }
    if verdicts.dkim.is_empty() {
        lines.push("dkim=none".to_owned());
    }
    lines.extend(verdicts.dkim.iter().map(dkim));
    let arc = &verdicts.arc;
    if arc.instances > 0 {
        let reason = arc.reason.map(|reason| format!(" ({})", comment(&reason.to_string())));
        let reason = reason.unwrap_or_default();
        lines.push(format!("arc={}{reason}", arc.result.as_str()));
    }
    let dmarc = &verdicts.dmarc;
    let author = match dmarc.author_domain.as_str() {
        "" => String::new(),
        author => format!(" header.from={}", value(author)),
    };
    // RFC 9989 §5.4 wants the field where a message fails; what was asked for and what was done is for people.
    let policy = match dmarc.result {
        DmarcResult::Fail => {
            format!(" (p={} dis={})", dmarc.policy.as_str(), dmarc.disposition.as_str())
        }
        _ => String::new(),
    };
    lines.push(format!("dmarc={}{policy}{author}", dmarc.result.as_str()));
    lines
}

fn dkim(verdict: &DkimVerdict) -> String {
    let mut line = format!("dkim={}", verdict.result.as_str());
    if let Some(reason) = verdict.reason {
        line.push_str(&format!(" ({})", comment(&reason.to_string())));
    } else if verdict.testing {
        line.push_str(" (testing)");
    }
    for (name, of) in [
        ("header.d", &verdict.domain),
        ("header.i", &verdict.identity),
        ("header.s", &verdict.selector),
        ("header.b", &verdict.signature_start),
    ] {
        if !of.is_empty() {
            line.push_str(&format!(" {name}={}", value(of)));
        }
    }
    line
}

/// A whole field, one result a line.
pub(crate) fn field(name: &str, hostname: &str, results: &[String]) -> String {
    let mut field = format!("{name}: {hostname}");
    for result in results {
        field.push_str(";\r\n\t");
        field.push_str(result);
    }
    field.push_str("\r\n");
    field
}

/// A value as RFC 8601 §2.2 has them: as it is, where it is a token or an address of such, else
/// quoted. Control characters are left out, so that nobody begins a line of his own.
fn value(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~@".contains(&byte);
    let mut text: String = text.chars().filter(|at| !at.is_control()).collect();
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    if !text.is_empty() && text.bytes().all(plain) {
        return text;
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// What may stand in a comment.
fn comment(text: &str) -> String {
    let plain = |at: &char| at.is_ascii_graphic() && !"()\\".contains(*at) || *at == ' ';
    text.chars().filter(plain).take(VALUE_BYTES_MAX).collect()
}

/// Fields that claim to be `hostname`'s, and those of which it cannot be told whose they are.
pub(crate) fn forged(fields: &[Field<'_>], hostname: &str) -> Vec<Range<usize>> {
    let ours = |field: &&Field<'_>| {
        field.is("Authentication-Results")
            && server(field.value).is_none_or(|server| server.eq_ignore_ascii_case(hostname))
    };
    fields.iter().filter(ours).map(|it| it.offset..it.offset + it.raw.len()).collect()
}

/// Who judged, behind comments and out of quotes.
fn server(value: &[u8]) -> Option<String> {
    let mut rest = value;
    loop {
        rest = rest.trim_ascii_start();
        if rest.first() != Some(&b'(') {
            break;
        }
        rest = after_comment(rest)?;
    }
    let mut server = Vec::new();
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut bytes = quoted.iter();
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => server.push(*bytes.next()?),
                byte => server.push(*byte),
            }
        }
    } else {
        let end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b';' | b'(');
        let length = rest.iter().position(end).unwrap_or(rest.len());
        server.extend_from_slice(&rest[..length]);
    }
    let server = String::from_utf8(server).ok()?;
    let server = server.trim().trim_end_matches('.');
    (!server.is_empty()).then(|| server.to_owned())
}

/// What follows a comment, those inside it included (RFC 5322 §3.2.2).
fn after_comment(text: &[u8]) -> Option<&[u8]> {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => {
                depth -= 1;
                if depth == 0 {
                    return text.get(at + 1..);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use message::Fields;

    use super::*;

    #[test]
    fn those_that_claim_to_be_ours_are_found() {
        #[track_caller]
        fn check(value: &str, found: bool) {
            let header =
                format!("Subject: a\r\nauthentication-results:{value}\r\nFrom: b@c.example\r\n");
            let fields: Vec<_> = Fields::new(header.as_bytes()).collect();
            let ranges = forged(&fields, "mx.example.org");
            assert_eq!(!ranges.is_empty(), found, "{value:?}");
            for range in ranges {
                assert!(header[range].starts_with("authentication-results:"));
            }
        }
        check(" mx.example.org; dkim=pass", true);
        check(" MX.Example.Org 1; dkim=pass", true);
        check("\r\n\t(a (b\\)) c)\r\n mx.example.org (d) 1; dkim=pass", true);
        check(" \"mx.example\\.org\"; none", true);
        check(" mx.example.org.; none", true);
        check(" mx.example.org(x); none", true);
        check(" (never ends mx.example.net; none", true);
        check(" \"never ends", true);
        check("", true);
        check(" mx.example.net; dkim=pass", false);
        check(" notmx.example.org; dkim=pass", false);
        check(" mx.example.net (mx.example.org); dkim=pass", false);
    }

    #[test]
    fn values_cannot_begin_a_line() {
        assert_eq!(value("a@b.example"), "a@b.example");
        assert_eq!(value("a b\r\n\"c\\"), "\"a b\\\"c\\\\\"");
        assert_eq!(value(""), "\"\"");
        assert_eq!(value(&"é".repeat(1_000)).len(), VALUE_BYTES_MAX + 2);
        assert_eq!(comment("a) (b\r\n\\c"), "a bc");
    }
}
