//! `rookery alias …` and `rookery group …`

use mail::directory::ListKind;
use node::admin::lists::{self, ListInfo, MemberChange};
use serde_json::json;

use super::{all_pages, remote_page, with_backend};
use crate::{
    args::{AliasCommand, Group, GroupCommand, TargetArgs},
    backend::Backend,
    error::CliError,
    output::Row,
};

impl Row for ListInfo {
    const HEADER: &'static [&'static str] = &["ADDRESS", "GOES TO"];
    fn cells(&self) -> Vec<String> {
        let members = match self.members.as_slice() {
            [] => "nobody".to_owned(),
            members => members.join(", "),
        };
        vec![self.address.clone(), members]
    }
}

/// What aliases and groups have in common.
enum ListCommand {
    Add { address: String, members: Vec<String> },
    List,
    Show { address: String },
    Remove { address: String },
    Change { address: String, change: MemberChange, member: String },
}

pub(crate) fn run_alias(group: Group<AliasCommand>) -> Result<(), CliError> {
    let command = match group.command {
        AliasCommand::Add { address, targets } => ListCommand::Add { address, members: targets },
        AliasCommand::List => ListCommand::List,
        AliasCommand::Remove { address } => ListCommand::Remove { address },
        AliasCommand::AddTarget { address, target } => {
            ListCommand::Change { address, change: MemberChange::Add, member: target }
        }
        AliasCommand::RemoveTarget { address, target } => {
            ListCommand::Change { address, change: MemberChange::Remove, member: target }
        }
    };
    run(&group.target, ListKind::Alias, &command)
}

pub(crate) fn run_group(group: Group<GroupCommand>) -> Result<(), CliError> {
    let command = match group.command {
        GroupCommand::Add { address, members } => ListCommand::Add { address, members },
        GroupCommand::List => ListCommand::List,
        GroupCommand::Show { address } => ListCommand::Show { address },
        GroupCommand::Remove { address } => ListCommand::Remove { address },
        GroupCommand::AddMember { address, member } => {
            ListCommand::Change { address, change: MemberChange::Add, member }
        }
        GroupCommand::RemoveMember { address, member } => {
            ListCommand::Change { address, change: MemberChange::Remove, member }
        }
    };
    run(&group.target, ListKind::Group, &command)
}

fn run(target: &TargetArgs, kind: ListKind, command: &ListCommand) -> Result<(), CliError> {
    let (path, word) = words(kind);
    with_backend(target, |backend, output| match command {
        ListCommand::Add { address, members } => {
            let made: ListInfo = match backend {
                Backend::Direct(direct) => {
                    direct.run(lists::add(&direct.admin, kind, address, members))?
                }
                Backend::Remote(remote) => {
                    remote.post(&[path], &json!({ "address": address, "members": members }))?
                }
            };
            output.done(format_args!("added {word} {}", made.address), &made)
        }
        ListCommand::List => all_pages::<ListInfo>(output, |query| match backend {
            Backend::Direct(direct) => direct.run(lists::list(&direct.admin, kind, query)),
            Backend::Remote(remote) => remote_page(remote, path, query),
        }),
        ListCommand::Show { address } => {
            let found: ListInfo = match backend {
                Backend::Direct(direct) => direct.run(lists::show(&direct.admin, kind, address))?,
                Backend::Remote(remote) => remote.get(&[path, address], &[])?,
            };
            output.rows(&[found])
        }
        ListCommand::Remove { address } => {
            match backend {
                Backend::Direct(direct) => {
                    direct.run(lists::remove(&direct.admin, kind, address))?;
                }
                Backend::Remote(remote) => remote.delete(&[path, address])?,
            }
            output.done(format_args!("removed {word} {address}"), &json!({ "removed": address }))
        }
        ListCommand::Change { address, change, member } => {
            let changed = change_member(backend, kind, address, *change, member)?;
            output.rows(&[changed])
        }
    })
}

fn change_member(
    backend: &Backend,
    kind: ListKind,
    address: &str,
    change: MemberChange,
    member: &str,
) -> Result<ListInfo, CliError> {
    let remote = match backend {
        Backend::Direct(direct) => {
            return direct.run(lists::change_member(&direct.admin, kind, address, change, member));
        }
        Backend::Remote(remote) => remote,
    };
    let (list, _) = words(kind);
    let path = [list, address, "members", member];
    Ok(match change {
        MemberChange::Add => remote.put(&path, &json!(null))?,
        MemberChange::Remove => remote.delete(&path)?,
    })
}

/// The API's path of a kind of list, and the word for one of them.
fn words(kind: ListKind) -> (&'static str, &'static str) {
    match kind {
        ListKind::Alias => ("aliases", "alias"),
        ListKind::Group => ("groups", "group"),
    }
}
