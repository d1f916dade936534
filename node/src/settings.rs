//! Settings that hold for all nodes and are changed at run time: which there are, and what is in
//! force.
//!
//! A node's file says what holds where nothing is set. A setting that this release does not know, or
//! whose value it cannot take, is passed over with a warning: another release may have set it.

pub mod guard;
pub mod judging;
pub mod routes;
mod signing;

use std::{collections::BTreeMap, sync::Arc};

use cluster::settings::Record;
use tokio::sync::watch;

use self::{judging::Judging, routes::Routes};
use crate::config::{Config, Limits, Log, NumberKey, check_level, numbers};
pub use guard::Guard;
pub use signing::{Algorithms, Rotate, Signing, SrsDomain};

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bounds of what clients may use.
    pub limits: Limits,
    /// As in `log.level` of the configuration file.
    pub log_level: String,
    /// How mail for other domains leaves.
    pub routes: Routes,
    /// What becomes of mail whose origin is in doubt.
    pub judging: Judging,
    /// Signing for domains, and senders of forwarded mail.
    pub signing: Signing,
    /// Abuse control.
    pub guard: Guard,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            log_level: Log::default().level,
            routes: Routes::default(),
            judging: Judging::default(),
            signing: Signing::default(),
            guard: Guard::default(),
        }
    }
}

/// The setting of the log's level.
const LOG_LEVEL: &str = "log.level";

/// A number that can be set for all nodes.
struct Number {
    name: &'static str,
    field: fn(&mut Settings) -> &mut u64,
}

const NUMBERS_SHARED: [Number; 4] = [
    Number {
        name: "limits.message_bytes_max",
        field: |settings| &mut settings.limits.message_bytes_max,
    },
    Number { name: "limits.recipients_max", field: |settings| &mut settings.limits.recipients_max },
    Number {
        name: "limits.connections_max",
        field: |settings| &mut settings.limits.connections_max,
    },
    Number {
        name: "limits.connections_per_address_max",
        field: |settings| &mut settings.limits.connections_per_address_max,
    },
];

/// Why a setting is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is none of this name.
    #[error("there is no setting {name}; there are {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The value does not fit.
    #[error("{name} {reason}")]
    Invalid {
        /// The setting.
        name: String,
        /// What it has to be.
        reason: String,
    },
}

/// The names of all settings.
pub fn names() -> Vec<&'static str> {
    let numbers = NUMBERS_SHARED.iter().map(|number| number.name);
    let names = numbers.chain([LOG_LEVEL]).chain(Routes::names());
    names.chain(Judging::names()).chain(Signing::names()).chain(Guard::names()).collect()
}

/// Whether a name is one of those that a pattern such as `judging.spf_fail.DOMAIN` stands for: there
/// are as many as somebody sets, and none of them has a default.
pub fn is_of_pattern(name: &str) -> bool {
    names().iter().filter_map(|known| known.rsplit_once('.')).any(|(group, last)| {
        let of_group = name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.'));
        of_group && last.bytes().all(|byte| byte.is_ascii_uppercase())
    })
}

impl Settings {
    /// What holds where nothing is set.
    pub fn of(config: &Config) -> Self {
        Self {
            limits: config.limits.clone(),
            log_level: config.log.level.clone(),
            routes: Routes::of(config),
            ..Self::default()
        }
    }

    /// Sets one setting.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        if name == LOG_LEVEL {
            check_level(value)
                .map_err(|reason| SettingError::Invalid { name: LOG_LEVEL.to_owned(), reason })?;
            value.clone_into(&mut self.log_level);
            return Ok(());
        }
        if let Some(set) = self.routes.set(name, value) {
            return set;
        }
        if let Some(set) = self.judging.set(name, value) {
            return set;
        }
        if let Some(set) = self.signing.set(name, value) {
            return set;
        }
        if let Some(set) = self.guard.set(name, value) {
            return set;
        }
        let number = NUMBERS_SHARED.iter().find(|number| number.name == name);
        let number = number.ok_or_else(|| SettingError::Unknown { name: name.to_owned() })?;
        *(number.field)(self) = parse(number.name, value)?;
        Ok(())
    }

    /// What holds on a node with this configuration, with these settings.
    fn with(config: &Config, values: &BTreeMap<String, String>) -> Self {
        Self::of(config).changed(values)
    }

    /// The same where these are set.
    pub(crate) fn changed(mut self, values: &BTreeMap<String, String>) -> Self {
        for (name, value) in values {
            if let Err(error) = self.set(name, value) {
                tracing::warn!(%error, "a setting is passed over");
            }
        }
        self
    }

    /// The settings with their values, as texts.
    pub fn values(&self) -> Vec<(String, String)> {
        let mut copy = self.clone();
        let mut values: Vec<_> = NUMBERS_SHARED
            .iter()
            .map(|number| (number.name.to_owned(), (number.field)(&mut copy).to_string()))
            .collect();
        values.push((LOG_LEVEL.to_owned(), self.log_level.clone()));
        values.extend(self.routes.values());
        values.extend(self.judging.values());
        values.extend(self.signing.values());
        values.extend(self.guard.values());
        values
    }
}

fn parse(name: &'static str, value: &str) -> Result<u64, SettingError> {
    let range: Option<&NumberKey> = numbers().find(|number| number.key == name);
    let range = range.expect("every shared number is a key of the configuration");
    let parsed = value.parse().ok().filter(|value| (range.min..=range.max).contains(value));
    parsed.ok_or_else(|| SettingError::Invalid {
        name: name.to_owned(),
        reason: format!(
            "must be a number from {} to {} {}, not `{value}`",
            range.min, range.max, range.unit
        ),
    })
}

/// Keeps what is in force equal to what is set.
pub(crate) async fn follow(
    config: Config,
    mut set: watch::Receiver<Arc<Record>>,
    in_force: watch::Sender<Arc<Settings>>,
) {
    loop {
        let record = Arc::clone(&set.borrow_and_update());
        let settings = Settings::with(&config, &record.values);
        in_force.send_if_modified(|held| {
            let changed = **held != settings;
            if changed {
                tracing::info!(version = record.version, "settings have changed");
                *held = Arc::new(settings);
            }
            changed
        });
        if set.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortBase;

    fn config() -> Config {
        Config::dev(Some("/nonexistent".into()), PortBase::default()).unwrap()
    }

    #[test]
    fn what_is_set_is_in_force_and_the_rest_is_the_files() {
        let values = [
            ("limits.recipients_max", "500"),
            ("log.level", "debug"),
            ("limits.message_bytes_max", "12"),
            ("of.the.future", "1"),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::with(&config(), &values.into());
        assert_eq!(settings.limits.recipients_max, 500);
        assert_eq!(settings.log_level, "debug");
        assert_eq!(settings.limits.message_bytes_max, config().limits.message_bytes_max);
    }

    #[test]
    fn values_are_checked() {
        let mut settings = Settings::of(&config());
        let refused = |settings: &mut Settings, name, value: &str| {
            settings.set(name, value).unwrap_err().to_string()
        };
        let error = refused(&mut settings, "limits.recipients_max", "many");
        assert_eq!(
            error,
            "limits.recipients_max must be a number from 100 to 1000 recipients, not `many`"
        );
        assert!(refused(&mut settings, "limits.recipients_max", "1001").contains("100 to 1000"));
        assert!(refused(&mut settings, "log.level", "loud").contains("loud"));
        assert!(refused(&mut settings, "x", "1").starts_with("there is no setting x; there are "));
        for (name, value) in settings.values() {
            settings.set(&name, &value).unwrap();
        }
        assert!(is_of_pattern("judging.spf_fail.example.org") && !is_of_pattern("judging.x"));
        // Patterns stand for settings of which there are none.
        let is_pattern = |name: &&str| name.bytes().any(|byte| byte.is_ascii_uppercase());
        assert_eq!(
            settings.values().len(),
            names().iter().filter(|name| !is_pattern(name)).count()
        );
    }
}
