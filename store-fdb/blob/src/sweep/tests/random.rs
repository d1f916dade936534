//! Writers, sweepers, crashes and faults at once, on virtual time, from a seed.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use futures_util::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use kv::{Database, Transaction};

use super::*;
use crate::testing::Virtual;

/// How a first reference is added.
#[derive(Clone, Copy, PartialEq)]
enum Adopt {
    AsItIs,
    /// The checker's own test: without looking at the mark.
    WithoutTheMark,
}

/// What the actors share.
struct Play {
    world: World,
    adopt: Adopt,
    /// What the checker saw first.
    dangling: RefCell<Option<String>>,
    working: Cell<usize>,
    adopted: Cell<u64>,
    refused: Cell<u64>,
}

/// A node: its clock is wrong by that much, and its stores fail.
struct Node {
    time: Virtual,
    db: Database,
    blobs: BlobStore,
}

impl Node {
    fn new(play: &Play, skew_ms: i64) -> Self {
        let time = play.world.time.skewed(skew_ms);
        let often = Probability::per_million(50_000);
        let faults = Faults {
            conflict: often,
            commit_unknown: often,
            too_old: Probability::per_million(20_000),
            ..Faults::default()
        };
        let db = play.world.db.handle_with_faults(time.env(), faults);
        let blobs = play.world.blobs.handle(time.env());
        blobs.faults().set(BlobFaults { refused: 50_000, reply_lost: 50_000, stalled: 5_000 });
        Self { time, db, blobs }
    }
}

/// All references, as they are at one moment.
async fn references(db: &Database) -> Vec<(BlobId, Owner)> {
    let tx = db.begin();
    references::page(&tx, None, 100_000).await.unwrap().found
}

async fn adopt(
    how: Adopt,
    tx: &Transaction,
    id: BlobId,
    owner: &Owner,
    now: Timestamp,
) -> Result<(), AdoptError> {
    match how {
        Adopt::AsItIs => references::adopt(tx, id, owner, now).await,
        Adopt::WithoutTheMark => {
            let age = now.unix_ms() - id.object().unwrap().put_at().unix_ms();
            if age > ADOPT_WITHIN_MS {
                return Err(AdoptError::Gone(id));
            }
            references::share(tx, id, owner);
            Ok(())
        }
    }
}

/// Waits for virtual time to pass.
async fn pass_by(play: &Play, hours: u64) {
    let random = play.world.time.below(u64::try_from(HOUR_MS).unwrap() * hours);
    let until = play.world.now().unix_ms() + i64::try_from(random).unwrap();
    while play.world.now().unix_ms() < until && play.working.get() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Puts, adopts, shares and lets go, and dies now and then.
async fn write(play: &Play, writer: u64, skew_ms: i64) {
    let node = Node::new(play, skew_ms);
    for step in 0..25_u32 {
        let owner = &Owner::Email(writer, step);
        let len = [5, 5, CHUNK_BYTES + 1][usize::try_from(node.time.below(3)).unwrap()];
        let polls = if node.time.below(8) == 0 { node.time.below(20) } else { 100_000 };
        let act = async {
            match node.time.below(4) {
                0 | 1 => {
                    let bytes = vec![u8::try_from(step).unwrap(); len];
                    let Ok(id) = node.blobs.put(&bytes).await else { return };
                    // From at once to too late.
                    pass_by(play, [1, 14][usize::try_from(node.time.below(2)).unwrap()]).await;
                    let now = node.time.now();
                    let how = play.adopt;
                    let run = |tx| async move { adopt(how, &tx, id, owner, now).await };
                    match node.db.run(run).await {
                        Ok(()) => play.adopted.set(play.adopted.get() + 1),
                        Err(_) => play.refused.set(play.refused.get() + 1),
                    }
                }
                kind => {
                    let there = references(&play.world.db).await;
                    if there.is_empty() {
                        return;
                    }
                    let place = node.time.below(crate::store::to_u64(there.len()));
                    let (id, first) = &there[usize::try_from(place).unwrap()];
                    let now = node.time.now();
                    let run = |tx: Transaction| async move {
                        if references::exists(&tx, *id, first).await? {
                            match kind {
                                2 => references::share(&tx, *id, owner),
                                _ => references::remove(&tx, *id, first, now),
                            }
                        }
                        Ok::<_, kv::Error>(())
                    };
                    // Whether it was done or not: the checker looks at what is there.
                    let _either = node.db.run(run).await;
                }
            }
        };
        cut_off(act, usize::try_from(polls).unwrap()).await;
        pass_by(play, 3).await;
    }
    play.working.set(play.working.get() - 1);
}

async fn sweep(play: &Play, skew_ms: i64) {
    let node = Node::new(play, skew_ms);
    while play.working.get() > 0 {
        let settings =
            SweepSettings { scan_interval: Duration::from_hours(2), ..Default::default() };
        let sweeper = Sweeper::new(node.time.env(), node.db.clone(), node.blobs.clone(), settings);
        let polls = usize::try_from(node.time.below(400)).unwrap();
        let _crashed_or_failed = cut_off(sweeper.pass(node.time.now()), polls).await;
        pass_by(play, 2).await;
    }
}

async fn tick(play: &Play) {
    while play.working.get() > 0 {
        play.world.time.advance(HOUR_MS / 10);
        for _ in 0..play.world.time.below(6) {
            tokio::task::yield_now().await;
        }
    }
}

/// No reference ever points to nothing.
async fn check(play: &Play) {
    while play.working.get() > 0 {
        look(play).await;
        pass_by(play, 1).await;
    }
}

async fn look(play: &Play) {
    for (id, owner) in references(&play.world.db).await {
        if !exists(&play.world, id).await {
            let tx = play.world.db.begin();
            if references::exists(&tx, id, &owner).await.unwrap() {
                let found = format!("{owner:?} needs {id}, which is gone");
                play.dangling.borrow_mut().get_or_insert(found);
            }
        }
    }
}

/// Plays one seed; tells what the checker saw, and how many were adopted and refused.
async fn play(seed: u64, adopt: Adopt) -> (Option<String>, u64, u64) {
    // The second writer's clock is so wrong that the mark alone keeps it from harm.
    let writers = [0, -20 * HOUR_MS, 3 * HOUR_MS];
    let play = Play {
        world: World::new(seed).await,
        adopt,
        dangling: RefCell::new(None),
        working: Cell::new(writers.len()),
        adopted: Cell::new(0),
        refused: Cell::new(0),
    };
    let mut actors: FuturesUnordered<LocalBoxFuture<'_, ()>> = FuturesUnordered::new();
    for (writer, skew) in (0..).zip(writers) {
        actors.push(Box::pin(write(&play, writer, skew)));
    }
    actors.push(Box::pin(sweep(&play, 0)));
    actors.push(Box::pin(sweep(&play, 2 * HOUR_MS)));
    actors.push(Box::pin(sweep(&play, -HOUR_MS)));
    actors.push(Box::pin(tick(&play)));
    actors.push(Box::pin(check(&play)));
    while actors.next().await.is_some() {}
    drop(actors);
    look(&play).await;

    // After the grace and all that may follow it, what is stored is what is needed.
    let calm = sweeper(&play.world);
    for _ in 0..4 {
        play.world.time.advance(2 * GRACE_MS);
        calm.pass(play.world.now()).await.unwrap();
    }
    let needed: BTreeSet<BlobName> =
        references(&play.world.db).await.iter().map(|(id, _)| BlobName::of(id)).collect();
    let stored = play.world.blobs.list(None, 1_000).await.unwrap();
    let stored: BTreeSet<BlobName> = stored.names.into_iter().collect();
    if adopt == Adopt::AsItIs {
        assert_eq!(stored, needed, "seed {seed}");
        assert_eq!(play.world.keys(Subspace::BlobDying).await, 0, "seed {seed}");
        assert_eq!(play.world.keys(Subspace::BlobDue).await, 0, "seed {seed}");
    }
    let saw = play.dangling.borrow().clone();
    (saw, play.adopted.get(), play.refused.get())
}

#[tokio::test]
async fn no_reference_is_ever_left_without_bytes_and_no_bytes_without_a_reference() {
    let (mut adopted, mut refused) = (0, 0);
    for seed in 0..20 {
        let (saw, yes, no) = Box::pin(play(seed, Adopt::AsItIs)).await;
        assert_eq!(saw, None, "seed {seed}");
        (adopted, refused) = (adopted + yes, refused + no);
    }
    assert!(adopted > 100 && refused > 20, "{adopted} adopted, {refused} refused");
}

#[tokio::test]
async fn the_checker_sees_an_adoption_that_does_not_look_at_the_mark() {
    for seed in 0..60 {
        if Box::pin(play(seed, Adopt::WithoutTheMark)).await.0.is_some() {
            return;
        }
    }
    panic!("sixty seeds and nothing seen");
}

#[tokio::test]
async fn a_seed_replays() {
    let first = Box::pin(play(3, Adopt::AsItIs)).await;
    assert_eq!(Box::pin(play(3, Adopt::AsItIs)).await, first);
}
