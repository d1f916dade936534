//! Dialogues with the driver over a real store in memory.

mod access;
mod guard;
mod judging;
mod local;
mod signing;
mod submission;

use std::{collections::BTreeSet, net::IpAddr, path::Path, sync::Arc};

use blob::{BlobId, BlobStore};
use env::{Env, Task};
use kv::{Counts, Database, Faults, RangeQuery, Subspace};
use mail::{
    AccountId, NewAccount, OperationId, StoreError,
    directory::{self, Address, ListKind},
    keys::account::Credential,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::OnceCell,
};

use super::serve;
use crate::{
    auth::new_credential,
    config::{Config, Names, PortBase},
    hub::Hub,
    metrics::Protocol,
    peers::Peers,
    services::Services,
    stop::Stop,
    stores::Stores,
    tls::{Tls, TlsInfo},
    transport::Transport,
};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// The one password's credential: making one is slow on purpose.
static PENCIL: OnceCell<Credential> = OnceCell::const_new();

async fn pencil(env: &Env) -> Credential {
    new_credential(env, "pencil").await.unwrap()
}

/// A node's parts over a store in memory, with the domain `example.org` and the accounts `alice`
/// and `bob`, both without a quota. Everybody's password is `pencil`.
struct World {
    env: Env,
    services: Services,
    stop: Stop,
    alice: AccountId,
    bob: AccountId,
    _folder: TempDir,
}

/// A node's parts over stores.
async fn node(env: &Env, stores: Stores, config: Config, folder: &Path) -> (Services, Stop) {
    let stop = Stop::new();
    let tls = Tls::self_signed(env, folder, &["localhost".to_owned()]).unwrap();
    let hub = Hub::default();
    let peers = Peers::join(&stores.db, env, &config, &hub).await.unwrap();
    let heard = (hub, peers.ears.clone());
    let services = Services::new(stores, config, env.clone(), tls, stop.listen(), heard).unwrap();
    (services, stop)
}

impl World {
    async fn new() -> Self {
        Self::with(Faults::default(), |_| {}).await
    }

    /// Faults hurt only once everything is set up.
    async fn with(faults: Faults, change: impl FnOnce(&mut Config)) -> Self {
        let env = Env::system();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::dev(Some(folder.path().to_owned()), PortBase::default()).unwrap();
        config.hostname = "mx.example.org".to_owned();
        // Nothing is known of any name, unless a test says so.
        config.names = Names::Given(dns::Zone::new());
        change(&mut config);
        let db = Database::memory(env.clone());
        let values = kv::LargeValues::memory(env.clone());
        let blobs = BlobStore::embedded(values, env.clone()).await.unwrap();
        let stores = Stores::new(db.clone(), blobs);
        let (services, stop) = node(&env, stores, config, folder.path()).await;
        let mut world = Self {
            env: env.clone(),
            services,
            stop,
            alice: AccountId(0),
            bob: AccountId(0),
            _folder: folder,
        };
        // Few messages here name an author.
        world.services.settings.send_modify(|held| {
            Arc::make_mut(held).set("judging.author_unclear", "mark").unwrap();
        });
        let now = env.wall();
        db.run(|tx| async move { directory::add_domain(&tx, "example.org", now).await })
            .await
            .unwrap();
        world.alice = world.account("alice", 0).await;
        world.bob = world.account("bob", 0).await;
        db.faults().set(faults);
        world
    }

    /// Another node on the same store, that knows of the same names.
    async fn another(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = self.services.config.clone();
        config.cluster.node = "another".to_owned();
        let stores = Stores::new(self.services.db.clone(), self.services.blobs.clone());
        let (services, stop) = node(&self.env, stores, config, folder.path()).await;
        let settings = self.services.settings.borrow().clone();
        services.settings.send_replace(settings);
        let env = self.env.clone();
        Self { env, services, stop, alice: self.alice, bob: self.bob, _folder: folder }
    }

    async fn account(&self, local: &str, quota_bytes: u64) -> AccountId {
        let new = NewAccount {
            address: address(&format!("{local}@example.org")),
            description: String::new(),
            quota_bytes,
            credential: PENCIL.get_or_init(|| pencil(&self.env)).await.clone(),
        };
        let operations: [_; 6] = std::array::from_fn(|_| OperationId::random(&self.env));
        let (now, new, operations) = (self.env.wall(), &new, &operations);
        self.services
            .db
            .run(|tx| async move { mail::create_account(&tx, new, now, operations).await })
            .await
            .unwrap()
    }

    async fn list(&self, local: &str, kind: ListKind, members: &[&str]) {
        let name = &address(&format!("{local}@example.org"));
        let members = &members.iter().map(|text| address(text)).collect::<Vec<_>>();
        self.services
            .db
            .run(|tx| async move { directory::add_list(&tx, name, kind, members).await })
            .await
            .unwrap();
    }

    async fn catch_all(&self, to: &str) {
        self.services
            .db
            .run(|tx| async move {
                let mut domain = directory::domain(&tx, "example.org").await?;
                domain.catch_all = Some(to.to_owned());
                directory::set_domain(&tx, "example.org", &domain);
                Ok::<_, directory::DirectoryError>(())
            })
            .await
            .unwrap();
    }

    /// A client that has been greeted and has said EHLO or LHLO.
    async fn connect(&self, protocol: Protocol) -> Client {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let mut transport = Transport::new(self.env.clone(), Box::new(theirs), PEER);
        if protocol == Protocol::Submission {
            // As if the handshake had been.
            transport.tls = Some(TlsInfo {
                protocol: "TLSv1.3",
                cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
                server_name: None,
                exporter: Some([7; 32]),
                end_point: None,
            });
        }
        let serving = Box::pin(serve(self.services.clone(), transport, protocol));
        let mut client =
            Client { stream: ours, unread: Vec::new(), serving: self.env.spawn("smtp", serving) };
        client.expect_reply("220 mx.example.org ").await;
        let hello = if protocol == Protocol::Lmtp { "LHLO" } else { "EHLO" };
        client.say(&format!("{hello} client.example"), "250").await;
        client
    }

    /// The messages in an account's INBOX, oldest first, as they are stored.
    async fn inbox(&self, account: AccountId) -> Vec<String> {
        let ids = self
            .services
            .db
            .run(|tx| async move {
                let inbox = mail::inbox(&tx, account).await?.unwrap();
                let (begin, end) = mail::keys::email::meta_range(account);
                let mut found = Vec::new();
                for pair in tx.range(RangeQuery::new(begin, end)).collect().await? {
                    let email = mail::keys::email::email_of(&pair.key).unwrap();
                    let meta = mail::email_meta(&tx, account, email).await?.unwrap();
                    let (_, state) = mail::email_state(&tx, account, email).await?.unwrap();
                    assert!(state.memberships.iter().all(|held| held.mailbox == inbox.0));
                    found.push(BlobId::from_slice(&meta.blob).unwrap());
                }
                Ok::<_, StoreError>(found)
            })
            .await
            .unwrap();
        let mut texts = Vec::new();
        for id in ids {
            let bytes = self.services.blobs.read_to_vec(id, 0..u64::MAX, 64 << 20).await.unwrap();
            texts.push(String::from_utf8(bytes).unwrap());
        }
        texts
    }

    /// What a family of keys holds.
    async fn rows(&self, family: Subspace) -> Vec<kv::KeyValue> {
        self.services
            .db
            .run(|tx| async move { tx.range(RangeQuery::prefix(&family.prefix())).collect().await })
            .await
            .unwrap()
    }

    async fn check_counters(&self) {
        for account in [self.alice, self.bob] {
            let wrong = self
                .services
                .db
                .run(|tx| async move { mail::fold::check_account(&tx, account).await })
                .await
                .unwrap();
            assert!(wrong.is_empty(), "{wrong:?}");
        }
    }

    fn counts(&self) -> Counts {
        self.services.db.counts()
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// The client's end.
struct Client {
    stream: DuplexStream,
    unread: Vec<u8>,
    serving: Task<()>,
}

impl Client {
    /// Sends a line and reads a reply, which begins as expected.
    async fn say(&mut self, line: &str, expected: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.expect_reply(expected).await
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads one reply of any number of lines.
    #[track_caller]
    fn expect_reply(&mut self, expected: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let mut reply = String::new();
            loop {
                let line = self.line().await;
                let is_last = line.as_bytes().get(3) != Some(&b'-');
                reply.push_str(&line);
                if is_last {
                    break;
                }
            }
            assert!(reply.starts_with(expected), "{caller}: expected {expected:?}, got {reply:?}");
            reply
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(lf) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=lf).collect();
                return String::from_utf8(line).unwrap();
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes).await.unwrap();
            assert_ne!(read, 0, "the server has closed; so far {:?}", self.unread);
            self.unread.extend_from_slice(&bytes[..read]);
        }
    }

    /// The server closes, having said nothing more.
    async fn expect_end(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((self.unread, rest), (Vec::new(), Vec::new()));
        self.serving.await.unwrap();
    }

    async fn log_in(&mut self, name: &str) {
        let secret = base64(&format!("\0{name}\0pencil"));
        self.say(&format!("AUTH PLAIN {secret}"), "235").await;
    }

    /// MAIL and RCPTs, all accepted.
    async fn envelope(&mut self, sender: &str, recipients: &[&str]) {
        self.say(&format!("MAIL FROM:<{sender}>"), "250").await;
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"), "250").await;
        }
    }

    /// A whole transaction with one reply.
    async fn deliver(
        &mut self,
        sender: &str,
        recipients: &[&str],
        message: &str,
        expected: &str,
    ) -> String {
        self.envelope(sender, recipients).await;
        self.say("DATA", "354").await;
        self.say(&format!("{message}\r\n."), expected).await
    }
}

fn base64(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

/// The names of a message's fields, in order.
fn fields(message: &str) -> Vec<String> {
    message::Fields::new(message.as_bytes())
        .map(|field| String::from_utf8(field.name.to_vec()).unwrap())
        .collect()
}

/// The messages' last paragraphs, each once.
fn distinct(texts: &[String]) -> BTreeSet<&str> {
    texts.iter().filter_map(|text| text.rsplit("\r\n\r\n").next()).collect()
}
