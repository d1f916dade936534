//! What we may depend on: licences that let everyone do with Rookery what Apache-2.0 allows, and
//! sources that stay where they are. `deny.toml` says the same to `cargo deny`.
//!
//! Licences are SPDX expressions (SPDX 2.3, annex D), evaluated here.

use std::{collections::BTreeMap, fs};

use blackbox::{report, workspace};
use serde_json::Value;

/// Licences that ask for no more than a notice, or for nothing.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that we do without, each with its reason.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "rustls does it, without a system library"),
    ("openssl-sys", "rustls does it, without a system library"),
    ("native-tls", "rustls does it, without a system library"),
    ("sieve-rs", "AGPL-3.0"),
];

/// The one source of what is not ours, as Cargo.lock and cargo metadata write it.
const SOURCE: &str = "registry+";

/// Whether the expression can be met by allowed licences alone.
///
/// # Errors
/// What is wrong with it.
fn is_allowed(expression: &str) -> Result<bool, String> {
    // Before SPDX expressions, crates.io took a slash for OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens: Vec<&str> = spaced.split_whitespace().rev().collect();
    let allowed = any(&mut tokens)?;
    match tokens.pop() {
        None => Ok(allowed),
        Some(token) => Err(format!("{expression:?}: {token:?} is too much")),
    }
}

/// `OR` binds less than `AND`. `tokens` is a stack: its last is the next.
fn any(tokens: &mut Vec<&str>) -> Result<bool, String> {
    let mut allowed = all(tokens)?;
    while tokens.pop_if(|token| *token == "OR").is_some() {
        allowed |= all(tokens)?;
    }
    Ok(allowed)
}

fn all(tokens: &mut Vec<&str>) -> Result<bool, String> {
    let mut allowed = one(tokens)?;
    while tokens.pop_if(|token| *token == "AND").is_some() {
        allowed &= one(tokens)?;
    }
    Ok(allowed)
}

fn one(tokens: &mut Vec<&str>) -> Result<bool, String> {
    match tokens.pop() {
        Some("(") => {
            let allowed = any(tokens)?;
            match tokens.pop() {
                Some(")") => Ok(allowed),
                other => Err(format!("{other:?} where a parenthesis has to close")),
            }
        }
        None | Some(")" | "OR" | "AND" | "WITH") => Err("a licence is missing".to_owned()),
        Some(licence) => match tokens.pop_if(|token| *token == "WITH") {
            None => Ok(ALLOWED.contains(&licence)),
            Some(_) => {
                let exception = tokens.pop().ok_or("an exception is missing")?;
                Ok(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()))
            }
        },
    }
}

/// All packages of the lock file: every feature, every platform, tests and build scripts too.
/// Where they are not all on this machine and cannot be fetched, those that are built here.
fn packages() -> Vec<Value> {
    let all = ["--locked", "--all-features"];
    let host = format!("--filter-platform={}", host());
    let metadata = workspace::metadata(&[&all[..], &["--offline"]].concat())
        .or_else(|_| workspace::metadata(&all))
        .or_else(|_| {
            report("narrowed: no network, so only the licences of what is built here are checked");
            workspace::metadata(&["--locked", "--offline", &host])
        })
        .unwrap_or_else(|error| panic!("{error}"));
    metadata["packages"].as_array().expect("cargo lists packages").clone()
}

/// This machine's target, as `rustc -vV` names it.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = blackbox::program::succeed(std::process::Command::new(rustc).arg("-vV"), b"");
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc tells its host").to_owned()
}

fn problem(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or_default();
    if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
        return Some(format!("{name}: {reason}"));
    }
    let Some(source) = package["source"].as_str() else {
        // A path: ours, or a copy of someone's.
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let ours = std::path::Path::new(manifest).starts_with(workspace::root());
        return match package["license"].as_str() {
            Some("Apache-2.0") if ours => None,
            Some(licence) if ours => Some(format!("{name}: ours, but under {licence}")),
            _ => Some(format!("{name}: a path outside the workspace, or no licence")),
        };
    };
    if !source.starts_with(SOURCE) {
        return Some(format!("{name}: from {source}"));
    }
    match package["license"].as_str().map(is_allowed) {
        Some(Ok(true)) => None,
        Some(Ok(false)) => Some(format!("{name}: {}", package["license"])),
        Some(Err(error)) => Some(format!("{name}: {error}")),
        None => Some(format!("{name}: no licence expression")),
    }
}

#[test]
fn every_package_may_be_used() {
    let packages = packages();
    assert!(packages.len() > 100, "cargo lists only {}", packages.len());
    let problems: Vec<String> = packages.iter().filter_map(problem).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_lock_file_has_one_source() {
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock")).expect("it is committed");
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        let value = |key: &str| line.strip_prefix(key).map(|value| value.trim_matches('"'));
        if let Some(value) = value("name = ") {
            name = value;
            assert!(!BANNED.iter().any(|(banned, _)| *banned == name), "{name} is banned");
        } else if let Some(value) = value("version = ")
            && !name.is_empty()
        {
            versions.entry(name).or_default().push(value);
        } else if let Some(source) = value("source = ") {
            assert!(source.starts_with(SOURCE), "{name}: {source}");
        }
    }
    let twice: Vec<String> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| format!("{name} {}", versions.join(" and ")))
        .collect();
    report(&format!("for information: packages in more than one version: {}", twice.join(", ")));
}

#[test]
fn deny_toml_says_the_same() {
    let deny = fs::read_to_string(workspace::root().join("deny.toml")).expect("it is committed");
    for licence in ALLOWED {
        assert!(deny.contains(&format!("\"{licence}\"")), "deny.toml does not allow {licence}");
    }
    let section = deny.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let listed = section.expect("it has the list").lines().filter(|line| line.contains('"'));
    assert_eq!(listed.count(), ALLOWED.len(), "deny.toml allows more");
    for (banned, _) in BANNED {
        assert!(deny.contains(&format!("\"{banned}\"")), "deny.toml does not ban {banned}");
    }
}

#[test]
fn expressions_are_evaluated() {
    #[track_caller]
    fn check(expression: &str, expected: bool) {
        assert_eq!(is_allowed(expression), Ok(expected), "{expression}");
    }
    check("MIT", true);
    check("GPL-2.0-only", false);
    check("AGPL-3.0-only", false);
    check("MIT/Apache-2.0", true);
    check("MIT OR GPL-3.0-only", true);
    check("GPL-3.0-only OR LGPL-3.0-only", false);
    check("MIT AND GPL-3.0-only", false);
    check("Apache-2.0 AND ISC", true);
    // AND binds closer than OR.
    check("MIT OR ISC AND GPL-3.0-only", true);
    check("GPL-3.0-only AND ISC OR MIT", true);
    check("(MIT OR ISC) AND GPL-3.0-only", false);
    check("(MIT OR Apache-2.0) AND Unicode-3.0", true);
    check("((GPL-3.0-only) OR (MIT AND (ISC OR MPL-2.0)))", true);
    check("Apache-2.0 WITH LLVM-exception", true);
    check("GPL-2.0-only WITH Classpath-exception-2.0", false);
    check("MIT WITH LLVM-exception", false);
    check("GPL-2.0-only WITH Classpath-exception-2.0 OR MIT", true);
    check("mit", false);
    check("Apache-2.0+", false);
    for broken in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT ISC", "MIT WITH", "()"] {
        assert!(is_allowed(broken).is_err(), "{broken}");
    }
}

#[test]
fn wrong_packages_are_caught() {
    #[track_caller]
    fn check(name: &str, source: Option<&str>, licence: Option<&str>, expected: Option<&str>) {
        let package = serde_json::json!({
            "name": name, "source": source, "license": licence,
            "manifest_path": "/elsewhere/Cargo.toml",
        });
        let problem = problem(&package);
        match expected {
            None => assert_eq!(problem, None),
            Some(part) => {
                assert!(problem.as_ref().is_some_and(|it| it.contains(part)), "{problem:?}")
            }
        }
    }
    check("serde", Some(SOURCE), Some("MIT OR Apache-2.0"), None);
    check("openssl", Some(SOURCE), Some("Apache-2.0"), Some("rustls"));
    check("mine", Some(SOURCE), None, Some("no licence"));
    check("theirs", Some(SOURCE), Some("LGPL-2.1-or-later"), Some("LGPL"));
    check("fork", Some("git+https://example.org/fork#1"), Some("MIT"), Some("git+"));
    check("copy", None, Some("Apache-2.0"), Some("outside the workspace"));
}
