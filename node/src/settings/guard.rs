//! Settings of abuse control: everything in [`crate::guard`].
//!
//! Whatever could lose or delay good mail is off until it is set.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use super::SettingError;
use crate::{
    guard::{
        network::Network,
        rate::{RATES, RATES_COUNT},
        score::Thresholds,
    },
    limits, names,
};

/// What is in force of abuse control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Beside [`RATES`]; 0 for no limit.
    pub(crate) rates: [u64; RATES_COUNT],
    pub(crate) trusted: Vec<Network>,
    pub(crate) greylist: Greylist,
    pub(crate) thresholds: Thresholds,
    pub(crate) weights: Weights,
    pub(crate) address_zones: Vec<Zone>,
    pub(crate) domain_zones: Vec<Zone>,
    /// How long the answers of all lookups of one connection are waited for.
    pub(crate) lookup_seconds: u64,
    pub(crate) tarpit: Tarpit,
    pub(crate) block: Block,
}

/// Strangers' mail is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Greylist {
    pub(crate) mode: Mode,
    /// How soon it is taken.
    pub(crate) delay_seconds: u64,
    /// How late it is taken; later it is a stranger's again.
    pub(crate) window_seconds: u64,
    /// How long who came back stays known.
    pub(crate) keep_days: u64,
    /// How often mail of a network comes back before all of it is known; 0 for never.
    pub(crate) passes: u64,
    /// Whether mail that SPF passes is taken at once.
    pub(crate) spf_pass: Mode,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Off,
    On,
}

/// What findings of names and addresses count; 0 for not looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Weights {
    pub(crate) no_ptr: u64,
    pub(crate) ptr_unconfirmed: u64,
    pub(crate) ehlo_unresolvable: u64,
    pub(crate) ehlo_literal: u64,
    pub(crate) ehlo_ours: u64,
}

/// Replies are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tarpit {
    /// How long each; 0 for not at all.
    pub(crate) seconds: u64,
    /// How many replies that refuse are free.
    pub(crate) after_errors: u64,
    /// From which score on; 0 for whatever the score.
    pub(crate) score: u64,
    /// Connections of a node at a time.
    pub(crate) connections_max: u64,
}

/// Networks are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Events of one client in an hour that are too many, beside [`crate::guard::Event`]; 0 for
    /// any number.
    pub(crate) events_per_hour: [u64; 4],
    /// Blocked clients of one operator's network that are too many; 0 for any number.
    pub(crate) network_clients: u64,
    /// How long the first time; twice as long each further time.
    pub(crate) seconds: u64,
    /// How long at most.
    pub(crate) seconds_max: u64,
    /// How many at a time.
    pub(crate) count_max: u64,
}

/// A list in DNS (RFC 5782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) name: String,
    /// Which answers count; without it all that RFC 5782 allows.
    pub(crate) answers: Option<(Ipv4Addr, u8)>,
    /// What they count; less than 0 speaks for the client.
    pub(crate) weight: i32,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            rates: [0; RATES_COUNT],
            trusted: Vec::new(),
            greylist: Greylist {
                mode: Mode::Off,
                delay_seconds: 300,
                window_seconds: 4 * 3600,
                keep_days: 35,
                passes: 5,
                spf_pass: Mode::Off,
            },
            thresholds: Thresholds { mark: 5, tempfail: 0, reject: 0 },
            weights: Weights::default(),
            address_zones: Vec::new(),
            domain_zones: Vec::new(),
            lookup_seconds: 5,
            tarpit: Tarpit { seconds: 0, after_errors: 3, score: 0, connections_max: 100 },
            block: Block {
                events_per_hour: [0; 4],
                network_clients: 0,
                seconds: 3600,
                seconds_max: 7 * 86_400,
                count_max: 10_000,
            },
        }
    }
}

struct Number {
    name: &'static str,
    field: fn(&mut Guard) -> &mut u64,
    min: u64,
    max: u64,
    unit: &'static str,
}

const fn number(
    name: &'static str,
    field: fn(&mut Guard) -> &mut u64,
    (min, max): (u64, u64),
    unit: &'static str,
) -> Number {
    Number { name, field, min, max, unit }
}

/// Events, scores and weights that anybody means.
const POINTS: (u64, u64) = (0, 1000);

/// Events of an hour.
const EVENTS: (u64, u64) = (0, 1_000_000);

#[rustfmt::skip]
const NUMBERS: [Number; 25] = [
    number("guard.greylist.delay_seconds", |it| &mut it.greylist.delay_seconds, (1, 3600), "seconds"),
    number("guard.greylist.window_seconds", |it| &mut it.greylist.window_seconds, (60, 172_800), "seconds"),
    number("guard.greylist.keep_days", |it| &mut it.greylist.keep_days, (1, 366), "days"),
    number("guard.greylist.passes", |it| &mut it.greylist.passes, (0, 1000), "messages"),
    number("guard.score.mark", |it| &mut it.thresholds.mark, POINTS, "points"),
    number("guard.score.tempfail", |it| &mut it.thresholds.tempfail, POINTS, "points"),
    number("guard.score.reject", |it| &mut it.thresholds.reject, POINTS, "points"),
    number("guard.weight.no_ptr", |it| &mut it.weights.no_ptr, POINTS, "points"),
    number("guard.weight.ptr_unconfirmed", |it| &mut it.weights.ptr_unconfirmed, POINTS, "points"),
    number("guard.weight.ehlo_unresolvable", |it| &mut it.weights.ehlo_unresolvable, POINTS, "points"),
    number("guard.weight.ehlo_literal", |it| &mut it.weights.ehlo_literal, POINTS, "points"),
    number("guard.weight.ehlo_ours", |it| &mut it.weights.ehlo_ours, POINTS, "points"),
    number("guard.lookup_seconds", |it| &mut it.lookup_seconds, (1, 30), "seconds"),
    number("guard.tarpit.seconds", |it| &mut it.tarpit.seconds, (0, 30), "seconds"),
    number("guard.tarpit.after_errors", |it| &mut it.tarpit.after_errors, (0, 100), "replies"),
    number("guard.tarpit.score", |it| &mut it.tarpit.score, POINTS, "points"),
    number("guard.tarpit.connections_max", |it| &mut it.tarpit.connections_max, (1, 10_000), "connections"),
    number("guard.block.failed_logins_per_hour", |it| &mut it.block.events_per_hour[0], EVENTS, "events"),
    number("guard.block.unknown_recipients_per_hour", |it| &mut it.block.events_per_hour[1], EVENTS, "events"),
    number("guard.block.rejects_per_hour", |it| &mut it.block.events_per_hour[2], EVENTS, "events"),
    number("guard.block.protocol_errors_per_hour", |it| &mut it.block.events_per_hour[3], EVENTS, "events"),
    number("guard.block.network_clients", |it| &mut it.block.network_clients, (0, 256), "clients"),
    number("guard.block.seconds", |it| &mut it.block.seconds, (1, 31_536_000), "seconds"),
    number("guard.block.seconds_max", |it| &mut it.block.seconds_max, (1, 31_536_000), "seconds"),
    number("guard.block.count_max", |it| &mut it.block.count_max, (1, limits::BLOCKS_MAX), "blocks"),
];

/// Limits of an hour or a day that anybody means.
const RATE_MAX: u64 = 1_000_000_000;

const GREYLIST: &str = "guard.greylist.mode";
const GREYLIST_SPF: &str = "guard.greylist.spf_pass";
const TRUSTED: &str = "guard.trusted_networks";
const ADDRESS_ZONES: &str = "guard.dnsbl.addresses";
const DOMAIN_ZONES: &str = "guard.dnsbl.domains";
const TEXTS: [&str; 5] = [GREYLIST, GREYLIST_SPF, TRUSTED, ADDRESS_ZONES, DOMAIN_ZONES];

impl Guard {
    /// The names of all of these settings.
    pub fn names() -> Vec<&'static str> {
        let rates = RATES.iter().map(|rate| rate.name);
        rates.chain(NUMBERS.iter().map(|number| number.name)).chain(TEXTS).collect()
    }

    /// Sets one; `None` where it is none of these.
    pub fn set(&mut self, name: &str, value: &str) -> Option<Result<(), SettingError>> {
        let set = if let Some(at) = RATES.iter().position(|rate| rate.name == name) {
            in_range(value, (0, RATE_MAX), "(0: no limit)").map(|limit| self.rates[at] = limit)
        } else if let Some(number) = NUMBERS.iter().find(|number| number.name == name) {
            let parsed = in_range(value, (number.min, number.max), number.unit);
            parsed.map(|value| *(number.field)(self) = value)
        } else {
            match name {
                GREYLIST => value.parse().map(|mode| self.greylist.mode = mode),
                GREYLIST_SPF => value.parse().map(|mode| self.greylist.spf_pass = mode),
                TRUSTED => list(value).map(|networks| self.trusted = networks),
                ADDRESS_ZONES => list(value).map(|zones| self.address_zones = zones),
                DOMAIN_ZONES => list(value).map(|zones| self.domain_zones = zones),
                _ => return None,
            }
        };
        Some(set.map_err(|reason| SettingError::Invalid { name: name.to_owned(), reason }))
    }

    /// All, with their values as texts.
    pub fn values(&self) -> Vec<(String, String)> {
        let mut copy = self.clone();
        let mut values: Vec<(String, String)> = Vec::new();
        for (rate, limit) in RATES.iter().zip(self.rates) {
            values.push((rate.name.to_owned(), limit.to_string()));
        }
        for number in &NUMBERS {
            values.push((number.name.to_owned(), (number.field)(&mut copy).to_string()));
        }
        let texts = [
            self.greylist.mode.to_string(),
            self.greylist.spf_pass.to_string(),
            joined(&self.trusted),
            joined(&self.address_zones),
            joined(&self.domain_zones),
        ];
        values.extend(TEXTS.iter().map(|name| (*name).to_owned()).zip(texts));
        values
    }

    /// Whether nobody is to be held up who comes from there.
    pub(crate) fn trusts(&self, address: std::net::IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

fn in_range(value: &str, (min, max): (u64, u64), unit: &str) -> Result<u64, String> {
    let parsed = value.parse().ok().filter(|value| (min..=max).contains(value));
    parsed.ok_or_else(|| format!("must be a number from {min} to {max} {unit}, not `{value}`"))
}

/// A list with commas or blanks between its entries.
fn list<T: FromStr<Err: fmt::Display>>(value: &str) -> Result<Vec<T>, String> {
    let entries = value.split([',', ' ']).filter(|entry| !entry.is_empty());
    let list: Vec<T> = entries
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|error: T::Err| format!("cannot have that entry: {error}"))?;
    if list.len() > limits::GUARD_LIST_MAX {
        return Err(format!("has at most {} entries", limits::GUARD_LIST_MAX));
    }
    Ok(list)
}

fn joined(list: &[impl fmt::Display]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::On),
            _ => Err(format!("must be `on` or `off`, not `{text}`")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
        })
    }
}

impl FromStr for Zone {
    type Err = String;

    /// `zone[=address[/bits]]:weight`
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("`{text}`: {what}");
        let (zone, weight) = text.rsplit_once(':').ok_or_else(|| bad("has no weight"))?;
        let range = -limits::GUARD_WEIGHT_MAX..=limits::GUARD_WEIGHT_MAX;
        let weight = weight.parse().ok().filter(|weight| range.contains(weight));
        let weight = weight.ok_or_else(|| bad("the weight is no small number"))?;
        let (name, answers) = match zone.split_once('=') {
            None => (zone, None),
            Some((name, answers)) => {
                let (address, bits) = answers.split_once('/').unwrap_or((answers, "32"));
                let address = address.parse().map_err(|_| bad("the answer is no IPv4 address"))?;
                let bits = bits.parse().ok().filter(|bits| *bits <= 32);
                (name, Some((address, bits.ok_or_else(|| bad("the mask has up to 32 bits"))?)))
            }
        };
        let name = names::domain(name).map_err(|_| bad("the zone is no domain"))?;
        Ok(Self { name, answers, weight })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.answers {
            None => {}
            Some((address, 32)) => write!(f, "={address}")?,
            Some((address, bits)) => write!(f, "={address}/{bits}")?,
        }
        write!(f, ":{}", self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(name: &str, value: &str) -> String {
        Guard::default().set(name, value).unwrap().unwrap_err().to_string()
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let mut guard = Guard::default();
        for (name, value) in [
            (TRUSTED, "192.0.2.0/24, 2001:db8::/48"),
            (ADDRESS_ZONES, "Bl.example=127.0.0.2:5 wl.example=127.0.0.0/16:-3"),
            (DOMAIN_ZONES, "dbl.example:2"),
            (GREYLIST, "on"),
            ("guard.rate.account.messages_per_hour", "100"),
            ("guard.tarpit.seconds", "3"),
        ] {
            guard.set(name, value).unwrap().unwrap();
        }
        let shown: Vec<_> = guard.values();
        let value = |name: &str| &shown.iter().find(|(known, _)| known == name).unwrap().1;
        assert_eq!(value(TRUSTED), "192.0.2.0/24 2001:db8::/48");
        assert_eq!(value(ADDRESS_ZONES), "bl.example=127.0.0.2:5 wl.example=127.0.0.0/16:-3");
        let mut again = Guard::default();
        for (name, value) in &shown {
            again.set(name, value).unwrap().unwrap();
        }
        assert_eq!(again, guard);
        assert_eq!(Guard::names().len(), shown.len());
        assert!(Guard::names().iter().zip(&shown).all(|(name, (shown, _))| name == shown));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert!(Guard::default().set("limits.x", "1").is_none());
        assert!(refused("guard.tarpit.seconds", "31").contains("from 0 to 30 seconds"));
        assert!(refused(GREYLIST, "maybe").contains("`on` or `off`"));
        assert!(refused(TRUSTED, "192.0.2.0/24,x").contains("`x`"));
        for zone in
            ["bl.example", "bl.example:", "bl.example:9999", "b l:1", "b=1.2:1", "b=1.2.3.4/33:1"]
        {
            assert!(refused(ADDRESS_ZONES, zone).contains("that entry"), "{zone}");
        }
        let many = "bl.example:1 ".repeat(limits::GUARD_LIST_MAX + 1);
        assert!(refused(DOMAIN_ZONES, &many).contains("at most"));
    }
}
