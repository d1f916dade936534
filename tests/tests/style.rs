//! Our own rules that a machine can check in a moment; clippy and rustfmt check the rest.

use std::{
    fs,
    path::{Path, PathBuf},
};

use blackbox::workspace;

/// Lines of a file of Rust.
const LINES_MAX: usize = 800;

/// Hosts that a link may go to from documentation and build files. Any other is either a typing
/// error or the address of a machine that only one of us can reach.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "localhost",
    "apache.org",
    "www.apache.org",
    "apple.github.io",
    "crates.io",
    "doc.rust-lang.org",
    "docs.rs",
    "github.com",
    "keepachangelog.com",
    "rust-lang.org",
    "www.rust-lang.org",
    "rustup.rs",
    "sh.rustup.rs",
    "semver.org",
    "spdx.org",
    "www.rfc-editor.org",
    "www.jetmore.org",
    "isync.sourceforge.io",
    "curl.se",
    "docs.python.org",
    "datatracker.ietf.org",
    "www.iana.org",
    "www.foundationdb.org",
];

/// Names that stand for nothing real (RFC 2606, RFC 6761).
const EXAMPLES: &[&str] = &["example.org", "example.com", "example.net"];

struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|here| here == extension)
    }
}

/// Our text files.
fn files() -> Vec<File> {
    let text = |path: PathBuf| {
        let text = fs::read_to_string(workspace::root().join(&path)).ok()?;
        Some(File { path, text })
    };
    workspace::files().into_iter().filter_map(text).collect()
}

#[track_caller]
fn check(problem: impl Fn(&File) -> Option<String>) {
    let files = files();
    assert!(files.len() > 100, "only {} files", files.len());
    let found: Vec<String> = files
        .iter()
        .filter_map(|file| Some(format!("{}: {}", file.path.display(), problem(file)?)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn line_with(text: &str, wrong: impl Fn(&str) -> bool) -> Option<String> {
    let (at, line) = text.lines().enumerate().find(|(_, line)| wrong(line))?;
    Some(format!("line {}: {}", at + 1, line.trim()))
}

#[test]
fn modules_lie_beside_their_folder() {
    check(|file| file.path.ends_with("mod.rs").then(|| "name it after its folder".to_owned()));
}

#[test]
fn modules_open_with_what_they_are_for() {
    check(|file| {
        // A module's own tests are described by the module.
        let beside = file.path.ends_with("tests.rs")
            || file
                .path
                .to_str()
                .is_some_and(|path| path.contains("/src/") && path.contains("/tests/"));
        (file.is("rs") && !beside && !file.text.starts_with("//!"))
            .then(|| "does not begin with //!".to_owned())
    });
}

#[test]
fn files_are_short_enough_to_read() {
    check(|file| {
        let lines = file.text.lines().count();
        (file.is("rs") && lines > LINES_MAX).then(|| format!("{lines} lines"))
    });
}

#[test]
fn nothing_is_left_for_later() {
    // Written so that this file is not found itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let macros = [concat!("unimpl", "emented!("), concat!("to", "do!(")];
    check(|file| {
        let code = ["rs", "toml", "py", "sh", "yml"].iter().any(|kind| file.is(kind));
        let in_words = |line: &str| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| words.contains(&word))
        };
        let in_macros = |line: &str| macros.iter().any(|name| line.contains(name));
        if !code {
            return None;
        }
        line_with(&file.text, |line| in_words(line) || in_macros(line))
    });
}

#[test]
fn nothing_names_one_persons_machine() {
    let folders = [
        concat!("/wo", "rk/"),
        concat!("/tmp", "/rk"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ];
    check(|file| line_with(&file.text, |line| folders.iter().any(|folder| line.contains(folder))));
}

#[test]
fn links_go_to_places_that_all_can_reach() {
    check(|file| {
        let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let read_by_people = ["md", "toml", "sh", "yml", "lock"].iter().any(|kind| file.is(kind));
        if !read_by_people && name != "run" {
            return None;
        }
        line_with(&file.text, |line| hosts(line).iter().any(|host| !is_known(host)))
    });
}

/// The hosts of the URLs in a line.
fn hosts(line: &str) -> Vec<&str> {
    let ends = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-'));
    line.split("://")
        .skip(1)
        .map(|rest| rest.split('@').next_back().filter(|_| rest.contains('@')).unwrap_or(rest))
        .map(|rest| rest.split(ends).next().unwrap_or_default())
        .filter(|host| !host.is_empty())
        .collect()
}

fn is_known(host: &str) -> bool {
    HOSTS.contains(&host)
        || EXAMPLES.iter().any(|name| host == *name || host.ends_with(&format!(".{name}")))
        || host.ends_with(".test")
        || host.ends_with(".example")
        // A word for the reader to replace.
        || host.chars().all(|c| c.is_ascii_uppercase())
}

#[test]
fn hosts_are_found() {
    assert_eq!(hosts("see https://docs.rs/x and (http://a.b:80)"), ["docs.rs", "a.b"]);
    assert_eq!(hosts("smtp://$HOST:25 imaps://me@example.org/"), ["example.org"]);
    assert!(is_known("mail.example.org") && is_known("HOST"));
    assert!(!is_known("registry.internal") && !is_known("notexample.org"));
}

#[test]
fn relative_links_lead_somewhere() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        assert!(workspace::root().join(name).is_file(), "{name} is missing");
    }
    check(|file| {
        if !file.is("md") {
            return None;
        }
        let folder = workspace::root().join(&file.path);
        let folder = folder.parent().unwrap_or(Path::new("/"));
        let broken = links(&file.text).into_iter().find(|link| !folder.join(link).exists())?;
        Some(format!("{broken} does not exist"))
    });
}

/// The targets of links in Markdown that are files of ours.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .filter(|target| !target.starts_with("mailto:"))
        .map(|target| target.split('#').next().unwrap_or(target))
        .collect()
}

#[test]
fn links_are_found() {
    let text = "[a](b.md) [c](https://docs.rs) [d](#e) [f](g/h.md#i) [j](mailto:k@example.org)";
    assert_eq!(links(text), ["b.md", "g/h.md"]);
}
