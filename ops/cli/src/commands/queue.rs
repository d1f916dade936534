//! `rookery queue …`
//!
//! The queue is in the store, so where no server has it open, or it is one for many, the command works
//! there itself. What it orders is written down, and done by the node that has the domain.

mod rows;

use node::admin::{
    Page,
    queue::{
        self, Filter, OrderRequest, Ordered, QueueAction, QueueQuery, QueueStats, QueuedInfo,
        QueuedMessage, Selection, StatsQuery,
    },
};

use super::with_backend;
use crate::{
    args::{Group, ListArgs, QueueCommand, SelectArgs},
    backend::Backend,
    error::CliError,
    output::Output,
};

/// Messages that one request names.
const IDS_PER_REQUEST: usize = 500;

pub(crate) fn run(group: Group<QueueCommand>) -> Result<(), CliError> {
    with_backend(&group.target, |backend, output| match group.command {
        QueueCommand::List(args) => list(backend, output, args),
        QueueCommand::Show { id } => show(backend, output, &id),
        QueueCommand::Retry(args) => order(backend, output, QueueAction::Retry, args),
        QueueCommand::Hold(args) => order(backend, output, QueueAction::Hold, args),
        QueueCommand::Release(args) => order(backend, output, QueueAction::Release, args),
        QueueCommand::Cancel { select, notify: false } => {
            order(backend, output, QueueAction::Cancel, select)
        }
        QueueCommand::Cancel { select, notify: true } => {
            order(backend, output, QueueAction::CancelAndNotify, select)
        }
        QueueCommand::Flush => give(backend, output, QueueAction::Retry, vec![Selection::All]),
        QueueCommand::Stats { top } => stats(backend, output, top),
    })
}

fn list(backend: &Backend, output: &mut Output, args: ListArgs) -> Result<(), CliError> {
    let mut query = QueueQuery {
        after: None,
        limit: None,
        domain: args.domain,
        sender: args.sender,
        older_than_seconds: args.older_than.map(|age| age.0.as_secs()),
        id: args.id,
        state: args.state,
    };
    let mut left = args.limit;
    loop {
        query.limit = Some(left.min(1_000));
        let page: Page<QueuedInfo> = match backend {
            Backend::Direct(direct) => direct.run(queue::list(&direct.admin, &query))?,
            Backend::Remote(remote) => {
                let limit = query.limit.map(|limit| limit.to_string());
                let older = query.older_than_seconds.map(|seconds| seconds.to_string());
                let named = [
                    ("after", query.after.as_deref()),
                    ("limit", limit.as_deref()),
                    ("domain", query.domain.as_deref()),
                    ("sender", query.sender.as_deref()),
                    ("older_than_seconds", older.as_deref()),
                    ("id", query.id.as_deref()),
                    ("state", query.state.map(queue::QueueState::as_str)),
                ];
                let given: Vec<_> =
                    named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                remote.get(&["queue"], &given)?
            }
        };
        output.rows(&page.items)?;
        left = left.saturating_sub(page.items.len());
        query.after = page.next;
        match query.after {
            None => return Ok(()),
            Some(_) if left == 0 => {
                return output.remark(format_args!(
                    "… and more: --limit shows more rows, `rookery queue stats` counts them"
                ));
            }
            Some(_) => {}
        }
    }
}

fn show(backend: &Backend, output: &mut Output, id: &str) -> Result<(), CliError> {
    let message: QueuedMessage = match backend {
        Backend::Direct(direct) => direct.run(queue::show(&direct.admin, id))?,
        Backend::Remote(remote) => remote.get(&["queue", "messages", id], &[])?,
    };
    output.whole(&message, |output| {
        output.fields(&rows::fields(&message), &())?;
        for share in &message.shares {
            output.line(format_args!(""))?;
            output.line(format_args!("{}", rows::share(share)))?;
            output.next_table();
            output.rows(&share.recipients)?;
        }
        for domain in &message.not_found {
            output.line(format_args!(
                "{domain}: not found; it has just been moved, or more waits there than is looked \
                 through"
            ))?;
        }
        Ok(())
    })
}

fn stats(backend: &Backend, output: &mut Output, top: usize) -> Result<(), CliError> {
    let stats: QueueStats = match backend {
        Backend::Direct(direct) => {
            direct.run(queue::stats(&direct.admin, &StatsQuery { top: Some(top) }))?
        }
        Backend::Remote(remote) => {
            remote.get(&["queue", "stats"], &[("top", top.to_string().as_str())])?
        }
    };
    output.whole(&stats, |output| {
        output.fields(&rows::totals(&stats), &())?;
        if !stats.top.is_empty() {
            output.line(format_args!(""))?;
            output.next_table();
            output.rows(&stats.top)?;
        }
        if stats.messages.at_least {
            output.line(format_args!("The count has stopped: there is more than it tells."))?;
        }
        Ok(())
    })
}

fn order(
    backend: &Backend,
    output: &Output,
    action: QueueAction,
    args: SelectArgs,
) -> Result<(), CliError> {
    let SelectArgs { ids, domain, sender, older_than, all } = args;
    let selections = match domain {
        _ if all => vec![Selection::All],
        _ if !ids.is_empty() => {
            ids.chunks(IDS_PER_REQUEST).map(|some| Selection::Messages(some.to_vec())).collect()
        }
        Some(domain) if sender.is_none() && older_than.is_none() => {
            vec![Selection::Domain(domain)]
        }
        domain => {
            let older_than_seconds = older_than.map(|age| age.0.as_secs());
            vec![Selection::Matching(Filter { domain, sender, older_than_seconds })]
        }
    };
    give(backend, output, action, selections)
}

/// Gives orders until all are given.
fn give(
    backend: &Backend,
    output: &Output,
    action: QueueAction,
    selections: Vec<Selection>,
) -> Result<(), CliError> {
    let mut all = Ordered::default();
    for selection in selections {
        let mut request = OrderRequest { action, selection, after: None };
        loop {
            let ordered: Ordered = match backend {
                Backend::Direct(direct) => direct.run(queue::order(&direct.admin, &request))?,
                Backend::Remote(remote) => remote.post(&["queue", "orders"], &request)?,
            };
            all.messages += ordered.messages;
            all.domains += ordered.domains;
            request.after = ordered.next;
            if request.after.is_none() {
                break;
            }
        }
    }
    let done = match action {
        QueueAction::Retry => "to be tried at once",
        QueueAction::Hold => "to be held",
        QueueAction::Release => "to be released",
        QueueAction::Cancel => "to be taken out",
        QueueAction::CancelAndNotify => "to be taken out and returned",
    };
    output.done(format_args!("{}: {done}", rows::ordered(&all)), &all)
}
