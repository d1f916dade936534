use std::net::{IpAddr, Ipv4Addr};

use origin::{
    Connection, DmarcRecord, DmarcResult, DmarcVerdict, IprevVerdict, SpfVerdict, Verdicts,
};

use super::*;
use crate::judging::{client::Asked, decide::Decision};

const DOMAIN: &str = "author.example";

fn findings(peer: Ipv4Addr, domain: &str, record: &str) -> Findings {
    let connection = Connection {
        peer: peer.into(),
        helo: "a.example".to_owned(),
        iprev: IprevVerdict::default(),
        spf_helo: SpfVerdict::default(),
    };
    let dmarc = DmarcVerdict {
        result: DmarcResult::Fail,
        author_domain: domain.to_owned(),
        policy_domain: domain.to_owned(),
        record: DmarcRecord::parse(record.as_bytes()),
        ..DmarcVerdict::default()
    };
    Findings {
        asked: Asked { connection, sender: SpfVerdict::default() },
        verdicts: Verdicts { dmarc, ..Verdicts::default() },
        decision: Decision::default(),
    }
}

fn wanted(peer: u32, domain: &str) -> Findings {
    findings(Ipv4Addr::from_bits(peer), domain, "v=DMARC1; p=none; rua=mailto:a@author.example")
}

fn seen() -> Seen {
    let env = Env::system();
    Seen::new(Database::memory(env.clone()), env)
}

async fn told(seen: &Seen, domain: &str) -> Option<OfDomain> {
    let day = day_of(seen.env.wall());
    seen.db.run(|tx| async move { read(&tx, day, domain).await }).await.unwrap()
}

#[tokio::test]
async fn messages_that_went_alike_are_one_row_whichever_node_saw_them() {
    let seen_here = seen();
    let seen_there = Seen::new(seen_here.db.clone(), seen_here.env.clone());
    for (node, peer) in [(&seen_here, 1), (&seen_here, 1), (&seen_here, 2), (&seen_there, 1)] {
        node.note(&wanted(peer, DOMAIN));
    }
    // Nobody wants to hear of these.
    seen_here.note(&findings(Ipv4Addr::LOCALHOST, "quiet.example", "v=DMARC1; p=none"));
    seen_here.flush().await;
    seen_there.flush().await;
    let found = told(&seen_here, DOMAIN).await.unwrap();
    let mut rows: Vec<_> = found.rows.iter().map(|row| (row.source, row.count)).collect();
    rows.sort();
    let source = |last| IpAddr::from([0, 0, 0, last]);
    assert_eq!(rows, [(source(1), 3), (source(2), 1)]);
    assert!(told(&seen_here, "quiet.example").await.is_none());
    let day = day_of(seen_here.env.wall());
    let next = |after: Option<(i64, String)>| {
        let db = seen_here.db.clone();
        async move {
            let after = after.as_ref();
            db.run(|tx| async move { next_domain(&tx, after, day).await }).await.unwrap()
        }
    };
    let first = next(None).await;
    assert_eq!(first, Some((day, DOMAIN.to_owned())));
    assert_eq!(next(first).await, None);
}

#[tokio::test]
async fn what_was_counted_after_it_was_read_is_not_forgotten() {
    let seen = seen();
    seen.note(&wanted(1, DOMAIN));
    seen.flush().await;
    let found = told(&seen, DOMAIN).await.unwrap();
    seen.note(&wanted(1, DOMAIN));
    seen.flush().await;
    let day = day_of(seen.env.wall());
    let forget_it = |found| {
        let db = seen.db.clone();
        async move {
            let found = &found;
            db.run(|tx| async move { forget(&tx, day, DOMAIN, found).await }).await.unwrap()
        }
    };
    assert_eq!(forget_it(found).await, Forgotten::Changed);
    let found = told(&seen, DOMAIN).await.unwrap();
    assert_eq!(found.rows[0].count, 2);
    assert_eq!(forget_it(found).await, Forgotten::Done);
    assert!(told(&seen, DOMAIN).await.is_none());
}

#[tokio::test]
async fn rows_and_what_is_held_have_bounds() {
    let seen = seen();
    let most = u32::try_from(limits::DMARC_ROWS_PER_DOMAIN_MAX).unwrap();
    for peer in 0..most + 7 {
        seen.note(&wanted(peer, DOMAIN));
    }
    seen.flush().await;
    let found = told(&seen, DOMAIN).await.unwrap();
    assert_eq!((found.rows.len() as u64, found.left_out), (limits::DMARC_ROWS_PER_DOMAIN_MAX, 7));
    for peer in 0..100_000 {
        seen.note(&wanted(peer, "other.example"));
    }
    let held = seen.lock();
    assert!(held.bytes <= limits::DMARC_HELD_BYTES_MAX + 1_000 && held.left_out > 0);
}

#[tokio::test]
async fn a_flush_that_committed_unseen_counts_once() {
    let seen = seen();
    seen.db.faults().set(kv::Faults {
        commit_unknown: kv::Probability::per_million(500_000),
        ..kv::Faults::default()
    });
    for _ in 0..20 {
        seen.note(&wanted(1, DOMAIN));
        seen.flush().await;
    }
    seen.db.faults().set(kv::Faults::default());
    assert_eq!(told(&seen, DOMAIN).await.unwrap().rows[0].count, 20);
}

#[tokio::test]
async fn old_days_are_forgotten_whole() {
    let seen = seen();
    seen.note(&wanted(1, DOMAIN));
    seen.flush().await;
    let day = day_of(seen.env.wall());
    let forget = |tx| async move {
        forget_before(&tx, day + 1);
        Ok::<_, StoreError>(())
    };
    seen.db.run(forget).await.unwrap();
    let all = RangeQuery::prefix(&Subspace::DmarcSeen.prefix());
    let all = &all;
    let left = seen.db.run(|tx| async move { tx.range(all.clone()).collect().await });
    assert!(left.await.unwrap().is_empty());
}
