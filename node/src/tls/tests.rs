//! Real handshakes over real sockets.

use std::{fs, path::Path, sync::Arc};

use cluster::certificates::{Certificate, Certificates};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::auth::{
    ChannelBinding, Step,
    testing::{HOME, ScramClient, World},
};

type ClientStream = tokio_rustls::client::TlsStream<env::Stream>;

fn names() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

fn server(directory: &Path) -> Tls {
    Tls::self_signed(&Env::system(), directory, &names()).unwrap()
}

/// A client that trusts the certificate in this file.
fn client(certificate: &Path, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Connects and shakes hands; both sides, and what the server knows.
async fn connect(
    tls: &Tls,
    client: &Arc<ClientConfig>,
) -> Result<(ClientStream, TlsStream, TlsInfo), AcceptError> {
    let env = Env::system();
    let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let stream = env.connect(listener.local_address().unwrap()).await.unwrap();
    let accepted = listener.accept().await.unwrap().stream;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::clone(client));
    let (server, client) = tokio::join!(tls.accept(accepted), connector.connect(name, stream));
    let (stream, info) = server?;
    Ok((client.unwrap(), stream, info))
}

#[tokio::test]
async fn both_sides_export_the_same_and_data_flows() {
    let directory = tempfile::tempdir().unwrap();
    let tls = server(directory.path());
    let certificate = directory.path().join("dev-cert.pem");
    let leaf = CertificateDer::from_pem_file(&certificate).unwrap();
    for (version, name) in [(&TLS13, "TLSv1.3"), (&TLS12, "TLSv1.2")] {
        let config = Arc::new(client(&certificate, version));
        let (mut client, mut server, info) = connect(&tls, &config).await.unwrap();
        assert_eq!(info.protocol, name);
        assert!(
            info.cipher.starts_with("TLS_")
                && info.cipher.contains("_WITH_") == (name == "TLSv1.2")
        );
        assert_eq!(info.server_name.as_deref(), Some("localhost"));
        // rcgen signs with ECDSA and SHA-256.
        assert_eq!(info.end_point.as_deref(), Some(&Sha256::digest(&leaf)[..]));
        let exported = client
            .get_ref()
            .1
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None)
            .unwrap();
        assert_eq!(info.exporter, (name == "TLSv1.3").then_some(exported));
        let binding =
            ChannelBinding::Tls { exporter: info.exporter, end_point: info.end_point.clone() };
        assert_eq!(info.channel_binding(), binding);
        let shown = format!("{info:?}");
        assert!(!shown.contains("exporter"), "{shown}");

        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        let mut bytes = [0; 4];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
    }
}

#[tokio::test]
async fn scram_plus_binds_to_the_connection() {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let tls = server(directory.path());
    let config = Arc::new(client(&directory.path().join("dev-cert.pem"), &TLS13));
    let (ours, _, info) = connect(&tls, &config).await.unwrap();
    let (theirs, _, _) = connect(&tls, &config).await.unwrap();
    let export = |stream: &ClientStream| {
        let connection = stream.get_ref().1;
        connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).unwrap()
    };
    let end_point = info.end_point.clone().unwrap();
    for (header, binding, expected) in [
        ("p=tls-exporter,,", export(&ours).to_vec(), true),
        // Somebody between who passes the messages of another connection on.
        ("p=tls-exporter,,", export(&theirs).to_vec(), false),
        ("p=tls-server-end-point,,", end_point, true),
        ("p=tls-server-end-point,,", vec![0; 32], false),
    ] {
        let mut client = ScramClient::new("user@example.org", "pencil", header, &binding);
        let channel = info.channel_binding();
        let mut exchange = world.auth.begin("SCRAM-SHA-256-PLUS", HOME, &channel).unwrap();
        let Step::Challenge(first) = exchange.step(Some(client.first().as_bytes())).await else {
            panic!("no challenge");
        };
        let last = client.last(std::str::from_utf8(&first).unwrap());
        let Step::Challenge(server_final) = exchange.step(Some(last.as_bytes())).await else {
            panic!("no answer");
        };
        let server_final = String::from_utf8(server_final).unwrap();
        assert_eq!(client.accepts(&server_final), expected, "{header} {server_final}");
        let done = matches!(exchange.step(Some(b"")).await, Step::Done(_));
        assert_eq!(done, expected, "{header}");
    }
}

/// Connects, reads what carries the tickets, and tells whether the session was resumed.
async fn is_resumed(tls: &Tls, config: &Arc<ClientConfig>) -> bool {
    let (mut client, mut server, _) = connect(tls, config).await.unwrap();
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    client.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

#[tokio::test]
async fn a_session_resumes_on_any_node_that_shares_keys_and_certificate() {
    let directory = tempfile::tempdir().unwrap();
    server(directory.path());
    let (certificate, key) =
        (directory.path().join("dev-cert.pem"), directory.path().join("dev-key.pem"));
    let node = || Tls::from_files(&Env::system(), &certificate, &key).unwrap();
    let shared = || {
        let made = env::Timestamp::from_unix_ms(0);
        vec![TicketKey { number: 1, secret: [7; 32].into(), made }]
    };
    for version in [&TLS13, &TLS12] {
        let (here, there) = (node(), node());
        let config = Arc::new(client(&certificate, version));
        assert!(!is_resumed(&here, &config).await);
        assert!(is_resumed(&here, &config).await);
        assert!(!is_resumed(&there, &config).await, "each has keys of its own");
        for node in [&here, &there] {
            node.share_tickets(shared());
        }
        assert!(!is_resumed(&here, &config).await, "the old key is gone");
        assert!(is_resumed(&there, &config).await);
        here.reload().unwrap();
        assert!(is_resumed(&here, &config).await, "the certificate is the same");
    }
}

#[tokio::test]
async fn a_reload_swaps_the_certificate_or_changes_nothing() {
    let (made, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    server(made.path());
    server(other.path());
    let (certificate, key) = (made.path().join("dev-cert.pem"), made.path().join("dev-key.pem"));
    let tls = Tls::from_files(&Env::system(), &certificate, &key).unwrap();
    let old = Arc::new(client(&certificate, &TLS13));
    let new = Arc::new(client(&other.path().join("dev-cert.pem"), &TLS13));
    connect(&tls, &old).await.unwrap();

    fs::copy(other.path().join("dev-cert.pem"), &certificate).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::KeyMismatch { .. })));
    connect(&tls, &old).await.unwrap();

    fs::copy(other.path().join("dev-key.pem"), &key).unwrap();
    tls.reload().unwrap();
    connect(&tls, &new).await.unwrap();
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    server(directory.path());
    let path = |name: &str| directory.path().join(name);
    fs::write(path("empty.pem"), "").unwrap();
    fs::write(path("cut.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    fs::write(path("large.pem"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
    let check = |certificate: &str, key: &str, expected: &str| {
        let result = Tls::from_files(&Env::system(), &path(certificate), &path(key));
        let told = result.err().unwrap().to_string();
        let told = told.replace(directory.path().to_str().unwrap(), "DIR");
        assert_eq!(told, expected);
    };
    check("missing.pem", "dev-key.pem", "cannot read DIR/missing.pem");
    check("dev-cert.pem", "missing.pem", "cannot read DIR/missing.pem");
    check("empty.pem", "dev-key.pem", "DIR/empty.pem holds no certificate");
    check("dev-key.pem", "dev-key.pem", "DIR/dev-key.pem holds no certificate");
    check("dev-cert.pem", "empty.pem", "DIR/empty.pem holds no private key");
    check("dev-cert.pem", "dev-cert.pem", "DIR/dev-cert.pem holds no private key");
    check("cut.pem", "dev-key.pem", "DIR/cut.pem is not PEM: a section does not end");
    check("large.pem", "dev-key.pem", "DIR/large.pem is too large for a certificate or key");
}

#[test]
fn a_self_signed_certificate_is_kept_private_and_made_anew_for_other_names() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let files = || ["dev-cert.pem", "dev-key.pem"].map(|name| fs::read(data.join(name)).unwrap());
    server(&data);
    let first = files();
    server(&data);
    assert_eq!(files(), first);
    Tls::self_signed(&Env::system(), &data, &["mail.example.org".to_owned()]).unwrap();
    let second = files();
    assert!(second[0] != first[0] && second[1] != first[1]);
    fs::remove_file(data.join("dev-key.pem")).unwrap();
    Tls::self_signed(&Env::system(), &data, &["mail.example.org".to_owned()]).unwrap();
    assert_ne!(files(), second);
    #[cfg(unix)]
    for name in ["dev-cert.pem", "dev-key.pem"] {
        let mode = fs::metadata(data.join(name)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "nothing is left over");
}

#[tokio::test]
async fn who_speaks_no_tls_or_nothing_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let tls = server(directory.path());
    let (mut client, stream) = tokio::io::duplex(4096);
    client.write_all(b"EHLO example.org\r\n").await.unwrap();
    let refused = tls.accept(Box::new(stream)).await;
    assert!(matches!(refused, Err(AcceptError::Handshake(_))));

    // Under the test's clock a sleep is over at once.
    let world = World::new().await;
    let impatient = Tls { env: Env::new(world.clock.clone()), ..tls };
    let (client, stream) = tokio::io::duplex(4096);
    let late = impatient.accept(Box::new(stream)).await;
    assert!(matches!(late, Err(AcceptError::TimedOut)));
    drop(client);
}

/// A certificate as the store has it, for these hosts, and the file with it.
fn stored(directory: &Path, name: &str, hosts: &[&str]) -> Certificate {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    fs::write(directory.join(name), made.cert.pem()).unwrap();
    Certificate {
        name: name.to_owned(),
        chain: vec![made.cert.der().to_vec()],
        key: made.signing_key.serialize_der().into(),
        added: Timestamp::from_unix_ms(0),
        version: 1,
    }
}

#[tokio::test]
async fn the_stores_certificates_are_shown_and_damaged_ones_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let tls = server(directory.path());
    let own = Arc::new(client(&path("dev-cert.pem"), &TLS13));
    let good = stored(directory.path(), "good", &["localhost"]);
    let damaged = [
        Certificate { name: "key".to_owned(), key: vec![0x30, 1].into(), ..good.clone() },
        Certificate { name: "chain".to_owned(), chain: vec![vec![0x30]], ..good.clone() },
        Certificate { name: "none".to_owned(), chain: Vec::new(), ..good.clone() },
        Certificate {
            name: "mismatch".to_owned(),
            key: stored(directory.path(), "x", &["x"]).key,
            ..good.clone()
        },
    ];
    let all = |all: Vec<Certificate>| Certificates { version: 1, all };
    tls.share(&all(damaged.to_vec()));
    assert!(connect(&tls, &own).await.is_ok(), "nothing usable came");
    tls.share(&all([&damaged[..], std::slice::from_ref(&good)].concat()));
    let trusting = Arc::new(client(&path("good"), &TLS13));
    for config in [&trusting, &Arc::new(client(&path("good"), &TLS12))] {
        let (_, _, info) = connect(&tls, config).await.unwrap();
        assert_eq!(info.end_point.as_deref(), Some(&Sha256::digest(&good.chain[0])[..]));
    }
    // Its sessions resume as any.
    assert!(!is_resumed(&tls, &trusting).await);
    assert!(is_resumed(&tls, &trusting).await);
    tls.reload().unwrap();
    assert!(is_resumed(&tls, &trusting).await, "reading the files again changes nothing of it");
    tls.share(&all(Vec::new()));
    assert!(connect(&tls, &own).await.is_ok(), "back to the own one");

    // Without files the last one stays until the node ends.
    let without = Tls::without_files(&Env::system(), "localhost");
    assert!(without.is_empty());
    without.share(&all(vec![good]));
    assert!(!without.is_empty());
    without.share(&all(Vec::new()));
    assert!(connect(&without, &trusting).await.is_ok());
    assert!(without.reload().is_ok());
}

#[tokio::test]
async fn a_server_without_any_certificate_refuses_the_handshake() {
    let directory = tempfile::tempdir().unwrap();
    server(directory.path());
    let empty = Tls::without_files(&Env::system(), "localhost");
    let (mut client_side, server_side) = tokio::io::duplex(1 << 16);
    let hello = async {
        let config = client(&directory.path().join("dev-cert.pem"), &TLS13);
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, &mut client_side).await.is_err()
    };
    let (refused, failed) = tokio::join!(empty.accept(Box::new(server_side)), hello);
    assert!(matches!(refused, Err(AcceptError::Handshake(_))) && failed);
}
