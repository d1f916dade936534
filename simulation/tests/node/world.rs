//! A node with two accounts on a machine of its own.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use blob::{BlobId, BlobStore};
use env::Env;
use kv::{Database, Faults, LargeValues};
use mail::{
    AccountId, MailboxId, StoreError, Uid,
    view::{Row, ViewCache},
};
use node::{
    Node, Stores,
    admin::{Password, accounts, domains},
    config::{Config, Names, PortBase},
};
use simulation::Simulation;

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const SMTP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(HOST, 2525));
pub(crate) const LMTP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(HOST, 2424));
pub(crate) const IMAP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(HOST, 2143));

pub(crate) const USERS: [&str; 2] = ["alice@example.org", "bob@example.org"];

pub(crate) struct World {
    pub(crate) env: Env,
    node: Option<Node>,
    pub(crate) db: Database,
    pub(crate) blobs: BlobStore,
    accounts: Vec<AccountId>,
    _data: tempfile::TempDir,
}

/// One message in an INBOX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) user: &'static str,
    pub(crate) row: Row,
    pub(crate) bytes: Vec<u8>,
}

impl World {
    pub(crate) async fn start(simulation: &Simulation) -> Self {
        let env = simulation.machine(HOST.into());
        let db = Database::memory_with_faults(env.clone(), Faults::default());
        let blobs = BlobStore::embedded(LargeValues::memory(env.clone()), env.clone())
            .await
            .expect("memory opens");
        let data = tempfile::tempdir().expect("a folder for the certificate");
        let mut config =
            Config::dev(Some(data.path().to_owned()), PortBase::default()).expect("ports");
        config.listen.smtp = vec![SMTP];
        config.listen.lmtp = vec![LMTP];
        config.listen.imap = vec![IMAP];
        config.names = Names::Given(dns::Zone::new());
        let stores = Stores::new(db.clone(), blobs.clone());
        let node = Node::start_on(stores, config, env.clone()).await.expect("the node starts");
        let admin = node.admin();
        domains::add(&admin, "example.org").await.expect("a domain");
        let mut made = Vec::new();
        for user in USERS {
            let new = accounts::NewAccount {
                address: user.to_owned(),
                password: Password::random(&env),
                description: String::new(),
                quota_bytes: None,
            };
            let account = accounts::add(&admin, &new).await.expect("an account");
            made.push(AccountId(account.id));
        }
        Self { env, node: Some(node), db, blobs, accounts: made, _data: data }
    }
    /// The node; a world has one.
    pub(crate) fn take_node(&mut self) -> Node {
        self.node.take().expect("the node was not taken before")
    }

    /// Everything in every INBOX, after proof that the store contradicts itself nowhere.
    pub(crate) async fn messages(&self) -> Vec<Held> {
        let mut all = Vec::new();
        for (user, account) in USERS.into_iter().zip(&self.accounts) {
            let found = self
                .db
                .run(async |tx| mail::fold::check_account(&tx, *account).await)
                .await
                .expect("the store answers");
            assert_eq!(found, [], "{user}");
            for row in self.rows(*account).await {
                all.push(Held { user, bytes: self.bytes(*account, &row).await, row });
            }
        }
        all
    }

    async fn rows(&self, account: AccountId) -> Vec<Row> {
        let inbox: MailboxId = self
            .db
            .run(async |tx| mail::inbox(&tx, account).await)
            .await
            .expect("the store answers")
            .expect("every account has an INBOX");
        let views = ViewCache::new(self.db.clone(), self.env.clone(), 1 << 20);
        let view = views.view(account, inbox).await.expect("a view");
        let mut rows = Vec::new();
        let mut next = Uid::MIN;
        while next < view.uid_next() {
            let stretch = view.by_uid(&self.db, next, view.uid_next()).await.expect("a page");
            rows.extend(stretch.messages.into_iter().map(|message| message.row));
            next = Uid::new(stretch.covered.number() + 1).expect("UIDs end far above");
        }
        assert_eq!(rows.len(), view.exists() as usize);
        rows
    }

    async fn bytes(&self, account: AccountId, row: &Row) -> Vec<u8> {
        let meta = self
            .db
            .run(async |tx| Ok::<_, StoreError>(mail::email_meta(&tx, account, row.email).await?))
            .await
            .expect("the store answers")
            .expect("every row has an email");
        let blob = BlobId::from_slice(&meta.blob).expect("an email names its blob");
        let read = self.blobs.read_to_vec(blob, 0..row.size, 1 << 24).await;
        read.expect("P5: no reference points to a missing blob")
    }
}
