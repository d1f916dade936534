//! What becomes of mail whose origin is in doubt, and what domains are told of it: `judging.…` and
//! `reports.…`.
//!
//! A rule may be set for one domain of ours as well (`judging.spf_fail.example.org`): that holds for its
//! recipients, whatever holds for the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use super::SettingError;
use crate::names;

/// What may be found wrong with where a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The envelope's domain says that the client does not send for it.
    SpfFail,
    /// There are signatures, and none holds.
    DkimFail,
    /// The client's address has no name that leads back to it.
    IprevFail,
    /// There is no author, or none with a domain that could vouch for it.
    AuthorUnclear,
    /// The author's domain does not vouch for it, and asks for suspicion.
    DmarcQuarantine,
    /// The author's domain does not vouch for it, and asks for refusal.
    DmarcReject,
}

/// What is done with a message; the stricter is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Action {
    /// It is delivered, and its header says what was found.
    #[default]
    Mark,
    /// It goes into the mailbox for junk.
    Quarantine,
    /// It is refused.
    Reject,
}

/// What is done where a domain cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenUnknown {
    /// The message is taken, unless its author's domain asks for something and only whether it vouches is
    /// unknown.
    #[default]
    Accept,
    /// Its client is told to come again.
    Defer,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Addresses that begin alike (RFC 4632, RFC 4291 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judging {
    /// Clients whose mail is not judged.
    pub trusted_networks: Vec<Network>,
    /// The name that findings are signed with; empty for each node's own.
    pub authserv_id: String,
    /// What is done where a domain cannot be asked.
    pub when_unknown: WhenUnknown,
    /// Domains whose ARC seals are believed.
    pub trusted_sealers: BTreeSet<String>,
    /// Whether domains that ask for it are told what came in their name.
    pub send_reports: Switch,
    /// Who reports; empty for the postmaster of the node that does.
    pub reports_from: String,
    /// The name of who reports; empty for the name of the node that does.
    pub reports_organization: String,
    /// Addresses of ours that reports of others come to.
    pub report_addresses: BTreeSet<String>,
    rules: BTreeMap<Rule, Action>,
    /// What a domain of ours does instead.
    of_domains: BTreeMap<(Rule, String), Action>,
}

const RULES: [(Rule, &str, Action); 6] = [
    (Rule::SpfFail, "judging.spf_fail", Action::Mark),
    (Rule::DkimFail, "judging.dkim_fail", Action::Mark),
    (Rule::IprevFail, "judging.iprev_fail", Action::Mark),
    (Rule::AuthorUnclear, "judging.author_unclear", Action::Quarantine),
    (Rule::DmarcQuarantine, "judging.dmarc_quarantine", Action::Quarantine),
    (Rule::DmarcReject, "judging.dmarc_reject", Action::Reject),
];

/// The rules for one domain, as they are shown among the settings there are.
const RULES_OF_DOMAINS: [&str; 6] = [
    "judging.spf_fail.DOMAIN",
    "judging.dkim_fail.DOMAIN",
    "judging.iprev_fail.DOMAIN",
    "judging.author_unclear.DOMAIN",
    "judging.dmarc_quarantine.DOMAIN",
    "judging.dmarc_reject.DOMAIN",
];

const TRUSTED_NETWORKS: &str = "judging.trusted_networks";
const AUTHSERV_ID: &str = "judging.authserv_id";
const WHEN_UNKNOWN: &str = "judging.when_unknown";
const TRUSTED_SEALERS: &str = "judging.trusted_sealers";
const SEND_REPORTS: &str = "judging.send_reports";
const REPORTS_FROM: &str = "judging.reports_from";
const REPORTS_ORGANIZATION: &str = "judging.reports_organization";
const REPORT_ADDRESSES: &str = "reports.addresses";

const OTHERS: [&str; 8] = [
    TRUSTED_NETWORKS,
    AUTHSERV_ID,
    WHEN_UNKNOWN,
    TRUSTED_SEALERS,
    SEND_REPORTS,
    REPORTS_FROM,
    REPORTS_ORGANIZATION,
    REPORT_ADDRESSES,
];

/// How an empty value is written.
const NONE: &str = "none";

/// Items of one list: people write them.
const ITEMS_MAX: usize = 100;

/// Bytes of an organization's name: it is repeated in every report.
const ORGANIZATION_BYTES_MAX: usize = 200;

impl Action {
    const ALL: [Self; 3] = [Self::Mark, Self::Quarantine, Self::Reject];

    /// As it is set, and as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

impl WhenUnknown {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Defer => "defer",
        }
    }
}

impl Switch {
    fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl Network {
    /// Whether an address is in it; an IPv4 one may be written as an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same(one: u128, other: u128, width: u8, bits: u8) -> bool {
            (one ^ other).checked_shr(u32::from(width - bits)).unwrap_or(0) == 0
        }
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(it)) => {
                same(own.to_bits().into(), it.to_bits().into(), 32, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(it)) => same(own.to_bits(), it.to_bits(), 128, self.bits),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("has networks such as 192.0.2.0/24, not `{text}`");
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        if bits > width { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Default for Judging {
    fn default() -> Self {
        let own = ["127.0.0.0/8", "::1/128"].map(|text| text.parse().expect("a network"));
        Self {
            trusted_networks: own.to_vec(),
            authserv_id: String::new(),
            when_unknown: WhenUnknown::default(),
            trusted_sealers: BTreeSet::new(),
            send_reports: Switch::On,
            reports_from: String::new(),
            reports_organization: String::new(),
            report_addresses: BTreeSet::new(),
            rules: RULES.iter().map(|(rule, _, action)| (*rule, *action)).collect(),
            of_domains: BTreeMap::new(),
        }
    }
}

impl Judging {
    /// What is done for recipients of a domain where something was found wrong.
    pub fn action(&self, rule: Rule, domain: &str) -> Action {
        let own = self.of_domains.get(&(rule, domain.to_owned()));
        own.or_else(|| self.rules.get(&rule)).copied().unwrap_or_default()
    }

    /// Whether mail from such a client is judged.
    pub fn judges(&self, client: IpAddr) -> bool {
        !self.trusted_networks.iter().any(|network| network.contains(client))
    }

    /// The names of the settings.
    pub(super) fn names() -> Vec<&'static str> {
        RULES.iter().map(|(_, name, _)| *name).chain(RULES_OF_DOMAINS).chain(OTHERS).collect()
    }

    /// Sets one; `None` where it is no setting of this group.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Result<(), SettingError>> {
        let set = match self.set_rule(name, value) {
            Some(set) => set,
            None => self.set_other(name, value)?,
        };
        Some(set.map_err(|reason| SettingError::Invalid { name: name.to_owned(), reason }))
    }

    fn set_rule(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
        let (rule, domain) = RULES.iter().find_map(|(rule, known, _)| {
            let rest = name.strip_prefix(known)?;
            match rest.strip_prefix('.') {
                Some(domain) => Some((*rule, Some(domain))),
                None => rest.is_empty().then_some((*rule, None)),
            }
        })?;
        let mut set = || {
            let action = Action::ALL.into_iter().find(|action| action.as_str() == value);
            let action = action
                .ok_or_else(|| format!("must be mark, quarantine or reject, not `{value}`"))?;
            match domain {
                None => self.rules.insert(rule, action),
                Some(domain) => self.of_domains.insert((rule, domain_name(domain)?), action),
            };
            Ok(())
        };
        Some(set())
    }

    fn set_other(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
        let text = if value == NONE { "" } else { value };
        Some(match name {
            TRUSTED_NETWORKS => {
                list(text, Network::from_str).map(|them| self.trusted_networks = them)
            }
            TRUSTED_SEALERS => list(text, domain_name)
                .map(|them: Vec<_>| self.trusted_sealers = them.into_iter().collect()),
            REPORT_ADDRESSES => list(text, address)
                .map(|them: Vec<_>| self.report_addresses = them.into_iter().collect()),
            AUTHSERV_ID if text.is_empty() => {
                self.authserv_id.clear();
                Ok(())
            }
            AUTHSERV_ID => domain_name(text).map(|it| self.authserv_id = it),
            REPORTS_FROM if text.is_empty() => {
                self.reports_from.clear();
                Ok(())
            }
            REPORTS_FROM => address(text).map(|it| self.reports_from = it),
            REPORTS_ORGANIZATION => organization(text).map(|it| self.reports_organization = it),
            WHEN_UNKNOWN => {
                one_of(value, [WhenUnknown::Accept, WhenUnknown::Defer], |it| it.as_str())
                    .map(|it| self.when_unknown = it)
            }
            SEND_REPORTS => one_of(value, [Switch::On, Switch::Off], |it| it.as_str())
                .map(|it| self.send_reports = it),
            _ => return None,
        })
    }

    /// The settings with their values.
    pub(super) fn values(&self) -> Vec<(String, String)> {
        let rules = RULES.iter().map(|(rule, name, _)| {
            let action = self.rules.get(rule).copied().unwrap_or_default();
            ((*name).to_owned(), action.as_str().to_owned())
        });
        let of_domains = self.of_domains.iter().filter_map(|((rule, domain), action)| {
            let (_, name, _) = RULES.iter().find(|(known, _, _)| known == rule)?;
            Some((format!("{name}.{domain}"), action.as_str().to_owned()))
        });
        let others = [
            joined(&self.trusted_networks),
            or_none(&self.authserv_id),
            self.when_unknown.as_str().to_owned(),
            joined(&self.trusted_sealers),
            self.send_reports.as_str().to_owned(),
            or_none(&self.reports_from),
            or_none(&self.reports_organization),
            joined(&self.report_addresses),
        ];
        let others = OTHERS.iter().map(|name| (*name).to_owned()).zip(others);
        rules.chain(of_domains).chain(others).collect()
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

fn joined<'a, T: fmt::Display + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    let items: Vec<String> = items.into_iter().map(ToString::to_string).collect();
    or_none(&items.join(","))
}

/// Items between commas or blanks.
fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let parts = text.split([',', ' ']).filter(|item| !item.is_empty());
    let items: Vec<T> = parts.take(ITEMS_MAX + 1).map(read).collect::<Result<_, _>>()?;
    if items.len() > ITEMS_MAX {
        return Err(format!("has at most {ITEMS_MAX} items"));
    }
    Ok(items)
}

fn one_of<T: Copy, const N: usize>(
    value: &str,
    all: [T; N],
    name: impl Fn(&T) -> &'static str,
) -> Result<T, String> {
    let known = || all.iter().map(&name).collect::<Vec<_>>().join(" or ");
    let found = all.iter().find(|item| name(item) == value).copied();
    found.ok_or_else(|| format!("must be {}, not `{value}`", known()))
}

fn domain_name(text: &str) -> Result<String, String> {
    names::domain(text).map_err(|error| format!("has domains: {error}"))
}

fn address(text: &str) -> Result<String, String> {
    let address = names::address(text).map_err(|error| format!("has addresses: {error}"))?;
    Ok(address.to_string())
}

fn organization(text: &str) -> Result<String, String> {
    if text.len() > ORGANIZATION_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("is one line of at most {ORGANIZATION_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domains_own_rule_holds_for_its_recipients() {
        let mut judging = Judging::default();
        judging.set("judging.spf_fail", "reject").unwrap().unwrap();
        judging.set("judging.spf_fail.Example.ORG", "mark").unwrap().unwrap();
        assert_eq!(judging.action(Rule::SpfFail, "example.org"), Action::Mark);
        assert_eq!(judging.action(Rule::SpfFail, "example.net"), Action::Reject);
        assert_eq!(judging.action(Rule::DmarcReject, "example.org"), Action::Reject);
        let values = judging.values();
        assert!(values.contains(&("judging.spf_fail.example.org".into(), "mark".into())));
        let mut again = Judging::default();
        for (name, value) in &values {
            again.set(name, value).unwrap().unwrap();
        }
        assert_eq!(again, judging);
    }

    #[test]
    fn what_is_no_value_is_refused_with_what_would_be() {
        let mut judging = Judging::default();
        for (name, value, words) in [
            ("judging.spf_fail", "drop", "must be mark, quarantine or reject"),
            ("judging.spf_fail.a b", "mark", "has domains"),
            ("judging.when_unknown", "x", "must be accept or defer"),
            ("judging.trusted_networks", "192.0.2.0/33", "has networks"),
            ("judging.reports_from", "nobody", "has addresses"),
        ] {
            let error = judging.set(name, value).unwrap().unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains(words), "{error}");
        }
        for name in ["judging.spf_failing", "judging", "limits.recipients_max"] {
            assert!(judging.set(name, "mark").is_none(), "{name}");
        }
        assert_eq!(judging, Judging::default());
    }

    #[test]
    fn networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("192.0.2.0/24", "192.0.2.255") && !holds("192.0.2.0/24", "192.0.3.0"));
        assert!(holds("192.0.2.7", "::ffff:192.0.2.7") && !holds("192.0.2.7", "192.0.2.6"));
        assert!(holds("0.0.0.0/0", "203.0.113.1") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::"));
        assert!(!Judging::default().judges("127.0.0.9".parse().unwrap()));
    }
}
