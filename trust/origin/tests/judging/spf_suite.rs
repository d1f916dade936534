//! The SPF suite of RFC 7208.

use std::net::IpAddr;

use dns::{LookupError, Resolver, Zone};
use env::Env;
use origin::Judge;
use yaml_rust2::Yaml;

use crate::suites::{entries, load, report, text};

#[tokio::test]
async fn the_spf_suite_passes() {
    let Some(scenarios) = load("rfc7208-tests.yml") else { return };
    let env = Env::system();
    let (mut passed, mut failures) = (0, Vec::new());
    for scenario in &scenarios {
        let resolver = Resolver::fixed(zone(scenario).await);
        let judge = Judge::new(&env, resolver, "receiver.example.org");
        for (name, test) in entries(scenario, "tests") {
            let client: IpAddr = text(&test["host"]).parse().unwrap();
            let connection = judge.judge_connection(client, &text(&test["helo"])).await;
            let found = judge.judge_sender(&connection, &text(&test["mailfrom"])).await;
            let expected: Vec<String> = match &test["result"] {
                Yaml::Array(several) => several.iter().map(text).collect(),
                one => vec![text(one)],
            };
            let told = found.explanation.clone();
            let explained = match text(&test["explanation"]).as_str() {
                "" => true,
                // Without one of the domain's, the receiver has its own words.
                "DEFAULT" => told.is_none(),
                // The suite has an address' digits in upper case, RFC 7208 §7.4 in lower case.
                explanation => told.is_some_and(|it| it.eq_ignore_ascii_case(explanation)),
            };
            if expected.iter().any(|it| it == found.result.as_str()) && explained {
                passed += 1;
            } else {
                failures.push(format!(
                    "{name}: expected {expected:?} {:?}, found {found:?}",
                    text(&test["explanation"])
                ));
            }
        }
    }
    let total = passed + failures.len();
    report(&format!("RFC 7208 suite: {passed} of {total} pass"));
    assert!(failures.is_empty() && passed > 150, "{}", failures.join("\n"));
}

async fn zone(scenario: &Yaml) -> Zone {
    let zone = Zone::new();
    let probe = Resolver::fixed(Zone::new());
    for (name, records) in entries(scenario, "zonedata") {
        if probe.txt(&name).await == Err(LookupError::BadName) {
            continue;
        }
        let records = records.as_vec().unwrap();
        let own_text = records.iter().any(|record| !record["TXT"].is_badvalue());
        for record in records {
            if text(record) == "TIMEOUT" {
                zone.temporary(&name);
            }
            for (kind, value) in record.as_hash().into_iter().flatten() {
                add(&zone, &name, &text(kind), value, own_text);
            }
        }
    }
    zone
}

fn add(zone: &Zone, name: &str, kind: &str, value: &Yaml, own_text: bool) {
    match (kind, text(value).as_str()) {
        ("TXT", "NONE") => {}
        // What is said in the type that is no more stands for a text, where there is none.
        ("SPF", _) if own_text => {}
        ("SPF" | "TXT", _) if matches!(value, Yaml::Array(parts) if parts.is_empty()) => {}
        ("SPF" | "TXT", text) => {
            zone.txt(name, latin(text));
        }
        ("A" | "AAAA", address) => {
            zone.address(name, address.parse::<IpAddr>().unwrap());
        }
        ("MX", _) => {
            let preference = value[0].as_i64().unwrap();
            zone.mx(name, u16::try_from(preference).unwrap(), &text(&value[1]));
        }
        ("PTR", target) => {
            zone.ptr(address_of(name), target);
        }
        ("CNAME", target) => {
            zone.alias(name, target);
        }
        other => panic!("{other:?}"),
    }
}

/// The suite writes bytes as characters.
fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|at| u8::try_from(u32::from(at)).unwrap_or(b'?')).collect()
}

fn address_of(reverse: &str) -> IpAddr {
    let labels = |suffix: &str| {
        let labels = reverse.strip_suffix(suffix)?;
        Some(labels.split('.').rev().map(str::to_owned).collect::<Vec<_>>())
    };
    if let Some(labels) = labels(".in-addr.arpa") {
        return labels.join(".").parse().unwrap();
    }
    let digits = labels(".ip6.arpa").unwrap().concat();
    IpAddr::V6(u128::from_str_radix(&digits, 16).unwrap().into())
}
