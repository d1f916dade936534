//! A node's parts over a store in memory, for the tests of sending: names are given, and servers are in
//! this process.

use std::{net::SocketAddr, sync::Arc};

use blob::BlobStore;
use dns::Zone;
use env::{Env, Task};
use kv::{Database, RangeQuery, Subspace};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{Parts, TlsReporter};
use crate::{
    config::{Config, Names, PortBase},
    hub::Hub,
    peers::Peers,
    services::Services,
    stop::Stop,
    stores::Stores,
    tls::Tls,
};

/// A node that sends.
pub(super) struct World {
    pub(super) env: Env,
    pub(super) parts: Parts,
    pub(super) reporter: TlsReporter,
    pub(super) peers: Peers,
    _stop: Stop,
    _folder: TempDir,
}

impl World {
    pub(super) async fn new(zone: Zone, change: impl FnOnce(&mut Config, &TempDir)) -> Self {
        let env = Env::system();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::dev(Some(folder.path().to_owned()), PortBase::default()).unwrap();
        config.hostname = "mx.example.org".to_owned();
        config.names = Names::Given(zone);
        change(&mut config, &folder);
        let db = Database::memory(env.clone());
        let values = kv::LargeValues::memory(env.clone());
        let blobs = BlobStore::embedded(values, env.clone()).await.unwrap();
        let stop = Stop::new();
        let tls = Tls::self_signed(&env, folder.path(), &["localhost".to_owned()]).unwrap();
        let stores = Stores::new(db, blobs);
        let hub = Hub::default();
        let peers = Peers::join(&stores.db, &env, &config, &hub).await.unwrap();
        let heard = (hub, peers.ears.clone());
        let services =
            Services::new(stores, config, env.clone(), tls, stop.listen(), heard).unwrap();
        let (parts, reporter) = (Parts::new(&services), TlsReporter::new(&services));
        Self { env, parts, reporter, peers, _stop: stop, _folder: folder }
    }

    /// All rows of a family.
    pub(super) async fn rows(&self, family: Subspace) -> Vec<kv::KeyValue> {
        let prefix = &family.prefix();
        let read = |tx: kv::Transaction| async move {
            tx.range(RangeQuery::prefix(prefix)).collect().await
        };
        self.parts.db.run(read).await.unwrap()
    }
}

/// A web server that answers every request in the same way, and tells what was asked.
pub(super) struct Web {
    pub(super) address: SocketAddr,
    pub(super) asked: tokio::sync::mpsc::UnboundedReceiver<(String, Vec<u8>)>,
    _task: Task<()>,
}

impl Web {
    pub(super) async fn start(
        env: &Env,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        answer: String,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let (tell, asked) = tokio::sync::mpsc::unbounded_channel();
        let task = env.spawn("web", async move {
            loop {
                let connection = listener.accept().await.unwrap();
                // A client that does not believe the certificate hangs up.
                let Ok(mut stream) = acceptor.accept(connection.stream).await else { continue };
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                stream.read_exact(&mut body).await.unwrap();
                tell.send((head, body)).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { address, asked, _task: task }
    }
}
