//! Why there is no configuration, in words that lead to the line.

use std::path::{Path, PathBuf};

use super::{check::Problem, key};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key is unknown, missing or invalid.
    #[error("{}:{line}:{column}: {}{reason}", path.display(), named(key.as_deref()))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// The key's full name, where the place belongs to one.
        key: Option<String>,
        /// What is wrong.
        reason: String,
    },
    /// Neither `XDG_DATA_HOME` nor `HOME` names a folder for a development node's data.
    #[error("neither XDG_DATA_HOME nor HOME is set; say where to keep mail with --data")]
    NoHome,
}

fn named(key: Option<&str>) -> String {
    key.map(|key| format!("{key}: ")).unwrap_or_default()
}

impl ConfigError {
    pub(super) fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let place = error.span().unwrap_or(0..text.len());
        let reason = error.message().trim_end().replace('\n', "; ");
        Self::at(path, text, place.start, key::name_at(text, &place), reason)
    }

    pub(super) fn from_check(path: &Path, text: &str, problem: &Problem) -> Self {
        let offset = key::offset_of(text, problem.key);
        Self::at(path, text, offset, Some(problem.key.to_owned()), problem.reason.clone())
    }

    pub(super) fn at(
        path: &Path,
        text: &str,
        offset: usize,
        key: Option<String>,
        reason: String,
    ) -> Self {
        let (line, column) = position(text, offset);
        Self::Invalid { path: path.to_owned(), line, column, key, reason }
    }
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_begin..].chars().count() + 1)
}
