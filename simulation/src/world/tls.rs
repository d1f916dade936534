//! The certificate that all nodes show, and the clients that trust it.
//!
//! Its key is Ed25519, whose signatures need no chance.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use env::{Env, Stream};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
    version::TLS13,
};

/// What clients call every node.
const NAME: &str = "mail.example.org";

/// What comes before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410 §7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

pub(super) struct TlsFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    connector: tokio_rustls::TlsConnector,
}

impl TlsFiles {
    pub(super) fn make(env: &Env, folder: &Path) -> Self {
        let mut private = PKCS8_ED25519.to_vec();
        private.extend_from_slice(&env.random_array::<32>());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(private.as_slice()),
            &PKCS_ED25519,
        )
        .expect("any 32 bytes are an Ed25519 key");
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("the name is ASCII");
        params.serial_number = Some(SerialNumber::from_slice(&[0x40; 16]));
        let made = params.self_signed(&pair).expect("the key can sign");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.pem()).expect("there is room for a small file");
        std::fs::write(&key, pair.serialize_pem()).expect("there is room for a small file");
        let connector = connector(made.der());
        Self { certificate, key, connector }
    }

    pub(super) async fn handshake(&self, stream: Stream) -> io::Result<Stream> {
        let name = ServerName::try_from(NAME).expect("it is a name");
        Ok(Box::new(self.connector.connect(name, stream).await?))
    }
}

fn connector(certificate: &CertificateDer<'static>) -> tokio_rustls::TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("it was just made");
    let provider = CryptoProvider::get_default().expect("a simulation has installed it");
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider knows TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Whether a ticket is used depends on the machine's own clock.
    config.resumption = Resumption::disabled();
    Arc::new(config).into()
}
