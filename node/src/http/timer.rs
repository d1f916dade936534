//! hyper's timers on [`Env`]'s clock.

use std::{
    future::Future,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use env::{BoxFuture, Env};
use hyper::rt::{Sleep, Timer};

/// hyper counts in [`Instant`]s, which no one can make but the ambient clock. One is taken as
/// the origin; all others are that plus [`Env`]'s time, and hyper looks at differences alone.
#[derive(Debug, Clone)]
pub(super) struct EnvTimer {
    env: Env,
    origin: Instant,
}

impl EnvTimer {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences count")]
    pub(super) fn new(env: Env) -> Self {
        Self { env, origin: Instant::now() }
    }
}

impl Timer for EnvTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        let env = self.env.clone();
        let sleep: BoxFuture<'static, ()> = Box::pin(async move { env.sleep(duration).await });
        Box::pin(EnvSleep { sleep: Mutex::new(sleep) })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        self.origin + self.env.monotonic().since_start()
    }
}

/// hyper wants its sleeps `Sync`, which a mutex that is never locked makes them.
struct EnvSleep {
    sleep: Mutex<BoxFuture<'static, ()>>,
}

impl Future for EnvSleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_mut().expect("the mutex is never locked, so never poisoned");
        sleep.as_mut().poll(cx)
    }
}

impl Sleep for EnvSleep {}
