//! The workspace itself: its folder, its files, and what cargo knows of it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the workspace")
}

/// The project's own files, by their paths below [`root`]: those that git knows or would add.
/// Without git, as in an unpacked archive, all but what is built.
pub fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let mut files = match listed {
        Ok(Output { status, stdout, .. }) if status.success() => String::from_utf8(stdout)
            .expect("our files' names are UTF-8")
            .split_terminator('\0')
            .map(PathBuf::from)
            // Known to git, but deleted here.
            .filter(|path| root().join(path).is_file())
            .collect(),
        _ => {
            let mut files = Vec::new();
            walk(root(), &mut files);
            files
        }
    };
    files.sort();
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("our folders are readable") {
        let path = entry.expect("our folders are readable").path();
        let below = path.strip_prefix(root()).expect("the walk starts there");
        if path.is_dir() {
            if below != Path::new("target") && below != Path::new(".git") {
                walk(&path, files);
            }
        } else {
            files.push(below.to_owned());
        }
    }
}

/// What `cargo metadata` prints with these arguments, or its complaint.
///
/// # Errors
/// What cargo wrote to standard error.
pub fn metadata(arguments: &[&str]) -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--format-version=1"])
        .args(arguments)
        // A machine without network is told so at once.
        .env("CARGO_NET_RETRY", "0")
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}
