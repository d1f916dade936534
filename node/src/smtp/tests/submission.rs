//! Mail from our users.

use cluster::work::{self, Kind};
use kv::Subspace;
use prost::Message;

use super::*;
use crate::deliver::outbound::{OutboundItem, SubmissionRecord};

#[tokio::test]
async fn mail_to_elsewhere_is_queued() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Submission).await;
    client.log_in("alice@example.org").await;
    client.say("MAIL FROM:<alice+x@example.org> RET=HDRS ENVID=a+2Bb", "250").await;
    client.say("RCPT TO:<X.y@Remote.Example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;y@z", "250").await;
    client.say("RCPT TO:<y@remote.example>", "250").await;
    client.say("RCPT TO:<z@other.example>", "250").await;
    client.say("RCPT TO:<bob@example.org>", "250").await;
    client.say("RCPT TO:<nobody@example.org>", "550 5.1.1").await;
    client.say("RCPT TO:<x@[192.0.2.9]>", "550 5.7.1").await;
    client.say("DATA", "354").await;
    let before = world.counts();
    let reply = client.say("From: alice\r\n\r\nText\r\n.", "250 2.0.0").await;
    let cost = world.counts() - before;
    assert_eq!(cost.transactions_committed, 1);

    let texts = world.inbox(world.bob).await;
    assert_eq!(fields(&texts[0]), ["Return-Path", "Received", "From", "Date", "Message-ID"]);
    assert!(texts[0].contains("\r\n\twith ESMTPSA id "), "{}", texts[0]);
    assert!(texts[0].contains("\r\n\t(using TLSv1.3 with cipher TLS_AES_128_GCM_SHA256)"));

    let rows = world.rows(Subspace::Submission).await;
    let [row] = &rows[..] else { panic!("{}", rows.len()) };
    let record = SubmissionRecord::decode(&row.value[..]).unwrap();
    assert_eq!(record.sender, "alice+x@example.org");
    assert_eq!((record.account, record.domains_left), (world.alice.0, 2));
    assert_eq!((record.envelope_id.as_deref(), record.return_content), (Some("a+2Bb"), 2));
    assert_eq!(record.size, texts[0].len() as u64);
    let skip = usize::try_from(record.skip).unwrap();
    assert_eq!(&texts[0][..skip], "Return-Path: <alice+x@example.org>\r\n");
    let blob = BlobId::from_slice(&record.blob).unwrap();
    let stored = world.services.blobs.read_to_vec(blob, 0..u64::MAX, 10_000).await.unwrap();
    assert_eq!(stored, texts[0].as_bytes());

    let id: Vec<u8> = (0..16)
        .map(|at| {
            let hex = reply.trim_end().rsplit(' ').next().unwrap();
            u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()
        })
        .collect();
    let work = world.rows(Subspace::Work).await;
    let key = work::item_key(Kind::Outbound, "remote.example", record.received_ms, &id);
    let item = work.iter().find(|pair| pair.key == key).expect("the queue has it");
    let item = OutboundItem::decode(&item.value[..]).unwrap();
    assert_eq!(item.submission, id);
    let [first, second] = &item.recipients[..] else { panic!("{item:?}") };
    assert_eq!(
        (first.address.as_str(), second.address.as_str()),
        ("X.y@remote.example", "y@remote.example"),
        "the domain's own servers decide whether case matters"
    );
    assert_eq!(first.notify.as_deref(), Some("SUCCESS,FAILURE"));
    assert_eq!((first.original.as_deref(), second.original.as_deref()), (Some("rfc822;y@z"), None));
    // Two items, and for each domain its pointer and the pointer's place.
    assert_eq!(work.len(), 6);
}

#[tokio::test]
async fn only_owned_senders_submit() {
    let world = World::new().await;
    world.list("info", ListKind::Alias, &["alice@example.org"]).await;
    let mut client = world.connect(Protocol::Submission).await;
    client.say("MAIL FROM:<alice@example.org>", "530 5.7.0").await;
    client.log_in("alice@example.org").await;
    for (sender, expected) in [
        ("alice@example.org", "250"),
        ("ALICE+tag@Example.Org", "250"),
        ("info@example.org", "250"),
        ("", "250"),
        ("bob@example.org", "553 5.7.1"),
        ("nobody@example.org", "553 5.7.1"),
        ("alice@remote.example", "553 5.7.1"),
        ("alice@[192.0.2.1]", "553 5.7.1"),
    ] {
        client.say(&format!("MAIL FROM:<{sender}>"), expected).await;
        if expected == "250" {
            client.say("RSET", "250").await;
        }
    }
}

#[tokio::test]
async fn what_a_submission_has_is_kept() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Submission).await;
    client.log_in("alice@example.org").await;
    let message = "Message-ID: <mine@x>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\r\nText";
    client.deliver("alice@example.org", &["bob@example.org"], message, "250").await;
    let texts = world.inbox(world.bob).await;
    assert_eq!(fields(&texts[0]), ["Return-Path", "Received", "Message-ID", "Date"]);
    assert!(texts[0].ends_with(&format!("{message}\r\n")));
}

#[tokio::test]
async fn many_remote_recipients_are_bounded() {
    let world = World::with(Faults::default(), |config| config.limits.recipients_max = 1000).await;
    let mut client = world.connect(Protocol::Submission).await;
    client.log_in("alice@example.org").await;
    client.say("MAIL FROM:<alice@example.org>", "250").await;
    let local = "x".repeat(60);
    let domain = format!("{0}.{0}.{0}.example", "d".repeat(50));
    let mut accepted = 0;
    loop {
        let number = 1000 + accepted;
        client.send(format!("RCPT TO:<{number}{local}@{domain}>\r\n").as_bytes()).await;
        let reply = client.expect_reply("").await;
        if !reply.starts_with("250") {
            assert!(reply.starts_with("452 4.5.3"), "{reply}");
            break;
        }
        accepted += 1;
    }
    assert!((300..500).contains(&accepted), "{accepted}");
    client.say("DATA", "354").await;
    client.say("Subject: a\r\n\r\nb\r\n.", "250").await;
}
