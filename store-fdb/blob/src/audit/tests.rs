use std::time::Duration;

use super::*;
use crate::{
    BlobFaults,
    limits::CHUNK_BYTES,
    sweep::{SweepSettings, Sweeper},
    testing::{HOUR_MS, World},
};

const OWNER: Owner = Owner::Email(1, 2);
const DAY: Duration = Duration::from_hours(24);

fn audit(world: &World, depth: Depth) -> Audit {
    Audit::new(world.time.env(), world.db.clone(), world.blobs.clone(), depth, DAY)
}

async fn findings(world: &World, depth: Depth) -> (Vec<Finding>, AuditProgress) {
    let mut audit = audit(world, depth);
    let (mut all, mut progress) = (Vec::new(), AuditProgress::default());
    while let Some(step) = audit.next_step().await.unwrap() {
        all.extend(step.findings);
        progress = step.progress;
    }
    (all, progress)
}

#[tokio::test]
async fn a_sound_store_has_no_findings_and_all_of_it_is_looked_at() {
    let world = World::new(1).await;
    assert_eq!(findings(&world, Depth::Bytes).await, (Vec::new(), AuditProgress::default()));
    for n in 0..1_050_u32 {
        world.referenced(&n.to_le_bytes(), OWNER).await;
    }
    // One with more owners than a page has.
    let shared = world.referenced(&vec![1; CHUNK_BYTES + 1], OWNER).await;
    for n in 0..1_100 {
        world.share(shared, Owner::Email(2, n)).await;
    }
    // Young, due and dying ones are no findings.
    world.time.advance(10 * GRACE_MS);
    world.blobs.put(b"young").await.unwrap();
    let due = world.referenced(b"due", OWNER).await;
    world.let_go(due, OWNER).await;
    world.time.advance(GRACE_MS / 2);
    let (found, progress) = findings(&world, Depth::Bytes).await;
    assert_eq!(found, []);
    assert_eq!(progress, AuditProgress { references: 2_151, names: 1_053, verified: 1_051 });
}

#[tokio::test]
async fn each_kind_of_damage_is_found_and_told_by_whom() {
    let world = World::new(2).await;
    let mut ids = Vec::new();
    for n in 0..20_u8 {
        ids.push(world.referenced(&vec![n; CHUNK_BYTES + 1], Owner::Email(u64::from(n), 1)).await);
    }
    let other = Owner::Submission([3; 16]);
    world.share(ids[7], other).await;
    world.blobs.remove(&BlobName::of(&ids[7])).await.unwrap();
    let damaged = world.referenced(&vec![99; 2 * CHUNK_BYTES], OWNER).await;
    for key in world.values.scan_prefix(b"d", None, 1_000).await.unwrap() {
        let mut value = world.values.get(&key).await.unwrap().unwrap().to_vec();
        if value[0] == 99 {
            value[5] ^= 1;
            world.values.put(&key, value.into()).await.unwrap();
        }
    }
    let orphan = BlobName::of(&world.blobs.put(b"orphan").await.unwrap());
    let key = kv::tuple::pack(&(kv::Subspace::BlobReference as u64, "what"));
    let tx = world.db.begin();
    tx.set(&key, b"");
    tx.commit().await.unwrap();
    world.time.advance(2 * GRACE_MS + HOUR_MS);
    let missing =
        [Owner::Email(7, 1), other].map(|owner| Finding::MissingBlob { id: ids[7], owner });
    let mut expected = missing.to_vec();
    expected.push(Finding::Orphan { name: orphan, put_at: orphan.put_at() });
    expected.push(Finding::UnreadableReference { key: key.into() });
    let same = |found: Vec<Finding>, expected: &[Finding]| {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(expected.iter().all(|one| found.contains(one)), "{found:?}");
    };
    same(findings(&world, Depth::Names).await.0, &expected);
    expected.push(Finding::Damaged { id: damaged });
    same(findings(&world, Depth::Bytes).await.0, &expected);

    // The repair, and what it leaves alone.
    let kept = BlobName::of(&ids[0]);
    assert!(repair_orphan(&world.db, orphan, world.now()).await.unwrap());
    assert!(!repair_orphan(&world.db, orphan, world.now()).await.unwrap(), "it is marked");
    assert!(!repair_orphan(&world.db, kept, world.now()).await.unwrap(), "it is needed");
    let settings = SweepSettings { scan_interval: Duration::MAX, ..SweepSettings::default() };
    let sweeper = Sweeper::new(world.time.env(), world.db.clone(), world.blobs.clone(), settings);
    sweeper.pass(world.now()).await.unwrap();
    assert!(!world.blobs.exists(&orphan).await.unwrap());
    assert!(world.blobs.exists(&kept).await.unwrap());
}

/// What changes between the reading and the looking again is no finding.
#[tokio::test]
async fn what_others_do_meanwhile_is_no_finding() {
    let world = World::new(3).await;
    let gone = world.referenced(b"gone", OWNER).await;
    let mut under_way = audit(&world, Depth::Bytes);
    under_way.fill().await.unwrap();
    // The name was listed; then the blob was let go and swept.
    world.let_go(gone, OWNER).await;
    world.blobs.remove(&BlobName::of(&gone)).await.unwrap();
    under_way.merge();
    let step = under_way.next_step().await.unwrap().unwrap();
    assert_eq!((step.findings, step.progress.verified), (Vec::new(), 1));
    assert_eq!(under_way.next_step().await.unwrap(), None);

    // Put and referenced after the names were read, before the references were.
    let mut under_way = audit(&world, Depth::Names);
    under_way.names.ended = true;
    world.referenced(b"new", OWNER).await;
    let step = under_way.next_step().await.unwrap().unwrap();
    assert_eq!((step.findings, step.progress.references), (Vec::new(), 1));

    // Let go between.
    let id = world.blobs.put(b"never there").await.unwrap();
    world.blobs.remove(&BlobName::of(&id)).await.unwrap();
    world.share(id, OWNER).await;
    let mut under_way = audit(&world, Depth::Names);
    under_way.fill().await.unwrap();
    under_way.merge();
    assert_eq!(under_way.suspects.missing.len(), 1);
    world.let_go(id, OWNER).await;
    assert_eq!(under_way.next_step().await.unwrap().unwrap().findings, []);
}

#[tokio::test]
async fn a_step_that_fails_is_tried_again() {
    let world = World::new(4).await;
    let id = world.referenced(b"x", OWNER).await;
    world.blobs.remove(&BlobName::of(&id)).await.unwrap();
    let mut audit = audit(&world, Depth::Bytes);
    world.blobs.faults().set(BlobFaults { refused: BlobFaults::ALWAYS, ..Default::default() });
    for _ in 0..3 {
        assert!(matches!(audit.next_step().await, Err(AuditError::Blob(_))));
    }
    world.blobs.faults().set(BlobFaults::default());
    let step = audit.next_step().await.unwrap().unwrap();
    assert_eq!(step.findings, [Finding::MissingBlob { id, owner: OWNER }]);
    assert_eq!(step.progress, AuditProgress { references: 1, ..AuditProgress::default() });
}
