//! The layers of ARCHITECTURE.md: folder = layer, and arrows point down only.
//!
//! Every kind of dependency counts (normal, build and development): what a test of a lower layer
//! needs from a higher one belongs into the higher one's tests.

use std::collections::{BTreeMap, BTreeSet};

use blackbox::workspace;
use serde_json::Value;

/// The crates of the workspace: name -> the folder it lies in and what it uses.
type Graph = BTreeMap<String, Crate>;

#[derive(Debug, Clone, Default)]
struct Crate {
    /// Below the workspace, such as `store-fdb/kv`.
    folder: String,
    /// The workspace's crates that it depends on.
    ours: BTreeSet<String>,
    /// Other people's, without those that only its tests need.
    theirs: BTreeSet<String>,
}

/// What each layer may use: prefixes of folders; one without `/` at its end is one crate.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocols/message", &[]),
    ("protocols/", &["protocols/message"]),
    // The lowest: clock, randomness, spawning and network for all that is above.
    ("store-fdb/env", &[]),
    ("store-fdb/", &["store-fdb/", "protocols/message"]),
    ("cluster", &["store-fdb/"]),
    // What the rest of the internet says of itself; it knows no store.
    ("trust/", &["trust/", "protocols/", "store-fdb/env"]),
    ("node", &["protocols/", "store-fdb/", "cluster", "trust/"]),
    ("ops/", &["protocols/", "store-fdb/", "cluster", "trust/", "node", "ops/"]),
    // Over sockets alone.
    ("tests", &[]),
    ("simulation", &["protocols/", "store-fdb/", "cluster", "trust/", "node"]),
];

/// Crates whose place the design names.
const PLACES: &[(&str, &[&str])] = &[
    ("protocols/", &["message", "smtp", "imap", "pop3", "jmap", "sieve", "managesieve", "dav"]),
    ("store-fdb/", &["env", "kv", "blob", "mail"]),
    ("cluster", &["cluster"]),
    ("trust/", &["dns", "origin"]),
    ("node", &["node"]),
    ("ops/", &["rookery", "bench"]),
    ("tests", &["blackbox"]),
    ("simulation", &["simulation"]),
];

/// What reaches the outside world, and so cannot be in a crate that does no IO.
const IO: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "socket2",
    "hyper",
    "axum",
    "ureq",
    "getrandom",
    "rand",
    "fjall",
    "foundationdb",
    "rustls",
    "tokio-rustls",
    "time",
    "chrono",
];

fn covers(prefix: &str, folder: &str) -> bool {
    if prefix.ends_with('/') { folder.starts_with(prefix) } else { folder == prefix }
}

fn problems(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, here) in graph {
        let Some((_, may_use)) = LAYERS.iter().find(|(layer, _)| covers(layer, &here.folder))
        else {
            problems.push(format!("{name}: {} is no layer's folder", here.folder));
            continue;
        };
        for other in &here.ours {
            let Some(there) = graph.get(other) else {
                problems.push(format!("{name} -> {other}: it is not in the workspace"));
                continue;
            };
            if !may_use.iter().any(|prefix| covers(prefix, &there.folder)) {
                problems.push(format!("{} must not use {}", here.folder, there.folder));
            }
        }
        if here.folder.starts_with("protocols/") {
            for io in here.theirs.iter().filter(|theirs| IO.contains(&theirs.as_str())) {
                problems.push(format!("{}: does no IO, but uses {io}", here.folder));
            }
        }
        let place = PLACES.iter().find(|(_, names)| names.contains(&name.as_str()));
        match place {
            Some((place, _)) if covers(place, &here.folder) => {}
            Some((place, _)) => problems.push(format!("{name} belongs into {place}")),
            None => problems.push(format!("{name}: this test knows no place for it yet")),
        }
    }
    problems
}

/// The graph of the packages that `cargo metadata --no-deps` lists.
fn graph(metadata: &Value) -> Graph {
    let root = metadata["workspace_root"].as_str().expect("cargo tells the root");
    let below = |path: &str| path.strip_prefix(root).map(|path| path.trim_matches('/').to_owned());
    let mut graph = Graph::new();
    for package in metadata["packages"].as_array().expect("cargo lists packages") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let manifest = text(&package["manifest_path"]);
        let folder = below(manifest.trim_end_matches("Cargo.toml")).expect("members lie below");
        let mut here = Crate { folder, ..Crate::default() };
        for dependency in package["dependencies"].as_array().expect("cargo lists dependencies") {
            let name = text(&dependency["name"]);
            if dependency["path"].is_string() {
                here.ours.insert(name);
            } else if dependency["kind"] != "dev" {
                here.theirs.insert(name);
            }
        }
        graph.insert(text(&package["name"]), here);
    }
    graph
}

fn our_graph() -> Graph {
    graph(&workspace::metadata(&["--no-deps", "--offline"]).expect("it needs nothing else"))
}

#[test]
fn arrows_point_down_only() {
    let graph = our_graph();
    assert!(graph.len() >= 12, "the workspace has lost crates: {:?}", graph.keys());
    let problems = problems(&graph);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_crate_is_a_member() {
    let folders: BTreeSet<String> = our_graph().into_values().map(|here| here.folder).collect();
    for file in workspace::files() {
        if file.file_name().is_some_and(|name| name == "Cargo.toml")
            && let Some(folder) = file.parent().and_then(|folder| folder.to_str())
            && !folder.is_empty()
        {
            assert!(folders.contains(folder), "{folder} is not a member of the workspace");
        }
    }
}

#[test]
fn the_rules_catch_wrong_arrows() {
    #[track_caller]
    fn check(name: &str, used: &str, expected: &str) {
        let mut graph = our_graph();
        assert_eq!(problems(&graph), Vec::<String>::new());
        graph.get_mut(name).expect("it is ours").ours.insert(used.to_owned());
        assert_eq!(problems(&graph), [expected]);
    }
    check("message", "env", "protocols/message must not use store-fdb/env");
    check("imap", "smtp", "protocols/imap must not use protocols/smtp");
    check("imap", "kv", "protocols/imap must not use store-fdb/kv");
    check("env", "kv", "store-fdb/env must not use store-fdb/kv");
    check("mail", "imap", "store-fdb/mail must not use protocols/imap");
    check("mail", "node", "store-fdb/mail must not use node");
    check("cluster", "smtp", "cluster must not use protocols/smtp");
    check("cluster", "message", "cluster must not use protocols/message");
    check("dns", "mail", "trust/dns must not use store-fdb/mail");
    check("dns", "cluster", "trust/dns must not use cluster");
    check("cluster", "dns", "cluster must not use trust/dns");
    check("node", "rookery", "node must not use ops/cli");
    check("node", "simulation", "node must not use simulation");
    check("rookery", "blackbox", "ops/cli must not use tests");
    check("blackbox", "node", "tests must not use node");
    check("simulation", "blackbox", "simulation must not use tests");
    check("rookery", "nothing", "rookery -> nothing: it is not in the workspace");
}

#[test]
fn the_rules_catch_wrong_places_and_io() {
    #[track_caller]
    fn check(name: &str, change: impl FnOnce(&mut Crate), expected: &str) {
        let mut graph = our_graph();
        change(graph.entry(name.to_owned()).or_default());
        let problems = problems(&graph);
        assert!(problems.iter().any(|problem| problem == expected), "{problems:?}");
    }
    let to = |folder: &'static str| move |here: &mut Crate| here.folder = folder.to_owned();
    check("smtp", to("node/smtp"), "smtp: node/smtp is no layer's folder");
    check("smtp", to("store-fdb/smtp"), "smtp belongs into protocols/");
    check("util", to("store-fdb/util"), "util: this test knows no place for it yet");
    let tokio = |here: &mut Crate| {
        here.theirs.insert("tokio".to_owned());
    };
    check("smtp", tokio, "protocols/smtp: does no IO, but uses tokio");
}

#[test]
fn dependencies_are_read_from_what_cargo_prints() {
    let metadata = serde_json::json!({
        "workspace_root": "/w",
        "packages": [{
            "name": "kv",
            "manifest_path": "/w/store-fdb/kv/Cargo.toml",
            "dependencies": [
                {"name": "env", "path": "/w/store-fdb/env", "kind": null},
                {"name": "node", "path": "/w/node", "kind": "dev"},
                {"name": "fjall", "kind": null},
                {"name": "proptest", "kind": "dev"},
            ],
        }],
    });
    let graph = graph(&metadata);
    let kv = &graph["kv"];
    assert_eq!(kv.folder, "store-fdb/kv");
    assert_eq!(Vec::from_iter(&kv.ours), ["env", "node"]);
    assert_eq!(Vec::from_iter(&kv.theirs), ["fjall"]);
}
