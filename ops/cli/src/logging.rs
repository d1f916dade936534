//! Logs: to standard error, for people on a terminal, as JSON otherwise.

use std::io::{self, IsTerminal};

use node::config::{Log, LogFormat};
use tracing_subscriber::{EnvFilter, fmt};

use crate::error::CliError;

/// Starts logging for the rest of the process.
pub(crate) fn start(log: &Log) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| CliError::Usage(format!("log.level: {error}")))?;
    let terminal = io::stderr().is_terminal();
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Auto if terminal => lines.with_ansi(true).try_init(),
        LogFormat::Human => lines.with_ansi(terminal).try_init(),
        LogFormat::Auto | LogFormat::Json => {
            lines.json().flatten_event(true).with_span_list(false).try_init()
        }
    };
    started.map_err(|error| CliError::Process { what: "logging", reason: error.to_string() })
}
