//! Writing a view's checkpoint.
//!
//! Any node may do it, at any time: a checkpoint only replaces one that is older. Changed pages
//! go first, in bounded transactions, the header last, with the clearing of empty pages; a
//! checkpoint that is cut off in between leaves pages that are right for a newer version than
//! the header's, which [`super::build`] knows how to read.

use std::sync::{Arc, Mutex};

use kv::Database;
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
    let mut batch: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    for (index, slot) in view.slots.iter().enumerate() {
        if slot.freshness == Freshness::Checkpoint {
            continue;
        }
        let page = view.page(db, index).await?;
        let record = page.to_record(slot.number, view.as_of).encode_to_vec();
        bytes += record.len();
        batch.push((keys::view::page_key(view.account, view.mailbox, slot.number), record));
        if bytes >= limits::CHECKPOINT_BYTES_MAX {
            if !write(db, view, &batch, None).await? {
                return Ok(Checkpointed::Superseded);
            }
            batch.clear();
            bytes = 0;
        }
    }
    if !write(db, view, &batch, Some(&header(view))).await? {
        return Ok(Checkpointed::Superseded);
    }
    Ok(Checkpointed::Written(settled(view)))
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
    }
}

/// Writes pages, and with a header also clears those that the header no longer has. `false`
/// where the stored header is not the one that the view began with.
async fn write(
    db: &Database,
    view: &View,
    pages: &[(Vec<u8>, Vec<u8>)],
    header: Option<&ViewHeader>,
) -> Result<bool, ViewError> {
    let (account, mailbox) = (view.account, view.mailbox);
    db.run(|tx| async move {
        let header_key = keys::view::header_key(account, mailbox);
        let stored = read_header(&tx, account, mailbox).await?;
        // The read above is a snapshot; this makes it decide.
        tx.add_read_conflict_key(&header_key);
        let stored_as_of = stored.as_ref().map_or(0, |stored| stored.as_of);
        // Equal to our own version: an earlier try of this very write, whose answer was lost.
        if stored_as_of != view.base.0 && stored_as_of != view.as_of.0 {
            return Ok(false);
        }
        let record = tx.get(&keys::mailbox::key(account, mailbox)).await?;
        if record.is_none() {
            return Ok(false);
        }
        for (key, value) in pages {
            tx.set(key, value);
        }
        if let Some(header) = header {
            for page in stored.iter().flat_map(|stored| &stored.pages) {
                if view.slot_index(page.number).is_none() {
                    tx.clear(&keys::view::page_key(account, mailbox, page.number));
                }
            }
            tx.set(&header_key, &header.encode_to_vec());
        }
        Ok::<_, StoreError>(true)
    })
    .await
    .map_err(ViewError::from)
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
