//! A node's parts over a store in memory, for the tests of sending: names are given, and servers are in
//! this process.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use blob::{BlobId, BlobStore};
use cluster::work::{Runner, RunnerSettings, zone::Item};
use dns::Zone;
use env::{Env, Stream, Task, Timestamp};
use kv::{Database, RangeQuery, Subspace};
use prost::Message;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{Parts, Sender, TlsReporter};
use crate::{
    config::{Config, Names, PortBase},
    deliver::outbound::{
        self, Body, Handling, OutboundItem, RemoteRecipient, ReturnContent, Submission,
        SubmissionRecord,
    },
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
    pub(super) sender: Arc<Sender>,
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
        let sender = Arc::new(Sender::new(&services));
        Self { env, parts, reporter, sender, peers, _stop: stop, _folder: folder }
    }

    /// Puts a message into the queue: its id is made of this number.
    pub(super) async fn submit(&self, number: u8, to: &[String], handling: Handling) -> BlobId {
        self.submit_as(number, to, |submission| submission.handling = handling).await
    }

    /// The same, changed before.
    pub(super) async fn submit_as(
        &self,
        number: u8,
        to: &[String],
        change: impl FnOnce(&mut Submission),
    ) -> BlobId {
        let bytes = format!("Subject: {number}\r\n\r\nhello\r\n");
        let recipients = to.iter().map(|written| RemoteRecipient {
            address: mail::directory::Address::parse(written).unwrap(),
            written: written.clone(),
            notify: None,
            original: None,
        });
        let mut submission = Submission {
            id: [number; 16],
            blob: self.parts.blobs.put(bytes.as_bytes()).await.unwrap(),
            size: bytes.len() as u64,
            skip: 0,
            sender: "a@example.org".to_owned(),
            account: None,
            received_at: self.env.wall(),
            envelope_id: None,
            return_content: ReturnContent::Unspecified,
            body: Body::SevenBit,
            utf8: false,
            handling: Handling::default(),
            prepend: Vec::new(),
            recipients: recipients.collect(),
        };
        change(&mut submission);
        let submission = &submission;
        let put = |tx| async move { outbound::enqueue(&tx, submission).await };
        self.parts.db.run(put).await.unwrap();
        submission.blob
    }

    /// Sends what is due. A zone's turn ends after so long.
    pub(super) fn work(&self, zone_turn: Duration) -> Runner {
        let settings = RunnerSettings { scan_period: Duration::from_millis(20), zone_turn };
        let worker: Arc<dyn cluster::work::Worker> = self.sender.clone();
        Runner::start(&self.parts.db, &self.env, &self.peers.membership, settings, vec![worker])
    }

    /// What is queued for a domain.
    pub(super) async fn queued(&self, domain: &str) -> Vec<(Item, OutboundItem)> {
        let kind = cluster::work::Kind::Outbound;
        let read = |tx| async move {
            cluster::work::zone::items_from(&tx, kind, Some(domain), None).await
        };
        let slice = self.parts.db.run(read).await.unwrap();
        let decoded = |(_, item): (String, Item)| {
            let message = super::conclude::decode(&item).unwrap_or_default();
            (item, message)
        };
        slice.rows.into_iter().map(decoded).collect()
    }

    /// Looks at a domain's queue until it is as it should be.
    pub(super) async fn reach(
        &self,
        domain: &str,
        is_so: impl Fn(&[(Item, OutboundItem)]) -> bool,
    ) -> Vec<(Item, OutboundItem)> {
        let end = self.env.monotonic() + Duration::from_secs(20);
        loop {
            let queued = self.queued(domain).await;
            if is_so(&queued) {
                return queued;
            }
            let (count, first) = (queued.len(), queued.first());
            assert!(self.env.monotonic() < end, "{count} items, the first {first:?}");
            self.env.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Gives something to the queue that nobody can read.
    pub(super) async fn damage(&self, domain: &str, id: &[u8], due: Timestamp) {
        let kind = cluster::work::Kind::Outbound;
        let put = |tx| async move {
            cluster::work::enqueue(&tx, kind, domain, due, id, b"\xff\xff").await
        };
        self.parts.db.run(put).await.unwrap();
    }

    /// The messages that are queued, as they would leave.
    pub(super) async fn texts(&self) -> Vec<(SubmissionRecord, String)> {
        let mut texts = Vec::new();
        for row in self.rows(Subspace::Submission).await {
            let record = SubmissionRecord::decode(&row.value[..]).unwrap();
            let blob = BlobId::from_slice(&record.blob).unwrap();
            let read = self.parts.blobs.read_to_vec(blob, 0..record.size, 100_000).await;
            texts.push((record, String::from_utf8(read.unwrap()).unwrap()));
        }
        texts
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

/// A mail server's answer to a recipient: how many it has of the message, and the address.
pub(super) type Rcpt = fn(usize, &str) -> &'static str;

/// Something that happens to others.
pub(super) type Meanwhile = Arc<dyn Fn() + Send + Sync>;

/// How a mail server answers.
#[derive(Clone)]
pub(super) struct Manner {
    /// Lines of its answer to EHLO behind its name.
    pub(super) offers: Vec<&'static str>,
    /// Its answer to MAIL.
    pub(super) mail: &'static str,
    /// Its answer to a recipient.
    pub(super) rcpt: Rcpt,
    /// Its answer to DATA.
    pub(super) data: &'static str,
    /// Its answer to the content.
    pub(super) end: &'static str,
    /// When it hangs up.
    pub(super) leaves: Leaves,
    /// What happens once it has a message, before it answers.
    pub(super) meanwhile: Option<Meanwhile>,
    /// Messages over one connection before it says goodbye.
    pub(super) messages_max: usize,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            offers: Vec::new(),
            mail: "250 ok",
            rcpt: |_, _| "250 ok",
            data: "354 go on",
            end: "250 ok",
            leaves: Leaves::AtQuit,
            meanwhile: None,
            messages_max: usize::MAX,
        }
    }
}

/// When a mail server hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// When it is told to.
    AtQuit,
    /// In place of an answer to DATA.
    AtData,
    /// Once it has a message, in place of an answer.
    WithTheMessage,
}

/// A message as a server got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    /// Which of its connections it came over, counted from 1.
    pub(super) connection: usize,
    /// Whom it took.
    pub(super) recipients: Vec<String>,
    /// MAIL, and each RCPT.
    pub(super) envelope: Vec<String>,
}

/// A mail server in clear, and what it got.
pub(super) struct Mx {
    pub(super) port: u16,
    pub(super) letters: Arc<Mutex<Vec<Letter>>>,
    /// Connections that it had.
    pub(super) connections: Arc<AtomicUsize>,
    _task: Task<()>,
}

impl Mx {
    pub(super) async fn start(env: &Env, manner: Manner) -> Self {
        Self::start_at(env, "127.0.0.1:0".parse().unwrap(), manner).await
    }

    pub(super) async fn start_at(env: &Env, address: SocketAddr, manner: Manner) -> Self {
        let listener = env.listen(address).await.unwrap();
        let port = listener.local_address().unwrap().port();
        let letters = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (got, own, count) = (Arc::clone(&letters), env.clone(), Arc::clone(&connections));
        let task = env.spawn("mx", async move {
            let mut sessions = Vec::new();
            for connection in 1.. {
                let stream = listener.accept().await.unwrap().stream;
                count.fetch_add(1, Ordering::SeqCst);
                let serving = serve(stream, manner.clone(), connection, Arc::clone(&got));
                // A client that hangs up ends its session.
                sessions.push(own.spawn("session", async move { drop(serving.await) }));
            }
        });
        Self { port, letters, connections, _task: task }
    }

    /// What it got so far.
    pub(super) fn letters(&self) -> Vec<Letter> {
        self.letters.lock().unwrap().clone()
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: Stream,
    manner: Manner,
    connection: usize,
    letters: Arc<Mutex<Vec<Letter>>>,
) -> std::io::Result<()> {
    stream.write_all(b"220 mx ESMTP\r\n").await?;
    let (mut recipients, mut messages, mut envelope) = (Vec::new(), 0, Vec::new());
    loop {
        let line = line(&mut stream).await?;
        let verb = line.split_whitespace().next().unwrap_or_default();
        let answer = match verb {
            "EHLO" => {
                let mut lines = vec!["mx"];
                lines.extend(&manner.offers);
                let last = lines.len() - 1;
                let dash = |at: usize| if at == last { ' ' } else { '-' };
                let numbered = lines.iter().enumerate();
                let lines: Vec<_> =
                    numbered.map(|(at, line)| format!("250{}{line}", dash(at))).collect();
                lines.join("\r\n")
            }
            "MAIL" if messages == manner.messages_max => {
                return stream.write_all(b"421 that is enough\r\n").await;
            }
            "MAIL" => {
                (recipients, envelope) = (Vec::new(), vec![line.trim_end().to_owned()]);
                manner.mail.to_owned()
            }
            "RCPT" => {
                envelope.push(line.trim_end().to_owned());
                let address = line.split(['<', '>']).nth(1).unwrap();
                let answer = (manner.rcpt)(recipients.len(), address);
                if answer.starts_with('2') {
                    recipients.push(address.to_owned());
                }
                answer.to_owned()
            }
            "DATA" if manner.leaves == Leaves::AtData => return Ok(()),
            "DATA" if !manner.data.starts_with('3') => manner.data.to_owned(),
            "DATA" => {
                messages += 1;
                stream.write_all(format!("{}\r\n", manner.data).as_bytes()).await?;
                while self::line(&mut stream).await? != ".\r\n" {}
                let recipients = std::mem::take(&mut recipients);
                let envelope = std::mem::take(&mut envelope);
                if manner.end.starts_with('2') {
                    letters.lock().unwrap().push(Letter { connection, recipients, envelope });
                }
                if let Some(meanwhile) = &manner.meanwhile {
                    meanwhile();
                }
                if manner.leaves == Leaves::WithTheMessage {
                    return Ok(());
                }
                manner.end.to_owned()
            }
            "QUIT" => return stream.write_all(b"221 bye\r\n").await,
            _ => {
                recipients.clear();
                "250 ok".to_owned()
            }
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

async fn line(stream: &mut Stream) -> std::io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).await?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8(line).unwrap())
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
