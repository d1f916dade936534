//! Names with a number in them, and who is next.

/// A text in which `{n}` stands for a number from 1 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    before: String,
    after: Option<String>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it: it goes into protocol lines.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err("control characters cannot stand here".to_owned());
        }
        Ok(match text.split_once("{n}") {
            Some((before, after)) => {
                Self { before: before.to_owned(), after: Some(after.to_owned()) }
            }
            None => Self { before: text.to_owned(), after: None },
        })
    }

    /// Appends the name of this number.
    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before.as_bytes());
        if let Some(after) = &self.after {
            out.extend_from_slice(number.to_string().as_bytes());
            out.extend_from_slice(after.as_bytes());
        }
    }

    /// The name of this number.
    pub(crate) fn name(&self, number: u64) -> String {
        match &self.after {
            Some(after) => format!("{}{number}{after}", self.before),
            None => self.before.clone(),
        }
    }
}

/// In which order many are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// One after the other, from the first again after the last.
    RoundRobin,
    /// By chance, the same for the same seed.
    Random,
}

impl Order {
    /// The number, from 0 to `count`-1, of the `turn`th.
    pub(crate) fn pick(self, turn: u64, count: u64, seed: u64) -> u64 {
        match self {
            Self::RoundRobin => turn % count,
            Self::Random => scattered(turn, seed) % count,
        }
    }
}

/// A number that looks like chance, from a counter: SplitMix64's output function.
pub(crate) fn scattered(turn: u64, seed: u64) -> u64 {
    let mut z = seed.wrapping_add(turn.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_where_the_pattern_says() {
        let check = |pattern: &str, number, expected: &str| {
            let pattern = Pattern::parse(pattern).unwrap();
            let mut written = Vec::new();
            pattern.write(number, &mut written);
            assert_eq!(pattern.name(number), expected);
            assert_eq!(written, expected.as_bytes());
        };
        check("u{n}@example.org", 7, "u7@example.org");
        check("alice@example.org", 7, "alice@example.org");
        check("{n}", 12, "12");
        assert!(Pattern::parse("a\r\nRCPT TO:<b>").is_err());
    }

    #[test]
    fn both_orders_reach_everyone() {
        let taken = |order: Order| {
            let mut taken: Vec<u64> = (0..400).map(|turn| order.pick(turn, 10, 1)).collect();
            taken.sort_unstable();
            taken.dedup();
            taken.len()
        };
        assert_eq!((taken(Order::RoundRobin), taken(Order::Random)), (10, 10));
        assert_eq!(Order::RoundRobin.pick(23, 10, 1), 3);
        assert_eq!(Order::Random.pick(23, 10, 1), Order::Random.pick(23, 10, 1));
    }
}
