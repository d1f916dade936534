//! What a new user does, with the programs that a new user has: `swaks`, `curl`, `mbsync`, and
//! Python's `smtplib` and `imaplib`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use blackbox::{
    message,
    program::{find, python, succeed},
    report,
    server::{ALICE, BOB, CONTENT, PASSWORD, Server},
    smtp::Smtp,
};

/// The whole messages of a mailbox, by UID.
fn mailbox(server: &Server, user: &str, name: &str) -> BTreeMap<u32, Vec<u8>> {
    let mut imap = server.imap(user);
    imap.ok(&format!("SELECT {name}"));
    let uids = imap.ok("UID SEARCH ALL").search();
    uids.into_iter().map(|uid| (uid, imap.body(uid))).collect()
}

/// Checks that the message arrived once, behind nothing but added header fields.
#[track_caller]
fn arrived(server: &Server, user: &str, sent: &str) {
    let got = mailbox(server, user, "INBOX");
    let matching: Vec<_> = got.values().filter(|body| body.ends_with(sent.as_bytes())).collect();
    assert_eq!(
        matching.len(),
        1,
        "{sent:?} in {:?}",
        got.values().map(|it| text(it)).collect::<Vec<_>>()
    );
    let added = &matching[0][..matching[0].len() - sent.len()];
    assert!(added.ends_with(b"\r\n"), "{:?}", text(added));
    assert!(text(added).contains("Received: "), "{:?}", text(added));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn swaks_sends_in_every_way() {
    let Some(swaks) = find("swaks") else { return };
    let server = Server::start();
    let ports = server.ports;
    let login: &[&str] = &["--auth-user", BOB, "--auth-password", PASSWORD];
    let ways: &[(&str, u16, &[&str], &[&str])] = &[
        ("smtp", ports.smtp, &[], &[]),
        ("smtp-tls", ports.smtp, &["--tls"], &[]),
        ("submission", ports.submission, &["--tls", "--auth", "PLAIN"], login),
        ("submission-login", ports.submission, &["--tls", "--auth", "LOGIN"], login),
        ("submissions", ports.submissions, &["--tlsc", "--auth", "PLAIN"], login),
        ("lmtp", ports.lmtp, &["--protocol", "LMTP"], &[]),
    ];
    let supported = succeed(Command::new(&swaks).arg("--support"), b"");
    let has_tls = supported.contains("TLS supported");
    if !has_tls {
        report("skipped: this swaks has no TLS (Perl's Net::SSLeay, libnet-ssleay-perl)");
    }
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut sent = Vec::new();
    for (name, port, how, login) in ways {
        if !has_tls && how.iter().any(|option| option.starts_with("--tls")) {
            continue;
        }
        let mail = message(BOB, ALICE, name, "by swaks\r\n.\r\n..leading dots");
        let file = folder.path().join(name);
        // swaks ends the last line itself.
        fs::write(&file, mail.replace("\r\n", "\n").trim_end()).expect("the folder is writable");
        succeed(
            Command::new(&swaks)
                .args(["--server", "127.0.0.1", "--port", &port.to_string()])
                .args(["--from", BOB, "--to", ALICE, "--data"])
                .arg(format!("@{}", file.display()))
                .args(*how)
                .args(*login),
            b"",
        );
        sent.push(mail);
    }
    for mail in sent {
        arrived(&server, ALICE, &mail);
    }
}

#[test]
fn python_sends() {
    python(&Server::start(), "send.py", &[]);
}

#[test]
fn python_reads() {
    python(&Server::start(), "read.py", &[]);
}

/// The two lines that the server prints for a new user are run as they are.
#[test]
fn the_lines_that_the_server_prints_work() {
    if find("curl").is_none() {
        return;
    }
    let server = Server::start();
    // They are printed after `ready`.
    let deadline = blackbox::Deadline::usual();
    let line = |kind: &str| loop {
        let log = server.log();
        let found = log.lines().find_map(|line| line.strip_prefix(kind));
        if let Some(line) = found {
            return line.to_owned();
        }
        assert!(!deadline.is_over(), "no {kind} in {log}");
        std::thread::yield_now();
    };
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("ROOKERY_DEV_PASSWORD", PASSWORD);
        succeed(&mut command, b"")
    };
    let (send, read) = (line("send: "), line("read: "));
    shell(&send);
    let shown = shell(&read);
    assert!(shown.contains("Subject: hello"), "{shown:?}");
    assert!(shown.contains("Hello Alice"), "{shown:?}");
}

#[test]
fn curl_reads() {
    let Some(curl) = find("curl") else { return };
    let server = Server::start();
    let mail = message(BOB, ALICE, "curl", "read by curl");
    Smtp::exchange(&server).deliver(BOB, ALICE, mail.as_bytes());
    let run = |path: &str, arguments: &[&str]| {
        let url = format!("imaps://localhost:{}/{path}", server.ports.imaps);
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--max-time", "60", "--cacert"]);
        command.arg(server.certificate()).args(["--user", &format!("{ALICE}:{PASSWORD}")]);
        succeed(command.args(arguments).arg(url), b"")
    };
    let listed = run("", &[]);
    assert!(listed.contains("INBOX"), "{listed}");
    let shown = run("INBOX;MAILINDEX=1", &[]);
    assert!(shown.ends_with(&mail), "{shown:?}");
    let flags = run("INBOX", &["--request", "FETCH 1 FLAGS"]);
    assert!(flags.contains("* 1 FETCH (FLAGS ("), "{flags}");
    assert!(flags.contains("\\Seen"), "curl has read it: {flags}");
    run("INBOX", &["--request", "STORE 1 +FLAGS (\\Flagged)"]);
    let found = run("INBOX?FLAGGED", &[]);
    assert!(found.contains("* SEARCH 1"), "{found}");
    let uid = run("INBOX;UID=1;SECTION=TEXT", &[]);
    assert_eq!(uid, mail.split_once("\r\n\r\n").expect("it has a body").1);
}

/// A Maildir that `mbsync` keeps.
struct Maildir<'a> {
    server: &'a Server,
    mbsync: PathBuf,
    folder: tempfile::TempDir,
}

impl Maildir<'_> {
    fn sync(&self) {
        let folder = self.folder.path().display();
        let config = self.folder.path().join("mbsyncrc");
        let text = format!(
            "IMAPAccount alice\nHost localhost\nPort {port}\nUser {ALICE}\nPass {PASSWORD}\n\
             SSLType IMAPS\nCertificateFile {certificate}\nSystemCertificates no\n\n\
             IMAPStore far\nAccount alice\n\n\
             MaildirStore near\nPath {folder}/mail/\nInbox {folder}/mail/INBOX\n\
             SubFolders Verbatim\n\n\
             Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\n\
             SyncState *\n",
            port = self.server.ports.imaps,
            certificate = self.server.certificate().display(),
        );
        fs::write(&config, text).expect("the folder is writable");
        fs::create_dir_all(self.folder.path().join("mail")).expect("the folder is writable");
        succeed(Command::new(&self.mbsync).arg("--config").arg(&config).arg("all"), b"");
    }

    fn inbox(&self) -> PathBuf {
        self.folder.path().join("mail").join("INBOX")
    }

    /// Message-ID -> path of the file.
    fn files(&self) -> BTreeMap<String, PathBuf> {
        let mut files = BTreeMap::new();
        for name in ["new", "cur"] {
            for entry in fs::read_dir(self.inbox().join(name)).expect("mbsync has made it") {
                let path = entry.expect("the folder is readable").path();
                let id = id_of(&fs::read(&path).expect("the file is readable"));
                assert!(files.insert(id.clone(), path).is_none(), "{id} is there twice");
            }
        }
        files
    }
}

fn id_of(message: &[u8]) -> String {
    let text = text(message);
    let line = text.lines().find_map(|line| line.strip_prefix("Message-ID: <"));
    let id = line.and_then(|rest| rest.split_once("@blackbox.test>"));
    id.unwrap_or_else(|| panic!("no Message-ID of ours in {text:?}")).0.to_owned()
}

/// The text without the field that mbsync marks its copies with, and with LF alone.
fn without_mark(message: &[u8]) -> String {
    let text = text(message).replace("\r\n", "\n");
    text.split_inclusive('\n').filter(|line| !line.starts_with("X-TUID: ")).collect()
}

fn flags_of(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once(":2,").map_or("", |(_, flags)| flags)
}

#[test]
fn mbsync_keeps_both_sides_alike() {
    let Some(mbsync) = find("mbsync") else { return };
    let server = Server::start();
    let deliver = |id: &str| {
        let mail = message(BOB, ALICE, id, "kept by mbsync");
        Smtp::exchange(&server).deliver(BOB, ALICE, mail.as_bytes());
    };
    for id in ["one", "two", "three"] {
        deliver(id);
    }
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let near = Maildir { server: &server, mbsync, folder };
    near.sync();
    let files = near.files();
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["one", "three", "two"]);
    for body in mailbox(&server, ALICE, "INBOX").values() {
        let copy = fs::read(&files[&id_of(body)]).expect("the file is readable");
        assert_eq!(without_mark(&copy), text(body).replace("\r\n", "\n"));
    }

    // A flag and a new mail on each side, and an expunge far away.
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    imap.ok("UID STORE 1 +FLAGS.SILENT (\\Flagged)");
    imap.ok("UID STORE 3 +FLAGS.SILENT (\\Deleted)");
    imap.ok("EXPUNGE");
    deliver("four");
    let seen = near.inbox().join("cur").join(format!(
        "{}:2,S",
        files["two"]
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split(":2,").next())
            .expect("mbsync's names are ASCII")
    ));
    fs::rename(&files["two"], seen).expect("the folder is writable");
    let five = message(ALICE, BOB, "five", "written near").replace("\r\n", "\n");
    fs::write(near.inbox().join("new").join("1767268800.five.near"), five)
        .expect("the folder is writable");
    near.sync();

    let expected = ["five", "four", "one", "two"];
    let check = || {
        let files = near.files();
        assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        assert_eq!((flags_of(&files["one"]), flags_of(&files["two"])), ("F", "S"));
        let far = mailbox(&server, ALICE, "INBOX");
        let mut ids: Vec<String> = far.values().map(|body| id_of(body)).collect();
        ids.sort();
        assert_eq!(ids, expected);
        let five = far.values().find(|body| id_of(body) == "five").expect("it is among them");
        assert!(text(five).ends_with(&format!("{CONTENT} written near\r\n")), "{:?}", text(five));
        let mut imap = server.imap(ALICE);
        imap.ok("EXAMINE INBOX");
        assert_eq!(imap.ok("UID SEARCH FLAGGED").search(), [1]);
        assert_eq!(imap.ok("UID SEARCH UID 1:3 SEEN").search(), [2]);
        (files, far)
    };
    let after = check();
    // It has converged: another run changes nothing on either side.
    near.sync();
    assert_eq!(check(), after);
}
