//! Real handshakes over a stream in memory, for each demand and each way in which a certificate fails it.

use dns::Tlsa;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256, Sha512};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::public_key_info;

const HOST: &str = "mx.example.net";

/// An authority, and a certificate of its.
struct Issued {
    authority: CertificateDer<'static>,
    authority_pem: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn issue(host: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("Authority of {host}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    Issued {
        authority: authority.as_ref().der().clone(),
        authority_pem: authority.as_ref().pem(),
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

/// What a client with this demand, which believes the authorities in `roots`, sees of the server.
async fn shake(issued: &Issued, roots: &str, demand: Demand) -> Result<Shown, HandshakeError> {
    let env = Env::system();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    std::fs::write(&file, roots).unwrap();
    let chain = vec![issued.certificate.clone(), issued.authority.clone()];
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, issued.key.clone_key())
        .unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let accepting = TlsAcceptor::from(Arc::new(server)).accept(theirs);
    let security = Security::new(&env, file);
    let (shaken, _) = tokio::join!(security.handshake(Box::new(ours), HOST, &demand), accepting);
    shaken.map(|(_, shown)| shown)
}

fn record(usage: u8, selector: u8, matching: u8, certificate: &[u8]) -> Tlsa {
    let selected = match selector {
        0 => certificate,
        _ => public_key_info(certificate).unwrap(),
    };
    let data = match matching {
        0 => selected.to_vec(),
        1 => Sha256::digest(selected).to_vec(),
        _ => Sha512::digest(selected).to_vec(),
    };
    Tlsa { usage, selector, matching, data }
}

fn dane(record: Tlsa) -> Demand {
    let names = vec![HOST.to_owned(), "example.net".to_owned()];
    Demand::Dane(Arc::new(Dane::new(HOST.to_owned(), names, vec![record]).unwrap()))
}

#[track_caller]
fn verified(shown: Result<Shown, HandshakeError>) {
    assert_eq!(shown, Ok(Shown { assurance: Assurance::Verified, unproven: None }));
}

#[track_caller]
fn refused(shown: Result<Shown, HandshakeError>, why: Unproven) {
    assert_eq!(shown, Err(HandshakeError::Unproven(why)));
}

const STRICT: Demand = Demand::Authority(Otherwise::Refused);

#[tokio::test]
async fn where_nothing_is_demanded_any_certificate_will_do() {
    let issued = issue("elsewhere.example", |_| {});
    for demand in [Demand::Nothing, Demand::Encryption] {
        let shown = shake(&issued, "", demand).await;
        assert_eq!(shown, Ok(Shown { assurance: Assurance::Encrypted, unproven: None }));
    }
}

#[tokio::test]
async fn authorities_vouch_for_names_until_a_date() {
    let good = issue(HOST, |_| {});
    verified(shake(&good, &good.authority_pem, STRICT).await);
    let wild = issue("*.example.net", |_| {});
    verified(shake(&wild, &wild.authority_pem, STRICT).await);
    let other = issue("mx.example.org", |_| {});
    refused(shake(&other, &other.authority_pem, STRICT).await, Unproven::OtherName);
    refused(shake(&good, &other.authority_pem, STRICT).await, Unproven::Untrusted);
    let old = issue(HOST, |params| params.not_after = rcgen::date_time_ymd(2024, 1, 1));
    refused(shake(&old, &old.authority_pem, STRICT).await, Unproven::Expired);
    let none = shake(&good, "", STRICT).await;
    assert!(matches!(none, Err(HandshakeError::Failed(_))), "{none:?}");
}

#[tokio::test]
async fn while_a_domain_tests_its_policy_a_failure_is_told_only() {
    let other = issue("mx.example.org", |_| {});
    let shown = shake(&other, &other.authority_pem, Demand::Authority(Otherwise::Told)).await;
    let unproven = Some(Unproven::OtherName);
    assert_eq!(shown, Ok(Shown { assurance: Assurance::Encrypted, unproven }));
}

#[tokio::test]
async fn the_servers_own_certificate_is_matched_and_nothing_else_of_it() {
    let issued = issue("elsewhere.example", |params| {
        params.not_after = rcgen::date_time_ymd(2024, 1, 1);
    });
    for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        verified(
            shake(&issued, "", dane(record(3, selector, matching, &issued.certificate))).await,
        );
    }
    let other = issue(HOST, |_| {});
    let wrong = dane(record(3, 1, 1, &other.certificate));
    refused(shake(&issued, &issued.authority_pem, wrong).await, Unproven::OtherThanTlsa);
    // Another certificate of the chain is not the server's own.
    let authority = dane(record(3, 1, 1, &issued.authority));
    refused(shake(&issued, "", authority).await, Unproven::OtherThanTlsa);
}

#[tokio::test]
async fn a_trust_anchor_vouches_for_names_until_a_date() {
    let good = issue(HOST, |_| {});
    for (selector, matching) in [(0, 0), (0, 1), (1, 1), (1, 2), (1, 0)] {
        verified(shake(&good, "", dane(record(2, selector, matching, &good.authority))).await);
    }
    let domain = issue("example.net", |_| {});
    verified(shake(&domain, "", dane(record(2, 1, 1, &domain.authority))).await);
    let other = issue("mx.example.org", |_| {});
    refused(shake(&other, "", dane(record(2, 1, 1, &other.authority))).await, Unproven::OtherName);
    let old = issue(HOST, |params| params.not_after = rcgen::date_time_ymd(2024, 1, 1));
    refused(shake(&old, "", dane(record(2, 1, 1, &old.authority))).await, Unproven::Expired);
    // It is sent, and has not signed this certificate, whatever that says.
    let anchored = dane(record(2, 1, 1, &good.authority));
    for (host, why) in [("*.example.net", Unproven::OtherThanTlsa), (HOST, Unproven::Invalid)] {
        let mut forged = issue(host, |_| {});
        forged.authority = good.authority.clone();
        refused(shake(&forged, "", anchored.clone()).await, why);
    }
}
