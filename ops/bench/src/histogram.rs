//! Latencies, counted in buckets whose width grows with the value.
//!
//! Each power of two is cut into 128 buckets, so a value is told with an error below 1/256 (0.4 %),
//! and the whole is 40 kB whatever is counted. All connections count into one histogram with
//! relaxed atomics: a histogram a connection would be 400 MB for ten thousand of them.
//!
//! Its own and not `hdrhistogram`: this is what we need of it, without a lock or a merge.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bits of a value that its bucket tells exactly.
const PRECISION_BITS: u32 = 7;
const PER_POWER: u64 = 1 << PRECISION_BITS;

/// Values from here on, 73 minutes in nanoseconds, share the last bucket; no operation may take so long.
const VALUE_BITS_MAX: u32 = 42;
const BUCKETS: usize = ((VALUE_BITS_MAX - PRECISION_BITS + 1) as usize) << PRECISION_BITS;

/// Counted durations.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    total_ns: AtomicU64,
    min_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            total_ns: AtomicU64::new(0),
            min_ns: AtomicU64::new(u64::MAX),
            max_ns: AtomicU64::new(0),
        }
    }

    /// Counts one value.
    pub(crate) fn count(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        self.min_ns.fetch_min(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// How many values were counted.
    pub(crate) fn len(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The value that `per_mille` of a thousand values do not exceed; `None` where there is none.
    /// The extremes are exact.
    pub(crate) fn quantile(&self, per_mille: u64) -> Option<Duration> {
        let count = self.len();
        let rank = (u128::from(count) * u128::from(per_mille)).div_ceil(1000).max(1);
        if rank == 1 || rank == u128::from(count) {
            return if rank == 1 { self.min() } else { self.max() };
        }
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += u128::from(bucket.load(Ordering::Relaxed));
            if seen >= rank {
                let min = self.min_ns.load(Ordering::Relaxed);
                let max = self.max_ns.load(Ordering::Relaxed);
                return Some(Duration::from_nanos(middle(index).clamp(min, max)));
            }
        }
        None
    }

    /// The smallest value.
    pub(crate) fn min(&self) -> Option<Duration> {
        (self.len() > 0).then(|| Duration::from_nanos(self.min_ns.load(Ordering::Relaxed)))
    }

    /// The largest value.
    pub(crate) fn max(&self) -> Option<Duration> {
        (self.len() > 0).then(|| Duration::from_nanos(self.max_ns.load(Ordering::Relaxed)))
    }

    /// The mean.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let count = self.len();
        let total = self.total_ns.load(Ordering::Relaxed);
        total.checked_div(count).map(Duration::from_nanos)
    }
}

/// The bucket of a value: below 128 its own, above by its highest eight bits.
fn bucket(ns: u64) -> usize {
    let ns = ns.min((1 << VALUE_BITS_MAX) - 1);
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    let index = u64::from(shift) * PER_POWER + (ns >> shift);
    usize::try_from(index).expect("it is below BUCKETS")
}

/// The middle of a bucket's values.
fn middle(index: usize) -> u64 {
    let index = u64::try_from(index).expect("it is below BUCKETS");
    if index < 2 * PER_POWER {
        return index;
    }
    let shift = index / PER_POWER - 1;
    ((index % PER_POWER + PER_POWER) << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::scattered;

    #[test]
    fn every_value_is_told_within_one_percent() {
        let values = (0..42).flat_map(|bits| {
            let power = 1_u64 << bits;
            (0..64).map(move |n| power + scattered(n, bits) % power)
        });
        for value in values {
            let told = middle(bucket(value));
            assert!(told.abs_diff(value) <= value / 100, "{value} is told as {told}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let rising = (0..BUCKETS).map(middle).collect::<Vec<_>>();
        assert!(rising.is_sorted());
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let histogram = Histogram::new();
        // From microseconds to minutes, as latencies are.
        let mut values: Vec<u64> =
            (0..10_000).map(|n| 1000 + scattered(n, 7) % (1 << (10 + n % 28))).collect();
        for value in &values {
            histogram.count(Duration::from_nanos(*value));
        }
        values.sort_unstable();
        for per_mille in [1, 10, 250, 500, 900, 950, 990, 999, 1000] {
            let exact = values[(values.len() * per_mille).div_ceil(1000) - 1];
            let told = histogram.quantile(per_mille as u64).expect("there are values");
            let told = u64::try_from(told.as_nanos()).expect("it is small");
            assert!(told.abs_diff(exact) <= exact / 100, "{per_mille}: {told} for {exact}");
        }
        let mean = values.iter().sum::<u64>() / 10_000;
        assert_eq!(histogram.mean(), Some(Duration::from_nanos(mean)));
        assert_eq!(histogram.min(), Some(Duration::from_nanos(values[0])));
        assert_eq!(histogram.max(), values.last().map(|ns| Duration::from_nanos(*ns)));
        assert_eq!(histogram.quantile(1000), histogram.max());
        assert_eq!(histogram.len(), 10_000);
    }

    #[test]
    fn without_values_there_is_no_quantile() {
        let histogram = Histogram::new();
        assert_eq!((histogram.quantile(500), histogram.mean()), (None, None));
        assert_eq!((histogram.min(), histogram.max()), (None, None));
    }
}
