//! Everything that is asked of a service, of several: over TLS, by the bucket's name in the host's,
//! of Garage, and of whichever the environment names.

use std::{net::SocketAddr, sync::Arc};

use tokio_rustls::{TlsAcceptor, rustls};

use super::{
    garage::Garage,
    server::{Reached, Server},
    *,
};
use crate::backend::Backend;

/// A store and all of what it needs of its service.
async fn check(store: BlobStore) {
    let env = Env::system();
    let db = kv::Database::memory(env.clone());
    crate::binding::bind(&db, &store, &env).await.unwrap();
    let mut names = Vec::new();
    for len in [0, SMALL, CHUNK_BYTES + 1, WINDOW + 1, PART_BYTES, large()] {
        let id = store.put(&bytes(len)).await.unwrap();
        assert!(read(&store, id).await.unwrap() == bytes(len), "{len}");
        assert_eq!(store.verify(id).await.unwrap(), crate::store::to_u64(len));
        let middle = crate::store::to_u64(len / 2);
        let found = store.read_to_vec(id, middle..middle + 3, 3).await.unwrap();
        assert_eq!(found, bytes(len)[len / 2..(len / 2 + 3).min(len)]);
        assert_eq!(store.read(id, (1 << 30)..u64::MAX).await.unwrap().remaining(), 0);
        names.push(BlobName::of(&id));
    }
    names.sort_unstable();
    let mut writer = store.writer();
    writer.write(&bytes(PART_BYTES + CHUNK_BYTES + 1)).await.unwrap();
    std::mem::forget(writer);
    let later = Timestamp::from_unix_ms(env.wall().unix_ms() + 60_000);
    assert_eq!(store.abort_uploads(later).await.unwrap(), 1);
    assert_eq!(store.abort_uploads(later).await.unwrap(), 0);
    for (index, name) in names.iter().enumerate() {
        let page = store.list(store.cursor_before(name).as_ref(), 2).await.unwrap();
        assert_eq!(page.names, names[index..(index + 2).min(names.len())]);
    }
    // What is needed stays, and nothing else.
    let kept = store.put(b"kept").await.unwrap();
    let now = env.wall();
    let owner = &Owner::Email(1, 1);
    db.run(|tx| async move { crate::references::adopt(&tx, kept, owner, now).await })
        .await
        .unwrap();
    let settings = SweepSettings { scan_interval: Duration::ZERO, ..SweepSettings::default() };
    let sweeper = Sweeper::new(env, db.clone(), store.clone(), settings);
    let due = Timestamp::from_unix_ms(now.unix_ms() + GRACE_MS + 60_000);
    let swept = sweeper.pass(due).await.unwrap();
    assert_eq!((swept.removed, swept.orphans), (6, 6));
    for name in &names {
        assert!(!store.exists(name).await.unwrap());
        store.remove(name).await.unwrap();
    }
    assert_eq!(store.list(None, 10).await.unwrap().names, [BlobName::of(&kept)]);
    assert_eq!(read(&store, kept).await.unwrap(), b"kept");
    store.remove(&BlobName::of(&kept)).await.unwrap();
    assert!(matches!(store.check(kept).await, Err(BlobError::Missing(_))));
    let counts = store.s3_counts().unwrap();
    assert_eq!((counts.failures, counts.damaged), (0, 0));
}

async fn open(settings: S3Settings) -> BlobStore {
    BlobStore::s3(settings, Env::system()).await.unwrap()
}

/// The same, with one name of a host that leads to `address`.
fn open_resolved(settings: S3Settings, host: &str, address: SocketAddr) -> BlobStore {
    let (bucket, prefix) = (settings.bucket.clone(), settings.prefix.clone());
    let mut client = Client::new(settings, Env::system()).unwrap();
    client.service().http =
        reqwest::Client::builder().no_proxy().resolve(host, address).build().unwrap();
    let s3 = S3 { client: Arc::new(client), cache: None, bucket, prefix };
    BlobStore::new(Backend::S3(Box::new(s3)), Env::system())
}

#[tokio::test]
async fn a_bucket_is_found_by_the_host_s_name() {
    let server = Server::start_as(Reached { domain: Some("s3.example.org"), tls: None }).await;
    let port = server.address().port();
    let settings = S3Settings {
        endpoint: format!("http://s3.example.org:{port}"),
        style: AddressStyle::VirtualHost,
        ..server.settings()
    };
    let mut client = Client::new(settings.clone(), Env::system()).unwrap();
    let signed =
        sign::sign(&client.service().bucket, "some/place/x", &Ask::Put, &Bytes::new()).unwrap();
    assert_eq!(signed.url.as_str(), format!("http://mail.s3.example.org:{port}/some/place/x"));
    // The server checks the signature, which covers the host's name and the path.
    check(open_resolved(settings, "mail.s3.example.org", server.address())).await;
}

/// A certificate authority, and what it says of 127.0.0.1.
fn authority() -> (String, TlsAcceptor) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![server.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(server_key.serialize_der()).into(),
        )
        .unwrap();
    (pem, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn a_service_with_an_authority_of_its_own_is_reached_over_tls() {
    let (pem, acceptor) = authority();
    let server = Server::start_as(Reached { tls: Some(acceptor), domain: None }).await;
    assert!(server.settings().endpoint.starts_with("https://127.0.0.1:"));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(folder.path().join(name))
    };
    // Of several, one is enough.
    let (other, _) = authority();
    let ca_file = file("ca.pem", &format!("{other}{pem}"));
    check(open(S3Settings { ca_file, ..server.settings() }).await).await;
    for ca_file in [None, file("other.pem", &other)] {
        let stranger = open(S3Settings { ca_file, ..server.settings() }).await;
        let refused = stranger.put(b"x").await.unwrap_err().to_string();
        assert!(refused.contains("no connection"), "{refused}");
    }
    for ca_file in [
        file("empty.pem", ""),
        file("words.pem", "none"),
        file("long.pem", &"x".repeat(2 << 20)),
        Some(folder.path().join("nowhere.pem")),
    ] {
        let name = ca_file.clone().unwrap().display().to_string();
        let settings = S3Settings { ca_file, ..server.settings() };
        let refused = BlobStore::s3(settings, Env::system()).await.map(drop).unwrap_err();
        assert!(refused.to_string().contains(&name), "{refused}");
    }
}

/// Garage, where it is installed.
#[tokio::test]
async fn garage_does_the_same() {
    let Some(garage) = Garage::start() else { return };
    let settings = garage.settings(Server::start().await.settings());
    check(open(settings.clone()).await).await;
    // By the host's name, too.
    let endpoint = format!("http://{}:{}", Garage::DOMAIN, garage.address().port());
    let style = AddressStyle::VirtualHost;
    let prefix = "by-host/".to_owned();
    let by_host = S3Settings { endpoint, style, prefix, ..settings };
    let host = format!("{}.{}", by_host.bucket, Garage::DOMAIN);
    check(open_resolved(by_host, &host, garage.address())).await;
}

/// The service that the environment names, be it MinIO or AWS.
#[tokio::test]
async fn another_service_does_the_same() {
    let read_name = |name| std::env::var(name).ok();
    let (Some(endpoint), Some(bucket), Ok(credentials)) = (
        read_name("ROOKERY_TEST_S3_ENDPOINT"),
        read_name("ROOKERY_TEST_S3_BUCKET"),
        Credentials::from_environment(),
    ) else {
        println!("skipped: ROOKERY_TEST_S3_ENDPOINT, ROOKERY_TEST_S3_BUCKET and AWS_… name none");
        return;
    };
    let mut settings = Server::start().await.settings();
    settings.endpoint = endpoint;
    settings.bucket = bucket;
    settings.credentials = credentials;
    settings.region = read_name("ROOKERY_TEST_S3_REGION").unwrap_or(settings.region);
    settings.prefix = format!("test-{:016x}/", Env::system().random_below(u64::MAX));
    check(open(settings).await).await;
}
