//! The functions on a memory store, with messages put into the queue by hand.

use blob::BlobStore;
use cluster::work::{orders as standing, zone};
use env::Env;
use kv::{Database, LargeValues};

use super::*;
use crate::deliver::outbound::{
    Body, Handling, RemoteRecipient, ReturnContent, Submission, enqueue,
};

struct World {
    admin: Admin,
    blob: blob::BlobId,
}

impl World {
    async fn new() -> Self {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let values = LargeValues::memory(env.clone());
        let blobs = BlobStore::embedded(values, env.clone()).await.unwrap();
        let blob = blobs.put(b"\r\n").await.unwrap();
        Self { admin: Admin { db, env }, blob }
    }

    /// Puts a message into the queue that was accepted `age` seconds ago.
    async fn put(&self, number: u8, sender: &str, age: i64, to: &[&str], handling: Handling) {
        let now = self.admin.env.wall();
        let recipients = to.iter().map(|text| RemoteRecipient {
            address: mail::directory::Address::parse(text).unwrap(),
            written: (*text).to_owned(),
            notify: None,
            original: None,
        });
        let submission = &Submission {
            id: [number; 16],
            blob: self.blob,
            size: 2,
            skip: 0,
            sender: sender.to_owned(),
            account: None,
            received_at: Timestamp::from_unix_ms(now.unix_ms() - age * 1_000),
            envelope_id: None,
            return_content: ReturnContent::Full,
            body: Body::SevenBit,
            utf8: false,
            handling,
            prepend: Vec::new(),
            recipients: recipients.collect(),
        };
        self.admin.db.run(|tx| async move { enqueue(&tx, submission).await }).await.unwrap();
    }

    /// A queue of three messages to two domains.
    async fn filled() -> Self {
        let world = Self::new().await;
        let later = Timestamp::from_unix_ms(world.admin.env.wall().unix_ms() + 90_000);
        let future = Handling { hold_until: Some(later), ..Handling::default() };
        let plain = Handling::default();
        world.put(1, "a@here.example", 7_200, &["x@one.example", "y@two.example"], plain).await;
        world.put(2, "b@here.example", 60, &["x@one.example", "z@one.example"], plain).await;
        world.put(3, "", 1, &["x@two.example"], future).await;
        world
    }

    async fn rows(&self, query: QueueQuery) -> Vec<(u8, String)> {
        let page = list(&self.admin, &query).await.unwrap();
        page.items.into_iter().map(|it| (unhex(&it.id).unwrap()[0], it.domain)).collect()
    }

    async fn order(&self, action: QueueAction, selection: Selection) -> Ordered {
        order(&self.admin, &OrderRequest { action, selection, after: None }).await.unwrap()
    }

    /// Ids of orders that stand about a domain.
    async fn standing(&self, domain: &str) -> Vec<Vec<u8>> {
        let read = |tx| async move { standing::first(&tx, Kind::Outbound, domain, 10).await };
        let orders = self.admin.db.run(read).await.unwrap();
        orders.into_iter().map(|order| order.id).collect()
    }
}

fn of(rows: &[(u8, &str)]) -> Vec<(u8, String)> {
    rows.iter().map(|(number, domain)| (*number, format!("{domain}.example"))).collect()
}

#[tokio::test]
async fn the_queue_is_listed_as_it_is_asked_for() {
    let world = World::filled().await;
    let query = QueueQuery::default;
    let all = of(&[(1, "one"), (2, "one"), (1, "two"), (3, "two")]);
    assert_eq!(world.rows(query()).await, all);
    let domain = Some("TWO.example".to_owned());
    assert_eq!(world.rows(QueueQuery { domain, ..query() }).await, of(&[(1, "two"), (3, "two")]));
    for (sender, expected) in [
        ("A@here.example", of(&[(1, "one"), (1, "two")])),
        ("@here.example", of(&[(1, "one"), (2, "one"), (1, "two")])),
        ("<>", of(&[(3, "two")])),
        ("re.example", of(&[])),
    ] {
        let sender = Some(sender.to_owned());
        assert_eq!(world.rows(QueueQuery { sender, ..query() }).await, expected);
    }
    let older_than_seconds = Some(3_600);
    let old = QueueQuery { older_than_seconds, ..query() };
    assert_eq!(world.rows(old).await, of(&[(1, "one"), (1, "two")]));
    let id = Some("02".repeat(16));
    assert_eq!(world.rows(QueueQuery { id, ..query() }).await, of(&[(2, "one")]));
    let state = Some(QueueState::Future);
    assert_eq!(world.rows(QueueQuery { state, ..query() }).await, of(&[(3, "two")]));
    let bad = QueueQuery { after: Some("00".to_owned()), ..query() };
    assert!(matches!(list(&world.admin, &bad).await, Err(AdminError::Page(_))));
}

#[tokio::test]
async fn pages_follow_each_other() {
    let world = World::filled().await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = QueueQuery { after, limit: Some(1), ..QueueQuery::default() };
        let page = list(&world.admin, &query).await.unwrap();
        assert!(page.items.len() <= 1);
        seen.extend(page.items.into_iter().map(|it| (unhex(&it.id).unwrap()[0], it.domain)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, of(&[(1, "one"), (2, "one"), (1, "two"), (3, "two")]));
    let whole = QueueQuery { limit: Some(4), ..QueueQuery::default() };
    let page = list(&world.admin, &whole).await.unwrap();
    assert_eq!((page.items.len(), page.next), (4, None), "there is no more");
}

#[tokio::test]
async fn a_message_is_shown_with_all_its_domains() {
    let world = World::filled().await;
    let shown = show(&world.admin, &"01".repeat(16)).await.unwrap();
    assert_eq!((shown.sender.as_str(), shown.returns.as_deref()), ("a@here.example", Some("full")));
    let shares: Vec<_> = shown.shares.iter().map(|it| (it.domain.as_str(), it.state)).collect();
    assert_eq!(shares, [("one.example", QueueState::Due), ("two.example", QueueState::Due)]);
    assert_eq!(shown.shares[1].recipients[0].address, "y@two.example");
    assert_eq!(shown.not_found, [] as [String; 0]);
    let future = show(&world.admin, &"03".repeat(16)).await.unwrap();
    assert!(future.hold_until_ms.is_some() && future.shares[0].state == QueueState::Future);
    for missing in ["04".repeat(16), "x".to_owned(), "ä".to_owned()] {
        let error = show(&world.admin, &missing).await.unwrap_err();
        assert!(matches!(error, AdminError::NoMessage(_)), "{error}");
    }
}

#[tokio::test]
async fn the_queue_is_counted() {
    let world = World::filled().await;
    let counted = stats(&world.admin, &StatsQuery { top: Some(1) }).await.unwrap();
    assert_eq!((counted.domains.count, counted.messages.count), (2, 4));
    assert_eq!((counted.due, counted.deferred, counted.held, counted.future), (3, 0, 0, 1));
    let [top] = &counted.top[..] else { panic!("{counted:?}") };
    assert_eq!((top.domain.as_str(), top.messages.count), ("one.example", 2));
    assert_eq!(counted.oldest_ms, top.oldest_ms);
    let one = Selection::Domain("one.example".to_owned());
    world.order(QueueAction::Hold, one).await;
    world.order(QueueAction::Hold, Selection::Domain("empty.example".to_owned())).await;
    let counted = stats(&world.admin, &StatsQuery::default()).await.unwrap();
    assert_eq!((counted.due, counted.held), (1, 2));
    assert_eq!(counted.held_domains, ["empty.example", "one.example"]);
}

#[tokio::test]
async fn orders_are_written_down_for_each_domain() {
    let world = World::filled().await;
    let one = vec!["01".repeat(16)];
    let ordered = world.order(QueueAction::Hold, Selection::Messages(one)).await;
    assert_eq!((ordered.messages, ordered.domains, ordered.next), (2, 0, None));
    assert_eq!(world.standing("one.example").await, [vec![1; 16]]);
    assert_eq!(world.standing("two.example").await, [vec![1; 16]]);
    let matching = Filter { sender: Some("b@here.example".to_owned()), ..Filter::default() };
    let ordered = world.order(QueueAction::Cancel, Selection::Matching(matching)).await;
    assert_eq!((ordered.messages, ordered.next), (1, None));
    assert_eq!(world.standing("one.example").await, [vec![1; 16], vec![2; 16]]);
    let flushed = world.order(QueueAction::Retry, Selection::All).await;
    assert_eq!(flushed.domains, 2);
    assert_eq!(world.standing("two.example").await, [vec![], vec![1; 16]]);
    let nowhere = Selection::Domain("nowhere.example".to_owned());
    assert_eq!(world.order(QueueAction::Cancel, nowhere).await.domains, 0);
    let unknown = OrderRequest {
        action: QueueAction::Retry,
        selection: Selection::Messages(vec!["02".repeat(16), "09".repeat(16)]),
        after: None,
    };
    let error = order(&world.admin, &unknown).await.unwrap_err();
    assert!(matches!(error, AdminError::NoMessage(_)), "{error}");
}

#[tokio::test]
async fn an_order_makes_what_waits_due() {
    let world = World::new().await;
    let later = Timestamp::from_unix_ms(world.admin.env.wall().unix_ms() + 90_000);
    let future = Handling { hold_until: Some(later), ..Handling::default() };
    world.put(3, "a@here.example", 0, &["x@two.example"], future).await;
    let due = async || {
        let read = |tx| async move { zone::state(&tx, Kind::Outbound, "two.example").await };
        match world.admin.db.run(read).await.unwrap() {
            Some(ZoneState::Waiting { due_ms }) => due_ms,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(due().await, later.unix_ms());
    let released = Selection::Messages(vec!["03".repeat(16)]);
    world.order(QueueAction::Release, released).await;
    assert!(due().await <= world.admin.env.wall().unix_ms());
}

#[tokio::test]
async fn a_search_has_a_bound_however_many_domains_a_message_has() {
    let world = World::filled().await;
    // Both shares have been tried since, and are behind others.
    let moved = |tx: Transaction| async move {
        for domain in ["one.example", "two.example"] {
            let items = zone::items_from(&tx, Kind::Outbound, Some(domain), None).await?.rows;
            let (_, item) = items.into_iter().find(|(_, item)| item.id == [1; 16]).unwrap();
            tx.clear(&work::item_key(Kind::Outbound, domain, item.due.unix_ms(), &item.id));
            let due = Timestamp::from_unix_ms(item.due.unix_ms() + 10_000_000_000);
            work::enqueue(&tx, Kind::Outbound, domain, due, &item.id, &item.payload).await?;
        }
        Ok::<_, StoreError>(())
    };
    world.admin.db.run(moved).await.unwrap();
    for (rows, expected) in [(1_000, 2), (3, 2), (2, 1), (0, 0)] {
        let found = find_within(&world.admin, [1; 16], rows).await.unwrap();
        let counts = (found.shares.len(), found.not_found.len());
        assert_eq!(counts, (expected, 2 - expected), "{rows}");
    }
}
