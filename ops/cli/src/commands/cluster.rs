//! `rookery cluster …`
//!
//! Everything but sessions is in the store, so where no server has it open, or it is one for many
//! (FoundationDB), the command looks there itself. Sessions are known to nodes alone: a node that
//! runs on the data folder asks all of them.

mod certificates;
mod drain;
mod log;
mod look;
pub(super) mod rows;
mod settings;

use node::admin::cluster::{self, Nowhere, SessionPage, SessionQuery, Unanswered};
use node::admin::{Page, PageQuery};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{all_pages, with_backend, with_running};
use crate::{
    args::{ClusterCommand, Group},
    backend::Backend,
    error::CliError,
    output::Output,
    remote::Remote,
};

pub(crate) fn run(group: Group<ClusterCommand>) -> Result<(), CliError> {
    let target = &group.target;
    match group.command {
        ClusterCommand::Status { watch: false } => look::status(target),
        ClusterCommand::Status { watch: true } => look::watch(target),
        ClusterCommand::Doctor => look::doctor(target),
        ClusterCommand::Drain { node, no_wait: true, .. } => drain::ask(target, &node),
        ClusterCommand::Drain { node, no_wait: false, timeout } => {
            drain::wait(target, &node, std::time::Duration::from_secs(timeout))
        }
        ClusterCommand::Undrain { node } => drain::undrain(target, &node),
        ClusterCommand::Nodes => with_backend(target, |backend, output| {
            all_pages(output, |query| match backend {
                Backend::Direct(direct) => direct.run(cluster::nodes(&direct.admin, query)),
                Backend::Remote(remote) => page(remote, &["cluster", "nodes"], query),
            })
        }),
        ClusterCommand::Forget { node } => with_backend(target, |backend, output| {
            match backend {
                Backend::Direct(direct) => direct.run(cluster::forget(&direct.admin, &node))?,
                Backend::Remote(remote) => remote.delete(&["cluster", "nodes", &node])?,
            }
            output.done(format_args!("forgot node {node}"), &json!({ "forgotten": node }))
        }),
        ClusterCommand::Sessions { local, account } => {
            with_running(target, |backend, output| sessions(backend, output, local, account))
        }
        ClusterCommand::KillSession { id } => with_running(target, |backend, output| {
            let ended: cluster::EndedSession = match backend {
                Backend::Direct(direct) => {
                    direct.run(cluster::end_session(&direct.admin, &Nowhere, &id))?
                }
                Backend::Remote(remote) => remote.delete(&["cluster", "sessions", &id])?,
            };
            let node = &ended.session.node;
            output.done(format_args!("session {id} on {node} says goodbye"), &ended.session)
        }),
        ClusterCommand::Settings(command) => {
            with_backend(target, |backend, output| settings::run(backend, output, &command))
        }
        ClusterCommand::Certificate(command) => {
            with_backend(target, |backend, output| certificates::run(backend, output, &command))
        }
        ClusterCommand::Log(args) => log::run(target, &args),
        ClusterCommand::Work { kind, zone } => with_backend(target, |backend, output| {
            work(backend, output, kind.as_deref(), zone.as_deref())
        }),
    }
}

fn page<T: DeserializeOwned>(
    remote: &Remote,
    path: &[&str],
    query: &PageQuery,
) -> Result<Page<T>, CliError> {
    let after = query.after.as_deref().map(|after| ("after", after));
    Ok(remote.get(path, after.as_slice())?)
}

fn work(
    backend: &Backend,
    output: &mut Output,
    kind: Option<&str>,
    zone: Option<&str>,
) -> Result<(), CliError> {
    match (kind, zone) {
        (Some(kind), Some(zone)) => all_pages(output, |query| match backend {
            Backend::Direct(direct) => direct.run(cluster::items(&direct.admin, kind, zone, query)),
            Backend::Remote(remote) => page(remote, &["cluster", "work", kind, zone], query),
        }),
        (Some(kind), None) => all_pages(output, |query| match backend {
            Backend::Direct(direct) => direct.run(cluster::zones(&direct.admin, kind, query)),
            Backend::Remote(remote) => page(remote, &["cluster", "work", kind], query),
        }),
        (None, _) => {
            let kinds: Vec<cluster::WorkInfo> = match backend {
                Backend::Direct(direct) => direct.run(cluster::kinds(&direct.admin))?,
                Backend::Remote(remote) => remote.get(&["cluster", "work"], &[])?,
            };
            output.rows(&kinds)?;
            let failing = kinds
                .iter()
                .flat_map(|kind| kind.worst.iter().map(move |item| (kind.kind.as_str(), item)));
            for (kind, item) in failing {
                output.remark(format_args!(
                    "{kind}, zone {}: failed {} times, last: {}",
                    item.zone, item.count, item.reason
                ))?;
            }
            Ok(())
        }
    }
}

fn sessions(
    backend: &Backend,
    output: &mut Output,
    local: bool,
    account: Option<String>,
) -> Result<(), CliError> {
    let mut query = SessionQuery { account, ..SessionQuery::default() };
    query.local = local.then(String::new);
    let mut unanswered: Vec<Unanswered> = Vec::new();
    loop {
        let found: SessionPage = match backend {
            Backend::Direct(direct) => {
                direct.run(cluster::list_sessions(&direct.admin, &Nowhere, &query))?
            }
            Backend::Remote(remote) => {
                let named =
                    [("after", &query.after), ("account", &query.account), ("local", &query.local)];
                let given: Vec<_> = named
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                    .collect();
                remote.get(&["cluster", "sessions"], &given)?
            }
        };
        output.rows(&found.items)?;
        unanswered.extend(found.unanswered);
        query.after = found.next;
        if query.after.is_none() {
            break;
        }
    }
    if unanswered.is_empty() {
        return Ok(());
    }
    let each: Vec<_> = unanswered.iter().map(|it| format!("{} ({})", it.node, it.reason)).collect();
    Err(CliError::Incomplete(each.join(", ")))
}
