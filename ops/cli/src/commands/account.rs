//! `rookery account …`

use node::admin::{
    Password,
    accounts::{self, AccountDetail, AccountInfo, AccountState, Login, NewAccount},
};
use serde_json::json;

use super::{all_pages, remote_page, with_backend};
use crate::{
    args::{AccountCommand, Group},
    backend::Backend,
    error::CliError,
    output::{Output, Row},
    password,
    size::{Bytes, Quota},
};

impl Row for AccountInfo {
    const HEADER: &'static [&'static str] = &["ADDRESS", "STATE", "QUOTA", "DESCRIPTION"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.address.clone(),
            state(self.state).to_owned(),
            quota(self),
            self.description.clone(),
        ]
    }
}

fn state(state: AccountState) -> &'static str {
    match state {
        AccountState::Enabled => "enabled",
        AccountState::Disabled => "disabled",
        AccountState::Deleting => "deleting",
    }
}

fn quota(info: &AccountInfo) -> String {
    info.quota_bytes.map_or_else(|| "none".to_owned(), |bytes| Bytes(bytes.get()).to_string())
}

pub(crate) fn run(group: Group<AccountCommand>) -> Result<(), CliError> {
    // Asked for before anything is opened: a person may take long, and a store is locked.
    let password = match &group.command {
        AccountCommand::Add { password, .. } | AccountCommand::Password { password, .. } => {
            Some(password::read(*password)?)
        }
        _ => None,
    };
    with_backend(&group.target, |backend, output| match (group.command, password) {
        (AccountCommand::Add { address, description, quota, .. }, Some(password)) => {
            let new = NewAccount { address, password, description, quota_bytes: quota.0 };
            let made: AccountInfo = match backend {
                Backend::Direct(direct) => direct.run(accounts::add(&direct.admin, &new))?,
                Backend::Remote(remote) => remote.post(&["accounts"], &new)?,
            };
            output.done(format_args!("added account {}", made.address), &made)
        }
        (AccountCommand::Password { address, .. }, Some(password)) => {
            set_password(backend, output, &address, &password)
        }
        (AccountCommand::Add { .. } | AccountCommand::Password { .. }, None) => {
            unreachable!("a password was read above for these two")
        }
        (AccountCommand::List, _) => all_pages::<AccountInfo>(output, |query| match backend {
            Backend::Direct(direct) => direct.run(accounts::list(&direct.admin, query)),
            Backend::Remote(remote) => remote_page(remote, "accounts", query),
        }),
        (AccountCommand::Show { address }, _) => show(backend, output, &address),
        (AccountCommand::Remove { address }, _) => {
            match backend {
                Backend::Direct(direct) => direct.run(accounts::remove(&direct.admin, &address))?,
                Backend::Remote(remote) => remote.delete(&["accounts", &address])?,
            }
            output.done(
                format_args!("removed account {address} and its mail"),
                &json!({ "removed": address }),
            )
        }
        (AccountCommand::Quota { address, quota }, _) => {
            set_quota(backend, output, &address, quota)
        }
        (AccountCommand::Enable { address }, _) => {
            set_login(backend, output, &address, Login::Enabled)
        }
        (AccountCommand::Disable { address }, _) => {
            set_login(backend, output, &address, Login::Disabled)
        }
    })
}

fn set_password(
    backend: &Backend,
    output: &Output,
    address: &str,
    password: &Password,
) -> Result<(), CliError> {
    match backend {
        Backend::Direct(direct) => {
            direct.run(accounts::set_password(&direct.admin, address, password))?;
        }
        Backend::Remote(remote) => {
            remote
                .put::<()>(&["accounts", address, "password"], &json!({ "password": password }))?;
        }
    }
    output.done(
        format_args!("set a new password for {address}"),
        &json!({ "address": address, "password": "set" }),
    )
}

fn show(backend: &Backend, output: &Output, address: &str) -> Result<(), CliError> {
    let found: AccountDetail = match backend {
        Backend::Direct(direct) => direct.run(accounts::show(&direct.admin, address))?,
        Backend::Remote(remote) => remote.get(&["accounts", address], &[])?,
    };
    let info = &found.info;
    let fields = [
        ("address", info.address.clone()),
        ("description", info.description.clone()),
        ("state", state(info.state).to_owned()),
        ("emails", found.emails.to_string()),
        ("used", Bytes(found.used_bytes).to_string()),
        ("quota", quota(info)),
    ];
    output.fields(&fields, &found)
}

fn set_quota(
    backend: &Backend,
    output: &Output,
    address: &str,
    quota_bytes: Quota,
) -> Result<(), CliError> {
    let now: AccountInfo = match backend {
        Backend::Direct(direct) => {
            direct.run(accounts::set_quota(&direct.admin, address, quota_bytes.0))?
        }
        Backend::Remote(remote) => {
            remote.put(&["accounts", address, "quota"], &json!({ "quota_bytes": quota_bytes.0 }))?
        }
    };
    output.done(format_args!("quota of {}: {}", now.address, quota(&now)), &now)
}

fn set_login(
    backend: &Backend,
    output: &Output,
    address: &str,
    login: Login,
) -> Result<(), CliError> {
    let now: AccountInfo = match backend {
        Backend::Direct(direct) => {
            direct.run(accounts::set_login(&direct.admin, address, login))?
        }
        Backend::Remote(remote) => {
            remote.put(&["accounts", address, "login"], &json!({ "login": login }))?
        }
    };
    output.done(format_args!("{} is {}", now.address, state(now.state)), &now)
}
