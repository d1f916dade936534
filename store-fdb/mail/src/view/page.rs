//! One page of a view: at most 2,048 messages in columns.

use std::{ops::Range, sync::Arc};

use super::{first_uid_of, to_index};
use crate::{
    EmailId, KeywordSet, MailboxId, ModSeq, StoreError, ThreadId, Uid,
    keys::{
        email::Membership,
        log::EmailChange,
        view::{FlagSet, ViewPage},
    },
    limits,
};

/// The flags of one message in its mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Flags {
    /// Its keywords.
    pub keywords: KeywordSet,
    /// `\Deleted`.
    pub deleted: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its UID.
    pub uid: Uid,
    /// Its email.
    pub email: EmailId,
    /// Its thread.
    pub thread: ThreadId,
    /// The version of its last change.
    pub modseq: ModSeq,
    /// INTERNALDATE, ms since the Unix epoch.
    pub received_ms: i64,
    /// Bytes.
    pub size: u64,
    /// Its flags.
    pub flags: Flags,
}

/// The messages of one page in UID order.
///
/// A clone shares its columns until they change: a view that differs from the one before in some
/// flags holds two columns of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    uids: Column<u32>,
    emails: Column<u32>,
    threads: Column<u32>,
    modseqs: Column<u64>,
    received: Column<i64>,
    sizes: Column<u64>,
    flags: Column<u16>,
    flag_sets: Vec<Flags>,
}

type Column<T> = Arc<Vec<T>>;

/// Sets one row of a column, which is copied only where that changes it.
fn put<T: Copy + PartialEq>(column: &mut Column<T>, row: usize, value: T) {
    if column[row] != value {
        Arc::make_mut(column)[row] = value;
    }
}

impl Page {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// Messages without `$seen`.
    pub(super) fn unseen(&self) -> u32 {
        let unseen: Vec<bool> = self.flag_sets.iter().map(|set| !set.keywords.is_seen()).collect();
        let count = self.flags.iter().filter(|set| unseen[usize::from(**set)]).count();
        u32::try_from(count).expect("a page has at most 2,048 rows")
    }

    /// Memory in use, about.
    pub fn bytes(&self) -> usize {
        let keyword = |keyword: &crate::Keyword| keyword.as_str().len() + 32;
        let set = |set: &Flags| 64 + set.keywords.iter().map(keyword).sum::<usize>();
        256 + self.len() * 38 + self.flag_sets.iter().map(set).sum::<usize>()
    }

    /// The rows at `range`, with their places in the page.
    pub fn rows(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Row)> {
        let end = range.end.min(self.len());
        (range.start.min(end)..end).map(|i| (i, self.row(i)))
    }

    /// The distinct sets of flags.
    pub fn flag_sets(&self) -> &[Flags] {
        &self.flag_sets
    }

    pub(super) fn row(&self, i: usize) -> Row {
        Row {
            uid: Uid::new(self.uids[i]).expect("pages hold only UIDs above zero"),
            email: EmailId(self.emails[i]),
            thread: ThreadId(self.threads[i]),
            modseq: ModSeq(self.modseqs[i]),
            received_ms: self.received[i],
            size: self.sizes[i],
            flags: self.flag_sets[usize::from(self.flags[i])].clone(),
        }
    }

    pub(super) fn uids(&self) -> &[u32] {
        &self.uids
    }

    pub(super) fn modseqs(&self) -> &[u64] {
        &self.modseqs
    }

    /// The places of the UIDs `first..=last`.
    pub(super) fn uid_range(&self, first: Uid, last: Uid) -> Range<usize> {
        let start = self.uids.partition_point(|uid| *uid < first.number());
        let end = self.uids.partition_point(|uid| *uid <= last.number());
        start..end.max(start)
    }

    /// Puts a row in, in place of one with the same UID.
    pub(super) fn insert(&mut self, row: &Row) {
        let uid = row.uid.number();
        let flags = self.intern(&row.flags);
        match self.uids.binary_search(&uid) {
            Ok(i) => {
                put(&mut self.emails, i, row.email.0);
                put(&mut self.threads, i, row.thread.0);
                put(&mut self.modseqs, i, row.modseq.0);
                put(&mut self.received, i, row.received_ms);
                put(&mut self.sizes, i, row.size);
                put(&mut self.flags, i, flags);
            }
            Err(i) => {
                Arc::make_mut(&mut self.uids).insert(i, uid);
                Arc::make_mut(&mut self.emails).insert(i, row.email.0);
                Arc::make_mut(&mut self.threads).insert(i, row.thread.0);
                Arc::make_mut(&mut self.modseqs).insert(i, row.modseq.0);
                Arc::make_mut(&mut self.received).insert(i, row.received_ms);
                Arc::make_mut(&mut self.sizes).insert(i, row.size);
                Arc::make_mut(&mut self.flags).insert(i, flags);
            }
        }
    }

    /// Takes a row out, where it is there.
    pub(super) fn remove(&mut self, uid: u32) {
        if let Ok(i) = self.uids.binary_search(&uid) {
            Arc::make_mut(&mut self.uids).remove(i);
            Arc::make_mut(&mut self.emails).remove(i);
            Arc::make_mut(&mut self.threads).remove(i);
            Arc::make_mut(&mut self.modseqs).remove(i);
            Arc::make_mut(&mut self.received).remove(i);
            Arc::make_mut(&mut self.sizes).remove(i);
            Arc::make_mut(&mut self.flags).remove(i);
        }
    }

    fn intern(&mut self, flags: &Flags) -> u16 {
        if let Some(i) = self.flag_sets.iter().position(|set| set == flags) {
            return u16::try_from(i).expect("bounded below");
        }
        // Sets that no row uses any more are dropped before the index could outgrow its type.
        if self.flag_sets.len() >= 2 * to_index(limits::UIDS_PER_PAGE) {
            self.compact();
        }
        self.flag_sets.push(flags.clone());
        u16::try_from(self.flag_sets.len() - 1).expect("at most 4,096 sets")
    }

    fn compact(&mut self) {
        let old = std::mem::take(&mut self.flag_sets);
        let mut moved = vec![None; old.len()];
        for set in Arc::make_mut(&mut self.flags) {
            let place = moved[usize::from(*set)].get_or_insert_with(|| {
                self.flag_sets.push(old[usize::from(*set)].clone());
                u16::try_from(self.flag_sets.len() - 1).expect("at most one set a row")
            });
            *set = *place;
        }
    }

    /// The record for the store.
    pub(super) fn to_record(&self, number: u32, as_of: ModSeq) -> ViewPage {
        let mut page = self.clone();
        page.compact();
        let first = first_uid_of(number);
        let set = |flags: &Flags| FlagSet {
            keywords: flags.keywords.to_record(),
            deleted: flags.deleted,
        };
        ViewPage {
            as_of: as_of.0,
            uid_offsets: page.uids.iter().map(|uid| uid - first).collect(),
            emails: page.emails.to_vec(),
            threads: page.threads.to_vec(),
            modseq_deltas: deltas(page.modseqs.iter().map(|modseq| modseq.cast_signed())),
            received_deltas: deltas(page.received.iter().copied()),
            sizes: page.sizes.to_vec(),
            flags: page.flags.iter().map(|set| u32::from(*set)).collect(),
            flag_sets: page.flag_sets.iter().map(set).collect(),
        }
    }

    /// From the store.
    pub(super) fn from_record(number: u32, record: ViewPage) -> Result<Self, StoreError> {
        let rows = record.uid_offsets.len();
        let even = [
            record.emails.len(),
            record.threads.len(),
            record.modseq_deltas.len(),
            record.received_deltas.len(),
            record.sizes.len(),
            record.flags.len(),
        ];
        let ascending = record.uid_offsets.is_sorted_by(|a, b| a < b);
        let in_page = record.uid_offsets.last().is_none_or(|last| *last < limits::UIDS_PER_PAGE);
        let sets = record.flag_sets.len();
        let known = record.flags.iter().all(|set| to_index(*set) < sets);
        if even.iter().any(|len| *len != rows) || !ascending || !in_page || !known {
            return Err(StoreError::damaged("view page", "its columns do not fit each other"));
        }
        let first = first_uid_of(number);
        if record.uid_offsets.last().is_some_and(|last| first.checked_add(*last).is_none()) {
            return Err(StoreError::damaged("view page", "a UID above all UIDs"));
        }
        let sum = |deltas: Vec<i64>| {
            deltas.into_iter().scan(0_i64, |sum, delta| {
                *sum = sum.wrapping_add(delta);
                Some(*sum)
            })
        };
        let flag = |set: &u32| {
            u16::try_from(*set).map_err(|error| StoreError::damaged("view page", error))
        };
        let flags: Result<Vec<u16>, StoreError> = record.flags.iter().map(flag).collect();
        Ok(Self {
            uids: Arc::new(record.uid_offsets.iter().map(|offset| first + offset).collect()),
            emails: Arc::new(record.emails),
            threads: Arc::new(record.threads),
            modseqs: Arc::new(sum(record.modseq_deltas).map(i64::cast_unsigned).collect()),
            received: Arc::new(sum(record.received_deltas).collect()),
            sizes: Arc::new(record.sizes),
            flags: Arc::new(flags?),
            flag_sets: record
                .flag_sets
                .iter()
                .map(|set| Flags {
                    keywords: KeywordSet::from_record(&set.keywords),
                    deleted: set.deleted,
                })
                .collect(),
        })
    }
}

fn deltas(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut last = 0_i64;
    values
        .map(|value| {
            let delta = value.wrapping_sub(last);
            last = value;
            delta
        })
        .collect()
}

/// What one email's change means to one mailbox: rows that go and rows that come (or change).
pub(super) fn effect(
    change: &EmailChange,
    mailbox: MailboxId,
    direction: Direction,
    version: ModSeq,
) -> (Vec<u32>, Vec<Row>) {
    let (gone, come, keywords, modseq) = match direction {
        Direction::Forward => (&change.before, &change.after, &change.keywords_after, version),
        Direction::Backward => {
            (&change.after, &change.before, &change.keywords_before, ModSeq(change.modseq_before))
        }
    };
    let here = |m: &&Membership| m.mailbox == mailbox.0;
    let rows: Vec<Row> = come
        .iter()
        .filter(here)
        .filter_map(|m| {
            Some(Row {
                uid: Uid::new(m.uid)?,
                email: EmailId(change.email),
                thread: ThreadId(change.thread),
                modseq,
                received_ms: change.received_ms,
                size: change.size,
                flags: Flags { keywords: KeywordSet::from_record(keywords), deleted: m.deleted },
            })
        })
        .collect();
    let stays = |uid: u32| rows.iter().any(|row| row.uid.number() == uid);
    let removed = gone.iter().filter(here).map(|m| m.uid).filter(|uid| !stays(*uid)).collect();
    (removed, rows)
}

/// Whether the log is applied or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From older to newer.
    Forward,
    /// From newer to older.
    Backward,
}
