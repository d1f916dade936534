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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MAILBOX: &str = "INBOX";

    fn found(whats: Vec<What>) -> usize {
        let facts: Vec<Fact> = whats
            .into_iter()
            .zip(0..)
            .map(|(what, second)| {
                let at = Monotonic::from_start(Duration::from_secs(second));
                Fact { at, host: "client".into(), what }
            })
            .collect();
        check(&facts).len()
    }

    fn seen(uid: u32, token: &str) -> What {
        let (account, mailbox, token) = (AccountId(1), MAILBOX.to_owned(), Some(token.to_owned()));
        What::UidSeen { account, mailbox, uid_validity: 7, uid, token }
    }

    fn next(uid_next: u32) -> What {
        let (account, mailbox) = (AccountId(1), MAILBOX.to_owned());
        What::UidNextSeen { account, mailbox, uid_validity: 7, uid_next }
    }

    fn gone(uid: u32) -> What {
        let (account, mailbox) = (AccountId(1), MAILBOX.to_owned());
        What::Vanished { account, mailbox, uid_validity: 7, uid }
    }

    fn appending(token: &str) -> What {
        let (account, mailbox) = (AccountId(1), MAILBOX.to_owned());
        What::Appending { account, mailbox, token: token.to_owned() }
    }

    fn appended(uid: u32, token: &str) -> What {
        let (account, mailbox) = (AccountId(1), MAILBOX.to_owned());
        What::Appended { account, mailbox, uid_validity: 7, uid, token: token.to_owned() }
    }

    #[test]
    fn what_servers_do_is_fine() {
        assert_eq!(found(vec![seen(1, "a"), seen(2, "b"), next(3), seen(3, "c"), gone(2)]), 0);
        assert_eq!(found(vec![appending("a"), next(2), appended(1, "a")]), 0);
    }

    #[test]
    fn what_servers_must_not_do_is_found() {
        assert_eq!(found(vec![seen(1, "a"), seen(1, "b")]), 1, "one UID, two messages");
        assert_eq!(found(vec![next(3), seen(2, "b")]), 1, "below UIDNEXT");
        assert_eq!(found(vec![seen(1, "a"), gone(1), seen(1, "a")]), 1, "back again");
        assert_eq!(found(vec![next(3), appending("a"), appended(2, "a")]), 1, "a late UID");
    }
}
