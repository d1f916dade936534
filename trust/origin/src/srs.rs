//! SRS: the envelope's sender of mail that is forwarded is rewritten to the forwarder, so that SPF passes,
//! and bounces find the way back (the Sender Rewriting Scheme of S. Gathman and M. Shevek; no RFC).
//!
//! `SRS0=hash=day=domain=local@us` stands for `local@domain`. What another forwarder has rewritten
//! becomes `SRS1=hash=first==rest@us`, and bounces go to the first one, whose address tells the rest.
//! The hash (HMAC-SHA-256, 60 bits of it) keeps anybody from making us relay; the day lets it expire.

use ring::hmac;
use zeroize::Zeroizing;

use crate::{domain, limits::SRS_DAYS_MAX};
use env::Timestamp;

/// RFC 4648 §6 in lower case: it survives hosts that change case.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Five bits each.
const HASH_CHARS: usize = 12;
const DAY_CHARS: usize = 2;

/// Days after which a day's number comes again.
const DAYS: u64 = 1 << (5 * DAY_CHARS);

/// RFC 5321 §4.5.3.1.1.
const LOCAL_BYTES_MAX: usize = 64;

/// Rewrites addresses under a secret. The first secret makes addresses; all of them check.
#[derive(Clone)]
pub struct Srs {
    domain: String,
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Srs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Srs").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// Why an address is not rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrsError {
    /// It is no address with a domain, or its local part has to be quoted, which a longer one cannot have
    /// in it.
    #[error("not an address that can be rewritten")]
    NotAnAddress,
    /// It would be longer than a local part may be. Another sender has to do.
    #[error("the address is too long to be rewritten")]
    TooLong,
    /// It is no rewritten address of this domain.
    #[error("not a rewritten address")]
    NotOurs,
    /// It was made up.
    #[error("the address was made up")]
    Forged,
    /// It is too old.
    #[error("the address has expired")]
    Expired,
    /// There is no secret.
    #[error("there is no secret")]
    NoSecret,
}

impl Srs {
    /// Rewrites to `domain`, under these secrets.
    pub fn new(domain: &str, secrets: Vec<Zeroizing<Vec<u8>>>) -> Self {
        Self { domain: domain.to_ascii_lowercase(), secrets }
    }

    /// The sender that mail from `sender` is forwarded with. An empty one stays empty; one of this domain
    /// stays as it is.
    ///
    /// # Errors
    /// [`SrsError::NotAnAddress`], [`SrsError::TooLong`], [`SrsError::NoSecret`].
    pub fn forward(&self, sender: &str, at: Timestamp) -> Result<String, SrsError> {
        if sender.is_empty() {
            return Ok(String::new());
        }
        let (local, host) = split(sender)?;
        if host == self.domain {
            return Ok(sender.to_owned());
        }
        let (kind, told) = match rewritten(local) {
            // It was forwarded once: the first forwarder takes it back.
            Some((Kind::First, rest)) => (Kind::Further, format!("{host}=={rest}")),
            Some((Kind::Further, rest)) => {
                let (_, told) = rest.split_once('=').ok_or(SrsError::NotAnAddress)?;
                (Kind::Further, told.to_owned())
            }
            None => (Kind::First, format!("{}={host}={local}", day_text(day(at)))),
        };
        let hash = self.hashes(kind, &told).next().ok_or(SrsError::NoSecret)?;
        let local = format!("{}={hash}={told}", kind.name());
        if local.len() > LOCAL_BYTES_MAX {
            return Err(SrsError::TooLong);
        }
        Ok(format!("{local}@{}", self.domain))
    }

    /// The address that stands behind a rewritten one.
    ///
    /// # Errors
    /// [`SrsError::NotOurs`] for an address that is not rewritten, and what is wrong with one that is.
    pub fn reverse(&self, address: &str, at: Timestamp) -> Result<String, SrsError> {
        let (local, host) = split(address)?;
        let (kind, rest) = rewritten(local).ok_or(SrsError::NotOurs)?;
        if host != self.domain {
            return Err(SrsError::NotOurs);
        }
        let (hash, told) = rest.split_once('=').ok_or(SrsError::Forged)?;
        let hash = hash.to_ascii_lowercase();
        let right =
            self.hashes(kind, told).any(|expected| same(expected.as_bytes(), hash.as_bytes()));
        if !right {
            return Err(SrsError::Forged);
        }
        match kind {
            Kind::First => {
                let mut parts = told.splitn(3, '=');
                let mut next = || parts.next().ok_or(SrsError::Forged);
                let (made, host, local) = (next()?, next()?, next()?);
                let made = read_day(made).ok_or(SrsError::Forged)?;
                let age = (day(at) % DAYS + DAYS - made) % DAYS;
                // A day from tomorrow is that of a node whose clock is ahead.
                if age > SRS_DAYS_MAX && age != DAYS - 1 {
                    return Err(SrsError::Expired);
                }
                Ok(format!("{local}@{host}"))
            }
            Kind::Further => {
                let (host, rest) = told.split_once("==").ok_or(SrsError::Forged)?;
                Ok(format!("SRS0={rest}@{host}"))
            }
        }
    }

    /// The hash that `told` has under each secret. A further forwarder hashes no day, so that the first
    /// one decides how old is too old. Case does not count, because hosts change it.
    fn hashes(&self, kind: Kind, told: &str) -> impl Iterator<Item = String> {
        let message = format!("{}={}@{}", kind.name(), told, self.domain).to_ascii_lowercase();
        self.secrets.iter().map(move |secret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let tag = hmac::sign(&key, message.as_bytes());
            let bits =
                tag.as_ref().iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            digits(bits >> 4, HASH_CHARS)
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    First,
    Further,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::First => "SRS0",
            Self::Further => "SRS1",
        }
    }
}

fn split(address: &str) -> Result<(&str, String), SrsError> {
    let (local, host) = address.rsplit_once('@').ok_or(SrsError::NotAnAddress)?;
    let host = domain::ascii(host).ok_or(SrsError::NotAnAddress)?;
    // RFC 5322 §3.2.3, and RFC 6532 §3.2.
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 0x80
    };
    if local.is_empty() || !local.bytes().all(plain) {
        return Err(SrsError::NotAnAddress);
    }
    Ok((local, host))
}

/// Of what kind a rewritten local part is, and what follows the first separator.
fn rewritten(local: &str) -> Option<(Kind, &str)> {
    let (name, rest) = local.split_at_checked(4)?;
    let kind = match name.to_ascii_uppercase().as_str() {
        "SRS0" => Kind::First,
        "SRS1" => Kind::Further,
        _ => return None,
    };
    rest.strip_prefix(['=', '+', '-']).map(|rest| (kind, rest))
}

fn day(at: Timestamp) -> u64 {
    u64::try_from(at.unix_seconds()).unwrap_or_default() / 86_400
}

fn day_text(day: u64) -> String {
    digits(day % DAYS, DAY_CHARS)
}

fn digits(bits: u64, count: usize) -> String {
    let digit = |place: usize| char::from(DIGITS[(bits >> (5 * place) & 31) as usize]);
    (0..count).rev().map(digit).collect()
}

fn read_day(text: &str) -> Option<u64> {
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte.to_ascii_lowercase());
    if text.len() != DAY_CHARS {
        return None;
    }
    text.bytes().try_fold(0, |day, byte| Some(day << 5 | digit(byte)? as u64))
}

/// Compares in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_unix_seconds(day * 86_400 + 5)
    }

    fn srs(domain: &str, secrets: &[&str]) -> Srs {
        let secrets = secrets.iter().map(|it| Zeroizing::new(it.as_bytes().to_vec())).collect();
        Srs::new(domain, secrets)
    }

    #[test]
    fn an_address_goes_and_comes_back() {
        let ours = srs("fwd.example", &["secret"]);
        let forwarded = ours.forward("Some.One+tag=x@Example.org", at(20_000)).unwrap();
        assert!(forwarded.starts_with("SRS0=") && forwarded.ends_with("@fwd.example"));
        assert_eq!(ours.reverse(&forwarded, at(20_000)).unwrap(), "Some.One+tag=x@example.org");
        assert_eq!(
            ours.reverse(&forwarded.to_lowercase(), at(20_000)).unwrap(),
            "some.one+tag=x@example.org"
        );
        assert_eq!(ours.forward("", at(1)).unwrap(), "");
        assert_eq!(ours.forward("a@FWD.example", at(1)).unwrap(), "a@FWD.example");
    }

    #[test]
    fn a_chain_of_forwarders_leads_back_to_the_first() {
        let (first, second) = (srs("one.example", &["1"]), srs("two.example", &["2"]));
        let third = srs("three.example", &["3"]);
        let once = first.forward("a@b.example", at(9)).unwrap();
        let twice = second.forward(&once, at(9)).unwrap();
        assert!(twice.starts_with("SRS1="), "{twice}");
        let thrice = third.forward(&twice, at(9)).unwrap();
        assert!(thrice.contains("=one.example=="), "{thrice}");
        for (forwarder, address) in [(&second, &twice), (&third, &thrice)] {
            let back = forwarder.reverse(address, at(9)).unwrap();
            assert_eq!(first.reverse(&back, at(9)).unwrap(), "a@b.example");
        }
    }

    #[test]
    fn what_is_forged_old_or_not_ours_is_refused() {
        let ours = srs("fwd.example", &["new", "old"]);
        let before = srs("fwd.example", &["old"]).forward("a@b.example", at(2_000)).unwrap();
        assert_eq!(ours.reverse(&before, at(2_000)).unwrap(), "a@b.example");
        let limit = SRS_DAYS_MAX as i64;
        assert!(ours.reverse(&before, at(2_000 + limit)).is_ok());
        assert!(ours.reverse(&before, at(1_999)).is_ok());
        assert_eq!(ours.reverse(&before, at(2_001 + limit)), Err(SrsError::Expired));
        assert_eq!(ours.reverse(&before, at(1_990)), Err(SrsError::Expired));
        let other = before.replace("=a@", "=c@");
        assert_eq!(ours.reverse(&other, at(2_000)), Err(SrsError::Forged));
        assert_eq!(srs("fwd.example", &["x"]).reverse(&before, at(2_000)), Err(SrsError::Forged));
        let elsewhere = before.replace("fwd.example", "other.example");
        assert_eq!(ours.reverse(&elsewhere, at(2_000)), Err(SrsError::NotOurs));
        assert_eq!(ours.reverse("a@fwd.example", at(1)), Err(SrsError::NotOurs));
        for bad in
            ["nobody", "@b.example", "\"a b\"@c.example", "\"a@b\"@c.example", "a\r\n@b.example"]
        {
            assert_eq!(ours.forward(bad, at(1)), Err(SrsError::NotAnAddress), "{bad:?}");
        }
        assert_eq!(
            ours.forward(&format!("{}@b.example", "a".repeat(60)), at(1)),
            Err(SrsError::TooLong)
        );
        assert_eq!(srs("fwd.example", &[]).forward("a@b.example", at(1)), Err(SrsError::NoSecret));
    }

    proptest! {
        #[test]
        fn no_address_makes_it_panic(address in "(SRS[01][=+-])?[a-z0-9=@.é]{0,40}(@fwd.example)?") {
            let ours = srs("fwd.example", &["secret"]);
            let _unwanted = ours.reverse(&address, at(5));
            if let Ok(forwarded) = ours.forward(&address, at(5)) {
                prop_assert!(forwarded.is_empty() || forwarded.to_ascii_lowercase().ends_with("@fwd.example"));
            }
        }
    }
}
