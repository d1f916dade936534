//! Routes by domain: how mail for it leaves, where its MX records are not to say.
//!
//! `route.DOMAIN` is one domain's, `route.*` that of all others. A password is never part of a setting,
//! which everybody may read who administers: it is in a file on each node, which the setting names.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::SettingError;
use crate::{config::Config, names};

/// What the names of these settings begin with.
const PREFIX: &str = "route.";

/// The domain of the route for all others.
const OTHERS: &str = "*";

/// What a value has to be.
const GRAMMAR: &str = "must be `direct`, `smarthost HOST[:PORT] [tls=starttls|implicit|opportunistic] \
                       [user=NAME secret=FILE]`, `lmtp HOST:PORT` or `local`";

/// The routes that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    by_domain: BTreeMap<String, Path>,
}

/// How mail for a domain leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Path {
    /// To the domain's own servers.
    #[default]
    Direct,
    /// To a server that passes it on.
    Smarthost(Smarthost),
    /// To a server of our own, by LMTP (RFC 2033).
    Lmtp {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Not at all: who is not served here is nobody.
    Local,
}

/// A server that passes mail on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smarthost {
    /// Its name, which is looked up by A and AAAA, or its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How TLS comes about.
    pub tls: SmarthostTls,
    /// Who logs in.
    pub login: Option<SmarthostLogin>,
}

/// How TLS to a smarthost comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmarthostTls {
    /// By STARTTLS, with a certificate that is verified.
    StartTls,
    /// From the start, with a certificate that is verified.
    Implicit,
    /// If it comes about.
    Opportunistic,
}

/// Who logs in to a smarthost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmarthostLogin {
    /// The name.
    pub user: String,
    /// The file on each node that has the password.
    pub secret: PathBuf,
}

impl Routes {
    /// What holds where nothing is set.
    pub fn of(_: &Config) -> Self {
        Self::default()
    }

    /// The names of these settings.
    pub fn names() -> Vec<&'static str> {
        vec!["route.DOMAIN"]
    }

    /// Sets one of these settings, or with an empty value takes it back; `None` where it is none.
    pub fn set(&mut self, name: &str, value: &str) -> Option<Result<(), SettingError>> {
        let domain = name.strip_prefix(PREFIX)?;
        Some(
            self.set_route(domain, value)
                .map_err(|reason| SettingError::Invalid { name: name.to_owned(), reason }),
        )
    }

    fn set_route(&mut self, domain: &str, value: &str) -> Result<(), String> {
        let domain = match domain {
            OTHERS => OTHERS.to_owned(),
            domain => names::domain(domain).map_err(|_| "does not name a domain".to_owned())?,
        };
        match value.trim() {
            "" => self.by_domain.remove(&domain),
            value => self.by_domain.insert(domain, Path::parse(value)?),
        };
        Ok(())
    }

    /// What is set, as texts.
    pub fn values(&self) -> Vec<(String, String)> {
        let text =
            |(domain, path): (&String, &Path)| (format!("{PREFIX}{domain}"), path.to_string());
        self.by_domain.iter().map(text).collect()
    }

    /// How mail for a domain leaves.
    pub(crate) fn path(&self, domain: &str) -> Path {
        let found = self.by_domain.get(domain).or_else(|| self.by_domain.get(OTHERS));
        found.cloned().unwrap_or_default()
    }
}

impl Path {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{GRAMMAR}, not `{text}`");
        let mut words = text.split_ascii_whitespace();
        let path = match words.next() {
            Some("direct") => Self::Direct,
            Some("local") => Self::Local,
            Some("lmtp") => {
                let (host, port) = host_and_port(words.next().ok_or_else(bad)?).ok_or_else(bad)?;
                Self::Lmtp { host, port: port.ok_or_else(bad)? }
            }
            Some("smarthost") => {
                let (host, port) = host_and_port(words.next().ok_or_else(bad)?).ok_or_else(bad)?;
                return Smarthost::parse(host, port, words, bad).map(Self::Smarthost);
            }
            _ => return Err(bad()),
        };
        if words.next().is_some() { Err(bad()) } else { Ok(path) }
    }
}

impl Smarthost {
    fn parse<'a>(
        host: String,
        port: Option<u16>,
        options: impl Iterator<Item = &'a str>,
        bad: impl Fn() -> String,
    ) -> Result<Self, String> {
        let (mut tls, mut user, mut secret) = (SmarthostTls::StartTls, None, None);
        for option in options {
            match option.split_once('=').ok_or_else(&bad)? {
                ("tls", "starttls") => tls = SmarthostTls::StartTls,
                ("tls", "implicit") => tls = SmarthostTls::Implicit,
                ("tls", "opportunistic") => tls = SmarthostTls::Opportunistic,
                ("user", name) if !name.is_empty() => user = Some(name.to_owned()),
                ("secret", file) if file.starts_with('/') => secret = Some(PathBuf::from(file)),
                _ => return Err(bad()),
            }
        }
        let login = match (user, secret) {
            (Some(user), Some(secret)) => Some(SmarthostLogin { user, secret }),
            (None, None) => None,
            _ => return Err("must have both user=NAME and secret=/FILE, or neither".to_owned()),
        };
        if login.is_some() && tls == SmarthostTls::Opportunistic {
            return Err("must not send a password where TLS is opportunistic".to_owned());
        }
        let default = match tls {
            // RFC 6409 §3.1, RFC 8314 §3.3.
            SmarthostTls::StartTls => 587,
            SmarthostTls::Implicit => 465,
            SmarthostTls::Opportunistic => 25,
        };
        Ok(Self { host, port: port.unwrap_or(default), tls, login })
    }
}

/// A host's name, or its address in brackets as in mail, and the port if there is one.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            let address = address.parse::<std::net::IpAddr>().ok()?;
            (format!("[{address}]"), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            match host.parse::<std::net::Ipv4Addr>() {
                Ok(address) => (format!("[{address}]"), port),
                Err(_) => (names::domain(host).ok()?, port),
            }
        }
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
        None => None,
    };
    Some((host, port))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Local => f.write_str("local"),
            Self::Lmtp { host, port } => write!(f, "lmtp {host}:{port}"),
            Self::Smarthost(Smarthost { host, port, tls, login }) => {
                let tls = match tls {
                    SmarthostTls::StartTls => "starttls",
                    SmarthostTls::Implicit => "implicit",
                    SmarthostTls::Opportunistic => "opportunistic",
                };
                write!(f, "smarthost {host}:{port} tls={tls}")?;
                match login {
                    Some(login) => {
                        write!(f, " user={} secret={}", login.user, login.secret.display())
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Result<&str, &str>) {
        let mut routes = Routes::default();
        let set = routes.set("route.Example.ORG", value).unwrap();
        match (set, expected) {
            (Ok(()), Ok(shown)) => {
                assert_eq!(routes.values(), [("route.example.org".to_owned(), shown.to_owned())]);
                let mut again = Routes::default();
                again.set("route.example.org", shown).unwrap().unwrap();
                assert_eq!(again, routes);
            }
            (Err(error), Err(words)) => {
                let error = error.to_string();
                assert!(
                    error.contains(words) && error.starts_with("route.Example.ORG "),
                    "{error}"
                );
            }
            (set, expected) => panic!("{set:?} is not {expected:?}"),
        }
    }

    #[test]
    fn values_are_read_and_shown() {
        check("direct", Ok("direct"));
        check(" local ", Ok("local"));
        check("lmtp 127.0.0.1:24", Ok("lmtp [127.0.0.1]:24"));
        check("lmtp [::1]:24", Ok("lmtp [::1]:24"));
        check("smarthost Relay.example.net", Ok("smarthost relay.example.net:587 tls=starttls"));
        check(
            "smarthost relay.example.net:2525 tls=implicit user=us secret=/etc/rookery/relay",
            Ok("smarthost relay.example.net:2525 tls=implicit user=us secret=/etc/rookery/relay"),
        );
        check(
            "smarthost [192.0.2.1] tls=opportunistic",
            Ok("smarthost [192.0.2.1]:25 tls=opportunistic"),
        );
        for bad in [
            "indirect",
            "direct now",
            "lmtp",
            "lmtp host",
            "lmtp host:0",
            "smarthost",
            "smarthost a b",
        ] {
            check(bad, Err("must be `direct`, "));
        }
        check("smarthost a.example tls=none", Err("must be `direct`, "));
        check("smarthost a.example user=us", Err("must have both"));
        check("smarthost a.example user=us secret=relative", Err("must be `direct`, "));
        check(
            "smarthost a.example tls=opportunistic user=us secret=/x",
            Err("must not send a password"),
        );
    }

    #[test]
    fn a_domains_own_route_stands_before_that_of_all_others() {
        let mut routes = Routes::default();
        assert_eq!(routes.path("example.org"), Path::Direct);
        routes.set("route.*", "local").unwrap().unwrap();
        routes.set("route.example.org", "direct").unwrap().unwrap();
        assert_eq!(routes.path("example.org"), Path::Direct);
        assert_eq!(routes.path("example.net"), Path::Local);
        routes.set("route.*", "").unwrap().unwrap();
        assert_eq!(routes.path("example.net"), Path::Direct);
        assert!(routes.set("log.level", "info").is_none());
        assert!(routes.set("route.a b", "direct").unwrap().is_err());
    }
}
