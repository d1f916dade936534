//! Mailbox views: a mailbox at one version, as IMAP shows it.
//!
//! A [`View`] is immutable. It knows of each page of 2,048 UIDs how many messages it holds, and
//! loads a page's rows only when they are asked for. The checkpoint in the store and the log give
//! the view of any version: SELECT reads one header and the log's tail, whatever the mailbox's
//! size. A session keeps the view it has shown to its client, and [`diff`] tells what changed
//! from there to a newer one; pages that did not change are the same allocation in both.
//!
//! Architecture invariant: nothing here is the truth. Every page of every view can be dropped
//! and built again from the store, and a view can be built without any checkpoint.

mod build;
mod cache;
mod checkpoint;
mod diff;
mod page;

use std::sync::{Arc, Mutex};

use kv::Database;

use crate::{AccountId, MailboxId, ModSeq, StoreError, Uid, UidValidity, limits};

pub(crate) use build::{check_header, check_page};
pub use cache::{CacheStats, Growth, ViewCache};
pub use checkpoint::{Checkpointed, write_checkpoint};
pub use diff::{ViewChange, diff};
pub use page::{Flags, Page, Row};

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The mailbox does not exist, or is being deleted.
    #[error("mailbox {0} does not exist")]
    NoMailbox(MailboxId),
    /// The log no longer reaches back to the view's version.
    #[error("the log no longer reaches back to version {0}")]
    TooOld(ModSeq),
    /// The page's record would exceed [`limits::PAGE_BYTES_MAX`]; told by checkpoints only.
    #[error("view page {0} has too many sets of keywords for a checkpoint")]
    PageTooLarge(u32),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
crate::error::store_error!(ViewError);

/// A mailbox at one version.
#[derive(Debug)]
pub struct View {
    account: AccountId,
    mailbox: MailboxId,
    uid_validity: UidValidity,
    /// Every commit up to this version is in the view, none above.
    as_of: ModSeq,
    /// The version of the checkpoint that the view began with.
    base: ModSeq,
    highest_modseq: ModSeq,
    uid_next: u32,
    /// Log entries read since the checkpoint.
    tail: usize,
    slots: Arc<[Arc<Slot>]>,
    /// `starts[i]` messages stand before `slots[i]`; one more element: all messages.
    starts: Arc<[u32]>,
}

/// One page's place in a view.
#[derive(Debug)]
struct Slot {
    number: u32,
    count: u32,
    unseen: u32,
    freshness: Freshness,
    rows: Mutex<Option<Arc<Page>>>,
}

/// How a slot's rows come from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// As the checkpoint has them: no change since.
    Checkpoint,
    /// The checkpoint's rows and changes of the log since.
    Changed,
}

/// A message's place and row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its sequence number, from 1.
    pub sequence: u32,
    /// The rest.
    pub row: Row,
}

impl View {
    /// The account.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The mailbox.
    pub fn mailbox(&self) -> MailboxId {
        self.mailbox
    }

    /// The mailbox's UIDVALIDITY.
    pub fn uid_validity(&self) -> UidValidity {
        self.uid_validity
    }

    /// The version that the view shows.
    pub fn as_of(&self) -> ModSeq {
        self.as_of
    }

    /// The newest version that changed this mailbox; at least 1 (RFC 7162 §3.1.2.1).
    pub fn highest_modseq(&self) -> ModSeq {
        ModSeq(self.highest_modseq.0.max(1))
    }

    /// One past the highest UID ever assigned that this view knows of.
    pub fn uid_next(&self) -> Uid {
        Uid::new(self.uid_next).unwrap_or(Uid::MIN)
    }

    /// Messages in the mailbox: `EXISTS`.
    pub fn exists(&self) -> u32 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Messages without `$seen`.
    pub fn unseen(&self) -> u32 {
        self.slots.iter().map(|slot| slot.unseen).sum()
    }

    /// Log entries since the checkpoint: what the next SELECT would read.
    pub fn tail(&self) -> usize {
        self.tail
    }

    /// The highest UID in the mailbox; `None` where it is empty.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn last_uid(&self, db: &Database) -> Result<Option<Uid>, ViewError> {
        let exists = self.exists();
        if exists == 0 {
            return Ok(None);
        }
        Ok(self.by_sequence(db, exists, exists).await?.last().map(|message| message.row.uid))
    }

    /// The messages with sequence numbers `first..=last`, within one page: the answer may stop
    /// short of `last`, and the caller goes on behind it. Empty where there is none.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn by_sequence(
        &self,
        db: &Database,
        first: u32,
        last: u32,
    ) -> Result<Vec<Message>, ViewError> {
        if first == 0 || first > last || first > self.exists() {
            return Ok(Vec::new());
        }
        let index = self.starts.partition_point(|start| *start < first) - 1;
        let start = self.starts[index];
        let page = self.page(db, index).await?;
        let from = to_index(first - start - 1);
        let to = to_index(last.min(self.starts[index + 1]) - start);
        Ok(page.rows(from..to).map(|(i, row)| message(start, i, row)).collect())
    }

    /// The messages with UIDs `first..=last`, within one page: the answer covers the UIDs up to
    /// [`UidStretch::covered`], and the caller goes on behind it.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn by_uid(
        &self,
        db: &Database,
        first: Uid,
        last: Uid,
    ) -> Result<UidStretch, ViewError> {
        let wanted = page_of(first);
        let index = self.slots.partition_point(|slot| slot.number < wanted);
        let Some(slot) = self.slots.get(index).filter(|slot| slot.number <= page_of(last)) else {
            return Ok(UidStretch { messages: Vec::new(), covered: last });
        };
        let page = self.page(db, index).await?;
        let start = self.starts[index];
        let range = page.uid_range(first, last);
        let messages = page.rows(range).map(|(i, row)| message(start, i, row)).collect();
        let covered = last_uid_of(slot.number).min(last);
        Ok(UidStretch { messages, covered })
    }

    /// The first message without `$seen` (RFC 3501 §7.1 `UNSEEN`).
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn first_unseen(&self, db: &Database) -> Result<Option<u32>, ViewError> {
        let Some(index) = self.slots.iter().position(|slot| slot.unseen > 0) else {
            return Ok(None);
        };
        let page = self.page(db, index).await?;
        let found = page.rows(0..page.len()).find(|(_, row)| !row.flags.keywords.is_seen());
        Ok(found.map(|(i, row)| message(self.starts[index], i, row).sequence))
    }

    /// The distinct sets of flags in the pages that are loaded.
    pub fn loaded_flag_sets(&self) -> Vec<Flags> {
        let mut sets = std::collections::BTreeSet::new();
        for slot in self.slots.iter() {
            if let Some(page) = slot.loaded() {
                sets.extend(page.flag_sets().iter().cloned());
            }
        }
        sets.into_iter().collect()
    }
}

/// An answer of [`View::by_uid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UidStretch {
    /// The messages found, in UID order.
    pub messages: Vec<Message>,
    /// Every UID up to this one has been looked at.
    pub covered: Uid,
}

impl Slot {
    fn loaded(&self) -> Option<Arc<Page>> {
        self.rows.lock().expect("no code panics while it holds a slot").clone()
    }

    fn keep(&self, page: &Arc<Page>) {
        *self.rows.lock().expect("no code panics while it holds a slot") = Some(Arc::clone(page));
    }

    fn drop_rows(&self) -> usize {
        let dropped = self.rows.lock().expect("no code panics while it holds a slot").take();
        dropped.map_or(0, |page| page.bytes())
    }
}

fn message(start: u32, index: usize, row: Row) -> Message {
    let within = u32::try_from(index).expect("a page has at most 2,048 rows");
    Message { sequence: start + within + 1, row }
}

/// The page of the highest UID.
const PAGE_NUMBER_MAX: u32 = (u32::MAX - 1) / limits::UIDS_PER_PAGE;

/// The page that a UID stands in.
fn page_of(uid: Uid) -> u32 {
    (uid.number() - 1) / limits::UIDS_PER_PAGE
}

/// The first UID of a page.
fn first_uid_of(page: u32) -> u32 {
    page * limits::UIDS_PER_PAGE + 1
}

fn last_uid_of(page: u32) -> Uid {
    let last = u64::from(page + 1) * u64::from(limits::UIDS_PER_PAGE);
    Uid::new(u32::try_from(last).unwrap_or(u32::MAX)).unwrap_or(Uid::MIN)
}

fn to_index(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit a usize on every machine we run on")
}

fn starts_of(slots: &[Arc<Slot>]) -> Arc<[u32]> {
    let mut starts = Vec::with_capacity(slots.len() + 1);
    let mut sum = 0;
    starts.push(0);
    for slot in slots {
        sum += slot.count;
        starts.push(sum);
    }
    starts.into()
}
