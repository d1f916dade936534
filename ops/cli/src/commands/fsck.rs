//! `rookery fsck`
//!
//! Lines come from the check in this process, or from the server's; both end when nobody reads
//! them, so an interrupted command leaves none behind.

use std::ops::ControlFlow;

use node::admin::fsck::{Checker, Cure, Finding, Line, Request, Summary};
use serde::Serialize;
use tokio::{signal, sync::mpsc};

use crate::{
    args::FsckArgs,
    backend::{Backend, Direct},
    error::CliError,
    output::{Output, Row},
    progress::ProgressLine,
    remote::{Remote, RemoteError},
};

/// Lines that wait to be printed.
const LINES_MAX: usize = 64;

impl Row for Finding {
    const HEADER: &'static [&'static str] = &["ACCOUNT", "FINDING", "REMEDY", "DETAIL"];
    fn cells(&self) -> Vec<String> {
        let account = self.account.map_or_else(|| "-".to_owned(), |account| account.to_string());
        let remedy = match self.remedy {
            Cure::Repair => "repair",
            Cure::Person => "needs a person",
            Cure::None => "none needed",
        };
        vec![account, self.code.clone(), remedy.to_owned(), self.detail.clone()]
    }
}

pub(crate) fn run(args: &FsckArgs) -> Result<(), CliError> {
    let done = check(args);
    done.map_err(|error| match error {
        told @ (CliError::Damaged(_) | CliError::Unchecked(_)) => told,
        other => CliError::Unchecked(other.to_string()),
    })
}

fn check(args: &FsckArgs) -> Result<(), CliError> {
    let backend = Backend::open(&args.target)?;
    let request = Request {
        account: args.account.clone(),
        repair: args.repair,
        bytes: args.bytes,
        speed: args.speed,
    };
    let mut report = Report::new(args);
    let done = match &backend {
        Backend::Direct(direct) => check_here(direct, &request, &mut report),
        Backend::Remote(remote) => check_there(remote, &request, &mut report),
    };
    report.progress.line.end();
    let closed = backend.close();
    done?;
    closed?;
    report.verdict()
}

/// Checks a store that is open in this process.
fn check_here(direct: &Direct, request: &Request, report: &mut Report) -> Result<(), CliError> {
    let checker = Checker::new(direct.stores().blobs.clone());
    let check = direct.run(checker.begin(&direct.admin, request))?;
    direct.wait(async {
        let (lines, told) = mpsc::channel(LINES_MAX);
        let checking = async {
            check.run(&lines).await;
            drop(lines);
        };
        let mut hearing = std::pin::pin!(report.hear(told));
        // An interruption drops the check where it stands: every transaction is whole or nothing.
        tokio::select! {
            biased;
            heard = &mut hearing => heard,
            () = checking => hearing.await,
        }
    })
}

/// Has a server check its store.
fn check_there(remote: &Remote, request: &Request, report: &mut Report) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Process { what: "a runtime", reason: error.to_string() })?;
    let (lines, told) = mpsc::channel(LINES_MAX);
    std::thread::scope(|threads| {
        let asked = threads.spawn(move || {
            remote.lines(&["fsck"], request, |line: Line| match lines.blocking_send(line) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_nobody_reads) => ControlFlow::Break(()),
            })
        });
        let heard = runtime.block_on(report.hear(told));
        if heard.is_err() {
            // The thread may wait for the server's next line; the process's end is the
            // connection's, and the server stops when it sees that.
            report.progress.line.end();
            let error = CliError::Unchecked(heard.err().map_or_else(String::new, reason_of));
            crate::output::complain(&error);
            std::process::exit(i32::from(error.exit_code()));
        }
        let asked: Result<(), RemoteError> =
            asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(asked?)
    })
}

fn reason_of(error: CliError) -> String {
    match error {
        CliError::Unchecked(reason) => reason,
        other => other.to_string(),
    }
}

/// What the command prints, and what it ends with.
struct Report {
    output: Output,
    json: bool,
    progress: Progress,
    last: Option<Result<Summary, String>>,
}

impl Report {
    fn new(args: &FsckArgs) -> Self {
        let output = Output::new(&args.target);
        let progress = Progress::new(args.progress);
        Self { output, json: args.target.json, progress, last: None }
    }

    /// Prints lines as they come, until the last or an interruption.
    async fn hear(&mut self, mut told: mpsc::Receiver<Line>) -> Result<(), CliError> {
        loop {
            let line = tokio::select! {
                biased;
                line = told.recv() => line,
                interrupted = signal::ctrl_c() => {
                    let reason = match interrupted {
                        Ok(()) => "interrupted".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    return Err(CliError::Unchecked(reason));
                }
            };
            let Some(line) = line else { return Ok(()) };
            self.line(line)?;
        }
    }

    fn line(&mut self, line: Line) -> Result<(), CliError> {
        if let Line::Progress { .. } = &line {
            self.progress.show(&line);
            return if self.json { self.print_json(&line) } else { Ok(()) };
        }
        self.progress.line.clear();
        match &line {
            Line::Done(summary) => self.last = Some(Ok(*summary)),
            Line::Stopped { reason } => self.last = Some(Err(reason.clone())),
            _ => {}
        }
        if self.json {
            return self.print_json(&line);
        }
        match line {
            Line::Finding(finding) => self.output.rows(&[finding]),
            Line::Mended(finding) => self.output.line(format_args!("mended: {}", finding.detail)),
            Line::NotMended { finding, reason } => {
                self.output.line(format_args!("not mended: {}: {reason}", finding.detail))
            }
            Line::Unchecked { account: Some(account), detail } => {
                self.output.line(format_args!("not checked: account {account}: {detail}"))
            }
            Line::Unchecked { account: None, detail } => {
                self.output.line(format_args!("not checked: {detail}"))
            }
            Line::Done(summary) => self.summary(&summary),
            Line::Progress { .. } | Line::Stopped { .. } => Ok(()),
        }
    }

    fn print_json(&self, line: &impl Serialize) -> Result<(), CliError> {
        self.output.done(format_args!(""), line)
    }

    fn summary(&self, summary: &Summary) -> Result<(), CliError> {
        let Summary { findings, mended, remaining, accounts, emails, bytes, .. } = summary;
        let read = megabytes(*bytes);
        self.output.line(format_args!(
            "{accounts} accounts, {emails} emails{read}: {findings} findings, {mended} mended, \
             {remaining} remain"
        ))
    }

    fn verdict(self) -> Result<(), CliError> {
        match self.last {
            Some(Ok(summary)) if summary.remaining > 0 => Err(CliError::Damaged(summary.remaining)),
            Some(Ok(summary)) if summary.unchecked > 0 => {
                Err(CliError::Unchecked(format!("{} parts changed too fast", summary.unchecked)))
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(reason)) => Err(CliError::Unchecked(reason)),
            None => Err(CliError::Unchecked("the check was cut off".to_owned())),
        }
    }
}

/// How far the check is, and since when.
struct Progress {
    line: ProgressLine,
    clock: env::Env,
    begun: env::Monotonic,
}

/// Cells of the bar.
const BAR: u64 = 20;

impl Progress {
    fn new(asked_for: bool) -> Self {
        let clock = env::Env::system();
        let begun = clock.monotonic();
        Self { line: ProgressLine::new(asked_for), clock, begun }
    }

    fn show(&mut self, line: &Line) {
        let seconds = self.clock.monotonic().saturating_since(self.begun).as_secs();
        if self.line.is_shown()
            && let Some(text) = bar(line, seconds)
        {
            self.line.show(&text);
        }
    }
}

/// How far a check is, in one line.
fn bar(line: &Line, seconds: u64) -> Option<String> {
    let Line::Progress { phase, accounts_done, accounts_total, emails, blobs, bytes } = line else {
        return None;
    };
    let read = megabytes(*bytes);
    let total = (*accounts_total).max(*accounts_done).max(1);
    let full = usize::try_from(accounts_done.saturating_mul(BAR) / total).unwrap_or(0);
    let bar: String = (0..20).map(|cell| if cell < full { '#' } else { '.' }).collect();
    let rate = emails / seconds.max(1);
    Some(format!(
        "[{bar}] {phase}: {accounts_done}/{accounts_total} accounts, {emails} emails \
         ({rate}/s), {blobs} blobs{read}"
    ))
}

/// How much was read, where bytes are read at all.
fn megabytes(bytes: u64) -> String {
    if bytes > 0 { format!(", {} MB read", bytes >> 20) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        let line = |done, bytes| Line::Progress {
            phase: "accounts".to_owned(),
            accounts_done: done,
            accounts_total: 4,
            emails: 100,
            blobs: 7,
            bytes,
        };
        assert_eq!(
            bar(&line(1, 0), 10).unwrap(),
            "[#####...............] accounts: 1/4 accounts, 100 emails (10/s), 7 blobs"
        );
        let full = bar(&line(9, 3 << 20), 0).unwrap();
        assert!(full.starts_with("[####################]"), "{full}");
        assert!(full.ends_with("7 blobs, 3 MB read"), "{full}");
    }
}
