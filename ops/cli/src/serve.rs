//! `rookery serve`: a node from its start to its end.
//!
//! The first SIGTERM or SIGINT drains the node; the second ends it at once. SIGHUP reads the
//! certificate again. Logs go to standard error; standard output gets the line that begins with
//! `ready`, and what a development node has to say.

pub(crate) mod dev;

use std::time::Duration;

use env::Env;
use node::{
    Ending, Node, StartError, Started,
    config::{Config, PortBase},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::ServeArgs,
    backend::create_data_folder,
    error::CliError,
    logging::{self, LogControl},
    output::Output,
};

/// How long threads that may block are waited for at the very end.
const RUNTIME_END_TIME: Duration = Duration::from_secs(1);

/// Whether the node is for development.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Configured,
    Development,
}

pub(crate) fn serve(args: &ServeArgs) -> Result<(), CliError> {
    let (config, mode) = match &args.config {
        Some(file) => (Config::load(file)?, Mode::Configured),
        None => {
            let base = PortBase::new(args.port_base)
                .ok_or_else(|| CliError::Usage("--port-base is out of range".to_owned()))?;
            (Config::dev(args.data.clone(), base)?, Mode::Development)
        }
    };
    let log = logging::start(&config.log)?;
    create_data_folder(&config.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process { what: "threads", reason: error.to_string() })?;
    let ended = runtime.block_on(run(config, mode, &log));
    runtime.shutdown_timeout(RUNTIME_END_TIME);
    ended
}

async fn run(config: Config, mode: Mode, log: &LogControl) -> Result<(), CliError> {
    let env = Env::system();
    // Before anything is started, so that no signal finds the node without its handler.
    let mut signals = Signals::new()?;
    let listen = config.listen.clone();
    let node = match Box::pin(Node::start_unless(config, env, signals.end())).await? {
        Started::Serving(node) => *node,
        Started::Ended => return Ok(()),
    };
    let output = Output::human();
    let accounts = match mode {
        Mode::Configured => None,
        Mode::Development => Some(dev::accounts(&node.admin()).await?),
    };
    dev::greet(&output, &listen, accounts.as_ref())?;

    let mut settings = node.settings();
    let ending = loop {
        let request = tokio::select! {
            request = signals.next() => request,
            // The sender is the node's.
            Ok(()) = settings.changed() => {
                log.set_level(&settings.borrow_and_update().log_level);
                continue;
            }
            ending = node.asked_to_end() => break Some(ending),
        };
        match request {
            Request::End => break None,
            Request::Reload => match node.reload_tls() {
                Ok(()) => tracing::info!("read the certificate again"),
                Err(error) => tracing::error!(%error, "keeping the certificate in use"),
            },
        }
    };
    tracing::info!("draining");
    tokio::select! {
        () = Box::pin(node.drain()) => {
            tracing::info!("stopped");
            match ending {
                Some(Ending::Superseded) => Err(StartError::Superseded.into()),
                Some(Ending::Drain) | None => Ok(()),
            }
        }
        () = signals.end() => Err(CliError::Interrupted),
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM or SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// The signals that a node obeys.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind).map_err(|error| CliError::Process {
                what: "listening to signals",
                reason: error.to_string(),
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::End,
            _ = self.interrupt.recv() => Request::End,
            _ = self.hangup.recv() => Request::Reload,
        }
    }

    /// Waits for the end alone.
    pub(crate) async fn end(&mut self) {
        while self.next().await != Request::End {}
    }
}
