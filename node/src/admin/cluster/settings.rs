//! Settings that hold for all nodes.

use cluster::settings as store;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};
use crate::settings::{SettingError, Settings, is_of_pattern};

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingInfo {
    /// Its name.
    pub name: String,
    /// What it is set to; `None` where each node's file says.
    pub value: Option<String>,
    /// What holds where neither the setting nor a file says anything.
    pub default: String,
}

/// One change of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// The settings' version that it made.
    pub version: u64,
    /// The setting.
    pub name: String,
    /// What it was set to.
    pub before: Option<String>,
    /// What it is set to.
    pub after: Option<String>,
    /// When, by the clock of the node that was asked, milliseconds since 1970.
    pub at_ms: i64,
    /// Who asked.
    pub by: String,
}

/// All settings.
///
/// # Errors
/// [`AdminError`].
pub async fn settings(admin: &Admin) -> Result<Vec<SettingInfo>, AdminError> {
    let record = admin.db.run(|tx| async move { store::current(&tx).await }).await?;
    let mut all = Settings::default().values();
    // Those of patterns, such as one domain's, have no default of their own.
    let unlisted: Vec<_> =
        record.values.keys().filter(|name| all.iter().all(|(known, _)| known != *name)).collect();
    all.extend(unlisted.into_iter().map(|name| (name.clone(), String::new())));
    let info = |(name, default): (String, String)| SettingInfo {
        value: record.values.get(&name).cloned(),
        name,
        default,
    };
    Ok(all.into_iter().map(info).collect())
}

/// Sets a setting, or lets each node's file say again; in force on all nodes within a heartbeat.
///
/// # Errors
/// [`AdminError::Setting`] where there is no such setting, or the value does not fit.
pub async fn change_setting(
    admin: &Admin,
    name: &str,
    value: Option<&str>,
    by: &str,
) -> Result<SettingInfo, AdminError> {
    let mut checked = Settings::default();
    let values = checked.values();
    let default = values.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    match value.or(default.as_deref()) {
        Some(value) => checked.set(name, value).map_err(AdminError::Setting)?,
        None if is_of_pattern(name) => {}
        None => {
            return Err(AdminError::Setting(SettingError::Unknown { name: name.to_owned() }));
        }
    }
    let default = default.unwrap_or_default();
    let now = admin.env.wall();
    let change =
        |tx: kv::Transaction| async move { store::change(&tx, name, value, by, now).await };
    admin.db.run(change).await?;
    Ok(SettingInfo { name: name.to_owned(), value: value.map(str::to_owned), default })
}

/// Changes, the newest first.
///
/// # Errors
/// [`AdminError`].
pub async fn setting_history(
    admin: &Admin,
    limit: usize,
) -> Result<Vec<SettingChange>, AdminError> {
    let changes = admin.db.run(|tx| async move { store::history(&tx, limit).await }).await?;
    let change = |it: store::Change| SettingChange {
        version: it.version,
        name: it.name,
        before: it.before,
        after: it.after,
        at_ms: it.at_ms,
        by: it.by,
    };
    Ok(changes.into_iter().map(change).collect())
}
