//! P2: UIDs become visible in ascending order and are never used again.
//!
//! From what clients saw: one UID of one UIDVALIDITY is one message for everybody and for ever; a
//! client that has seen UIDNEXT sees nothing new below it; what has gone from a client does not
//! come back; and no APPEND gets a UID below a UIDNEXT that somebody saw before it began.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use env::{BoxFuture, Monotonic};
use mail::AccountId;

use crate::{Check, Fact, Property, Violation, What, World};

pub(super) struct Uids;

impl Check for Uids {
    fn name(&self) -> &'static str {
        "uids"
    }

    fn property(&self) -> Property {
        Property::P2
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async move { world.facts().with(check) })
    }
}

/// An account's mailbox of a name and a UIDVALIDITY.
type Mailbox = (AccountId, String, u32);

#[derive(Default)]
struct Seen {
    uids: BTreeSet<u32>,
    gone: BTreeSet<u32>,
    next: u32,
}

#[derive(Default)]
struct Uidness {
    tokens: BTreeMap<(Mailbox, u32), String>,
    clients: BTreeMap<(Arc<str>, Mailbox), Seen>,
    /// UIDNEXT as it was seen by anybody, and when first.
    next: BTreeMap<Mailbox, BTreeMap<u32, Monotonic>>,
    appending: BTreeMap<String, Monotonic>,
    violations: Vec<Violation>,
}

fn check(facts: &[Fact]) -> Vec<Violation> {
    let mut all = Uidness::default();
    for fact in facts {
        match &fact.what {
            What::UidSeen { account, mailbox, uid_validity, uid, token } => {
                let mailbox = (*account, mailbox.clone(), *uid_validity);
                all.message(fact, &mailbox, *uid, token.as_deref());
                all.seen(fact, &mailbox, *uid);
            }
            What::UidTold { account, mailbox, uid_validity, uid, token } => {
                let mailbox = (*account, mailbox.clone(), *uid_validity);
                all.message(fact, &mailbox, *uid, token.as_deref());
            }
            What::Appending { token, .. } => {
                all.appending.insert(token.clone(), fact.at);
            }
            What::Appended { account, mailbox, uid_validity, uid, token } => {
                let mailbox = (*account, mailbox.clone(), *uid_validity);
                all.message(fact, &mailbox, *uid, Some(token));
                all.appended(fact, &mailbox, *uid, token);
            }
            What::Vanished { account, mailbox, uid_validity, uid } => {
                let mailbox = (*account, mailbox.clone(), *uid_validity);
                let seen = all.clients.entry((fact.host.clone(), mailbox)).or_default();
                seen.gone.insert(*uid);
            }
            What::UidNextSeen { account, mailbox, uid_validity, uid_next } => {
                let mailbox = (*account, mailbox.clone(), *uid_validity);
                let firsts = all.next.entry(mailbox.clone()).or_default();
                firsts.entry(*uid_next).or_insert(fact.at);
                let seen = all.clients.entry((fact.host.clone(), mailbox)).or_default();
                seen.next = seen.next.max(*uid_next);
            }
            _ => {}
        }
    }
    all.violations
}

impl Uidness {
    fn violation(&mut self, fact: &Fact, what: String) {
        self.violations.push(Violation::at(Property::P2, fact.at, what));
    }

    /// One UID is one message.
    fn message(&mut self, fact: &Fact, mailbox: &Mailbox, uid: u32, token: Option<&str>) {
        let Some(token) = token else { return };
        let key = (mailbox.clone(), uid);
        match self.tokens.get(&key).cloned() {
            None => drop(self.tokens.insert(key, token.to_owned())),
            Some(held) if held == token => {}
            Some(held) => {
                let what = format!("UID {uid} of {mailbox:?} is {held} and {token}");
                self.violation(fact, what);
            }
        }
    }

    fn seen(&mut self, fact: &Fact, mailbox: &Mailbox, uid: u32) {
        let host = fact.host.clone();
        let seen = self.clients.entry((host.clone(), mailbox.clone())).or_default();
        let (next, is_new, is_back) = (seen.next, seen.uids.insert(uid), seen.gone.contains(&uid));
        if is_new && uid < next {
            let what = format!("{host} sees UID {uid} of {mailbox:?} after UIDNEXT {next}");
            self.violation(fact, what);
        } else if is_back {
            let what = format!("{host} sees UID {uid} of {mailbox:?} again after it was gone");
            self.violation(fact, what);
        }
    }

    fn appended(&mut self, fact: &Fact, mailbox: &Mailbox, uid: u32, token: &str) {
        let Some(begun) = self.appending.get(token).copied() else { return };
        let Some(firsts) = self.next.get(mailbox) else { return };
        let above = firsts.range(uid.saturating_add(1)..);
        let earlier = above.filter(|(_, at)| **at < begun).map(|(next, _)| *next).next();
        if let Some(next) = earlier {
            let what = format!("{token} gets UID {uid} of {mailbox:?} after UIDNEXT {next}");
            self.violation(fact, what);
        }
    }
}
