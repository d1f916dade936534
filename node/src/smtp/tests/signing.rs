//! Signatures in front of what our users send, and senders of what is forwarded.

use std::net::{IpAddr, Ipv4Addr};

use cluster::dkim::{self, Algorithm, State};
use kv::Subspace;
use origin::{Digester, DkimResult, Judge, Purpose};
use prost::Message;

use super::*;
use crate::{
    deliver::outbound::{OutboundItem, SubmissionRecord},
    signing::{lifecycle, rotation},
};

/// Gives a domain a key of each kind, in use; returns what DNS says of them.
async fn give_keys(world: &World, domain: &str) -> dns::Zone {
    let zone = dns::Zone::new();
    give_keys_and_tell(world, domain, &zone).await;
    zone
}

/// Gives a domain a key of each kind, in use, and publishes them.
pub(super) async fn give_keys_and_tell(world: &World, domain: &str, zone: &dns::Zone) {
    let mut keys = Vec::new();
    for algorithm in [Algorithm::Rsa, Algorithm::Ed25519] {
        keys.push(rotation::make(&world.env, &keys, algorithm).await.unwrap());
    }
    for number in [1, 2] {
        lifecycle::put_to_use(&mut keys, number, world.env.wall());
    }
    for key in &keys {
        assert_eq!(key.state, State::InUse);
        zone.txt(&key.record_name(domain), &key.text);
    }
    let keys = &keys;
    let give = |tx: kv::Transaction| async move { dkim::write(&tx, domain, &[], keys).await };
    world.services.db.run(give).await.unwrap();
}

/// What lies in the queue, the only message.
async fn queued(world: &World) -> SubmissionRecord {
    let rows = world.rows(Subspace::Submission).await;
    let [row] = &rows[..] else { panic!("{}", rows.len()) };
    SubmissionRecord::decode(&row.value[..]).unwrap()
}

/// The bytes that other servers are sent.
async fn sent(world: &World) -> Vec<u8> {
    let record = queued(world).await;
    let blob = BlobId::from_slice(&record.blob).unwrap();
    let stored = world.services.blobs.read_to_vec(blob, record.skip..u64::MAX, 1 << 20).await;
    [record.prepend, stored.unwrap()].concat()
}

#[tokio::test]
async fn what_users_send_is_signed_in_front_of_what_is_stored() {
    let world = World::new().await;
    let zone = give_keys(&world, "example.org").await;
    let mut client = world.connect(Protocol::Submission).await;
    client.log_in("alice@example.org").await;
    let message = "From: Alice <alice@example.org>\r\nSubject: x\r\n\r\nOne  line\r\n..\r\n\r\n";
    let to = ["x@remote.example", "bob@example.org"];
    client.deliver("alice@example.org", &to, message, "250").await;
    let own = &world.inbox(world.bob).await[0];
    assert!(!own.contains("DKIM-Signature"), "{own}");

    let sent = sent(&world).await;
    let text = String::from_utf8_lossy(&sent);
    assert_eq!(fields(&text)[..3], ["DKIM-Signature", "DKIM-Signature", "Received"]);
    let judge = Judge::new(&world.env, dns::Resolver::fixed(zone), "mx.remote.example");
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let connection = judge.judge_connection(peer, "mx.example.org").await;
    let sender = judge.judge_sender(&connection, "alice@example.org").await;
    let digest = Digester::whole(Purpose::Judge, &sent);
    let verdicts = judge.judge_message(&sender, &digest).await;
    let results: Vec<_> = verdicts.dkim.iter().map(|verdict| verdict.result).collect();
    assert_eq!(results, [DkimResult::Pass, DkimResult::Pass]);
}

#[tokio::test]
async fn whose_addresses_senders_become_is_heard_of() {
    let world = World::new().await;
    world.list("fwd", ListKind::Alias, &["x@remote.example"]).await;
    world.services.settings.send_modify(|held| {
        std::sync::Arc::make_mut(held).set("srs.domain", "fwd.example.net").unwrap();
    });
    let mut client = world.connect(Protocol::Smtp).await;
    let message = "From: Eve <eve@other.example>\r\n\r\nhello\r\n";
    client.deliver("eve@other.example", &["fwd@example.org"], message, "250").await;
    let sender = queued(&world).await.sender;
    assert!(sender.starts_with("SRS0=") && sender.ends_with("@fwd.example.net"), "{sender}");
}

#[tokio::test]
async fn a_header_says_that_tls_is_optional() {
    for (field, expected) in [
        ("TLS-Required: No\r\n", true),
        ("tls-required:\r\n no\r\n", true),
        ("TLS-Required: Yes\r\n", false),
        ("", false),
    ] {
        let world = World::new().await;
        let mut client = world.connect(Protocol::Submission).await;
        client.log_in("alice@example.org").await;
        let message = format!("From: <alice@example.org>\r\n{field}\r\nTLS-Required: No\r\n");
        client.deliver("alice@example.org", &["x@remote.example"], &message, "250").await;
        let record = queued(&world).await;
        assert_eq!((record.require_tls, record.tls_optional), (false, expected), "{field:?}");
    }
}

#[tokio::test]
async fn mail_from_elsewhere_is_not_signed_and_its_forward_has_our_sender() {
    let world = World::new().await;
    give_keys(&world, "example.org").await;
    world.list("fwd", ListKind::Alias, &["x@remote.example", "alice@example.org"]).await;
    let mut client = world.connect(Protocol::Smtp).await;
    let message = "From: Eve <alice@example.org>\r\n\r\nhello\r\n";
    client.deliver("eve@other.example", &["fwd@example.org"], message, "250").await;
    let record = queued(&world).await;
    assert!(record.prepend.is_empty());
    assert!(record.sender.starts_with("SRS0="), "{}", record.sender);
    assert!(record.sender.ends_with("=other.example=eve@example.org"), "{}", record.sender);
    let own = &world.inbox(world.alice).await[0];
    assert!(own.starts_with("Return-Path: <eve@other.example>\r\n"), "{own}");

    // Only bounces go back, and only to who it was.
    let back = &record.sender;
    client.say("MAIL FROM:<eve@other.example>", "250").await;
    client.say(&format!("RCPT TO:<{back}>"), "550").await;
    client.say("RSET", "250").await;
    client.say("MAIL FROM:<>", "250").await;
    client.say(&format!("RCPT TO:<{}>", back.replace("=eve@", "=bob@")), "550").await;
    client.say("RCPT TO:<x@remote.example>", "550 5.7.1").await;
    client.say(&format!("RCPT TO:<{back}>"), "250").await;
    client.say("DATA", "354").await;
    client.say("Subject: bounce\r\n\r\nhello\r\n.", "250").await;
    let rows = world.rows(Subspace::Submission).await;
    let records = rows.iter().map(|row| SubmissionRecord::decode(&row.value[..]).unwrap());
    assert_eq!(records.filter(|record| record.sender.is_empty()).count(), 1);
    let items = world.rows(Subspace::Work).await;
    let addresses: Vec<String> = items
        .iter()
        .filter_map(|row| OutboundItem::decode(&row.value[..]).ok())
        .flat_map(|item| item.recipients)
        .map(|recipient| recipient.address)
        .collect();
    assert!(addresses.contains(&"eve@other.example".to_owned()), "{addresses:?}");
}
