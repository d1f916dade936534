//! What happens between nodes and what they share: the store and the S3 service.

use std::time::Duration;

use blob::s3::model::{BucketFaults, BucketReach};
use env::BoxFuture;
use kv::{Probability, Reach};

use super::{Fault, any_node, begin, lasting, names, one_or_all};
use crate::{NodeId, Random, What, World};

/// Versions that FoundationDB skips when it recovers (`MAX_VERSIONS_IN_FLIGHT`, 100 s of them).
const VERSIONS_SKIPPED: u64 = 100_000_000;

/// How the words of an episode begin in which what is read of S3 may not be what was put.
pub(crate) const BUCKET_NOISE: &str = "noise of S3";

/// The store refuses, forgets to answer, and takes its time, by chance.
pub(super) struct Noise;

impl Fault for Noise {
    fn name(&self) -> &'static str {
        "store-noise"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let nodes = one_or_all(world, random);
            let mut often = |most| u32::try_from(random.below(most)).unwrap_or(0);
            let conflict = Probability::per_million(often(100_000));
            let commit_unknown = Probability::per_million(often(60_000));
            let too_old = Probability::per_million(often(10_000));
            let future_version = Probability::per_million(often(10_000));
            let slow_read = Probability::per_million(often(30_000));
            let slow_read_max = lasting(random, 10, 3_000);
            let lasts = lasting(random, 5_000, 120_000);
            let _episode =
                begin(world, format!("noise of the store for {}, {lasts:?}", names(&nodes)));
            for node in &nodes {
                world.store_faults(*node, |faults| {
                    faults.conflict = conflict;
                    faults.commit_unknown = commit_unknown;
                    faults.too_old = too_old;
                    faults.future_version = future_version;
                    faults.slow_read = slow_read;
                    faults.slow_read_max = slow_read_max;
                });
            }
            world.rest(lasts).await;
            let calm = &world.setup().store;
            for node in &nodes {
                world.store_faults(*node, |faults| {
                    faults.conflict = calm.conflict;
                    faults.commit_unknown = calm.commit_unknown;
                    faults.too_old = calm.too_old;
                    faults.future_version = calm.future_version;
                    faults.slow_read = calm.slow_read;
                    faults.slow_read_max = calm.slow_read_max;
                });
            }
        })
    }
}

/// The store is away: nothing arrives, or no reply comes back.
pub(super) struct Away;

impl Fault for Away {
    fn name(&self) -> &'static str {
        "store-away"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let nodes = one_or_all(world, random);
            let reach = any_reach(random);
            let lasts = lasting(random, 100, 40_000);
            let what = format!("the store is {reach:?} for {}, {lasts:?}", names(&nodes));
            let _episode = begin(world, what);
            set_reach(world, &nodes, reach);
            world.rest(lasts).await;
            set_reach(world, &nodes, Reach::Connected);
        })
    }
}

/// The store is away for all, for longer than a heartbeat may be late: nobody can declare anybody dead.
pub(super) struct Outage;

impl Fault for Outage {
    fn name(&self) -> &'static str {
        "store-outage"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let nodes: Vec<_> = world.nodes().collect();
            let reach = any_reach(random);
            let lasts = Duration::from_millis(random.within(6_000..=60_000));
            let _episode = begin(world, format!("the store is {reach:?} for all, {lasts:?}"));
            set_reach(world, &nodes, reach);
            world.rest(lasts).await;
            set_reach(world, &nodes, Reach::Connected);
        })
    }
}

/// Nothing arrives, or no reply comes back.
fn any_reach(random: &mut Random) -> Reach {
    if random.chance(500) { Reach::CutOff } else { Reach::RepliesLost }
}

fn set_reach(world: &World, nodes: &[NodeId], reach: Reach) {
    for node in nodes {
        world.store_faults(*node, |faults| faults.reach = reach);
    }
}

/// The store loses watches.
pub(super) struct LostWatches;

impl Fault for LostWatches {
    fn name(&self) -> &'static str {
        "lost-watches"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let nodes = one_or_all(world, random);
            let often = u32::try_from(random.within(100_000..=1_000_000)).unwrap_or(0);
            let lasts = lasting(random, 5_000, 90_000);
            let what =
                format!("{often} of 1000000 watches of {} are lost for {lasts:?}", names(&nodes));
            let _episode = begin(world, what);
            for node in &nodes {
                let lost = Probability::per_million(often);
                world.store_faults(*node, |faults| faults.lost_watch = lost);
            }
            world.rest(lasts).await;
            let calm = world.setup().store.lost_watch;
            for node in &nodes {
                world.store_faults(*node, |faults| faults.lost_watch = calm);
            }
        })
    }
}

/// The store recovers: versions jump, and every transaction under way is too old.
pub(super) struct VersionLeap;

impl Fault for VersionLeap {
    fn name(&self) -> &'static str {
        "version-leap"
    }

    fn quiet_max(&self) -> Duration {
        Duration::from_mins(2)
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // A recovery takes a moment, in which nothing is answered.
            let lasts = lasting(random, 50, 4_000);
            let _episode = begin(world, format!("the store recovers for {lasts:?}"));
            for node in world.nodes() {
                world.store_faults(node, |faults| faults.reach = Reach::CutOff);
            }
            world.rest(lasts).await;
            world.leap_versions(VERSIONS_SKIPPED);
            for node in world.nodes() {
                world.store_faults(node, |faults| faults.reach = Reach::Connected);
            }
        })
    }
}

/// The S3 service refuses, breaks connections, is slow, and gives bytes that are not what was put.
pub(super) struct BucketNoise;

impl Fault for BucketNoise {
    fn name(&self) -> &'static str {
        "bucket-noise"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let nodes = one_or_all(world, random);
            let mut often = |most| u32::try_from(random.below(most)).unwrap_or(0);
            let noisy = BucketFaults {
                refused: often(200_000),
                broken: often(100_000),
                reply_lost: often(100_000),
                stalled: often(20_000),
                rotten: often(50_000),
                delay_max: lasting(random, 20, 4_000),
                removal_unseen_max: lasting(random, 0, 60_000),
                ..BucketFaults::default()
            };
            let lasts = lasting(random, 5_000, 120_000);
            let _episode = begin(world, format!("{BUCKET_NOISE} for {}, {lasts:?}", names(&nodes)));
            for node in &nodes {
                world.bucket_faults(*node, |faults| {
                    *faults = BucketFaults { reach: faults.reach, ..noisy };
                });
            }
            world.rest(lasts).await;
            for node in &nodes {
                world.bucket_faults(*node, |faults| {
                    *faults = BucketFaults { reach: faults.reach, ..BucketFaults::default() };
                });
            }
        })
    }
}

/// The S3 service is away: nothing arrives, no answer comes back, or every request is refused, for
/// longer than a client tries.
pub(super) struct BucketAway;

impl Fault for BucketAway {
    fn name(&self) -> &'static str {
        "bucket-away"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let nodes = match random.chance(500) {
                true => world.nodes().collect(),
                false => vec![any_node(world, random)],
            };
            let reach = match random.below(3) {
                0 => BucketReach::CutOff,
                1 => BucketReach::RepliesLost,
                _ => BucketReach::Refusing,
            };
            let lasts = lasting(random, 500, 60_000);
            let _episode =
                begin(world, format!("S3 is {reach:?} for {}, {lasts:?}", names(&nodes)));
            for node in &nodes {
                world.bucket_faults(*node, |faults| faults.reach = reach);
            }
            world.rest(lasts).await;
            for node in &nodes {
                world.bucket_faults(*node, |faults| faults.reach = BucketReach::Connected);
            }
        })
    }
}

/// A stored blob rots where it is kept. Some are mended later, as by another copy that the service
/// has; the others stay as they are.
pub(super) struct Rot;

impl Fault for Rot {
    fn name(&self) -> &'static str {
        "rot"
    }

    fn quiet_max(&self) -> Duration {
        Duration::from_mins(2)
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut drawn = || usize::try_from(random.any() >> 1).unwrap_or(0);
            let Some(blob) = world.bucket().rot(drawn(), drawn()) else { return };
            world.facts().note("fault", What::Rotted { blob });
            if random.chance(600) {
                let _at_once = begin(world, format!("blob {blob} rots for good"));
                return;
            }
            let lasts = lasting(random, 2_000, 120_000);
            let _episode = begin(world, format!("blob {blob} is rotten for {lasts:?}"));
            world.rest(lasts).await;
            // It may have been removed.
            let _kept = world.bucket().mend(blob);
        })
    }
}
