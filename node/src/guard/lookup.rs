//! What DNS says of a client: lists (RFC 5782), the names of its address, the name that it gives.
//!
//! Every lookup is given `guard.lookup_seconds`; what is not known by then counts nothing.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use dns::{Answer, LookupError};
use futures_util::future::join_all;
use origin::{Connection, Judge, SpfResult};

use super::{Shared, Stranger, score::Score};
use crate::{
    limits,
    metrics::GuardAction,
    names,
    settings::guard::{Guard as Rules, Zone},
};

/// Longest name in DNS without the dot at its end (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// What a lookup came to.
enum Looked<T> {
    Found(T),
    /// There is no such thing.
    Nothing,
    /// It could not be found out.
    Failed,
}

async fn look<T>(
    shared: &Shared,
    rules: &Rules,
    asking: impl Future<Output = Result<Answer<T>, LookupError>>,
) -> Looked<T> {
    let patience = Duration::from_secs(rules.lookup_seconds);
    match shared.env.timeout(patience, asking).await {
        Ok(Ok(answer)) => Looked::Found(answer.records),
        Ok(Err(error)) if error.is_denial() || error == LookupError::BadName => Looked::Nothing,
        Ok(Err(_)) | Err(_) => {
            shared.metrics.guard(GuardAction::LookupFailed);
            Looked::Failed
        }
    }
}

/// What is known of an address.
pub(super) async fn address(shared: &Shared, rules: &Rules, peer: IpAddr) -> Score {
    let names = [reversed(peer)];
    let (mut score, reverse) = tokio::join!(
        listed(shared, rules, &rules.address_zones, &names),
        reverse(shared, rules, peer),
    );
    if let Some((name, weight)) = reverse {
        score.add(name, weight);
    }
    score
}

/// What is known of the name that a client gives, and of its sender's domain.
pub(super) async fn names(
    shared: &Shared,
    rules: &Rules,
    helo: &str,
    sender: Option<&str>,
) -> Score {
    let mut asked: Vec<String> = Vec::new();
    let helo_domain = (!is_literal(helo)).then(|| names::domain(helo).ok()).flatten();
    asked.extend(helo_domain.filter(|name| name.contains('.')));
    asked.extend(sender.map(str::to_ascii_lowercase));
    asked.dedup();
    let (mut score, greeting) = tokio::join!(
        listed(shared, rules, &rules.domain_zones, &asked),
        greeting(shared, rules, helo),
    );
    if let Some((name, weight)) = greeting {
        score.add(name, weight);
    }
    score
}

/// What lists say of names, in the order of the settings: each entry counts once.
async fn listed(shared: &Shared, rules: &Rules, zones: &[Zone], names: &[String]) -> Score {
    let mut asked: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
    asked.sort_unstable();
    asked.dedup();
    let questions: Vec<(&str, String)> = asked
        .iter()
        .flat_map(|zone| names.iter().map(move |name| (*zone, format!("{name}.{zone}"))))
        .filter(|(_, name)| name.len() <= NAME_BYTES_MAX)
        .collect();
    let answers = join_all(questions.iter().map(|(zone, name)| async move {
        match look(shared, rules, shared.resolver.ipv4(name)).await {
            Looked::Found(addresses) => (*zone, addresses),
            Looked::Nothing | Looked::Failed => (*zone, Vec::new()),
        }
    }))
    .await;
    let mut score = Score::default();
    for zone in zones {
        let answers = answers.iter().filter(|(name, _)| *name == zone.name);
        if answers.flat_map(|(_, addresses)| addresses).any(|answer| counts(zone, *answer)) {
            score.add(zone.name.clone(), zone.weight);
        }
    }
    score
}

/// Whether an answer says "listed". Only 127.0.0.0/8 does (RFC 5782 §2.1): anything else is of a
/// name server that answers for names that do not exist. Lists use 127.255.255.0/24 to say that
/// they were asked wrongly.
fn counts(zone: &Zone, answer: Ipv4Addr) -> bool {
    match zone.answers {
        None => answer.is_loopback() && !answer.octets().starts_with(&[127, 255, 255]),
        Some((wanted, bits)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            answer.to_bits() & mask == wanted.to_bits() & mask
        }
    }
}

/// An address as lists are asked about it (RFC 5782 §2.1, §2.4).
fn reversed(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(address) => {
            let nibbles =
                address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

fn weight(points: u64) -> i32 {
    i32::try_from(points).unwrap_or(i32::MAX)
}

/// Whether an address has a name that leads back to it (RFC 8601 §3).
async fn reverse(shared: &Shared, rules: &Rules, peer: IpAddr) -> Option<(&'static str, i32)> {
    let weights = &rules.weights;
    if weights.no_ptr == 0 && weights.ptr_unconfirmed == 0 {
        return None;
    }
    let names = match look(shared, rules, shared.resolver.ptr(peer)).await {
        Looked::Found(names) => names,
        Looked::Nothing => return Some(("no-ptr", weight(weights.no_ptr))),
        Looked::Failed => return None,
    };
    let names = names.iter().take(limits::PTR_NAMES_MAX);
    let asking = |name| shared.resolver.addresses_like(name, peer);
    let looked = join_all(names.map(|name| look(shared, rules, asking(name)))).await;
    let mut unknown = false;
    for looked in looked {
        match looked {
            Looked::Found(addresses) if addresses.contains(&peer.to_canonical()) => return None,
            Looked::Found(_) | Looked::Nothing => {}
            Looked::Failed => unknown = true,
        }
    }
    (!unknown).then(|| ("ptr-unconfirmed", weight(weights.ptr_unconfirmed)))
}

fn is_literal(helo: &str) -> bool {
    helo.starts_with('[') || helo.contains(':') || helo.parse::<Ipv4Addr>().is_ok()
}

/// What the name that a client gives is worth.
async fn greeting(shared: &Shared, rules: &Rules, helo: &str) -> Option<(&'static str, i32)> {
    let weights = &rules.weights;
    if is_literal(helo) {
        return Some(("ehlo-literal", weight(weights.ehlo_literal)));
    }
    if helo.trim_end_matches('.').eq_ignore_ascii_case(&shared.hostname) {
        return Some(("ehlo-ours", weight(weights.ehlo_ours)));
    }
    if weights.ehlo_unresolvable == 0 {
        return None;
    }
    let unresolvable = Some(("ehlo-unresolvable", weight(weights.ehlo_unresolvable)));
    let Ok(name) = names::domain(helo) else { return unresolvable };
    if !name.contains('.') {
        return unresolvable;
    }
    match look(shared, rules, shared.resolver.addresses(&name)).await {
        Looked::Nothing => unresolvable,
        Looked::Found(_) | Looked::Failed => None,
    }
}

/// Whether the sender's domain says that the client sends for it (RFC 7208).
pub(super) async fn spf_passes(shared: &Shared, stranger: &Stranger<'_>) -> bool {
    if stranger.sender.is_empty() {
        return false;
    }
    let judge = Judge::new(&shared.env, shared.resolver.clone(), &shared.hostname);
    let connection = Connection {
        peer: stranger.peer.to_canonical(),
        helo: stranger.helo.to_owned(),
        iprev: origin::IprevVerdict::default(),
        spf_helo: origin::SpfVerdict::default(),
    };
    let verdict = Box::pin(judge.judge_sender(&connection, stranger.sender)).await;
    verdict.result == SpfResult::Pass
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_about_backwards() {
        assert_eq!(reversed("192.0.2.99".parse().unwrap()), "99.2.0.192");
        assert_eq!(reversed("::ffff:192.0.2.99".parse().unwrap()), "99.2.0.192");
        // RFC 5782 §2.4
        assert_eq!(
            reversed("2001:db8:1:2:3:4:567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"
        );
    }

    #[test]
    fn only_what_lists_say_counts() {
        let zone = |text: &str| text.parse::<Zone>().unwrap();
        for (text, answer, expected) in [
            ("bl.example:1", "127.0.0.2", true),
            ("bl.example:1", "127.255.255.254", false),
            ("bl.example:1", "192.0.2.1", false),
            ("bl.example=127.0.0.2:1", "127.0.0.2", true),
            ("bl.example=127.0.0.2:1", "127.0.0.3", false),
            ("bl.example=127.0.0.0/24:1", "127.0.0.77", true),
            ("bl.example=127.0.0.0/24:1", "127.0.1.1", false),
            ("bl.example=0.0.0.0/0:1", "192.0.2.1", true),
        ] {
            assert_eq!(counts(&zone(text), answer.parse().unwrap()), expected, "{text} {answer}");
        }
    }

    #[test]
    fn literals_are_told_from_names() {
        for literal in ["[192.0.2.1]", "192.0.2.1", "[IPv6:2001:db8::1]", "2001:db8::1"] {
            assert!(is_literal(literal), "{literal}");
        }
        assert!(!is_literal("mx.example.net") && !is_literal("1.2.3.example"));
    }
}
