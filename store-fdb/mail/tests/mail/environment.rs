//! A world that a seed decides: time moves when somebody sleeps, and randomness is a sequence.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use env::{Backend, BoxFuture, Datagrams, Env, Listener, Monotonic, RawTask, Stream, Timestamp};

/// A splitmix64 sequence.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn chance(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.below(list.len())) }
    }
}

struct Seeded {
    random: Random,
    micros: AtomicU64,
}

/// An environment that `seed` decides, on a runtime of one thread.
pub(crate) fn seeded(seed: u64) -> Env {
    Env::new(Seeded { random: Random::new(seed), micros: AtomicU64::new(0) })
}

impl Backend for Seeded {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(Duration::from_micros(self.micros.fetch_add(1, Relaxed)))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_700_000_000_000)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // All sleepers push the one clock, so each pushes it a little only.
        let micros = u64::try_from(duration.as_micros()).unwrap().min(500);
        self.micros.fetch_add(micros, Relaxed);
        Box::pin(tokio::task::yield_now())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.random.next().to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the environment")]
    fn spawn(&self, _name: &'static str, future: BoxFuture<'static, ()>) -> RawTask {
        let handle = tokio::spawn(future).abort_handle();
        RawTask::new(move || handle.abort())
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        Box::pin(std::future::ready(()))
    }

    fn listen(&self, _address: SocketAddr) -> BoxFuture<'_, std::io::Result<Listener>> {
        unreachable!("the mail store opens no socket")
    }

    fn connect(&self, _address: SocketAddr) -> BoxFuture<'_, std::io::Result<Stream>> {
        unreachable!("the mail store opens no socket")
    }

    fn datagrams(&self, _address: SocketAddr) -> BoxFuture<'_, std::io::Result<Datagrams>> {
        unreachable!("the mail store opens no socket")
    }
}
