//! One incarnation of a host: the simulation's [`env::Backend`].

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use env::{Backend, BoxFuture, Datagrams, Listener, Monotonic, RawTask, Stream, Timestamp};

use crate::{fabric::Fabric, host::Life};

/// An incarnation of a host.
#[derive(Clone)]
pub(crate) struct Simulated {
    life: Life,
    fabric: Arc<Fabric>,
}

impl Simulated {
    pub(crate) fn new(life: Life, fabric: Arc<Fabric>) -> Self {
        Self { life, fabric }
    }

    /// As on a machine that has gone.
    fn alive(&self) -> io::Result<()> {
        if self.life.is_alive() { Ok(()) } else { Err(io::ErrorKind::NetworkDown.into()) }
    }
}

impl Backend for Simulated {
    fn monotonic(&self) -> Monotonic {
        let now = self.fabric.core.now();
        self.life.host.clock(|clock| clock.monotonic(now))
    }

    fn wall(&self) -> Timestamp {
        let now = self.fabric.core.now();
        self.life.host.clock(|clock| clock.wall(now))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let in_world = self.life.host.clock(|clock| clock.in_world(duration));
        Box::pin(self.fabric.core.sleep_until(self.fabric.core.now() + in_world))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.life.host.fill_random(bytes);
    }

    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> RawTask {
        let task = self.fabric.core.spawn(&self.life, name, future);
        // Weak, because a task holds what holds its handle.
        let task = Arc::downgrade(&task);
        RawTask::new(move || {
            if let Some(task) = task.upgrade() {
                task.abort();
            }
        })
    }

    /// Blocking work takes no virtual time and holds up the whole world: a thread of its own would
    /// end at a moment that no seed decides.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // As on a thread of its own, a panic drops the result's channel, which the caller sees.
            let _ended = catch_unwind(AssertUnwindSafe(work));
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Listener>> {
        Box::pin(async move {
            self.alive()?;
            self.fabric.network.listen(&self.life, address)
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            self.alive()?;
            self.fabric.network.connect(&self.life, address).await
        })
    }

    fn datagrams(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Datagrams>> {
        Box::pin(async move {
            self.alive()?;
            self.fabric.network.datagrams(&self.life, address)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use env::Env;

    use super::*;
    use crate::{EPOCH, Latency, Seed, Simulation};

    fn machine(seed: u64) -> (Simulation, Env) {
        let simulation = Simulation::new(Seed(seed), Latency::NONE);
        let env = simulation.machine(IpAddr::from([192, 0, 2, 1]));
        (simulation, env)
    }

    #[test]
    fn time_passes_by_sleeping_alone_and_both_clocks_agree() {
        let (simulation, env) = machine(1);
        assert_eq!(env.monotonic(), Monotonic::default());
        simulation.run(async {
            env.sleep(Duration::from_secs(365 * 86_400)).await;
            let late = env.timeout(Duration::from_secs(5), std::future::pending::<()>()).await;
            assert_eq!(late, Err(env::Elapsed));
        });
        let elapsed = Duration::from_secs(365 * 86_400 + 5);
        assert_eq!(env.monotonic(), Monotonic::from_start(elapsed), "also outside the runtime");
        assert_eq!(env.wall().unix_seconds() - EPOCH.unix_seconds(), 365 * 86_400 + 5);
    }

    #[test]
    fn tasks_end_with_their_handles_and_blocking_work_tells_its_panics() {
        let (simulation, env) = machine(1);
        simulation.run(async {
            let (sender, dropped) = tokio::sync::oneshot::channel::<()>();
            drop(env.spawn("dropped", async move {
                std::future::pending::<()>().await;
                drop(sender);
            }));
            assert!(dropped.await.is_err());
            assert_eq!(env.spawn("kept", async { 7 }).await, Ok(7));
            assert_eq!(env.run_blocking(|| 2 + 2).await, Ok(4));
            assert!(env.run_blocking(|| -> u8 { panic!("as planned") }).await.is_err());
        });
        assert_eq!(env.monotonic(), Monotonic::default(), "work takes no virtual time");
    }

    #[test]
    fn chance_follows_the_seed_and_differs_by_machine() {
        let draw = |seed| {
            let (simulation, first) = machine(seed);
            let second = simulation.machine(IpAddr::from([192, 0, 2, 2]));
            (first.random_array::<32>(), second.random_array::<32>())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1).0, draw(1).1);
    }
}
