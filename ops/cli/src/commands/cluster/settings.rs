//! `rookery cluster settings …`

use node::admin::cluster::{self, SettingChange, SettingInfo};
use serde_json::json;

use super::rows::ago;
use crate::{
    args::SettingsCommand,
    backend::Backend,
    error::CliError,
    output::{Output, Row},
};

impl Row for SettingInfo {
    const HEADER: &'static [&'static str] = &["SETTING", "VALUE", "DEFAULT"];
    fn cells(&self) -> Vec<String> {
        let value = self.value.clone().unwrap_or_else(|| "(each node's file)".to_owned());
        vec![self.name.clone(), value, self.default.clone()]
    }
}

impl Row for SettingChange {
    const HEADER: &'static [&'static str] = &["VERSION", "WHEN", "SETTING", "FROM", "TO", "BY"];
    fn cells(&self) -> Vec<String> {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.version.to_string(),
            ago(Some(self.at_ms)),
            self.name.clone(),
            shown(&self.before),
            shown(&self.after),
            self.by.clone(),
        ]
    }
}

pub(super) fn run(
    backend: &Backend,
    output: &mut Output,
    command: &SettingsCommand,
) -> Result<(), CliError> {
    match command {
        SettingsCommand::Get { name } => {
            let mut found: Vec<SettingInfo> = match backend {
                Backend::Direct(direct) => direct.run(cluster::settings(&direct.admin))?,
                Backend::Remote(remote) => remote.get(&["cluster", "settings"], &[])?,
            };
            if let Some(name) = name {
                found.retain(|setting| setting.name == *name);
                if found.is_empty() {
                    return Err(CliError::Usage(format!("there is no setting {name}")));
                }
            }
            output.rows(&found)
        }
        SettingsCommand::Set { name, value } => {
            let set: SettingInfo = match backend {
                Backend::Direct(direct) => direct.run(cluster::change_setting(
                    &direct.admin,
                    name,
                    value.as_deref(),
                    "command line",
                ))?,
                Backend::Remote(remote) => {
                    remote.put(&["cluster", "settings", name], &json!({ "value": value }))?
                }
            };
            match &set.value {
                Some(value) => output.done(format_args!("{name} is {value} on all nodes"), &set),
                None => output.done(format_args!("{name} is as each node's file says"), &set),
            }
        }
        SettingsCommand::History => {
            let changes: Vec<SettingChange> = match backend {
                Backend::Direct(direct) => direct.run(cluster::setting_history(
                    &direct.admin,
                    node::limits::ADMIN_PAGE_ROWS_MAX,
                ))?,
                Backend::Remote(remote) => remote.get(&["cluster", "settings", "history"], &[])?,
            };
            output.rows(&changes)
        }
    }
}
