//! What the tests of several modules need: an environment on virtual time, a store, crashes.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use env::{BoxFuture, Datagrams, Env, Listener, Monotonic, RawTask, Stream, Timestamp};
use kv::{Database, LargeValues};

use crate::{BlobId, BlobStore, Owner, references};

pub(crate) const HOUR_MS: i64 = 3_600_000;

/// Time that only the test moves, and randomness from a seed. A sleep gives way to the other
/// tasks once, and moves the monotonic clock.
#[derive(Clone)]
pub(crate) struct Virtual {
    wall_ms: Arc<AtomicI64>,
    monotonic_us: Arc<AtomicU64>,
    random: Arc<AtomicU64>,
    skew_ms: i64,
}

impl Virtual {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            wall_ms: Arc::new(AtomicI64::new(1_700_000_000_000)),
            monotonic_us: Arc::default(),
            random: Arc::new(AtomicU64::new(seed)),
            skew_ms: 0,
        }
    }

    /// The same world as a node sees it whose wall clock is wrong.
    pub(crate) fn skewed(&self, skew_ms: i64) -> Self {
        Self { skew_ms, ..self.clone() }
    }

    pub(crate) fn env(&self) -> Env {
        Env::new(self.clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.wall_ms.load(Relaxed) + self.skew_ms)
    }

    pub(crate) fn advance(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Relaxed);
    }

    /// SplitMix64.
    pub(crate) fn draw(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.random.fetch_add(step, Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

impl env::Backend for Virtual {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(Duration::from_micros(self.monotonic_us.fetch_add(1, Relaxed)))
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let micros = u64::try_from(duration.as_micros()).unwrap();
        let clock = Arc::clone(&self.monotonic_us);
        Box::pin(async move {
            tokio::task::yield_now().await;
            clock.fetch_add(micros, Relaxed);
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.draw().to_le_bytes()[0]);
    }

    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> RawTask {
        // The test's runtime has one thread: the order of tasks follows from the seed.
        let task = Arc::new(std::sync::Mutex::new(Some(Env::system().spawn(name, future))));
        let abort = Arc::clone(&task);
        let raw = RawTask::new(move || drop(abort.lock().unwrap().take()));
        if let Some(task) = task.lock().unwrap().take() {
            task.detach();
        }
        raw
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async move { work() })
    }

    fn listen(&self, _address: SocketAddr) -> BoxFuture<'_, io::Result<Listener>> {
        unreachable!("blobs do not listen")
    }

    fn connect(&self, _address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        unreachable!("these blobs are in memory")
    }

    fn datagrams(&self, _address: SocketAddr) -> BoxFuture<'_, io::Result<Datagrams>> {
        unreachable!("blobs do not use datagrams")
    }
}

/// One store, as one node sees it.
pub(crate) struct World {
    pub(crate) time: Virtual,
    pub(crate) db: Database,
    pub(crate) blobs: BlobStore,
    pub(crate) values: LargeValues,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let time = Virtual::new(seed);
        let db = Database::memory(time.env());
        let values = LargeValues::memory(time.env());
        let blobs = BlobStore::embedded(values.clone(), time.env()).await.unwrap();
        Self { time, db, blobs, values }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// A blob that `owner` needs.
    pub(crate) async fn referenced(&self, bytes: &[u8], owner: Owner) -> BlobId {
        let id = self.blobs.put(bytes).await.unwrap();
        let (now, owner) = (self.now(), &owner);
        self.db
            .run(|tx| async move { references::adopt(&tx, id, owner, now).await })
            .await
            .unwrap();
        id
    }

    pub(crate) async fn share(&self, id: BlobId, owner: Owner) {
        let tx = self.db.begin();
        references::share(&tx, id, &owner);
        tx.commit().await.unwrap();
    }

    pub(crate) async fn let_go(&self, id: BlobId, owner: Owner) {
        let tx = self.db.begin();
        references::remove(&tx, id, &owner, self.now());
        tx.commit().await.unwrap();
    }

    /// Keys of the blob families.
    pub(crate) async fn keys(&self, family: kv::Subspace) -> usize {
        let range = kv::RangeQuery::prefix(&family.prefix());
        self.db.begin().range(range).collect().await.unwrap().len()
    }
}

/// Drops `future` at its `polls`-th await; tells its value where it ended before.
pub(crate) async fn cut_off<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        polled += 1;
        if polled > polls {
            return Poll::Ready(None);
        }
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}
