//! What a `DKIM-Signature` or an `ARC-Message-Signature` says (RFC 6376 §3.5, RFC 8617 §4.1.2).

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    canon::Canon, dkim::DkimError, domain, key::Algorithm, limits::SIGNED_FIELDS_MAX, tags::Tags,
};

/// Characters of `b=` that tell signatures apart (RFC 6008 §4).
const START_CHARS: usize = 8;

/// Of what kind a signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dkim,
    Arc,
}

#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub(crate) algorithm: Algorithm,
    pub(crate) signature: Vec<u8>,
    pub(crate) start: String,
    pub(crate) body_hash: Vec<u8>,
    pub(crate) header_canon: Canon,
    pub(crate) body_canon: Canon,
    pub(crate) length: Option<u64>,
    pub(crate) domain: String,
    pub(crate) selector: String,
    pub(crate) identity: String,
    pub(crate) fields: Vec<String>,
    pub(crate) expires: Option<u64>,
}

impl Signature {
    pub(crate) fn parse(kind: Kind, value: &[u8]) -> Result<Self, DkimError> {
        use DkimError::Malformed;
        let tags = Tags::parse(value).map_err(|_| Malformed)?;
        if kind == Kind::Dkim && tags.get("v") != Some("1") {
            return Err(Malformed);
        }
        let needed = |name: &str| tags.compact(name).filter(|it| !it.is_empty()).ok_or(Malformed);
        let encoded = |name: &str| STANDARD.decode(needed(name)?).map_err(|_| Malformed);
        let number = |name: &str| match tags.get(name) {
            None => Ok(None),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                // RFC 6376 §3.5: up to 12 digits, of `l=` 76; what is past all time never comes.
                Ok(Some(text.parse::<u64>().unwrap_or(u64::MAX)))
            }
            Some(_) => Err(Malformed),
        };
        let algorithm = Algorithm::parse(&needed("a")?)?;
        let canons = tags.compact("c").unwrap_or_default();
        let (header_canon, body_canon) = parse_canons(&canons)?;
        let domain = domain::ascii(&needed("d")?).ok_or(Malformed)?;
        let selector = domain::ascii(&needed("s")?).ok_or(Malformed)?;
        let mut fields: Vec<String> = Vec::new();
        for field in needed("h")?.split(':') {
            if field.is_empty() || fields.len() == SIGNED_FIELDS_MAX {
                return Err(Malformed);
            }
            fields.push(field.to_owned());
        }
        let names = |name: &str| fields.iter().any(|field| field.eq_ignore_ascii_case(name));
        // RFC 8617 §4.1.2: a seal must not be signed by what it seals.
        if kind == Kind::Arc && names("ARC-Seal") {
            return Err(Malformed);
        }
        if !names("From") {
            return Err(DkimError::AuthorNotSigned);
        }
        let queries = tags.compact("q").unwrap_or_default();
        if !queries.is_empty()
            && !queries.split(':').any(|query| query.eq_ignore_ascii_case("dns/txt"))
        {
            return Err(DkimError::UnknownAlgorithm);
        }
        let (timestamp, expires) = (number("t")?, number("x")?);
        if let (Some(timestamp), Some(expires)) = (timestamp, expires)
            && expires <= timestamp
        {
            return Err(DkimError::Expired);
        }
        let identity = match kind {
            Kind::Dkim => identity(tags.compact("i"), &domain)?,
            Kind::Arc => String::new(),
        };
        Ok(Self {
            algorithm,
            signature: encoded("b")?,
            start: needed("b")?.chars().take(START_CHARS).collect(),
            body_hash: encoded("bh")?,
            header_canon,
            body_canon,
            length: number("l")?,
            domain,
            selector,
            identity,
            fields,
            expires,
        })
    }

    /// Where the key is.
    pub(crate) fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

fn parse_canons(text: &str) -> Result<(Canon, Canon), DkimError> {
    let read = |word: &str| Canon::parse(word).ok_or(DkimError::UnknownAlgorithm);
    match text.split_once('/') {
        _ if text.is_empty() => Ok((Canon::Simple, Canon::Simple)),
        // RFC 6376 §3.5: one word is the header's.
        None => Ok((read(text)?, Canon::Simple)),
        Some((header, body)) => Ok((read(header)?, read(body)?)),
    }
}

fn identity(given: Option<String>, domain: &str) -> Result<String, DkimError> {
    let Some(given) = given else { return Ok(format!("@{domain}")) };
    let (_, host) = given.rsplit_once('@').ok_or(DkimError::Malformed)?;
    let host = domain::ascii(host).ok_or(DkimError::Malformed)?;
    if !domain::is_within(&host, domain) {
        return Err(DkimError::IdentityMismatch);
    }
    Ok(given)
}

/// The field as it was when it was signed: nothing in `b=` (RFC 6376 §3.5, §3.7).
pub(crate) fn field_without_signature(raw: &[u8]) -> Vec<u8> {
    let colon = raw.iter().position(|byte| *byte == b':').map_or(raw.len(), |at| at + 1);
    let (name, value) = raw.split_at(colon);
    let mut out = name.to_vec();
    for (number, tag) in value.split(|byte| *byte == b';').enumerate() {
        if number > 0 {
            out.push(b';');
        }
        let equals = tag.iter().position(|byte| *byte == b'=');
        match equals {
            Some(at) if tag[..at].trim_ascii() == b"b" => out.extend_from_slice(&tag[..=at]),
            _ => out.extend_from_slice(tag),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "v=1; a=rsa-sha256; d=Example.COM; s=one; h=from:to; bh=AAAA; b=AB\r\n CD";

    #[track_caller]
    fn check(value: &str, expected: Result<(), DkimError>) {
        let parsed = Signature::parse(Kind::Dkim, value.as_bytes());
        assert_eq!(parsed.map(|_| ()), expected, "{value:?}");
    }

    #[test]
    fn signatures_are_read() {
        let signature = Signature::parse(Kind::Dkim, GOOD.as_bytes()).unwrap();
        assert_eq!(signature.key_name(), "one._domainkey.example.com");
        assert_eq!((&*signature.identity, &*signature.start), ("@example.com", "ABCD"));
        check(
            &format!("{GOOD}; c=relaxed; i=me@mail.example.com; q=x/y:dns/txt; l=7; z=a|b"),
            Ok(()),
        );
        check(&format!("{GOOD}; c=Relaxed/SIMPLE; q=DNS/txt"), Ok(()));
        let long = format!("{GOOD}; x={}", "9".repeat(76));
        assert_eq!(Signature::parse(Kind::Dkim, long.as_bytes()).unwrap().expires, Some(u64::MAX));
    }

    #[test]
    fn what_is_no_signature_is_told_why() {
        use DkimError as E;
        for tag in
            ["v=1; ", "d=Example.COM; ", "s=one; ", "bh=AAAA; ", "h=from:to; ", "a=rsa-sha256; "]
        {
            check(&GOOD.replace(tag, ""), Err(E::Malformed));
        }
        check(&GOOD.replace("v=1", "v=2"), Err(E::Malformed));
        check(&GOOD.replace("from:to", "to"), Err(E::AuthorNotSigned));
        check(&GOOD.replace("rsa-sha256", "rsa-sha1"), Err(E::WeakAlgorithm));
        check(&GOOD.replace("rsa-sha256", "rot13"), Err(E::UnknownAlgorithm));
        check(&GOOD.replace("AAAA", "A*"), Err(E::Malformed));
        check(&format!("{GOOD}; c=relaxed/odd"), Err(E::UnknownAlgorithm));
        check(&format!("{GOOD}; i=me@example.org"), Err(E::IdentityMismatch));
        check(&format!("{GOOD}; i=me@badexample.com"), Err(E::IdentityMismatch));
        check(&format!("{GOOD}; t=5; x=4"), Err(E::Expired));
        check(&format!("{GOOD}; l=x"), Err(E::Malformed));
        check(&format!("{GOOD}; d=other.com"), Err(E::Malformed));
        check(&GOOD.replace("from:to", &vec!["from"; 300].join(":")), Err(E::Malformed));
    }

    #[test]
    fn the_signature_is_taken_out_of_its_field() {
        let raw = b"DKIM-Signature: bh=x=; b = A\r\n B=; c=b=\r\n";
        let expected = b"DKIM-Signature: bh=x=; b =; c=b=\r\n";
        assert_eq!(field_without_signature(raw), expected);
        assert_eq!(field_without_signature(b"X: a=1; b=cc\r\n"), b"X: a=1; b=");
    }
}
