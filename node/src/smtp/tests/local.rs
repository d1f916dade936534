//! Mail from other servers, and LMTP.

use std::io::Write;

use kv::{Probability, Subspace};

use super::*;

const MESSAGE: &str = "Subject: hello\r\nFrom: x@remote.example\r\n\r\nThe text";

#[tokio::test]
async fn a_message_lands_in_the_inbox_with_its_trace() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    let message = format!("Return-Path: <fake@x>\r\n{MESSAGE}");
    let reply =
        client.deliver("X@Remote.Example", &["Alice@EXAMPLE.org"], &message, "250 2.0.0").await;
    let texts = world.inbox(world.alice).await;
    let [text] = &texts[..] else { panic!("{texts:?}") };
    assert_eq!(
        fields(text),
        ["Return-Path", "Received", "Authentication-Results", "Subject", "From"]
    );
    assert!(text.starts_with("Return-Path: <X@remote.example>\r\nReceived: from client.example\r\n\t([192.0.2.1])\r\n\tby mx.example.org\r\n\twith ESMTP id "), "{text}");
    assert!(text.contains("\r\n\tfor <Alice@example.org>;\r\n\t"), "{text}");
    assert!(text.ends_with("\r\n\r\nThe text\r\n"));
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    assert!(text.contains(&format!(" id {id}\r\n")), "{reply:?} {text}");
    client.say("QUIT", "221").await;
    client.expect_end().await;
    world.check_counters().await;
}

#[tokio::test]
async fn names_lead_to_accounts() {
    let world = World::new().await;
    world.list("info", ListKind::Alias, &["alice@example.org"]).await;
    world.list("team", ListKind::Group, &["alice@example.org", "bob@example.org"]).await;
    let mut client = world.connect(Protocol::Smtp).await;
    for (recipients, alice, bob) in [
        (&["alice+tag@example.org"][..], 1, 0),
        (&["info@example.org"], 1, 0),
        (&["team@example.org"], 1, 1),
        // One copy an account, whichever ways lead there.
        (&["alice@example.org", "info@example.org", "team@example.org"], 1, 1),
    ] {
        let before = (world.inbox(world.alice).await.len(), world.inbox(world.bob).await.len());
        client.deliver("x@remote.example", recipients, MESSAGE, "250").await;
        let after = (world.inbox(world.alice).await.len(), world.inbox(world.bob).await.len());
        assert_eq!((after.0 - before.0, after.1 - before.1), (alice, bob), "{recipients:?}");
    }
    // Several recipients read one header: it names none of them.
    assert!(!world.inbox(world.bob).await[1].contains("\tfor "));
    client.say("MAIL FROM:<x@remote.example>", "250").await;
    client.say("RCPT TO:<nobody@example.org>", "550 5.1.1").await;
    client.say("RCPT TO:<\"alice x\"@example.org>", "550 5.1.1").await;
    client.say("RCPT TO:<alice@elsewhere.example>", "550 5.7.1").await;
    client.say("RCPT TO:<alice@[192.0.2.9]>", "550 5.7.1").await;
    client.say("DATA", "503").await;
    client.say("RSET", "250").await;
    world.catch_all("bob@example.org").await;
    client.deliver("x@remote.example", &["nobody@example.org"], MESSAGE, "250").await;
    assert_eq!(world.inbox(world.bob).await.len(), 3);
    world.check_counters().await;
}

#[tokio::test]
async fn postmaster_always_reaches_somebody() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.say("MAIL FROM:<>", "250").await;
    client.say("RCPT TO:<Postmaster>", "550 5.1.1").await;
    client.say("RSET", "250").await;
    world.list("postmaster", ListKind::Alias, &["bob@example.org"]).await;
    let now = world.env.wall();
    let db = &world.services.db;
    db.run(|tx| async move { directory::add_domain(&tx, "second.example", now).await })
        .await
        .unwrap();
    for recipient in [
        "Postmaster",
        "postmaster@example.org",
        "postmaster@mx.example.org",
        "postmaster@second.example",
    ] {
        client.deliver("", &[recipient], MESSAGE, "250").await;
    }
    assert_eq!(world.inbox(world.bob).await.len(), 4);
    client.say("MAIL FROM:<>", "250").await;
    client.say("RCPT TO:<postmaster@elsewhere.example>", "550 5.7.1").await;
}

#[tokio::test]
async fn a_forward_of_our_users_goes_to_the_queue() {
    let world = World::new().await;
    let members = ["alice@example.org", "friend@remote.example"];
    world.list("fan", ListKind::Alias, &members).await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.deliver("x@remote.example", &["fan@example.org"], MESSAGE, "250").await;
    assert_eq!(world.inbox(world.alice).await.len(), 1);
    let rows = world.rows(Subspace::Submission).await;
    let [row] = &rows[..] else { panic!("{}", rows.len()) };
    let record: crate::deliver::outbound::SubmissionRecord =
        prost::Message::decode(&row.value[..]).unwrap();
    // Its bounces come here first, and find back.
    assert!(record.sender.ends_with("=remote.example=x@example.org"), "{}", record.sender);
    assert_eq!(record.account, 0);
}

#[tokio::test]
async fn a_full_mailbox_is_told_at_rcpt() {
    let world = World::new().await;
    let small = world.account("small", 2_000).await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.say("MAIL FROM:<x@remote.example> SIZE=2001", "250").await;
    client.say("RCPT TO:<small@example.org>", "552 5.2.2").await;
    client.say("RCPT TO:<alice@example.org>", "250").await;
    client.say("RSET", "250").await;
    let body = format!("{MESSAGE}{}", "x".repeat(1000));
    client.deliver("x@remote.example", &["small@example.org"], &body, "250").await;
    client.say("MAIL FROM:<x@remote.example> SIZE=1000", "250").await;
    client.say("RCPT TO:<small@example.org>", "452 4.2.2").await;
    client.say("RSET", "250").await;
    // Nobody knew the size before; nobody else gets it: the client hears it at the end.
    client.deliver("x@remote.example", &["small@example.org"], &body, "452 4.2.2").await;
    let large = format!("{MESSAGE}{}", "x".repeat(2000));
    client.deliver("x@remote.example", &["small@example.org"], &large, "552 5.2.2").await;
    assert_eq!(world.inbox(small).await.len(), 1);
}

#[tokio::test]
async fn who_fails_among_others_is_reported_to_the_sender() {
    let world = World::new().await;
    let small = world.account("small", 100).await;
    let mut client = world.connect(Protocol::Smtp).await;
    let both = ["small@example.org", "alice@example.org"];
    client.deliver("bob@example.org", &both, MESSAGE, "250").await;
    assert_eq!(world.inbox(world.alice).await.len(), 1);
    assert_eq!(world.inbox(small).await.len(), 0);
    let reports = world.inbox(world.bob).await;
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.contains("Final-Recipient: rfc822; small@example.org\r\n"), "{report}");
    assert!(report.contains("Status: 5.2.2\r\n") && report.contains("Subject: hello\r\n"));

    // Elsewhere it goes through the queue, from the null sender.
    client.deliver("x@remote.example", &both, MESSAGE, "250").await;
    assert_eq!(world.rows(Subspace::Submission).await.len(), 1);
    // RFC 3461 §4.1: not to those who asked for silence; RFC 5321 §4.5.5: not to nobody.
    client.say("MAIL FROM:<x@remote.example>", "250").await;
    client.say("RCPT TO:<small@example.org> NOTIFY=NEVER", "250").await;
    client.say("RCPT TO:<alice@example.org>", "250").await;
    client.say("DATA", "354").await;
    client.say(&format!("{MESSAGE}\r\n."), "250").await;
    client.deliver("", &both, MESSAGE, "250").await;
    assert_eq!(world.rows(Subspace::Submission).await.len(), 1);
    assert_eq!(world.inbox(world.alice).await.len(), 4);
}

#[tokio::test]
async fn a_success_is_reported_where_it_is_asked_for() {
    let world = World::new().await;
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let mut client = world.connect(protocol).await;
        client.say("MAIL FROM:<bob@example.org> ENVID=Q1", "250").await;
        client.say("RCPT TO:<alice@example.org> NOTIFY=SUCCESS,FAILURE", "250").await;
        client.say("DATA", "354").await;
        client.say(&format!("{MESSAGE}\r\n."), "250").await;
    }
    assert_eq!(world.inbox(world.alice).await.len(), 2);
    let reports = world.inbox(world.bob).await;
    assert_eq!(reports.len(), 2, "one for each message");
    assert!(reports[0].contains("Action: delivered\r\nStatus: 2.0.0\r\n"), "{}", reports[0]);
    assert!(reports[0].contains("Original-Envelope-Id: Q1\r\n"));
}

#[tokio::test]
async fn lmtp_answers_for_each_recipient() {
    let world = World::new().await;
    let small = world.account("small", 100).await;
    world.list("mixed", ListKind::Group, &["small@example.org", "bob@example.org"]).await;
    let mut client = world.connect(Protocol::Lmtp).await;
    let recipients =
        ["alice@example.org", "small@example.org", "bob@example.org", "mixed@example.org"];
    client.envelope("x@remote.example", &recipients).await;
    client.say("RCPT TO:<alice@elsewhere.example>", "550 5.7.1").await;
    client.say("DATA", "354").await;
    client.say(&format!("{MESSAGE}\r\n."), "250").await;
    client.expect_reply("552 5.2.2").await;
    client.expect_reply("250").await;
    client.expect_reply("552 5.2.2").await;
    assert_eq!(world.inbox(world.alice).await.len(), 1);
    assert_eq!(world.inbox(world.bob).await.len(), 1);
    assert_eq!(world.inbox(small).await.len(), 0);
    assert!(world.inbox(world.bob).await[0].contains("\r\n\twith LMTP id "));
    assert!(world.rows(Subspace::Submission).await.is_empty(), "LMTP's client reports");
}

#[tokio::test]
async fn one_transaction_delivers_and_few_keys() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.deliver("x@remote.example", &["alice@example.org"], MESSAGE, "250").await;
    for (recipients, count) in
        [(&["alice@example.org"][..], 1), (&["alice@example.org", "bob@example.org"], 2)]
    {
        let message = format!("Message-ID: <m{count}@remote.example>\r\n{MESSAGE}");
        client.envelope("x@remote.example", recipients).await;
        client.say("DATA", "354").await;
        let (before, blobs) = (world.counts(), world.services.blobs.counts());
        client.say(&format!("{message}\r\n."), "250").await;
        let cost = world.counts() - before;
        let after = world.services.blobs.counts();
        assert_eq!((after.puts - blobs.puts, after.reads - blobs.reads), (1, 0));
        // Past the test runner's capture: the count is to be seen.
        let _told = writeln!(
            std::io::stderr(),
            "delivery to {count}: {} transaction, {} keys written, {} cleared",
            cost.transactions_committed,
            cost.keys_written,
            cost.keys_cleared
        );
        assert_eq!((cost.transactions_committed, cost.transactions_read_only), (1, 0));
        assert!(cost.keys_written + cost.keys_cleared <= 20 * count, "{cost:?}");
        assert!(cost.keys_written > 5 * count, "{cost:?}");
    }
}

#[tokio::test]
async fn a_group_larger_than_a_transaction_is_served_whole() {
    let world = World::new().await;
    let mut members = Vec::new();
    for number in 0..120 {
        let quota = if number % 2 == 0 { 100 } else { 0 };
        members.push((
            world.account(&format!("m{number}"), quota).await,
            format!("m{number}@example.org"),
        ));
    }
    let names: Vec<_> = members.iter().map(|(_, name)| name.as_str()).collect();
    world.list("all", ListKind::Group, &names).await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.deliver("bob@example.org", &["all@example.org"], MESSAGE, "250").await;
    for (number, (account, _)) in members.iter().enumerate() {
        assert_eq!(world.inbox(*account).await.len(), number % 2, "{number}");
    }
    let reports = world.inbox(world.bob).await;
    assert_eq!(reports.len(), 2, "one for each transaction");
    assert!(reports.iter().all(|report| report.contains("rfc822; all@example.org\r\n")));
}

#[tokio::test]
async fn a_large_message_streams() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.envelope("x@remote.example", &["alice@example.org"]).await;
    client.say("DATA", "354").await;
    client.send(b"Subject: large\r\n\r\n").await;
    let line = format!("{}\r\n", "x".repeat(76));
    let block = line.repeat(1024);
    let blocks = 10 * 1024 * 1024 / block.len() + 1;
    for _ in 0..blocks {
        client.send(block.as_bytes()).await;
    }
    client.say(".", "250").await;
    let texts = world.inbox(world.alice).await;
    assert_eq!(texts[0].matches(&line).count(), blocks * 1024);
    assert!(texts[0].len() > 10 * 1024 * 1024);
    // The same again, cut off: nobody gets it.
    client.envelope("x@remote.example", &["alice@example.org"]).await;
    client.say("DATA", "354").await;
    for _ in 0..blocks {
        client.send(block.as_bytes()).await;
    }
    let Client { stream, serving, .. } = client;
    drop(stream);
    serving.await.unwrap();
    assert_eq!(world.inbox(world.alice).await.len(), 1);
}

#[tokio::test]
async fn chunks_and_binary_content_arrive_as_they_are() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.say("MAIL FROM:<x@remote.example> BODY=BINARYMIME", "250").await;
    client.say("RCPT TO:<alice@example.org>", "250").await;
    client.send(b"BDAT 15\r\nSubject: a\r\n\r\nxBDAT 7 LAST\r\n\0\n\r.\r\ny").await;
    client.expect_reply("250").await;
    client.expect_reply("250").await;
    let texts = world.inbox(world.alice).await;
    assert!(texts[0].ends_with("Subject: a\r\n\r\nx\0\n\r.\r\ny"), "{texts:?}");
    // What others would see as a field of its own is none to us.
    client.say("MAIL FROM:<x@remote.example> BODY=BINARYMIME", "250").await;
    client.say("RCPT TO:<alice@example.org>", "250").await;
    client.send(b"BDAT 20 LAST\r\nSubject: a\rFrom: b\r\n").await;
    client.expect_reply("554 5.6.0").await;
}

#[tokio::test]
async fn what_cannot_be_mail_is_refused() {
    let world = World::with(Faults::default(), |config| {
        config.limits.message_bytes_max = 1 << 20;
    })
    .await;
    let mut client = world.connect(Protocol::Smtp).await;
    let to = ["alice@example.org"];
    let hops = format!("{}{MESSAGE}", "Received: from x\r\n".repeat(101));
    client.deliver("x@remote.example", &to, &hops, "554 5.4.6").await;
    let header = "A: b\r\n".repeat(50_000);
    client.deliver("x@remote.example", &to, &header, "552 5.3.4").await;
    client.deliver("x@remote.example", &to, &"x\r\n".repeat(400_000), "552 5.3.4").await;
    client.deliver("x@remote.example", &to, "Subject: a\n\r\n", "550 5.6.11").await;
    assert!(world.inbox(world.alice).await.is_empty());
    // Text alone is a message without a header.
    client.deliver("x@remote.example", &to, "Hello: Alice\r\nhow are you?", "250").await;
    assert!(world.inbox(world.alice).await[0].ends_with("Hello: Alice\r\n\r\nhow are you?\r\n"));
}

#[tokio::test]
async fn an_acknowledged_message_is_there_once_whatever_the_commits_say() {
    let faults = Faults {
        commit_unknown: Probability::per_million(300_000),
        conflict: Probability::per_million(100_000),
        ..Faults::default()
    };
    let world = World::with(faults, |_| {}).await;
    let mut client = world.connect(Protocol::Smtp).await;
    let mut acknowledged = 0;
    for number in 0..60 {
        client.envelope("x@remote.example", &["alice@example.org", "bob@example.org"]).await;
        client.say("DATA", "354").await;
        client.say(&format!("Subject: n\r\n\r\nnumber {number}\r\n."), "250").await;
        acknowledged += 1;
    }
    let counts = world.counts();
    assert!(counts.commit_unknown > 5 && counts.conflicts > 0, "{counts:?}");
    world.services.db.faults().clear();
    for account in [world.alice, world.bob] {
        let texts = world.inbox(account).await;
        assert_eq!((texts.len(), distinct(&texts).len()), (acknowledged, acknowledged));
    }
    world.check_counters().await;
}

#[tokio::test]
async fn a_store_that_is_away_acknowledges_nothing() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.envelope("x@remote.example", &["alice@example.org"]).await;
    client.say("DATA", "354").await;
    // No read succeeds until the retries' time is over.
    world.services.db.faults().update(|faults| faults.too_old = Probability::ALWAYS);
    client.send(format!("{MESSAGE}\r\n.\r\n").as_bytes()).await;
    client.expect_reply("451 4.3.0").await;
    world.services.db.faults().clear();
    assert!(world.inbox(world.alice).await.is_empty());
    client.deliver("x@remote.example", &["alice@example.org"], MESSAGE, "250").await;
}
