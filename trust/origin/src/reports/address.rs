//! Where reports go.

use crate::tags::Tags;

/// Addresses of one record that are taken; more are left out.
const ADDRESSES_MAX: usize = 10;

/// Somebody who wants reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportAddress {
    /// A mail address.
    pub address: String,
    /// Bytes of the largest report that is wanted (RFC 7489 §6.2); RFC 9990 has no such bound any more.
    pub bytes_max: Option<u64>,
}

impl ReportAddress {
    /// The domain that has to want reports about others ([`crate::Judge::accepts_reports`]).
    pub fn domain(&self) -> &str {
        self.address.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// The mail addresses among a record's URIs, such as `mailto:a@b.example!10m`.
pub fn report_addresses(uris: &[String]) -> Vec<ReportAddress> {
    uris.iter().filter_map(|uri| parse(uri)).take(ADDRESSES_MAX).collect()
}

fn parse(uri: &str) -> Option<ReportAddress> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("mailto") {
        return None;
    }
    let rest = rest.split_once('?').map_or(rest, |(address, _)| address);
    let (address, bytes_max) = match rest.rsplit_once('!') {
        Some((address, size)) => (address, Some(parse_size(size)?)),
        None => (rest, None),
    };
    let address = percent_decoded(address)?;
    let (local, host) = address.rsplit_once('@')?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"<>,;\"\\".contains(&byte);
    let host = crate::domain::ascii(host)?;
    if local.is_empty() || !local.bytes().all(plain) {
        return None;
    }
    Some(ReportAddress { address: format!("{local}@{host}"), bytes_max })
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|at: char| at.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// RFC 3986 §2.1.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match byte {
            b'%' => out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// Where a domain wants TLS reports: the URIs of the one record among the texts at `_smtp._tls.DOMAIN`
/// (RFC 8460 §3); `https` ones are among them.
pub fn tls_report_uris(texts: &[Vec<u8>]) -> Option<Vec<String>> {
    let uris = |text: &Vec<u8>| {
        let tags = Tags::parse(text).ok()?;
        (tags.first() == Some(("v", "TLSRPTv1"))).then(|| tags.compact("rua"))?
    };
    let mut found = texts.iter().filter_map(uris);
    let (Some(uris), None) = (found.next(), found.next()) else { return None };
    let uris = uris.split(',').filter(|uri| !uri.is_empty()).map(str::to_owned);
    Some(uris.take(ADDRESSES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let of = |uri: &str| report_addresses(&[uri.to_owned()]).pop();
        let found = of("mailto:Dmarc+x@Example.ORG!10m").unwrap();
        assert_eq!(
            (found.address.as_str(), found.bytes_max),
            ("Dmarc+x@example.org", Some(10 << 20))
        );
        assert_eq!(found.domain(), "example.org");
        assert_eq!(of("MAILTO:a%2bb@c.example?subject=x").unwrap().address, "a+b@c.example");
        for bad in [
            "https://example.org/",
            "mailto:",
            "mailto:a",
            "mailto:@b.example",
            "mailto:a@b.example!x",
            "mailto:a%0d%0aB@c.example",
            "mailto:a%zz@c.example",
            "mailto:a b@c.example",
            "mailto:a@b.example!99999999999999999999t",
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn tls_records_are_read() {
        let record = |text: &str| vec![text.as_bytes().to_vec()];
        let found =
            tls_report_uris(&record("v=TLSRPTv1; rua=mailto:a@b.example,https://c.example/"));
        assert_eq!(found.unwrap(), ["mailto:a@b.example", "https://c.example/"]);
        assert_eq!(tls_report_uris(&record("v=TLSRPTv2; rua=mailto:a@b.example")), None);
        assert_eq!(tls_report_uris(&[]), None);
    }
}
