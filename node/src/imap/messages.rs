//! From the sets of a command to messages, page by page.

use std::ops::RangeInclusive;

use imap::{Completion, IdSet, MessageSet, Numbering};
use kv::Database;
use mail::{
    Uid,
    view::{Message, View, ViewError},
};

use super::selected::Selected;

/// The messages that a set names, in order, without ever holding more than a page of them.
pub(super) struct Walk {
    by: Numbering,
    ranges: std::vec::IntoIter<RangeInclusive<u32>>,
    current: Option<RangeInclusive<u32>>,
}

/// Why a set cannot be walked.
pub(super) enum BadSet {
    /// It names what does not exist (RFC 9051 §2.3.1.2): the client is wrong.
    Completion(Completion),
    /// The view cannot be read.
    View(ViewError),
}

impl Walk {
    /// The messages of `set` in the view that the client knows.
    pub(super) async fn new(
        db: &Database,
        selected: &Selected,
        by: Numbering,
        set: &MessageSet,
    ) -> Result<Self, BadSet> {
        let view = &selected.view;
        let (by, ids) = match (set, by) {
            (MessageSet::Saved, _) => (Numbering::Uid, selected.saved.clone()),
            (MessageSet::Set(set), Numbering::Uid) => {
                let last = view.last_uid(db).await.map_err(BadSet::View)?;
                (by, set.resolve(last.map_or(0, Uid::number)))
            }
            (MessageSet::Set(set), Numbering::Sequence) => {
                let exists = view.exists();
                if exists == 0 || set.largest_number().is_some_and(|largest| largest > exists) {
                    let bad = Completion::bad("No such message");
                    return Err(BadSet::Completion(bad));
                }
                (by, set.resolve(exists))
            }
        };
        Ok(Self::over(by, &ids))
    }

    /// Every message.
    pub(super) fn all(view: &View) -> Self {
        let mut ids = IdSet::new();
        if view.exists() > 0 {
            ids.insert_range(1..=view.exists());
        }
        Self::over(Numbering::Sequence, &ids)
    }

    fn over(by: Numbering, ids: &IdSet) -> Self {
        let ranges: Vec<_> = ids.ranges().collect();
        Self { by, ranges: ranges.into_iter(), current: None }
    }

    /// The next messages, at most a page's; `None` at the end.
    pub(super) async fn next(
        &mut self,
        db: &Database,
        view: &View,
    ) -> Result<Option<Vec<Message>>, ViewError> {
        loop {
            let Some(range) = self.current.take().or_else(|| self.ranges.next()) else {
                return Ok(None);
            };
            let (first, last) = range.into_inner();
            let (messages, covered) = match self.by {
                Numbering::Sequence => {
                    let messages = view.by_sequence(db, first, last).await?;
                    let covered = messages.last().map_or(last, |message| message.sequence);
                    (messages, covered)
                }
                Numbering::Uid => {
                    let (Some(from), Some(to)) = (Uid::new(first), Uid::new(last)) else {
                        continue;
                    };
                    let stretch = view.by_uid(db, from, to).await?;
                    (stretch.messages, stretch.covered.number())
                }
            };
            if covered < last {
                self.current = Some(covered + 1..=last);
            }
            if !messages.is_empty() {
                return Ok(Some(messages));
            }
        }
    }
}
