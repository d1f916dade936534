//! P8: no account ever reads another's data.
//!
//! Every message names whom it is for, and nobody else sees its token or its bytes; whoever tries to
//! get in elsewhere is refused.

use std::collections::{BTreeMap, BTreeSet};

use env::BoxFuture;
use mail::AccountId;

use crate::{Account, Check, Fact, Property, Violation, What, World};

pub(super) struct Privacy;

impl Check for Privacy {
    fn name(&self) -> &'static str {
        "privacy"
    }

    fn property(&self) -> Property {
        Property::P8
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async move {
            let accounts = world.accounts();
            world.facts().with(|facts| check(facts, accounts))
        })
    }
}

fn check(facts: &[Fact], accounts: &[Account]) -> Vec<Violation> {
    let addresses: BTreeMap<AccountId, &str> =
        accounts.iter().map(|account| (account.id, account.address.as_str())).collect();
    let address_of = |account: &AccountId| addresses.get(account).copied().unwrap_or_default();
    let readers = readers(facts, &addresses);
    let may_read = |account: &AccountId, token: &str| {
        readers.get(token).is_none_or(|readers| readers.contains(address_of(account)))
    };
    let mut violations = Vec::new();
    for fact in facts {
        let wrong = match &fact.what {
            What::UidSeen { account, mailbox, uid, token: Some(token), .. }
                if !may_read(account, token) =>
            {
                format!("{} sees {token} as UID {uid} of {mailbox}", address_of(account))
            }
            What::BytesRead { account, token, marks } => {
                let own = address_of(account);
                let strange = marks.iter().find(|mark| mark.as_str() != own);
                match strange {
                    Some(mark) => format!("{own} reads {token}, which is for {mark}"),
                    None if may_read(account, token) => continue,
                    None => format!("{own} reads {token}"),
                }
            }
            What::Trespassed { account, deed } => format!("{}: {deed}", address_of(account)),
            _ => continue,
        };
        violations.push(Violation::at(Property::P8, fact.at, wrong));
    }
    violations
}

/// Who may read a message, by its token.
fn readers<'a>(
    facts: &'a [Fact],
    addresses: &BTreeMap<AccountId, &'a str>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut readers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for fact in facts {
        match &fact.what {
            What::Sending { token, recipients } => {
                let may = readers.entry(token).or_default();
                may.extend(recipients.iter().map(String::as_str));
            }
            What::Appending { account, token, .. } => {
                readers.entry(token).or_default().extend(addresses.get(account));
            }
            _ => {}
        }
    }
    readers
}
