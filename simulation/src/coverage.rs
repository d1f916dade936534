//! The named points of the product: what a batch of seeds has to have reached.

use std::collections::BTreeMap;

/// A place in the product's code that is seldom reached, named by `env::sometimes!`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Its name.
    pub name: &'static str,
    /// The file that it is in.
    pub file: &'static str,
}

/// Every named point, by name; listed when this crate is built.
pub const POINTS: &[Point] = include!(concat!(env!("OUT_DIR"), "/points.rs"));

/// How often points were reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// How many worlds were counted.
    pub worlds: u64,
    counts: BTreeMap<&'static str, Count>,
}

/// How often one point was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// In how many worlds.
    pub worlds: u64,
    /// How often in all of them.
    pub times: u64,
}

impl Coverage {
    /// Counts what one world has reached.
    pub fn add(&mut self, reached: &BTreeMap<&'static str, u64>) {
        self.worlds += 1;
        for (name, times) in reached {
            let count = self.counts.entry(name).or_default();
            count.worlds += 1;
            count.times += times;
        }
    }

    /// How often a point was reached.
    pub fn count(&self, point: &Point) -> Count {
        self.counts.get(point.name).copied().unwrap_or_default()
    }

    /// The points that no world has reached.
    pub fn missing(&self) -> Vec<Point> {
        self.missing_of(POINTS)
    }

    fn missing_of(&self, points: &[Point]) -> Vec<Point> {
        points.iter().filter(|point| self.count(point).times == 0).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_reached_is_told() {
        let point = |name| Point { name, file: "somewhere.rs" };
        let points = [point("a thing"), point("another")];
        let mut coverage = Coverage::default();
        assert_eq!(coverage.missing_of(&points), points);
        coverage.add(&BTreeMap::from([("a thing", 3)]));
        coverage.add(&BTreeMap::from([("a thing", 2), ("of another crate", 1)]));
        assert_eq!(coverage.count(&points[0]), Count { worlds: 2, times: 5 });
        assert_eq!(coverage.missing_of(&points), [points[1]]);
    }

    #[test]
    fn the_list_has_every_name_once() {
        let mut names: Vec<&str> = POINTS.iter().map(|point| point.name).collect();
        assert!(!names.is_empty(), "the build script found none");
        names.dedup();
        assert_eq!(names.len(), POINTS.len());
    }
}
