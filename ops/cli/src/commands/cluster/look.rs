//! How all is, and what is wrong with it.
//!
//! Exit codes tell a script: 0 all is well, 1 something is wrong, 2 it could not be looked at.

use std::time::Duration;

use node::admin::cluster::{self, Report, Status};
use serde_json::json;

use crate::{
    args::TargetArgs,
    backend::Backend,
    commands::with_backend,
    error::CliError,
    output::{Output, complain},
    pause::Pause,
};

/// How often a watched status is looked at.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Puts the cursor at the top and clears what is below it.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) fn status(target: &TargetArgs) -> Result<(), CliError> {
    let done = with_backend(target, |backend, output| {
        let status = ask(backend)?;
        show(&status, output)?;
        match status.problems.len() {
            0 => Ok(()),
            some => Err(CliError::Unwell(some)),
        }
    });
    done.map_err(unseen)
}

/// Shows the status again and again, until the command is interrupted or nobody reads.
pub(super) fn watch(target: &TargetArgs) -> Result<(), CliError> {
    let pause = Pause::new()?;
    let watching = with_backend(target, |backend, output| {
        loop {
            let asked = ask(backend);
            if !target.json {
                output.raw(CLEAR)?;
            }
            match asked {
                Ok(status) => show(&status, &mut Output::new(target))?,
                Err(error) if target.json => {
                    let told = json!({ "error": error.to_string() });
                    output.done(format_args!(""), &told)?;
                }
                Err(error) => complain(&error),
            }
            pause.sleep(WATCH_PERIOD);
        }
    });
    watching.map_err(unseen)
}

pub(super) fn doctor(target: &TargetArgs) -> Result<(), CliError> {
    let done = with_backend(target, |backend, output| {
        let report: Report = match backend {
            Backend::Direct(direct) => {
                direct.run(cluster::doctor(&direct.admin, Some(&direct.stores().blobs)))?
            }
            Backend::Remote(remote) => remote.get(&["cluster", "doctor"], &[])?,
        };
        if target.json {
            output.done(format_args!(""), &report)?;
        } else if report.findings.is_empty() {
            output.line(format_args!("all is well"))?;
        }
        for it in report.findings.iter().filter(|_| !target.json) {
            output.line(format_args!("{}: {}", it.severity.as_str(), it.sentence))?;
            output.line(format_args!("    {}", it.advice))?;
        }
        let wrong = report.findings.iter().filter(|it| it.severity != cluster::Severity::Note);
        match wrong.count() {
            0 => Ok(()),
            some => Err(CliError::Unwell(some)),
        }
    });
    done.map_err(unseen)
}

fn ask(backend: &Backend) -> Result<Status, CliError> {
    Ok(match backend {
        Backend::Direct(direct) => {
            direct.run(cluster::status(&direct.admin, Some(&direct.stores().blobs), None))?
        }
        Backend::Remote(remote) => remote.get(&["cluster"], &[])?,
    })
}

fn show(status: &Status, output: &mut Output) -> Result<(), CliError> {
    output.whole(status, |output| {
        output.rows(&status.nodes)?;
        if status.more_nodes {
            output.line(format_args!("… and more: rookery cluster nodes"))?;
        }
        output.line(format_args!(""))?;
        let health = &status.health;
        let mut fields = vec![
            ("store", format!("read {}", health.store_read.text())),
            ("", format!("commit {}", health.store_commit.text())),
        ];
        fields.extend(health.blobs.iter().map(|blobs| ("blobs", format!("list {}", blobs.text()))));
        output.fields(&fields, &())?;
        output.line(format_args!(""))?;
        output.next_table();
        output.rows(&status.work)?;
        output.line(format_args!(""))?;
        for problem in &status.problems {
            output.line(format_args!("problem: {problem}"))?;
        }
        if status.problems.is_empty() {
            output.line(format_args!("all is well"))?;
        }
        Ok(())
    })
}

/// What kept the command from looking.
fn unseen(error: CliError) -> CliError {
    match error {
        told @ (CliError::Unwell(_) | CliError::Output(_) | CliError::Usage(_)) => told,
        other => CliError::Unseen(other.to_string()),
    }
}
