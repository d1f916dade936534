//! Where the public suites are. They are not part of the project: without them beside the checkout,
//! or where `ROOKERY_SUITES` says, their tests are skipped.
//!
//! - `rfc7208-tests.yml`: the SPF suite of Gathman, Mehnle, Kitterman and others (BSD-3-Clause).
//! - `arc-draft-validation-tests.yml`: ValiMail's ARC suite (MIT).

use std::{collections::BTreeSet, fs, io::Write, path::PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

/// Tells whoever runs the tests, whatever the harness captures.
pub(crate) fn report(text: &str) {
    let _nobody_there = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// The suite's scenarios.
pub(crate) fn load(file: &str) -> Option<Vec<Yaml>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/suites");
    let folder = std::env::var_os("ROOKERY_SUITES").map_or_else(|| beside.into(), PathBuf::from);
    let Ok(text) = fs::read_to_string(folder.join(file)) else {
        report(&format!("skipped: no {file} in ../shared/suites or where ROOKERY_SUITES says"));
        return None;
    };
    Some(YamlLoader::load_from_str(&without_twins(&text)).unwrap())
}

/// A suite has tests of the same name, which YAML does not allow: the later one gets another.
fn without_twins(text: &str) -> String {
    let mut seen = BTreeSet::new();
    let mut out = String::new();
    for line in text.lines() {
        let name = line.strip_prefix("  ").and_then(|rest| rest.trim_end().strip_suffix(':'));
        match name.filter(|name| !name.starts_with(' ')) {
            Some(name) if !seen.insert(name.to_owned()) => {
                out.push_str(&format!("  {name}_twin{}:\n", out.len()));
            }
            _ => out.push_str(&format!("{line}\n")),
        }
        if line.starts_with("---") {
            seen.clear();
        }
    }
    out
}

/// A scenario's entries below `key`, by name.
pub(crate) fn entries<'a>(scenario: &'a Yaml, key: &str) -> Vec<(String, &'a Yaml)> {
    let entries = scenario[key].as_hash().into_iter().flatten();
    entries.map(|(name, entry)| (text(name), entry)).collect()
}

/// A scalar as text; several joined.
pub(crate) fn text(value: &Yaml) -> String {
    match value {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Array(parts) => parts.iter().map(text).collect(),
        _ => String::new(),
    }
}
