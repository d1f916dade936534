//! Each damage of keys is found, exactly it, and what can be mended is.

use ::cluster::dkim::{Algorithm, Key};
use blob::BlobStore;
use env::{Env, Timestamp};
use kv::{Database, LargeValues, Subspace, tuple::pack};
use mail::fsck::{Owners, Speed};
use tokio::sync::mpsc;

use super::*;
use crate::deliver::outbound;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

struct World {
    parts: Parts,
}

impl World {
    /// `example.org` with two keys.
    async fn new() -> Self {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let blobs = BlobStore::embedded(LargeValues::memory(env.clone()), env.clone());
        let owners = Owners {
            submission_key: outbound::submission_key,
            submission_blob: outbound::submission_blob,
        };
        let blobs = blobs.await.unwrap();
        let world = Self { parts: Parts { db, blobs, env, owners } };
        world.domain("example.org").await;
        world.keys("example.org").await;
        world
    }

    async fn domain(&self, domain: &str) {
        let add = |tx| async move { directory::add_domain(&tx, domain, NOW).await };
        self.parts.db.run(add).await.unwrap();
    }

    async fn keys(&self, domain: &str) {
        let keys = &[1, 2].map(|number| {
            let secret = zeroize::Zeroizing::new(vec![1]);
            let text = "v=DKIM1; p=AbC=".to_owned();
            Key::new(number, format!("s{number}"), Algorithm::Ed25519, secret, text, NOW)
        });
        let write = |tx: Transaction| async move {
            dkim::write(&tx, domain, &[], keys).await?;
            dkim::tend(&tx, domain, NOW).await
        };
        self.parts.db.run(write).await.unwrap();
    }

    async fn held(&self, domain: &str) -> Result<usize, StoreError> {
        let read = |tx| async move { dkim::keys(&tx, domain).await };
        self.parts.db.run(read).await.map(|keys| keys.len())
    }

    async fn run(&self, mode: Mode) -> (Summary, Vec<Finding>) {
        let options = Options { mode, speed: Speed::new(100).unwrap(), ..Options::default() };
        let (lines, mut told) = mpsc::channel(100);
        let teller = Teller { lines: &lines, env: &self.parts.env };
        let mut summary = Summary::default();
        check(&self.parts, options, &teller, &mut summary).await.unwrap();
        drop(lines);
        let mut findings = Vec::new();
        while let Some(line) = told.recv().await {
            if let Line::Finding(finding) = line {
                findings.push(finding);
            }
        }
        (summary, findings)
    }

    /// The damages, each as its code and what its detail names.
    async fn check(&self, expected: &[(&str, &str)]) {
        let (summary, findings) = self.run(Mode::Check).await;
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, (code, domain)) in findings.iter().zip(expected) {
            assert_eq!(finding.code, *code);
            assert!(finding.detail.contains(domain), "{finding:?}");
        }
        let count = expected.len() as u64;
        assert_eq!((summary.findings, summary.mended, summary.remaining), (count, 0, count));
    }
}

#[tokio::test]
async fn keys_of_our_domains_are_in_order() {
    World::new().await.check(&[]).await;
}

#[tokio::test]
async fn keys_of_domains_that_are_gone_go() {
    let world = World::new().await;
    // More than one transaction looks at.
    let gone: Vec<String> =
        (0..2 * DOMAINS_PER_STEP + 5).map(|n| format!("d{n:03}.example")).collect();
    for domain in &gone {
        world.keys(domain).await;
    }
    let expected: Vec<_> =
        gone.iter().map(|domain| ("orphaned_dkim_keys", domain.as_str())).collect();
    world.check(&expected).await;
    assert_eq!(world.held(&gone[0]).await.unwrap(), 2, "a check changes nothing");
    let (summary, _) = world.run(Mode::Repair).await;
    assert_eq!((summary.mended, summary.remaining), (gone.len() as u64, 0));
    world.check(&[]).await;
    assert_eq!(world.held(&gone[0]).await.unwrap(), 0);
    assert_eq!(world.held("example.org").await.unwrap(), 2);
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_a_persons() {
    let world = World::new().await;
    world.domain("example.net").await;
    world.keys("example.net").await;
    let key = &pack(&(Subspace::DkimKey as u64, "k", "example.net", 2_u64));
    let damage = |tx: Transaction| async move {
        assert!(tx.get(key).await?.is_some());
        tx.set(key, &[0xff; 9]);
        Ok::<_, StoreError>(())
    };
    world.parts.db.run(damage).await.unwrap();
    assert!(world.held("example.net").await.is_err());
    let expected = [("unreadable_dkim_keys", "example.net")];
    world.check(&expected).await;
    let (summary, _) = world.run(Mode::Repair).await;
    assert_eq!((summary.mended, summary.remaining), (0, 1));
    world.check(&expected).await;
}
