//! Which releases may open a store.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Meta, "schema") | [`SchemaRecord`] | with the store; raised by a newer release, never lowered |
//!
//! Every store carries the number of the newest schema that wrote to it, and the number of the
//! oldest that may still open it. A newer release opens an older store and reads each record in the
//! form that it finds; what it writes, it writes in its own form. An older release that would
//! damage what a newer one has written is refused.
//!
//! Rules for whoever changes a record:
//! - A new protobuf field that an older release may ignore, and keep where it rewrites the record,
//!   raises nothing.
//! - A form that an older release misreads is read by one release before the next one writes it:
//!   [`READABLE_BY`] stays below [`VERSION`] from schema 2 on, so that nodes of two neighbouring
//!   releases run side by side on one store.
//!
//! | schema | what changed |
//! |---|---|
//! | 0 | the first stores, without this record; blobs are named by their hash alone |
//! | 1 | blobs are named by object and hash ([`blob::BlobId`]); ids of schema 0 are read as they are |

use kv::{Database, Subspace, Transaction, tuple::pack};

use crate::{StoreError, keys};

/// The schema that this release writes.
pub const VERSION: u32 = 1;

/// The oldest schema whose releases may open a store that this release wrote to.
pub const READABLE_BY: u32 = 1;

const _: () =
    assert!(VERSION == 1 || READABLE_BY < VERSION, "neighbouring releases run side by side");

/// What a store says of itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SchemaRecord {
    /// The newest schema that wrote here.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The oldest schema that may open it.
    #[prost(uint32, tag = "2")]
    pub readable_by: u32,
    /// The release that raised the numbers last, for people.
    #[prost(string, tag = "3")]
    pub release: String,
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A newer release has written what this one would damage.
    #[error(
        "the store was written by Rookery {release} (schema {found}) and needs a release of schema \
         {needed} or newer; this one is of schema {VERSION}. Nothing was changed: start it with \
         Rookery {release} or newer"
    )]
    TooNew {
        /// The release that wrote it.
        release: String,
        /// Its schema.
        found: u32,
        /// The oldest that may open it.
        needed: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
crate::error::store_error!(SchemaError);

/// Checks that this release may open the store, and notes that it did. To be called before
/// anything else is read or written.
///
/// # Errors
/// [`SchemaError`].
pub async fn open(db: &Database) -> Result<SchemaRecord, SchemaError> {
    db.run(|tx| async move { open_as(&tx, VERSION, READABLE_BY).await }).await
}

async fn open_as(
    tx: &Transaction,
    version: u32,
    readable_by: u32,
) -> Result<SchemaRecord, SchemaError> {
    let key = pack(&(Subspace::Meta as u64, "schema"));
    // A missing one is that of schema 0, whose fields all have their defaults.
    let stored = tx.get(&key).await?.unwrap_or_default();
    let found = keys::decode::<SchemaRecord>("schema", &stored)?;
    if found.readable_by > version {
        return Err(SchemaError::TooNew {
            release: found.release,
            found: found.version,
            needed: found.readable_by,
        });
    }
    if found.version >= version && found.readable_by >= readable_by {
        return Ok(found);
    }
    let release = match version > found.version {
        true => env!("CARGO_PKG_VERSION").to_owned(),
        false => found.release,
    };
    let raised = SchemaRecord {
        version: found.version.max(version),
        readable_by: found.readable_by.max(readable_by),
        release,
    };
    tx.set(&key, &keys::encode_over(&raised, &stored));
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use env::Env;

    use super::*;

    async fn open_with(
        db: &Database,
        version: u32,
        readable_by: u32,
    ) -> Result<(u32, u32), SchemaError> {
        let record = db.run(|tx| async move { open_as(&tx, version, readable_by).await }).await?;
        Ok((record.version, record.readable_by))
    }

    #[tokio::test]
    async fn what_a_newer_release_wrote_survives_a_raise() {
        let db = Database::memory(Env::system());
        assert_eq!(open_with(&db, 1, 1).await.unwrap(), (1, 1));
        let key = &pack(&(Subspace::Meta as u64, "schema"));
        // Field 1000, a number.
        let newer = &[0xc0, 0x3e, 0x07][..];
        let mark = |tx: Transaction| async move {
            let stored = tx.get(key).await?.unwrap();
            tx.set(key, &[&stored, newer].concat());
            Ok::<_, kv::Error>(())
        };
        db.run(mark).await.unwrap();
        assert_eq!(open_with(&db, 2, 1).await.unwrap(), (2, 1));
        let stored = db.run(|tx| async move { tx.get(key).await }).await.unwrap().unwrap();
        assert!(stored.ends_with(newer), "{stored:?}");
    }

    #[tokio::test]
    async fn a_store_is_raised_and_never_lowered() {
        let db = Database::memory(Env::system());
        assert_eq!(open_with(&db, 1, 1).await.unwrap(), (1, 1));
        // A release that reads the new form, and one that writes it.
        assert_eq!(open_with(&db, 2, 1).await.unwrap(), (2, 1));
        assert_eq!(open_with(&db, 1, 1).await.unwrap(), (2, 1));
        assert_eq!(open_with(&db, 3, 2).await.unwrap(), (3, 2));
        assert_eq!(open_with(&db, 2, 1).await.unwrap(), (3, 2));
        let refused = open_with(&db, 1, 1).await;
        assert!(
            matches!(refused, Err(SchemaError::TooNew { found: 3, needed: 2, .. })),
            "{refused:?}"
        );
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("(schema 3) and needs a release of schema 2"), "{told}");
        assert_eq!(open_with(&db, 3, 2).await.unwrap(), (3, 2), "a refusal changes nothing");
    }

    #[tokio::test]
    async fn opening_again_writes_nothing() {
        let db = Database::memory(Env::system());
        open(&db).await.unwrap();
        let before = db.counts().transactions_committed;
        open(&db).await.unwrap();
        assert_eq!(db.counts().transactions_committed, before);
    }
}
