//! Keys that a domain signs with, as an administrator sees and changes them.
//!
//! What is done here is a wish: whoever looks after the domain's keys (`node::signing`) is asked to do it
//! now, and publishes, looks and puts to use what has to be.

use ::cluster::dkim::{self as store, Algorithm, Found, Key, State};
use dns::Resolver;
use kv::Transaction;
use mail::{
    StoreError,
    directory::{self, DirectoryError},
};
use serde::{Deserialize, Serialize};

use super::{
    Admin, AdminError, Run,
    domains::{self, DomainInfo},
};
use crate::{
    names,
    settings::{Settings, Signing},
    signing::{lifecycle, rotation},
};

/// Bytes of one string of a text (RFC 1035 §3.3.14).
const STRING_BYTES_MAX: usize = 255;

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimKeyInfo {
    /// Its domain, in A-labels.
    pub domain: String,
    /// What signatures name it by.
    pub selector: String,
    /// `rsa` or `ed25519`.
    pub algorithm: String,
    /// `wanted`: its record is to be published; `seen`: DNS has it; `in-use`: it signs; `retired`: it signs
    /// no more, and its record stays for what it has signed.
    pub state: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// When it was made, milliseconds since 1970.
    pub made_ms: i64,
    /// The name of its record.
    pub name: String,
    /// The record's text.
    pub text: String,
    /// The record as a zone file has it, in strings of at most 255 bytes.
    pub record: String,
    /// What DNS said: `there`, `missing`, `other` text, `unasked` where it could not be asked, `unknown`
    /// where nobody has.
    pub dns: String,
    /// When, milliseconds since 1970.
    pub looked_ms: Option<i64>,
    /// When a name server took the record, milliseconds since 1970.
    pub published_ms: Option<i64>,
    /// Why a name server did not take it.
    pub trouble: Option<String>,
}

/// A domain with the keys that it begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDomain {
    /// The domain.
    #[serde(flatten)]
    pub domain: DomainInfo,
    /// Its keys; their records are to be published.
    pub dkim: Vec<DkimKeyInfo>,
}

/// What can be done with a domain's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Change {
    /// Makes a key of each kind that is wanted and not on its way.
    Rotate,
    /// Sends records to the name server again, and asks DNS for them.
    Publish,
    /// Lets a key sign now, whatever DNS says.
    Use {
        /// Which.
        selector: String,
    },
    /// Lets a key sign no more. Without another of its kind in use, mail has one signature less.
    Retire {
        /// Which.
        selector: String,
    },
}

impl DkimKeyInfo {
    fn new(domain: &str, key: &Key) -> Self {
        let name = key.record_name(domain);
        Self {
            domain: domain.to_owned(),
            selector: key.selector.clone(),
            algorithm: key.algorithm.as_str().to_owned(),
            state: key.state.as_str().to_owned(),
            since_ms: key.since.unix_ms(),
            made_ms: key.made.unix_ms(),
            record: zone_line(&name, &key.text),
            name,
            text: key.text.clone(),
            dns: key.found.as_str().to_owned(),
            looked_ms: key.looked.map(env::Timestamp::unix_ms),
            published_ms: key.published.map(env::Timestamp::unix_ms),
            trouble: Some(key.trouble.clone()).filter(|trouble| !trouble.is_empty()),
        }
    }
}

fn infos(domain: &str, keys: &[Key]) -> Vec<DkimKeyInfo> {
    keys.iter().map(|key| DkimKeyInfo::new(domain, key)).collect()
}

/// A record as a zone file has it (RFC 1035 §5.1). Texts of keys have no quotes.
fn zone_line(name: &str, text: &str) -> String {
    let mut strings = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (string, after) = rest.split_at(rest.len().min(STRING_BYTES_MAX));
        strings.push(format!("\"{string}\""));
        rest = after;
    }
    match strings.as_slice() {
        [one] => format!("{name}. IN TXT {one}"),
        many => format!("{name}. IN TXT ( {} )", many.join(" ")),
    }
}

/// The settings of signing.
async fn settings(admin: &Admin) -> Result<Signing, AdminError> {
    let record = admin.db.run(|tx| async move { ::cluster::settings::current(&tx).await }).await?;
    Ok(Settings::default().changed(&record.values).signing)
}

/// New keys of these kinds. They are made before the transaction, because RSA takes its time.
async fn fresh(
    admin: &Admin,
    held: &[Key],
    algorithms: &[Algorithm],
) -> Result<Vec<Key>, AdminError> {
    let mut keys = held.to_vec();
    for algorithm in algorithms {
        let made = rotation::make(&admin.env, &keys, *algorithm).await;
        keys.push(made.map_err(|error| AdminError::Internal(error.to_string()))?);
    }
    Ok(keys.split_off(held.len()))
}

/// Adds a domain, with keys to sign by.
///
/// # Errors
/// [`AdminError::Name`], [`AdminError::Exists`].
pub async fn add_domain(admin: &Admin, domain: &str) -> Result<NewDomain, AdminError> {
    let algorithms = settings(admin).await?.algorithms.each();
    let keys = &fresh(admin, &[], &algorithms).await?;
    let domain = &names::domain(domain)?;
    let now = admin.env.wall();
    admin
        .run(async |tx, run| {
            let added = directory::add_domain(&tx, domain, now).await.map_err(AdminError::from);
            if run == Run::Again && matches!(added, Err(AdminError::Exists(_))) {
                // An earlier run has done all of it.
                let held = store::keys(&tx, domain).await?;
                let info = domains::read(&tx, domain).await?;
                return Ok(NewDomain { domain: info, dkim: infos(domain, &held) });
            }
            added?;
            if !keys.is_empty() {
                store::write(&tx, domain, &[], keys).await?;
                store::tend(&tx, domain, now).await?;
            }
            let info = domains::read(&tx, domain).await?;
            Ok(NewDomain { domain: info, dkim: infos(domain, keys) })
        })
        .await
}

/// A domain's keys, oldest first. With a resolver, DNS is asked for each record now.
///
/// # Errors
/// [`AdminError::Missing`].
pub async fn list(
    admin: &Admin,
    domain: &str,
    resolver: Option<&Resolver>,
) -> Result<Vec<DkimKeyInfo>, AdminError> {
    let domain = &names::domain(domain)?;
    let mut keys = admin.run(async |tx, _| held(&tx, domain).await).await?;
    if let Some(resolver) = resolver {
        let looks = keys.iter().map(|key| rotation::look_up(resolver, key, domain));
        let found = futures_util::future::join_all(looks).await;
        for (key, found) in keys.iter_mut().zip(found) {
            key.found = found;
            key.looked = Some(admin.env.wall());
        }
    }
    Ok(infos(domain, &keys))
}

async fn held(tx: &Transaction, domain: &str) -> Result<Vec<Key>, AdminError> {
    if !directory::is_local(tx, domain).await? {
        return Err(DirectoryError::Missing(domain.to_owned()).into());
    }
    Ok(store::keys(tx, domain).await?)
}

/// Changes a domain's keys, and has them looked after now. Answers what they are then.
///
/// # Errors
/// [`AdminError::Missing`] for the domain or the key; [`AdminError::TooManyKeys`].
pub async fn change(
    admin: &Admin,
    domain: &str,
    change: &Change,
) -> Result<Vec<DkimKeyInfo>, AdminError> {
    let domain = &names::domain(domain)?;
    let before = admin.run(async |tx, _| held(&tx, domain).await).await?;
    let new = &match change {
        Change::Rotate => {
            let mut wanted = settings(admin).await?.algorithms.each();
            wanted.retain(|algorithm| !lifecycle::is_coming(&before, *algorithm));
            fresh(admin, &before, &wanted).await?
        }
        Change::Publish | Change::Use { .. } | Change::Retire { .. } => Vec::new(),
    };
    let now = admin.env.wall();
    admin
        .run(async |tx, _| {
            let before = held(&tx, domain).await?;
            let mut after = before.clone();
            apply(domain, change, new, &mut after, now)?;
            store::write(&tx, domain, &before, &after).await?;
            store::tend(&tx, domain, now).await?;
            Ok(infos(domain, &after))
        })
        .await
}

fn apply(
    domain: &str,
    change: &Change,
    new: &[Key],
    keys: &mut Vec<Key>,
    now: env::Timestamp,
) -> Result<(), AdminError> {
    let find = |keys: &[Key], selector: &str| {
        let found = keys.iter().position(|key| key.selector == selector);
        let missing = || AdminError::Missing(format!("the key {selector} of {domain}"));
        found.filter(|place| keys[*place].state != State::Retired).ok_or_else(missing)
    };
    match change {
        Change::Rotate => {
            for key in new {
                // Another run, or somebody else, may have made one meanwhile.
                if lifecycle::is_coming(keys, key.algorithm) {
                    continue;
                }
                if !lifecycle::has_room(keys) {
                    return Err(AdminError::TooManyKeys(domain.to_owned()));
                }
                let number = keys.iter().map(|it| it.number + 1).max().unwrap_or(1);
                let mut key = key.clone();
                key.number = number;
                keys.push(key);
            }
        }
        Change::Publish => {
            for key in keys.iter_mut().filter(|key| key.state != State::Retired) {
                key.published = None;
                key.looked = None;
            }
        }
        Change::Use { selector } => {
            let number = keys[find(keys, selector)?].number;
            lifecycle::put_to_use(keys, number, now);
        }
        Change::Retire { selector } => {
            let place = find(keys, selector)?;
            lifecycle::retire(&mut keys[place], now);
        }
    }
    Ok(())
}

/// Forgets the keys of a domain that is removed.
pub(super) async fn forget(tx: &Transaction, domain: &str) -> Result<(), StoreError> {
    if store::is_tended(tx, domain).await? { store::forget(tx, domain).await } else { Ok(()) }
}

/// What is wrong with a domain's keys.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A record does not stand in DNS as it should.
    Key(String, Key),
    /// No key can be made, because the domain has so many.
    Full(String, usize),
}

/// What is wrong with the keys of some domains.
pub(super) async fn troubles(
    admin: &Admin,
    now: env::Timestamp,
) -> Result<Vec<Trouble>, AdminError> {
    let limit = crate::limits::DOCTOR_DOMAINS_MAX;
    let named = |tx: Transaction| async move { store::domains(&tx, None, limit).await };
    let mut found = Vec::new();
    for domain in admin.db.run(named).await? {
        let name = &domain;
        let read = |tx: Transaction| async move { store::keys(&tx, name).await };
        let keys = admin.db.run(read).await?;
        if !lifecycle::has_room(&keys) {
            found.push(Trouble::Full(domain.clone(), keys.len()));
        }
        for key in keys {
            let is_late = ::cluster::tickets::age(now, key.made) >= crate::limits::DKIM_LATE;
            let in_trouble = match key.state {
                State::Wanted => is_late || !key.trouble.is_empty(),
                State::InUse => matches!(key.found, Found::Missing | Found::Other),
                State::Seen => false,
                State::Retired => !key.trouble.is_empty(),
            };
            if in_trouble {
                found.push(Trouble::Key(domain.clone(), key));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::memory, *};

    #[tokio::test]
    async fn a_domain_begins_with_keys_and_ends_without() {
        let admin = memory();
        let made = add_domain(&admin, "Example.org").await.unwrap();
        let kinds: Vec<_> = made.dkim.iter().map(|key| key.algorithm.as_str()).collect();
        assert_eq!(kinds, ["rsa", "ed25519"]);
        for key in &made.dkim {
            assert_eq!((key.state.as_str(), key.dns.as_str()), ("wanted", "unknown"));
            assert!(key.name.ends_with("._domainkey.example.org"), "{}", key.name);
            let strings: Vec<_> = key.record.split('"').skip(1).step_by(2).collect();
            assert_eq!(strings.concat(), key.text);
            assert!(strings.iter().all(|string| string.len() <= 255));
        }
        let listed = list(&admin, "example.org", None).await.unwrap();
        assert_eq!(listed, made.dkim);
        assert!(matches!(add_domain(&admin, "example.org").await, Err(AdminError::Exists(_))));
        domains::remove(&admin, "example.org").await.unwrap();
        assert!(matches!(list(&admin, "example.org", None).await, Err(AdminError::Missing(_))));
        let left = admin.db.run(|tx| async move { store::keys(&tx, "example.org").await }).await;
        assert_eq!(left.unwrap(), []);
    }

    #[tokio::test]
    async fn keys_follow_each_other_by_hand() {
        let admin = memory();
        let set = ("dkim.algorithms", Some("ed25519"));
        super::super::cluster::change_setting(&admin, set.0, set.1, "test").await.unwrap();
        let first = add_domain(&admin, "example.org").await.unwrap().dkim.remove(0);
        let put_to_use = |selector: &str| Change::Use { selector: selector.to_owned() };
        let states = |keys: Vec<DkimKeyInfo>| -> Vec<String> {
            keys.into_iter().map(|key| key.state).collect()
        };
        let keys = change(&admin, "example.org", &put_to_use(&first.selector)).await.unwrap();
        assert_eq!(states(keys), ["in-use"]);
        let keys = change(&admin, "example.org", &Change::Rotate).await.unwrap();
        let second = keys[1].selector.clone();
        assert_eq!(states(keys), ["in-use", "wanted"]);
        let keys = change(&admin, "example.org", &Change::Rotate).await.unwrap();
        assert_eq!(states(keys), ["in-use", "wanted"], "one is on its way already");
        let keys = change(&admin, "example.org", &put_to_use(&second)).await.unwrap();
        assert_eq!(states(keys), ["retired", "in-use"]);
        let again = change(&admin, "example.org", &put_to_use(&first.selector)).await;
        assert!(matches!(again, Err(AdminError::Missing(_))), "its private half is gone");
        let none = change(&admin, "example.com", &Change::Publish).await;
        assert!(matches!(none, Err(AdminError::Missing(_))));
    }

    #[test]
    fn long_texts_are_cut_into_strings() {
        assert_eq!(zone_line("a", "b"), "a. IN TXT \"b\"");
        let long = zone_line("a", &"x".repeat(300));
        assert_eq!(long, format!("a. IN TXT ( \"{}\" \"{}\" )", "x".repeat(255), "x".repeat(45)));
    }
}
