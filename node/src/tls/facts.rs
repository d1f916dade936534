//! What a certificate says of itself: hosts, dates, issuer (RFC 5280 §4.1, §4.2.1.6).
//!
//! Nothing is believed of what is read here: whether a chain is good its clients decide. It chooses
//! among certificates and tells people of them.

use env::Timestamp;

use super::der::{
    CONTEXT_0, CONTEXT_3, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
    UTC_TIME, element, next,
};

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// DNS names, in lower case; `*.` at the beginning stands for one label. In the certificate's
    /// order.
    pub hosts: Vec<String>,
    /// From when on it is good.
    pub not_before: Timestamp,
    /// Until when it is good.
    pub not_after: Timestamp,
    /// Whom it is for (DER).
    pub(super) subject: Vec<u8>,
    /// Who issued it (DER).
    pub(super) issuer: Vec<u8>,
}

/// 2.5.29.17: subjectAltName.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// RFC 5280 §4.2.1.6: `dNSName [2] IA5String`.
const DNS_NAME: u8 = 0x82;

impl Facts {
    /// Reads a certificate (DER); `None` where it is none.
    ///
    /// ```text
    /// TBSCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer, validity,
    ///     subject, subjectPublicKeyInfo, [1] OPTIONAL, [2] OPTIONAL, [3] extensions OPTIONAL }
    /// ```
    pub(super) fn read(certificate: &[u8]) -> Option<Self> {
        let (fields, _) = element(certificate, SEQUENCE)?;
        let (body, _) = element(fields, SEQUENCE)?;
        let body = element(body, CONTEXT_0).map_or(body, |(_, rest)| rest);
        let (_, rest) = element(body, INTEGER)?;
        let (_, rest) = element(rest, SEQUENCE)?;
        let (issuer, rest) = element(rest, SEQUENCE)?;
        let (validity, rest) = element(rest, SEQUENCE)?;
        let (subject, rest) = element(rest, SEQUENCE)?;
        let (_, mut rest) = element(rest, SEQUENCE)?;
        let (not_before, after) = time(validity)?;
        let (not_after, _) = time(after)?;
        let mut hosts = Vec::new();
        while let Some((tag, content, behind)) = next(rest) {
            if tag == CONTEXT_3 {
                hosts = of_extensions(content)?;
            }
            rest = behind;
        }
        let (issuer, subject) = (issuer.to_vec(), subject.to_vec());
        Some(Self { hosts, not_before, not_after, subject, issuer })
    }
}

/// The bytes of a certificate's (DER) SubjectPublicKeyInfo, its own tag and length included; `None`
/// where it is no certificate.
pub(crate) fn public_key_info(certificate: &[u8]) -> Option<&[u8]> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (body, _) = element(fields, SEQUENCE)?;
    let body = element(body, CONTEXT_0).map_or(body, |(_, rest)| rest);
    let (_, mut rest) = element(body, INTEGER)?;
    // signature, issuer, validity, subject
    for _ in 0..4 {
        (_, rest) = element(rest, SEQUENCE)?;
    }
    let (_, behind) = element(rest, SEQUENCE)?;
    Some(&rest[..rest.len() - behind.len()])
}

/// `Extensions ::= SEQUENCE OF SEQUENCE { extnID, critical BOOLEAN DEFAULT FALSE, extnValue }`
fn of_extensions(extensions: &[u8]) -> Option<Vec<String>> {
    let (mut rest, _) = element(extensions, SEQUENCE)?;
    while !rest.is_empty() {
        let (extension, behind) = element(rest, SEQUENCE)?;
        rest = behind;
        let (identifier, value) = element(extension, OBJECT_IDENTIFIER)?;
        if identifier != SUBJECT_ALT_NAME {
            continue;
        }
        let (tag, content, behind) = next(value)?;
        let octets = if tag == OCTET_STRING { content } else { element(behind, OCTET_STRING)?.0 };
        let (mut names, _) = element(octets, SEQUENCE)?;
        let mut hosts = Vec::new();
        while let Some((tag, name, behind)) = next(names) {
            if tag == DNS_NAME {
                hosts.extend(host(name).filter(|host| !hosts.contains(host)));
            }
            names = behind;
        }
        return Some(hosts);
    }
    Some(Vec::new())
}

/// A host as TLS clients can ask for it; what is none is left out.
fn host(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let is_host = !labels.is_empty()
        && name.len() <= 253
        && labels.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
    is_host.then_some(name)
}

/// RFC 5280 §4.1.2.5: `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from 2050 on.
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, text, rest) = next(der)?;
    let (year, digits) = match tag {
        UTC_TIME => {
            let year = number(text.get(..2)?)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (number(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    let digits = digits.strip_suffix(b"Z").filter(|digits| digits.len() == 10)?;
    let mut pairs = digits.chunks(2).map(number);
    let mut within = |range: std::ops::RangeInclusive<i64>| {
        pairs.next().flatten().filter(|value| range.contains(value))
    };
    let (month, day) = (within(1..=12)?, within(1..=31)?);
    let (hour, minute, second) = (within(0..=23)?, within(0..=59)?, within(0..=60)?);
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((Timestamp::from_unix_seconds(seconds), rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

/// Days from 1970-01-01 to a day of the Gregorian calendar: years begin in March here, so that a
/// leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> Vec<u8> {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn hosts_and_dates_are_read() {
        let names = ["mx.Example.org", "*.example.org", "192.0.2.1", "mx.example.org"];
        let der = made(&names, |params| {
            params.not_before = rcgen::date_time_ymd(2024, 2, 29);
            params.not_after = rcgen::date_time_ymd(2051, 12, 31);
        });
        let facts = Facts::read(&der).unwrap();
        assert_eq!(facts.hosts, ["mx.example.org", "*.example.org"]);
        assert_eq!(facts.not_before.unix_seconds(), 1_709_164_800);
        assert_eq!(facts.not_after.unix_seconds(), 2_587_593_600);
        assert_eq!(facts.issuer, facts.subject);
        assert!(Facts::read(&made(&[], |_| {})).unwrap().hosts.is_empty());
    }

    #[test]
    fn the_public_key_is_found() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["mx.example.org".to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(
            public_key_info(&der),
            Some(&rcgen::PublicKeyData::subject_public_key_info(&key)[..])
        );
    }

    #[test]
    fn no_damage_panics() {
        let der = made(&["mx.example.org", "a.example.org"], |_| {});
        for at in 0..der.len() {
            assert_eq!(Facts::read(&der[..at]), None, "cut at {at}");
            for bits in [0x01, 0x80, 0xff] {
                let mut flipped = der.clone();
                flipped[at] ^= bits;
                // Whatever it says then, it says it in bounded time and memory.
                let _facts = Facts::read(&flipped);
                let _key = public_key_info(&flipped);
            }
        }
    }

    #[test]
    fn what_no_client_asks_for_is_no_host() {
        for name in ["", "*", "*.", "a..b", "a b", "\u{fc}.example.org", "a.*.org", ".a"] {
            assert_eq!(host(name.as_bytes()), None, "{name}");
        }
        assert_eq!(host(&[b'a'; 64]), None);
        assert_eq!(host(&[0xff]), None);
        assert_eq!(host(b"*.A_b.org").as_deref(), Some("*.a_b.org"));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let read = |tag: u8, text: &[u8]| {
            let der = [&[tag, u8::try_from(text.len()).unwrap()], text].concat();
            time(&der).map(|(time, _)| time.unix_seconds())
        };
        assert_eq!(read(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(read(UTC_TIME, b"500101000000Z"), Some(-631_152_000));
        assert_eq!(read(GENERALIZED_TIME, b"20500101000000Z"), Some(2_524_608_000));
        assert_eq!(read(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        for wrong in ["", "Z", "7001010000Z", "701301000000Z", "7001010000000", "70010100000xZ"] {
            assert_eq!(read(UTC_TIME, wrong.as_bytes()), None, "{wrong}");
        }
    }
}
