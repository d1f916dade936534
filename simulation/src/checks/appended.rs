//! P1, for APPEND: what was acknowledged is in the mailbox once, and what was not is there once at
//! most.
//!
//! INBOX alone: from there no workload copies, moves or expunges.

use std::collections::{BTreeMap, BTreeSet};

use env::BoxFuture;
use mail::AccountId;

use crate::{
    Account, Check, Door, Fact, Property, Violation, What, World,
    clients::offline::{Copy, Revision, Session, Stopped, Way},
};

pub(super) struct Appended;

impl Check for Appended {
    fn name(&self) -> &'static str {
        "appended"
    }

    fn property(&self) -> Property {
        Property::P1
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async move {
            let sent = world.facts().with(sent);
            let mut violations = Vec::new();
            for account in world.accounts() {
                let Some(sent) = sent.get(&account.id) else { continue };
                violations.extend(check(world, account, sent).await);
            }
            violations
        })
    }
}

/// What clients appended to an INBOX.
#[derive(Default)]
struct Sent {
    begun: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
}

fn sent(facts: &[Fact]) -> BTreeMap<AccountId, Sent> {
    let mut all: BTreeMap<AccountId, Sent> = BTreeMap::new();
    for fact in facts {
        match &fact.what {
            What::Appending { account, mailbox, token } if mailbox == "INBOX" => {
                all.entry(*account).or_default().begun.insert(token.clone());
            }
            What::Appended { account, mailbox, token, .. } if mailbox == "INBOX" => {
                all.entry(*account).or_default().acknowledged.insert(token.clone());
            }
            _ => {}
        }
    }
    all
}

async fn check(world: &World, account: &Account, sent: &Sent) -> Vec<Violation> {
    let held = match held(world, account).await {
        Ok(held) => held,
        Err(why) => {
            let what = format!("{} cannot be read: {why:?}", account.address);
            return vec![Violation::new(Property::P1, what)];
        }
    };
    let mut violations = Vec::new();
    for token in &sent.begun {
        let copies = held.get(token).copied().unwrap_or(0);
        let acknowledged = sent.acknowledged.contains(token);
        if copies > 1 || (acknowledged && copies == 0) {
            let told = if acknowledged { "acknowledged" } else { "not acknowledged" };
            let what = format!("{token}, {told}, is {copies} times at {}", account.address);
            violations.push(Violation::new(Property::P1, what));
        }
    }
    violations
}

/// How often each message is in INBOX.
async fn held(world: &World, account: &Account) -> Result<BTreeMap<String, u32>, Stopped> {
    let host = world.client_host("check-appended");
    let door = world.doors(Door::Imaps)[0];
    let mut session = Session::open(world, &host, account, door, Revision::One).await?;
    session.resync(Copy::of("INBOX"), Way::Plain).await?;
    let mut held = BTreeMap::new();
    for kept in session.copy().messages.values() {
        *held.entry(kept.token.clone().unwrap_or_default()).or_default() += 1;
    }
    session.close().await;
    Ok(held)
}
