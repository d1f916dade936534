//! Abuse control as a client meets it.

use std::sync::Arc;

use dns::Zone;

use super::*;
use crate::{
    admin::{
        Admin,
        blocks::{self, NewBlock},
    },
    config::Names,
};

const FROM: &str = "x@remote.example";
const MESSAGE: &str = "Subject: hello\r\n\r\nThe text";

impl World {
    /// With names that the zone has.
    async fn knowing(zone: &Zone) -> Self {
        Self::with(Faults::default(), |config| config.names = Names::Given(zone.clone())).await
    }

    fn guarded_by(&self, settings: &[(&str, &str)]) {
        self.services.settings.send_modify(|held| {
            let mut changed = (**held).clone();
            for (name, value) in settings {
                changed.set(name, value).unwrap();
            }
            *held = Arc::new(changed);
        });
    }
}

#[tokio::test]
async fn what_is_off_costs_nothing_and_what_is_on_one_transaction() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    let mut cost = async |settings: &[(&str, &str)]| {
        world.guarded_by(settings);
        let before = world.counts();
        client.deliver(FROM, &["alice@example.org", "bob@example.org"], MESSAGE, "250").await;
        world.counts() - before
    };
    let off = cost(&[]).await;
    let one = cost(&[("guard.rate.address.messages_per_hour", "100")]).await;
    assert_eq!(one.transactions_committed, off.transactions_committed + 1);
    assert_eq!(one.keys_read, off.keys_read + 2);
    assert_eq!(one.transactions_read_only, off.transactions_read_only);
    let two = cost(&[("guard.rate.network.recipients_per_hour", "100")]).await;
    assert_eq!(two.transactions_committed, off.transactions_committed + 1);
    assert_eq!(two.keys_read, off.keys_read + 4);
    let texts = world.inbox(world.alice).await;
    assert!(texts.iter().all(|text| !text.contains("Rookery-Filter")), "{texts:?}");
}

#[tokio::test]
async fn a_stranger_waits_and_whom_spf_passes_does_not() {
    let zone = Zone::new();
    zone.txt("good.example", "v=spf1 ip4:192.0.2.1 -all");
    zone.txt("bad.example", "v=spf1 ip4:192.0.2.2 -all");
    let world = World::knowing(&zone).await;
    world.list("postmaster", ListKind::Alias, &["alice@example.org"]).await;
    world.guarded_by(&[("guard.greylist.mode", "on")]);
    let mut client = world.connect(Protocol::Smtp).await;
    let mut data = async |sender: &str, recipient: &str, expected: &str| {
        client.envelope(sender, &[recipient]).await;
        client.say("DATA", expected).await;
        if expected == "354" {
            client.say(&format!("{MESSAGE}\r\n."), "250").await;
        }
    };
    data("x@good.example", "alice@example.org", "450 4.7.1").await;
    data("", "alice@example.org", "450 4.7.1").await;
    data("", "postmaster@example.org", "354").await;
    world.guarded_by(&[("guard.greylist.spf_pass", "on")]);
    data("x@good.example", "alice@example.org", "354").await;
    data("x@bad.example", "alice@example.org", "450 4.7.1").await;
    data("x@none.example", "alice@example.org", "450 4.7.1").await;
    // Users do not wait, nor does a server of our own.
    let mut client = world.connect(Protocol::Submission).await;
    client.log_in("alice@example.org").await;
    client.deliver("alice@example.org", &["bob@example.org"], MESSAGE, "250").await;
    let mut client = world.connect(Protocol::Lmtp).await;
    client.deliver("x@bad.example", &["bob@example.org"], MESSAGE, "250").await;
}

#[tokio::test]
async fn an_address_without_a_name_scores() {
    let settings = [
        ("guard.weight.no_ptr", "1"),
        ("guard.weight.ptr_unconfirmed", "2"),
        ("guard.weight.ehlo_literal", "4"),
        ("guard.weight.ehlo_ours", "8"),
        ("guard.weight.ehlo_unresolvable", "16"),
    ];
    let unconfirmed = || {
        let zone = Zone::new();
        zone.ptr(PEER, "mx.remote.example");
        zone
    };
    let confirmed = unconfirmed();
    confirmed.address("mx.remote.example", PEER);
    let unknown = Zone::new();
    unknown.temporary("1.2.0.192.in-addr.arpa");
    let half = unconfirmed();
    let other_kind: IpAddr = "2001:db8::1".parse().unwrap();
    half.address("mx.remote.example", other_kind).temporary("mx.remote.example");
    for (zone, greeting, score) in [
        (Zone::new(), "mx.remote.example", 1 + 16),
        (unconfirmed(), "mx.remote.example", 2 + 16),
        (confirmed.clone(), "MX.remote.example", 0),
        (confirmed.clone(), "[192.0.2.1]", 4),
        (confirmed.clone(), "mx.example.org", 8),
        (confirmed.clone(), "localhost", 16),
        // What cannot be found out counts nothing.
        (unknown, "[192.0.2.1]", 4),
        (half, "[192.0.2.1]", 4),
    ] {
        let world = World::knowing(&zone).await;
        world.guarded_by(&settings);
        let mut client = world.connect(Protocol::Smtp).await;
        client.say(&format!("EHLO {greeting}"), "250").await;
        client.deliver(FROM, &["alice@example.org"], MESSAGE, "250").await;
        let texts = world.inbox(world.alice).await;
        let verdict = if score >= 5 { "marked" } else { "pass" };
        let field = format!("\r\nRookery-Filter: {verdict}; score={score}");
        assert!(texts[0].contains(&field), "{greeting}: {field} is not in {}", texts[0]);
    }
}

#[tokio::test]
async fn a_score_defers_or_rejects_all_but_postmasters_and_connections_have_a_limit() {
    let world = World::knowing(&Zone::new()).await;
    world.list("postmaster", ListKind::Alias, &["alice@example.org"]).await;
    world.guarded_by(&[("guard.weight.no_ptr", "5"), ("guard.score.tempfail", "5")]);
    let mut client = world.connect(Protocol::Smtp).await;
    client.say("MAIL FROM:<x@remote.example>", "250").await;
    client.say("RCPT TO:<alice@example.org>", "451 4.7.1").await;
    client.say("RCPT TO:<PostMaster@example.org>", "250").await;
    client.say("RSET", "250").await;
    world.guarded_by(&[("guard.score.reject", "5")]);
    client.say("MAIL FROM:<x@remote.example>", "250").await;
    client.say("RCPT TO:<alice@example.org>", "550 5.7.1").await;
    client.say("RCPT TO:<postmaster>", "250").await;

    world.guarded_by(&[("guard.rate.network.connections_per_hour", "1")]);
    let _first = world.connect(Protocol::Smtp).await;
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let transport = Transport::new(world.env.clone(), Box::new(theirs), PEER);
    let serving = Box::pin(serve(world.services.clone(), transport, Protocol::Smtp));
    let mut second =
        Client { stream: ours, unread: Vec::new(), serving: world.env.spawn("smtp", serving) };
    second.expect_reply("421 4.7.1").await;
    second.expect_end().await;
    // Users connect as they like.
    world.connect(Protocol::Submission).await;
}

#[tokio::test]
async fn who_is_blocked_gets_no_further_on_an_open_connection() {
    let world = World::new().await;
    let _following = world.services.guard.start();
    let mut stranger = world.connect(Protocol::Smtp).await;
    let mut user = world.connect(Protocol::Submission).await;
    let mut lmtp = world.connect(Protocol::Lmtp).await;
    let admin = Admin { db: world.services.db.clone(), env: world.env.clone() };
    let block = NewBlock { network: PEER.to_string(), seconds: None, reason: None };
    blocks::add(&admin, &block, "me").await.unwrap();
    while !world.services.guard.blocks(PEER) {
        world.env.sleep(std::time::Duration::from_millis(5)).await;
    }
    stranger.say("MAIL FROM:<x@remote.example>", "450 4.7.1").await;
    user.say("AUTH PLAIN AGFsaWNlAHBlbmNpbA==", "454 4.7.0").await;
    lmtp.deliver(FROM, &["alice@example.org"], MESSAGE, "250").await;
    world.guarded_by(&[("guard.trusted_networks", "192.0.2.0/24")]);
    stranger.deliver(FROM, &["alice@example.org"], MESSAGE, "250").await;
}

#[tokio::test]
async fn a_users_slips_do_not_count_against_the_address() {
    let world = World::new().await;
    let _counting = world.services.guard.start();
    world.guarded_by(&[
        ("guard.block.unknown_recipients_per_hour", "1000"),
        ("guard.block.protocol_errors_per_hour", "1000"),
    ]);
    let mut user = world.connect(Protocol::Submission).await;
    user.say("NOSUCH", "500").await;
    user.log_in("alice@example.org").await;
    user.say("NOSUCH", "500").await;
    user.say("MAIL FROM:<alice@example.org>", "250").await;
    for name in ["a", "b", "c"] {
        user.say(&format!("RCPT TO:<no-{name}@example.org>"), "550").await;
    }
    user.say("NOSUCH", "500").await;
    user.say("QUIT", "221").await;
    user.expect_end().await;
    // One that logs in and sends nothing.
    let mut user = world.connect(Protocol::Submission).await;
    user.log_in("alice@example.org").await;
    for _ in 0..3 {
        user.say("NOSUCH", "500").await;
    }
    user.say("QUIT", "221").await;
    user.expect_end().await;
    // Who is nobody: one slip of each kind.
    let mut nobody = world.connect(Protocol::Submission).await;
    nobody.say("NOSUCH", "500").await;
    nobody.say("QUIT", "221").await;
    nobody.expect_end().await;
    let mut stranger = world.connect(Protocol::Smtp).await;
    stranger.say("MAIL FROM:<x@remote.example>", "250").await;
    stranger.say("RCPT TO:<nobody@example.org>", "550").await;
    let counted = loop {
        let rows = world.rows(Subspace::Rate).await;
        let counts = rows.iter().map(|row| u64::from_le_bytes(row.value[..].try_into().unwrap()));
        let counted: u64 = counts.sum();
        if counted >= 2 {
            break counted;
        }
        world.env.sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(counted, 2);
}

#[tokio::test]
async fn failed_logins_block() {
    let world = World::new().await;
    let _following = world.services.guard.start();
    world.guarded_by(&[("guard.block.failed_logins_per_hour", "2")]);
    let mut user = world.connect(Protocol::Submission).await;
    for _ in 0..2 {
        let wrong = base64("\0alice@example.org\0wrong");
        user.say(&format!("AUTH PLAIN {wrong}"), "535").await;
    }
    while !world.services.guard.blocks(PEER) {
        world.env.sleep(std::time::Duration::from_millis(5)).await;
    }
    user.say("AUTH PLAIN AGFsaWNlAHBlbmNpbA==", "454").await;
}
