//! Settings of signing and of rewritten senders: `dkim.…` and `srs.…`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cluster::dkim::Algorithm;

use super::SettingError;
use crate::names;

/// What stands for a value that is not there.
const NONE: &str = "none";

/// Days that a key is used where a name server takes its successor's record by itself.
const ROTATE_DAYS: u64 = 90;

/// The longest times that can be set: years are by hand.
const DAYS_MAX: u64 = 3_650;
const SETTLE_SECONDS_MAX: u64 = 7 * 86_400;

/// Signing for domains, and senders of forwarded mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// By what each domain signs.
    pub algorithms: Algorithms,
    /// When keys are replaced.
    pub rotate: Rotate,
    /// Days that a retired key's record stays.
    pub retire_days: u64,
    /// Seconds from the first time that DNS has a record until its key signs.
    pub settle_seconds: u64,
    /// The primary server that takes updates (RFC 2136).
    pub update_server: Option<SocketAddr>,
    /// The zone that it has; each domain is a zone of its own where this is not set.
    pub update_zone: Option<String>,
    /// The name of the TSIG key.
    pub update_key: Option<String>,
    /// The file on each node that has the TSIG key's secret, in base64.
    pub update_secret_file: Option<PathBuf>,
    /// Whose addresses senders of forwarded mail become.
    pub srs_domain: SrsDomain,
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithms {
    /// RSA and Ed25519: each message has two signatures.
    Both,
    /// One.
    Only(Algorithm),
    /// Nobody signs.
    None,
}

/// When keys are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// Every 90 days where a name server takes updates, by hand elsewhere.
    Auto,
    /// By hand alone.
    ByHand,
    /// After so many days.
    Days(u64),
}

/// Whose addresses senders of forwarded mail become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SrsDomain {
    /// The alias's own domain.
    Alias,
    /// This domain, whose mail comes here.
    Named(String),
    /// Senders stay as they are.
    Off,
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            algorithms: Algorithms::Both,
            rotate: Rotate::Auto,
            retire_days: 14,
            settle_seconds: 600,
            update_server: None,
            update_zone: None,
            update_key: None,
            update_secret_file: None,
            srs_domain: SrsDomain::Alias,
        }
    }
}

impl Algorithms {
    /// Each of them.
    pub fn each(self) -> Vec<Algorithm> {
        match self {
            Self::Both => vec![Algorithm::Rsa, Algorithm::Ed25519],
            Self::Only(algorithm) => vec![algorithm],
            Self::None => Vec::new(),
        }
    }
}

impl Signing {
    /// The names of these settings.
    pub fn names() -> Vec<&'static str> {
        vec![
            "dkim.algorithms",
            "dkim.rotate_days",
            "dkim.retire_days",
            "dkim.settle_seconds",
            "dkim.update_server",
            "dkim.update_zone",
            "dkim.update_key",
            "dkim.update_secret_file",
            "srs.domain",
        ]
    }

    /// Sets one; `None` where it is not one of these.
    pub fn set(&mut self, name: &str, value: &str) -> Option<Result<(), SettingError>> {
        let invalid = |reason: String| SettingError::Invalid { name: name.to_owned(), reason };
        let number = |max: u64| {
            let parsed = value.parse().ok().filter(|number| *number <= max);
            parsed
                .ok_or_else(|| invalid(format!("must be a number from 0 to {max}, not `{value}`")))
        };
        let domain = || {
            let folded = names::domain(value);
            folded.map_err(|_| invalid(format!("must be a domain or `{NONE}`, not `{value}`")))
        };
        let taken = match name {
            "dkim.algorithms" => {
                algorithms(value).map(|it| self.algorithms = it).ok_or_else(|| {
                    invalid(format!("must be both, rsa, ed25519 or none, not `{value}`"))
                })
            }
            "dkim.rotate_days" if value == "auto" => {
                self.rotate = Rotate::Auto;
                Ok(())
            }
            "dkim.rotate_days" => number(DAYS_MAX).map(|days| {
                self.rotate = if days == 0 { Rotate::ByHand } else { Rotate::Days(days) };
            }),
            "dkim.retire_days" => number(DAYS_MAX).map(|days| self.retire_days = days),
            "dkim.settle_seconds" => {
                number(SETTLE_SECONDS_MAX).map(|seconds| self.settle_seconds = seconds)
            }
            "dkim.update_server" => optional(value, || {
                let parsed = value.parse();
                parsed.map_err(|_| {
                    invalid(format!("must be ADDRESS:PORT or `{NONE}`, not `{value}`"))
                })
            })
            .map(|server| self.update_server = server),
            "dkim.update_zone" => optional(value, domain).map(|zone| self.update_zone = zone),
            "dkim.update_key" => optional(value, || match key_name(value) {
                true => Ok(value.to_owned()),
                false => {
                    Err(invalid(format!("must be the name of a key or `{NONE}`, not `{value}`")))
                }
            })
            .map(|key| self.update_key = key),
            "dkim.update_secret_file" => optional(value, || match value.starts_with('/') {
                true => Ok(PathBuf::from(value)),
                false => {
                    Err(invalid(format!("must be an absolute path or `{NONE}`, not `{value}`")))
                }
            })
            .map(|file| self.update_secret_file = file),
            "srs.domain" => match value {
                "alias" => Ok(SrsDomain::Alias),
                "off" => Ok(SrsDomain::Off),
                named => names::domain(named)
                    .map(SrsDomain::Named)
                    .map_err(|_| invalid(format!("must be alias, off or a domain, not `{named}`"))),
            }
            .map(|domain| self.srs_domain = domain),
            _ => return None,
        };
        Some(taken)
    }

    /// Names and values, as texts.
    pub fn values(&self) -> Vec<(String, String)> {
        let none = || NONE.to_owned();
        let algorithms = match self.algorithms {
            Algorithms::Both => "both",
            Algorithms::Only(algorithm) => algorithm.as_str(),
            Algorithms::None => NONE,
        };
        let rotate = match self.rotate {
            Rotate::Auto => "auto".to_owned(),
            Rotate::ByHand => "0".to_owned(),
            Rotate::Days(days) => days.to_string(),
        };
        let file = self.update_secret_file.as_ref().map(|file| file.display().to_string());
        let values = [
            algorithms.to_owned(),
            rotate,
            self.retire_days.to_string(),
            self.settle_seconds.to_string(),
            self.update_server.map_or_else(none, |server| server.to_string()),
            self.update_zone.clone().unwrap_or_else(none),
            self.update_key.clone().unwrap_or_else(none),
            file.unwrap_or_else(none),
            match &self.srs_domain {
                SrsDomain::Alias => "alias".to_owned(),
                SrsDomain::Off => "off".to_owned(),
                SrsDomain::Named(domain) => domain.clone(),
            },
        ];
        Self::names().into_iter().map(str::to_owned).zip(values).collect()
    }

    /// After how long a key in use is replaced; `None`: by hand.
    pub fn rotate_after(&self) -> Option<Duration> {
        let days = match (self.rotate, self.update_server) {
            (Rotate::Days(days), _) => days,
            (Rotate::Auto, Some(_)) => ROTATE_DAYS,
            (Rotate::Auto, None) | (Rotate::ByHand, _) => return None,
        };
        Some(Duration::from_hours(24 * days))
    }

    /// The zone of the name server that has a domain's names; `None` where none takes them.
    pub fn zone_of(&self, domain: &str) -> Option<String> {
        self.update_server?;
        match &self.update_zone {
            None => Some(domain.to_owned()),
            Some(zone) => {
                let within = domain.strip_suffix(zone.as_str());
                within.filter(|it| it.is_empty() || it.ends_with('.')).map(|_| zone.clone())
            }
        }
    }
}

fn algorithms(text: &str) -> Option<Algorithms> {
    match text {
        "both" => Some(Algorithms::Both),
        "rsa" => Some(Algorithms::Only(Algorithm::Rsa)),
        "ed25519" => Some(Algorithms::Only(Algorithm::Ed25519)),
        NONE => Some(Algorithms::None),
        _ => None,
    }
}

fn optional<T>(
    value: &str,
    read: impl FnOnce() -> Result<T, SettingError>,
) -> Result<Option<T>, SettingError> {
    if value == NONE { Ok(None) } else { read().map(Some) }
}

/// Letters, digits and what else stands in names of keys.
fn key_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let mut settings = Signing::default();
        for (name, value) in [
            ("dkim.algorithms", "rsa"),
            ("dkim.rotate_days", "30"),
            ("dkim.update_server", "127.0.0.1:53"),
            ("dkim.update_zone", "example.org"),
            ("dkim.update_key", "rookery-key"),
            ("dkim.update_secret_file", "/etc/rookery/tsig"),
            ("srs.domain", "fwd.example.org"),
        ] {
            settings.set(name, value).unwrap().unwrap();
        }
        let mut copy = Signing::default();
        for (name, value) in settings.values() {
            copy.set(&name, &value).unwrap().unwrap();
        }
        assert_eq!(copy, settings);
        assert_eq!(settings.zone_of("a.example.org").as_deref(), Some("example.org"));
        assert_eq!(settings.zone_of("badexample.org"), None);
        assert!(settings.set("dkim.other", "1").is_none());
        for (name, value) in [
            ("dkim.algorithms", "dsa"),
            ("dkim.rotate_days", "9999"),
            ("dkim.update_server", "ns.example.org"),
            ("dkim.update_secret_file", "tsig"),
            ("srs.domain", "a b"),
        ] {
            let refused = settings.set(name, value).unwrap();
            assert!(refused.unwrap_err().to_string().starts_with(name), "{name}");
        }
    }

    #[test]
    fn keys_rotate_by_themselves_where_somebody_publishes_them() {
        let mut settings = Signing::default();
        assert_eq!(settings.rotate_after(), None);
        settings.update_server = Some(([127, 0, 0, 1], 53).into());
        assert_eq!(settings.rotate_after(), Some(Duration::from_hours(24 * 90)));
        settings.rotate = Rotate::ByHand;
        assert_eq!(settings.rotate_after(), None);
    }
}
