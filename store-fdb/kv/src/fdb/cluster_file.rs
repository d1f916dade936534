//! The cluster file: who the coordinators are.
//!
//! One line, `DESCRIPTION:ID@ADDRESS:PORT[:tls],…`; lines that begin with `#` are comments. The
//! client rewrites it when the coordinators change.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::{OpenError, limits::CLUSTER_FILE_BYTES_MAX};

/// The coordinators that a cluster file names.
///
/// # Errors
/// [`OpenError::Io`] where it cannot be read, [`OpenError::ClusterFile`] where it is none.
pub fn coordinators(path: &Path) -> Result<Vec<String>, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(CLUSTER_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > CLUSTER_FILE_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| not_one(path, "it is no text"))?;
    parse(&text).map_err(|reason| not_one(path, reason))
}

pub(super) fn not_one(path: &Path, reason: &str) -> OpenError {
    OpenError::ClusterFile { path: path.to_owned(), reason: reason.to_owned() }
}

fn parse(text: &str) -> Result<Vec<String>, &'static str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut lines = lines.filter(|line| !line.starts_with('#'));
    let line = lines.next().ok_or("it is empty")?;
    if lines.next().is_some() {
        return Err("it has more than one line");
    }
    let (key, addresses) = line.split_once('@').ok_or("there is no `@`")?;
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !key.split_once(':').is_some_and(|(description, id)| is_word(description) && is_word(id)) {
        return Err("there is no DESCRIPTION:ID before the `@`");
    }
    let has_port = |address: &str| {
        let address = address.strip_suffix(":tls").unwrap_or(address);
        let parts = address.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    let addresses: Vec<String> = addresses.split(',').map(|it| it.trim().to_owned()).collect();
    match addresses.iter().all(|address| has_port(address)) {
        true => Ok(addresses),
        false => Err("a coordinator is not ADDRESS:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinators_are_read() {
        let check = |text: &str, expected: &[&str]| assert_eq!(parse(text).unwrap(), expected);
        check("a:b@127.0.0.1:4500", &["127.0.0.1:4500"]);
        check(
            "# DO NOT EDIT!\n\n a_1:b2@[::1]:4500:tls,fdb.example.org:4500 \n",
            &["[::1]:4500:tls", "fdb.example.org:4500"],
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, expected: &str| assert_eq!(parse(text).unwrap_err(), expected);
        check("", "it is empty");
        check("# nothing\n", "it is empty");
        check("a:b@h:1\na:b@h:2", "it has more than one line");
        check("127.0.0.1:4500", "there is no `@`");
        check("ab@127.0.0.1:4500", "there is no DESCRIPTION:ID before the `@`");
        check("a:@127.0.0.1:4500", "there is no DESCRIPTION:ID before the `@`");
        check("a:b@", "a coordinator is not ADDRESS:PORT");
        check("a:b@h:1,h", "a coordinator is not ADDRESS:PORT");
        check("a:b@h:99999", "a coordinator is not ADDRESS:PORT");
    }

    #[test]
    fn files_that_are_none_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fdb.cluster");
        let told = |expected: &str| {
            let error = coordinators(&file).unwrap_err().to_string();
            assert!(error.contains("fdb.cluster") && error.contains(expected), "{error}");
        };
        told("No such file");
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        told("it is no text");
        std::fs::write(&file, vec![b'a'; 1 << 20]).unwrap();
        told("too large");
        std::fs::write(&file, "one two").unwrap();
        told("DESCRIPTION:ID@ADDRESS:PORT");
    }
}
