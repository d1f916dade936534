//! Dialogues over a memory store: the driver, the session and the transactions together.

mod changes;
mod messages;
mod names;

use std::time::Duration;

use env::Env;
use kv::{Database, LargeValues};
use mail::{AccountId, NewEmail, OperationId, directory::Address};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::serve;
use crate::{
    auth::new_credential,
    config::{Config, PortBase},
    deliver::{Append, OnFailure, Request, Target},
    hub::Hub,
    metrics::Protocol,
    peers::Peers,
    services::Services,
    stop::Stop,
    stores::Stores,
    tls::{Tls, TlsInfo},
    transport::Transport,
};

struct Server {
    services: Services,
    account: AccountId,
    stop: Stop,
    _folder: tempfile::TempDir,
}

struct Client {
    env: Env,
    stream: DuplexStream,
    buffer: Vec<u8>,
    next_tag: u32,
    _task: env::Task<()>,
}

impl Server {
    async fn new() -> Self {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let values = LargeValues::memory(env.clone());
        let blobs = blob::BlobStore::embedded(values, env.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = Config::dev(Some(folder.path().to_owned()), PortBase::default()).unwrap();
        let stop = Stop::new();
        let tls = Tls::self_signed(&env, folder.path(), &["localhost".to_owned()]).unwrap();
        let hub = Hub::default();
        let peers = Peers::join(&db.counted_apart(), &env, &config, &hub).await.unwrap();
        let heard = (hub, peers.ears.clone());
        let stores = Stores::new(db, blobs);
        let services = Services::new(stores, config, env, tls, stop.listen(), heard).unwrap();
        let account = add_account(&services).await;
        Self { services, account, stop, _folder: folder }
    }

    /// A client on a connection that counts as protected, past its greeting.
    async fn connect(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let env = &self.services.env;
        let peer = "127.0.0.1".parse().unwrap();
        let mut transport = Transport::new(env.clone(), Box::new(theirs), peer);
        transport.tls = Some(TlsInfo {
            protocol: "TLSv1.3",
            cipher: String::new(),
            server_name: None,
            exporter: None,
            end_point: None,
        });
        let task = env.spawn("imap", serve(self.services.clone(), transport, Protocol::Imap));
        let mut client =
            Client { env: env.clone(), stream: ours, buffer: Vec::new(), next_tag: 0, _task: task };
        assert!(client.line().await.starts_with("* OK"), "greeting");
        client
    }

    async fn login(&self) -> Client {
        let mut client = self.connect().await;
        client.ok("LOGIN alice@example.org secret").await;
        client
    }

    async fn deliver(&self, text: &str) {
        let env = &self.services.env;
        let bytes = text.replace('\n', "\r\n").into_bytes();
        let blob = self.services.blobs.put(&bytes).await.unwrap();
        let mut scanner = message::Scanner::new(message::Limits::default());
        scanner.push(&bytes);
        let email =
            NewEmail::from_scan(blob, &scanner.finish(), env.wall(), mail::KeywordSet::default());
        let request = Request {
            appends: vec![Append {
                account: self.account,
                target: Target::Inbox,
                email: email.into(),
                operation: OperationId::random(env),
                recipients: Vec::new(),
                tell_success: Vec::new(),
            }],
            outbound: None,
            on_failure: OnFailure::Tell,
        };
        let delivered = self.services.deliverer.submit(request).await.unwrap();
        delivered.appends[0].as_ref().expect("delivered");
    }

    async fn check(&self) {
        let account = self.account;
        let found = self
            .services
            .db
            .run(|tx| async move { mail::fold::check_account(&tx, account).await })
            .await
            .unwrap();
        assert_eq!(found, [], "state, log and counters agree");
    }
}

async fn add_account(services: &Services) -> AccountId {
    let credential = new_credential(&services.env, "secret").await.unwrap();
    let new = mail::NewAccount {
        address: Address::parse("alice@example.org").unwrap(),
        description: String::new(),
        quota_bytes: 0,
        credential,
    };
    let now = services.env.wall();
    let operations = std::array::from_fn(|_| OperationId::random(&services.env));
    let (new, operations) = (&new, &operations);
    services
        .db
        .run(|tx| async move {
            mail::directory::add_domain(&tx, "example.org", now).await.unwrap();
            mail::create_account(&tx, new, now, operations).await
        })
        .await
        .unwrap()
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// One response line, its literals included.
    async fn line(&mut self) -> String {
        let mut end = 0;
        loop {
            let rest = self.buffer.get(end..).unwrap_or_default();
            if let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
                let line_end = end + at + 2;
                match literal(&self.buffer[end..line_end]) {
                    Some(len) => end = line_end + len,
                    None => {
                        let line: Vec<u8> = self.buffer.drain(..line_end).collect();
                        return String::from_utf8_lossy(&line).trim_end().to_owned();
                    }
                }
                if end <= self.buffer.len() {
                    continue;
                }
            }
            let mut more = [0; 4096];
            let read = self.env.timeout(WAIT, self.stream.read(&mut more));
            let read = read.await.expect("the server answers in time").unwrap();
            assert!(
                read > 0,
                "closed in the middle of {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
            self.buffer.extend_from_slice(&more[..read]);
        }
    }

    /// Sends a command and returns its untagged lines and its tagged one, without the tag.
    async fn command(&mut self, command: &str) -> (Vec<String>, String) {
        self.next_tag += 1;
        let tag = format!("a{} ", self.next_tag);
        self.send(format!("{tag}{command}\r\n").as_bytes()).await;
        let mut untagged = Vec::new();
        loop {
            let line = self.line().await;
            match line.strip_prefix(&tag) {
                Some(done) => return (untagged, done.to_owned()),
                None => untagged.push(line),
            }
        }
    }

    async fn ok(&mut self, command: &str) -> Vec<String> {
        let (untagged, done) = self.command(command).await;
        assert!(done.starts_with("OK"), "{command}: {untagged:?} {done}");
        untagged
    }

    /// APPENDs to INBOX and returns the tagged line.
    async fn append(&mut self, message: &[u8]) -> String {
        self.send(format!("p APPEND INBOX {{{}}}\r\n", message.len()).as_bytes()).await;
        assert!(self.line().await.starts_with('+'));
        self.send(message).await;
        self.send(b"\r\n").await;
        loop {
            let line = self.line().await;
            if let Some(done) = line.strip_prefix("p ") {
                return done.to_owned();
            }
        }
    }

    async fn no(&mut self, command: &str) -> String {
        let (_, done) = self.command(command).await;
        assert!(done.starts_with("NO"), "{command}: {done}");
        done
    }
}

const WAIT: Duration = Duration::from_secs(20);

fn literal(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line.strip_suffix(b"}\r\n")?).ok()?;
    text.rsplit_once('{')?.1.parse().ok()
}

const HELLO: &str = "From: Bob <bob@example.org>\nTo: alice@example.org\n\
    Subject: Hello\nMessage-ID: <1@x>\nDate: Mon, 7 Feb 1994 21:52:25 -0800\n\n\
    Hello Alice,\nhow are you?\n";

#[tokio::test]
async fn a_message_is_listed_fetched_and_marked() {
    let server = Server::new().await;
    server.deliver(HELLO).await;
    let mut client = server.login().await;
    let untagged = client.ok("SELECT INBOX").await;
    assert!(untagged.contains(&"* 1 EXISTS".to_owned()), "{untagged:?}");
    assert!(untagged.iter().any(|line| line.starts_with("* OK [UNSEEN 1]")));
    let fetched = client.ok("FETCH 1 (ENVELOPE BODYSTRUCTURE RFC822.SIZE FLAGS)").await;
    assert_eq!(fetched.len(), 1);
    let line = &fetched[0];
    assert!(line.contains(r#""Hello" (("Bob" NIL "bob" "example.org"))"#), "{line}");
    assert!(line.contains(r#"("TEXT" "PLAIN""#) || line.contains(r#"("text" "plain""#), "{line}");
    assert!(line.contains("FLAGS ()"));
    let fetched = client.ok("FETCH 1 BODY[]").await;
    assert!(fetched[0].contains("Hello Alice,\r\nhow are you?"), "{fetched:?}");
    assert!(fetched[0].contains(r"FLAGS (\Seen)"), "reading sets \\Seen and tells: {fetched:?}");
    let fetched = client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]").await;
    assert!(fetched[0].contains("{18}\r\nSubject: Hello\r\n\r\n"), "{fetched:?}");
    let fetched = client.ok("UID FETCH 1 BODY.PEEK[TEXT]<6.5>").await;
    assert!(fetched[0].contains("BODY[TEXT]<6> {5}\r\nAlice"), "{fetched:?}");
    let stored = client.ok(r"STORE 1 +FLAGS (\Flagged custom)").await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert!(stored[0].contains(r"\Flagged") && stored[0].contains("custom"));
    server.check().await;
}

#[tokio::test]
async fn reads_of_envelope_and_flags_touch_no_blob() {
    let server = Server::new().await;
    for _ in 0..5 {
        server.deliver(HELLO).await;
    }
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    let before = server.services.blobs.counts();
    client.ok("FETCH 1:* ALL").await;
    client.ok("FETCH 1:* (BODY BODYSTRUCTURE MODSEQ INTERNALDATE)").await;
    client.ok("FETCH 1:* BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE)]").await;
    client.ok("SEARCH FROM bob SUBJECT hello SENTSINCE 1-Jan-1990").await;
    assert_eq!(server.services.blobs.counts(), before);
}

#[tokio::test]
async fn two_sessions_see_each_others_changes() {
    let server = Server::new().await;
    for _ in 0..3 {
        server.deliver(HELLO).await;
    }
    let mut first = server.login().await;
    let mut second = server.login().await;
    first.ok("SELECT INBOX").await;
    second.ok("SELECT INBOX").await;
    first.ok(r"STORE 2 +FLAGS.SILENT (\Deleted)").await;
    let expunged = first.ok("EXPUNGE").await;
    assert_eq!(expunged, ["* 2 EXPUNGE"]);
    // RFC 2180 §4.1.2 and RFC 9051 §7.5.1: the second client is not told in a FETCH.
    let (untagged, done) = second.command("FETCH 2 ENVELOPE").await;
    assert!(untagged.is_empty() && done.starts_with("NO [EXPUNGEISSUED]"), "{untagged:?} {done}");
    let (untagged, done) = second.command("FETCH 3 ENVELOPE").await;
    assert!(untagged[0].starts_with("* 3 FETCH") && done.starts_with("OK"), "{untagged:?}");
    assert_eq!(second.ok("NOOP").await, ["* 2 EXPUNGE"]);
    server.deliver(HELLO).await;
    assert_eq!(second.ok("NOOP").await, ["* 3 EXISTS"]);
    first.ok(r"STORE 1 +FLAGS (\Answered)").await;
    let told = second.ok("NOOP").await;
    assert!(told.len() == 1 && told[0].starts_with(r"* 1 FETCH (FLAGS (\Answered"), "{told:?}");
    server.check().await;
}

#[tokio::test]
async fn an_idling_session_learns_of_a_delivery() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    client.send(b"i IDLE\r\n").await;
    assert!(client.line().await.starts_with('+'));
    server.deliver(HELLO).await;
    assert_eq!(client.line().await, "* 1 EXISTS");
    client.send(b"DONE\r\n").await;
    assert!(client.line().await.starts_with("i OK"));
    client.send(b"i IDLE\r\n").await;
    assert!(client.line().await.starts_with('+'));
    server.stop.stop();
    assert!(client.line().await.starts_with("* BYE"));
}

#[tokio::test]
async fn append_copy_move_and_expunge() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.send(b"b APPEND INBOX (\\Seen) \" 7-Feb-1994 21:52:25 -0800\" {21}\r\n").await;
    assert!(client.line().await.starts_with('+'));
    client.send(b"Subject: x\r\n\r\nhello\r\n\r\n").await;
    let done = client.line().await;
    assert!(done.starts_with("b OK [APPENDUID "), "{done}");
    client.ok("SELECT INBOX").await;
    let copied = client.command("COPY 1 Archive").await.1;
    assert!(copied.contains("[COPYUID ") && copied.contains(" 1 1]"), "{copied}");
    client.ok("CREATE Work/Projects").await;
    let moved = client.ok("MOVE 1 Work/Projects").await;
    assert!(moved[0].contains("COPYUID") && moved[1] == "* 1 EXPUNGE", "{moved:?}");
    assert!(client.no("COPY 1:* Nowhere").await.contains("TRYCREATE"));
    let status = client.ok("STATUS Work/Projects (MESSAGES UIDNEXT UNSEEN SIZE)").await;
    assert_eq!(status, ["* STATUS Work/Projects (MESSAGES 1 UIDNEXT 2 UNSEEN 0 SIZE 21)"]);
    client.ok("SELECT Archive").await;
    client.ok(r"STORE 1 +FLAGS (\Deleted)").await;
    assert_eq!(client.ok("UID EXPUNGE 1").await, ["* 1 EXPUNGE"]);
    server.check().await;
}

#[tokio::test]
async fn mailboxes_are_listed_renamed_and_deleted() {
    let server = Server::new().await;
    server.deliver(HELLO).await;
    let mut client = server.login().await;
    let listed = client.ok(r#"LIST "" "*""#).await;
    assert_eq!(listed.len(), 6);
    assert!(listed.iter().any(|line| line.contains(r"\Sent")), "{listed:?}");
    client.ok("CREATE a/b/c").await;
    assert!(client.no("CREATE a/b").await.contains("ALREADYEXISTS"));
    assert!(client.no("DELETE a").await.contains("HASCHILDREN"));
    client.ok("RENAME a z/y").await;
    let listed = client.ok(r#"LIST "" "z*""#).await;
    assert_eq!(listed.len(), 4, "{listed:?}");
    client.ok("DELETE z/y/b/c").await;
    client.ok("RENAME INBOX old").await;
    let status = client.ok("STATUS old (MESSAGES)").await;
    assert_eq!(status, ["* STATUS old (MESSAGES 1)"]);
    client.ok("DELETE old").await;
    assert!(client.no("SELECT old").await.contains("NONEXISTENT"));
    assert!(client.no("DELETE INBOX").await.contains("CANNOT"));
    let special = client.ok(r#"LIST (SPECIAL-USE) "" "*" RETURN (STATUS (MESSAGES))"#).await;
    assert_eq!(special.iter().filter(|line| line.starts_with("* LIST")).count(), 5);
    assert_eq!(special.iter().filter(|line| line.starts_with("* STATUS")).count(), 5);
    server.check().await;
}

#[tokio::test]
async fn searches_by_row_record_and_bytes() {
    let server = Server::new().await;
    server.deliver(HELLO).await;
    server
        .deliver("From: carol@example.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nnothing\n")
        .await;
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    client.ok(r"STORE 1 +FLAGS (\Seen)").await;
    for (query, expected) in [
        ("ALL", "* SEARCH 1 2"),
        ("UNSEEN", "* SEARCH 2"),
        ("NOT SEEN", "* SEARCH 2"),
        ("FROM bob", "* SEARCH 1"),
        ("BODY \"how are\"", "* SEARCH 1"),
        ("TEXT nothing", "* SEARCH 2"),
        ("OR FROM carol SUBJECT hello", "* SEARCH 1 2"),
        ("SUBJECT \"grüße\"", "* SEARCH 2"),
        ("HEADER message-id \"\"", "* SEARCH 1"),
        ("2:*", "* SEARCH 2"),
        ("LARGER 100000", "* SEARCH"),
    ] {
        let found = client.ok(&format!("SEARCH CHARSET UTF-8 {query}")).await;
        assert_eq!(found, [expected], "{query}");
    }
    let found = client.ok("UID SEARCH RETURN (MIN MAX COUNT SAVE) ALL").await;
    assert!(found[0].contains("MIN 1") && found[0].contains("MAX 2"), "{found:?}");
    let fetched = client.ok("FETCH $ FLAGS").await;
    assert_eq!(fetched.len(), 2, "{fetched:?}");
    let (_, done) = client.command("SEARCH 7").await;
    assert!(done.starts_with("BAD"), "{done}");
}

#[tokio::test]
async fn condstore_tells_and_guards_modification_sequences() {
    let server = Server::new().await;
    for _ in 0..2 {
        server.deliver(HELLO).await;
    }
    let mut client = server.login().await;
    let selected = client.ok("SELECT INBOX (CONDSTORE)").await;
    let highest: u64 = selected
        .iter()
        .find_map(|line| line.strip_prefix("* OK [HIGHESTMODSEQ ")?.split(']').next()?.parse().ok())
        .expect("HIGHESTMODSEQ");
    let stored = client.ok(&format!(r"STORE 1 (UNCHANGEDSINCE {highest}) +FLAGS (\Flagged)")).await;
    assert!(stored[0].contains("MODSEQ ("), "{stored:?}");
    let (_, done) =
        client.command(&format!(r"STORE 1,2 (UNCHANGEDSINCE {highest}) +FLAGS (\Seen)")).await;
    assert!(done.starts_with("OK [MODIFIED 1]"), "{done}");
    let changed = client.ok(&format!("FETCH 1:* (FLAGS) (CHANGEDSINCE {highest})")).await;
    assert_eq!(changed.len(), 2, "{changed:?}");
    let silent = client.ok(r"STORE 1 +FLAGS.SILENT (\Draft)").await;
    assert!(silent[0].contains("MODSEQ") && !silent[0].contains("FLAGS"), "{silent:?}");
    server.check().await;
}

#[tokio::test]
async fn wrong_passwords_and_read_only_mailboxes_are_refused() {
    let server = Server::new().await;
    server.deliver(HELLO).await;
    let mut client = server.connect().await;
    assert!(client.no("LOGIN alice@example.org wrong").await.contains("AUTHENTICATIONFAILED"));
    let (_, done) = client.command("SELECT INBOX").await;
    assert!(done.starts_with("BAD"), "{done}");
    client.ok("LOGIN alice@example.org secret").await;
    client.ok("EXAMINE INBOX").await;
    client.no(r"STORE 1 +FLAGS (\Seen)").await;
    let fetched = client.ok("FETCH 1 BODY[]").await;
    assert!(!fetched[0].contains(r"\Seen"), "EXAMINE changes nothing");
}
