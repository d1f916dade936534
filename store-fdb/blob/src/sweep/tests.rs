use kv::{AsKvError, Faults, Probability, RangeQuery, Subspace};

use super::*;
use crate::{
    BlobFaults, BlobId, BlobName, Owner,
    limits::{ADOPT_WITHIN_MS, CHUNK_BYTES, GRACE_MS, SWEEP_LIST, SWEEP_REFERENCES},
    references::{self, AdoptError},
    testing::{HOUR_MS, World, cut_off},
};

mod random;

const OWNER: Owner = Owner::Email(1, 2);
const OTHER: Owner = Owner::Submission([9; 16]);

fn sweeper(world: &World) -> Sweeper {
    // Every pass scans.
    let settings = SweepSettings { scan_interval: Duration::ZERO, ..SweepSettings::default() };
    Sweeper::new(world.time.env(), world.db.clone(), world.blobs.clone(), settings)
}

/// A sweeper that does not scan.
fn due_only(world: &World) -> Sweeper {
    let tx_less = SweepSettings { scan_interval: Duration::MAX, ..SweepSettings::default() };
    Sweeper::new(world.time.env(), world.db.clone(), world.blobs.clone(), tx_less)
}

/// So that [`due_only`] has a scan to rest from.
async fn scanned(world: &World) {
    sweeper(world).pass(world.now()).await.unwrap();
}

async fn exists(world: &World, id: BlobId) -> bool {
    world.blobs.exists(&BlobName::of(&id)).await.unwrap()
}

/// Nothing is left but the scan's record.
async fn nothing_is_left(world: &World) {
    for family in [Subspace::BlobDue, Subspace::BlobDying, Subspace::BlobReference] {
        assert_eq!(world.keys(family).await, 0, "{family:?}");
    }
    assert_eq!(world.values.scan_prefix(b"", None, 10).await.unwrap(), [] as [bytes::Bytes; 0]);
}

#[tokio::test]
async fn a_blob_that_was_let_go_is_removed_after_its_grace_and_its_mark_later() {
    for len in [10, 2 * CHUNK_BYTES + 1] {
        let world = World::new(1).await;
        let sweeper = sweeper(&world);
        let id = world.referenced(&vec![7; len], OWNER).await;
        world.time.advance(10 * GRACE_MS);
        let quiet = Swept { scanned: 1, scans: 1, ..Swept::default() };
        assert_eq!(sweeper.pass(world.now()).await.unwrap(), quiet, "it is needed");
        world.let_go(id, OWNER).await;
        world.time.advance(GRACE_MS - 1);
        assert_eq!(sweeper.pass(world.now()).await.unwrap(), quiet, "the grace time stands");
        world.time.advance(1);
        let swept = sweeper.pass(world.now()).await.unwrap();
        let expected = Swept { marked: 1, removed: 1, scanned: 1, scans: 1, ..Swept::default() };
        assert_eq!(swept, expected);
        assert!(!exists(&world, id).await);
        assert_eq!(world.keys(Subspace::BlobDue).await, 0);

        // The mark stands for those who do not know how late it is.
        let put_at = id.object().unwrap().put_at();
        let adopt = || async {
            let tx = world.db.begin();
            references::adopt(&tx, id, &OWNER, put_at).await
        };
        let scan = Swept { scans: 1, ..Swept::default() };
        world.time.advance(ADOPT_WITHIN_MS - 1);
        assert_eq!(sweeper.pass(world.now()).await.unwrap(), scan);
        assert_eq!(adopt().await, Err(AdoptError::Gone(id)));
        world.time.advance(1);
        let swept = sweeper.pass(world.now()).await.unwrap();
        assert_eq!(swept, Swept { forgotten: 1, ..scan });
        nothing_is_left(&world).await;
    }
}

#[tokio::test]
async fn a_put_whose_transaction_never_came_is_found_by_the_scan() {
    let world = World::new(2).await;
    let sweeper = sweeper(&world);
    let orphan = world.blobs.put(b"orphan").await.unwrap();
    let kept = world.referenced(b"kept", OWNER).await;
    world.time.advance(GRACE_MS);
    assert_eq!(sweeper.pass(world.now()).await.unwrap().marked, 0);
    world.time.advance(1);
    let swept = sweeper.pass(world.now()).await.unwrap();
    assert_eq!((swept.orphans, swept.removed), (1, 1));
    assert!(!exists(&world, orphan).await && exists(&world, kept).await);
    assert_eq!(sweeper.counts().swept().removed, 1);
}

#[tokio::test]
async fn blobs_of_schema_0_are_swept_too() {
    let world = World::new(2).await;
    let sweeper = sweeper(&world);
    let hash = crate::BlobHash::of(b"old");
    let old = BlobId::of_schema_0(hash);
    let key = [b"h", hash.as_bytes().as_slice()].concat();
    world.values.put(&key, b"\0old".as_slice().into()).await.unwrap();
    world.share(old, OWNER).await;
    assert_eq!(sweeper.pass(world.now()).await.unwrap().marked, 0);
    world.let_go(old, OWNER).await;
    world.time.advance(GRACE_MS);
    assert_eq!(sweeper.pass(world.now()).await.unwrap().removed, 1);
    world.time.advance(ADOPT_WITHIN_MS);
    sweeper.pass(world.now()).await.unwrap();
    nothing_is_left(&world).await;
}

#[tokio::test]
async fn a_blob_that_is_shared_while_it_is_due_stays() {
    let world = World::new(3).await;
    let sweeper = sweeper(&world);
    let id = world.referenced(b"x", OWNER).await;
    world.share(id, OTHER).await;
    world.let_go(id, OWNER).await;
    world.time.advance(2 * GRACE_MS);
    let swept = sweeper.pass(world.now()).await.unwrap();
    assert_eq!((swept.kept, swept.marked), (1, 0));
    assert!(exists(&world, id).await);
    assert_eq!(world.keys(Subspace::BlobDue).await, 0);
}

#[tokio::test]
async fn the_grace_time_counts_from_the_last_who_let_go() {
    let world = World::new(4).await;
    let sweeper = sweeper(&world);
    let id = world.referenced(b"x", OWNER).await;
    world.share(id, OTHER).await;
    world.let_go(id, OWNER).await;
    world.time.advance(GRACE_MS / 2);
    world.let_go(id, OTHER).await;
    world.time.advance(GRACE_MS / 2);
    let swept = sweeper.pass(world.now()).await.unwrap();
    assert_eq!((swept.kept, swept.marked), (1, 0), "neither by the entry nor by the scan");
    world.time.advance(GRACE_MS / 2);
    assert_eq!(sweeper.pass(world.now()).await.unwrap().removed, 1);
}

#[tokio::test]
async fn a_lost_or_unreadable_due_entry_is_made_up_for_by_the_scan() {
    let world = World::new(5).await;
    let sweeper = sweeper(&world);
    let id = world.referenced(b"x", OWNER).await;
    world.let_go(id, OWNER).await;
    let tx = world.db.begin();
    let (begin, end) = references::due_until(Timestamp::from_unix_ms(i64::MAX - 1));
    tx.clear_range(&begin, &end);
    tx.set(&kv::tuple::pack(&(Subspace::BlobDue as u64, 5_i64, "what")), b"");
    tx.commit().await.unwrap();
    world.time.advance(GRACE_MS + HOUR_MS);
    assert_eq!(sweeper.pass(world.now()).await.unwrap().marked, 0);
    world.time.advance(GRACE_MS);
    assert_eq!(sweeper.pass(world.now()).await.unwrap().orphans, 1);
    assert!(!exists(&world, id).await);
}

#[tokio::test]
async fn adoption_ends_at_its_hour() {
    let world = World::new(6).await;
    let id = world.blobs.put(b"x").await.unwrap();
    let put_at = id.object().unwrap().put_at().unix_ms();
    for (age, expected) in [
        (ADOPT_WITHIN_MS - 1, Ok(())),
        (ADOPT_WITHIN_MS, Ok(())),
        (ADOPT_WITHIN_MS + 1, Err(AdoptError::Gone(id))),
    ] {
        let now = Timestamp::from_unix_ms(put_at + age);
        let tx = world.db.begin();
        assert_eq!(references::adopt(&tx, id, &OWNER, now).await, expected, "{age}");
    }
}

/// A first reference and a finding that there is none: whichever commits first wins, and the
/// other is told.
#[tokio::test]
async fn a_reference_during_the_marking_and_a_marking_during_the_reference() {
    for scan in [false, true] {
        for reference_first in [false, true] {
            let world = World::new(7).await;
            let id = world.blobs.put(b"x").await.unwrap();
            let (name, put_at) = (BlobName::of(&id), id.object().unwrap().put_at());
            if !scan {
                world.let_go(id, OWNER).await;
            }
            let late = Timestamp::from_unix_ms(world.now().unix_ms() + GRACE_MS + 1);
            let marking = world.db.begin();
            if scan {
                assert!(scan::is_orphan(&marking, &name, late).await.unwrap());
                assert!(references::mark_dying(&marking, &name, late).await.unwrap());
            } else {
                assert_eq!(due::look(&marking, late).await.unwrap().marked, 1);
            }
            // By a node that believes it is early.
            let reference = world.db.begin();
            references::adopt(&reference, id, &OTHER, put_at).await.unwrap();
            let (first, second) =
                if reference_first { (reference, marking) } else { (marking, reference) };
            first.commit().await.unwrap();
            assert_eq!(second.commit().await.map(drop), Err(kv::Error::Conflict));

            // And after the conflict, each sees the other.
            world.time.advance(GRACE_MS + 1);
            sweeper(&world).pass(world.now()).await.unwrap();
            assert_eq!(exists(&world, id).await, reference_first, "scan {scan}");
            let tx = world.db.begin();
            let adopted = references::adopt(&tx, id, &OWNER, put_at).await;
            assert_eq!(adopted.is_ok(), reference_first);
        }
    }
}

/// A reference that is passed on while the first owner lets go.
#[tokio::test]
async fn sharing_meets_letting_go_and_marking() {
    let world = World::new(8).await;
    let id = world.referenced(b"x", OWNER).await;
    let sharing = world.db.begin();
    assert!(references::exists(&sharing, id, &OWNER).await.unwrap());
    references::share(&sharing, id, &OTHER);
    world.let_go(id, OWNER).await;
    assert_eq!(sharing.commit().await.map(drop), Err(kv::Error::Conflict));

    let id = world.referenced(b"y", OWNER).await;
    world.share(id, OTHER).await;
    world.let_go(id, OTHER).await;
    let late = Timestamp::from_unix_ms(world.now().unix_ms() + GRACE_MS);
    let looking = world.db.begin();
    // Still needed by the first; a second one joins meanwhile: no conflict, for it changes nothing.
    assert_eq!(due::look(&looking, late).await.unwrap().marked, 1, "the first blob");
    world.share(id, OTHER).await;
    let done = looking.commit().await.map(drop);
    assert!(done.is_ok() || done == Err(kv::Error::Conflict));
    world.time.advance(GRACE_MS);
    sweeper(&world).pass(world.now()).await.unwrap();
    assert!(exists(&world, id).await);
}

#[tokio::test]
async fn two_sweepers_at_once_do_what_one_does() {
    let world = World::new(9).await;
    for n in 0..200_u8 {
        let id = world.referenced(&[n], OWNER).await;
        if n % 2 == 0 {
            world.let_go(id, OWNER).await;
        }
        world.blobs.put(&[n]).await.unwrap();
    }
    world.time.advance(GRACE_MS + 1);
    let (first, second) = (sweeper(&world), sweeper(&world));
    let (a, b) = tokio::join!(first.pass(world.now()), second.pass(world.now()));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.marked + b.marked, 300, "each blob is marked once");
    assert_eq!(a.removed + b.removed, 300, "and counted once");
    assert_eq!(first.pass(world.now()).await.unwrap().scanned, 100);
    world.time.advance(ADOPT_WITHIN_MS);
    let (a, b) = tokio::join!(first.pass(world.now()), second.pass(world.now()));
    assert_eq!(a.unwrap().forgotten + b.unwrap().forgotten, 300);
    assert_eq!(world.keys(Subspace::BlobDying).await, 0);
}

/// A sweeper that dies at any await: the next one finishes what it began.
#[tokio::test]
async fn a_crash_between_any_two_steps_is_mended() {
    for polls in 0..1_000 {
        let world = World::new(10).await;
        // Every read is an await.
        world.db.faults().set(Faults {
            slow_read: Probability::ALWAYS,
            slow_read_max: Duration::from_millis(1),
            ..Faults::default()
        });
        let kept = world.referenced(b"kept", OWNER).await;
        let due = world.referenced(&vec![1; CHUNK_BYTES + 1], OWNER).await;
        world.let_go(due, OWNER).await;
        let orphan = world.blobs.put(b"orphan").await.unwrap();
        world.time.advance(GRACE_MS + 1);
        let cut = cut_off(sweeper(&world).pass(world.now()), polls).await;
        for id in [due, orphan] {
            let name = BlobName::of(&id);
            let marked = world.db.begin().get(&references::dying_key(&name)).await.unwrap();
            assert!(exists(&world, id).await || marked.is_some(), "bytes go under the mark only");
        }
        sweeper(&world).pass(world.now()).await.unwrap();
        assert!(!exists(&world, due).await && !exists(&world, orphan).await, "{polls}");
        world.time.advance(ADOPT_WITHIN_MS);
        let again = cut_off(sweeper(&world).pass(world.now()), polls).await;
        sweeper(&world).pass(world.now()).await.unwrap();
        assert!(exists(&world, kept).await);
        assert_eq!(world.keys(Subspace::BlobDying).await + world.keys(Subspace::BlobDue).await, 0);
        if cut.is_some() && again.is_some() {
            assert!(polls > 20, "it has that many awaits");
            return;
        }
    }
    panic!("a pass ends");
}

#[tokio::test]
async fn a_backend_that_fails_delays_the_removal_and_nothing_else() {
    let world = World::new(11).await;
    scanned(&world).await;
    let id = world.referenced(b"x", OWNER).await;
    world.let_go(id, OWNER).await;
    world.time.advance(GRACE_MS);
    let faulty = world.blobs.handle(world.time.env());
    let settings = SweepSettings { scan_interval: Duration::MAX, ..SweepSettings::default() };
    let sweeper = Sweeper::new(world.time.env(), world.db.clone(), faulty.clone(), settings);
    let always = BlobFaults::ALWAYS;
    for faults in [
        BlobFaults { refused: always, ..BlobFaults::default() },
        BlobFaults { stalled: always, ..BlobFaults::default() },
        BlobFaults { reply_lost: always, ..BlobFaults::default() },
    ] {
        faulty.faults().set(faults);
        let failed = sweeper.pass(world.now()).await;
        assert!(matches!(failed, Err(SweepError::Blob(BlobError::Unavailable { .. }))));
        assert_eq!(world.keys(Subspace::BlobDying).await, 2, "mark and step stand");
        assert_eq!(exists(&world, id).await, faults.reply_lost == 0);
    }
    assert!(sweeper.counts().swept().errors >= 3);
    faulty.faults().set(BlobFaults::default());
    assert_eq!(sweeper.pass(world.now()).await.unwrap().removed, 1);
}

#[tokio::test]
async fn a_scan_goes_on_where_it_was_and_rests_afterwards() {
    let world = World::new(12).await;
    let (total, kept) = (3 * SWEEP_LIST + 5, SWEEP_LIST);
    for n in 0..total {
        world.blobs.put(&n.to_le_bytes()).await.unwrap();
    }
    for n in 0..kept {
        world.referenced(&n.to_be_bytes(), OWNER).await;
    }
    // More owners than a page of references has, in the middle of it all.
    let shared = world.referenced(b"shared", OWNER).await;
    for email in 0..u32::try_from(2 * SWEEP_REFERENCES).unwrap() {
        world.share(shared, Owner::Email(7, email)).await;
    }
    world.time.advance(GRACE_MS + 1);
    let sweeper = sweeper(&world);
    let mut swept = Swept::default();
    assert_eq!(sweeper.scan(world.now(), 1, &mut swept).await.unwrap(), Progress::More);
    assert_eq!(swept.scanned, 1_000);
    // Another one, after a restart.
    let rest = self::sweeper(&world).pass(world.now()).await.unwrap();
    assert_eq!(rest.scanned, crate::store::to_u64(total + kept + 1 - SWEEP_LIST));
    assert_eq!(swept.orphans + rest.orphans, crate::store::to_u64(total));
    assert!(exists(&world, shared).await);
    let settings = SweepSettings { scan_interval: Duration::from_hours(1), ..Default::default() };
    let resting = Sweeper::new(world.time.env(), world.db.clone(), world.blobs.clone(), settings);
    assert_eq!(resting.pass(world.now()).await.unwrap().scans, 0);
    world.time.advance(HOUR_MS);
    assert_eq!(resting.pass(world.now()).await.unwrap().scans, 1);
    // A clock that was far ahead does not keep it from scanning.
    world.time.advance(-48 * HOUR_MS);
    assert_eq!(resting.pass(world.now()).await.unwrap().scans, 1);
}

#[tokio::test]
async fn the_running_sweeper_comes_back_by_itself() {
    let world = World::new(13).await;
    let id = world.referenced(b"x", OWNER).await;
    world.let_go(id, OWNER).await;
    world.time.advance(GRACE_MS);
    let faulty = world.blobs.handle(world.time.env());
    let refused = BlobFaults { refused: BlobFaults::ALWAYS, ..BlobFaults::default() };
    faulty.faults().set(refused);
    let sweeper =
        Sweeper::new(world.time.env(), world.db.clone(), faulty.clone(), SweepSettings::default());
    let counts = sweeper.counts();
    let task = world.time.env().spawn("sweeper", sweeper.run());
    while counts.swept().errors < 5 {
        tokio::task::yield_now().await;
    }
    assert!(exists(&world, id).await);
    faulty.faults().set(BlobFaults::default());
    while counts.swept().removed == 0 {
        tokio::task::yield_now().await;
    }
    drop(task);
    assert!(!exists(&world, id).await);
}

#[tokio::test]
async fn only_what_is_due_costs_anything() {
    let world = World::new(14).await;
    scanned(&world).await;
    for n in 0..50_u8 {
        world.referenced(&[n], OWNER).await;
    }
    let before = world.db.counts();
    due_only(&world).pass(world.now()).await.unwrap();
    let cost = world.db.counts() - before;
    // What is due, what is dying, and the scan's record.
    let reads = (cost.range_reads, cost.rows_read, cost.keys_read);
    assert_eq!((cost.transactions_committed, reads), (0, (2, 0, 1)), "{cost:?}");
}

#[tokio::test]
async fn references_are_listed_and_read_back() {
    let world = World::new(15).await;
    let mut expected = Vec::new();
    for n in 0..5_u8 {
        let id = world.referenced(&[n], OWNER).await;
        world.share(id, Owner::Email(u64::MAX, u32::MAX)).await;
        world.share(id, OTHER).await;
        expected.extend([OWNER, Owner::Email(u64::MAX, u32::MAX), OTHER].map(|it| (id, it)));
    }
    expected.sort_unstable();
    let tx = world.db.begin();
    tx.set(&kv::tuple::pack(&(Subspace::BlobReference as u64, "what")), b"");
    tx.commit().await.unwrap();
    for limit in [1, 2, 100] {
        let tx = world.db.begin();
        let (mut found, mut after, mut unreadable) = (Vec::new(), None, 0);
        loop {
            let page = references::page(&tx, after.as_ref(), limit).await.unwrap();
            found.extend(page.found);
            unreadable += page.unreadable.len();
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert_eq!((&found, unreadable), (&expected, 1), "{limit}");
    }
    let range = RangeQuery::prefix(&Subspace::BlobReference.prefix());
    assert_eq!(world.db.begin().range(range).collect().await.unwrap().len(), 16);
}

#[test]
fn the_store_s_error_is_found_in_an_adoption_s() {
    assert!(AdoptError::Kv(kv::Error::Conflict).as_kv_error().is_some());
}

/// References that were lost, or another store's: nothing is marked, and the scan rests.
#[tokio::test]
async fn a_scan_that_finds_too_much_marks_nothing() {
    let world = World::new(16).await;
    for n in 0..5_u8 {
        world.referenced(&[n], OWNER).await;
    }
    for n in 0..2_500_u32 {
        world.blobs.put(&n.to_le_bytes()).await.unwrap();
    }
    world.time.advance(GRACE_MS + 1);
    let settings = SweepSettings { scan_interval: Duration::from_hours(1), ..Default::default() };
    let sweeper = Sweeper::new(world.time.env(), world.db.clone(), world.blobs.clone(), settings);
    let swept = sweeper.pass(world.now()).await;
    let Err(SweepError::Implausible(share)) = swept else { panic!("{swept:?}") };
    assert!(share.is_implausible() && share.judged == 1_000, "the first page tells: {share:?}");
    assert_eq!(world.keys(Subspace::BlobDying).await, 0);
    assert_eq!(sweeper.pass(world.now()).await.unwrap().scanned, 0, "once an interval is enough");
    world.time.advance(HOUR_MS);
    assert!(sweeper.pass(world.now()).await.is_err());
    assert_eq!(world.keys(Subspace::BlobDying).await, 0);
}

/// An account with nearly all the mail there is was deleted: in order, so no orphans.
#[tokio::test]
async fn what_is_let_go_in_order_does_not_look_like_lost_references() {
    let world = World::new(17).await;
    let mut ids = Vec::new();
    for n in 0..300_u32 {
        ids.push(world.referenced(&n.to_le_bytes(), OWNER).await);
    }
    for id in &ids[1..] {
        world.let_go(*id, OWNER).await;
    }
    world.time.advance(GRACE_MS);
    // Marked, and the service does not remove them yet.
    let faulty = world.blobs.handle(world.time.env());
    let settings = SweepSettings { scan_interval: Duration::ZERO, ..SweepSettings::default() };
    let sweeper = Sweeper::new(world.time.env(), world.db.clone(), faulty.clone(), settings);
    let mut swept = Swept::default();
    sweeper.due(world.now(), &mut swept).await.unwrap();
    assert_eq!(swept.marked, 299);
    sweeper.scan(world.now(), 10, &mut swept).await.unwrap();
    assert_eq!((swept.scanned, swept.orphans), (300, 0));
    assert_eq!(sweeper.pass(world.now()).await.unwrap().removed, 299);
}
