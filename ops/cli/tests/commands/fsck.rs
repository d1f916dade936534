//! `rookery fsck` on a server at work and on a store that nobody has open.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
};

use kv::{
    AtomicOp, Transaction,
    embedded::{Embedded, EmbeddedOptions},
};
use mail::{
    AccountId, EmailId,
    keys::{self, counter::AccountCounts},
};

use super::{Server, check, on};

/// An SMTP client that only ever sees success.
struct Smtp {
    stream: BufReader<TcpStream>,
}

impl Smtp {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut smtp = Self { stream: BufReader::new(stream) };
        smtp.reply();
        smtp.say("LHLO client.example.com\r\n");
        smtp
    }

    fn reply(&mut self) {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            assert!(line.starts_with(['2', '3']), "{line:?}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return;
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
        self.reply();
    }

    fn deliver(&mut self, number: usize) {
        self.say("MAIL FROM:<sender@example.com>\r\n");
        self.say("RCPT TO:<alice@example.org>\r\n");
        self.say("DATA\r\n");
        self.say(&format!(
            "Message-ID: <{number}@example.com>\r\nSubject: {}\r\n\r\nhello\r\n.\r\n",
            number % 7
        ));
    }
}

/// Changes keys of a store that nobody has open.
fn plant(data: &Path, change: impl Fn(&Transaction)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let env = env::Env::system();
        let options = EmbeddedOptions::default();
        let store = Embedded::open(&data.join("store"), env, options).unwrap();
        let tx = store.database().begin();
        change(&tx);
        tx.commit().await.unwrap();
        store.close().await.unwrap();
    });
}

/// A server's data with a few messages of alice's, whose account is the first.
fn data_with_mail(data: &Path) -> AccountId {
    let server = Server::start(data);
    let mut smtp = Smtp::connect(server.base + 424);
    (0..5).for_each(|number| smtp.deliver(number));
    drop(smtp);
    assert_eq!(server.terminate(), Some(0));
    let shown = check(&mut on(data, "account list --json"), 0, "");
    let alice = shown.lines().find(|line| line.contains("alice@")).unwrap();
    let alice: serde_json::Value = serde_json::from_str(alice).unwrap();
    AccountId(alice["id"].as_u64().unwrap())
}

#[test]
fn a_server_at_work_is_found_right() {
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("dev");
    let server = Server::start(data);
    let (delivered, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|threads| {
        let (first, begun) = mpsc::channel();
        for _ in 0..2 {
            let (first, port) = (first.clone(), server.base + 424);
            let (delivered, enough) = (&delivered, &enough);
            threads.spawn(move || {
                let mut smtp = Smtp::connect(port);
                while !enough.load(Relaxed) {
                    smtp.deliver(delivered.fetch_add(1, Relaxed));
                    // The test waits for the first only.
                    let _heard = first.send(());
                }
            });
        }
        begun.recv().unwrap();
        let before = delivered.load(Relaxed);
        for _ in 0..3 {
            check(&mut on(data, "fsck"), 0, "0 findings, 0 mended, 0 remain");
        }
        let during = delivered.load(Relaxed) - before;
        enough.store(true, Relaxed);
        assert!(during > 0, "nothing was delivered meanwhile");
    });
    let alone = check(&mut on(data, "fsck --account alice@example.org --json --speed 100"), 0, "");
    let last: serde_json::Value = serde_json::from_str(alone.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["accounts"]), (&"done".into(), &1.into()));
    assert_eq!(last["emails"].as_u64(), Some(delivered.load(Relaxed) as u64));
    check(&mut on(data, "fsck --account nobody@example.org"), 2, "does not exist");
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn planted_damage_is_found_and_mended_with_and_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("dev");
    let account = data_with_mail(data);
    check(&mut on(data, "fsck"), 0, "5 emails: 0 findings");
    let damage = |tx: &Transaction| {
        let wrong = AccountCounts { bytes: 17, emails: 0 };
        tx.atomic(&keys::counter::account_key(account), &wrong.operand(), AtomicOp::Add);
        tx.set(&keys::thread::key(account, 1, EmailId(900)), &[0; 4]);
    };
    plant(data, damage);
    let found = check(&mut on(data, "fsck"), 1, "2 of what was found is not mended");
    for code in ["ACCOUNT  FINDING", "account_counters", "stray_thread_key", "2 findings"] {
        assert!(found.contains(code), "no {code} in {found}");
    }
    let json = check(&mut on(data, "fsck --json"), 1, "");
    let codes: Vec<String> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["type"] == "finding")
        .map(|line| line["code"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(codes, ["stray_thread_key", "account_counters"]);
    check(&mut on(data, "fsck --repair"), 0, "2 findings, 2 mended, 0 remain");
    check(&mut on(data, "fsck"), 0, "0 findings");

    plant(data, damage);
    let server = Server::start(data);
    check(&mut on(data, "fsck"), 1, "2 of what was found");
    check(&mut on(data, "fsck --repair"), 0, "2 findings, 2 mended, 0 remain");
    check(&mut on(data, "fsck"), 0, "0 findings");
    assert_eq!(server.terminate(), Some(0));

    // What needs a person stays, and says so.
    plant(data, |tx| tx.clear(&keys::email::meta_key(account, EmailId(1))));
    let found = check(&mut on(data, "fsck --repair"), 1, "1 of what was found");
    assert!(found.contains("needs a person"), "{found}");
}

#[test]
fn a_check_is_interrupted_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("dev");
    data_with_mail(data);
    let interrupt = || {
        let mut slow = on(data, "fsck --speed 1 --json");
        let mut child = slow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.contains("\"progress\""), "{first}");
        let kill = format!("kill -INT {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(2));
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(told.contains("interrupted"), "{told}");
    };
    interrupt();
    check(&mut on(data, "fsck"), 0, "0 findings");
    let server = Server::start(data);
    interrupt();
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn progress_is_shown_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("dev");
    data_with_mail(data);
    let shown = on(data, "fsck --progress").output().unwrap();
    let shown = String::from_utf8(shown.stderr).unwrap();
    assert!(shown.contains("accounts, 5 emails"), "{shown:?}");
    let quiet = on(data, "fsck").output().unwrap();
    assert_eq!(quiet.stderr, b"");
}

/// The codes of what a check found.
fn codes(shown: &str) -> Vec<String> {
    shown
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["type"] == "finding")
        .map(|line| line["code"].as_str().unwrap().to_owned())
        .collect()
}

/// The file of the only large message.
fn large_file(data: &Path) -> std::path::PathBuf {
    let entries = |path: &Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    entries(&data.join("blobs")).iter().flat_map(|inner| entries(inner)).next().unwrap()
}

#[test]
fn lost_short_and_changed_bytes_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("dev");
    let server = Server::start(data);
    let mut smtp = Smtp::connect(server.base + 424);
    smtp.deliver(1);
    smtp.say("MAIL FROM:<sender@example.com>\r\n");
    smtp.say("RCPT TO:<alice@example.org>\r\n");
    smtp.say("DATA\r\n");
    smtp.say(&format!("Subject: large\r\n\r\n{}.\r\n", "0123456789abcd\r\n".repeat(30_000)));
    drop(smtp);
    let file = &large_file(data);
    let whole = std::fs::read(file).unwrap();
    let damaged = |arguments: &str| {
        assert_eq!(codes(&check(&mut on(data, arguments), 1, "1 of what")), ["blob_damaged"]);
    };
    for wrong in [&whole[..whole.len() - 1], &[]] {
        std::fs::write(file, wrong).unwrap();
        damaged("fsck --json");
    }
    std::fs::remove_file(file).unwrap();
    damaged("fsck --json");
    damaged("fsck --json --account alice@example.org");

    // A byte that is another is seen where bytes are asked for, with a server and without.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(file, flipped).unwrap();
    check(&mut on(data, "fsck"), 0, "0 findings");
    damaged("fsck --json --bytes");
    assert_eq!(server.terminate(), Some(0));
    check(&mut on(data, "fsck"), 0, "0 findings");
    damaged("fsck --json --bytes --speed 100");
    damaged("fsck --json --bytes --account alice@example.org");
    std::fs::write(file, &whole).unwrap();
    check(&mut on(data, "fsck --bytes"), 0, "2 emails, 0 MB read: 0 findings");
    let shown = check(&mut on(data, "fsck --bytes --json"), 0, "");
    let last: serde_json::Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    assert!(last["bytes"].as_u64() > Some(whole.len() as u64), "both were read: {last}");

    // A small message's, among the engine's values.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let env = env::Env::system();
        let store = Embedded::open(&data.join("store"), env, EmbeddedOptions::default()).unwrap();
        let values = store.large_values();
        for key in values.scan_prefix(b"h", None, 10).await.unwrap() {
            let mut value = values.get(&key).await.unwrap().unwrap().to_vec();
            // Whole ones begin with a zero.
            if value[0] == 0 {
                value[20] ^= 1;
                values.put(&key, value.into()).await.unwrap();
            }
        }
        values.sync().await.unwrap();
        store.close().await.unwrap();
    });
    damaged("fsck --json --bytes");
}
