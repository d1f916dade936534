//! P3: a client that resyncs from any earlier state converges on the server's state.
//!
//! Comparisons that clients made during the run have to have found nothing. Then clients come back
//! from the states that were kept, each way, and what they hold is compared with what a FETCH says
//! and with the store's own rows.

use std::{collections::BTreeMap, sync::Arc};

use env::BoxFuture;
use kv::RangeQuery;
use mail::{AccountId, StoreError, keys};

use crate::{
    Account, Check, Door, Fact, Property, Violation, What, World,
    clients::offline::{Copy, Revision, Session, Stopped, Way},
};

/// States of one mailbox from which clients come back: the oldest and the newest.
const STATES_MAX: usize = 3;

/// Looks at one mailbox that is changed in between, before the last one counts.
const LOOKS_MAX: u32 = 10;

/// Clients that come back, all in all.
const VISITS_MAX: usize = 24;

pub(super) struct Resync;

impl Check for Resync {
    fn name(&self) -> &'static str {
        "resync"
    }

    fn property(&self) -> Property {
        Property::P3
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async move {
            let mut violations = world.facts().with(told);
            let states = world.facts().with(states);
            for (number, (account, copy)) in states.into_iter().take(VISITS_MAX).enumerate() {
                let way = if number % 2 == 0 { Way::CondStore } else { Way::Plain };
                violations.extend(come_back(world, number, account, &copy, way).await);
            }
            violations
        })
    }
}

/// What clients found during the run.
fn told(facts: &[Fact]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for fact in facts {
        if let What::Resynced { mailbox, differences, .. } = &fact.what {
            violations.extend(differences.iter().map(|difference| {
                let what = format!("{} in {mailbox}: {difference}", fact.host);
                Violation::at(Property::P3, fact.at, what)
            }));
        }
    }
    violations
}

/// States to come back from: of each mailbox the oldest and the newest.
fn states(facts: &[Fact]) -> Vec<(AccountId, Arc<Copy>)> {
    let mut by_mailbox: BTreeMap<(AccountId, &str), Vec<Arc<Copy>>> = BTreeMap::new();
    for fact in facts {
        if let What::OfflineCopy { account, copy } = &fact.what {
            by_mailbox.entry((*account, &copy.mailbox)).or_default().push(Arc::clone(copy));
        }
    }
    let mut states = Vec::new();
    for ((account, _), mut copies) in by_mailbox {
        copies.sort_by_key(|copy| copy.highest_modseq);
        let last = copies.pop();
        copies.truncate(STATES_MAX - 1);
        states.extend(copies.into_iter().chain(last).map(|copy| (account, copy)));
    }
    states
}

async fn come_back(
    world: &World,
    number: usize,
    account: AccountId,
    copy: &Copy,
    way: Way,
) -> Vec<Violation> {
    let Some(account) = world.accounts().iter().find(|it| it.id == account) else {
        return Vec::new();
    };
    let who = format!(
        "a client of {} that comes back {way:?} from {}",
        account.address, copy.highest_modseq
    );
    // Each is somebody else, who has seen no more than what this copy holds.
    let host = world.client_host(&format!("check-resync-{number}"));
    let doors = world.doors(Door::Imaps);
    let door = doors[number % doors.len()];
    let came = async || {
        let mut session = Session::open(world, &host, account, door, Revision::One).await?;
        session.resync(copy.clone(), way).await?;
        let differences = session.verify().await?;
        let copy = session.copy().clone();
        session.close().await;
        Ok::<_, Stopped>((differences, copy))
    };
    let mailbox = &copy.mailbox;
    let violation =
        |what: String| Violation::new(Property::P3, format!("{who} to {mailbox}: {what}"));
    let unread = |error: StoreError| vec![violation(format!("the store cannot be read: {error}"))];
    let mut looks = LOOKS_MAX;
    let (came, stored) = loop {
        let before = match stored(world, account, mailbox).await {
            Ok(stored) => stored,
            Err(error) => return unread(error),
        };
        let came = came().await;
        // The nodes go on meanwhile, and reports come in.
        let after = match stored(world, account, mailbox).await {
            Ok(stored) => stored,
            Err(error) => return unread(error),
        };
        looks -= 1;
        if before == after || looks == 0 {
            break (came, after);
        }
    };
    match (came, stored) {
        (Ok((differences, copy)), Some(stored)) => {
            let differences = differences.into_iter().chain(compare(&copy, &stored));
            differences.map(violation).collect()
        }
        // Deleted, or under another name.
        (Err(Stopped::Refused(_)), None) => Vec::new(),
        (Err(why), _) => vec![violation(format!("{why:?}"))],
        (Ok(_), None) => vec![violation("the store has no such mailbox".to_owned())],
    }
}

/// What the store holds of a message.
#[derive(PartialEq)]
struct Row {
    modseq: u64,
    flags: usize,
}

/// A mailbox's messages, from the states that views and checkpoints are derived from.
async fn stored(
    world: &World,
    account: &Account,
    mailbox: &str,
) -> Result<Option<BTreeMap<u32, Row>>, StoreError> {
    let id = account.id;
    let db = world.db();
    let read = async |tx: kv::Transaction| {
        let mailbox = if mailbox == "INBOX" {
            mail::inbox(&tx, id).await?
        } else {
            mail::mailbox_tree(&tx, id).await?.by_path([mailbox]).map(|found| found.id)
        };
        let Some(mailbox) = mailbox else { return Ok::<_, StoreError>(None) };
        let (begin, end) = keys::email::state_range(id);
        let mut rows = BTreeMap::new();
        for pair in tx.range(RangeQuery::new(begin, end).snapshot()).collect().await? {
            let (stamp, state) = keys::email::decode_state(&pair.value)?;
            for place in state.memberships.iter().filter(|place| place.mailbox == mailbox.0) {
                let flags = state.keywords.len() + usize::from(place.deleted);
                rows.insert(place.uid, Row { modseq: stamp.version(), flags });
            }
        }
        Ok(Some(rows))
    };
    db.run(read).await
}

fn compare(copy: &Copy, stored: &BTreeMap<u32, Row>) -> Vec<String> {
    let mut differences = Vec::new();
    for uid in copy.messages.keys().filter(|uid| !stored.contains_key(uid)) {
        differences.push(format!("the store has no UID {uid}"));
    }
    for (uid, row) in stored {
        match copy.messages.get(uid) {
            None => differences.push(format!("the client has no UID {uid}")),
            Some(kept) => {
                if kept.flags.len() != row.flags {
                    let (held, flags) = (&kept.flags, row.flags);
                    differences.push(format!("UID {uid}: {held:?} and {flags} in the store"));
                }
                if kept.modseq != 0 && kept.modseq != row.modseq {
                    let (held, modseq) = (kept.modseq, row.modseq);
                    differences.push(format!("UID {uid}: MODSEQ {held}, in the store {modseq}"));
                }
            }
        }
    }
    differences
}
