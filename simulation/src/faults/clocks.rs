//! What happens to clocks: they drift, and the wall clock jumps.

use env::BoxFuture;

use super::{Fault, any_node, begin, lasting};
use crate::{Random, World};

/// A drift that a bad oscillator has, and a clock that is being slewed: 500 parts in a million.
const DRIFT_PPM: u64 = 500;

/// A virtual machine's clock that is badly wrong: two in a hundred.
const WILD_DRIFT_PPM: u64 = 20_000;

/// One node's clocks go at another pace, and its wall clock jumps: a little as from a correction,
/// or by up to an hour as from an administrator's hand. It jumps back in the end.
pub(super) struct Skew;

impl Fault for Skew {
    fn name(&self) -> &'static str {
        "skew"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = any_node(world, random);
            let most = if random.chance(200) { WILD_DRIFT_PPM } else { DRIFT_PPM };
            let drift = either_way(random, most);
            let jump_max = if random.chance(200) { 3_600_000 } else { 5_000 };
            let jump_ms = either_way(random, jump_max);
            let lasts = lasting(random, 5_000, 180_000);
            let what = format!("{node} drifts {drift} ppm, jumps {jump_ms} ms, for {lasts:?}");
            let _episode = begin(world, what);
            let host = world.host(node);
            host.skew(i32::try_from(drift).unwrap_or(0), jump_ms);
            world.rest(lasts).await;
            host.skew(0, -jump_ms);
        })
    }
}

fn either_way(random: &mut Random, most: u64) -> i64 {
    let drawn = random.within(0..=2 * most);
    drawn.cast_signed() - most.cast_signed()
}
