//! SRS: the envelope's sender of mail that is forwarded is rewritten to the forwarder, so that SPF passes,
//! and bounces find the way back (the Sender Rewriting Scheme of S. Gathman and M. Shevek; no RFC).
//!
//! `SRS0=hash=day=domain=local@us` stands for `local@domain`. What another forwarder has rewritten
//! becomes `SRS1=hash=first==rest@us`, and bounces go to the first one, whose address tells the rest: what stands
//! before the rest is the separator that the first one wrote, `=`, `+` or `-`.
//! The hash (HMAC-SHA-256, 60 bits of it) keeps anybody from making us relay; the day lets it expire.
//!
//! A sender that is too long for that is kept by the caller ([`Srs::forward_stored`]), under the token that
//! its address has: `SRS0=hash=token@us`. The token begins with the day, and has no separator, by which it is told
//! from what is written out.

use ring::hmac;
use zeroize::Zeroizing;

use crate::{domain, limits::SRS_DAYS_MAX};
use env::Timestamp;

/// RFC 4648 §6 in lower case: it survives hosts that change case.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Five bits each.
const HASH_CHARS: usize = 12;
const DAY_CHARS: usize = 2;

/// 80 bits: more addresses than are ever forwarded in a day do not meet.
const TOKEN_CHARS: usize = 16;

/// Days after which a day's number comes again.
const DAYS: u64 = 1 << (5 * DAY_CHARS);

/// How old what is made tomorrow is.
const TOMORROW: u64 = DAYS - 1;

/// What may follow `SRS0` and `SRS1`.
const SEPARATORS: [char; 3] = ['=', '+', '-'];

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
    /// It would be longer than a local part may be: [`Srs::forward_stored`].
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

/// What a kept sender is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// When it was made, in days since 1970.
    pub day: u64,
    /// Tells it from others of the day.
    pub id: String,
}

/// What stands behind a rewritten address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Original {
    /// This address.
    Address(String),
    /// The one that is kept under this token, if it is still kept.
    Stored(Token),
}

impl Srs {
    /// Rewrites to `domain`, under these secrets.
    pub fn new(domain: &str, secrets: Vec<Zeroizing<Vec<u8>>>) -> Self {
        Self { domain: domain.to_ascii_lowercase(), secrets }
    }

    /// The domain that it rewrites to, in lower case.
    pub fn domain(&self) -> &str {
        &self.domain
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
            // It was forwarded once: the first forwarder takes it back, as he wrote it.
            Some((Kind::First, separated)) => (Kind::Further, format!("{host}={separated}")),
            Some((Kind::Further, separated)) => {
                let (_, told) = separated[1..].split_once('=').ok_or(SrsError::NotAnAddress)?;
                (Kind::Further, told.to_owned())
            }
            None => (Kind::First, format!("{}={host}={local}", day_text(day(at)))),
        };
        self.address(kind, &told)
    }

    /// The sender that mail from a longer one is forwarded with, and what to keep that one under, for
    /// [`SRS_DAYS_MAX`] days and one for clocks that differ. The same sender has one token a day, as long as
    /// the secret is the same.
    ///
    /// # Errors
    /// [`SrsError::NotAnAddress`], [`SrsError::NoSecret`]; [`SrsError::TooLong`] never.
    pub fn forward_stored(&self, sender: &str, at: Timestamp) -> Result<(String, Token), SrsError> {
        split(sender)?;
        let secret = self.secrets.first().ok_or(SrsError::NoSecret)?;
        let day = day(at);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, format!("token={day}={sender}@{}", self.domain).as_bytes());
        let half = |bytes: &[u8]| {
            let bits = bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            digits(bits, TOKEN_CHARS / 2)
        };
        let id = half(&tag.as_ref()[..8]) + &half(&tag.as_ref()[8..16]);
        let address = self.address(Kind::First, &format!("{}{id}", day_text(day)))?;
        Ok((address, Token { day, id }))
    }

    fn address(&self, kind: Kind, told: &str) -> Result<String, SrsError> {
        let hash = self.hashes(kind, told).next().ok_or(SrsError::NoSecret)?;
        let local = format!("{}={hash}={told}", kind.name());
        if local.len() > LOCAL_BYTES_MAX {
            return Err(SrsError::TooLong);
        }
        Ok(format!("{local}@{}", self.domain))
    }

    /// What stands behind a rewritten address.
    ///
    /// # Errors
    /// [`SrsError::NotOurs`] for an address that is not rewritten, and what is wrong with one that is.
    pub fn reverse(&self, address: &str, at: Timestamp) -> Result<Original, SrsError> {
        let (local, host) = split(address)?;
        let (kind, separated) = rewritten(local).ok_or(SrsError::NotOurs)?;
        if host != self.domain {
            return Err(SrsError::NotOurs);
        }
        let (hash, told) = separated[1..].split_once('=').ok_or(SrsError::Forged)?;
        let hash = hash.to_ascii_lowercase();
        let right =
            self.hashes(kind, told).any(|expected| same(expected.as_bytes(), hash.as_bytes()));
        if !right {
            return Err(SrsError::Forged);
        }
        match kind {
            Kind::First if is_token(told) => {
                let (made, id) = told.split_at(DAY_CHARS);
                let day = made_on(made, at)?;
                Ok(Original::Stored(Token { day, id: id.to_ascii_lowercase() }))
            }
            Kind::First => {
                let mut parts = told.splitn(3, '=');
                let mut next = || parts.next().ok_or(SrsError::Forged);
                let (made, host, local) = (next()?, next()?, next()?);
                made_on(made, at)?;
                Ok(Original::Address(format!("{local}@{host}")))
            }
            Kind::Further => {
                let (host, separated) = told.split_once('=').ok_or(SrsError::Forged)?;
                if !separated.starts_with(SEPARATORS) {
                    return Err(SrsError::Forged);
                }
                Ok(Original::Address(format!("SRS0{separated}@{host}")))
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

/// Of what kind a rewritten local part is, and what follows its name, the separator included.
fn rewritten(local: &str) -> Option<(Kind, &str)> {
    let (name, rest) = local.split_at_checked(4)?;
    let kind = match name.to_ascii_uppercase().as_str() {
        "SRS0" => Kind::First,
        "SRS1" => Kind::Further,
        _ => return None,
    };
    rest.starts_with(SEPARATORS).then_some((kind, rest))
}

/// Whether what is told is a token, and nothing that is written out.
fn is_token(told: &str) -> bool {
    let is_digit = |byte: u8| DIGITS.contains(&byte.to_ascii_lowercase());
    told.len() == DAY_CHARS + TOKEN_CHARS && told.bytes().all(is_digit)
}

/// The day that an address was made on, where it is not too old.
fn made_on(made: &str, at: Timestamp) -> Result<u64, SrsError> {
    let made = read_day(made).ok_or(SrsError::Forged)?;
    let today = day(at);
    let age = (today % DAYS + DAYS - made) % DAYS;
    match age {
        0..=SRS_DAYS_MAX => Ok(today.saturating_sub(age)),
        // A day from tomorrow is that of a node whose clock is ahead.
        TOMORROW => Ok(today + 1),
        _ => Err(SrsError::Expired),
    }
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

    /// What stands behind an address that tells it itself.
    fn back(srs: &Srs, address: &str, at: Timestamp) -> Result<String, SrsError> {
        match srs.reverse(address, at)? {
            Original::Address(address) => Ok(address),
            Original::Stored(token) => panic!("{address} is kept under {token:?}"),
        }
    }

    #[test]
    fn an_address_goes_and_comes_back() {
        let ours = srs("fwd.example", &["secret"]);
        let forwarded = ours.forward("Some.One+tag=x@Example.org", at(20_000)).unwrap();
        assert!(forwarded.starts_with("SRS0=") && forwarded.ends_with("@fwd.example"));
        assert_eq!(back(&ours, &forwarded, at(20_000)).unwrap(), "Some.One+tag=x@example.org");
        assert_eq!(
            back(&ours, &forwarded.to_lowercase(), at(20_000)).unwrap(),
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
            let once = back(forwarder, address, at(9)).unwrap();
            assert_eq!(back(&first, &once, at(9)).unwrap(), "a@b.example");
        }
    }

    #[test]
    fn what_is_forged_old_or_not_ours_is_refused() {
        let ours = srs("fwd.example", &["new", "old"]);
        let before = srs("fwd.example", &["old"]).forward("a@b.example", at(2_000)).unwrap();
        assert_eq!(back(&ours, &before, at(2_000)).unwrap(), "a@b.example");
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

    /// Hosts on the way, and forwarders of other makes, write other separators.
    #[test]
    fn separators_stay_as_the_first_forwarder_wrote_them() {
        let (second, third) = (srs("two.example", &["2"]), srs("three.example", &["3"]));
        for once in [
            "SRS0+aa=bb=b.example=a@one.example",
            "SRS0-aa=bb=b.example=a@one.example",
            "SRS0=aa=bb=b.example=a@one.example",
            "srs0+aa=bb=b.example=a@one.example",
        ] {
            let twice = second.forward(once, at(9)).unwrap();
            let mark = &once[4..5];
            assert!(twice.contains(&format!("=one.example={mark}aa=")), "{twice}");
            let thrice = third.forward(&twice, at(9)).unwrap();
            let expected = format!("SRS0{}", &once[4..]);
            assert_eq!(back(&second, &twice, at(9)).unwrap(), expected);
            assert_eq!(back(&third, &thrice, at(9)).unwrap(), expected);
            // Our own name may come back with another separator as well.
            let other = twice.replacen("SRS1=", "SRS1+", 1);
            assert_eq!(back(&second, &other, at(9)).unwrap(), expected);
            assert!(
                third.forward(&other, at(9)).unwrap().contains(&format!("=one.example={mark}"))
            );
        }
        let ours = srs("fwd.example", &["1"]);
        let forwarded = ours.forward("a@b.example", at(9)).unwrap().replacen('=', "-", 1);
        assert_eq!(back(&ours, &forwarded, at(9)).unwrap(), "a@b.example");
    }

    #[test]
    fn a_sender_that_is_too_long_has_a_token() {
        let ours = srs("a-forwarder-with-a-long-name.example", &["new", "old"]);
        let sender = format!("bounces+12345-{}=example.org@mail.shop.example", "x".repeat(40));
        assert_eq!(ours.forward(&sender, at(2_000)), Err(SrsError::TooLong));
        let (address, token) = ours.forward_stored(&sender, at(2_000)).unwrap();
        let (local, _) = address.split_once('@').unwrap();
        assert!(local.starts_with("SRS0=") && local.len() <= LOCAL_BYTES_MAX, "{address}");
        assert_eq!((token.day, token.id.len()), (2_000, TOKEN_CHARS));
        assert_eq!(ours.forward_stored(&sender, at(2_000)).unwrap().1, token);
        for (other, day) in [(sender.as_str(), 2_001), ("y@mail.shop.example", 2_000)] {
            assert_ne!(ours.forward_stored(other, at(day)).unwrap().1.id, token.id);
        }
        let limit = SRS_DAYS_MAX as i64;
        let stored = Ok(Original::Stored(token));
        for day in [1_999, 2_000, 2_000 + limit] {
            assert_eq!(ours.reverse(&address, at(day)), stored, "{day}");
            assert_eq!(ours.reverse(&address.to_uppercase(), at(day)), stored, "{day}");
        }
        assert_eq!(ours.reverse(&address, at(2_001 + limit)), Err(SrsError::Expired));
        let wrong = if local.ends_with('a') { "b@" } else { "a@" };
        let forged = address.replacen(&format!("{}@", &local[local.len() - 1..]), wrong, 1);
        assert_eq!(ours.reverse(&forged, at(2_000)), Err(SrsError::Forged));
        // A further forwarder, to whom it is an address as any other.
        let next = srs("b.example", &["3"]);
        let short = srs("c.example", &["4"]);
        let (once, token) = short.forward_stored(&sender, at(2_000)).unwrap();
        let twice = next.forward(&once, at(2_000)).unwrap();
        let came_back = back(&next, &twice, at(2_000)).unwrap();
        assert_eq!(short.reverse(&came_back, at(2_000)), Ok(Original::Stored(token)));
        assert_eq!(
            srs("c.example", &[]).forward_stored(&sender, at(1)).unwrap_err(),
            SrsError::NoSecret
        );
        assert_eq!(
            short.forward_stored("\"a b\"@c.example", at(1)).unwrap_err(),
            SrsError::NotAnAddress
        );
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
