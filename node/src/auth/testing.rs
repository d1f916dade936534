//! What tests of logins need: virtual time, accounts, and the client's side of SCRAM.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use env::{Backend, BoxFuture, Datagrams, Env, Listener, Monotonic, RawTask, Stream, Timestamp};
use hmac::{Hmac, Mac};
use kv::Database;
use mail::{
    AccountError, AccountId, NewAccount, OperationId, StoreError,
    directory::Address,
    keys::account::{self, Account, Credential},
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{Authenticator, new_credential};

/// Time that passes only by sleeping, which takes none; everything else is the real machine's.
#[derive(Clone)]
pub(crate) struct Clock {
    real: Env,
    slept: Arc<Mutex<Duration>>,
}

impl Clock {
    /// How long everybody has slept since the last call.
    pub(crate) fn take_slept(&self, since: &mut Duration) -> Duration {
        let slept = *self.slept.lock().unwrap();
        slept - std::mem::replace(since, slept)
    }

    pub(crate) fn advance(&self, time: Duration) {
        *self.slept.lock().unwrap() += time;
    }
}

impl Backend for Clock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(*self.slept.lock().unwrap())
    }

    fn wall(&self) -> Timestamp {
        let slept = self.slept.lock().unwrap().as_millis();
        Timestamp::from_unix_ms(1_767_225_600_000 + i64::try_from(slept).unwrap())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move { clock.advance(duration) })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.real.fill_random(bytes);
    }

    fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) -> RawTask {
        unreachable!("logins spawn nothing")
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let real = self.real.clone();
        Box::pin(async move { real.run_blocking(work).await.unwrap() })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, std::io::Result<Listener>> {
        unreachable!("logins open no socket")
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, std::io::Result<Stream>> {
        unreachable!("logins open no socket")
    }

    fn datagrams(&self, _: SocketAddr) -> BoxFuture<'_, std::io::Result<Datagrams>> {
        unreachable!("logins open no socket")
    }
}

/// A store with `user@example.org`, whose password is `pencil`, and its alias `alias@example.org`.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) db: Database,
    pub(crate) auth: Authenticator,
    pub(crate) account: AccountId,
}

pub(crate) const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

impl World {
    pub(crate) async fn new() -> Self {
        let real = Env::system();
        let db = Database::memory(real.clone());
        let credential = new_credential(&real, "pencil").await.unwrap();
        let address = Address::parse("user@example.org").unwrap();
        let new = NewAccount { address, description: String::new(), quota_bytes: 0, credential };
        let operations = std::array::from_fn(|_| OperationId::random(&real));
        let now = real.wall();
        db.run(|tx| async move {
            mail::directory::add_domain(&tx, "example.org", now).await.unwrap();
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
        let account = db
            .run(|tx| {
                let new = new.clone();
                async move {
                    let id = mail::create_account(&tx, &new, now, &operations).await?;
                    let alias = Address::parse("alias@example.org").unwrap();
                    let kind = mail::directory::ListKind::Alias;
                    mail::directory::add_list(&tx, &alias, kind, &[new.address]).await.unwrap();
                    Ok::<_, AccountError>(id)
                }
            })
            .await
            .unwrap();
        let clock = Clock { real, slept: Arc::default() };
        let auth = Authenticator::new(db.clone(), Env::new(clock.clone()));
        Self { clock, db, auth, account }
    }

    pub(crate) async fn set_password(&self, password: &str) {
        let credential = new_credential(&self.clock.real, password).await.unwrap();
        self.set_credential(&credential).await;
    }

    pub(crate) async fn set_credential(&self, credential: &Credential) {
        self.set(account::credential_key(self.account), credential.encode_to_vec()).await;
    }

    pub(crate) async fn disable(&self) {
        let record = Account {
            name: "user@example.org".to_owned(),
            login_disabled: true,
            ..Account::default()
        };
        self.set(account::key(self.account), record.encode_to_vec()).await;
    }

    async fn set(&self, key: Vec<u8>, value: Vec<u8>) {
        self.db
            .run(|tx| {
                tx.set(&key, &value);
                async { Ok::<_, kv::Error>(()) }
            })
            .await
            .unwrap();
    }
}

/// The client's side of SCRAM-SHA-256 (RFC 5802 §3), written apart from the server's.
pub(crate) struct ScramClient {
    password: String,
    gs2_header: String,
    binding: Vec<u8>,
    bare: String,
    expected: Option<String>,
}

impl ScramClient {
    /// `gs2_header` with its last comma; `binding` is what it binds to.
    pub(crate) fn new(name: &str, password: &str, gs2_header: &str, binding: &[u8]) -> Self {
        Self {
            password: password.to_owned(),
            gs2_header: gs2_header.to_owned(),
            binding: binding.to_vec(),
            bare: format!("n={name},r=fyko+d2lbbFgONRv9qkxdawL"),
            expected: None,
        }
    }

    pub(crate) fn first(&self) -> String {
        format!("{}{}", self.gs2_header, self.bare)
    }

    pub(crate) fn last(&mut self, server_first: &str) -> String {
        let mut attributes = server_first.split(',');
        let nonce = attributes.next().unwrap().strip_prefix("r=").unwrap();
        let salt = attributes.next().unwrap().strip_prefix("s=").unwrap();
        let rounds = attributes.next().unwrap().strip_prefix("i=").unwrap().parse().unwrap();
        let salt = STANDARD.decode(salt).unwrap();
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, rounds, &mut salted);
        let client_key = mac(&salted, "Client Key");
        let stored_key = Sha256::digest(client_key);
        let bound = STANDARD.encode([self.gs2_header.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={bound},r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.bare);
        let signature = mac(&stored_key, &message);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
        let server_signature = mac(&mac(&salted, "Server Key"), &message);
        self.expected = Some(format!("v={}", STANDARD.encode(server_signature)));
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    /// Whether the server knows the password's keys too.
    pub(crate) fn accepts(&self, server_final: &str) -> bool {
        self.expected.as_deref() == Some(server_final)
    }
}

fn mac(key: &[u8], message: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}
