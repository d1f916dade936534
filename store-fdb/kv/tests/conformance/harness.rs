//! Stores to test, and what the tests share.

use std::any::Any;

use env::Env;
use kv::{
    Database, KeyValue, RangeQuery, Transaction,
    embedded::{Embedded, EmbeddedOptions},
};

/// A database, and a prefix that no other test uses.
pub(crate) struct Store {
    pub(crate) db: Database,
    prefix: Vec<u8>,
    /// What must outlive the database.
    _keep: Box<dyn Any + Send + Sync>,
}

impl Store {
    fn new(db: Database, keep: impl Any + Send + Sync) -> Self {
        let prefix = [b"t".as_slice(), &Env::system().random_array::<8>()].concat();
        Self { db, prefix, _keep: Box::new(keep) }
    }

    pub(crate) fn memory() -> Self {
        Self::new(Database::memory(Env::system()), ())
    }

    pub(crate) fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions::default();
        let embedded = Embedded::open(directory.path(), Env::system(), options).unwrap();
        Self::new(embedded.database(), (embedded, directory))
    }

    #[cfg(feature = "fdb")]
    pub(crate) fn fdb() -> Option<Self> {
        let cluster = crate::server::shared()?;
        Some(Self::new(kv::fdb::open(Some(cluster), Env::system()).unwrap(), ()))
    }

    /// This test's key of that name.
    pub(crate) fn key(&self, name: impl AsRef<[u8]>) -> Vec<u8> {
        [&self.prefix, name.as_ref()].concat()
    }

    /// Every key of this test.
    pub(crate) fn all(&self) -> RangeQuery {
        RangeQuery::prefix(&self.prefix)
    }

    /// This test's keys from `begin` up to `end`.
    pub(crate) fn range(&self, begin: &str, end: &str) -> RangeQuery {
        RangeQuery::new(self.key(begin), self.key(end))
    }

    /// A key's name without the prefix.
    pub(crate) fn name(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(&key[self.prefix.len()..]).into_owned()
    }

    /// Rows as names and values.
    pub(crate) fn named(&self, rows: &[KeyValue]) -> Vec<(String, String)> {
        rows.iter()
            .map(|row| (self.name(&row.key), String::from_utf8_lossy(&row.value).into_owned()))
            .collect()
    }

    /// Sets keys in one committed transaction.
    pub(crate) async fn fill(&self, rows: &[(&str, &str)]) {
        self.write(|tx| {
            for (name, value) in rows {
                tx.set(&self.key(name), value.as_bytes());
            }
        })
        .await;
    }

    /// Commits what `write` does.
    pub(crate) async fn write(&self, write: impl Fn(&Transaction)) {
        let tx = self.db.begin();
        write(&tx);
        tx.commit().await.unwrap();
    }

    /// The committed value of a key.
    pub(crate) async fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.db.begin().get(&self.key(name)).await.unwrap().map(|value| value.to_vec())
    }

    /// Every committed row.
    pub(crate) async fn rows(&self) -> Vec<(String, String)> {
        self.named(&self.db.begin().range(self.all()).collect().await.unwrap())
    }
}
