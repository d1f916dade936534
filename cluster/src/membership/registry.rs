//! Nodes in the store: their registrations, heartbeats and ends.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Node, "next") | u64 LE | the last epoch that was handed out |
//! | (Node, "e", epoch) | [`NodeRecord`] | from the registration to the epoch's end; every transaction that completes claimed work reads it |
//! | (Node, "b", epoch) | [`Beat`] | written by each heartbeat; goes with the registration |
//! | (Node, "d", epoch) | [`NodeRecord`] | from the epoch's end until everything it held is settled |
//! | (Node, "c", epoch, kind, zone) | empty | a zone of work that the epoch has claimed |
//! | (Node, "n", name) | [`NameRecord`] | from the first registration of the name until it is forgotten |
//! | (Node, "probe") | i64 LE | written by whoever measures how long a commit takes ([`super::roll`]) |
//!
//! Architecture invariant: an epoch ends in exactly one transaction, which clears its
//! registration. Whatever conflicts with that clear commits before it or not at all.

use kv::{
    AtomicOp, RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;

use crate::{ClusterError, Epoch, NodeName};

/// What a node says of itself when it registers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeRecord {
    /// Its [`NodeName`].
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its release, such as `0.1.0`.
    #[prost(string, tag = "2")]
    pub release: String,
    /// Where other nodes reach it, such as `192.0.2.1:7400`; empty where they do not.
    #[prost(string, tag = "3")]
    pub address: String,
    /// The certificate that it shows to them (DER).
    #[prost(bytes = "vec", tag = "4")]
    pub certificate: Vec<u8>,
    /// When it registered, by its own clock.
    #[prost(int64, tag = "5")]
    pub since_ms: i64,
    /// Where its administration listens, such as `192.0.2.1:8080`; empty where it does not.
    #[prost(string, tag = "6")]
    pub admin_address: String,
    /// Random: tells the process from another of the same name.
    #[prost(bytes = "vec", tag = "7")]
    pub instance: Vec<u8>,
}

/// A heartbeat. What it says beside the count is for people.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Beat {
    /// One more with each.
    #[prost(uint64, tag = "1")]
    pub count: u64,
    /// How long it may stand still, milliseconds.
    #[prost(uint64, tag = "2")]
    pub time_to_live_ms: u64,
    /// What the node does.
    #[prost(enumeration = "Activity", tag = "3")]
    pub activity: i32,
    /// Sessions that it serves.
    #[prost(uint64, tag = "4")]
    pub sessions: u64,
    /// Zones of work that it has claimed.
    #[prost(uint64, tag = "5")]
    pub claims: u64,
    /// When it was begun, by the node's own clock: to tell people whose clock is wrong, and for
    /// nothing else. 0 of a release that did not say.
    #[prost(int64, tag = "6")]
    pub wall_ms: i64,
    /// Until when the certificate in the node's own files is good, milliseconds since 1970; 0 where
    /// it has none, or does not say.
    #[prost(int64, tag = "7")]
    pub certificate_until_ms: i64,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Activity {
    /// It binds its ports.
    Starting = 0,
    /// It serves.
    Serving = 1,
    /// It says goodbye.
    Draining = 2,
    /// It runs, and was told not to serve.
    Drained = 3,
}

/// What is known of a name, whether or not a node has it now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NameRecord {
    /// The last epoch that had it.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Why that one ended; meaningful once it is registered no more.
    #[prost(enumeration = "End", tag = "2")]
    pub end: i32,
    /// When it ended, by the clock of whoever ended it.
    #[prost(int64, tag = "3")]
    pub ended_ms: i64,
    /// Whether administrators want the node to stand aside.
    #[prost(bool, tag = "4")]
    pub drain: bool,
    /// The release that it ran last.
    #[prost(string, tag = "5")]
    pub release: String,
    /// The process that has it or had it last.
    #[prost(bytes = "vec", tag = "6")]
    pub instance: Vec<u8>,
}

/// Why an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum End {
    /// It left.
    Left = 0,
    /// Its heartbeat stood still.
    Died = 1,
    /// Another node registered under its name.
    Superseded = 2,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// What it said of itself.
    pub record: NodeRecord,
    /// Its last heartbeat.
    pub beat: Beat,
}

pub(crate) fn epoch_key(epoch: Epoch) -> Vec<u8> {
    pack(&(Subspace::Node as u64, "e", epoch.0))
}

fn beat_key(epoch: Epoch) -> Vec<u8> {
    pack(&(Subspace::Node as u64, "b", epoch.0))
}

fn ended_key(epoch: Epoch) -> Vec<u8> {
    pack(&(Subspace::Node as u64, "d", epoch.0))
}

pub(super) fn name_key(name: &str) -> Vec<u8> {
    pack(&(Subspace::Node as u64, "n", name))
}

fn next_key() -> Vec<u8> {
    pack(&(Subspace::Node as u64, "next"))
}

pub(crate) fn claim_key(epoch: Epoch, kind: u64, zone: &str) -> Vec<u8> {
    pack(&(Subspace::Node as u64, "c", epoch.0, kind, zone))
}

pub(crate) fn claims_of(epoch: Epoch) -> RangeQuery {
    RangeQuery::prefix(&pack(&(Subspace::Node as u64, "c", epoch.0)))
}

pub(super) fn family(name: &str) -> RangeQuery {
    RangeQuery::prefix(&pack(&(Subspace::Node as u64, name)))
}

pub(super) fn decode<M: Message + Default>(
    what: &'static str,
    value: &[u8],
) -> Result<M, StoreError> {
    M::decode(value).map_err(|error| StoreError::damaged(what, error))
}

fn epoch_of(key: &[u8]) -> Result<Epoch, StoreError> {
    let (_, _, epoch): (u64, String, u64) =
        tuple::unpack(key).map_err(|_| StoreError::damaged("node", "a key without its epoch"))?;
    Ok(Epoch(epoch))
}

/// Registers a node under its name and hands out its epoch. Whoever had the name before is ended:
/// its process is gone, or is to go.
///
/// # Errors
/// [`StoreError`].
pub async fn register(
    tx: &Transaction,
    record: &NodeRecord,
    first: Beat,
) -> Result<Epoch, StoreError> {
    let last = tx.get(&next_key()).await?;
    let last = last.and_then(|value| value[..].try_into().ok()).map_or(0, u64::from_le_bytes);
    let epoch = Epoch(last + 1);
    tx.set(&next_key(), &epoch.0.to_le_bytes());
    let mut name = read_name(tx, &record.name).await?.unwrap_or_default();
    if name.epoch != 0 {
        env::sometimes!("a node registered under the name of its last life");
        end(tx, Epoch(name.epoch), End::Superseded, record.since_ms).await?;
        name = read_name(tx, &record.name).await?.unwrap_or_default();
    }
    name.epoch = epoch.0;
    name.release.clone_from(&record.release);
    name.instance.clone_from(&record.instance);
    write_name(tx, &record.name, &name).await?;
    tx.set(&epoch_key(epoch), &record.encode_to_vec());
    tx.set(&beat_key(epoch), &first.encode_to_vec());
    Ok(epoch)
}

/// Writes a heartbeat, and tells what the name's record wants.
///
/// # Errors
/// [`ClusterError::Ended`] where the epoch is over.
pub async fn beat(
    tx: &Transaction,
    epoch: Epoch,
    name: &NodeName,
    beat: Beat,
) -> Result<NameRecord, ClusterError> {
    check(tx, epoch).await?;
    tx.set(&beat_key(epoch), &beat.encode_to_vec());
    let value = tx.get_snapshot(&name_key(name.as_str())).await?;
    Ok(value.map(|value| decode("node name", &value)).transpose()?.unwrap_or_default())
}

/// Reads, with conflict, that the epoch lasts.
///
/// # Errors
/// [`ClusterError::Ended`] where it does not.
pub async fn check(tx: &Transaction, epoch: Epoch) -> Result<(), ClusterError> {
    match tx.get(&epoch_key(epoch)).await? {
        Some(_) => Ok(()),
        None => Err(ClusterError::Ended(epoch)),
    }
}

/// Whether an epoch is registered, or has ended and is still to be settled.
///
/// # Errors
/// [`StoreError`].
pub async fn is_known(tx: &Transaction, epoch: Epoch) -> Result<bool, StoreError> {
    let registered = tx.get(&epoch_key(epoch)).await?.is_some();
    Ok(registered || tx.get(&ended_key(epoch)).await?.is_some())
}

/// Who is registered, as of this transaction's version. Takes part in no conflict.
///
/// # Errors
/// [`StoreError`].
pub async fn registered(tx: &Transaction) -> Result<Vec<(Epoch, Registered)>, StoreError> {
    let mut beats = std::collections::BTreeMap::new();
    for row in tx.range(family("b").snapshot()).collect().await? {
        beats.insert(epoch_of(&row.key)?, decode::<Beat>("heartbeat", &row.value)?);
    }
    let mut nodes = Vec::new();
    for row in tx.range(family("e").snapshot()).collect().await? {
        let epoch = epoch_of(&row.key)?;
        let record = decode("node", &row.value)?;
        nodes.push((epoch, Registered { record, beat: beats.remove(&epoch).unwrap_or_default() }));
    }
    Ok(nodes)
}

/// Epochs that have ended and still hold something.
///
/// # Errors
/// [`StoreError`].
pub async fn ended(tx: &Transaction) -> Result<Vec<(Epoch, NodeRecord)>, StoreError> {
    let rows = tx.range(family("d").snapshot()).collect().await?;
    rows.iter().map(|row| Ok((epoch_of(&row.key)?, decode("node", &row.value)?))).collect()
}

/// What came of a try to end an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is over, by this transaction.
    Now,
    /// It was over.
    Before,
    /// It has shown that it lives.
    Lives,
}

/// Ends an epoch whose heartbeat has not moved since it was seen at `seen`.
///
/// # Errors
/// [`StoreError`].
pub async fn declare_dead(
    tx: &Transaction,
    epoch: Epoch,
    seen: u64,
    now_ms: i64,
) -> Result<Ended, StoreError> {
    let held = tx.get(&beat_key(epoch)).await?;
    let held: Option<Beat> = held.map(|value| decode("heartbeat", &value)).transpose()?;
    if held.is_some_and(|beat| beat.count != seen) {
        return Ok(Ended::Lives);
    }
    end(tx, epoch, End::Died, now_ms).await
}

/// Ends an epoch. From this commit on nothing that it claimed is its own; what it held is to be
/// settled afterwards.
///
/// # Errors
/// [`StoreError`].
pub async fn end(
    tx: &Transaction,
    epoch: Epoch,
    why: End,
    now_ms: i64,
) -> Result<Ended, StoreError> {
    let Some(value) = tx.get(&epoch_key(epoch)).await? else { return Ok(Ended::Before) };
    let record: NodeRecord = decode("node", &value)?;
    tx.clear(&epoch_key(epoch));
    tx.clear(&beat_key(epoch));
    tx.set(&ended_key(epoch), &value);
    if let Some(name) = read_name(tx, &record.name).await?
        && name.epoch == epoch.0
    {
        let name = NameRecord { end: why as i32, ended_ms: now_ms, ..name };
        write_name(tx, &record.name, &name).await?;
    }
    Ok(Ended::Now)
}

/// Forgets an ended epoch of which everything is settled.
pub(crate) fn forget_ended(tx: &Transaction, epoch: Epoch) {
    tx.clear(&ended_key(epoch));
}

async fn read_name(tx: &Transaction, name: &str) -> Result<Option<NameRecord>, StoreError> {
    let value = tx.get(&name_key(name)).await?;
    value.map(|value| decode("node name", &value)).transpose()
}

/// Writes a name's record, and keeps what this release does not know of it.
async fn write_name(tx: &Transaction, name: &str, record: &NameRecord) -> Result<(), StoreError> {
    let key = name_key(name);
    let before = tx.get(&key).await?.unwrap_or_default();
    tx.set(&key, &mail::keys::encode_over(record, &before));
    Ok(())
}

/// What is known of one name.
///
/// # Errors
/// [`StoreError`].
pub async fn name(tx: &Transaction, name: &NodeName) -> Result<Option<NameRecord>, StoreError> {
    read_name(tx, name.as_str()).await
}

/// What an administrator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it stands aside, and stays aside when it is started again.
    Drain,
    /// That it serves.
    Serve,
}

/// What came of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wished {
    /// It is noted; the node learns of it with its next heartbeat, and at once by its bell.
    Noted,
    /// Nobody was ever registered under this name.
    Unknown,
}

/// Notes what an administrator wants of a node.
///
/// # Errors
/// [`StoreError`].
pub async fn wish(tx: &Transaction, name: &NodeName, wish: Wish) -> Result<Wished, StoreError> {
    let Some(held) = read_name(tx, name.as_str()).await? else { return Ok(Wished::Unknown) };
    let epoch = Epoch(held.epoch);
    let record = NameRecord { drain: wish == Wish::Drain, ..held };
    write_name(tx, name.as_str(), &record).await?;
    if tx.get(&epoch_key(epoch)).await?.is_some() {
        ring(tx, epoch);
    }
    Ok(Wished::Noted)
}

/// Rings a node's bell: something that it looks at with each heartbeat has changed.
pub fn ring(tx: &Transaction, epoch: Epoch) {
    let bell = mail::interest::bell_key(epoch.into());
    tx.atomic(&bell, &1_u64.to_le_bytes(), AtomicOp::Add);
}

/// What came of a try to forget a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// Nothing tells of it any more.
    Yes,
    /// Nothing told of it.
    Unknown,
    /// A node has it: it has to end first.
    Registered,
}

/// Forgets a name that no node has.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(tx: &Transaction, name: &NodeName) -> Result<Forgotten, StoreError> {
    let Some(held) = read_name(tx, name.as_str()).await? else { return Ok(Forgotten::Unknown) };
    if tx.get(&epoch_key(Epoch(held.epoch))).await?.is_some() {
        return Ok(Forgotten::Registered);
    }
    tx.clear(&name_key(name.as_str()));
    Ok(Forgotten::Yes)
}
