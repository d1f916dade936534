//! From the sets of a command to messages, page by page.

use std::ops::RangeInclusive;

use imap::{Completion, IdSet, MessageSet, Numbering};
use kv::Database;
use mail::{
    Uid,
    view::{Message, View, ViewError},
};

use super::selected::Selected;
use crate::limits;

/// The messages that a set names, in order, without ever holding more than two pages of them.
pub(super) struct Walk {
    by: Numbering,
    ranges: std::vec::IntoIter<RangeInclusive<u32>>,
    current: Option<RangeInclusive<u32>>,
    progress: Progress,
}

/// Whether a stretch was given out.
#[derive(PartialEq, Eq)]
enum Progress {
    No,
    Begun,
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

    /// The messages with these numbers.
    pub(super) fn over(by: Numbering, ids: &IdSet) -> Self {
        let ranges: Vec<_> = ids.ranges().collect();
        Self { by, ranges: ranges.into_iter(), current: None, progress: Progress::No }
    }

    /// The next messages: what many small ranges name comes together, so that a client that
    /// lists its messages one by one does not cost a transaction each. `None` at the end.
    pub(super) async fn next(
        &mut self,
        db: &Database,
        view: &View,
    ) -> Result<Option<Vec<Message>>, ViewError> {
        if self.current.is_none() && self.ranges.len() == 0 {
            return Ok(None);
        }
        // Pages that are in memory never make this task wait: others get their turn between two
        // stretches. Before the first the client itself has made it wait.
        if self.progress == Progress::Begun {
            tokio::task::yield_now().await;
        }
        self.progress = Progress::Begun;
        let mut gathered = Vec::new();
        while gathered.len() < limits::EMAILS_PER_TRANSACTION {
            let Some(range) = self.current.take().or_else(|| self.ranges.next()) else { break };
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
            gathered.extend(messages);
        }
        Ok((!gathered.is_empty()).then_some(gathered))
    }
}

/// Messages of an older view as a newer one has them, under the numbers that the client knows;
/// without those that are gone. `known` is in the order of UIDs.
pub(super) async fn renewed(
    db: &Database,
    newest: &View,
    known: &[Message],
) -> Result<Vec<Message>, ViewError> {
    let mut found = Vec::with_capacity(known.len());
    let mut rest = known;
    while let (Some(first), Some(last)) = (rest.first(), rest.last()) {
        let stretch = newest.by_uid(db, first.row.uid, last.row.uid).await?;
        let here = rest.partition_point(|message| message.row.uid <= stretch.covered);
        // A stretch begins at its first UID, so it covers one message at least.
        let (covered, behind) = rest.split_at(here.max(1));
        let mut rows = stretch.messages.into_iter().peekable();
        for message in covered {
            while rows.next_if(|held| held.row.uid < message.row.uid).is_some() {}
            if let Some(held) = rows.next_if(|held| held.row.uid == message.row.uid) {
                found.push(Message { sequence: message.sequence, row: held.row });
            }
        }
        rest = behind;
    }
    Ok(found)
}
