//! Signing in a domain's name: keys that wait for their records, signatures that others check, rotation
//! with a name server that takes updates, and senders of forwarded mail.

use std::{fs, net::Ipv4Addr, path::PathBuf, process::Command, thread};

use blackbox::{
    Deadline,
    bind::Bind,
    cluster::DevCluster,
    imap::Imap,
    message,
    names::Names,
    program::{find, succeed},
    report,
    server::{ALICE, PASSWORD, Server},
    smtp::Smtp,
    workspace,
};
use serde_json::Value;
use tempfile::TempDir;

const DOMAIN: &str = "example.org";
const CAROL: &str = "carol@example.net";

/// A provider of `example.net`, which carol is at.
fn elsewhere() -> Server {
    let there = Server::start_configured();
    there.cli(&["domain", "add", "example.net"]);
    there.cli(&["alias", "add", CAROL, ALICE]);
    there
}

fn names() -> Names {
    let names = Names::start();
    for domain in ["example.net", DOMAIN] {
        names.exchange(domain, 10, "mx.example.net");
    }
    names.address("mx.example.net", Ipv4Addr::LOCALHOST);
    names
}

fn set(server: &Server, name: &str, value: &str) {
    server.cli(&["cluster", "settings", "set", name, value]);
}

/// The domain's keys as the command line tells them to programs.
fn keys(server: &Server) -> Vec<Value> {
    let told = server.cli(&["domain", "dkim", DOMAIN, "--json"]);
    told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text<'a>(key: &'a Value, field: &str) -> &'a str {
    key[field].as_str().unwrap_or_else(|| panic!("no {field} in {key}"))
}

/// Waits until each key, oldest first, is in its state.
fn wait_for(server: &Server, states: &[&str]) -> Vec<Value> {
    let deadline = Deadline::usual();
    loop {
        let found = keys(server);
        if found.iter().map(|key| text(key, "state")).eq(states.iter().copied()) {
            return found;
        }
        assert!(!deadline.is_over(), "not {states:?}: {found:#?}");
    }
}

/// Waits for a number of messages, and reads the last of them.
fn wait_for_mail(imap: &mut Imap, count: usize) -> String {
    imap.ok("SELECT INBOX");
    let deadline = Deadline::usual();
    while imap.ok("UID SEARCH ALL").search().len() < count {
        assert!(!deadline.is_over(), "nothing has come");
        imap.ok("NOOP");
    }
    let uid = u32::try_from(count).expect("it is small");
    String::from_utf8_lossy(&imap.body(uid)).into_owned()
}

fn submit(server: &Server, subject: &str) {
    let mail = message(ALICE, CAROL, subject, "hello\r\n\r\n.a dot  and blanks \r\n\r\n\r\n");
    Smtp::submission(server, ALICE, PASSWORD).deliver(ALICE, CAROL, mail.as_bytes());
}

/// Has dkimpy check a message; `None` where it is not installed.
fn checked(message: &str, keys: &[Value]) -> Option<Vec<String>> {
    // Whoever runs that program has its module.
    let program = find("dkimverify")?;
    let first = fs::read_to_string(program).ok()?.lines().next()?.to_owned();
    let python = PathBuf::from(first.strip_prefix("#!")?.trim());
    let texts: serde_json::Map<String, Value> =
        keys.iter().map(|key| (text(key, "name").to_owned(), key["text"].clone())).collect();
    let script = workspace::root().join("tests/tests/python/dkim_check.py");
    let mut command = Command::new(python);
    command.arg(script).arg(Value::from(texts).to_string());
    let told = succeed(&mut command, message.as_bytes());
    Some(told.lines().map(str::to_owned).collect())
}

#[test]
fn what_users_send_is_signed_once_dns_shows_the_keys() {
    let (there, names) = (elsewhere(), names());
    let here = Server::start_shared(&names.sections(there.ports.smtp, ""));
    set(&here, "dkim.settle_seconds", "0");
    let wanted = wait_for(&here, &["wanted", "wanted"]);
    submit(&here, "unsigned");
    let mut imap = there.imap(ALICE);
    assert!(!wait_for_mail(&mut imap, 1).contains("DKIM-Signature"));
    for key in &wanted {
        names.text(text(key, "name"), text(key, "text"));
    }
    here.cli(&["domain", "dkim", DOMAIN, "publish"]);
    let used = wait_for(&here, &["in-use", "in-use"]);
    assert!(used.iter().all(|key| text(key, "dns") == "there"), "{used:#?}");
    submit(&here, "signed");
    let found = wait_for_mail(&mut imap, 2);
    assert_eq!(found.matches("DKIM-Signature: v=1;").count(), 2, "{found}");
    let (_, sent) = found.split_once("DKIM-Signature").expect("it is there");
    assert!(sent.find("DKIM-Signature") < sent.find("Received:"), "{found}");
    match checked(&found, &used) {
        None => report("skipped: dkimpy is not installed (Debian: python3-dkim, python3-nacl)"),
        Some(good) => assert_eq!(good, ["rsa-sha256", "ed25519-sha256"]),
    }
    let doctor = here.cli(&["fsck"]);
    assert!(doctor.contains("0 findings"), "{doctor}");
}

#[test]
fn a_forward_has_a_sender_of_ours_and_its_bounces_find_back() {
    let (there, names) = (elsewhere(), names());
    let here = Server::start_shared(&names.sections(there.ports.smtp, ""));
    here.cli(&["alias", "add", "fwd@example.org", CAROL]);
    here.cli(&["alias", "add", "vain@example.org", "nobody@example.net"]);
    let mail = message(CAROL, "fwd@example.org", "forwarded", "hello\r\n");
    Smtp::exchange(&here).deliver(CAROL, "fwd@example.org", mail.as_bytes());
    let mut imap = there.imap(ALICE);
    let found = wait_for_mail(&mut imap, 1);
    let (_, rest) = found.split_once("Return-Path: <").expect("it has a sender");
    let (sender, _) = rest.split_once('>').expect("it ends");
    assert!(sender.starts_with("SRS0=") && sender.ends_with("=carol@example.org"), "{sender}");

    // A bounce from elsewhere goes to who sent it; what is none, or made up, does not.
    let mut smtp = Smtp::exchange(&here);
    let mail = message("postmaster@example.net", sender, "bounced", "in vain\r\n");
    smtp.envelope("", &[sender]);
    assert_eq!(smtp.data(mail.as_bytes()).code, 250);
    assert!(wait_for_mail(&mut imap, 2).contains("in vain"));
    smtp.expect("MAIL FROM:<eve@example.com>", 250);
    smtp.expect(&format!("RCPT TO:<{sender}>"), 550);
    smtp.expect("RSET", 250);
    smtp.expect("MAIL FROM:<>", 250);
    smtp.expect(&format!("RCPT TO:<{}>", sender.replace("=carol@", "=eve@")), 550);

    // One of our own, about a forward that is refused.
    let mail = message(CAROL, "vain@example.org", "vain", "hello\r\n");
    Smtp::exchange(&here).deliver(CAROL, "vain@example.org", mail.as_bytes());
    let found = wait_for_mail(&mut imap, 3);
    assert!(found.contains("Final-Recipient: rfc822; nobody@example.net\r\nAction: failed\r\n"));
}

/// The header fields above a message's first `Received`, unfolded.
fn top(message: &str) -> String {
    let (top, _) = message.split_once("\r\n\r\n").expect("a header ends");
    top.replace("\r\n\t", " ")
}

#[test]
fn a_forward_is_sealed_and_the_next_server_finds_the_seal_whole() {
    let names = names();
    names.text("author.example", "v=spf1 ip4:127.0.0.1 -all");
    let mut there = Server::stopped(&names.sections(25, ""));
    for domain in ["example.net", DOMAIN] {
        there.cli(&["domain", "add", domain]);
    }
    there.cli(&["account", "add", ALICE, "--password-stdin"]);
    there.cli(&["alias", "add", CAROL, ALICE]);
    // What comes over loopback is judged as well.
    set(&there, "judging.trusted_networks", "none");
    there.restart();
    let mut here = Server::start_shared(&names.sections(there.ports.smtp, ""));
    set(&here, "dkim.settle_seconds", "0");
    set(&here, "judging.trusted_networks", "none");
    here.cli(&["alias", "add", "fwd@example.org", CAROL]);
    for key in &wait_for(&here, &["wanted", "wanted"]) {
        names.text(text(key, "name"), text(key, "text"));
    }
    here.cli(&["domain", "dkim", DOMAIN, "publish"]);
    wait_for(&here, &["in-use", "in-use"]);
    here.kill();
    here.reap();
    here.restart();
    let author = "ann@author.example";
    let mail = message(author, "fwd@example.org", "sealed", "hello\r\n");
    Smtp::exchange(&here).deliver(author, "fwd@example.org", mail.as_bytes());
    let mut imap = there.imap(ALICE);
    let found = wait_for_mail(&mut imap, 1);
    let fields = top(&found);
    let field = |name: &str| {
        let lines = fields.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let [results] = &field("Authentication-Results: ")[..] else { panic!("{fields}") };
    assert!(results.contains("arc=pass"), "{results}");
    let [seal] = &field("ARC-Seal: ")[..] else { panic!("{fields}") };
    assert!(seal.contains("i=1;") && seal.contains("cv=none;"), "{seal}");
    let [told] = &field("ARC-Authentication-Results: ")[..] else { panic!("{fields}") };
    assert!(told.contains("spf=pass smtp.mailfrom=ann@author.example"), "{told}");
}

/// A domain's keys as a node of a cluster tells them.
fn keys_at(nodes: &DevCluster, node: usize, domain: &str) -> Vec<Value> {
    let told = nodes.exits(node, &["domain", "dkim", domain, "--json"], 0);
    told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Both nodes look after keys, and are told to rotate at once, again and again.
#[test]
fn two_nodes_rotate_to_one_key_of_a_kind() {
    const ROTATED: &str = "rotated.example";
    let names = Names::start();
    let folder = TempDir::new().expect("the temporary folder is writable");
    let config = folder.path().join("config.toml");
    let whole = format!(
        "hostname = \"mx.example.org\"\ndata = \"/nowhere\"\n\
         tls = {{ certificate = \"/c\", key = \"/k\" }}\n{}",
        names.sections(25, "")
    );
    fs::write(&config, whole).expect("the folder is writable");
    let nodes = DevCluster::start(2, &["--config", &config.display().to_string()]);
    nodes.exits(1, &["cluster", "settings", "set", "dkim.settle_seconds", "0"], 0);
    nodes.exits(2, &["domain", "add", ROTATED], 0);
    let states = |keys: &[Value]| -> Vec<String> {
        keys.iter().map(|key| text(key, "state").to_owned()).collect()
    };
    let wait_for = |what: &str, is_so: &dyn Fn(&[Value]) -> bool| {
        let deadline = Deadline::usual();
        loop {
            let found = keys_at(&nodes, 2, ROTATED);
            if is_so(&found) {
                return found;
            }
            assert!(!deadline.is_over(), "not {what}: {found:#?}");
        }
    };
    let both = |order: &str| {
        let orders =
            [1, 2].map(|node| nodes.cli_command(node, &["domain", "dkim", ROTATED, order]));
        thread::scope(|scope| {
            for mut order in orders {
                scope.spawn(move || succeed(&mut order, b""));
            }
        });
    };
    let publish = |keys: &[Value]| {
        for key in keys {
            names.text(text(key, "name"), text(key, "text"));
        }
        both("publish");
    };
    let first = wait_for("made", &|keys| states(keys) == ["wanted", "wanted"]);
    publish(&first);
    wait_for("in use", &|keys| states(keys) == ["in-use", "in-use"]);
    for _ in 0..3 {
        both("rotate");
    }
    let second = keys_at(&nodes, 1, ROTATED);
    assert_eq!(states(&second), ["in-use", "in-use", "wanted", "wanted"], "{second:#?}");
    publish(&second[2..]);
    let name = |key: &Value| text(key, "name").to_owned();
    let new: Vec<String> = second[2..].iter().map(name).collect();
    let used = wait_for("rotated", &|keys| {
        let used = keys.iter().filter(|key| text(key, "state") == "in-use");
        used.map(name).collect::<Vec<_>>() == new
    });
    let coming = |key: &&Value| ["wanted", "seen"].contains(&text(key, "state"));
    assert_eq!(used.iter().filter(coming).count(), 0, "{used:#?}");
    nodes.exits(1, &["fsck"], 0);
}

/// Base64 of 32 bytes.
const SECRET: &str = "cm9va2VyeSdzIGJsYWNrIGJveCB0c2lnIHNlY3JldCE=";

const ZONE: &str = "\
$TTL 1
@ SOA ns root 1 3600 600 86400 1
@ NS ns
ns A 127.0.0.1
";

fn bind() -> Option<Bind> {
    let clauses = format!(
        "key \"rookery\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone \"{DOMAIN}\" {{ type primary; file \"zone\"; allow-update {{ key \"rookery\"; }}; }};\n"
    );
    Bind::start_with(&[("zone", ZONE), ("secret", SECRET)], &clauses, DOMAIN)
}

#[test]
fn keys_rotate_without_hands_where_a_name_server_takes_updates() {
    let Some(bind) = bind() else { return };
    let sections = format!("[dns]\nservers = [\"127.0.0.1:{}\"]\ndnssec = \"off\"\n", bind.port());
    let here = Server::start_shared(&sections);
    let secret = bind.folder().join("secret");
    for (name, value) in [
        ("dkim.settle_seconds", "0"),
        ("dkim.retire_days", "0"),
        ("dkim.update_key", "rookery"),
        ("dkim.update_secret_file", &secret.display().to_string()),
        ("dkim.update_server", &format!("127.0.0.1:{}", bind.port())),
    ] {
        set(&here, name, value);
    }
    here.cli(&["domain", "dkim", DOMAIN, "publish"]);
    let first = wait_for(&here, &["in-use", "in-use"]);
    assert!(first.iter().all(|key| key["published_ms"].is_i64()), "{first:#?}");
    here.cli(&["domain", "dkim", DOMAIN, "rotate"]);
    let deadline = Deadline::usual();
    let second = loop {
        let second = wait_for(&here, &["in-use", "in-use"]);
        if second.iter().all(|key| first.iter().all(|it| text(it, "name") != text(key, "name"))) {
            break second;
        }
        assert!(!deadline.is_over(), "the old keys stay: {second:#?}");
    };
    assert!(second.iter().all(|key| text(key, "dns") == "there"), "{second:#?}");
    // The name server writes down what it was told.
    let log = fs::read_to_string(bind.folder().join("log")).expect("it has a log");
    for key in &first {
        let removes = |line: &str| line.contains("deleting") && line.contains(text(key, "name"));
        assert!(log.lines().any(removes), "{} is not removed: {log}", text(key, "name"));
    }

    // Under a secret that is not the server's nothing is published, and the keys go on signing.
    fs::write(&secret, "b3RoZXI=").expect("the folder is writable");
    here.cli(&["domain", "dkim", DOMAIN, "rotate"]);
    let deadline = Deadline::usual();
    let stays = loop {
        let stays = wait_for(&here, &["in-use", "in-use", "wanted", "wanted"]);
        if stays[2]["trouble"].is_string() && stays[3]["trouble"].is_string() {
            break stays;
        }
        assert!(!deadline.is_over(), "no trouble: {stays:#?}");
    };
    assert_eq!(text(&stays[0], "name"), text(&second[0], "name"));
    let mut doctor = here.cli_command(&["cluster", "doctor"]);
    let told = doctor.output().expect("it can be run");
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("is not taken by the name server"), "{told}");
}
