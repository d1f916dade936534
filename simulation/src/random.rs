//! Seeded randomness: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
//!
//! Small, fast, and good enough to spread events. It is predictable from eight bytes of its
//! output: never for production.

use std::ops::RangeInclusive;

use crate::Seed;

/// A stream of chance for whoever plays a part in a world. It follows from the world's seed and
/// from its name alone, so that one part more or less changes nothing for the others.
#[derive(Debug)]
pub struct Random {
    stream: SplitMix64,
}

impl Random {
    /// The stream of this name in a world of this seed.
    pub fn named(seed: Seed, name: &str) -> Self {
        Self { stream: SplitMix64::named(seed, name) }
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.stream.next()
    }

    /// A number in `0..bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.stream.below(bound)
    }

    /// A number from a range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let spread = range.end().saturating_sub(*range.start());
        range.start() + self.stream.below(spread.saturating_add(1))
    }

    /// True `per_mille` times of a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.stream.below(1000) < per_mille
    }

    /// One of them; none where there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = self.stream.below(from.len() as u64);
        from.get(usize::try_from(index).unwrap_or(0))
    }

    /// A time in `0..=most`.
    pub fn up_to(&mut self, most: std::time::Duration) -> std::time::Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        std::time::Duration::from_micros(self.stream.below(micros.saturating_add(1)))
    }

    /// Another stream, which no longer depends on how much is drawn from this one.
    pub fn split(&mut self) -> Self {
        Self { stream: self.stream.split() }
    }
}

/// One stream of numbers.
#[derive(Debug)]
pub(crate) struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    pub(crate) fn new(seed: Seed) -> Self {
        Self { state: seed.0 }
    }

    /// The stream of this name.
    pub(crate) fn named(seed: Seed, name: &str) -> Self {
        // FNV-1a spreads names; the generator's own finish does the rest.
        let folded = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |folded, byte| {
            (folded ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut stream = Self { state: seed.0 ^ folded };
        stream.split()
    }

    /// Another stream, which no longer depends on how much is drawn from this one.
    pub(crate) fn split(&mut self) -> Self {
        Self { state: self.next() }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 where `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = SplitMix64::new(Seed(1_234_567));
        let drawn: [u64; 3] = std::array::from_fn(|_| random.next());
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn bytes_are_filled_to_the_last() {
        let mut bytes = [0; 19];
        SplitMix64::new(Seed(7)).fill(&mut bytes);
        assert!(bytes.iter().filter(|byte| **byte == 0).count() < 4, "{bytes:?}");
        assert_eq!(SplitMix64::new(Seed(7)).below(0), 0);
    }
}
