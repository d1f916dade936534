//! `rookery cluster log`
//!
//! Lines are in the memory of nodes that run, so a server has to be asked. An interruption is the
//! ordinary end of following.

use std::{collections::BTreeSet, ops::ControlFlow};

use env::Timestamp;
use node::{
    admin::cluster::{LogEvent, LogRequest},
    date,
    logs::{LogLine, Then},
};
use tokio::{signal, sync::mpsc};

use crate::{
    args::{LogArgs, TargetArgs},
    backend::Backend,
    error::CliError,
    output::{Output, complain},
};

/// Events that wait to be printed.
const EVENTS_MAX: usize = 64;

pub(super) fn run(target: &TargetArgs, args: &LogArgs) -> Result<(), CliError> {
    let remote = Backend::server(target)?;
    let then = if args.follow { Then::Follow } else { Then::End };
    let request =
        LogRequest { nodes: args.nodes.clone(), lines: args.lines, level: args.level, then };
    let mut shown = Shown::new(Output::new(target), then);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process { what: "a runtime", reason: error.to_string() })?;
    let (events, told) = mpsc::channel(EVENTS_MAX);
    std::thread::scope(|threads| {
        let asked = threads.spawn(|| {
            let events = events;
            remote.lines(&["cluster", "log"], &request, |event: LogEvent| {
                match events.blocking_send(event) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_nobody_reads) => ControlFlow::Break(()),
                }
            })
        });
        let heard = runtime.block_on(shown.hear(told));
        // The thread may wait for the server's next line; the process's end is the connection's,
        // and the server stops when it sees that.
        match heard.and_then(|heard| match heard {
            Heard::All => Ok(Heard::All),
            Heard::Interrupted => shown.print_held().map(|()| Heard::Interrupted),
        }) {
            Ok(Heard::All) => {}
            Ok(Heard::Interrupted) => std::process::exit(0),
            Err(error) => {
                complain(&error);
                std::process::exit(i32::from(error.exit_code()));
            }
        }
        asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    shown.verdict()
}

/// Why nothing more is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing more comes.
    All,
    /// The command was interrupted.
    Interrupted,
}

/// What is printed, and what the command ends with.
struct Shown {
    output: Output,
    then: Then,
    /// Lines of all nodes, to be printed in the order of their time: only where there is an end.
    held: Vec<(String, LogLine)>,
    /// Nodes that could not be read.
    missing: BTreeSet<String>,
    stopped: Option<String>,
}

impl Shown {
    fn new(output: Output, then: Then) -> Self {
        Self { output, then, held: Vec::new(), missing: BTreeSet::new(), stopped: None }
    }

    /// Takes events until the last or an interruption.
    async fn hear(&mut self, mut told: mpsc::Receiver<LogEvent>) -> Result<Heard, CliError> {
        loop {
            tokio::select! {
                biased;
                interrupted = signal::ctrl_c() => {
                    return match interrupted {
                        Ok(()) => Ok(Heard::Interrupted),
                        Err(error) => {
                            let reason = error.to_string();
                            Err(CliError::Process { what: "listening to signals", reason })
                        }
                    };
                }
                event = told.recv() => match event {
                    Some(event) => self.event(event)?,
                    None => return Ok(Heard::All),
                },
            }
        }
    }

    fn event(&mut self, event: LogEvent) -> Result<(), CliError> {
        match &event {
            LogEvent::Line { node, line } if self.then == Then::End => {
                self.held.push((node.clone(), line.clone()));
                return Ok(());
            }
            LogEvent::Pulse => return Ok(()),
            LogEvent::Gone { node, reason } => {
                self.missing.insert(format!("{node} ({reason})"));
            }
            LogEvent::Stopped { reason } => self.stopped = Some(reason.clone()),
            LogEvent::Line { .. } | LogEvent::Lost { .. } | LogEvent::Begun { .. } => {}
        }
        self.print(&event)
    }

    fn print(&self, event: &LogEvent) -> Result<(), CliError> {
        match event {
            LogEvent::Line { node, line } => {
                self.output.done(format_args!("{}", in_words(node, line)), event)
            }
            LogEvent::Lost { node, lines } => {
                self.output.done(format_args!("--- {node}: {lines} lines lost ---"), event)
            }
            LogEvent::Gone { node, reason } => {
                self.output.done(format_args!("--- {node}: {reason} ---"), event)
            }
            // Where there is an end, whoever is there needs no word.
            LogEvent::Begun { node, epoch } => match self.then {
                Then::Follow => {
                    self.output.done(format_args!("--- {node}, epoch {epoch} ---"), event)
                }
                Then::End => Ok(()),
            },
            LogEvent::Pulse | LogEvent::Stopped { .. } => Ok(()),
        }
    }

    fn print_held(&mut self) -> Result<(), CliError> {
        let mut held = std::mem::take(&mut self.held);
        held.sort_by_key(|(_, line)| line.at_ms);
        held.into_iter().try_for_each(|(node, line)| self.print(&LogEvent::Line { node, line }))
    }

    fn verdict(mut self) -> Result<(), CliError> {
        self.print_held()?;
        if let Some(reason) = self.stopped {
            return Err(CliError::LogEnded(reason));
        }
        let missing: Vec<_> = self.missing.into_iter().collect();
        match (self.then, missing.is_empty()) {
            (Then::Follow, _) => Err(CliError::LogEnded("the server hung up".to_owned())),
            (Then::End, true) => Ok(()),
            (Then::End, false) => Err(CliError::LogIncomplete(missing.join(", "))),
        }
    }
}

/// One line for people.
fn in_words(node: &str, line: &LogLine) -> String {
    let LogLine { at_ms, level, target, message, fields, .. } = line;
    let at = date::rfc3339(Timestamp::from_unix_ms(*at_ms));
    let level = level.as_str().to_uppercase();
    let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{at} {level:>5} {node} {target}: {message}{fields}")
}

#[cfg(test)]
mod tests {
    use node::logs::Level;

    use super::*;

    #[test]
    fn a_line_reads_well() {
        let line = LogLine {
            at_ms: 1_709_210_096_007,
            level: Level::Warn,
            target: "node::tls".to_owned(),
            message: "cannot".to_owned(),
            fields: [("error".to_owned(), "x y".to_owned())].into(),
            node: None,
        };
        let expected = "2024-02-29T12:34:56.007Z  WARN n1 node::tls: cannot error=x y";
        assert_eq!(in_words("n1", &line), expected);
    }
}
