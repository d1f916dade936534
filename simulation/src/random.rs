//! Seeded randomness: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
//!
//! Small, fast, and good enough to spread events. It is predictable from eight bytes of its
//! output: never for production.

use crate::Seed;

/// One stream of numbers.
#[derive(Debug)]
pub(crate) struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    pub(crate) fn new(seed: Seed) -> Self {
        Self { state: seed.0 }
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
