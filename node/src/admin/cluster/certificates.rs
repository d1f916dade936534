//! Certificates that all nodes show.
//!
//! A certificate is looked at before it is stored ([`crate::tls::examine`]). Its private key goes in
//! and never comes out.

use ::cluster::certificates::{self as store, Added, Certificate, Removed};
use env::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Admin, AdminError};
use crate::{
    hex::hex,
    limits::{CERTIFICATE_EXPIRES_SOON, CERTIFICATE_NAME_BYTES_MAX},
    tls::{self, CertificateError, Facts},
};

/// A certificate to add.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCertificate {
    /// What to call it; its first host's name without.
    pub name: Option<String>,
    /// PEM: the server's own first, then its issuers'.
    pub certificate: String,
    /// PEM: its private key.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for NewCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCertificate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// It is shown to whoever asks for one of its hosts.
    Used,
    /// For each of its hosts there is one that expires later.
    Unused,
    /// It is used, and expires soon.
    Expiring,
    /// It is used, and has expired.
    Expired,
    /// It cannot be read.
    Damaged,
}

impl CertificateState {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Unused => "unused",
            Self::Expiring => "expires soon",
            Self::Expired => "expired",
            Self::Damaged => "damaged",
        }
    }
}

/// A certificate, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: CertificateState,
    /// The hosts that it is for; `*.` stands for one label.
    pub hosts: Vec<String>,
    /// From when on it is good, milliseconds since 1970.
    pub not_before_ms: i64,
    /// Until when it is good, milliseconds since 1970.
    pub not_after_ms: i64,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
    /// When it was added, by the clock of whoever was asked, milliseconds since 1970.
    pub added_ms: i64,
}

/// A certificate that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedCertificate {
    /// It.
    pub certificate: CertificateInfo,
    /// Whether another of this name went.
    pub replaced: bool,
}

/// Adds a certificate, or puts it in the place of the one that has its name; in use on all nodes
/// within a heartbeat.
///
/// # Errors
/// [`AdminError::Certificate`] where it is no good, [`AdminError::CertificateName`],
/// [`AdminError::ManyCertificates`].
pub async fn add_certificate(
    admin: &Admin,
    new: &NewCertificate,
) -> Result<AddedCertificate, AdminError> {
    let (env, pem) = (admin.env.clone(), new.clone());
    // A key of a kind that is slow to check would hold others up.
    let examined = admin
        .env
        .run_blocking(move || tls::examine(&env, pem.certificate.as_bytes(), pem.key.as_bytes()));
    let examined = examined.await.map_err(|error| AdminError::Internal(error.to_string()))??;
    let first = examined.facts.hosts.first().ok_or(CertificateError::NoHost)?;
    let name = &name_of(new.name.as_deref().unwrap_or(first))?;
    let (chain, key, now) = (&examined.chain, &examined.key, admin.env.wall());
    let add = |tx: kv::Transaction| async move { store::add(&tx, name, chain, key, now).await };
    let added = admin.db.run(add).await?;
    if added == Added::TooMany {
        return Err(AdminError::ManyCertificates);
    }
    let all = certificates(admin).await?;
    let certificate = all.into_iter().find(|it| it.name == *name);
    let certificate = certificate.ok_or_else(|| AdminError::NoCertificate(name.clone()))?;
    Ok(AddedCertificate { certificate, replaced: added == Added::Replaced })
}

/// Removes a certificate; no node shows it after its next heartbeat.
///
/// # Errors
/// [`AdminError::NoCertificate`], [`AdminError::CertificateName`].
pub async fn remove_certificate(admin: &Admin, name: &str) -> Result<(), AdminError> {
    let name = &name_of(name)?;
    admin
        .run(async |tx, run| {
            let removed = match store::remove(&tx, name).await? {
                Removed::Yes => Ok(()),
                Removed::Unknown => Err(AdminError::NoCertificate(name.clone())),
            };
            run.settle(removed, |error| matches!(error, AdminError::NoCertificate(_)))
        })
        .await
}

/// All certificates, by name.
///
/// # Errors
/// [`AdminError`].
pub async fn certificates(admin: &Admin) -> Result<Vec<CertificateInfo>, AdminError> {
    let held = store::all(&admin.db).await?.all;
    let facts: Vec<Option<Facts>> =
        held.iter().map(|it| it.chain.first().and_then(|leaf| tls::facts(leaf))).collect();
    let readable: Vec<&Facts> = facts.iter().flatten().collect();
    let used: Vec<&Facts> = tls::chosen(&readable).into_values().map(|at| readable[at]).collect();
    let now = admin.env.wall();
    let info = |(certificate, facts): (&Certificate, &Option<Facts>)| {
        let is_used = |facts| used.iter().any(|used| std::ptr::eq(*used, facts));
        let state = match facts {
            None => CertificateState::Damaged,
            Some(facts) if !is_used(facts) => CertificateState::Unused,
            Some(facts) => state(facts.not_after, now),
        };
        let fingerprint = certificate.chain.first().map(Sha256::digest).unwrap_or_default();
        CertificateInfo {
            name: certificate.name.clone(),
            state,
            hosts: facts.as_ref().map(|facts| facts.hosts.clone()).unwrap_or_default(),
            not_before_ms: facts.as_ref().map_or(0, |facts| facts.not_before.unix_ms()),
            not_after_ms: facts.as_ref().map_or(0, |facts| facts.not_after.unix_ms()),
            fingerprint: hex(&fingerprint),
            added_ms: certificate.added.unix_ms(),
        }
    };
    Ok(held.iter().zip(&facts).map(info).collect())
}

/// How a certificate is that is used and good until then.
pub(super) fn state(until: Timestamp, now: Timestamp) -> CertificateState {
    let soon_ms = i64::try_from(CERTIFICATE_EXPIRES_SOON.as_millis()).unwrap_or(i64::MAX);
    match until.unix_ms().saturating_sub(now.unix_ms()) {
        ..0 => CertificateState::Expired,
        left if left < soon_ms => CertificateState::Expiring,
        _ => CertificateState::Used,
    }
}

/// A name fits where a host's name does, wildcards included: it stands in paths and on command lines.
fn name_of(name: &str) -> Result<String, AdminError> {
    let fits = (1..=CERTIFICATE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte))
        && !name.bytes().all(|byte| byte == b'.');
    if fits { Ok(name.to_ascii_lowercase()) } else { Err(AdminError::CertificateName) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::memory;

    fn made(hosts: &[&str], year: i32) -> NewCertificate {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        let mut params = rcgen::CertificateParams::new(hosts).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        NewCertificate { name: None, certificate, key: Zeroizing::new(key.serialize_pem()) }
    }

    #[tokio::test]
    async fn certificates_are_added_listed_and_removed() {
        let admin = memory();
        let added = add_certificate(&admin, &made(&["MX.example.org", "b.org"], 2400)).await;
        let added = added.unwrap();
        assert!(!added.replaced);
        let info = &added.certificate;
        assert_eq!((&*info.name, info.state), ("mx.example.org", CertificateState::Used));
        assert_eq!(info.hosts, ["mx.example.org", "b.org"]);
        assert_eq!(info.fingerprint.len(), 64);
        let named = NewCertificate { name: Some("Spare".to_owned()), ..made(&["b.org"], 2300) };
        add_certificate(&admin, &named).await.unwrap();
        let renewed = add_certificate(&admin, &made(&["mx.example.org"], 2401)).await.unwrap();
        assert!(renewed.replaced);
        let listed = certificates(&admin).await.unwrap();
        let told: Vec<_> = listed.iter().map(|it| (&*it.name, it.state)).collect();
        // The renewed one is no longer for b.org.
        let used = CertificateState::Used;
        assert_eq!(told, [("mx.example.org", used), ("spare", used)]);
        let json = serde_json::to_string(&listed).unwrap();
        assert!(!json.contains("key") && !json.contains("PRIVATE"), "{json}");
        remove_certificate(&admin, "SPARE").await.unwrap();
        let gone = remove_certificate(&admin, "spare").await;
        assert!(matches!(gone, Err(AdminError::NoCertificate(_))));
    }

    #[tokio::test]
    async fn of_two_for_one_host_the_shorter_is_unused() {
        let admin = memory();
        add_certificate(&admin, &made(&["*.b.org", "a.b.org"], 2400)).await.unwrap();
        add_certificate(&admin, &made(&["a.b.org"], 2300)).await.unwrap();
        let listed = certificates(&admin).await.unwrap();
        let told: Vec<_> = listed.iter().map(|it| (&*it.name, it.state)).collect();
        let (used, unused) = (CertificateState::Used, CertificateState::Unused);
        assert_eq!(told, [("*.b.org", used), ("a.b.org", unused)]);
    }

    #[tokio::test]
    async fn what_is_no_good_is_refused() {
        let admin = memory();
        let old = add_certificate(&admin, &made(&["a.org"], 2020)).await.unwrap_err();
        assert!(matches!(old, AdminError::Certificate(CertificateError::Expired { .. })), "{old}");
        for name in ["", "..", "a/b", "a b", "\u{e4}", &"a".repeat(254)] {
            let named = NewCertificate { name: Some(name.to_owned()), ..made(&["a.org"], 2400) };
            let refused = add_certificate(&admin, &named).await;
            assert!(matches!(refused, Err(AdminError::CertificateName)), "{name}");
        }
        assert_eq!(certificates(&admin).await.unwrap(), []);
        assert!(!format!("{:?}", made(&["a.org"], 2400)).contains("BEGIN"));
    }

    #[test]
    fn states_follow_the_date() {
        let at = |days: i64| Timestamp::from_unix_seconds(days * 86_400);
        assert_eq!(state(at(30), at(0)), CertificateState::Used);
        assert_eq!(state(at(13), at(0)), CertificateState::Expiring);
        assert_eq!(state(at(0), at(1)), CertificateState::Expired);
    }
}
