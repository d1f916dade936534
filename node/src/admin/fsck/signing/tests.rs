//! Each damage of keys is found, exactly it, and what can be mended is.

use ::cluster::dkim::{Algorithm, Key};
use env::Timestamp;
use kv::{Subspace, tuple::pack};

use super::{super::bare, *};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

struct World {
    parts: Parts,
}

impl World {
    /// `example.org` with two keys.
    async fn new() -> Self {
        let world = Self { parts: bare::parts().await };
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
        bare::told(&self.parts, mode, check).await
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
async fn kept_senders_are_read_and_go_in_their_time() {
    let world = World::new().await;
    let today = u64::try_from(world.parts.env.wall().unix_seconds() / DAY_SECONDS).unwrap();
    let keep = |day: u64, id: &'static str| {
        let keep = move |tx: Transaction| async move {
            tokens::keep(&tx, (day, id), "x@y.example", "example.org", 100).await
        };
        world.parts.db.run(keep)
    };
    let oldest = today - SRS_TOKEN_DAYS - LATE_DAYS;
    for (day, id) in [(today + 1, "a"), (today, "b"), (oldest, "c")] {
        keep(day, id).await.unwrap();
    }
    world.check(&[]).await;
    for (day, id) in [(oldest - 1, "d"), (oldest - 1, "e"), (today, "f")] {
        keep(day, id).await.unwrap();
    }
    let damaged = &pack(&(Subspace::SrsToken as u64, "t", today, "f"));
    let damage = |tx: Transaction| async move {
        assert!(tx.get(damaged).await?.is_some());
        tx.set(damaged, &[0xff; 9]);
        Ok::<_, StoreError>(())
    };
    world.parts.db.run(damage).await.unwrap();
    let old = format!("of day {}", oldest - 1);
    let unreadable = format!("as f of day {today}");
    world
        .check(&[("old_srs_senders", old.as_str()), ("unreadable_srs_sender", unreadable.as_str())])
        .await;
    let (summary, _) = world.run(Mode::Repair).await;
    assert_eq!((summary.mended, summary.remaining), (2, 0));
    world.check(&[]).await;
    let rest = |tx: Transaction| async move { tokens::some(&tx, None).await };
    let rest = world.parts.db.run(rest).await.unwrap();
    let ids: Vec<_> = rest.iter().map(|(_, id, _)| id.as_str()).collect();
    assert_eq!(ids, ["c", "b", "a"]);
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
