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
    assert_eq!(domains(&seen_here, 9).await, [(day, DOMAIN.to_owned())]);
}

/// All domains of today, so many at a time.
async fn domains(seen: &Seen, most: usize) -> Vec<(i64, String)> {
    let day = day_of(seen.env.wall());
    let mut all: Vec<(i64, String)> = Vec::new();
    loop {
        let after = &all.last().cloned();
        let next = |tx| async move { next_domains(&tx, after.clone(), day, most).await };
        let some = seen.db.run(next).await.unwrap();
        assert!(some.len() <= most);
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

#[tokio::test]
async fn domains_come_in_order_and_none_twice() {
    let seen = seen();
    let names: Vec<String> = (b'a'..=b'z').map(|it| format!("{}.example", it as char)).collect();
    names.iter().for_each(|name| seen.note(&wanted(1, name)));
    seen.flush().await;
    for most in [1, 7, 26, 99] {
        let found: Vec<_> = domains(&seen, most).await.into_iter().map(|(_, it)| it).collect();
        assert_eq!(found, names);
    }
}

#[tokio::test]
async fn one_organization_does_not_use_up_the_day() {
    let seen = seen();
    let most = usize::try_from(limits::DMARC_DOMAINS_PER_ORGANIZATION_MAX).unwrap();
    // More than a transaction writes, by two flushes.
    for turn in 0..2 {
        for number in 0..most {
            seen.note(&wanted(1, &format!("d{turn}.d{number}.x.evil.example")));
        }
        seen.flush().await;
    }
    let found = domains(&seen, 32).await;
    assert_eq!(found.len(), most);
    seen.note(&wanted(1, "other.example"));
    seen.note(&wanted(1, &found[0].1));
    seen.flush().await;
    assert_eq!(domains(&seen, 32).await.len(), most + 1);
    let known = told(&seen, &found[0].1).await.unwrap();
    assert_eq!(known.rows[0].count, 2, "who is told is told of all");
}

#[test]
fn an_organization_has_two_labels_or_three() {
    for (domain, expected) in [
        ("example", "example"),
        ("evil.example", "evil.example"),
        ("a.b.evil.example", "evil.example"),
        ("a.shop.co.uk", "shop.co.uk"),
        ("co.uk", "co.uk"),
        ("a.co.example", "co.example"),
        ("a.b.shop.de", "shop.de"),
    ] {
        assert_eq!(organization(domain), expected);
    }
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
