//! Deliveries over a memory store.

use std::{
    collections::BTreeSet,
    sync::Arc,
    task::{Context, Poll},
};

use blob::BlobStore;
use env::Env;
use futures_util::future::join_all;
use kv::{Database, Faults, LargeValues, Probability, RangeQuery, Subspace, tuple::pack};
use mail::{
    AccountId, Keyword, KeywordSet, MailboxCounts, NewEmail, OperationId, StoreError,
    directory::Address, view::ViewCache,
};

use super::{
    Append, Combining, Delivered, Deliverer, OnFailure, Refusal, Reporting, Request, Returned,
    Shares, Target,
    outbound::{self, Body, RemoteRecipient, ReturnContent, Submission},
};
use tokio::sync::watch;

use crate::{Announcer, auth::new_credential, hub::Hub, settings::Settings, signing::Signing};

struct Node {
    env: Env,
    db: Database,
    blobs: BlobStore,
    deliverer: Deliverer,
}

impl Node {
    async fn new() -> Self {
        Self::combining(Combining::AcrossAccounts).await
    }

    async fn of_each_combining() -> [Self; 2] {
        [Self::combining(Combining::ByAccount).await, Self::new().await]
    }

    async fn combining(combining: Combining) -> Self {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let blobs = BlobStore::embedded(LargeValues::memory(env.clone()), env.clone());
        let blobs = blobs.await.unwrap();
        let views = ViewCache::new(db.clone(), env.clone(), 1 << 20);
        let announcer = Announcer::new(db.clone(), env.clone(), Hub::default(), views);
        let settings = watch::channel(Arc::new(Settings::default())).1;
        let signing = Signing::new(&env, db.clone(), settings);
        let deliverer =
            Deliverer::new(db.clone(), blobs.clone(), env.clone(), announcer, combining, signing);
        let now = env.wall();
        db.run(|tx| async move {
            mail::directory::add_domain(&tx, "example.org", now).await.unwrap();
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
        Self { env, db, blobs, deliverer }
    }

    async fn account(&self, address: &str, quota_bytes: u64) -> AccountId {
        let new = mail::NewAccount {
            address: Address::parse(address).unwrap(),
            description: String::new(),
            quota_bytes,
            credential: new_credential(&self.env, "secret").await.unwrap(),
        };
        let now = self.env.wall();
        let operations = std::array::from_fn(|_| OperationId::random(&self.env));
        let (new, operations) = (&new, &operations);
        self.db
            .run(|tx| async move { mail::create_account(&tx, new, now, operations).await })
            .await
            .unwrap()
    }

    /// A message of `size` bytes.
    async fn email(&self, size: usize, keywords: usize) -> Arc<NewEmail> {
        let mut bytes = b"Subject: x\r\n\r\n".to_vec();
        bytes.resize(size, b'x');
        let blob = self.blobs.put(&bytes).await.unwrap();
        let mut scanner = message::Scanner::new(message::Limits::default());
        scanner.push(&bytes);
        let keywords: KeywordSet =
            (0..keywords).map(|i| Keyword::new(&format!("k{i}")).unwrap()).collect();
        Arc::new(NewEmail::from_scan(blob, &scanner.finish(), self.env.wall(), keywords))
    }

    fn append(&self, account: AccountId, email: &Arc<NewEmail>) -> Append {
        Append {
            account,
            target: Target::Inbox,
            email: Arc::clone(email),
            operation: OperationId::random(&self.env),
            recipients: vec![format!("recipient-{account}@example.org")],
            tell_success: Vec::new(),
        }
    }

    async fn submit(&self, appends: Vec<Append>, on_failure: OnFailure) -> Delivered {
        let request = Request { appends, outbound: None, on_failure };
        self.deliverer.submit(request).await.unwrap()
    }

    async fn counts(&self, account: AccountId) -> MailboxCounts {
        let found = self
            .db
            .run(|tx| async move { mail::fold::check_account(&tx, account).await })
            .await
            .unwrap();
        assert_eq!(found, [], "state, log and counters agree");
        self.db
            .run(|tx| async move {
                let inbox = mail::inbox(&tx, account).await?.expect("an INBOX");
                mail::mailbox_counts(&tx, account, inbox).await
            })
            .await
            .unwrap()
    }

    /// Submissions in the queue.
    async fn queued(&self) -> Vec<outbound::SubmissionRecord> {
        let begin = pack(&(Subspace::Submission as u64,));
        let end = pack(&(Subspace::Submission as u64 + 1,));
        let query = &RangeQuery::new(begin, end);
        let pairs = self.db.run(|tx| async move { tx.range(query.clone()).collect().await });
        let pairs = pairs.await.unwrap();
        pairs.iter().map(|pair| prost::Message::decode(&pair.value[..]).unwrap()).collect()
    }
}

fn report_to(sender: &str) -> OnFailure {
    OnFailure::Report(Some(Reporting {
        sender: Address::parse(sender).unwrap(),
        hostname: "mx.example.org".to_owned(),
        envelope_id: None,
        arrived_at: env::Timestamp::from_unix_seconds(0),
        returned: Returned::Header(b"Subject: x\r\n".to_vec()),
        deliver_by: None,
        tls: outbound::TlsWish::Usual,
    }))
}

#[tokio::test]
async fn requests_that_wait_together_share_transactions() {
    for node in Node::of_each_combining().await {
        let account = node.account("hot@example.org", 0).await;
        let email = node.email(100, 0).await;
        let before = node.db.counts();
        let submitted =
            (0..64).map(|_| node.submit(vec![node.append(account, &email)], OnFailure::Tell));
        let results = join_all(submitted).await;
        let spent = node.db.counts() - before;
        assert!(spent.transactions_committed <= 4, "{} transactions", spent.transactions_committed);
        assert_eq!(spent.conflicts, 0);
        let uids: BTreeSet<u32> =
            results.iter().map(|d| d.appends[0].as_ref().unwrap().uid.number()).collect();
        assert_eq!(uids, (1..=64).collect());
        assert_eq!(node.counts(account).await.messages, 64);
        node.deliverer.finished().await;
    }
}

#[tokio::test]
async fn requests_of_many_accounts_share_transactions_where_one_is_dear() {
    let node = Node::new().await;
    let mut accounts = Vec::new();
    for n in 0..64 {
        accounts.push(node.account(&format!("user-{n}@example.org"), 0).await);
    }
    let email = node.email(100, 0).await;
    let before = node.db.counts();
    // The first of an account's two requests is in a transaction while the second waits for it.
    let twice = accounts.iter().chain(&accounts);
    let submitted =
        twice.map(|account| node.submit(vec![node.append(*account, &email)], OnFailure::Tell));
    join_all(submitted).await;
    let spent = node.db.counts() - before;
    assert!(spent.transactions_committed <= 8, "{} transactions", spent.transactions_committed);
    assert_eq!(spent.conflicts, 0, "an account is in one transaction at a time");
    for account in accounts {
        assert_eq!(node.counts(account).await.messages, 2);
    }
}

#[tokio::test]
async fn what_a_shared_transaction_does_not_commit_goes_on_by_account() {
    let node = Node::new().await;
    let accounts = [node.account("a@example.org", 0).await, node.account("b@example.org", 0).await];
    let email = node.email(100, 0).await;
    let conflict = Probability::per_million(1_000_000);
    node.db.faults().set(Faults { conflict, ..Faults::default() });
    let before = node.db.counts();
    let submitted = accounts.iter().map(|account| {
        let append = node.append(*account, &email);
        node.deliverer.submit(Request {
            appends: vec![append],
            outbound: None,
            on_failure: OnFailure::Tell,
        })
    });
    let clear = async {
        // One shared try and one of each by itself.
        while (node.db.counts() - before).conflicts < 3 {
            tokio::task::yield_now().await;
        }
        node.db.faults().clear();
    };
    let (results, ()) = tokio::join!(join_all(submitted), clear);
    assert!(results.into_iter().all(|delivered| delivered.unwrap().appends[0].is_ok()));
    let spent = node.db.counts() - before;
    assert_eq!(spent.transactions_committed, 2);
    node.deliverer.finished().await;
}

#[tokio::test]
async fn one_bad_request_does_not_fail_the_others() {
    for node in Node::of_each_combining().await {
        let account = node.account("a@example.org", 0).await;
        let (good, bad) = (node.email(100, 0).await, node.email(100, 65).await);
        let submitted = (0..20).map(|i| {
            let email = if i == 7 { &bad } else { &good };
            node.submit(vec![node.append(account, email)], OnFailure::Tell)
        });
        for (i, delivered) in join_all(submitted).await.into_iter().enumerate() {
            match &delivered.appends[0] {
                Err(refusal) => assert_eq!((i, refusal), (7, &Refusal::TooManyKeywords)),
                Ok(_) => assert_ne!(i, 7),
            }
        }
        assert_eq!(node.counts(account).await.messages, 19);
    }
}

#[tokio::test]
async fn the_quota_is_exact_within_a_batch() {
    for node in Node::of_each_combining().await {
        let account = node.account("small@example.org", 1000).await;
        let email = node.email(100, 0).await;
        let submitted =
            (0..15).map(|_| node.submit(vec![node.append(account, &email)], OnFailure::Tell));
        let results = join_all(submitted).await;
        let refused: Vec<_> = results.iter().filter_map(|d| d.appends[0].as_ref().err()).collect();
        assert_eq!(refused, [&Refusal::OverQuota; 5]);
        let counts = node.counts(account).await;
        assert_eq!((counts.messages, counts.bytes), (10, 1000));
        let large = node.email(1001, 0).await;
        let delivered = node.submit(vec![node.append(account, &large)], OnFailure::Tell).await;
        assert_eq!(delivered.appends[0].as_ref().err(), Some(&Refusal::LargerThanQuota));
    }
}

#[tokio::test]
async fn a_partial_failure_is_reported_in_the_same_transaction() {
    let node = Node::new().await;
    let (roomy, full) =
        (node.account("roomy@example.org", 0).await, node.account("full@example.org", 50).await);
    let sender = node.account("sender@example.org", 0).await;
    let email = node.email(100, 0).await;
    let both = || vec![node.append(roomy, &email), node.append(full, &email)];
    let before = node.db.counts().transactions_committed;
    let delivered = node.submit(both(), report_to("sender@example.org")).await;
    assert!(delivered.appends[0].is_ok() && delivered.appends[1].is_err());
    assert_eq!(node.db.counts().transactions_committed - before, 1);
    assert_eq!(node.counts(sender).await.messages, 1, "the report");
    assert!(node.queued().await.is_empty());

    node.submit(both(), report_to("far@example.com")).await;
    let queued = node.queued().await;
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].sender, "", "a report comes from nobody (RFC 5321 §4.5.5)");

    node.submit(both(), OnFailure::Report(None)).await;
    assert_eq!((node.counts(sender).await.messages, node.queued().await.len()), (1, 1));
    assert_eq!(node.counts(roomy).await.messages, 3);

    // Where nobody is served the refusal is the answer.
    let refused = node.submit(vec![node.append(full, &email)], report_to("a@example.com")).await;
    assert!(refused.appends[0].is_err() && refused.modseq.is_none());
    assert_eq!(node.queued().await.len(), 1);
}

#[tokio::test]
async fn a_result_that_is_lost_delivers_once() {
    for node in Node::of_each_combining().await {
        let (account, full) =
            (node.account("a@example.org", 0).await, node.account("full@example.org", 50).await);
        let sender = node.account("sender@example.org", 0).await;
        let email = node.email(100, 0).await;
        node.db.faults().set(Faults {
            commit_unknown: Probability::per_million(400_000),
            conflict: Probability::per_million(200_000),
            ..Faults::default()
        });
        let submitted = (0..30).map(|_| {
            let appends = vec![node.append(account, &email), node.append(full, &email)];
            node.submit(appends, report_to("sender@example.org"))
        });
        let results = join_all(submitted).await;
        node.db.faults().clear();
        let uids: BTreeSet<u32> =
            results.iter().map(|d| d.appends[0].as_ref().unwrap().uid.number()).collect();
        assert_eq!(uids.len(), 30);
        assert_eq!(node.counts(account).await.messages, 30);
        assert_eq!(node.counts(sender).await.messages, 30, "one report each");
    }
}

#[tokio::test]
async fn mail_for_elsewhere_alone_is_queued() {
    let node = Node::new().await;
    let email = node.email(100, 0).await;
    let recipient = |text: &str| RemoteRecipient {
        address: Address::parse(text).unwrap(),
        written: text.to_owned(),
        notify: None,
        original: None,
    };
    let received_at = node.env.wall();
    let submission = || Submission {
        id: [7; 16],
        blob: email.blob,
        size: email.size,
        skip: 0,
        sender: "a@example.org".to_owned(),
        account: None,
        received_at,
        envelope_id: None,
        return_content: ReturnContent::Unspecified,
        body: Body::SevenBit,
        utf8: false,
        handling: outbound::Handling::default(),
        prepend: Vec::new(),
        recipients: vec![recipient("x@one.example"), recipient("y@two.example")],
    };
    let request =
        Request { appends: Vec::new(), outbound: Some(submission()), on_failure: OnFailure::Tell };
    node.deliverer.submit(request).await.unwrap();
    assert_eq!(node.queued().await[0].domains_left, 2);
    // It is sent; and the transaction runs again, because its commit was not seen.
    let (begin, end) = &cluster::work::item_range(cluster::work::Kind::Outbound);
    let again = &submission();
    let left = node.db.run(|tx| async move {
        tx.clear_range(begin, end);
        outbound::enqueue(&tx, again).await?;
        Ok::<_, StoreError>(tx.range(RangeQuery::new(begin.clone(), end.clone())).collect().await?)
    });
    assert_eq!(left.await.unwrap().len(), 0);
    node.deliverer.finished().await;
}

#[tokio::test]
async fn a_delivery_goes_on_where_nobody_waits_and_is_waited_for_at_the_end() {
    for node in Node::of_each_combining().await {
        let account = node.account("a@example.org", 0).await;
        let email = node.email(100, 0).await;
        let request = Request {
            appends: vec![node.append(account, &email)],
            outbound: None,
            on_failure: OnFailure::Tell,
        };
        let mut submitting = Box::pin(node.deliverer.submit(request));
        // One poll hands it over; then its session is gone.
        let once = |cx: &mut Context<'_>| Poll::Ready(submitting.as_mut().poll(cx).is_pending());
        assert!(std::future::poll_fn(once).await);
        drop(submitting);
        node.deliverer.finished().await;
        assert_eq!(node.counts(account).await.messages, 1);
    }
}

#[tokio::test]
async fn failures_of_a_share_in_which_nobody_is_served_are_told_beside_another() {
    let node = Node::new().await;
    let email = node.email(100, 0).await;
    let served = node.account("a@example.org", 0).await;
    let most = crate::limits::APPENDS_PER_TRANSACTION_MAX - 1;
    let nobody = (0..most).map(|number| AccountId(1_000_000 + number as u64));
    let mut appends: Vec<_> = nobody.map(|account| node.append(account, &email)).collect();
    let done = async |appends: &[Append]| {
        let mut shares = Shares::new(appends, None, report_to("sender@elsewhere.example"));
        let mut done = Vec::new();
        while let Some(share) = shares.next(&node.deliverer).await {
            let results = share.results.unwrap();
            done.push((share.appends.len(), results.iter().filter(|it| it.is_ok()).count()));
        }
        (done, shares.are_any_postponed())
    };
    // The answer says so then.
    assert_eq!(done(&appends).await, (vec![(most, 0)], true));
    assert_eq!(node.queued().await.len(), 0);
    appends.push(node.append(served, &email));
    assert_eq!(done(&appends).await, (vec![(most, 0), (1, 1), (most, 0)], false));
    assert_eq!(
        node.counts(served).await.messages,
        1,
        "its append is carried along, and is done once"
    );
    assert_eq!(node.queued().await.len(), 1, "one report of them all");
}
