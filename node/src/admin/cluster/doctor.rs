//! What is wrong with the cluster, in words, and what to do about it.
//!
//! The doctor looks twice, some heartbeats apart: what stands still in between is told from what
//! only looked so at one moment. To add a finding: a function that returns it, a call in
//! [`doctor`], a test that plants its cause.

use std::{collections::BTreeMap, time::Duration};

use blob::BlobStore;
use cluster::{
    Epoch,
    dkim::{Key, State},
    limits::BEATS_PER_LIFE,
    membership::registry::{self, NameRecord, NodeRecord, Registered},
    work::Kind,
};
use env::Timestamp;
use kv::Transaction;
use mail::{ListenerId, StoreError, interest};
use serde::{Deserialize, Serialize};

use super::{
    Admin, AdminError, CertificateState, Health, NodeInfo, NodeState, certificates,
    health::{self, Care},
    nodes, work,
};
use crate::{
    admin::{PageQuery, dkim},
    date,
    limits::{
        BLOBS_SLOW, CLOCKS_APART, DOCTOR_BEATS, DOCTOR_LISTENERS_MAX, DOCTOR_PAUSE_MAX,
        SETTLED_WITHIN, STATUS_NODES_MAX, STORE_COMMIT_SLOW, STORE_READ_SLOW, WORK_COUNT_MAX,
        WORK_FAILURES_NOTED, WORK_LATE, WORK_WORST_MAX,
    },
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Mail is held up or will be.
    Error,
    /// Something is to be done, and mail goes on.
    Warning,
    /// Worth knowing: somebody wanted it so, or it passes by itself.
    Note,
}

impl Severity {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something that a doctor has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// For programs: never changes its meaning.
    pub code: String,
    /// What it is, for people: may change.
    pub sentence: String,
    /// What to do about it.
    pub advice: String,
}

/// What a doctor says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// Whether nothing is worse than worth knowing.
    pub healthy: bool,
}

fn finding(severity: Severity, code: &str, sentence: String, advice: &str) -> Finding {
    Finding { severity, code: code.to_owned(), sentence, advice: advice.to_owned() }
}

/// Looks for what is wrong. Takes a few seconds.
///
/// # Errors
/// [`AdminError::Internal`] for records that cannot be read, [`AdminError::Unavailable`] where the
/// store goes away while it is looked at.
pub async fn doctor(admin: &Admin, blobs: Option<&BlobStore>) -> Result<Report, AdminError> {
    let health = health::probe(admin, blobs, Care::Thorough).await;
    let mut findings = of_health(&health);
    if health.store_read.error.is_none() {
        let first = look(admin).await?;
        admin.env.sleep(pause(&first)).await;
        let second = look(admin).await?;
        findings.extend(of_nodes(&second));
        findings.extend(of_beats(&first, &second));
        findings.extend(of_ended(&first, &second));
        findings.extend(of_certificates(admin, &second).await?);
        findings.extend(of_work(admin).await?);
        findings.extend(of_signing(admin, &second).await?);
        findings.extend(of_listeners(admin).await?);
    }
    findings.sort_by_key(|finding| finding.severity);
    let healthy = findings.iter().all(|finding| finding.severity == Severity::Note);
    Ok(Report { findings, healthy })
}

/// What one look found.
struct Look {
    begun: Timestamp,
    ended_at: Timestamp,
    registered: BTreeMap<Epoch, Registered>,
    ended: Vec<(Epoch, NodeRecord)>,
    names: BTreeMap<String, NameRecord>,
    nodes: Vec<NodeInfo>,
}

async fn look(admin: &Admin) -> Result<Look, AdminError> {
    let begun = admin.env.wall();
    let read = |tx: Transaction| async move {
        let registered = registry::registered(&tx).await?;
        let ended = registry::ended(&tx).await?;
        let mut names = BTreeMap::new();
        for (_, record) in &ended {
            if let Ok(name) = cluster::NodeName::parse(&record.name)
                && let Some(known) = registry::name(&tx, &name).await?
            {
                names.insert(record.name.clone(), known);
            }
        }
        Ok::<_, StoreError>((registered.into_iter().collect(), ended, names))
    };
    let (registered, ended, names) = admin.db.run(read).await?;
    let query = PageQuery { after: None, limit: Some(STATUS_NODES_MAX) };
    let nodes = nodes(admin, &query).await?.items;
    Ok(Look { begun, ended_at: admin.env.wall(), registered, ended, names, nodes })
}

/// Long enough for every node's next heartbeats.
fn pause(look: &Look) -> Duration {
    let longest = look.registered.values().map(|node| node.beat.time_to_live_ms).max();
    let period = Duration::from_millis(longest.unwrap_or(0)) / BEATS_PER_LIFE;
    (period * DOCTOR_BEATS).min(DOCTOR_PAUSE_MAX)
}

fn of_health(health: &Health) -> Vec<Finding> {
    const STORE: &str = "look at the store's own state (fdbcli: status) and at its disks";
    const BLOBS: &str = "look at the blob service, the way to it and its keys";
    let blobs = health.blobs.iter().map(|it| ("blobs", "the blob store", it, BLOBS_SLOW, BLOBS));
    let probes = [
        ("store_read", "reading the store", &health.store_read, STORE_READ_SLOW, STORE),
        ("store_commit", "writing the store", &health.store_commit, STORE_COMMIT_SLOW, STORE),
    ];
    let mut findings = Vec::new();
    for (code, what, probe, slow, advice) in probes.into_iter().chain(blobs) {
        if let Some(error) = &probe.error {
            let (code, sentence) = (format!("{code}_failing"), format!("{what} fails: {error}"));
            findings.push(finding(Severity::Error, &code, sentence, advice));
        } else if probe.is_slower_than(slow) {
            let sentence = format!("{what} is slow: {} at best", probe.text());
            findings.push(finding(Severity::Warning, &format!("{code}_slow"), sentence, advice));
        }
    }
    findings
}

fn of_nodes(look: &Look) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !look.nodes.iter().any(|node| node.state == NodeState::Up) {
        let advice = "start a node, or undrain one";
        let sentence = "no node serves".to_owned();
        findings.push(finding(Severity::Error, "nobody_serves", sentence, advice));
    }
    for node in &look.nodes {
        let name = &node.name;
        if node.state == NodeState::Dead {
            let sentence = format!("node {name} died (epoch {}) and has not come back", node.epoch);
            let advice = format!(
                "look at its log and its machine and start it again; if it is not to come back: \
                 rookery cluster forget {name}"
            );
            findings.push(finding(Severity::Warning, "node_dead", sentence, &advice));
        }
        if node.drain {
            let sentence = format!("node {name} is told to stand aside ({})", node.state.as_str());
            let advice = format!("when it is to serve again: rookery cluster undrain {name}");
            findings.push(finding(Severity::Note, "node_drained", sentence, &advice));
        }
    }
    let mut releases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in look.registered.values() {
        releases.entry(&node.record.release).or_default().push(&node.record.name);
    }
    if releases.len() > 1 {
        let each: Vec<_> = releases
            .iter()
            .map(|(release, names)| format!("{release} on {}", names.join(", ")))
            .collect();
        let sentence = format!("nodes run different releases: {}", each.join("; "));
        let advice = "finish the upgrade: two releases side by side are for its duration";
        findings.push(finding(Severity::Warning, "releases_differ", sentence, advice));
    }
    findings
}

/// Heartbeats that stood still between the looks, and clocks that cannot both be right.
fn of_beats(first: &Look, second: &Look) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (epoch, node) in &second.registered {
        let Some(before) = first.registered.get(epoch) else { continue };
        let name = &node.record.name;
        if node.beat.count == before.beat.count {
            let time = second.begun.unix_ms().saturating_sub(first.ended_at.unix_ms());
            let sentence = format!(
                "node {name} (epoch {epoch}) has shown no heartbeat for {}.{} s",
                time / 1_000,
                time % 1_000 / 100
            );
            let advice = "if it is dead, any living node declares it so by itself; if it lives, \
                          look at its machine's load and at its way to the store";
            findings.push(finding(Severity::Error, "heartbeat_late", sentence, advice));
            continue;
        }
        // Its last heartbeat was begun between the begin of the first look, less a heartbeat that
        // was under way, and the end of the second.
        let period_ms = node.beat.time_to_live_ms / u64::from(BEATS_PER_LIFE);
        let period_ms = i64::try_from(period_ms).unwrap_or(i64::MAX);
        let earliest = first.begun.unix_ms().saturating_sub(period_ms);
        let said = node.beat.wall_ms;
        let apart = match said {
            0 => 0,
            _ if said < earliest => earliest - said,
            _ => said.saturating_sub(second.ended_at.unix_ms()).max(0),
        };
        if u128::from(apart.unsigned_abs()) > CLOCKS_APART.as_millis() {
            let way = if said < earliest { "behind" } else { "ahead of" };
            let sentence = format!(
                "node {name}'s clock is {} s {way} the clock of whoever looks",
                apart / 1_000
            );
            let advice = "set the clocks by NTP, on every node: logs cannot be compared, and more \
                          than 8 hours endanger message bytes";
            findings.push(finding(Severity::Warning, "clocks_apart", sentence, advice));
        }
    }
    findings
}

/// Ended epochs that are not settled though both looks found them, and that ended long ago.
fn of_ended(first: &Look, second: &Look) -> Vec<Finding> {
    let settled_within = i64::try_from(SETTLED_WITHIN.as_millis()).unwrap_or(i64::MAX);
    let long = |epoch: &Epoch, record: &NodeRecord| {
        let ended_ms = second.names.get(&record.name).and_then(|name| {
            if name.epoch == epoch.0 {
                return Some(name.ended_ms);
            }
            second.registered.get(&Epoch(name.epoch)).map(|successor| successor.record.since_ms)
        });
        ended_ms.is_none_or(|it| second.begun.unix_ms().saturating_sub(it) > settled_within)
    };
    let seen_before = |epoch: &Epoch| first.ended.iter().any(|(before, _)| before == epoch);
    let stays = second.ended.iter().filter(|(epoch, it)| seen_before(epoch) && long(epoch, it));
    stays
        .map(|(epoch, record)| {
            let name = &record.name;
            let sentence =
                format!("what epoch {epoch} of node {name} held has not been given back for long");
            let advice = "any living node gives it back within seconds: look at the nodes' logs \
                          for \"an ended epoch is not settled\"";
            finding(Severity::Error, "unsettled", sentence, advice)
        })
        .collect()
}

/// Certificates that are in use and expire soon, or have.
async fn of_certificates(admin: &Admin, look: &Look) -> Result<Vec<Finding>, AdminError> {
    const RENEW: &str = "renew it, and add it under the same name: rookery cluster certificate add";
    const RENEW_FILE: &str = "renew the files that its configuration names (tls.certificate and \
                              tls.key), and send the node SIGHUP";
    let mut findings = Vec::new();
    let mut tell = |subject: String, state, until: Timestamp, advice: &str| {
        let at = date::rfc5322(until);
        let (severity, code, sentence) = match state {
            CertificateState::Used | CertificateState::Unused => return,
            CertificateState::Expiring => {
                (Severity::Warning, "certificate_expires", format!("{subject} expires: {at}"))
            }
            CertificateState::Expired => {
                (Severity::Error, "certificate_expired", format!("{subject} has expired: {at}"))
            }
            CertificateState::Damaged => {
                (Severity::Error, "certificate_damaged", format!("{subject} cannot be read"))
            }
        };
        findings.push(finding(severity, code, sentence, advice));
    };
    for info in certificates::certificates(admin).await? {
        let subject = format!("certificate {} for {}", info.name, info.hosts.join(", "));
        tell(subject, info.state, Timestamp::from_unix_ms(info.not_after_ms), RENEW);
    }
    for node in look.registered.values().filter(|node| node.beat.certificate_until_ms != 0) {
        let until = Timestamp::from_unix_ms(node.beat.certificate_until_ms);
        let subject = format!("the certificate in the files of node {}", node.record.name);
        tell(subject, certificates::state(until, look.begun), until, RENEW_FILE);
    }
    Ok(findings)
}

/// Keys whose records do not stand in DNS as they should, and domains that can have no more.
async fn of_signing(admin: &Admin, look: &Look) -> Result<Vec<Finding>, AdminError> {
    let tell = |trouble| match trouble {
        dkim::Trouble::Key(domain, key) => of_key(&domain, &key),
        dkim::Trouble::Full(domain, keys) => {
            let sentence =
                format!("{domain} has {keys} keys to sign with, and gets no other before one goes");
            let advice = format!(
                "see whose records are still in DNS, and remove those of retired keys: \
                 rookery domain dkim {domain}"
            );
            finding(Severity::Warning, "dkim_keys_full", sentence, &advice)
        }
    };
    Ok(dkim::troubles(admin, look.begun).await?.into_iter().map(tell).collect())
}

fn of_key(domain: &str, key: &Key) -> Finding {
    let subject = format!("the record of {domain}'s key {}", key.selector);
    let advice = format!("see what to publish, and what DNS says: rookery domain dkim {domain}");
    let (severity, code, sentence) = match (key.state, key.trouble.is_empty()) {
        (State::InUse, _) => (
            Severity::Error,
            "dkim_record_gone",
            format!("{subject} is not in DNS, though the key signs"),
        ),
        (State::Retired, _) => (
            Severity::Warning,
            "dkim_record_stays",
            format!("{subject} cannot be removed: {}", key.trouble),
        ),
        (_, false) => (
            Severity::Warning,
            "dkim_update_fails",
            format!("{subject} is not taken by the name server: {}", key.trouble),
        ),
        (_, true) => (
            Severity::Warning,
            "dkim_record_wanted",
            format!("{subject} is still not in DNS: the key waits, and those before it sign"),
        ),
    };
    finding(severity, code, sentence, &advice)
}

async fn of_work(admin: &Admin) -> Result<Vec<Finding>, AdminError> {
    let mut findings = Vec::new();
    for lag in work::lags(admin).await? {
        if u128::from(lag.lag_ms) > WORK_LATE.as_millis() {
            let hands = match lag.claimed.count {
                0 => "no node works on it".to_owned(),
                zones => format!("nodes work on {zones} zones"),
            };
            let sentence = format!(
                "work of kind {} is {} s late: {} zones wait, {hands}",
                lag.kind,
                lag.lag_ms / 1_000,
                lag.due
            );
            let advice = "look at the load of nodes and store, and at the zones: \
                          rookery cluster work KIND";
            findings.push(finding(Severity::Warning, "work_late", sentence, advice));
        }
    }
    for kind in Kind::ALL {
        let mut worst = Vec::new();
        let mut often = 0_u64;
        let failing = work::failing(&admin.db, kind, None, WORK_COUNT_MAX, |item| {
            if item.count >= WORK_FAILURES_NOTED {
                often += 1;
                worst.push(item);
                worst.sort_by_key(|it: &work::FailingItem| std::cmp::Reverse(it.count));
                worst.truncate(WORK_WORST_MAX);
            }
        });
        failing.await?;
        if often == 0 {
            continue;
        }
        let each: Vec<_> = worst
            .iter()
            .map(|it| format!("zone {}: {} times, last: {}", it.zone, it.count, it.reason))
            .collect();
        let kind = kind.as_str();
        let sentence = format!(
            "{often} items of kind {kind} fail again and again; the worst: {}",
            each.join("; ")
        );
        let advice = format!("mend the reason; rookery cluster work {kind} shows the zones");
        findings.push(finding(Severity::Warning, "work_failing", sentence, &advice));
    }
    Ok(findings)
}

/// Listeners that no node is: what is written to their inboxes stays there.
async fn of_listeners(admin: &Admin) -> Result<Option<Finding>, AdminError> {
    let (mut from, mut orphans) = (ListenerId(0), 0);
    for _ in 0..DOCTOR_LISTENERS_MAX {
        let look = |tx: Transaction| async move {
            let Some(listener) = interest::next_listener(&tx, from).await? else { return Ok(None) };
            let is_known = registry::is_known(&tx, listener.into()).await?;
            Ok::<_, StoreError>(Some((listener, is_known)))
        };
        let Some((listener, is_known)) = admin.db.run(look).await? else { break };
        orphans += u64::from(!is_known);
        let Some(next) = listener.0.checked_add(1) else { break };
        from = ListenerId(next);
    }
    Ok((orphans > 0).then(|| {
        let sentence = format!("{orphans} listeners are told of changes and are no node's");
        let advice = "rookery fsck --repair takes them away";
        finding(Severity::Warning, "orphaned_listeners", sentence, advice)
    }))
}

#[cfg(test)]
mod tests;
