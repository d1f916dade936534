//! P3: an idling client learns of a change within the bound.
//!
//! The bound is what a lost wake-up costs, as long as nothing is wrong: a node reads its inbox every
//! second. While something is wrong there is none; once all is well again there is, which clients of
//! every node try when the world has come to rest.

use std::{collections::BTreeMap, time::Duration};

use env::{BoxFuture, Monotonic};
use mail::AccountId;

use super::calm::Calm;
use crate::{
    Account, Check, Door, Fact, NodeId, Property, Violation, What, World,
    clients::{
        imap::Untagged,
        offline::{Copy, Revision, Session, Stopped, Way},
    },
};

/// Where nothing is wrong: the period of the inbox, and the way to clients on another continent.
const BOUND: Duration = Duration::from_secs(3);

/// How long a client waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Idle;

impl Check for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn property(&self) -> Property {
        Property::P3
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async move {
            let accounts = world.accounts();
            let mut violations = world.facts().with(|facts| check(facts, accounts));
            for node in world.nodes() {
                match Box::pin(try_out(world, node)).await {
                    Ok(late) if late <= BOUND => {}
                    Ok(late) => {
                        let late = late.as_secs_f64();
                        let what = format!("a client of {node} is not told within {late:.3} s");
                        violations.push(Violation::new(Property::P3, what));
                    }
                    Err(why) => {
                        let what = format!("no client of {node} can idle: {why:?}");
                        violations.push(Violation::new(Property::P3, what));
                    }
                }
            }
            violations
        })
    }
}

/// How long a client of this node waits for a message that another node takes.
async fn try_out(world: &World, node: NodeId) -> Result<Duration, Stopped> {
    let account = &world.accounts()[0];
    let host = world.client_host(&format!("check-idle-{node}"));
    let elsewhere = world.nodes().find(|it| *it != node).unwrap_or(node);
    let (here, there) = (world.door(node, Door::Imaps), world.door(elsewhere, Door::Imaps));
    let mut idler = Session::open(world, &host, account, here, Revision::One).await?;
    idler.resync(Copy::of("INBOX"), Way::Plain).await?;
    let mut writer = Session::open(world, &host, account, there, Revision::One).await?;
    let tag = idler.imap().idle().await?;
    writer.append("INBOX", &format!("check-idle-{node}")).await?;
    let begun = world.now();
    while world.now() <= begun + PATIENCE {
        let told = idler.imap().hear(PATIENCE).await?;
        if let Some(Untagged::Exists(_)) = told {
            break;
        }
    }
    let late = world.now().saturating_since(begun);
    idler.end_idle(&tag).await?;
    idler.close().await;
    writer.close().await;
    Ok(late)
}

/// A stretch of time in which a client idled, at whose end it was told or gave up.
struct Stretch<'a> {
    host: &'a str,
    account: AccountId,
    from: Monotonic,
    to: Monotonic,
}

fn check(facts: &[Fact], accounts: &[Account]) -> Vec<Violation> {
    let calm = Calm::of(facts);
    let arrivals = arrivals(facts, accounts);
    // When a client first saw a message.
    let mut seen: BTreeMap<(&str, &str), Monotonic> = BTreeMap::new();
    for fact in facts {
        if let What::UidSeen { token: Some(token), .. } = &fact.what {
            seen.entry((&fact.host, token)).or_insert(fact.at);
        }
    }
    let mut violations = Vec::new();
    for stretch in stretches(facts) {
        for (at, account, token) in &arrivals {
            let Stretch { host, from, to, .. } = stretch;
            let known_before = seen.get(&(host, *token)).is_some_and(|at| *at < from);
            if *account != stretch.account || *at > to || known_before {
                continue;
            }
            let since = (*at).max(from);
            let late = to.saturating_since(since);
            if !calm.holds(since, to) {
                continue;
            }
            env::sometimes!("a wake-up is held against its bound");
            if late > BOUND {
                let late = late.as_secs_f64();
                let what = format!("{host} idles {late:.3} s and is not told of {token}");
                violations.push(Violation::at(Property::P3, since, what));
            }
        }
    }
    violations
}

/// Messages that came to an INBOX, and when their senders knew.
fn arrivals<'a>(facts: &'a [Fact], accounts: &[Account]) -> Vec<(Monotonic, AccountId, &'a str)> {
    let arrival = |fact: &'a Fact| match &fact.what {
        What::Accepted { token, recipient, .. } => {
            let account = accounts.iter().find(|account| account.address == *recipient)?;
            Some((fact.at, account.id, token.as_str()))
        }
        What::Appended { account, mailbox, token, .. } if mailbox == "INBOX" => {
            Some((fact.at, *account, token.as_str()))
        }
        _ => None,
    };
    facts.iter().filter_map(arrival).collect()
}

fn stretches(facts: &[Fact]) -> Vec<Stretch<'_>> {
    let mut open: BTreeMap<&str, Monotonic> = BTreeMap::new();
    let mut stretches = Vec::new();
    for fact in facts {
        let host: &str = &fact.host;
        match &fact.what {
            What::Idling { .. } => drop(open.insert(host, fact.at)),
            What::IdleEnded { account, .. } => {
                if let Some(from) = open.remove(host) {
                    stretches.push(Stretch { host, account: *account, from, to: fact.at });
                }
            }
            _ => {}
        }
    }
    stretches
}
