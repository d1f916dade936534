//! How fast a domain is sent to: how many messages at once, and how many a minute.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use env::Monotonic;

use crate::limits;

/// How many messages may be on their way at once. Twice as many after each connection that came
/// about, half as many after one that did not and after a message that was refused for now; from
/// then on one more after some messages that were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Width {
    now: usize,
    /// Up to which it grows.
    ceiling: usize,
    max: usize,
    /// Messages that went since the last refusal or growth.
    went: u32,
}

impl Width {
    pub(super) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { now: 1, ceiling: max, max, went: 0 }
    }

    pub(super) fn get(&self) -> usize {
        self.now
    }

    /// A connection came about.
    pub(super) fn connected(&mut self) {
        self.now = (self.now * 2).min(self.ceiling);
    }

    /// A connection did not come about.
    pub(super) fn turned_away(&mut self) {
        self.now = (self.now / 2).max(1);
    }

    /// A server refused a whole message for now.
    pub(super) fn slowed(&mut self) {
        self.turned_away();
        self.ceiling = self.now;
        self.went = 0;
    }

    /// A message went.
    pub(super) fn went(&mut self) {
        if self.ceiling == self.max {
            return;
        }
        self.went += 1;
        if self.went >= limits::WIDTH_REGAINED_AFTER {
            self.went = 0;
            self.ceiling += 1;
            self.now = self.ceiling;
        }
    }
}

/// The times at which messages may leave for a domain whose rate is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    interval: Duration,
    next: Option<Monotonic>,
}

impl Pace {
    /// `per_minute` is 0 for no bound; `next` is the domain's next slot, where one is known.
    pub(super) fn new(per_minute: u64, next: Option<Monotonic>) -> Self {
        let interval = match per_minute {
            0 => Duration::ZERO,
            some => Duration::from_secs(60) / u32::try_from(some).unwrap_or(u32::MAX),
        };
        Self { interval, next }
    }

    /// How long it is until the next message may leave.
    pub(super) fn wait(&self, now: Monotonic) -> Option<Duration> {
        let wait = self.next?.saturating_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// A message leaves.
    pub(super) fn take(&mut self, now: Monotonic) {
        if !self.interval.is_zero() {
            self.next = Some(now + self.interval);
        }
    }

    fn next(&self) -> Option<Monotonic> {
        self.next
    }
}

/// The next slots of domains that this node has sent to. While more is due for a domain its node keeps
/// it until its slot; one that has been let go may get a message early from another node.
#[derive(Debug, Default)]
pub(super) struct Slots {
    next: Mutex<BTreeMap<String, Monotonic>>,
}

impl Slots {
    pub(super) fn next(&self, domain: &str) -> Option<Monotonic> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).get(domain).copied()
    }

    pub(super) fn keep(&self, domain: &str, pace: &Pace, now: Monotonic) {
        let mut slots = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = pace.next().filter(|next| *next > now) else {
            slots.remove(domain);
            return;
        };
        if slots.len() >= limits::PACED_DOMAINS_MAX {
            slots.retain(|_, next| *next > now);
        }
        if slots.len() < limits::PACED_DOMAINS_MAX {
            slots.insert(domain.to_owned(), next);
        }
    }
}

#[cfg(test)]
mod tests {
    use env::Env;

    use super::*;

    #[test]
    fn a_refusal_for_now_halves_the_width_and_it_comes_back_one_by_one() {
        let mut width = Width::new(20);
        for expected in [2, 4, 8, 16, 20] {
            width.connected();
            assert_eq!(width.get(), expected);
        }
        width.slowed();
        assert_eq!(width.get(), 10);
        width.connected();
        assert_eq!(width.get(), 10, "a connection does not make good for a refusal");
        for _ in 0..limits::WIDTH_REGAINED_AFTER {
            width.went();
        }
        assert_eq!(width.get(), 11);
        for _ in 0..9 {
            width.slowed();
        }
        assert_eq!(width.get(), 1);
        assert_eq!(Width::new(0).get(), 1);
    }

    #[test]
    fn slots_follow_each_other_by_the_rate() {
        let now = Env::system().monotonic();
        let mut pace = Pace::new(0, None);
        pace.take(now);
        assert_eq!(pace.wait(now), None, "no bound");
        let mut pace = Pace::new(120, None);
        assert_eq!(pace.wait(now), None);
        pace.take(now);
        assert_eq!(pace.wait(now), Some(Duration::from_millis(500)));
        let slots = Slots::default();
        slots.keep("a", &pace, now);
        let later = Pace::new(120, slots.next("a"));
        assert_eq!(later.wait(now + Duration::from_millis(200)), Some(Duration::from_millis(300)));
        assert_eq!(later.wait(now + Duration::from_millis(500)), None);
        slots.keep("a", &later, now + Duration::from_secs(1));
        assert_eq!(slots.next("a"), None, "what is past is forgotten");
    }
}
