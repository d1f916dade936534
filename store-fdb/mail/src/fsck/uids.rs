//! UIDs that two emails of a mailbox have.

use kv::Transaction;

use super::{Damage, FsckError, walk::Walk};
use crate::{AccountId, EmailId, MailboxId, StoreError, keys, keys::email::EmailState, limits};

/// One email's place, 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    mailbox: u32,
    uid: u32,
    email: u32,
}

/// The places of one pass over an account's states: all, or those of one part where there are too
/// many. A part is chosen by UID, so two that are equal are in one.
pub(super) struct Places {
    part: u32,
    parts: u32,
    seen: usize,
    held: Vec<Place>,
    most: usize,
}

impl Places {
    pub(super) fn new(part: u32, parts: u32, most: usize) -> Self {
        Self { part, parts, seen: 0, held: Vec::new(), most }
    }

    pub(super) fn add(&mut self, email: EmailId, state: &EmailState) {
        for place in &state.memberships {
            self.seen += 1;
            if place.uid % self.parts == self.part && self.held.len() < self.most {
                self.held.push(Place { mailbox: place.mailbox, uid: place.uid, email: email.0 });
            }
        }
    }

    /// How many passes it takes; 1 where this one has held all.
    pub(super) fn parts_needed(&self) -> u32 {
        // Half full on average, because UIDs are not spread evenly.
        match self.seen.div_ceil(self.most) {
            0 | 1 => 1,
            parts => u32::try_from(parts * 2).unwrap_or(u32::MAX),
        }
    }

    /// Those that seem to share a UID. A move between two reads looks the same.
    fn suspects(mut self) -> Vec<(Place, Place)> {
        self.held.sort_unstable();
        self.held
            .windows(2)
            .filter_map(|pair| match pair {
                [a, b] if (a.mailbox, a.uid) == (b.mailbox, b.uid) && a.email != b.email => {
                    Some((*a, *b))
                }
                _ => None,
            })
            .take(limits::FSCK_FINDINGS_HELD_MAX)
            .collect()
    }
}

/// Reads the suspects again, each pair in one transaction, and tells those that remain.
pub(super) async fn tell(
    walk: &mut Walk,
    account: AccountId,
    places: Places,
) -> Result<(), FsckError> {
    for (a, b) in places.suspects() {
        let is_so = walk
            .step(|tx, _| async move {
                Ok(is_at(&tx, account, a).await? && is_at(&tx, account, b).await?)
            })
            .await?;
        if is_so {
            let emails = [EmailId(a.email), EmailId(b.email)];
            let (mailbox, uid) = (MailboxId(a.mailbox), a.uid);
            walk.find(Damage::UidTwice { account, mailbox, uid, emails }).await?;
        }
    }
    Ok(())
}

async fn is_at(tx: &Transaction, account: AccountId, place: Place) -> Result<bool, StoreError> {
    let key = keys::email::state_key(account, EmailId(place.email));
    let Some(value) = tx.get_snapshot(&key).await? else { return Ok(false) };
    let Ok((_, state)) = keys::email::decode_state(&value) else { return Ok(false) };
    Ok(state.memberships.iter().any(|m| (m.mailbox, m.uid) == (place.mailbox, place.uid)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::email::Membership;

    fn state(mailbox: u32, uid: u32) -> EmailState {
        let memberships = vec![Membership { mailbox, uid, deleted: false }];
        EmailState { memberships, ..EmailState::default() }
    }

    #[test]
    fn parts_together_find_what_one_pass_does() {
        let emails: Vec<(u32, EmailState)> =
            (1..=40).map(|email| (email, state(1 + email % 2, 1 + email % 17))).collect();
        let found = |part, parts, most| {
            let mut places = Places::new(part, parts, most);
            emails.iter().for_each(|(email, state)| places.add(EmailId(*email), state));
            (places.parts_needed(), places.suspects())
        };
        let (parts, all) = found(0, 1, 100);
        assert_eq!((parts, all.len()), (1, 6));
        let (parts, _) = found(0, 1, 10);
        assert_eq!(parts, 8);
        let mut by_parts: Vec<_> = (0..parts).flat_map(|part| found(part, parts, 10).1).collect();
        by_parts.sort_unstable();
        assert_eq!(by_parts, all);
    }
}
