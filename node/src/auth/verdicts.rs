//! Verdicts of this process, remembered for a short time.
//!
//! A client that connects every few minutes, and one that tries its old password over and over,
//! cost one Argon2id run in a while instead of one an attempt.
//!
//! Invariants: what is remembered is a keyed hash over the account, its whole credential record
//! and the password, under a key that dies with the process; so neither the password nor a hash
//! that can be tried offline is kept, and a changed credential never meets an old verdict. Right
//! and wrong verdicts have bounds of their own: guesses push no right one out.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use env::{Env, Monotonic};
use zeroize::Zeroizing;

use super::limits;

/// Whether a password was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
}

/// Names an attempt: account or name, credential record, password.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

/// What this process remembers.
pub(super) struct Verdicts {
    key: Zeroizing<[u8; 32]>,
    right: Mutex<Recent>,
    wrong: Mutex<Recent>,
}

impl Verdicts {
    pub(super) fn new(env: &Env) -> Self {
        Self {
            key: Zeroizing::new(env.random_array()),
            right: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    pub(super) fn fingerprint(&self, owner: &[u8], record: &[u8], password: &[u8]) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for field in [owner, record, password] {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }

    pub(super) fn recall(&self, attempt: Fingerprint, now: Monotonic) -> Option<Verdict> {
        if lock(&self.right).holds(attempt, now) {
            Some(Verdict::Right)
        } else if lock(&self.wrong).holds(attempt, now) {
            Some(Verdict::Wrong)
        } else {
            None
        }
    }

    pub(super) fn remember(&self, attempt: Fingerprint, verdict: Verdict, now: Monotonic) {
        let recent = match verdict {
            Verdict::Right => &self.right,
            Verdict::Wrong => &self.wrong,
        };
        lock(recent).insert(attempt, now);
    }
}

/// No panic can leave a [`Recent`] half changed in a way that matters: at worst an entry stays
/// without its place in the queue, and expires.
fn lock(recent: &Mutex<Recent>) -> MutexGuard<'_, Recent> {
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The latest [`limits::VERDICTS_MAX`] attempts, first in, first out.
#[derive(Default)]
struct Recent {
    since: HashMap<Fingerprint, Monotonic>,
    order: VecDeque<Fingerprint>,
}

impl Recent {
    fn holds(&self, attempt: Fingerprint, now: Monotonic) -> bool {
        let since = self.since.get(&attempt);
        since.is_some_and(|since| now.saturating_since(*since) < limits::VERDICT_TIME)
    }

    fn insert(&mut self, attempt: Fingerprint, now: Monotonic) {
        if self.since.insert(attempt, now).is_some() {
            return;
        }
        self.order.push_back(attempt);
        if self.order.len() > limits::VERDICTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.since.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_bounded_and_expire() {
        let verdicts = Verdicts::new(&Env::system());
        let now = Monotonic::default();
        let print = |n: usize| verdicts.fingerprint(b"a", b"r", &n.to_le_bytes());
        verdicts.remember(print(0), Verdict::Right, now);
        for n in 1..=limits::VERDICTS_MAX + 1 {
            verdicts.remember(print(n), Verdict::Wrong, now);
        }
        assert_eq!(verdicts.recall(print(0), now), Some(Verdict::Right));
        assert_eq!(verdicts.recall(print(1), now), None, "the oldest went");
        assert_eq!(verdicts.recall(print(2), now), Some(Verdict::Wrong));
        assert_eq!(verdicts.recall(print(2), now + limits::VERDICT_TIME), None);
        let wrong = lock(&verdicts.wrong);
        assert_eq!(
            (wrong.since.len(), wrong.order.len()),
            (limits::VERDICTS_MAX, limits::VERDICTS_MAX)
        );
    }

    #[test]
    fn a_fingerprint_tells_its_fields_apart() {
        let verdicts = Verdicts::new(&Env::system());
        let prints = [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd")]
            .map(|(a, b, c)| verdicts.fingerprint(a.as_bytes(), b.as_bytes(), c.as_bytes()).0);
        assert!(prints[0] != prints[1] && prints[1] != prints[2] && prints[0] != prints[2]);
    }
}
