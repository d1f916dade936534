//! The administrative commands: from arguments to operations to output.

pub(crate) mod account;
pub(crate) mod backup;
pub(crate) mod block;
pub(crate) mod cluster;
pub(crate) mod domain;
pub(crate) mod fsck;
pub(crate) mod list;
pub(crate) mod queue;
pub(crate) mod reports;

use node::admin::{Page, PageQuery};

use crate::{args::TargetArgs, backend::Backend, error::CliError, output::Output};

/// Opens the backend, runs the command on it, and closes it again whatever came out.
fn with_backend(
    args: &TargetArgs,
    command: impl FnOnce(&Backend, &mut Output) -> Result<(), CliError>,
) -> Result<(), CliError> {
    on_backend(Backend::open(args)?, args, command)
}

/// The same, for what nodes have in memory.
fn with_running(
    args: &TargetArgs,
    command: impl FnOnce(&Backend, &mut Output) -> Result<(), CliError>,
) -> Result<(), CliError> {
    on_backend(Backend::open_running(args)?, args, command)
}

fn on_backend(
    backend: Backend,
    args: &TargetArgs,
    command: impl FnOnce(&Backend, &mut Output) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let done = command(&backend, &mut Output::new(args));
    let closed = backend.close();
    done.and(closed)
}

/// Prints a list page by page, so that its length costs no memory.
fn all_pages<T: crate::output::Row>(
    output: &mut Output,
    page: impl Fn(&PageQuery) -> Result<Page<T>, CliError>,
) -> Result<(), CliError> {
    let mut query = PageQuery::default();
    loop {
        let found = page(&query)?;
        output.rows(&found.items)?;
        query.after = found.next;
        if query.after.is_none() {
            return Ok(());
        }
    }
}

/// A page from a server.
fn remote_page<T: serde::de::DeserializeOwned>(
    remote: &crate::remote::Remote,
    path: &str,
    query: &PageQuery,
) -> Result<Page<T>, CliError> {
    let after = query.after.as_deref().map(|after| ("after", after));
    Ok(remote.get(&[path], after.as_slice())?)
}
