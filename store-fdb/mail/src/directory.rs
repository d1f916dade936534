//! Domains and addresses: who gets mail, and who may send as whom.

use std::{collections::BTreeSet, fmt};

use env::Timestamp;
use kv::{Prefetch, RangeQuery, Transaction};
use prost::Message;

use crate::{
    AccountId, StoreError,
    error::store_error,
    keys::{
        self,
        directory::{AddressRecord, Addresses, Domain, Target},
    },
    limits,
};

/// `local@domain`, folded to lower case: the form that names a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// Splits at the last `@` and folds case.
    ///
    /// # Errors
    /// [`BadAddress`] where either side is empty or too long (RFC 5321 §4.5.3.1: 64 and 255
    /// octets), or holds a control character or a space.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let at = text.rfind('@').ok_or(BadAddress)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        let bad = |c: char| c.is_control() || c.is_whitespace();
        if !(1..=64).contains(&local.len())
            || !(1..=255).contains(&domain.len())
            || text.contains(bad)
            || domain.contains('@')
        {
            return Err(BadAddress);
        }
        let local = local.to_lowercase();
        let at = local.len();
        Ok(Self { text: format!("{local}@{}", domain.to_lowercase()), at })
    }

    /// Left of the `@`.
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// Right of the `@`.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address without its `+tag`, where it has one.
    pub fn without_tag(&self) -> Option<Self> {
        let (user, _) = self.local().split_once('+')?;
        Self::parse(&format!("{user}@{}", self.domain())).ok()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address of the form local@domain")]
pub struct BadAddress;

/// Where mail to an address goes in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// Our accounts, in order, each once.
    pub accounts: BTreeSet<AccountId>,
    /// Addresses elsewhere, in order, each once.
    pub remote: BTreeSet<String>,
}

/// Why an address has no destination.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The domain is not ours.
    #[error("{0} is not a local domain")]
    NotLocal(String),
    /// The domain is ours and has no such address.
    #[error("{0} does not exist")]
    Unknown(Address),
    /// It expands to more than [`limits::EXPANSION_MAX`] addresses, or in too many steps.
    #[error("{0} expands to too many addresses")]
    TooMany(Address),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
store_error!(ResolveError);

/// Why the directory was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It exists.
    #[error("{0} exists")]
    Exists(String),
    /// It does not exist.
    #[error("{0} does not exist")]
    Missing(String),
    /// It is still in use.
    #[error("{0} still has addresses")]
    InUse(String),
    /// It is of another kind.
    #[error("{0} is not {1}")]
    OtherKind(String, &'static str),
    /// Too many members.
    #[error("at most {max} members, or fewer long ones", max = limits::GROUP_MEMBERS_MAX)]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
store_error!(DirectoryError);

/// Whether mail for the domain is ours to take.
///
/// # Errors
/// [`StoreError`].
pub async fn is_local(tx: &Transaction, domain: &str) -> Result<bool, StoreError> {
    Ok(tx.get(&domain_key(domain)).await?.is_some())
}

/// The address's own record; no sub-address, no catch-all.
///
/// # Errors
/// [`StoreError`].
pub async fn record(tx: &Transaction, address: &Address) -> Result<Option<Target>, StoreError> {
    let key = keys::directory::address_key(address.domain(), address.local());
    let Some(value) = tx.get(&key).await? else { return Ok(None) };
    let record: AddressRecord = keys::decode("address", &value)?;
    Ok(record.target)
}

/// The address's record, or that of the address without its `+tag`.
async fn tagged_record(tx: &Transaction, address: &Address) -> Result<Option<Target>, StoreError> {
    if let Some(target) = record(tx, address).await? {
        return Ok(Some(target));
    }
    match address.without_tag() {
        Some(plain) => record(tx, &plain).await,
        None => Ok(None),
    }
}

/// Follows aliases, groups, `+tag`s and catch-alls to accounts and remote addresses.
///
/// # Errors
/// [`ResolveError`].
pub async fn resolve(tx: &Transaction, address: &Address) -> Result<Expansion, ResolveError> {
    tx.prefetch(|ahead| step_ahead(ahead, address)).await.map_err(StoreError::from)?;
    if !is_local(tx, address.domain()).await? {
        return Err(ResolveError::NotLocal(address.domain().to_owned()));
    }
    let mut expansion = Expansion::default();
    let mut seen = BTreeSet::from([address.clone()]);
    let mut level = vec![address.clone()];
    let mut depth = 0;
    while !level.is_empty() {
        if depth > limits::ALIAS_DEPTH_MAX || seen.len() > limits::EXPANSION_MAX {
            return Err(ResolveError::TooMany(address.clone()));
        }
        let mut next = Vec::new();
        for step in level {
            resolve_step(tx, &step, &mut expansion, &mut next).await?;
            if next.len() > limits::EXPANSION_MAX + limits::GROUP_MEMBERS_MAX {
                // Groups share members, which count once.
                next.sort_unstable();
                next.dedup();
                next.retain(|found| !seen.contains(found));
                if next.len() > limits::EXPANSION_MAX {
                    return Err(ResolveError::TooMany(address.clone()));
                }
            }
        }
        next.retain(|found| seen.insert(found.clone()));
        level = next;
        tx.prefetch(|ahead| level.iter().for_each(|step| step_ahead(ahead, step)))
            .await
            .map_err(StoreError::from)?;
        depth += 1;
    }
    if expansion == Expansion::default() {
        return Err(ResolveError::Unknown(address.clone()));
    }
    Ok(expansion)
}

/// What [`resolve_step`] will read.
fn step_ahead(ahead: &mut Prefetch, step: &Address) {
    ahead.key(keys::directory::domain_key(step.domain()));
    for address in std::iter::once(step).chain(step.without_tag().as_ref()) {
        ahead.key(keys::directory::address_key(address.domain(), address.local()));
    }
}

/// One address: to an account, to elsewhere, or to further addresses. A member that does not
/// exist is skipped, so that one stale entry does not bounce a whole group's mail.
async fn resolve_step(
    tx: &Transaction,
    step: &Address,
    expansion: &mut Expansion,
    next: &mut Vec<Address>,
) -> Result<(), StoreError> {
    let value = tx.get(&keys::directory::domain_key(step.domain())).await?;
    let Some(value) = value else {
        expansion.remote.insert(step.to_string());
        return Ok(());
    };
    match tagged_record(tx, step).await? {
        Some(Target::Account(id)) => {
            expansion.accounts.insert(AccountId(id));
        }
        Some(Target::Alias(list) | Target::Group(list)) => next.extend(parsed(&list)),
        None => {
            let domain: Domain = keys::decode("domain", &value)?;
            next.extend(domain.catch_all.as_deref().and_then(|to| Address::parse(to).ok()));
        }
    }
    Ok(())
}

/// Whether the account may send as `address`: its own address, with any `+tag`, or an alias that
/// names its address.
///
/// # Errors
/// [`StoreError`].
pub async fn owns(
    tx: &Transaction,
    account: AccountId,
    address: &Address,
) -> Result<bool, StoreError> {
    match tagged_record(tx, address).await? {
        Some(Target::Account(id)) => Ok(id == account.0),
        Some(Target::Alias(list)) => {
            for target in parsed(&list) {
                if tagged_record(tx, &target).await? == Some(Target::Account(account.0)) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Some(Target::Group(_)) | None => Ok(false),
    }
}

/// The account that logs in with this name: its address, or an alias of it alone.
///
/// # Errors
/// [`StoreError`].
pub async fn login(tx: &Transaction, name: &Address) -> Result<Option<AccountId>, StoreError> {
    match record(tx, name).await? {
        Some(Target::Account(id)) => Ok(Some(AccountId(id))),
        Some(Target::Alias(list)) if list.addresses.len() == 1 => {
            let Some(target) = parsed(&list).next() else { return Ok(None) };
            match record(tx, &target).await? {
                Some(Target::Account(id)) => Ok(Some(AccountId(id))),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Adds a domain.
///
/// # Errors
/// [`DirectoryError::Exists`].
pub async fn add_domain(
    tx: &Transaction,
    domain: &str,
    now: Timestamp,
) -> Result<(), DirectoryError> {
    if is_local(tx, domain).await? {
        return Err(DirectoryError::Exists(domain.to_owned()));
    }
    set_domain(tx, domain, &Domain { created_ms: now.unix_ms(), catch_all: None });
    Ok(())
}

/// Reads a domain's record.
///
/// # Errors
/// [`DirectoryError::Missing`].
pub async fn domain(tx: &Transaction, domain: &str) -> Result<Domain, DirectoryError> {
    let value = tx.get(&domain_key(domain)).await?;
    let value = value.ok_or_else(|| DirectoryError::Missing(domain.to_owned()))?;
    Ok(keys::decode("domain", &value)?)
}

/// Rewrites a domain's record.
pub fn set_domain(tx: &Transaction, domain: &str, record: &Domain) {
    tx.set(&domain_key(domain), &record.encode_to_vec());
}

/// Removes a domain that has no address left.
///
/// # Errors
/// [`DirectoryError`].
pub async fn remove_domain(tx: &Transaction, domain: &str) -> Result<(), DirectoryError> {
    if !is_local(tx, domain).await? {
        return Err(DirectoryError::Missing(domain.to_owned()));
    }
    let (begin, end) = keys::directory::address_range(Some(&domain.to_lowercase()));
    if !tx.range(RangeQuery::new(begin, end).limit(1)).collect().await?.is_empty() {
        return Err(DirectoryError::InUse(domain.to_owned()));
    }
    tx.clear(&domain_key(domain));
    Ok(())
}

/// One page of the domains after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn domains(
    tx: &Transaction,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Domain)>, StoreError> {
    let (first, end) = keys::directory::domain_range();
    let begin = after.map_or(first, |name| after_key(keys::directory::domain_key(name)));
    let pairs = tx.range(RangeQuery::new(begin, end).limit(limit)).collect().await?;
    let decode = |pair: &kv::KeyValue| {
        let (_, _, name): (u64, String, String) = kv::tuple::unpack(&pair.key)
            .map_err(|error| StoreError::damaged("domain", format!("{error:?}")))?;
        Ok((name, keys::decode("domain", &pair.value)?))
    };
    pairs.iter().map(decode).collect()
}

/// One page of the addresses after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn addresses(
    tx: &Transaction,
    after: Option<&Address>,
    limit: usize,
) -> Result<Vec<(Address, Target)>, StoreError> {
    let (first, end) = keys::directory::address_range(None);
    let begin = after.map_or(first, |address| {
        after_key(keys::directory::address_key(address.domain(), address.local()))
    });
    let mut found = Vec::new();
    for pair in tx.range(RangeQuery::new(begin, end).limit(limit)).collect().await? {
        let (_, _, domain, local): (u64, String, String, String) = kv::tuple::unpack(&pair.key)
            .map_err(|error| StoreError::damaged("address", format!("{error:?}")))?;
        let address = Address::parse(&format!("{local}@{domain}"))
            .map_err(|error| StoreError::damaged("address", error))?;
        let record: AddressRecord = keys::decode("address", &pair.value)?;
        let target =
            record.target.ok_or_else(|| StoreError::damaged("address", "has no target"))?;
        found.push((address, target));
    }
    Ok(found)
}

/// What kind of list an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// Other names of accounts, or forwards.
    Alias,
    /// A list of members.
    Group,
}

/// Makes an alias or a group.
///
/// # Errors
/// [`DirectoryError`].
pub async fn add_list(
    tx: &Transaction,
    address: &Address,
    kind: ListKind,
    members: &[Address],
) -> Result<(), DirectoryError> {
    if !is_local(tx, address.domain()).await? {
        return Err(DirectoryError::Missing(address.domain().to_owned()));
    }
    if record(tx, address).await?.is_some() {
        return Err(DirectoryError::Exists(address.to_string()));
    }
    write_list(tx, address, kind, members.iter().map(Address::to_string).collect())
}

/// Adds or removes members of a group or targets of an alias.
///
/// # Errors
/// [`DirectoryError`].
pub async fn change_list(
    tx: &Transaction,
    address: &Address,
    kind: ListKind,
    add: &[Address],
    remove: &[Address],
) -> Result<(), DirectoryError> {
    let list = match (record(tx, address).await?, kind) {
        (Some(Target::Alias(list)), ListKind::Alias)
        | (Some(Target::Group(list)), ListKind::Group) => list,
        (None, _) => return Err(DirectoryError::Missing(address.to_string())),
        (Some(_), _) => return Err(other_kind(address, kind)),
    };
    let mut members: BTreeSet<String> = list.addresses.into_iter().collect();
    members.extend(add.iter().map(Address::to_string));
    for gone in remove {
        members.remove(gone.as_str());
    }
    write_list(tx, address, kind, members.into_iter().collect())
}

/// Removes an alias or a group.
///
/// # Errors
/// [`DirectoryError`].
pub async fn remove_list(
    tx: &Transaction,
    address: &Address,
    kind: ListKind,
) -> Result<(), DirectoryError> {
    match (record(tx, address).await?, kind) {
        (Some(Target::Alias(_)), ListKind::Alias) | (Some(Target::Group(_)), ListKind::Group) => {
            tx.clear(&keys::directory::address_key(address.domain(), address.local()));
            Ok(())
        }
        (None, _) => Err(DirectoryError::Missing(address.to_string())),
        (Some(_), _) => Err(other_kind(address, kind)),
    }
}

pub(crate) fn set_account(tx: &Transaction, address: &Address, account: AccountId) {
    write_record(tx, address, Target::Account(account.0));
}

pub(crate) fn clear_account(tx: &Transaction, address: &Address) {
    tx.clear(&keys::directory::address_key(address.domain(), address.local()));
}

fn write_list(
    tx: &Transaction,
    address: &Address,
    kind: ListKind,
    addresses: Vec<String>,
) -> Result<(), DirectoryError> {
    if addresses.len() > limits::GROUP_MEMBERS_MAX {
        return Err(DirectoryError::TooMany);
    }
    let list = Addresses { addresses };
    if list.encoded_len() > limits::GROUP_BYTES_MAX {
        return Err(DirectoryError::TooMany);
    }
    let target = match kind {
        ListKind::Alias => Target::Alias(list),
        ListKind::Group => Target::Group(list),
    };
    write_record(tx, address, target);
    Ok(())
}

fn write_record(tx: &Transaction, address: &Address, target: Target) {
    let record = AddressRecord { target: Some(target) };
    let key = keys::directory::address_key(address.domain(), address.local());
    tx.set(&key, &record.encode_to_vec());
}

/// A domain's key, whatever case the name was typed in.
fn domain_key(domain: &str) -> Vec<u8> {
    keys::directory::domain_key(&domain.to_lowercase())
}

fn parsed(list: &Addresses) -> impl Iterator<Item = Address> {
    list.addresses.iter().filter_map(|text| Address::parse(text).ok())
}

fn other_kind(address: &Address, kind: ListKind) -> DirectoryError {
    let wanted = match kind {
        ListKind::Alias => "an alias",
        ListKind::Group => "a group",
    };
    DirectoryError::OtherKind(address.to_string(), wanted)
}

/// The first key after `key`.
fn after_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
