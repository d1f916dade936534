//! Logs: to standard error, for people on a terminal, as JSON otherwise; and the last lines in memory.

mod kept;

use std::io::{self, IsTerminal};

use node::config::{Log, LogFormat};
use tracing_subscriber::{
    EnvFilter, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::error::CliError;

/// Changes what is logged.
pub(crate) struct LogControl {
    set: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl LogControl {
    /// Logs at another level, as in `log.level`, from now on.
    pub(crate) fn set_level(&self, level: &str) {
        let set = EnvFilter::try_new(level).map(|filter| (self.set)(filter));
        match set {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the log's level stays"),
            Err(error) => tracing::error!(%error, "the log's level stays"),
        }
    }
}

/// Starts logging for the rest of the process.
pub(crate) fn start(log: &Log) -> Result<LogControl, CliError> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| CliError::Usage(format!("log.level: {error}")))?;
    let terminal = io::stderr().is_terminal();
    let (filter, handle) = reload::Layer::new(filter);
    let control = LogControl { set: Box::new(move |filter| handle.reload(filter)) };
    let lines = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter).with(kept::Kept::default());
    let started = match log.format {
        LogFormat::Auto if terminal => registry.with(lines.with_ansi(true)).try_init(),
        LogFormat::Human => registry.with(lines.with_ansi(terminal)).try_init(),
        LogFormat::Auto | LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            registry.with(lines).try_init()
        }
    };
    started
        .map(|()| control)
        .map_err(|error| CliError::Process { what: "logging", reason: error.to_string() })
}
