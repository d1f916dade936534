//! Each damage of the queue is found, exactly it.

use blob::BlobStore;
use env::Env;
use kv::{Database, LargeValues};
use mail::fsck::{Owners, Speed};
use tokio::sync::mpsc;

use super::*;
use crate::deliver::outbound::{self, Body, RemoteRecipient, ReturnContent, Submission};

const ID: Id = [7; 16];

struct World {
    parts: Parts,
    blob: BlobId,
}

impl World {
    /// A queue with a submission for two domains.
    async fn new() -> Self {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let values = LargeValues::memory(env.clone());
        let blobs = BlobStore::embedded(values, env.clone()).await.unwrap();
        let blob = blobs.put(b"\r\n").await.unwrap();
        let recipient = |text: &str| RemoteRecipient {
            address: mail::directory::Address::parse(text).unwrap(),
            written: text.to_owned(),
            notify: None,
            original: None,
        };
        let submission = &Submission {
            id: ID,
            blob,
            size: 2,
            skip: 0,
            sender: String::new(),
            account: None,
            received_at: env.wall(),
            envelope_id: None,
            return_content: ReturnContent::Unspecified,
            body: Body::SevenBit,
            utf8: false,
            handling: outbound::Handling::default(),
            prepend: Vec::new(),
            recipients: vec![recipient("a@example.com"), recipient("b@example.net")],
        };
        db.run(|tx| async move { outbound::enqueue(&tx, submission).await }).await.unwrap();
        let owners = Owners {
            submission_key: outbound::submission_key,
            submission_blob: outbound::submission_blob,
        };
        Self { parts: Parts { db, blobs, env, owners }, blob }
    }

    async fn run(&self, mode: Mode) -> (Summary, Vec<String>) {
        let options = Options { mode, speed: Speed::new(100).unwrap(), ..Options::default() };
        let (lines, mut told) = mpsc::channel(100);
        let hear = async {
            let mut codes = Vec::new();
            while let Some(line) = told.recv().await {
                if let Line::Finding(finding) = line {
                    codes.push(finding.code);
                }
            }
            codes
        };
        let checking = async move {
            let teller = Teller { lines: &lines, env: &self.parts.env };
            let mut summary = Summary::default();
            check(&self.parts, options, &teller, &mut summary).await.unwrap();
            summary
        };
        let (codes, summary) = tokio::join!(hear, checking);
        (summary, codes)
    }

    async fn check(&self, expected: &[&str], remaining: u64) {
        let (summary, codes) = self.run(Mode::Check).await;
        assert_eq!(codes, expected);
        assert_eq!(summary.remaining, expected.len() as u64);
        let (summary, _) = self.run(Mode::Repair).await;
        assert_eq!(summary.remaining, remaining);
        assert_eq!(summary.mended, expected.len() as u64 - remaining);
        assert_eq!(self.run(Mode::Check).await.1.len() as u64, remaining);
    }

    async fn clear(&self, key: &[u8]) {
        let tx = self.parts.db.begin();
        tx.clear(key);
        tx.commit().await.unwrap();
    }

    async fn item(&self) -> Vec<u8> {
        let (begin, end) = work::item_range(Kind::Outbound);
        let rows = self.parts.db.begin().range(RangeQuery::new(begin, end)).collect().await;
        rows.unwrap()[0].key.to_vec()
    }
}

#[tokio::test]
async fn a_queue_that_is_right() {
    let world = World::new().await;
    world.check(&[], 0).await;
}

#[tokio::test]
async fn a_lost_item() {
    let world = World::new().await;
    world.clear(&world.item().await).await;
    world.check(&["submission_items"], 1).await;
}

#[tokio::test]
async fn a_lost_submission() {
    let world = World::new().await;
    world.clear(&submission_key(&ID)).await;
    world.check(&["no_submission", "no_submission"], 2).await;
}

#[tokio::test]
async fn a_lost_pointer() {
    let world = World::new().await;
    world.clear(&work::zone_key(Kind::Outbound as u64, "example.com")).await;
    world.check(&["no_pointer"], 0).await;
}

#[tokio::test]
async fn a_lost_reference() {
    let world = World::new().await;
    let tx = world.parts.db.begin();
    let owner = Owner::Submission(ID);
    blob::references::remove(&tx, world.blob, &owner, world.parts.env.wall());
    tx.commit().await.unwrap();
    world.check(&["no_reference"], 0).await;
}

#[tokio::test]
async fn records_that_do_not_decode() {
    let world = World::new().await;
    for key in [world.item().await, submission_key(&ID)] {
        let value = world.parts.db.begin().get(&key).await.unwrap().unwrap();
        let tx = world.parts.db.begin();
        tx.set(&key, &[0xff]);
        tx.commit().await.unwrap();
        let (_, codes) = world.run(Mode::Check).await;
        assert!(codes.contains(&"undecodable".to_owned()), "{codes:?}");
        let tx = world.parts.db.begin();
        tx.set(&key, &value);
        tx.commit().await.unwrap();
    }
    world.check(&[], 0).await;
}

/// More damages than are held: each is told once, as it is found, and all are mended.
#[tokio::test]
async fn more_damages_than_are_held() {
    let world = World::new().await;
    let zones = u32::try_from(FSCK_QUEUE_HELD_MAX + 100).unwrap();
    let (begin, end) = work::item_range(Kind::Outbound);
    let rows = world.parts.db.begin().range(RangeQuery::new(begin, end)).collect().await.unwrap();
    let record = world.parts.db.begin().get(&submission_key(&ID)).await.unwrap().unwrap();
    for n in 0..zones {
        // A submission without a reference, and an item of it in a zone without a pointer.
        let mut id = ID;
        id[..4].copy_from_slice(&n.to_be_bytes());
        let mut item = OutboundItem::decode(&rows[0].value[..]).unwrap();
        item.submission = id.to_vec();
        let mut submission = SubmissionRecord::decode(&record[..]).unwrap();
        submission.domains_left = 1;
        let zone = format!("z{n}.example.com");
        let tx = world.parts.db.begin();
        tx.set(&submission_key(&id), &submission.encode_to_vec());
        let due = world.parts.env.wall();
        let item = item.encode_to_vec();
        work::enqueue(&tx, Kind::Outbound, &zone, due, &id, &item).await.unwrap();
        tx.clear(&work::zone_key(Kind::Outbound as u64, &zone));
        tx.commit().await.unwrap();
    }
    let options = Options { speed: Speed::new(100).unwrap(), ..Options::default() };
    let walk = Walk { parts: &world.parts, options };
    let found = walk.find(None, &mut Summary::default()).await.unwrap();
    assert_eq!((found.count, found.repairable.len()), (2 * u64::from(zones), FSCK_QUEUE_HELD_MAX));
    let (summary, codes) = world.run(Mode::Repair).await;
    assert_eq!(codes.len(), 2 * zones as usize);
    assert_eq!((summary.mended, summary.remaining), (2 * u64::from(zones), 0));
}
