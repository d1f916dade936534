//! What changed between two views of a mailbox.

use std::sync::Arc;

use env::probe::Planted;
use kv::Database;

use super::{Message, Page, Slot, View, ViewError, message};
use crate::Uid;

/// The way from an older view to a newer one, in the order in which IMAP tells it: messages that
/// went, then how many there are, then flags that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewChange {
    /// Messages that are gone: sequence number in the older view and UID, highest first, so that
    /// each number is right when it is told (RFC 9051 §7.5.1).
    pub expunged: Vec<(u32, Uid)>,
    /// Set where messages came: how many there are now.
    pub exists: Option<u32>,
    /// Messages that both views have and whose MODSEQ differs, as they are in the newer view.
    pub changed: Vec<Message>,
}

impl ViewChange {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.expunged.is_empty() && self.exists.is_none() && self.changed.is_empty()
    }
}

/// What changed from `old` to `new`, two views of one mailbox. Pages that did not change cost
/// nothing.
///
/// # Errors
/// [`ViewError`].
pub async fn diff(db: &Database, old: &View, new: &View) -> Result<ViewChange, ViewError> {
    let mut change = ViewChange::default();
    if Arc::ptr_eq(&old.slots, &new.slots) {
        return Ok(change);
    }
    let mut came = false;
    let (mut i, mut j) = (0, 0);
    while i < old.slots.len() || j < new.slots.len() {
        let (a, b) = (old.slots.get(i), new.slots.get(j));
        let (in_old, in_new) = match (a, b) {
            (Some(a), Some(b)) => (a.number <= b.number, b.number <= a.number),
            (a, b) => (a.is_some(), b.is_some()),
        };
        if !same(a, b) {
            let before = if in_old { old.page(db, i).await? } else { Arc::new(Page::default()) };
            let after = if in_new { new.page(db, j).await? } else { Arc::new(Page::default()) };
            let starts = (old.starts[i.min(old.slots.len())], new.starts[j.min(new.slots.len())]);
            came |= compare(&before, &after, starts, &mut change);
        }
        i += usize::from(in_old);
        j += usize::from(in_new);
    }
    change.expunged.reverse();
    if came {
        change.exists = Some(new.exists());
    }
    Ok(change)
}

fn same(a: Option<&Arc<Slot>>, b: Option<&Arc<Slot>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// Walks two pages side by side. Returns whether messages came.
fn compare(before: &Page, after: &Page, starts: (u32, u32), change: &mut ViewChange) -> bool {
    let (mut i, mut j) = (0, 0);
    let mut came = false;
    while i < before.len() || j < after.len() {
        let (a, b) = (before.uids().get(i), after.uids().get(j));
        match (a, b) {
            (Some(a), Some(b)) if a == b => {
                if before.modseqs()[i] != after.modseqs()[j] {
                    change.changed.push(message(starts.1, j, after.row(j)));
                }
                i += 1;
                j += 1;
            }
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                let gone = message(starts.0, i, before.row(i));
                if !env::probe::planted(Planted::ForgetVanished) {
                    change.expunged.push((gone.sequence, gone.row.uid));
                }
                i += 1;
            }
            _ => {
                came = true;
                j += 1;
            }
        }
    }
    came
}
