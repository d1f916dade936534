//! Each damage of the nodes' records is found, exactly it, and mended.

use ::cluster::{
    membership::registry::{Beat, NodeRecord},
    work::{self, enqueue},
};
use env::Timestamp;
use kv::{Subspace, tuple::pack};
use mail::StoreError;
use prost::Message;

use super::{super::bare, *};

const NOBODY: Epoch = Epoch(99);

struct World {
    parts: Parts,
    node: Epoch,
}

impl World {
    /// A node that listens to account 1, with a zone that waits and one that it has claimed.
    async fn new() -> Self {
        let parts = bare::parts().await;
        let record = &NodeRecord { name: "a".to_owned(), ..NodeRecord::default() };
        let register = |tx: Transaction| async move {
            let node = registry::register(&tx, record, Beat::default()).await?;
            interest::listen(&tx, AccountId(1), node.into());
            Ok::<_, StoreError>(node)
        };
        let node = parts.db.run(register).await.unwrap();
        let world = Self { parts, node };
        for zone in ["waiting", "claimed"] {
            world
                .write(|tx| async move {
                    enqueue(&tx, Kind::LogTrim, zone, Timestamp::from_unix_ms(5), b"x", b"item")
                        .await
                })
                .await;
        }
        world.claim("claimed", node).await;
        world
            .write(|tx| async move {
                tx.set(&claim_key(node, "claimed"), &[]);
                Ok(())
            })
            .await;
        world
    }

    async fn write<Fut>(&self, body: impl FnMut(Transaction) -> Fut + Send)
    where
        Fut: Future<Output = Result<(), StoreError>> + Send,
    {
        self.parts.db.run(body).await.unwrap();
    }

    /// Writes a claim into a zone's record, and takes its pointer away.
    async fn claim(&self, zone: &str, by: Epoch) {
        self.write(|tx| async move {
            let record = [5_i64.to_le_bytes(), by.0.to_le_bytes()].concat();
            tx.set(&work::zone_key(Kind::LogTrim as u64, zone), &record);
            tx.clear(&work::pointer_key(Kind::LogTrim as u64, 5, zone));
            Ok(())
        })
        .await;
    }

    async fn set(&self, key: &[u8], value: &[u8]) {
        self.write(|tx| async move {
            tx.set(key, value);
            Ok(())
        })
        .await;
    }

    async fn clear(&self, key: &[u8]) {
        self.write(|tx| async move {
            tx.clear(key);
            Ok(())
        })
        .await;
    }

    async fn run(&self, mode: Mode) -> (Summary, Vec<String>) {
        let (summary, findings) = bare::told(&self.parts, mode, check).await;
        (summary, findings.into_iter().map(|finding| finding.code).collect())
    }

    /// Finds these, mends all but `remaining`, and finds nothing more.
    async fn check(&self, expected: &[&str], remaining: u64) {
        let (summary, codes) = self.run(Mode::Check).await;
        assert_eq!(codes, expected);
        assert_eq!(summary.remaining, expected.len() as u64);
        let (summary, _) = self.run(Mode::Repair).await;
        assert_eq!(summary.mended, expected.len() as u64 - remaining);
        assert_eq!(summary.remaining, remaining);
        let (summary, _) = self.run(Mode::Check).await;
        assert_eq!(summary.findings, remaining);
    }
}

fn claim_key(epoch: Epoch, zone: &str) -> Vec<u8> {
    pack(&(Subspace::Node as u64, "c", epoch.0, Kind::LogTrim as u64, zone))
}

fn interest_key(account: u64, listener: Epoch) -> Vec<u8> {
    pack(&(Subspace::Interest as u64, account, listener.0))
}

fn listed_key(listener: Epoch, account: u64) -> Vec<u8> {
    pack(&(Subspace::Interest as u64, "l", listener.0, account))
}

#[tokio::test]
async fn what_nodes_leave_in_order_is_in_order() {
    World::new().await.check(&[], 0).await;
}

#[tokio::test]
async fn listeners_that_are_nobody_go() {
    let world = World::new().await;
    world
        .write(|tx| async move {
            interest::listen(&tx, AccountId(1), NOBODY.into());
            interest::listen(&tx, AccountId(2), NOBODY.into());
            Ok(())
        })
        .await;
    world.set(&interest::bell_key(ListenerId(200)), &[1; 8]).await;
    world.check(&["orphaned_listener", "orphaned_listener"], 0).await;
    let kept = world.parts.db.run(|tx| async move { tx.get(&interest_key(1, Epoch(1))).await });
    assert!(kept.await.unwrap().is_some(), "the node's own interest stays");
}

#[tokio::test]
async fn halves_of_interests_are_made_whole_or_go() {
    let world = World::new().await;
    world.set(&interest_key(2, world.node), &[]).await;
    world.set(&listed_key(world.node, 3), &[]).await;
    world.set(&interest_key(4, NOBODY), &[]).await;
    world.check(&["half_interest"; 3], 0).await;
    let read = |tx: Transaction| async move {
        let whole = tx.get(&listed_key(Epoch(1), 2)).await?.is_some();
        let other = tx.get(&interest_key(3, Epoch(1))).await?.is_some();
        Ok::<_, StoreError>((whole, other, tx.get(&interest_key(4, NOBODY)).await?.is_some()))
    };
    assert_eq!(world.parts.db.run(read).await.unwrap(), (true, true, false));
}

#[tokio::test]
async fn claims_without_their_zones_go() {
    let world = World::new().await;
    world.set(&claim_key(world.node, "waiting"), &[]).await;
    world.set(&claim_key(NOBODY, "nowhere"), &[]).await;
    world.check(&["stray_claim", "stray_claim"], 0).await;
}

#[tokio::test]
async fn zones_claimed_by_nobody_are_given_back() {
    let world = World::new().await;
    world.claim("waiting", NOBODY).await;
    world.check(&["unknown_claim"], 0).await;
    let state = world
        .parts
        .db
        .run(|tx| async move { work::zone::state(&tx, Kind::LogTrim, "waiting").await });
    assert!(matches!(state.await.unwrap(), Some(work::zone::ZoneState::Waiting { .. })));
}

#[tokio::test]
async fn a_claim_that_is_not_listed_is_listed() {
    let world = World::new().await;
    world.clear(&claim_key(world.node, "claimed")).await;
    world.check(&["unlisted_claim"], 0).await;
}

#[tokio::test]
async fn zones_and_pointers_fit() {
    let world = World::new().await;
    let kind = Kind::LogTrim as u64;
    world.clear(&work::pointer_key(kind, 5, "waiting")).await;
    world.check(&["no_pointer"], 0).await;
    // Items without any record of their zone.
    let world = World::new().await;
    world.clear(&work::pointer_key(kind, 5, "waiting")).await;
    world.clear(&work::zone_key(kind, "waiting")).await;
    world.check(&["no_pointer"], 0).await;
    // A zone that waits for nothing.
    let world = World::new().await;
    world.clear(&work::item_key(Kind::LogTrim, "waiting", 5, b"x")).await;
    world.check(&["idle_zone"], 0).await;
    // Pointers to nothing, and to a zone that has another.
    let world = World::new().await;
    world.set(&work::pointer_key(kind, 1, "waiting"), &[]).await;
    world.set(&work::pointer_key(kind, 1, "nowhere"), &[]).await;
    world.check(&["stray_pointer", "stray_pointer"], 0).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_told_and_stays() {
    let world = World::new().await;
    world.set(&work::zone_key(Kind::BlobSweep as u64, "all"), b"?").await;
    world.check(&["undecodable"], 1).await;
}

#[tokio::test]
async fn failures_of_what_is_not_there_go() {
    let world = World::new().await;
    let failures = work::Failures { count: 3, ..work::Failures::default() }.encode_to_vec();
    let key = |zone, id: &[u8]| pack(&(Subspace::Work as u64, 3_u64, "f", zone, id));
    world.set(&key("waiting", b"x"), &failures).await;
    world.check(&[], 0).await;
    world.set(&key("waiting", b"y"), &failures).await;
    world.set(&key("nowhere", b"x"), &failures).await;
    world.check(&["orphaned_failures", "orphaned_failures"], 0).await;
}

#[tokio::test]
async fn orders_about_nothing_go() {
    let world = World::new().await;
    let key = |zone, id: &[u8]| pack(&(Subspace::Work as u64, 3_u64, "o", zone, id));
    world.set(&key("waiting", b"x"), b"").await;
    world.check(&[], 0).await;
    world.set(&key("nowhere", b""), b"").await;
    world.check(&["orphaned_order"], 0).await;
}
