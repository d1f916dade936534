//! Clients that wait for mail, and clients whose messages they wait for.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use env::{BoxFuture, Monotonic};

use crate::{
    Share, What, Workload, World,
    clients::{
        offline::{Session, Stopped},
        visitor::{Start, Visitor, all_of},
    },
};

/// The workload's share.
pub(super) const SHARE: Share = Share {
    name: "idlers",
    per_mille: 700,
    make: |random| Arc::new(Idlers { idlers: random.within(2..=4) }),
};

/// Accounts that are waited on.
const ACCOUNTS: usize = 2;

/// Behind those whose flags and mailboxes others change.
const FIRST_ACCOUNT: usize = 3;

struct Idlers {
    idlers: u64,
}

impl Workload for Idlers {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        let mut parts: Vec<BoxFuture<'static, ()>> = Vec::new();
        for number in 0..self.idlers {
            let account = FIRST_ACCOUNT + number as usize % ACCOUNTS;
            let visitor = Visitor::new(world, &format!("idler-{number}"), account);
            parts.push(Box::pin(idler(visitor)));
        }
        for number in 0..ACCOUNTS {
            let name = format!("writer-{number}");
            let visitor = Visitor::new(world, &name, FIRST_ACCOUNT + number);
            parts.push(Box::pin(writer(visitor, name)));
        }
        Box::pin(all_of(world, parts))
    }
}

/// Puts messages into INBOX, each time through any node.
async fn writer(mut visitor: Visitor, name: String) {
    let mut sent = 0;
    while !visitor.world.is_over() {
        visitor.rest(Duration::from_secs(2), Duration::from_secs(30)).await;
        let mut session = match visitor.log_in().await {
            Ok(session) => session,
            Err(why) => {
                visitor.stopped(&why);
                continue;
            }
        };
        for _ in 0..visitor.random.within(1..=2) {
            sent += 1;
            if let Err(why) = session.append("INBOX", &format!("{name}-{sent}")).await {
                visitor.stopped(&why);
            }
        }
        if visitor.random.chance(500) {
            session.close().await;
        }
    }
}

async fn idler(mut visitor: Visitor) {
    let mut known = BTreeSet::new();
    while !visitor.world.is_over() {
        if let Err(why) = Box::pin(wait_for_mail(&mut visitor, &mut known)).await {
            visitor.stopped(&why);
            visitor.rest(Duration::from_secs(1), Duration::from_secs(5)).await;
        }
    }
    visitor.note_states();
}

/// Waits for some changes with one connection.
async fn wait_for_mail(visitor: &mut Visitor, known: &mut BTreeSet<u32>) -> Result<(), Stopped> {
    let mut session = visitor.enter("INBOX", Start::Latest).await?;
    known.extend(session.copy().messages.keys());
    for _ in 0..visitor.random.within(2..=12) {
        if visitor.world.is_over() {
            break;
        }
        let begun = visitor.world.now();
        let patience = Duration::from_secs(visitor.random.within(5..=60));
        let heard_at = wait_once(visitor, &mut session, patience).await?;
        session.catch_up().await?;
        let new: Vec<u32> =
            session.copy().messages.keys().copied().filter(|uid| known.insert(*uid)).collect();
        for uid in new {
            note_learned(visitor, &session, uid, begun, heard_at);
        }
    }
    session.verify().await?;
    visitor.leave(session).await;
    Ok(())
}

/// Waits until something is told. Returns when that was.
async fn wait_once(
    visitor: &Visitor,
    session: &mut Session,
    patience: Duration,
) -> Result<Monotonic, Stopped> {
    // What has been told already is not told again.
    session.catch_up().await?;
    let (account, mailbox) = (visitor.account.id, session.copy().mailbox.clone());
    let facts = visitor.world.facts();
    let host = visitor.host.name();
    let tag = session.imap().idle().await?;
    facts.note(&host, What::Idling { account, mailbox: mailbox.clone() });
    let heard = session.imap().hear(patience).await;
    let heard_at = visitor.world.now();
    facts.note(&host, What::IdleEnded { account, mailbox });
    if let Some(told) = heard? {
        env::sometimes!("an idling client is told");
        session.apply(&told);
    }
    session.end_idle(&tag).await?;
    Ok(heard_at)
}

fn note_learned(
    visitor: &Visitor,
    session: &Session,
    uid: u32,
    begun: Monotonic,
    heard_at: Monotonic,
) {
    let token = session.copy().messages.get(&uid).and_then(|kept| kept.token.clone());
    let Some(token) = token else { return };
    let account = visitor.account.id;
    let facts = visitor.world.facts();
    let told_at = facts.with(|facts| {
        let mut newest_first = facts.iter().rev();
        let told = newest_first.find(|fact| match &fact.what {
            What::Accepted { token: it, recipient, .. } => {
                *it == token && *recipient == visitor.account.address
            }
            What::Appended { account: whose, token: it, .. } => *whose == account && *it == token,
            _ => false,
        });
        told.map(|fact| fact.at)
    });
    // Its sender may not even know yet.
    let since = told_at.unwrap_or(heard_at).max(begun);
    let after = heard_at.saturating_since(since);
    facts.note(&visitor.host.name(), What::Learned { account, change: token, after });
}
