//! The reference file says what the code does.

use std::{collections::BTreeSet, path::Path};

use super::{Blobs, Cluster, Config, Dns, Limits, Listen, Log, Outbound, Store, numbers};

const REFERENCE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/config/rookery.toml"));

fn parsed() -> Config {
    Config::parse(REFERENCE, Path::new("rookery.toml")).unwrap()
}

/// Every key's full name.
fn names(table: &toml::Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, value) in table {
        match value.as_table() {
            Some(inner) => found.extend(names(inner).iter().map(|key| format!("{name}.{key}"))),
            None => {
                found.insert(name.clone());
            }
        }
    }
    found
}

/// The comment right above a key.
fn comment_above(key: &str) -> String {
    let name = format!("{} = ", key.rsplit('.').next().unwrap());
    let mut comment = String::new();
    for line in REFERENCE.lines() {
        match line.strip_prefix("# ") {
            Some(text) => comment = format!("{comment} {text}"),
            None if line.starts_with(&name) => return comment,
            None => comment.clear(),
        }
    }
    panic!("{key} is not in the reference file");
}

#[test]
fn the_reference_file_has_every_key_and_no_other() {
    let written: toml::Table = toml::from_str(REFERENCE).unwrap();
    let fields = toml::Table::try_from(parsed()).unwrap();
    assert_eq!(names(&written), names(&fields));
}

#[test]
fn the_reference_file_shows_the_defaults() {
    let config = parsed();
    assert_eq!(config.listen, Listen::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log, Log::default());
    assert_eq!(config.store, Store::default());
    assert_eq!(config.blobs, Blobs::default());
    assert_eq!(config.cluster, Cluster::default());
    assert_eq!(config.outbound, Outbound::default());
    assert_eq!(config.dns, Dns::default());
}

#[test]
fn every_key_is_documented_and_numbers_with_unit_range_and_default() {
    let config = parsed();
    let table = toml::Table::try_from(&config).unwrap();
    for key in names(&table) {
        let comment = comment_above(&key);
        let expected = match numbers().find(|number| number.key == key) {
            Some(number) => format!(
                " Unit: {}. Range: {} to {}. Default: {}.",
                number.unit,
                number.min,
                number.max,
                (number.read)(&config)
            ),
            None if comment.ends_with(" Required.") => continue,
            None => " Default: ".to_owned(),
        };
        assert!(comment.contains(&expected), "{key} lacks {expected:?}: {comment:?}");
    }
}

#[test]
fn every_number_has_a_range() {
    let table = toml::Table::try_from(parsed()).unwrap();
    let numbers: BTreeSet<&str> = numbers().map(|number| number.key).collect();
    for (section, value) in &table {
        for (key, value) in value.as_table().into_iter().flatten() {
            let name = format!("{section}.{key}");
            assert_eq!(value.is_integer(), numbers.contains(name.as_str()), "{name}");
        }
    }
}
