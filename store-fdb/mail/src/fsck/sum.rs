//! The fold of an account's emails at one version, of states read at many (P4).
//!
//! Each stretch of states is right at the version of its own transaction. The log says what each
//! later change took away and added, so adding the changes of an email that are newer than its
//! stretch brings the sum to any later version.

use std::collections::BTreeMap;

use kv::Transaction;

use super::{
    Damage, Event, FsckError,
    emails::is_alive,
    mailboxes,
    uids::{self, Places},
    walk::{Walk, after, stretch},
};
use crate::{
    AccountId, EmailId, MailboxId, StoreError,
    keys::{
        self,
        counter::{AccountCounts, MailboxTotals},
        email::{EmailState, Membership},
        log::LogEntry,
    },
    limits,
    unit::{is_seen, tally},
};

/// Sums of an account's emails.
#[derive(Debug, Clone)]
pub(super) struct Sum {
    pub(super) counts: AccountCounts,
    pub(super) mailboxes: BTreeMap<u32, MailboxTotals>,
    /// The highest UID seen in each mailbox.
    pub(super) highest_uids: BTreeMap<u32, u32>,
    pub(super) highest_email: u32,
    /// Nothing was left out because it could not be decoded or held.
    pub(super) is_whole: bool,
    /// The last email of each stretch, and the version that it was read at.
    stretches: Vec<(u32, u64)>,
    /// The log from this key on is not in the sum yet.
    cursor: Vec<u8>,
}

/// An attempt at a sum.
enum Attempt<T> {
    Done(T),
    /// The account is gone, or going.
    Gone,
    /// The log was trimmed meanwhile, or grows too fast.
    Spoilt,
}

/// The sum at the version of a transaction.
pub(super) enum Level {
    Reached(Sum),
    Gone,
    Spoilt,
    /// The log goes on further than one transaction reads. These entries come first.
    Behind(Vec<LogRow>),
}

/// An entry of the log; `None` where it cannot be decoded.
pub(super) struct LogRow {
    key: Vec<u8>,
    entry: Option<(u64, LogEntry)>,
}

/// Checks an account's counters, the numbers it hands out, its mailboxes and its UIDs.
pub(super) async fn check(walk: &mut Walk, account: AccountId) -> Result<(), FsckError> {
    let mut others_told = false;
    let mut before: Option<Vec<Damage>> = None;
    for _ in 0..limits::FSCK_SUMS_MAX {
        let mut places = Places::new(0, 1, limits::FSCK_PLACES_HELD_MAX);
        let damages = match attempt(walk, account, &mut places).await? {
            Attempt::Done(damages) => damages,
            Attempt::Gone => return Ok(()),
            Attempt::Spoilt => continue,
        };
        let (counters, others): (Vec<_>, Vec<_>) =
            damages.into_iter().partition(Damage::is_counter);
        if !others_told {
            walk.find_all(others).await?;
            check_uids(walk, account, places).await?;
            others_told = true;
        }
        if counters.is_empty() {
            return Ok(());
        }
        let same = |before: &Vec<Damage>| {
            before.iter().map(difference).eq(counters.iter().map(difference))
        };
        if before.as_ref().is_some_and(same) {
            return walk.find_all(counters).await;
        }
        before = Some(counters);
    }
    if walk.told.is_empty() {
        walk.summary.busy += 1;
    }
    walk.tell(Event::Busy(account)).await
}

/// What stays the same while both sides change alike.
fn difference(damage: &Damage) -> (Option<MailboxId>, [i64; 4]) {
    match damage {
        Damage::AccountCounters { stored, fold, .. } => {
            (None, [stored.bytes - fold.bytes, stored.emails - fold.emails, 0, 0])
        }
        Damage::MailboxCounters { mailbox, stored, fold, .. } => {
            let differences = [
                stored.total - fold.total,
                stored.unseen - fold.unseen,
                stored.deleted - fold.deleted,
                stored.bytes - fold.bytes,
            ];
            (Some(*mailbox), differences)
        }
        _ => (None, [0; 4]),
    }
}

async fn check_uids(walk: &mut Walk, account: AccountId, places: Places) -> Result<(), FsckError> {
    let parts = places.parts_needed();
    if parts == 1 {
        return uids::tell(walk, account, places).await;
    }
    drop(places);
    for part in 0..parts {
        let mut places = Places::new(part, parts, limits::FSCK_PLACES_HELD_MAX);
        if read(walk, account, &mut places).await?.is_none() {
            return Ok(());
        }
        uids::tell(walk, account, places).await?;
    }
    Ok(())
}

/// One sum, compared with what stands beside it at its version.
async fn attempt(
    walk: &mut Walk,
    account: AccountId,
    places: &mut Places,
) -> Result<Attempt<Vec<Damage>>, FsckError> {
    let mut sum = match caught_up(walk, account, places).await? {
        Attempt::Done(sum) => sum,
        Attempt::Gone => return Ok(Attempt::Gone),
        Attempt::Spoilt => return Ok(Attempt::Spoilt),
    };
    for _ in 0..limits::FSCK_ROUNDS_MAX {
        let held = &sum;
        let (level, damages) = walk
            .step(|tx, rows| async move {
                let level = level(&tx, account, held, rows).await?;
                let damages = match &level {
                    Level::Reached(sum) => mailboxes::check(&tx, account, sum).await?,
                    _ => Vec::new(),
                };
                Ok((level, damages))
            })
            .await?;
        match level {
            Level::Reached(_) => return Ok(Attempt::Done(damages)),
            Level::Gone => return Ok(Attempt::Gone),
            Level::Spoilt => return Ok(Attempt::Spoilt),
            Level::Behind(rows) => sum.apply(&rows),
        }
    }
    Ok(Attempt::Spoilt)
}

/// Sets an account's counters to its sum; `false` where it changes too fast for that.
///
/// The sum is brought to the transaction's own version, and what is behind that in the log
/// conflicts, so no change of the account comes between the sum and the counters. Running it again
/// sets what is right by then.
pub(super) async fn mend(walk: &mut Walk, account: AccountId) -> Result<bool, FsckError> {
    for _ in 0..limits::FSCK_SUMS_MAX {
        let mut places = Places::new(0, 1, 0);
        let Attempt::Done(mut sum) = caught_up(walk, account, &mut places).await? else { continue };
        for _ in 0..limits::FSCK_ROUNDS_MAX {
            let held = &sum;
            let level = walk
                .db
                .run(|tx| async move {
                    tx.add_read_conflict_key(&keys::account::key(account));
                    let (_, end) = keys::log::range_after(account, 0);
                    tx.add_read_conflict_range(&held.cursor, &end);
                    let level = level(&tx, account, held, limits::FSCK_ROWS_MAX).await?;
                    if let Level::Reached(sum) = &level
                        && sum.is_whole
                    {
                        mailboxes::set_counters(&tx, account, sum).await?;
                    }
                    Ok::<_, StoreError>(level)
                })
                .await?;
            match level {
                Level::Reached(sum) => return Ok(sum.is_whole),
                Level::Gone => return Ok(true),
                Level::Spoilt => break,
                Level::Behind(rows) => sum.apply(&rows),
            }
        }
    }
    Ok(false)
}

/// Sums the states and what the log has by then.
async fn caught_up(
    walk: &mut Walk,
    account: AccountId,
    places: &mut Places,
) -> Result<Attempt<Sum>, FsckError> {
    let Some(mut sum) = read(walk, account, places).await? else { return Ok(Attempt::Gone) };
    // What was there when the states had been read is read whatever it takes; what comes then may
    // outrun the check.
    let target = sum.stretches.last().map_or(0, |(_, version)| *version);
    let mut rounds = 0;
    while rounds < limits::FSCK_ROUNDS_MAX {
        let held = &sum;
        let level =
            walk.step(|tx, rows| async move { level(&tx, account, held, rows).await }).await?;
        match level {
            Level::Reached(_) => return Ok(Attempt::Done(sum)),
            Level::Gone => return Ok(Attempt::Gone),
            Level::Spoilt => return Ok(Attempt::Spoilt),
            Level::Behind(rows) => {
                let last = rows.last().and_then(|row| row.entry.as_ref());
                rounds += usize::from(last.is_none_or(|(version, _)| *version > target));
                sum.apply(&rows);
            }
        }
    }
    Ok(Attempt::Spoilt)
}

/// Brings the sum to the transaction's version, where the log behind it is short enough.
pub(super) async fn level(
    tx: &Transaction,
    account: AccountId,
    sum: &Sum,
    most: usize,
) -> Result<Level, StoreError> {
    if !is_alive(tx, account).await? {
        return Ok(Level::Gone);
    }
    let first = sum.stretches.first().map_or(0, |(_, version)| *version);
    if crate::log::horizon(tx, account).await?.0 > first {
        return Ok(Level::Spoilt);
    }
    let (_, end) = keys::log::range_after(account, 0);
    let read = stretch(tx, sum.cursor.clone(), end, most).await?;
    let rows: Vec<LogRow> = read
        .rows
        .iter()
        .map(|row| LogRow {
            key: row.key.to_vec(),
            entry: keys::log::version_of(&row.key).zip(keys::decode("log", &row.value).ok()),
        })
        .collect();
    if read.is_cut {
        return Ok(Level::Behind(rows));
    }
    let mut sum = sum.clone();
    sum.apply(&rows);
    Ok(Level::Reached(sum))
}

struct States {
    version: u64,
    states: Vec<(EmailId, Option<EmailState>)>,
    next: Option<EmailId>,
    is_whole: bool,
}

/// Reads all states; `None` where the account is gone.
async fn read(
    walk: &mut Walk,
    account: AccountId,
    places: &mut Places,
) -> Result<Option<Sum>, FsckError> {
    let mut sum: Option<Sum> = None;
    let mut from = EmailId(0);
    loop {
        let page =
            walk.step(|tx, rows| async move { states(&tx, account, from, rows * 2).await }).await?;
        let Some(page) = page else { return Ok(None) };
        let sum = sum.get_or_insert_with(|| Sum::new(account, page.version));
        sum.is_whole &= page.is_whole;
        for (email, state) in &page.states {
            match state {
                Some(state) => {
                    sum.email(*email, state);
                    places.add(*email, state);
                }
                None => sum.is_whole = false,
            }
        }
        match page.next {
            Some(next) => {
                sum.stretches.push((next.0.saturating_sub(1), page.version));
                from = next;
            }
            None => {
                sum.stretches.push((u32::MAX, page.version));
                return Ok(Some(sum.clone()));
            }
        }
    }
}

async fn states(
    tx: &Transaction,
    account: AccountId,
    from: EmailId,
    most: usize,
) -> Result<Option<States>, StoreError> {
    if !is_alive(tx, account).await? {
        return Ok(None);
    }
    let (_, end) = keys::email::state_range(account);
    let read = stretch(tx, keys::email::state_key(account, from), end, most).await?;
    let states: Vec<_> = read
        .rows
        .iter()
        .filter_map(|row| {
            let state = keys::email::decode_state(&row.value).ok().map(|(_, state)| state);
            Some((keys::email::email_of(&row.key)?, state))
        })
        .collect();
    let next = match states.last() {
        Some((last, _)) if read.is_cut => last.0.checked_add(1).map(EmailId),
        None if read.is_cut => {
            return Err(StoreError::damaged(
                "email state",
                "a stretch of keys that are no email's",
            ));
        }
        _ => None,
    };
    let is_whole = states.len() == read.rows.len();
    Ok(Some(States { version: tx.read_version().await?, states, next, is_whole }))
}

impl Sum {
    fn new(account: AccountId, version: u64) -> Self {
        Self {
            counts: AccountCounts::default(),
            mailboxes: BTreeMap::new(),
            highest_uids: BTreeMap::new(),
            highest_email: 0,
            is_whole: true,
            stretches: Vec::new(),
            cursor: keys::log::range_after(account, version).0,
        }
    }

    /// Whether an email says that it is in the mailbox.
    pub(super) fn holds(&self, mailbox: MailboxId) -> bool {
        let totals = self.mailboxes.get(&mailbox.0);
        totals.is_some_and(|totals| *totals != MailboxTotals::default())
    }

    fn email(&mut self, email: EmailId, state: &EmailState) {
        let seen = is_seen(&state.keywords);
        self.add(&state.memberships, seen, state.size, 1);
        self.see(email, &state.memberships);
    }

    fn see(&mut self, email: EmailId, places: &[Membership]) {
        self.highest_email = self.highest_email.max(email.0);
        for place in places {
            let highest = self.highest_uids.entry(place.mailbox).or_default();
            *highest = place.uid.max(*highest);
        }
    }

    fn add(&mut self, places: &[Membership], seen: bool, size: u64, sign: i64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        if !places.is_empty() {
            self.counts.bytes = self.counts.bytes.saturating_add(sign * size);
            self.counts.emails += sign;
        }
        for place in places {
            if self.mailboxes.len() >= limits::FSCK_MAILBOXES_MAX
                && !self.mailboxes.contains_key(&place.mailbox)
            {
                self.is_whole = false;
                continue;
            }
            let one = tally(place, seen, size);
            let totals = self.mailboxes.entry(place.mailbox).or_default();
            totals.total += sign * one.total;
            totals.unseen += sign * one.unseen;
            totals.deleted += sign * one.deleted;
            totals.bytes = totals.bytes.saturating_add(sign * one.bytes);
        }
    }

    fn apply(&mut self, rows: &[LogRow]) {
        for row in rows {
            self.cursor = after(&row.key);
            let Some((version, entry)) = &row.entry else {
                self.is_whole = false;
                continue;
            };
            for change in &entry.emails {
                if *version <= self.version_of(change.email) {
                    continue;
                }
                self.add(&change.before, is_seen(&change.keywords_before), change.size, -1);
                self.add(&change.after, is_seen(&change.keywords_after), change.size, 1);
                self.see(EmailId(change.email), &change.after);
            }
        }
    }

    /// The version that an email's state was read at.
    fn version_of(&self, email: u32) -> u64 {
        let stretch = self.stretches.partition_point(|(last, _)| *last < email);
        self.stretches.get(stretch).map_or(u64::MAX, |(_, version)| *version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_email_has_the_version_of_its_stretch() {
        let mut sum = Sum::new(AccountId(1), 5);
        sum.stretches = vec![(10, 5), (20, 8), (u32::MAX, 9)];
        let versions = [1, 10, 11, 20, 21, u32::MAX].map(|email| sum.version_of(email));
        assert_eq!(versions, [5, 5, 8, 8, 9, 9]);
    }
}
