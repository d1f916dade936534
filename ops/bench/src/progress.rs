//! The live line on standard error.

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    pin::Pin,
    sync::atomic::Ordering,
};

use env::{Env, Monotonic};

use crate::{args::CommonArgs, limits::PROGRESS_PERIOD, load::Run};

/// How the line is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Over the one before.
    Terminal,
    /// Below the one before.
    Lines,
    Silent,
}

/// Tells how it goes.
pub(crate) struct Progress {
    env: Env,
    manner: Manner,
    began: Monotonic,
}

impl Progress {
    pub(crate) fn new(env: &Env, common: &CommonArgs) -> Self {
        let manner = match (io::stderr().is_terminal(), common.progress) {
            (true, _) => Manner::Terminal,
            (false, true) => Manner::Lines,
            (false, false) => Manner::Silent,
        };
        Self { env: env.clone(), manner, began: env.monotonic() }
    }

    /// Tells how it goes until `work` ends.
    pub(crate) async fn during(
        &self,
        run: &Run,
        work: Pin<Box<dyn Future<Output = ()> + Send + '_>>,
    ) {
        if self.manner == Manner::Silent {
            return work.await;
        }
        let mut work = work;
        let mut before = (self.env.monotonic(), run.succeeded.load(Ordering::Relaxed));
        loop {
            tokio::select! {
                biased;
                () = &mut work => break,
                () = self.env.sleep(PROGRESS_PERIOD) => before = self.show(run, before),
            }
        }
        if self.manner == Manner::Terminal {
            write("\r\x1b[K");
        }
    }

    fn show(&self, run: &Run, before: (Monotonic, u64)) -> (Monotonic, u64) {
        let now = self.env.monotonic();
        let succeeded = run.succeeded.load(Ordering::Relaxed);
        let rate = (succeeded - before.1) as f64 / (now - before.0).as_secs_f64().max(1e-9);
        let p99 = run.latency.quantile(990).unwrap_or_default().as_secs_f64() * 1e3;
        let line = format!(
            "{:.0} s: {} open, {succeeded} done, {rate:.0}/s, p99 {p99:.2} ms, {} errors",
            (now - self.began).as_secs_f64(),
            run.opened.load(Ordering::Relaxed),
            run.failures.total(),
        );
        match self.manner {
            Manner::Terminal => write(&format!("\r\x1b[K{line}")),
            Manner::Lines => write(&format!("{line}\n")),
            Manner::Silent => {}
        }
        (now, succeeded)
    }
}

/// Tells one thing that others may wait for.
pub(crate) fn note(text: &str) {
    write(&format!("{text}\n"));
}

fn write(text: &str) {
    let mut out = io::stderr().lock();
    // Where even this cannot be written there is nobody to tell.
    let _lost = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
