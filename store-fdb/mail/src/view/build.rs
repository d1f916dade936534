//! Building views: from a checkpoint and the log, from the states, from an older view; and
//! loading a page's rows as of a view's version.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use kv::{Database, RangeQuery, Transaction};

use super::{
    Flags, Freshness, PAGE_NUMBER_MAX, Page, Row, Slot, View, ViewError,
    page::{Direction, effect},
    page_of, starts_of,
};
use crate::{
    AccountId, EmailId, KeywordSet, LogPage, MailboxId, ModSeq, StoreError, ThreadId, Uid,
    UidValidity, changes_since,
    keys::{
        self,
        email::Membership,
        log::{EmailChange, LogEntry},
        mailbox::MailboxRecord,
        view::{PageSummary, ViewHeader},
    },
    limits,
    unit::{is_seen, read_u32},
};

/// States that one transaction reads while a view is built without its checkpoint.
const STATES_PER_READ: usize = 5_000;

/// How often a view is built from the states before it is given up, where the log is trimmed
/// under it each time.
const REBUILDS_MAX: usize = 3;

/// A view before the log's newest entries.
struct Start {
    view: View,
    log: LogPage,
    read_version: ModSeq,
}

impl View {
    /// The mailbox as of now.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn open(
        db: &Database,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Self, ViewError> {
        let start = db.run(|tx| async move { start(&tx, account, mailbox).await }).await?;
        if !start.log.reaches(start.view.as_of) {
            let mut rebuilt = rebuild(db, account, mailbox).await;
            // The log was trimmed again meanwhile.
            for _ in 1..REBUILDS_MAX {
                if !matches!(rebuilt, Err(ViewError::TooOld(_))) {
                    break;
                }
                rebuilt = rebuild(db, account, mailbox).await;
            }
            return rebuilt;
        }
        let more = start.log.more_after.is_some();
        let view = start.view.with_log(&start.log, start.read_version);
        if more { view.advance(db).await } else { Ok(view) }
    }

    /// The same mailbox as of now.
    ///
    /// # Errors
    /// [`ViewError::TooOld`] where the log no longer reaches back to this view; open it anew.
    pub async fn advance(&self, db: &Database) -> Result<Self, ViewError> {
        let (account, mailbox) = (self.account, self.mailbox);
        let mut newer: Option<Self> = None;
        loop {
            let from = newer.as_ref().unwrap_or(self);
            let after = from.as_of;
            let (log, read_version) = db
                .run(|tx| async move {
                    mailbox_record(&tx, account, mailbox).await?;
                    let log = changes_since(&tx, account, after).await?;
                    Ok::<_, ViewError>((log, ModSeq(tx.read_version().await?)))
                })
                .await?;
            if !log.reaches(after) {
                return Err(ViewError::TooOld(after));
            }
            let next = from.with_log(&log, read_version);
            if log.more_after.is_none() {
                return Ok(next);
            }
            newer = Some(next);
        }
    }

    /// This view with a stretch of the log applied.
    fn with_log(&self, log: &LogPage, read_version: ModSeq) -> Self {
        let as_of = log.more_after.unwrap_or(read_version).max(self.as_of);
        let mut changes = Changes::default();
        for (version, entry) in &log.entries {
            changes.add(self.mailbox, *version, entry);
        }
        let (slots, starts) = if changes.pages.is_empty() {
            (Arc::clone(&self.slots), Arc::clone(&self.starts))
        } else {
            let slots = self.changed_slots(&changes);
            let starts = starts_of(&slots);
            (slots.into(), starts)
        };
        Self {
            as_of,
            highest_modseq: self.highest_modseq.max(changes.highest),
            uid_next: self.uid_next.max(changes.uid_next),
            tail: self.tail + log.entries.len(),
            slots,
            starts,
            ..*self
        }
    }

    fn changed_slots(&self, changes: &Changes) -> Vec<Arc<Slot>> {
        let mut slots: BTreeMap<u32, Arc<Slot>> =
            self.slots.iter().map(|slot| (slot.number, Arc::clone(slot))).collect();
        for (number, list) in &changes.pages {
            let slot = match slots.get(number) {
                Some(slot) => slot.changed(list),
                // No slot: the page is empty at this version, whatever came before.
                None => Slot::empty(*number).changed(list),
            };
            if slot.count == 0 {
                slots.remove(number);
            } else {
                slots.insert(*number, Arc::new(slot));
            }
        }
        slots.into_values().collect()
    }

    /// The rows of one slot, loaded where they are not.
    pub(super) async fn page(&self, db: &Database, index: usize) -> Result<Arc<Page>, ViewError> {
        let slot = &self.slots[index];
        if let Some(page) = slot.loaded() {
            return Ok(page);
        }
        let page = Arc::new(self.load(db, slot).await?);
        if page.len() != super::to_index(slot.count) {
            let detail =
                format!("page {} has {} rows, not {}", slot.number, page.len(), slot.count);
            return Err(StoreError::damaged("view page", detail).into());
        }
        slot.keep(&page);
        Ok(page)
    }

    /// Reads a page's record, which may be older or newer than the view, and brings it to the
    /// view's version by doing or undoing what the log has in between.
    async fn load(&self, db: &Database, slot: &Slot) -> Result<Page, ViewError> {
        let (account, mailbox, number) = (self.account, self.mailbox, slot.number);
        let (mut page, version) =
            db.run(|tx| async move { stored_page(&tx, account, mailbox, number).await }).await?;
        if slot.freshness == Freshness::Checkpoint && version == self.base {
            return Ok(page);
        }
        let (direction, from, to) = if version <= self.as_of {
            (Direction::Forward, version, self.as_of)
        } else {
            (Direction::Backward, self.as_of, version)
        };
        let mut effects = Vec::new();
        log_between(db, account, from, to, |version, change| {
            let (mut removed, mut rows) = effect(change, mailbox, direction, version);
            removed.retain(|uid| Uid::new(*uid).is_some_and(|uid| page_of(uid) == number));
            rows.retain(|row| page_of(row.uid) == number);
            if !(removed.is_empty() && rows.is_empty()) {
                effects.push((removed, rows));
            }
        })
        .await?;
        if direction == Direction::Backward {
            effects.reverse();
        }
        for (removed, rows) in effects {
            removed.iter().for_each(|uid| page.remove(*uid));
            rows.iter().for_each(|row| page.insert(row));
        }
        Ok(page)
    }
}

/// Reads a page with the version that its rows are right for.
///
/// A checkpoint writes changed pages first and its header last, so a page is right for its own
/// version or the header's, whichever is newer; a page that is not there was empty at the
/// header's.
async fn stored_page(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
    number: u32,
) -> Result<(Page, ModSeq), ViewError> {
    let header = read_header(tx, account, mailbox).await?.unwrap_or_default();
    let (begin, end) = keys::view::page_parts_range(account, mailbox, number);
    let parts = tx.range(RangeQuery::new(begin, end).snapshot()).collect().await?;
    if parts.is_empty() {
        return Ok((Page::default(), ModSeq(header.as_of)));
    }
    let mut value = Vec::with_capacity(parts.iter().map(|part| part.value.len()).sum());
    parts.iter().for_each(|part| value.extend_from_slice(&part.value));
    let record: keys::view::ViewPage = keys::decode("view page", &value)?;
    let version = ModSeq(record.as_of.max(header.as_of));
    Ok((Page::from_record(number, record)?, version))
}

pub(super) async fn read_header(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Option<ViewHeader>, StoreError> {
    let value = tx.get_snapshot(&keys::view::header_key(account, mailbox)).await?;
    let header: Option<ViewHeader> =
        value.map(|value| keys::decode("view header", &value)).transpose()?;
    let pages = header.as_ref().map_or(&[][..], |header| &header.pages);
    let in_order = pages.is_sorted_by(|a, b| a.number < b.number);
    let in_bounds = |page: &PageSummary| {
        page.number <= PAGE_NUMBER_MAX
            && (1..=limits::UIDS_PER_PAGE).contains(&page.count)
            && page.unseen <= page.count
    };
    if !in_order || !pages.iter().all(in_bounds) {
        return Err(StoreError::damaged("view header", "pages out of order or of bounds"));
    }
    Ok(header)
}

/// Reads a mailbox's header, to see whether that can be done.
pub(crate) async fn check_header(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<(), StoreError> {
    read_header(tx, account, mailbox).await.map(drop)
}

/// Reads a page, to see whether that can be done.
pub(crate) async fn check_page(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
    number: u32,
) -> Result<(), ViewError> {
    stored_page(tx, account, mailbox, number).await.map(drop)
}

async fn mailbox_record(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<MailboxRecord, ViewError> {
    let value = tx.get_snapshot(&keys::mailbox::key(account, mailbox)).await?;
    let value = value.ok_or(ViewError::NoMailbox(mailbox))?;
    let record: MailboxRecord = keys::decode("mailbox", &value)?;
    if record.deleting { Err(ViewError::NoMailbox(mailbox)) } else { Ok(record) }
}

/// The checkpoint and the first stretch of the log behind it, read together.
async fn start(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Start, ViewError> {
    let record = mailbox_record(tx, account, mailbox).await?;
    let header = read_header(tx, account, mailbox).await?.unwrap_or_default();
    let as_of = ModSeq(header.as_of);
    let slots: Vec<Arc<Slot>> = header
        .pages
        .iter()
        .map(|page| {
            Arc::new(Slot {
                number: page.number,
                count: page.count,
                unseen: page.unseen,
                freshness: Freshness::Checkpoint,
                rows: Mutex::new(None),
            })
        })
        .collect();
    let view = View {
        account,
        mailbox,
        uid_validity: UidValidity(record.uid_validity),
        as_of,
        base: as_of,
        highest_modseq: ModSeq(header.highest_modseq),
        uid_next: header.uid_next.max(1),
        tail: 0,
        starts: starts_of(&slots),
        slots: slots.into(),
    };
    let log = changes_since(tx, account, as_of).await?;
    Ok(Start { view, log, read_version: ModSeq(tx.read_version().await?) })
}

/// A view without checkpoint and without the old log: from every email's state.
///
/// The states are read by many transactions, each newer than the one before. What changed
/// meanwhile is in the log; applied to the rows it sets them to what they are after it, so it
/// does not matter whether a row showed the change already. The log is applied from its horizon,
/// not from the first read, to find expunges too: HIGHESTMODSEQ must not go back, whichever node
/// tells it (RFC 7162 §3.1.2.1).
async fn rebuild(db: &Database, account: AccountId, mailbox: MailboxId) -> Result<View, ViewError> {
    let (record, header, uid_next, horizon) = db
        .run(|tx| async move {
            let record = mailbox_record(&tx, account, mailbox).await?;
            let header = read_header(&tx, account, mailbox).await?.unwrap_or_default();
            let uid_next = read_u32(&tx, &keys::mailbox::next_uid_key(account, mailbox)).await?;
            let horizon = crate::log::horizon(&tx, account).await?;
            Ok::<_, ViewError>((record, header, uid_next, horizon))
        })
        .await?;
    let mut pages: BTreeMap<u32, Page> = BTreeMap::new();
    let mut highest = ModSeq(header.highest_modseq).max(horizon);
    let (mut begin, end) = keys::email::state_range(account);
    loop {
        let query = RangeQuery::new(begin.clone(), end.clone()).limit(STATES_PER_READ).snapshot();
        let query = &query;
        let states = db
            .run(|tx| async move { Ok::<_, ViewError>(tx.range(query.clone()).collect().await?) })
            .await?;
        for pair in &states {
            add_state(mailbox, &pair.key, &pair.value, &mut pages, &mut highest)?;
        }
        match states.last() {
            Some(last) if states.len() == STATES_PER_READ => {
                begin = last.key.to_vec();
                begin.push(0);
            }
            _ => break,
        }
    }
    let slots: Vec<Arc<Slot>> =
        pages.into_iter().map(|(number, page)| Arc::new(Slot::loaded_with(number, page))).collect();
    let view = View {
        account,
        mailbox,
        uid_validity: UidValidity(record.uid_validity),
        as_of: horizon,
        // Every page is loaded and none is the checkpoint's; this says what to replace.
        base: ModSeq(header.as_of),
        highest_modseq: highest,
        uid_next: uid_next.unwrap_or(1),
        tail: 0,
        starts: starts_of(&slots),
        slots: slots.into(),
    };
    view.advance(db).await
}

fn add_state(
    mailbox: MailboxId,
    key: &[u8],
    value: &[u8],
    pages: &mut BTreeMap<u32, Page>,
    highest: &mut ModSeq,
) -> Result<(), StoreError> {
    let email = keys::email::email_of(key)
        .ok_or_else(|| StoreError::damaged("email state", "a key that is no email's"))?;
    let (stamp, state) = keys::email::decode_state(value)?;
    for place in state.memberships.iter().filter(|m| m.mailbox == mailbox.0) {
        let uid = Uid::new(place.uid)
            .ok_or_else(|| StoreError::damaged("email state", "a UID of zero"))?;
        let row = Row {
            uid,
            email: EmailId(email.0),
            thread: ThreadId(state.thread),
            modseq: ModSeq(stamp.version()),
            received_ms: state.received_ms,
            size: state.size,
            flags: Flags {
                keywords: KeywordSet::from_record(&state.keywords),
                deleted: place.deleted,
            },
        };
        *highest = (*highest).max(row.modseq);
        pages.entry(page_of(uid)).or_default().insert(&row);
    }
    Ok(())
}

/// Visits the changes of `(from, to]`, oldest first.
async fn log_between(
    db: &Database,
    account: AccountId,
    from: ModSeq,
    to: ModSeq,
    mut visit: impl FnMut(ModSeq, &EmailChange),
) -> Result<(), ViewError> {
    let mut after = from;
    loop {
        let log = db.run(|tx| async move { changes_since(&tx, account, after).await }).await?;
        if !log.reaches(after) {
            return Err(ViewError::TooOld(after));
        }
        for (version, entry) in log.entries.iter().take_while(|(version, _)| *version <= to) {
            entry.emails.iter().for_each(|change| visit(*version, change));
        }
        match log.more_after {
            Some(more) if more < to => after = more,
            _ => return Ok(()),
        }
    }
}

/// What a stretch of the log means to one mailbox, by page.
#[derive(Default)]
struct Changes {
    pages: BTreeMap<u32, Vec<PageChange>>,
    highest: ModSeq,
    uid_next: u32,
}

enum PageChange {
    Removed { uid: u32, seen: bool },
    Added(Row),
    Updated { row: Row, seen_before: bool },
}

impl Changes {
    fn add(&mut self, mailbox: MailboxId, version: ModSeq, entry: &LogEntry) {
        for change in &entry.emails {
            let here = |list: &[Membership], uid: u32| {
                list.iter().any(|m| m.mailbox == mailbox.0 && m.uid == uid)
            };
            let (removed, rows) = effect(change, mailbox, Direction::Forward, version);
            if removed.is_empty() && rows.is_empty() {
                continue;
            }
            self.highest = self.highest.max(version);
            let seen_before = is_seen(&change.keywords_before);
            for uid in removed {
                self.put(uid, PageChange::Removed { uid, seen: seen_before });
            }
            for row in rows {
                let uid = row.uid.number();
                self.uid_next = self.uid_next.max(uid.saturating_add(1));
                let known = here(&change.before, uid);
                self.put(
                    uid,
                    if known {
                        PageChange::Updated { row, seen_before }
                    } else {
                        PageChange::Added(row)
                    },
                );
            }
        }
    }

    fn put(&mut self, uid: u32, change: PageChange) {
        if let Some(uid) = Uid::new(uid) {
            self.pages.entry(page_of(uid)).or_default().push(change);
        }
    }
}

impl Slot {
    /// A page without rows, which needs no loading.
    fn empty(number: u32) -> Self {
        Self::loaded_with(number, Page::default())
    }

    fn loaded_with(number: u32, page: Page) -> Self {
        Self {
            number,
            count: u32::try_from(page.len()).expect("a page has at most 2,048 rows"),
            unseen: page.unseen(),
            freshness: Freshness::Changed,
            rows: Mutex::new(Some(Arc::new(page))),
        }
    }

    /// The slot after `changes`; its rows follow where they are loaded.
    fn changed(&self, changes: &[PageChange]) -> Self {
        if let Some(page) = self.loaded() {
            let mut page = Page::clone(&page);
            for change in changes {
                match change {
                    PageChange::Removed { uid, .. } => page.remove(*uid),
                    PageChange::Added(row) | PageChange::Updated { row, .. } => page.insert(row),
                }
            }
            return Self::loaded_with(self.number, page);
        }
        let (mut count, mut unseen) = (self.count, self.unseen);
        for change in changes {
            match change {
                PageChange::Removed { seen, .. } => {
                    count = count.saturating_sub(1);
                    unseen = unseen.saturating_sub(u32::from(!seen));
                }
                PageChange::Added(row) => {
                    count += 1;
                    unseen += u32::from(!row.flags.keywords.is_seen());
                }
                PageChange::Updated { row, seen_before } => {
                    let now = u32::from(!row.flags.keywords.is_seen());
                    unseen = (unseen + now).saturating_sub(u32::from(!seen_before));
                }
            }
        }
        let number = self.number;
        Self { number, count, unseen, freshness: Freshness::Changed, rows: Mutex::new(None) }
    }
}
