//! `rookery cluster certificate …`

use std::{fs::File, io::Read, path::Path};

use node::{
    admin::cluster::{self, AddedCertificate, CertificateInfo, CertificateState, NewCertificate},
    tls::PEM_BYTES_MAX,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::rows::{ago, until};
use crate::{
    args::CertificateCommand,
    backend::Backend,
    error::CliError,
    output::{Output, Row},
};

impl Row for CertificateInfo {
    const HEADER: &'static [&'static str] =
        &["CERTIFICATE", "STATE", "EXPIRES IN", "ADDED", "HOSTS", "SHA-256"];
    fn cells(&self) -> Vec<String> {
        let left = match self.state {
            CertificateState::Damaged => "-".to_owned(),
            _ => until(self.not_after_ms),
        };
        vec![
            self.name.clone(),
            self.state.as_str().to_owned(),
            left,
            ago(Some(self.added_ms)),
            self.hosts.join(","),
            // Enough to tell certificates apart; programs get all of it.
            self.fingerprint.chars().take(16).collect(),
        ]
    }
}

pub(super) fn run(
    backend: &Backend,
    output: &mut Output,
    command: &CertificateCommand,
) -> Result<(), CliError> {
    match command {
        CertificateCommand::Add { cert, key, name } => {
            let new = NewCertificate {
                name: name.clone(),
                certificate: read(cert)?.to_string(),
                key: read(key)?,
            };
            let added: AddedCertificate = match backend {
                Backend::Direct(direct) => {
                    direct.run(cluster::add_certificate(&direct.admin, &new))?
                }
                Backend::Remote(remote) => remote.post(&["cluster", "certificates"], &new)?,
            };
            let what = if added.replaced { "replaced" } else { "added" };
            let CertificateInfo { name, hosts, .. } = &added.certificate;
            let hosts = hosts.join(", ");
            output.done(format_args!("{what} certificate {name} for {hosts}"), &added)
        }
        CertificateCommand::List => {
            let all: Vec<CertificateInfo> = match backend {
                Backend::Direct(direct) => direct.run(cluster::certificates(&direct.admin))?,
                Backend::Remote(remote) => remote.get(&["cluster", "certificates"], &[])?,
            };
            output.rows(&all)
        }
        CertificateCommand::Remove { name } => {
            match backend {
                Backend::Direct(direct) => {
                    direct.run(cluster::remove_certificate(&direct.admin, name))?;
                }
                Backend::Remote(remote) => remote.delete(&["cluster", "certificates", name])?,
            }
            output.done(format_args!("removed certificate {name}"), &json!({ "removed": name }))
        }
    }
}

/// The text of a file; it may be a key.
fn read(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Sized beforehand: a text that grows leaves copies behind.
    let capacity = usize::try_from(PEM_BYTES_MAX + 1).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(PEM_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > PEM_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}
