//! P3, what CONDSTORE rests on: a MODSEQ names one state of a message for everybody, and the
//! HIGHESTMODSEQ that a SELECT tells is never below one that somebody was told before it was asked.

use std::collections::BTreeMap;

use env::{BoxFuture, Monotonic};
use mail::AccountId;

use crate::{Check, Fact, Property, Violation, What, World};

pub(super) struct ModSeqs;

impl Check for ModSeqs {
    fn name(&self) -> &'static str {
        "modseq"
    }

    fn property(&self) -> Property {
        Property::P3
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async move { world.facts().with(check) })
    }
}

type Mailbox<'a> = (AccountId, &'a str, u32);

fn check(facts: &[Fact]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut states: BTreeMap<(Mailbox<'_>, u32, u64), &[String]> = BTreeMap::new();
    // When a mailbox's HIGHESTMODSEQ was told, with the highest so far.
    let mut told: BTreeMap<Mailbox<'_>, Vec<(Monotonic, u64)>> = BTreeMap::new();
    for fact in facts {
        match &fact.what {
            What::FlagsSeen { account, mailbox, uid_validity, uid, modseq, flags } => {
                let key = ((*account, mailbox.as_str(), *uid_validity), *uid, *modseq);
                let held = *states.entry(key).or_insert(flags);
                if held != flags.as_slice() {
                    let what = format!("{key:?} is {held:?} and {flags:?}");
                    violations.push(Violation::at(Property::P3, fact.at, what));
                }
            }
            What::HighestModSeqSeen { account, mailbox, uid_validity, modseq, asked } => {
                let key = (*account, mailbox.as_str(), *uid_validity);
                let told = told.entry(key).or_default();
                let before = told.partition_point(|(at, _)| at <= asked);
                let floor = before.checked_sub(1).map_or(0, |index| told[index].1);
                if *modseq < floor {
                    let what = format!("HIGHESTMODSEQ of {key:?} went from {floor} to {modseq}");
                    violations.push(Violation::at(Property::P3, fact.at, what));
                }
                let highest = told.last().map_or(0, |(_, highest)| *highest).max(*modseq);
                told.push((fact.at, highest));
            }
            _ => {}
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    fn fact(seconds: u64, what: What) -> Fact {
        Fact { at: at(seconds), host: "client".into(), what }
    }

    fn flags(modseq: u64, flag: &str) -> What {
        let (account, mailbox, flags) = (AccountId(1), "INBOX".to_owned(), vec![flag.to_owned()]);
        What::FlagsSeen { account, mailbox, uid_validity: 7, uid: 1, modseq, flags }
    }

    fn highest(modseq: u64, asked: u64) -> What {
        let (account, mailbox, asked) = (AccountId(1), "INBOX".to_owned(), at(asked));
        What::HighestModSeqSeen { account, mailbox, uid_validity: 7, modseq, asked }
    }

    #[test]
    fn one_modseq_is_one_state() {
        assert_eq!(check(&[fact(1, flags(5, "a")), fact(2, flags(5, "a"))]), []);
        assert_eq!(check(&[fact(1, flags(5, "a")), fact(2, flags(6, "b"))]), []);
        assert_eq!(check(&[fact(1, flags(5, "a")), fact(2, flags(5, "b"))]).len(), 1);
    }

    #[test]
    fn the_highest_never_goes_back_for_those_who_ask_later() {
        let first = fact(2, highest(9, 1));
        assert_eq!(check(&[first.clone(), fact(4, highest(9, 3))]), []);
        assert_eq!(check(&[first.clone(), fact(3, highest(8, 1))]), [], "asked at the same time");
        assert_eq!(check(&[first, fact(4, highest(8, 3))]).len(), 1);
    }
}
