//! Which store a bucket belongs to.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Meta, "store id") | a record of its id and whether it is `bound` | made by the first node that opens a bucket for the store; later only `bound` changes, once |
//!
//! In the bucket there is one object `<prefix>rookery-store-<the store's id>`, the *mark*. Its name
//! is no blob's, so listings pass it over. A node that opens a bucket without a mark puts one
//! ([`bind`]); a node that finds another store's starts not. Nothing is removed as an orphan
//! before the mark has been looked at again ([`verify`]).
//!
//! Architecture invariants:
//! - All nodes of a store have one id, because one transaction made it; they put the same mark.
//! - Two stores never both bind one bucket, though S3 has no conditional PUT everywhere: each puts
//!   a mark of its own name first and lists the marks afterwards, so the later of the two sees
//!   both. What it takes is a listing that shows what was put before it began.
//! - A bucket without a mark that holds blobs is bound only where the store refers to them.
//!
//! Deliberately absent: taking back a mark. Which of two stores a bucket is to belong to is for a
//! person to say; every refusal tells which object to put or to remove.

use std::fmt;

use env::Env;
use kv::{AsKvError, Database, Subspace, Transaction, tuple::pack};
use prost::Message;

use crate::{
    BlobError, BlobName, BlobStore, ObjectId,
    limits::{BINDING_SAMPLE, SWEEP_LIST},
    references,
};

/// What the name of a mark begins with, behind the prefix. No hexadecimal digit, so no blob's.
pub(crate) const MARK: &str = "rookery-store-";

/// A store's own id: random, made once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// Where a bucket's blobs are, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The bucket's name.
    pub bucket: String,
    /// What its objects' names begin with.
    pub prefix: String,
}

impl Place {
    /// The name of a store's mark, prefix included.
    pub fn mark(&self, id: StoreId) -> String {
        format!("{}{MARK}{id}", self.prefix)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket {:?}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, " with prefix {:?}", self.prefix) }
    }
}

/// Why a bucket is not taken for this store's. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It is another store's.
    #[error(
        "{place} belongs to store {theirs}, and this is store {ours}: give this store a bucket or \
         a prefix of its own, or name the store that the bucket belongs to"
    )]
    Foreign {
        /// Which.
        place: Place,
        /// This store.
        ours: StoreId,
        /// Whose it is.
        theirs: StoreId,
    },
    /// Two stores have marked it.
    #[error(
        "{place} is claimed by store {theirs} as well as by this store, {ours}: decide whose it \
         is, and remove the object {:?} of the one that it is not", place.mark(*theirs)
    )]
    Shared {
        /// Which.
        place: Place,
        /// This store.
        ours: StoreId,
        /// The other.
        theirs: StoreId,
    },
    /// The store has had a marked bucket, and this one has no mark.
    #[error(
        "{place} has no mark, and this store, {ours}, was bound to one that has: name that one; \
         where this is it, and only its mark was lost, put an empty object {:?} into it",
        place.mark(*ours)
    )]
    Unmarked {
        /// Which.
        place: Place,
        /// This store.
        ours: StoreId,
    },
    /// It holds blobs, and the store refers to none.
    #[error(
        "{place} holds messages and no mark, and this store, {ours}, knows none of them: give it a \
         bucket or a prefix of its own; where they are to be its own and removed as unneeded, put \
         an empty object {:?} into it", place.mark(*ours)
    )]
    UnknownObjects {
        /// Which.
        place: Place,
        /// This store.
        ours: StoreId,
    },
    /// What the store refers to is not there.
    #[error(
        "{place} has no mark, and of {of} messages of this store, {ours}, that were looked for it \
         holds {found}: name the bucket that holds them; where this is it all the same, put an \
         empty object {:?} into it", place.mark(*ours)
    )]
    NotItsObjects {
        /// Which.
        place: Place,
        /// This store.
        ours: StoreId,
        /// Blobs that are there.
        found: usize,
        /// Blobs that were looked for.
        of: usize,
    },
    /// The store has no id, so nothing was ever bound.
    #[error("{place} is not bound to this store: start a node on it first")]
    Unbound {
        /// Which.
        place: Place,
    },
    /// The store's record of its id cannot be read.
    #[error("the store's own id cannot be read")]
    Unreadable,
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] kv::Error),
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl AsKvError for BindError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Kv(error) => Some(error),
            _ => None,
        }
    }
}

/// What a store says of itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StoreRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// Whether its bucket has had its mark.
    #[prost(bool, tag = "2")]
    bound: bool,
}

/// Makes sure that the blobs' bucket is this store's, and marks it where it is nobody's yet. To be
/// called before anything is put. Blobs beside the embedded engine's keys need nothing.
///
/// Where the service does not answer and the store was bound before, it is taken to be right: a
/// node starts without it, and [`verify`] comes before any harm.
///
/// # Errors
/// [`BindError`].
pub async fn bind(db: &Database, blobs: &BlobStore, env: &Env) -> Result<(), BindError> {
    let Some(place) = blobs.place() else { return Ok(()) };
    let drawn = StoreId(env.random_array());
    let (ours, bound) = db.run(|tx| async move { read_or_make(&tx, drawn).await }).await?;
    let binding = Binding { db, blobs, place, ours };
    match binding.mark().await {
        Err(BindError::Blob(error @ BlobError::Unavailable { .. })) if bound == Bound::Yes => {
            tracing::warn!(%error, place = %binding.place, "the bucket's mark was not looked at");
            Ok(())
        }
        Err(error) => Err(error),
        Ok(Marked::Ours) if bound == Bound::Yes => Ok(()),
        Ok(Marked::Ours) => binding.note_bound().await,
        Ok(Marked::Nobodys) => Box::pin(binding.take(bound)).await,
    }
}

/// Looks whether the blobs' bucket is this store's alone, as it was when a node bound it. To be
/// called before what nobody seems to need is removed.
///
/// # Errors
/// [`BindError`].
pub async fn verify(db: &Database, blobs: &BlobStore) -> Result<(), BindError> {
    let Some(place) = blobs.place() else { return Ok(()) };
    let Some((ours, _)) = db.run(|tx| async move { read(&tx).await }).await? else {
        return Err(BindError::Unbound { place });
    };
    let binding = Binding { db, blobs, place, ours };
    match binding.mark().await? {
        Marked::Ours => Ok(()),
        Marked::Nobodys => Err(BindError::Unmarked { place: binding.place, ours }),
    }
}

/// Whether the store's bucket has ever had its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Yes,
    NotYet,
}

/// Whose mark a bucket has, where it is not another's.
enum Marked {
    Ours,
    Nobodys,
}

struct Binding<'a> {
    db: &'a Database,
    blobs: &'a BlobStore,
    place: Place,
    ours: StoreId,
}

impl Binding<'_> {
    async fn mark(&self) -> Result<Marked, BindError> {
        let marks = self.blobs.marks().await?;
        let (place, ours) = (self.place.clone(), self.ours);
        match (marks.contains(&ours), marks.into_iter().find(|id| *id != ours)) {
            (true, None) => Ok(Marked::Ours),
            (false, None) => Ok(Marked::Nobodys),
            (true, Some(theirs)) => Err(BindError::Shared { place, ours, theirs }),
            (false, Some(theirs)) => Err(BindError::Foreign { place, ours, theirs }),
        }
    }

    /// Binds a bucket without a mark, where nothing speaks against it.
    async fn take(&self, bound: Bound) -> Result<(), BindError> {
        let needed = self.sample().await?;
        let (place, ours) = (self.place.clone(), self.ours);
        let refusal = if needed.is_empty() {
            if !self.holds_blobs().await? {
                return self.put_mark().await;
            }
            BindError::UnknownObjects { place, ours }
        } else if bound == Bound::Yes {
            BindError::Unmarked { place, ours }
        } else {
            let mut found = 0;
            for name in &needed {
                found += usize::from(self.blobs.exists(name).await?);
            }
            // A wrong bucket holds none of them, and a sound one may have lost some.
            if found * 2 > needed.len() {
                return self.put_mark().await;
            }
            BindError::NotItsObjects { place, ours, found, of: needed.len() }
        };
        // Another node of this store may have bound it since, and put the first blobs.
        match self.mark().await? {
            Marked::Ours => self.note_bound().await,
            Marked::Nobodys => Err(refusal),
        }
    }

    async fn put_mark(&self) -> Result<(), BindError> {
        self.blobs.put_mark(self.ours).await?;
        match self.mark().await? {
            Marked::Ours => {
                tracing::info!(place = %self.place, store = %self.ours, "bound the bucket");
                self.note_bound().await
            }
            Marked::Nobodys => Err(BindError::Blob(BlobError::Unavailable {
                operation: "mark the bucket",
                reason: "what was put is not listed".to_owned(),
            })),
        }
    }

    async fn note_bound(&self) -> Result<(), BindError> {
        let ours = self.ours;
        self.db
            .run(|tx| async move {
                write(&tx, ours, Bound::Yes);
                Ok::<_, BindError>(())
            })
            .await
    }

    /// Some of what the store refers to, from all over the ids' range.
    async fn sample(&self) -> Result<Vec<BlobName>, BindError> {
        let last = BlobName::Object(ObjectId::from_bytes([0xff; 16]));
        let mut sample = Vec::new();
        for part in 0..BINDING_SAMPLE {
            let mut first = [0; 16];
            first[0] = part * (u8::MAX / BINDING_SAMPLE + 1);
            let first = BlobName::Object(ObjectId::from_bytes(first));
            let (first, last) = (&first, &last);
            let (names, _) = self
                .db
                .run(|tx| async move { references::referenced(&tx, first, None, last, 1).await })
                .await?;
            sample.extend(names);
        }
        // Where there are few, several parts lead to one.
        sample.dedup();
        Ok(sample)
    }

    async fn holds_blobs(&self) -> Result<bool, BlobError> {
        let mut after = None;
        loop {
            let page = self.blobs.list(after.as_ref(), SWEEP_LIST).await?;
            if !page.names.is_empty() {
                return Ok(true);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(false),
            }
        }
    }
}

fn key() -> Vec<u8> {
    pack(&(Subspace::Meta as u64, "store id"))
}

async fn read(tx: &Transaction) -> Result<Option<(StoreId, Bound)>, BindError> {
    let Some(value) = tx.get(&key()).await? else { return Ok(None) };
    let record = StoreRecord::decode(value).map_err(|_| BindError::Unreadable)?;
    let id = record.id[..].try_into().map_err(|_| BindError::Unreadable)?;
    Ok(Some((StoreId(id), if record.bound { Bound::Yes } else { Bound::NotYet })))
}

/// The first to come makes it; for all others it stands.
async fn read_or_make(tx: &Transaction, drawn: StoreId) -> Result<(StoreId, Bound), BindError> {
    if let Some(found) = read(tx).await? {
        return Ok(found);
    }
    write(tx, drawn, Bound::NotYet);
    Ok((drawn, Bound::NotYet))
}

fn write(tx: &Transaction, id: StoreId, bound: Bound) {
    let record = StoreRecord { id: id.0.to_vec(), bound: bound == Bound::Yes };
    tx.set(&key(), &record.encode_to_vec());
}

#[cfg(test)]
#[cfg(feature = "s3")]
mod tests;
