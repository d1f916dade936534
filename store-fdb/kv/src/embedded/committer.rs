//! The committer: one thread that turns what waits into batches, each with one sync.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering, mpsc},
};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    backup::Everything,
    queue::{Answer, Core, Message, Put, Settle},
    storage::{Durability, Storage, tagged},
};
use crate::{
    Error, Result, Versionstamp,
    limits::{BATCH_BYTES_MAX, BATCH_TRANSACTIONS_MAX, VERSIONS_RESERVED},
    local::{
        sequencer::{Changes, Sequencer},
        store::CommitRequest,
    },
};

pub(super) struct Committer {
    storage: Storage,
    core: Arc<Core>,
    sequencer: Sequencer,
    /// Whether anything was written since the last sync.
    journal: Journal,
    /// Versions up to this are reserved on the disk.
    reserved: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journal {
    Synced,
    Dirty,
}

/// One batch, taken apart.
#[derive(Default)]
struct Batch {
    requests: Vec<CommitRequest>,
    answers: Vec<Answer<Versionstamp>>,
    puts: BTreeMap<Bytes, Put>,
    settling: Vec<(Settle, Answer<()>)>,
    snapshots: Vec<Answer<Everything>>,
    closing: Option<Answer<()>>,
    /// Given back when the batch is done.
    room: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, message: Message) {
        match message {
            Message::Commit { request, answer, room } => {
                self.bytes += request.bytes;
                self.requests.push(request);
                self.answers.push(answer);
                self.room.push(room);
            }
            Message::Put { key, put, room } => {
                self.bytes += key.len() + put.value.as_ref().map_or(0, Bytes::len);
                self.puts.insert(key, put);
                self.room.push(room);
            }
            Message::Settle { settle, answer } => self.settling.push((settle, answer)),
            Message::Snapshot { answer } => self.snapshots.push(answer),
            Message::Close { answer } => self.closing = Some(answer),
        }
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= BATCH_TRANSACTIONS_MAX
            || self.bytes >= BATCH_BYTES_MAX
            || self.closing.is_some()
    }

    fn wants_sync(&self) -> bool {
        self.settling.iter().any(|(settle, _)| *settle == Settle::Synced)
    }
}

/// A batch that could not be written.
enum Failure {
    /// Nothing of it reached the journal.
    Before(Error),
    /// It may have reached the journal.
    During(Error),
}

impl Committer {
    pub(super) fn new(storage: Storage, core: Arc<Core>, first: u64) -> Self {
        Self {
            storage,
            core,
            sequencer: Sequencer::default(),
            journal: Journal::Synced,
            reserved: first + VERSIONS_RESERVED,
        }
    }

    /// Works until it is told to close, or nobody is left who could send anything.
    pub(super) fn run(mut self, receiver: &mpsc::Receiver<Message>) {
        while let Ok(first) = receiver.recv() {
            let mut batch = Batch::default();
            batch.add(first);
            while !batch.is_full() {
                let Ok(next) = receiver.try_recv() else { break };
                batch.add(next);
            }
            let closing = batch.closing.take();
            self.commit(batch);
            if let Some(answer) = closing {
                let closed = self.close();
                // Whoever asked may have gone; the directory is closed all the same.
                let _gone = answer.send(closed);
                return;
            }
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "the last sync failed");
        }
    }

    fn close(mut self) -> Result<()> {
        let synced = match self.core.usable() {
            Ok(()) => self.storage.sync_all().map_err(Error::from),
            Err(failed) => Err(failed),
        };
        self.core.close();
        synced
    }

    fn commit(&mut self, batch: Batch) {
        let written = self.core.usable().map_err(Failure::Before).and_then(|()| self.write(&batch));
        let settled = match &written {
            Ok(_) => Ok(()),
            Err(Failure::Before(error) | Failure::During(error)) => {
                if self.core.usable().is_ok() {
                    tracing::error!(%error, "the store refuses commits from here on");
                }
                self.core.fail(error.clone());
                Err(error.clone())
            }
        };
        for (_, answer) in batch.settling {
            let _gone = answer.send(settled.clone());
        }
        for answer in batch.snapshots {
            let everything = settled.clone().and_then(|()| Everything::of(&self.storage));
            let _gone = answer.send(everything);
        }
        let results = match written {
            Ok(results) => results,
            Err(Failure::Before(error)) => vec![Err(error); batch.answers.len()],
            Err(Failure::During(_)) => vec![Err(Error::CommitUnknown); batch.answers.len()],
        };
        for (answer, result) in batch.answers.into_iter().zip(results) {
            // A commit whose caller has gone is done all the same.
            let _gone = answer.send(result);
        }
    }

    /// Resolves and writes a batch, syncs it where anything in it must be durable, and makes it
    /// visible.
    fn write(&mut self, batch: &Batch) -> Result<Vec<Result<Versionstamp>>, Failure> {
        if batch.requests.is_empty() {
            self.write_changes(None, &Changes::new(), batch)?;
            self.core.renew(self.storage.snapshot());
            return Ok(Vec::new());
        }
        let (version, snapshot) = self.core.begin_batch().map_err(Failure::Before)?;
        let resolved = self
            .sequencer
            .resolve(version, batch.requests.iter(), &*snapshot)
            .map_err(Failure::Before);
        let written = resolved.and_then(|outcome| {
            self.write_changes(Some(version), &outcome.changes, batch)?;
            Ok(outcome)
        });
        let outcome = match written {
            Ok(outcome) => outcome,
            Err(failure) => {
                self.core.abandon_batch();
                return Err(failure);
            }
        };
        self.core.publish(version, self.storage.snapshot());
        self.core.watches.tell(outcome.changes.keys());
        let accepted = outcome.results.iter().filter(|result| result.is_ok()).count();
        self.core.transactions.fetch_add(accepted as u64, Ordering::Relaxed);
        Ok(outcome.results)
    }

    /// One write of the journal and at most one sync. `version` is a transaction batch's.
    fn write_changes(
        &mut self,
        version: Option<u64>,
        changes: &Changes,
        batch: &Batch,
    ) -> Result<(), Failure> {
        let due = version.filter(|version| version + VERSIONS_RESERVED / 2 > self.reserved);
        let reserve = due.map(|version| version + VERSIONS_RESERVED);
        let empty = changes.is_empty() && batch.puts.is_empty() && reserve.is_none();
        if !empty {
            self.journal = Journal::Dirty;
        }
        // A large value alone is not worth a sync: the commit that refers to it will sync it.
        let sync = self.journal == Journal::Dirty && (version.is_some() || batch.wants_sync());
        let durability = if sync { Durability::Synced } else { Durability::Buffered };
        let during = |error: fjall::Error| Failure::During(error.into());
        if empty {
            if sync {
                self.storage.sync().map_err(during)?;
            }
        } else {
            let mut write = self.storage.batch();
            for (key, put) in &batch.puts {
                match &put.value {
                    Some(value) => write.insert(&self.storage.large, key.clone(), value.clone()),
                    None => write.remove(&self.storage.large, key.clone()),
                }
            }
            for (key, value) in changes {
                match value {
                    Some(value) => write.insert(&self.storage.rows, tagged(key), value.clone()),
                    None => write.remove(&self.storage.rows, tagged(key)),
                }
            }
            if let Some(reserve) = reserve {
                self.storage.reserve(&mut write, reserve);
            }
            #[cfg(test)]
            self.fail(batch, super::tests::Moment::BeforeTheWrite)?;
            self.storage.write(write, durability).map_err(during)?;
            #[cfg(test)]
            self.fail(batch, super::tests::Moment::AfterTheWrite)?;
            self.core.written_bytes.fetch_add(batch.bytes as u64, Ordering::Relaxed);
            self.core.batches.fetch_add(1, Ordering::Relaxed);
            self.core.settle(&batch.puts);
        }
        if sync {
            self.journal = Journal::Synced;
            self.core.syncs.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reserve) = reserve {
            self.reserved = reserve;
            self.core.reserved.store(reserve, Ordering::Release);
        }
        Ok(())
    }

    /// Fails where a test wants this batch to.
    #[cfg(test)]
    fn fail(&self, batch: &Batch, moment: super::tests::Moment) -> Result<(), Failure> {
        let injected = self.core.injected.lock().expect("nothing panics while it holds this");
        match &*injected {
            Some(injected)
                if injected.moment == moment && batch.requests.len() >= injected.commits_min =>
            {
                Err(Failure::During(Error::engine_failed("injected")))
            }
            _ => Ok(()),
        }
    }
}
