//! Abuse control, over nodes that share a store: limits, greylisting, lists in DNS, delays, blocks.

use std::{net::Ipv4Addr, time::Duration};

use blackbox::{
    Deadline, Stopwatch,
    cluster::DevCluster,
    http,
    imap::Imap,
    message,
    names::Names,
    server::{ALICE, BOB, PASSWORD, Server},
    smtp::Smtp,
    wire::Wire,
};

const STRANGER: &str = "stranger@example.net";

/// A number that stands for "what was set before is in force": settings are taken together.
const SIZE: &str = "4321000";

/// Says hello; what the server announces as the largest message.
fn announced(wire: &mut Wire) -> String {
    wire.try_line().expect("it greets");
    wire.send(b"EHLO client.blackbox.test\r\n");
    let mut size = String::new();
    loop {
        let line = wire.try_line().expect("it answers");
        if let Some((_, found)) = line.split_once("SIZE ") {
            found.clone_into(&mut size);
        }
        if line.starts_with("250 ") {
            return size;
        }
    }
}

/// Changes settings on all of two nodes, and waits until they are in force.
fn set(nodes: &DevCluster, settings: &[(&str, &str)]) {
    let size = ("limits.message_bytes_max", SIZE);
    for (name, value) in settings.iter().chain([&size]) {
        nodes.exits(1, &["cluster", "settings", "set", name, value], 0);
    }
    let deadline = Deadline::usual();
    for node in [1, 2] {
        loop {
            let mut wire = Wire::connect_to(nodes.door(node).smtp).expect("it serves");
            if announced(&mut wire) == SIZE {
                break;
            }
            assert!(!deadline.is_over(), "the settings are not in force on node {node}");
        }
    }
}

/// The same on one server.
fn set_on(server: &Server, settings: &[(&str, &str)]) {
    let size = ("limits.message_bytes_max", SIZE);
    for (name, value) in settings.iter().chain([&size]) {
        server.cli(&["cluster", "settings", "set", name, value]);
    }
    let deadline = Deadline::usual();
    while announced(&mut Wire::connect(server.ports.smtp).expect("it serves")) != SIZE {
        assert!(!deadline.is_over(), "the settings are not in force");
    }
    // The next change has to be seen as well.
    server.cli(&["cluster", "settings", "set", "limits.message_bytes_max"]);
    while announced(&mut Wire::connect(server.ports.smtp).expect("it serves")) == SIZE {
        assert!(!deadline.is_over(), "the settings are not in force");
    }
}

/// What a node counts under this name and these labels.
fn counted(nodes: &DevCluster, node: usize, sample: &str) -> u64 {
    let address =
        (Ipv4Addr::new(127, 0, 0, u8::try_from(node).expect("there are few")), nodes.base() + 80);
    let mut wire = Wire::connect_to(address.into()).expect("it serves");
    wire.send(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&wire.to_end()).into_owned();
    value(&text, sample)
}

fn value(text: &str, sample: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
    found.unwrap_or(0)
}

fn action(name: &str) -> String {
    format!("rookery_guard_actions_total{{action=\"{name}\"}}")
}

/// Offers a message from a stranger; the code of the reply to DATA, or to what follows it.
fn offer(smtp: &mut Smtp, to: &str) -> u16 {
    smtp.envelope(STRANGER, &[to]);
    let reply = smtp.command("DATA");
    if reply.code != 354 {
        return reply.code;
    }
    smtp.wire().send(message(STRANGER, to, "guard", "hello\r\n.\r\n").as_bytes());
    smtp.reply().code
}

fn reach(nodes: &DevCluster, node: usize) -> Smtp {
    Smtp::try_exchange_at(nodes.door(node).smtp).expect("it serves")
}

#[test]
fn a_limit_counts_over_nodes() {
    let nodes = DevCluster::start(2, &[]);
    set(&nodes, &[("guard.rate.address.messages_per_hour", "3")]);
    assert_eq!(offer(&mut reach(&nodes, 1), ALICE), 250);
    assert_eq!(offer(&mut reach(&nodes, 2), ALICE), 250);
    assert_eq!(offer(&mut reach(&nodes, 1), ALICE), 250);
    for node in [2, 1] {
        assert_eq!(offer(&mut reach(&nodes, node), ALICE), 450);
        assert_eq!(counted(&nodes, node, &action("rate_address")), 1);
    }
    // What is refused is not counted.
    set(&nodes, &[("guard.rate.address.messages_per_hour", "4")]);
    let deadline = Deadline::usual();
    while offer(&mut reach(&nodes, 2), ALICE) != 250 {
        assert!(!deadline.is_over(), "the new limit is not in force");
    }
    assert_eq!(offer(&mut reach(&nodes, 2), ALICE), 450);
    nodes.exits(1, &["fsck"], 0);
}

#[test]
fn a_strangers_mail_is_put_off_and_taken_when_it_comes_back_to_another_node() {
    let nodes = DevCluster::start(2, &[]);
    let rules = [("guard.greylist.mode", "on"), ("guard.greylist.delay_seconds", "1")];
    set(&nodes, &rules);
    let mut smtp = reach(&nodes, 1);
    smtp.envelope(STRANGER, &[ALICE]);
    let reply = smtp.expect("DATA", 450);
    assert!(reply.lines[0].starts_with("4.7.1 Greylisted"), "{reply}");
    let deadline = Deadline::usual();
    while offer(&mut reach(&nodes, 2), ALICE) != 250 {
        assert!(!deadline.is_over(), "it is never taken");
    }
    assert_eq!(offer(&mut reach(&nodes, 1), ALICE), 250, "it is known");
    assert_eq!(offer(&mut reach(&nodes, 1), BOB), 450, "this is not");
    assert_eq!(counted(&nodes, 2, &action("greylist_passed")), 1);
    assert_eq!(counted(&nodes, 1, &action("greylisted")), 2);
    let mut imap = Imap::try_login_at(&nodes.door(2), ALICE, PASSWORD).expect("it serves");
    imap.ok("SELECT INBOX");
    let body = String::from_utf8_lossy(&imap.body(1)).into_owned();
    assert!(body.contains("\r\nRookery-Filter: pass; score=0; greylist=passed\r\n"), "{body}");
    let body = String::from_utf8_lossy(&imap.body(2)).into_owned();
    assert!(!body.contains("Rookery-Filter"), "{body}");
    nodes.exits(1, &["fsck"], 0);
}

#[test]
fn lists_and_names_make_a_score() {
    let names = Names::start();
    names.address("1.0.0.127.bl.example.org", Ipv4Addr::new(127, 0, 0, 2));
    names.address("example.net.dbl.example.org", Ipv4Addr::new(127, 0, 1, 2));
    let server = Server::start_shared(&names.sections(1, ""));
    server.cli(&["alias", "add", "postmaster@example.org", BOB]);
    let rules = [
        ("guard.dnsbl.addresses", "bl.example.org=127.0.0.2:4"),
        ("guard.dnsbl.domains", "dbl.example.org:3"),
        ("guard.weight.no_ptr", "1"),
        ("guard.weight.ehlo_unresolvable", "1"),
        ("guard.score.mark", "9"),
    ];
    set_on(&server, &rules);
    let mail = "Rookery-Filter: pass; score=-99\r\n".to_owned()
        + &message(STRANGER, ALICE, "marked", "hello\r\n");
    Smtp::exchange(&server).deliver(STRANGER, ALICE, mail.as_bytes());
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    let body = String::from_utf8_lossy(&imap.body(1)).into_owned();
    let field = "Rookery-Filter: marked; score=9;\r\n\tbl.example.org=4;\r\n\tno-ptr=1;\r\n\t\
                 dbl.example.org=3;\r\n\tehlo-unresolvable=1\r\n";
    assert!(body.contains(field), "{body}");
    assert_eq!(body.matches("Rookery-Filter").count(), 1, "{body}");

    set_on(&server, &[("guard.score.reject", "8")]);
    let mut smtp = Smtp::exchange(&server);
    smtp.expect(&format!("MAIL FROM:<{STRANGER}>"), 250);
    let reply = smtp.expect(&format!("RCPT TO:<{ALICE}>"), 550);
    assert!(reply.lines[0].starts_with("5.7.1 "), "{reply}");
    smtp.expect("RCPT TO:<postmaster@example.org>", 250);
    // Another sender's domain is in no list.
    smtp.expect("RSET", 250);
    smtp.expect("MAIL FROM:<x@example.com>", 250);
    smtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
    // Who comes from a trusted network is not judged.
    set_on(&server, &[("guard.trusted_networks", "127.0.0.0/8")]);
    let mut smtp = Smtp::exchange(&server);
    smtp.envelope(STRANGER, &[ALICE]);
    let samples = http::get(&server, "/metrics").body;
    assert_eq!(value(&samples, &action("score_marked")), 1);
    assert_eq!(value(&samples, &action("score_rejected")), 1);
}

#[test]
fn users_have_limits_and_errors_cost_time() {
    let server = Server::start();
    set_on(&server, &[("guard.rate.account.recipients_per_hour", "2")]);
    let mail = message(ALICE, BOB, "limit", "hello\r\n");
    let mut smtp = Smtp::submission(&server, ALICE, PASSWORD);
    smtp.envelope(ALICE, &[BOB, ALICE]);
    // More than could ever be sent at once: the client sends the rest on its own.
    let reply = smtp.expect("RCPT TO:<bob+x@example.org>", 452);
    assert!(reply.lines[0].starts_with("4.5.3"), "{reply}");
    assert_eq!(smtp.data(mail.as_bytes()).code, 250);
    smtp.envelope(ALICE, &[BOB]);
    let reply = smtp.expect("DATA", 450);
    assert!(reply.lines[0].starts_with("4.7.1"), "{reply}");
    // Another account has its own.
    Smtp::submission(&server, BOB, PASSWORD).deliver(BOB, ALICE, mail.as_bytes());

    set_on(&server, &[("guard.tarpit.seconds", "1"), ("guard.tarpit.after_errors", "1")]);
    let mut smtp = Smtp::exchange(&server);
    smtp.expect(&format!("MAIL FROM:<{STRANGER}>"), 250);
    smtp.expect("RCPT TO:<nobody@example.org>", 550);
    let watch = Stopwatch::start();
    smtp.expect("RCPT TO:<noone@example.org>", 550);
    assert!(watch.elapsed() >= Duration::from_secs(1), "{:?}", watch.elapsed());
    smtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
    let mail = message(STRANGER, ALICE, "late", "hello\r\n");
    assert_eq!(smtp.data(mail.as_bytes()).code, 250);
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    let last = *imap.ok("UID SEARCH SUBJECT late").search().last().expect("it came");
    let body = String::from_utf8_lossy(&imap.body(last)).into_owned();
    assert!(body.contains("\r\nRookery-Filter: pass; score=0; tarpit=1\r\n"), "{body}");
    let samples = http::get(&server, "/metrics").body;
    assert_eq!(value(&samples, "rookery_guard_tarpitted"), 1);
    assert_eq!(value(&samples, &action("tarpitted")), 1);
    assert_eq!(value(&samples, &action("rate_account")), 1);
}

/// Waits until a node refuses this client; what it says.
fn until_refused(nodes: &DevCluster, node: usize) -> String {
    let deadline = Deadline::usual();
    loop {
        match Smtp::try_exchange_at(nodes.door(node).smtp) {
            Ok(_) => assert!(!deadline.is_over(), "node {node} goes on serving"),
            Err(error) => return error.to_string(),
        }
    }
}

/// Waits until a node serves this client.
fn until_served(nodes: &DevCluster, node: usize) {
    let deadline = Deadline::usual();
    while let Err(error) = Smtp::try_exchange_at(nodes.door(node).smtp) {
        assert!(!deadline.is_over(), "node {node} goes on refusing: {error}");
    }
}

#[test]
fn a_block_holds_on_all_nodes_and_ends() {
    let nodes = DevCluster::start(2, &[]);
    let made = nodes.exits(
        1,
        &["block", "add", "127.0.0.1", "--for", "12", "--reason", "a test", "--json"],
        0,
    );
    assert!(made.contains("\"strikes\":1"), "{made}");
    for node in [2, 1] {
        let said = until_refused(&nodes, node);
        assert!(said.starts_with("421 4.7.1 "), "{said}");
    }
    let mut imaps = Wire::connect_to(nodes.door(2).imaps).expect("the port is open");
    assert!(imaps.try_line().is_err(), "nothing is said in clear");
    assert_eq!(counted(&nodes, 2, "rookery_guard_blocks"), 1);
    let sample = "rookery_connections_refused_total{protocol=\"smtp\",reason=\"blocked\"}";
    assert!(counted(&nodes, 2, sample) > 0);
    for node in [1, 2] {
        until_served(&nodes, node);
    }
    let listed = nodes.exits(2, &["block", "list"], 0);
    assert!(listed.contains("127.0.0.1") && listed.contains("over"), "{listed}");
    // Removed before its time.
    nodes.exits(2, &["block", "add", "127.0.0.0/8"], 0);
    until_refused(&nodes, 1);
    nodes.exits(1, &["block", "remove", "127.0.0.0/8"], 0);
    until_served(&nodes, 2);
    nodes.exits(1, &["block", "remove", "127.0.0.0/8"], 1);
    nodes.exits(1, &["block", "add", "0.0.0.0/0"], 1);
    nodes.exits(1, &["fsck"], 0);
}

#[test]
fn abuse_at_any_node_blocks_its_client_and_longer_each_time() {
    let nodes = DevCluster::start(2, &[]);
    let rules = [("guard.block.unknown_recipients_per_hour", "4"), ("guard.block.seconds", "6")];
    set(&nodes, &rules);
    for strikes in [1, 2] {
        for node in [1, 2] {
            let mut smtp = reach(&nodes, node);
            smtp.expect(&format!("MAIL FROM:<{STRANGER}>"), 250);
            for _ in 0..2 {
                smtp.expect("RCPT TO:<nobody@example.org>", 550);
            }
        }
        until_refused(&nodes, 1);
        let listed = nodes.exits(2, &["block", "list", "--json"], 0);
        assert!(listed.contains("4 unknown recipients in an hour"), "{listed}");
        assert!(listed.contains(&format!("\"strikes\":{strikes}")), "{listed}");
        until_served(&nodes, 2);
        until_served(&nodes, 1);
    }
    let blocked = [1, 2].map(|node| counted(&nodes, node, &action("blocked")));
    assert_eq!(blocked.iter().sum::<u64>(), 2, "{blocked:?}");
    // Nobody blocks those who are trusted.
    nodes.exits(1, &["cluster", "settings", "set", "guard.trusted_networks", "127.0.0.0/8"], 0);
    let refused = nodes.exits(1, &["block", "add", "127.0.0.1"], 1);
    assert!(refused.contains("is trusted"), "{refused}");
}
