//! Writing a view's checkpoint.
//!
//! Any node may do it, at any time: a checkpoint only replaces one that is older. Changed pages
//! go first, in bounded transactions, the header last, with the clearing of empty pages; a
//! checkpoint that is cut off in between leaves pages that are right for a newer version than
//! the header's, which [`super::build`] knows how to read. While pages go ahead, the old header
//! says for which version, so that no slower writer puts an older page over a newer one.

use std::sync::{Arc, Mutex};

use kv::{Database, Transaction};
use prost::Message;

use super::{Freshness, Slot, View, ViewError, build::read_header};
use crate::{
    StoreError,
    keys::{
        self,
        view::{PageSummary, ViewHeader},
    },
    limits,
};

/// What became of a checkpoint.
#[derive(Debug)]
pub enum Checkpointed {
    /// It is written; this view stands on it.
    Written(View),
    /// The store has another one than the view began with. Nothing was written; open anew.
    Superseded,
}

/// Writes the view as its mailbox's checkpoint.
///
/// # Errors
/// [`ViewError`].
pub async fn write_checkpoint(db: &Database, view: &View) -> Result<Checkpointed, ViewError> {
    write_in_batches(db, view, limits::CHECKPOINT_BYTES_MAX).await
}

async fn write_in_batches(
    db: &Database,
    view: &View,
    batch_bytes: usize,
) -> Result<Checkpointed, ViewError> {
    let mut batch: Vec<EncodedPage> = Vec::new();
    let mut bytes = 0;
    for (index, slot) in view.slots.iter().enumerate() {
        if slot.freshness == Freshness::Checkpoint {
            continue;
        }
        let page = view.page(db, index).await?;
        let record = page.to_record(slot.number, view.as_of).encode_to_vec();
        if record.len() > limits::PAGE_BYTES_MAX {
            return Err(ViewError::PageTooLarge(slot.number));
        }
        bytes += record.len();
        batch.push(EncodedPage { number: slot.number, record });
        if bytes >= batch_bytes {
            if !write(db, view, &batch, Stage::Pages).await? {
                return Ok(Checkpointed::Superseded);
            }
            batch.clear();
            bytes = 0;
        }
    }
    if !write(db, view, &batch, Stage::Header).await? {
        return Ok(Checkpointed::Superseded);
    }
    Ok(Checkpointed::Written(settled(view)))
}

struct EncodedPage {
    number: u32,
    record: Vec<u8>,
}

/// What a checkpoint's transaction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Pages, with more to come.
    Pages,
    /// The last pages and the header.
    Header,
}

fn header(view: &View) -> ViewHeader {
    let summary = |slot: &Arc<Slot>| PageSummary {
        number: slot.number,
        count: slot.count,
        unseen: slot.unseen,
    };
    ViewHeader {
        as_of: view.as_of.0,
        highest_modseq: view.highest_modseq.0,
        uid_next: view.uid_next,
        pages: view.slots.iter().map(summary).collect(),
        writing_as_of: 0,
    }
}

/// Writes pages, and the header in the last stage. `false` where the stored header is not the one
/// that the view began with, or another writer is further.
async fn write(
    db: &Database,
    view: &View,
    pages: &[EncodedPage],
    stage: Stage,
) -> Result<bool, ViewError> {
    let (account, mailbox) = (view.account, view.mailbox);
    db.run(|tx| async move {
        let header_key = keys::view::header_key(account, mailbox);
        let stored = read_header(&tx, account, mailbox).await?.unwrap_or_default();
        // The read above is a snapshot; this makes it decide.
        tx.add_read_conflict_key(&header_key);
        // Equal to our own version: an earlier try of this very write, whose answer was lost.
        let is_base = stored.as_of == view.base.0 || stored.as_of == view.as_of.0;
        if !is_base || stored.writing_as_of > view.as_of.0 {
            return Ok(false);
        }
        let record = tx.get(&keys::mailbox::key(account, mailbox)).await?;
        if record.is_none() {
            return Ok(false);
        }
        for page in pages {
            write_page(&tx, view, page);
        }
        let written = match stage {
            Stage::Pages => ViewHeader { writing_as_of: view.as_of.0, ..stored },
            Stage::Header => {
                clear_other_pages(&tx, view);
                header(view)
            }
        };
        tx.set(&header_key, &written.encode_to_vec());
        Ok::<_, StoreError>(true)
    })
    .await
    .map_err(ViewError::from)
}

fn write_page(tx: &Transaction, view: &View, page: &EncodedPage) {
    let (account, mailbox, number) = (view.account, view.mailbox, page.number);
    let (begin, end) = keys::view::page_parts_range(account, mailbox, number);
    tx.clear_range(&begin, &end);
    for (part, bytes) in (0..).zip(page.record.chunks(limits::PAGE_PART_BYTES)) {
        let key = match part {
            0 => keys::view::page_key(account, mailbox, number),
            part => keys::view::page_part_key(account, mailbox, number, part),
        };
        tx.set(&key, bytes);
    }
}

/// Clears every page that the view does not have, also what a checkpoint that was cut off left.
fn clear_other_pages(tx: &Transaction, view: &View) {
    let (mut begin, end) = keys::view::page_range(view.account, view.mailbox);
    let mut next = 0;
    for slot in view.slots.iter() {
        let (first, after) = keys::view::page_parts_range(view.account, view.mailbox, slot.number);
        // Pages mostly follow each other: no clear where there is no page to clear.
        if slot.number != next {
            tx.clear_range(&begin, &first);
        }
        begin = after;
        next = slot.number + 1;
    }
    tx.clear_range(&begin, &end);
}

/// The view as one that began with this checkpoint.
fn settled(view: &View) -> View {
    let settle = |slot: &Arc<Slot>| match slot.freshness {
        Freshness::Checkpoint => Arc::clone(slot),
        Freshness::Changed => Arc::new(Slot {
            freshness: Freshness::Checkpoint,
            rows: Mutex::new(slot.loaded()),
            ..**slot
        }),
    };
    View {
        base: view.as_of,
        tail: 0,
        slots: view.slots.iter().map(settle).collect(),
        starts: Arc::clone(&view.starts),
        ..*view
    }
}

#[cfg(test)]
mod tests;
