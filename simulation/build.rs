//! Lists the named points of the workspace (`env::sometimes!`), so that a batch of seeds can tell
//! which of them it has never reached.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// The crates that a node is made of, and this one.
const CRATES: &[&str] = &[
    "protocols/message",
    "protocols/smtp",
    "protocols/imap",
    "store-fdb/kv",
    "store-fdb/blob",
    "store-fdb/mail",
    "cluster",
    "node",
    "simulation",
];

const MARK: &str = "sometimes!(";

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let workspace = here.parent().ok_or_else(|| io::Error::other("no workspace around"))?;
    let mut points = Vec::new();
    for name in CRATES {
        let folder = workspace.join(name).join("src");
        println!("cargo::rerun-if-changed={}", folder.display());
        collect(&folder, workspace, &mut points)?;
    }
    points.sort();
    points.dedup_by(|next, kept| next.0 == kept.0);
    let mut text = "&[\n".to_owned();
    for (name, file) in &points {
        text.push_str(&format!("    Point {{ name: {name:?}, file: {file:?} }},\n"));
    }
    text.push_str("]\n");
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    fs::write(out.join("points.rs"), text)
}

fn collect(folder: &Path, workspace: &Path, points: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, workspace, points)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let file = path.strip_prefix(workspace).unwrap_or(&path).display().to_string();
            for after in text.split(MARK).skip(1) {
                let literal = after.trim_start().strip_prefix('"');
                let name = literal.and_then(|rest| rest.split_once('"')).map(|(name, _)| name);
                points.extend(name.map(|name| (name.to_owned(), file.clone())));
            }
        }
    }
    Ok(())
}
