//! Mail of which domains say where it may be from.

use std::sync::Arc;

use dns::Zone;
use mail::Role;
use origin::{
    Digester, DkimKey, Purpose, Signer, SigningKey,
    reports::{Report, ReportKind},
};
use prost::Message;

use super::*;
use crate::{
    deliver::outbound::SubmissionRecord,
    judging::tell::{Teller, Walked},
};

const MESSAGE: &str = "From: ann@remote.example\r\nSubject: hello\r\n\r\nThe text\r\n";

/// A world that knows `remote.example`, which sends from the client's address and signs.
async fn world() -> (World, Zone, Signer) {
    let zone = Zone::new();
    zone.txt("remote.example", "v=spf1 ip4:192.0.2.1 -all")
        .txt("stranger.example", "v=spf1 -all")
        .txt("_dmarc.remote.example", "v=DMARC1; p=reject; rua=mailto:r@remote.example")
        .txt("_dmarc.stranger.example", "v=DMARC1; p=reject; rua=mailto:r@stranger.example")
        .ptr(PEER, "client.example")
        .address("client.example", PEER);
    let key = SigningKey::generate_ed25519(&Env::system());
    zone.txt("s._domainkey.remote.example", key.record());
    let keys = vec![DkimKey { selector: "s".to_owned(), key }];
    let names = zone.clone();
    let world = World::with(Faults::default(), |config| config.names = Names::Given(names)).await;
    (world, zone, Signer::new("remote.example", keys))
}

fn signed(signer: &Signer, message: &str) -> String {
    let digest = Digester::whole(Purpose::Sign, message.as_bytes());
    let fields = signer.sign(&digest, Env::system().wall()).unwrap();
    format!("{fields}{message}")
}

impl World {
    fn set(&self, name: &str, value: &str) {
        self.services.settings.send_modify(|held| {
            Arc::make_mut(held).set(name, value).unwrap();
        });
    }

    /// Messages in the mailbox of a role.
    async fn in_role(&self, account: AccountId, role: Role) -> u64 {
        self.services
            .db
            .run(|tx| async move {
                let tree = mail::mailbox_tree(&tx, account).await?;
                let mailbox = tree.by_role(role).unwrap().id;
                Ok::<_, StoreError>(mail::mailbox_counts(&tx, account, mailbox).await?.messages)
            })
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn what_is_found_stands_below_the_trace_and_forgeries_are_gone() {
    let (world, _, signer) = world().await;
    let mut client = world.connect(Protocol::Smtp).await;
    // Another node's name is as good as ours, and nobody can tell which names nodes have.
    let forged = "Authentication-Results: mx2.example.org; dmarc=pass (forged)\r\n";
    let ours = "authentication-results : mx.example.org; dmarc=pass\r\n\t(forged)\r\n";
    let message = format!("{forged}{ours}{}", signed(&signer, MESSAGE));
    client.deliver("ann@remote.example", &["alice@example.org"], &message, "250").await;
    let texts = world.inbox(world.alice).await;
    assert!(!texts[0].contains("forged"), "{}", texts[0]);
    assert_eq!(
        fields(&texts[0]),
        ["Return-Path", "Received", "Authentication-Results", "DKIM-Signature", "From", "Subject"]
    );
    for part in [
        "Authentication-Results: mx.example.org;\r\n\tiprev=pass (client.example)",
        "spf=pass smtp.mailfrom=ann@remote.example;",
        "dkim=pass header.d=remote.example",
        "dmarc=pass header.from=remote.example\r\n",
    ] {
        assert!(texts[0].contains(part), "{part:?} is not in {}", texts[0]);
    }
    let metrics = world.services.metrics.render();
    assert!(metrics.contains("rookery_judging_verdicts_total{method=\"dkim\",result=\"pass\"} 1"));
    assert!(metrics.contains("rookery_judged_messages_total{action=\"mark\"} 1"));
    world.check_counters().await;
}

#[tokio::test]
async fn users_cannot_claim_to_have_been_judged_either() {
    let (world, ..) = world().await;
    let mut client = world.connect(Protocol::Submission).await;
    client.log_in("alice@example.org").await;
    for name in ["mx", "mx2"] {
        let message =
            format!("Authentication-Results: {name}.example.org; dmarc=pass\r\n{MESSAGE}");
        client.deliver("alice@example.org", &["bob@example.org"], &message, "250").await;
    }
    let texts = world.inbox(world.bob).await;
    assert!(texts.iter().all(|text| !text.contains("Authentication-Results")), "{texts:?}");
}

#[tokio::test]
async fn what_an_authors_domain_refuses_is_refused_or_junk_as_recipients_want() {
    let (world, ..) = world().await;
    let now = world.env.wall();
    let add = |tx| async move { directory::add_domain(&tx, "example.net", now).await };
    world.services.db.run(add).await.unwrap();
    let (carol, bob) = (address("carol@example.net"), [address("bob@example.org")]);
    let (carol, bob) = (&carol, &bob);
    let add = |tx| async move { directory::add_list(&tx, carol, ListKind::Alias, bob).await };
    world.services.db.run(add).await.unwrap();
    let forged = "From: ceo@stranger.example\r\n\r\nPay\r\n";
    let mut client = world.connect(Protocol::Smtp).await;
    client.deliver("x@y.example", &["alice@example.org"], forged, "550 5.7.26").await;
    // One recipient's domain takes it, so that it cannot be refused.
    world.set("judging.dmarc_reject.example.net", "mark");
    let both = ["alice@example.org", "carol@example.net"];
    client.deliver("x@y.example", &both, forged, "250").await;
    assert_eq!(world.in_role(world.alice, Role::Junk).await, 1);
    assert_eq!(world.in_role(world.alice, Role::Inbox).await, 0);
    let texts = world.inbox(world.bob).await;
    assert!(texts[0].contains("dmarc=fail (p=reject dis=quarantine)"), "{}", texts[0]);
    world.set("judging.dmarc_reject", "mark");
    world.set("judging.spf_fail", "reject");
    client.deliver("x@stranger.example", &["alice@example.org"], forged, "550 5.7.23").await;
    let metrics = world.services.metrics.render();
    assert!(metrics.contains("rookery_judged_messages_total{action=\"reject\"} 2"), "{metrics}");
    world.check_counters().await;
}

/// What leaves here passes SPF in our name, so that a forgery would be found to be ours elsewhere.
#[tokio::test]
async fn what_only_claims_to_be_from_us_is_not_sent_on() {
    let (world, zone, _) = world().await;
    let now = world.env.wall();
    for domain in ["example.net", "example.com"] {
        let add = |tx| async move { directory::add_domain(&tx, domain, now).await };
        world.services.db.run(add).await.unwrap();
    }
    zone.txt("example.org", "v=spf1 -all")
        .txt("_dmarc.example.org", "v=DMARC1; p=none")
        .txt("example.net", "v=spf1 ip4:192.0.2.1 -all")
        .temporary("example.com");
    world.list("fwd", ListKind::Alias, &["x@far.example"]).await;
    world.list("both", ListKind::Alias, &["x@far.example", "alice@example.org"]).await;
    let (fwd, both) = (&["fwd@example.org"], &["both@example.org"]);
    let by = |author: &str| format!("From: {author}\r\n\r\nhello\r\n");
    let senders = || async {
        let rows = world.rows(kv::Subspace::Submission).await;
        let records = rows.iter().map(|row| SubmissionRecord::decode(&row.value[..]).unwrap());
        let mut senders: Vec<String> = records.map(|record| record.sender).collect();
        senders.sort();
        senders
    };
    let mut client = world.connect(Protocol::Smtp).await;
    let (ann, theirs) = ("ann@remote.example", by("x@none.example"));
    client.deliver("bob@example.org", fwd, &theirs, "550 5.7.1").await;
    client.deliver("bob@example.org", both, &theirs, "550 5.7.1").await;
    client.deliver("bob@example.com", both, &theirs, "451 4.4.3").await;
    for author in ["ceo@example.org", "ceo@hr.example.org"] {
        client.deliver(ann, fwd, &by(author), "550 5.7.1").await;
        client.deliver("", fwd, &by(author), "550 5.7.1").await;
    }
    assert_eq!(senders().await, [""; 0]);
    assert_eq!(world.in_role(world.alice, Role::Inbox).await, 1, "mailboxes here get it");
    let metrics = world.services.metrics.render();
    assert!(metrics.contains("outcome=\"withheld\"} 7"), "{metrics}");

    client.deliver("bob@example.net", both, &theirs, "250").await;
    client.deliver(ann, fwd, &by("ann@remote.example"), "250").await;
    client.deliver(ann, fwd, &theirs, "250").await;
    world.set("judging.trusted_networks", "192.0.2.0/24");
    client.deliver("bob@example.org", fwd, &by("ceo@example.org"), "250").await;
    let senders = senders().await;
    assert!(senders[0].starts_with("SRS0=") && senders[1].starts_with("SRS0="), "{senders:?}");
    assert_eq!(senders[2..], ["bob@example.net", "bob@example.org"]);
}

#[tokio::test]
async fn trusted_clients_are_not_judged() {
    let (world, zone, _) = world().await;
    world.set("judging.trusted_networks", "192.0.2.0/24");
    let mut client = world.connect(Protocol::Smtp).await;
    let ours = "Authentication-Results: mx.example.org; none\r\n";
    let others = "Authentication-Results: gateway.example.org; spf=fail\r\n";
    let forged = format!("{ours}{others}From: ceo@stranger.example\r\n\r\nPay\r\n");
    client.deliver("x@stranger.example", &["alice@example.org"], &forged, "250").await;
    let texts = world.inbox(world.alice).await;
    assert!(!texts[0].contains(ours) && texts[0].contains(others), "{}", texts[0]);
    assert_eq!(zone.lookups(), 0);
}

#[tokio::test]
async fn nobody_is_looked_up_for_who_only_tries_addresses() {
    let (world, zone, _) = world().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.say("MAIL FROM:<x@stranger.example>", "250").await;
    client.say("RCPT TO:<nobody@example.org>", "550").await;
    client.say("QUIT", "221").await;
    client.expect_end().await;
    assert_eq!(zone.lookups(), 0);
}

/// A message that is larger than what is held.
fn large() -> String {
    let line = "All work and no play makes Jack a dull boy.\r\n";
    format!("{MESSAGE}{}", line.repeat(3 * crate::limits::JUDGED_HELD_BYTES_MAX / line.len()))
}

#[tokio::test]
async fn a_large_message_is_written_once_where_its_signatures_are_right() {
    let (world, _, signer) = world().await;
    let mut client = world.connect(Protocol::Smtp).await;
    let message = signed(&signer, &large());
    let before = world.services.blobs.counts();
    client.deliver("ann@remote.example", &["alice@example.org"], &message, "250").await;
    let after = world.services.blobs.counts();
    assert_eq!((after.puts - before.puts, after.reads - before.reads), (1, 0));
    let texts = world.inbox(world.alice).await;
    assert!(texts[0].contains("dkim=pass") && texts[0].contains(&message), "{}", &texts[0][..900]);

    // The header is right and the end is not: known only when its top has been written.
    let changed = format!("{message}One more line\r\n");
    let before = world.services.blobs.counts();
    client.deliver("ann@remote.example", &["alice@example.org"], &changed, "250").await;
    let after = world.services.blobs.counts();
    assert_eq!((after.puts - before.puts, after.reads - before.reads), (2, 1));
    let texts = world.inbox(world.alice).await;
    assert!(texts[1].contains("dkim=fail") && texts[1].contains(&changed), "{}", &texts[1][..900]);
    assert!(!texts[1].contains("dkim=pass"));
    assert_eq!(fields(&texts[1])[..3], ["Return-Path", "Received", "Authentication-Results"]);
}

#[tokio::test]
async fn a_large_message_whose_body_was_changed_is_refused_in_the_end() {
    let (world, _, signer) = world().await;
    let mut client = world.connect(Protocol::Smtp).await;
    let changed = format!("{}One more line\r\n", signed(&signer, &large()));
    // Not from where its domain sends: only the signature could have saved it.
    client.deliver("x@y.example", &["alice@example.org"], &changed, "550 5.7.26").await;
    assert!(world.inbox(world.alice).await.is_empty());
    // Without one it is refused as soon as its header has been seen, and the session goes on.
    let unsigned = large();
    client.deliver("x@y.example", &["alice@example.org"], &unsigned, "550 5.7.26").await;
    client.deliver("ann@remote.example", &["alice@example.org"], MESSAGE, "250").await;
}

#[tokio::test]
async fn a_header_that_is_larger_than_what_is_held_is_judged_as_well() {
    let (world, ..) = world().await;
    let mut client = world.connect(Protocol::Smtp).await;
    let field = format!("X-Filler: {}\r\n", "x".repeat(60));
    let most = crate::limits::HEADER_BYTES_MAX - 500;
    let mut taken = 0;
    for size in [crate::limits::JUDGED_HELD_BYTES_MAX + 1, most] {
        let header = field.repeat(size / field.len());
        // No blank line, one at the end, one that another follows, and text that ends the header.
        for end in ["From: ann@remote.example", "\r\n", "\r\n\r\n", "no field\r\n", "\r\ntext"] {
            let message = format!("From: ann@remote.example\r\n{header}{end}");
            client.deliver("ann@remote.example", &["alice@example.org"], &message, "250").await;
            taken += 1;
            let texts = world.inbox(world.alice).await;
            assert_eq!(texts.len(), taken, "{size} {end:?}");
            assert!(texts[taken - 1].contains("spf=pass smtp.mailfrom"), "{size} {end:?}");
        }
    }
}

#[tokio::test]
async fn what_is_sent_on_is_sealed_where_there_is_a_key() {
    let (world, zone, _) = world().await;
    world.list("away", ListKind::Alias, &["alice@elsewhere.example", "bob@example.org"]).await;
    signing::give_keys_and_tell(&world, "example.org", &zone).await;
    let mut client = world.connect(Protocol::Smtp).await;
    for message in [MESSAGE.to_owned(), large()] {
        client.deliver("ann@remote.example", &["away@example.org"], &message, "250").await;
    }
    let texts = world.inbox(world.bob).await;
    for text in &texts {
        let names = fields(text);
        let seals = ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"];
        assert_eq!(names[2..5], seals);
        assert_eq!(names[5], "Authentication-Results");
        let judge = crate::judging::judge(&world.services);
        let digest = Digester::whole(Purpose::Judge, text.as_bytes());
        let found = judge.judge_message(&origin::SpfVerdict::default(), &digest).await;
        assert_eq!(found.arc.result, origin::ArcResult::Pass, "{:?}", found.arc);
        assert!(found.arc.sets[0].results.contains("spf=pass"), "{:?}", found.arc);
    }
    assert_eq!(world.rows(Subspace::Submission).await.len(), 2);
}

#[tokio::test]
async fn domains_are_told_the_day_after_what_came_in_their_name() {
    let (world, zone, _) = world().await;
    world.list("r", ListKind::Alias, &["bob@example.org"]).await;
    zone.remove("_dmarc.stranger.example").txt(
        "_dmarc.stranger.example",
        "v=DMARC1; p=reject; rua=mailto:r@stranger.example,mailto:r@example.org,\
         mailto:small@stranger.example!10,mailto:unasked@elsewhere.example",
    );
    zone.txt("stranger.example._report._dmarc.example.org", "v=DMARC1");
    let mut client = world.connect(Protocol::Smtp).await;
    let forged = "From: ceo@stranger.example\r\n\r\nPay\r\n";
    for _ in 0..3 {
        client.deliver("x@y.example", &["alice@example.org"], forged, "550 5.7.26").await;
    }
    world.services.seen.flush().await;
    let teller = Teller::new(&world.services);
    let now = world.env.wall();
    // The day is not over.
    let (due, walked) = teller.walk(Walked::default(), now).await.unwrap();
    assert!(due > now && world.rows(Subspace::Submission).await.is_empty());
    let tomorrow = env::Timestamp::from_unix_seconds(now.unix_seconds() + 86_400 + 3_600);
    for _ in 0..2 {
        teller.walk(walked.clone(), tomorrow).await.unwrap();
    }
    // One is ours, one is elsewhere; one takes no report of this size, and one has not asked.
    let submissions = world.rows(Subspace::Submission).await;
    assert_eq!(submissions.len(), 1);
    let record = SubmissionRecord::decode(&submissions[0].value[..]).unwrap();
    assert_eq!(record.sender, "postmaster@mx.example.org");
    let texts = world.inbox(world.bob).await;
    let [text] = &texts[..] else { panic!("{texts:?}") };
    assert!(text.starts_with("Return-Path: <postmaster@mx.example.org>\r\n"), "{text}");
    assert!(text.contains("Subject: Report Domain: stranger.example\r\n Submitter: "), "{text}");
    let encoded = text.split("base64\r\n\r\n").nth(1).unwrap();
    let encoded: String = encoded.split("--").next().unwrap().split_whitespace().collect();
    let packed = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.decode(encoded).unwrap()
    };
    let kind = ReportKind::of("application/gzip", Some("a.xml.gz")).unwrap();
    let Report::Aggregate(report) = kind.parse(&packed).unwrap() else { panic!("{text}") };
    assert_eq!((report.rows.len(), report.rows[0].count), (1, 3));
    assert_eq!(report.rows[0].disposition, origin::Policy::Reject);
    assert_eq!(report.policy.domain, "stranger.example");
    assert!(report.metadata.end.unix_seconds() - report.metadata.begin.unix_seconds() == 86_399);
    let metrics = world.services.metrics.render();
    assert!(metrics.contains("rookery_dmarc_reports_total{outcome=\"sent\"} 1"), "{metrics}");
    world.check_counters().await;
}

/// What two nodes have seen is one report a domain, whichever of them tells, and both do at once.
#[tokio::test]
async fn two_nodes_tell_each_domain_once() {
    let (world, zone, _) = world().await;
    let another = world.another().await;
    for number in 0..5 {
        let domain = format!("many{number}.example");
        zone.txt(&format!("_dmarc.{domain}"), format!("v=DMARC1; p=none; rua=mailto:r@{domain}"));
        for node in [&world, &another] {
            let message = format!("From: x@{domain}\r\n\r\nhello\r\n");
            let mut client = node.connect(Protocol::Smtp).await;
            client.deliver("x@y.example", &["alice@example.org"], &message, "250").await;
        }
    }
    for node in [&world, &another] {
        node.services.seen.flush().await;
    }
    let now = world.env.wall();
    let tomorrow = env::Timestamp::from_unix_seconds(now.unix_seconds() + 86_400 + 3_600);
    let (one, other) = (Teller::new(&world.services), Teller::new(&another.services));
    let (first, second) = tokio::join!(
        one.walk(Walked::default(), tomorrow),
        other.walk(Walked::default(), tomorrow)
    );
    first.unwrap();
    second.unwrap();
    let mut told = Vec::new();
    for row in world.rows(Subspace::Submission).await {
        let record = SubmissionRecord::decode(&row.value[..]).unwrap();
        let blob = BlobId::from_slice(&record.blob).unwrap();
        let text = world.services.blobs.read_to_vec(blob, 0..u64::MAX, 1 << 20).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let (_, encoded) = text.split_once("base64\r\n\r\n").unwrap();
        let encoded: String = encoded.split("--").next().unwrap().split_whitespace().collect();
        use base64::{Engine, engine::general_purpose::STANDARD};
        let kind = ReportKind::of("application/gzip", Some("a.xml.gz")).unwrap();
        let Report::Aggregate(report) = kind.parse(&STANDARD.decode(encoded).unwrap()).unwrap()
        else {
            panic!("{text}")
        };
        told.push((report.policy.domain.clone(), report.rows.iter().map(|row| row.count).sum()));
    }
    told.sort();
    let expected: Vec<(String, u64)> =
        (0..5).map(|number| (format!("many{number}.example"), 2)).collect();
    assert_eq!(told, expected);
    assert!(world.rows(Subspace::DmarcSeen).await.len() <= 12, "what is told is cleared");
}

#[tokio::test]
async fn domains_whose_servers_are_slow_do_not_hold_the_others_up() {
    let (world, zone, _) = world().await;
    let most = crate::limits::DMARC_DOMAINS_AT_ONCE;
    let mut client = world.connect(Protocol::Smtp).await;
    // They come before `stranger.example`, and asked one by one they would take more than a turn.
    for number in 0..=most {
        let domain = format!("a{number}.example");
        let record = format!("v=DMARC1; p=none; rua=mailto:r@b{number}.example");
        let asked = format!("{domain}._report._dmarc.b{number}.example");
        zone.txt(&format!("_dmarc.{domain}"), record).temporary(&asked).slow(
            &world.env,
            &asked,
            crate::limits::DMARC_REPORTS_TURN / 16,
        );
        let message = format!("From: x@{domain}\r\n\r\nhello\r\n");
        client.deliver("x@y.example", &["alice@example.org"], &message, "250").await;
    }
    let forged = "From: ceo@stranger.example\r\n\r\nPay\r\n";
    client.deliver("x@y.example", &["alice@example.org"], forged, "550 5.7.26").await;
    world.services.seen.flush().await;
    let teller = Teller::new(&world.services);
    let day = 86_400;
    let later = |days: i64| {
        let now = world.env.wall().unix_seconds();
        env::Timestamp::from_unix_seconds(now + days * day + 3_600)
    };
    teller.walk(Walked::default(), later(1)).await.unwrap();
    assert_eq!(world.rows(Subspace::Submission).await.len(), 1);
    let waiting = world.rows(Subspace::DmarcSeen).await.len();
    assert!(waiting > 3 * most, "{waiting}");
    // What is too old is asked about no more, even where a walk never came to its end.
    let lookups = zone.lookups();
    teller.walk(Walked::default(), later(crate::limits::DMARC_SEEN_DAYS + 1)).await.unwrap();
    assert!(world.rows(Subspace::DmarcSeen).await.is_empty());
    assert_eq!(zone.lookups(), lookups);
}
