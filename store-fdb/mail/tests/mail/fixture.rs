//! An account to work on, and what a client sees of it.

use std::collections::BTreeMap;

use blob::{BlobHash, BlobId, ObjectId};
use env::{Env, Timestamp};
use kv::{Database, RangeQuery};
use mail::{
    AccountId, AccountUnit, AppendError, Appended, EmailId, Keyword, KeywordSet, MailboxId, ModSeq,
    NewAccount, NewEmail, NewMailbox, OperationId, Role, StoreError, StoreTarget, Uid,
    create_account,
    directory::{Address, add_domain},
    fold::check_account,
    keys, mailbox_tree,
    view::{Flags, Message, Row, View, ViewChange},
};

/// What the fixtures take for now.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

/// An account on an engine in memory.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) env: Env,
    pub(crate) db: Database,
    pub(crate) account: AccountId,
}

/// Runs one unit of the fixture's account through the retry loop.
macro_rules! unit {
    ($fixture:expr, $error:ty, |$unit:ident| $body:expr) => {{
        let account = $fixture.account;
        $fixture
            .db
            .run(|tx| async move {
                let mut $unit = mail::AccountUnit::new(&tx, account, crate::fixture::NOW);
                let value = $body?;
                $unit.finish().await?;
                Ok::<_, $error>(value)
            })
            .await
    }};
}
pub(crate) use unit;

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::on(Env::system(), 0).await
    }

    pub(crate) async fn with_quota(quota_bytes: u64) -> Self {
        Self::on(Env::system(), quota_bytes).await
    }

    pub(crate) async fn on(env: Env, quota_bytes: u64) -> Self {
        let db = Database::memory(env.clone());
        let account = new_account(&db, &env, "bob@example.org", quota_bytes).await;
        Self { env, db, account }
    }

    pub(crate) fn operation(&self) -> OperationId {
        OperationId::random(&self.env)
    }

    pub(crate) async fn mailbox(&self, role: Role) -> MailboxId {
        let tree = mailbox_tree(&self.db.begin(), self.account).await.unwrap();
        tree.by_role(role).unwrap().id
    }

    pub(crate) async fn inbox(&self) -> MailboxId {
        self.mailbox(Role::Inbox).await
    }

    pub(crate) async fn create(&self, name: &str) -> MailboxId {
        let new = new_mailbox(name, None);
        let (new, operation) = (&new, self.operation());
        unit!(self, mail::CreateError, |unit| mail::create_mailbox(&mut unit, new, operation).await)
            .unwrap()
    }

    pub(crate) async fn append_as(
        &self,
        mailbox: MailboxId,
        email: &NewEmail,
        operation: OperationId,
    ) -> Result<Appended, AppendError> {
        unit!(self, AppendError, |unit| mail::append(&mut unit, mailbox, email, operation).await)
    }

    pub(crate) async fn append(&self, mailbox: MailboxId, email: &NewEmail) -> Appended {
        self.append_as(mailbox, email, self.operation()).await.unwrap()
    }

    /// Appends `count` messages, many a transaction.
    pub(crate) async fn fill(&self, mailbox: MailboxId, count: usize) -> Vec<StoreTarget> {
        let mut targets = Vec::new();
        let email = &email(&format!("Subject: fill {}\r\n\r\n", mailbox), &[]);
        for at in (0..count).step_by(500) {
            let operations: Vec<_> = (0..(count - at).min(500)).map(|_| self.operation()).collect();
            let operations = &operations;
            targets.extend(
                unit!(self, AppendError, |unit| {
                    let mut targets = Vec::new();
                    for operation in operations {
                        let done = mail::append(&mut unit, mailbox, email, *operation).await?;
                        targets.push(StoreTarget { email: done.email, uid: done.uid });
                    }
                    Ok::<_, AppendError>(targets)
                })
                .unwrap(),
            );
        }
        targets
    }

    pub(crate) async fn store(
        &self,
        request: &mail::StoreRequest,
        targets: &[StoreTarget],
    ) -> mail::StoreOutcome {
        let operation = self.operation();
        unit!(self, StoreError, |unit| mail::store_keywords(&mut unit, request, targets, operation)
            .await)
        .unwrap()
    }

    pub(crate) async fn copy(
        &self,
        mode: mail::CopyMode,
        from: MailboxId,
        to: MailboxId,
        targets: &[StoreTarget],
    ) -> Result<mail::Copied, mail::CopyError> {
        let operation = self.operation();
        unit!(self, mail::CopyError, |unit| mail::copy(
            &mut unit, mode, from, to, targets, operation
        )
        .await)
    }

    pub(crate) async fn expunge(
        &self,
        mailbox: MailboxId,
        mode: mail::ExpungeMode,
        targets: &[StoreTarget],
    ) -> Vec<Uid> {
        unit!(self, StoreError, |unit| mail::expunge(&mut unit, mailbox, mode, targets).await)
            .unwrap()
    }

    pub(crate) async fn open(&self, mailbox: MailboxId) -> View {
        View::open(&self.db, self.account, mailbox).await.unwrap()
    }

    /// Every key and value of the store.
    pub(crate) async fn everything(&self) -> Vec<kv::KeyValue> {
        let all = RangeQuery::new(&b""[..], &b"\xff"[..]);
        self.db.begin().range(all).collect().await.unwrap()
    }

    /// Fails where state, log, counters and indexes contradict each other.
    pub(crate) async fn check(&self) {
        let found = check_account(&self.db.begin(), self.account).await.unwrap();
        assert_eq!(found, [], "the account contradicts itself");
    }

    /// The mailbox as the states have it: what every view must show.
    pub(crate) async fn truth(&self, mailbox: MailboxId) -> Vec<Message> {
        let tx = self.db.begin();
        let (begin, end) = keys::email::state_range(self.account);
        let mut rows = BTreeMap::new();
        for pair in tx.range(RangeQuery::new(begin, end)).collect().await.unwrap() {
            let (stamp, state) = keys::email::decode_state(&pair.value).unwrap();
            for place in state.memberships.iter().filter(|place| place.mailbox == mailbox.0) {
                let row = Row {
                    uid: Uid::new(place.uid).unwrap(),
                    email: keys::email::email_of(&pair.key).unwrap(),
                    thread: mail::ThreadId(state.thread),
                    modseq: ModSeq(stamp.version()),
                    received_ms: state.received_ms,
                    size: state.size,
                    flags: Flags {
                        keywords: state
                            .keywords
                            .iter()
                            .map(|text| Keyword::new(text).unwrap())
                            .collect(),
                        deleted: place.deleted,
                    },
                };
                assert!(rows.insert(row.uid, row).is_none(), "a UID twice");
            }
        }
        (1..).zip(rows.into_values()).map(|(sequence, row)| Message { sequence, row }).collect()
    }

    /// Drops the checkpoint and the log, so that views are built from the states.
    pub(crate) async fn forget_history(&self, mailbox: MailboxId) {
        let account = self.account;
        self.db
            .run(|tx| async move {
                tx.clear(&keys::view::header_key(account, mailbox));
                let (begin, end) = keys::view::page_range(account, mailbox);
                tx.clear_range(&begin, &end);
                let now = ModSeq(tx.read_version().await?);
                mail::trim_log(&tx, account, now).await
            })
            .await
            .unwrap();
    }
}

pub(crate) async fn new_account(
    db: &Database,
    env: &Env,
    address: &str,
    quota_bytes: u64,
) -> AccountId {
    let new = account_of(address, quota_bytes);
    let operations = operations(env);
    let (new, operations) = (&new, &operations);
    db.run(|tx| async move {
        if !mail::directory::is_local(&tx, new.address.domain()).await? {
            add_domain(&tx, new.address.domain(), NOW).await.unwrap();
        }
        create_account(&tx, new, NOW, operations).await
    })
    .await
    .unwrap()
}

pub(crate) fn account_of(address: &str, quota_bytes: u64) -> NewAccount {
    NewAccount {
        address: Address::parse(address).unwrap(),
        description: "somebody".to_owned(),
        quota_bytes,
        credential: keys::account::Credential::default(),
    }
}

pub(crate) fn operations(env: &Env) -> [OperationId; 6] {
    std::array::from_fn(|_| OperationId::random(env))
}

pub(crate) fn new_mailbox(name: &str, parent: Option<MailboxId>) -> NewMailbox {
    NewMailbox { name: name.to_owned(), parent, role: None, subscribed: false }
}

pub(crate) fn set(keywords: &[&str]) -> KeywordSet {
    keywords.iter().map(|text| Keyword::new(text).unwrap()).collect()
}

pub(crate) fn email(text: &str, keywords: &[&str]) -> NewEmail {
    let mut scanner = message::Scanner::new(message::Limits::default());
    scanner.push(text.as_bytes());
    NewEmail::from_scan(blob_of(text), &scanner.finish(), NOW, set(keywords))
}

pub(crate) fn target(appended: &Appended) -> StoreTarget {
    StoreTarget { email: appended.email, uid: appended.uid }
}

pub(crate) fn targets(messages: &[Message]) -> Vec<StoreTarget> {
    messages.iter().map(|one| StoreTarget { email: one.row.email, uid: one.row.uid }).collect()
}

pub(crate) async fn state(
    fixture: &Fixture,
    email: EmailId,
) -> Option<(ModSeq, keys::email::EmailState)> {
    mail::email_state(&fixture.db.begin(), fixture.account, email).await.unwrap()
}

/// The view's messages, read by sequence number.
pub(crate) async fn listing(
    db: &Database,
    view: &View,
) -> Result<Vec<Message>, mail::view::ViewError> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let first = u32::try_from(messages.len()).unwrap() + 1;
        let more = view.by_sequence(db, first, u32::MAX).await?;
        if more.is_empty() {
            return Ok(messages);
        }
        messages.extend(more);
    }
}

/// Compares all that a view tells with what the messages are.
pub(crate) async fn check_view(db: &Database, view: &View, truth: &[Message], what: &str) {
    assert_eq!(listing(db, view).await.unwrap(), truth, "{what}: by sequence");
    let mut by_uid = Vec::new();
    let mut next = Some(Uid::MIN);
    while let Some(first) = next {
        let stretch = view.by_uid(db, first, Uid::new(u32::MAX).unwrap()).await.unwrap();
        by_uid.extend(stretch.messages);
        next = stretch.covered.number().checked_add(1).and_then(Uid::new);
    }
    assert_eq!(by_uid, truth, "{what}: by UID");
    assert_eq!(to_usize(view.exists()), truth.len(), "{what}: EXISTS");
    let unseen = |one: &&Message| !one.row.flags.keywords.is_seen();
    assert_eq!(to_usize(view.unseen()), truth.iter().filter(unseen).count(), "{what}: unseen");
    let first_unseen = view.first_unseen(db).await.unwrap();
    assert_eq!(first_unseen, truth.iter().find(unseen).map(|one| one.sequence), "{what}");
    let last = truth.last().map(|one| one.row.uid);
    assert_eq!(view.last_uid(db).await.unwrap(), last, "{what}: last UID");
    assert!(last.is_none_or(|last| view.uid_next() > last), "{what}: UIDNEXT");
    let highest = truth.iter().map(|one| one.row.modseq).max().unwrap_or_default();
    assert!(view.highest_modseq() >= highest, "{what}: HIGHESTMODSEQ");
}

pub(crate) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap()
}

/// What an IMAP client knows of a mailbox, changed by untagged responses alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) messages: Vec<Message>,
}

impl Client {
    /// Hears what the server tells, in its order; fetches what is new, as clients do.
    pub(crate) async fn hear(
        &mut self,
        db: &Database,
        change: &ViewChange,
        view: &View,
    ) -> Result<(), mail::view::ViewError> {
        for (sequence, uid) in &change.expunged {
            let gone = self.messages.remove(to_usize(*sequence) - 1);
            assert_eq!(gone.row.uid, *uid, "EXPUNGE {sequence} names another message");
        }
        if let Some(exists) = change.exists {
            let known = self.messages.len();
            assert!(to_usize(exists) > known, "EXISTS {exists} tells nothing new");
            while self.messages.len() < to_usize(exists) {
                let next = u32::try_from(self.messages.len()).unwrap() + 1;
                self.messages.extend(view.by_sequence(db, next, exists).await?);
            }
        }
        for changed in &change.changed {
            self.messages[to_usize(changed.sequence) - 1] = changed.clone();
        }
        for (sequence, message) in (1..).zip(&mut self.messages) {
            message.sequence = sequence;
        }
        Ok(())
    }
}

/// A unit outside the macro, for tests that look at one transaction.
pub(crate) fn unit_of(fixture: &Fixture, tx: &kv::Transaction) -> AccountUnit {
    AccountUnit::new(tx, fixture.account, NOW)
}

/// The name of a blob that was put at [`NOW`]; its bytes are nowhere.
pub(crate) fn blob_of(text: &str) -> BlobId {
    let mut object = [0; 16];
    object[10..].copy_from_slice(&NOW.unix_ms().to_be_bytes()[2..]);
    BlobId::new(ObjectId::from_bytes(object), BlobHash::of(text.as_bytes()))
}
