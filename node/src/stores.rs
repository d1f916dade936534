//! Where a node keeps things, opened as the configuration says.

use std::{path::Path, time::Duration};

use blob::BlobStore;
use env::Env;
use kv::{
    Database,
    embedded::{Embedded, EmbeddedOptions},
};

use crate::{
    admin::backup::Backup,
    config::{self, Addressing, BlobEngine, Engine},
    node::StartError,
};

/// Where a node keeps things: given to it, so that a simulation can give others.
#[derive(Clone)]
pub struct Stores {
    /// Everything but bytes of messages.
    pub db: Database,
    /// Bytes of messages.
    pub blobs: BlobStore,
    /// What makes backups; only the embedded engine needs it.
    pub backup: Option<Backup>,
}

impl Stores {
    /// Stores that are backed up elsewhere, or not at all.
    pub fn new(db: Database, blobs: BlobStore) -> Self {
        Self { db, blobs, backup: None }
    }
}

/// Stores that this process has opened, and has to close.
pub struct OpenStores {
    stores: Stores,
    embedded: Option<Embedded>,
}

impl OpenStores {
    /// Opens what the configuration names, below the data folder `data` where it is this
    /// machine's own. A store of a newer release is refused, and a bucket of another store.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn open(
        data: &Path,
        store: &config::Store,
        blobs: &config::Blobs,
        env: &Env,
    ) -> Result<Self, StartError> {
        let (db, embedded) = match store.engine {
            Engine::Embedded => {
                let folder = data.join(config::STORE_FOLDER);
                std::fs::create_dir_all(&folder)
                    .map_err(|source| StartError::Data { path: folder.clone(), source })?;
                let embedded = Embedded::open(&folder, env.clone(), EmbeddedOptions::default())?;
                (embedded.database(), Some(embedded))
            }
            Engine::Fdb => (open_fdb(store, env)?, None),
        };
        let begun = env.monotonic();
        mail::schema::open(&db).await.map_err(|error| {
            let waited = env.monotonic().saturating_since(begun);
            unanswered(store, waited, error)
        })?;
        let engine = blobs.engine;
        let blobs = match (engine, &embedded) {
            (BlobEngine::Embedded, Some(embedded)) => {
                let files = data.join(config::BLOB_FOLDER);
                let values = embedded.large_values();
                BlobStore::embedded_with_files(values, &files, env.clone()).await?
            }
            (BlobEngine::Embedded, None) => return Err(StartError::BlobsElsewhere),
            (BlobEngine::S3, _) => open_s3(data, blobs, env).await?,
        };
        blob::binding::bind(&db, &blobs, env).await?;
        // A backup without the bucket's bytes would be none.
        let whole = embedded.as_ref().filter(|_| engine == BlobEngine::Embedded);
        let backup = whole.map(|it| Backup::new(it.backups(), blobs.clone()));
        Ok(Self { stores: Stores { db, blobs, backup }, embedded })
    }

    /// Handles to them.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Closes them. Whatever was acknowledged is safe already.
    ///
    /// # Errors
    /// [`kv::Error`] where the last sync failed.
    pub async fn close(self) -> Result<(), kv::Error> {
        drop(self.stores);
        match self.embedded {
            Some(embedded) => embedded.close().await,
            None => Ok(()),
        }
    }
}

/// What to say where the first look at a store fails.
fn unanswered(
    store: &config::Store,
    waited: Duration,
    error: mail::schema::SchemaError,
) -> StartError {
    #[cfg(feature = "fdb")]
    if store.engine == Engine::Fdb
        && kv::AsKvError::as_kv_error(&error).is_some_and(kv::Error::is_store_away)
        && let Ok(coordinators) = kv::fdb::coordinators(&store.cluster_file)
    {
        let cluster_file = store.cluster_file.clone();
        return StartError::Unanswered { cluster_file, coordinators, waited };
    }
    #[cfg(not(feature = "fdb"))]
    let _a_cluster_alone = (store, waited);
    error.into()
}

#[cfg(feature = "fdb")]
fn open_fdb(store: &config::Store, env: &Env) -> Result<Database, StartError> {
    let trace = Some(store.trace_folder.as_path()).filter(|folder| !folder.as_os_str().is_empty());
    Ok(kv::fdb::open_traced(Some(&store.cluster_file), trace, env.clone())?)
}

#[cfg(not(feature = "fdb"))]
fn open_fdb(_store: &config::Store, _env: &Env) -> Result<Database, StartError> {
    Err(StartError::NotBuilt { engine: "fdb", feature: "fdb" })
}

#[cfg(feature = "s3")]
async fn open_s3(data: &Path, blobs: &config::Blobs, env: &Env) -> Result<BlobStore, StartError> {
    use blob::s3::{AddressStyle, CacheSettings, Credentials, Retries, S3Settings, TimeLimits};

    use crate::limits;

    let credentials = match blobs.credentials_file.as_os_str().is_empty() {
        true => Credentials::from_environment()?,
        false => Credentials::from_file(&blobs.credentials_file)?,
    };
    let settings = S3Settings {
        endpoint: blobs.endpoint.clone(),
        region: blobs.region.clone(),
        bucket: blobs.bucket.clone(),
        prefix: blobs.prefix.clone(),
        style: match blobs.addressing {
            Addressing::Path => AddressStyle::Path,
            Addressing::Host => AddressStyle::VirtualHost,
        },
        ca_file: (!blobs.ca_file.as_os_str().is_empty()).then(|| blobs.ca_file.clone()),
        credentials,
        time_limits: TimeLimits::default(),
        retries: Retries::default(),
        cache: (blobs.cache_bytes > 0).then(|| CacheSettings {
            folder: data.join(config::CACHE_FOLDER),
            bytes_max: blobs.cache_bytes,
            files_max: limits::BLOB_CACHE_FILES_MAX,
        }),
        requests_max: limits::S3_REQUESTS_MAX,
    };
    Ok(BlobStore::s3(settings, env.clone()).await?)
}

#[cfg(not(feature = "s3"))]
async fn open_s3(
    _data: &Path,
    _blobs: &config::Blobs,
    _env: &Env,
) -> Result<BlobStore, StartError> {
    Err(StartError::NotBuilt { engine: "s3", feature: "s3" })
}
