//! The retry loop.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kv::{AsKvError, Error};

use crate::Store;

#[derive(Debug, PartialEq, Eq)]
enum DomainError {
    Refused,
    Store(Error),
}

impl From<Error> for DomainError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl AsKvError for DomainError {
    fn as_kv_error(&self) -> Option<&Error> {
        match self {
            Self::Refused => None,
            Self::Store(error) => Some(error),
        }
    }
}

pub(crate) async fn domain_errors_abort_at_once(store: Store) {
    let runs = AtomicU32::new(0);
    for error in [DomainError::Refused, DomainError::Store(Error::InvertedRange)] {
        let key = store.key("a");
        let failed = &error;
        let result: Result<(), DomainError> = store
            .db
            .run(|tx| {
                let (key, runs) = (&key, &runs);
                async move {
                    runs.fetch_add(1, Relaxed);
                    tx.set(key, b"never");
                    Err(match failed {
                        DomainError::Refused => DomainError::Refused,
                        DomainError::Store(error) => DomainError::Store(error.clone()),
                    })
                }
            })
            .await;
        assert_eq!(result, Err(error));
    }
    assert_eq!(runs.load(Relaxed), 2);
    assert_eq!(store.value("a").await, None);
}

pub(crate) async fn conflicts_are_retried(store: Store) {
    let runs = AtomicU32::new(0);
    let value = store
        .db
        .run(|tx| {
            let (store, runs) = (&store, &runs);
            async move {
                let run = runs.fetch_add(1, Relaxed);
                tx.get(&store.key("a")).await?;
                tx.set(&store.key("b"), &run.to_be_bytes());
                if run < 3 {
                    store.fill(&[("a", &run.to_string())]).await;
                }
                Ok::<_, Error>(run)
            }
        })
        .await;
    assert_eq!(value, Ok(3));
    assert_eq!(store.value("b").await, Some(3_u32.to_be_bytes().to_vec()));
    let counts = store.db.counts();
    assert_eq!((counts.conflicts, counts.retries), (3, 3));
}

pub(crate) async fn a_closure_error_of_the_store_is_retried(store: Store) {
    let runs = AtomicU32::new(0);
    let run = |error: Error| {
        let (db, runs, key) = (&store.db, &runs, store.key("a"));
        runs.store(0, Relaxed);
        async move {
            db.run(|tx| {
                let (error, key) = (error.clone(), key.clone());
                async move {
                    tx.atomic(&key, &[1], kv::AtomicOp::Add);
                    if runs.fetch_add(1, Relaxed) < 2 { Err(error) } else { Ok(()) }
                }
            })
            .await
        }
    };
    for error in [Error::TooOld, Error::CommitUnknown, Error::Unavailable] {
        assert_eq!(run(error).await, Ok(()));
        assert_eq!(runs.load(Relaxed), 3);
    }
    assert_eq!(store.value("a").await, Some(vec![3]), "failed runs leave nothing");
    assert_eq!(run(Error::TimedOut).await, Err(Error::TimedOut));
    assert_eq!(runs.load(Relaxed), 1);
}

pub(crate) async fn a_run_tells_its_place(store: Store) {
    let key = &store.key("a");
    let written = store
        .db
        .run_versioned(|tx| async move {
            tx.set(key, b"1");
            Ok::<_, Error>("value")
        })
        .await
        .unwrap();
    let stamp = written.versionstamp.expect("it wrote");
    assert_eq!(written.value, "value");
    assert!(stamp.version() > written.read_version);
    let read = store.db.run_versioned(|tx| async move { tx.get(key).await }).await.unwrap();
    assert_eq!(read.versionstamp, None);
    assert!(read.read_version >= stamp.version());
    assert_eq!(read.value.as_deref(), Some(b"1".as_slice()));
}
