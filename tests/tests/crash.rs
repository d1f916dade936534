//! kill -9 in the middle of a stream of deliveries: what was acknowledged is there, once.
//!
//! This is P1 and P2 of the design's proofs, with a real process and a real disk. A SIGKILL
//! leaves what the process has written to the system; the loss of power is the store's own tests'
//! and the simulation's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, mpsc},
    thread,
};

use blackbox::{
    PATIENCE,
    imap::number_after,
    message, report,
    server::{ALICE, BOB, Server},
    smtp::Smtp,
};

/// Clients that deliver at once.
const CLIENTS: usize = 4;

/// Acknowledgements after which each round's server is killed: early, and well under way.
const ROUNDS: [usize; 5] = [3, 40, 150, 90, 250];

const SENDER: &str = "sender@elsewhere.example";

#[derive(Debug, Default)]
struct Sent {
    /// The final dot may have reached the server.
    begun: BTreeMap<String, String>,
    acknowledged: BTreeSet<String>,
}

/// Delivers numbered messages to both accounts until the server is gone.
fn deliver(server: &Server, name: &str, sent: &Mutex<Sent>, told: &mpsc::Sender<()>) {
    let mut smtp = Smtp::exchange(server);
    for number in 0.. {
        let id = format!("{name}-{number}");
        // Of all sizes, so that the kill meets messages of one read and of many.
        let body = "0123456789abcdef\r\n".repeat(number * number * 7 % 4000);
        let mail = message(SENDER, ALICE, &id, &format!("{id}\r\n{body}end of {id}"));
        sent.lock().expect("nobody panics here").begun.insert(id.clone(), mail.clone());
        let mut step = |line: &[u8], code: u16| -> std::io::Result<bool> {
            smtp.wire().try_send(line)?;
            let reply = smtp.try_reply()?;
            assert_eq!(reply.code, code, "{reply}");
            Ok(true)
        };
        let mut transaction = || -> std::io::Result<bool> {
            step(format!("MAIL FROM:<{SENDER}>\r\n").as_bytes(), 250)?;
            step(format!("RCPT TO:<{ALICE}>\r\n").as_bytes(), 250)?;
            step(format!("RCPT TO:<{BOB}>\r\n").as_bytes(), 250)?;
            step(b"DATA\r\n", 354)?;
            step(&blackbox::smtp::stuffed(mail.as_bytes()), 250)
        };
        if transaction().is_err() {
            return;
        }
        sent.lock().expect("nobody panics here").acknowledged.insert(id);
        // The round may be over for the one who listens.
        let _ignored = told.send(());
    }
}

/// A mailbox's messages by their id, after the checks that need no knowledge of what was sent.
fn inbox(server: &Server, user: &str) -> (BTreeMap<String, Vec<u8>>, u64) {
    let mut imap = server.imap(user);
    let selected = imap.ok("EXAMINE INBOX");
    let validity = number_after(&selected.texts().join("\n"), "UIDVALIDITY");
    let uid_next = number_after(&selected.texts().join("\n"), "UIDNEXT");
    let fetched = imap.ok("UID FETCH 1:* (UID BODY.PEEK[])");
    let mut messages = BTreeMap::new();
    let mut last = 0;
    for mut line in fetched.untagged {
        if line.literals.is_empty() {
            continue;
        }
        let uid = number_after(&line.text, "UID ");
        assert!(uid > last && uid < uid_next, "{uid} after {last}, before {uid_next}");
        last = uid;
        let body = line.literals.swap_remove(0);
        let text = String::from_utf8(body.clone()).expect("what was sent is ASCII");
        let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: <"));
        let id = id.and_then(|rest| rest.strip_suffix("@blackbox.test>"));
        let id = id.unwrap_or_else(|| panic!("damaged: {text:?}")).to_owned();
        assert!(messages.insert(id.clone(), body).is_none(), "{id} is there twice");
    }
    let status = imap.ok("STATUS INBOX (MESSAGES UNSEEN)");
    let status = status.find("STATUS").expect("it is told").text.clone();
    assert_eq!(number_after(&status, "MESSAGES"), messages.len() as u64, "{status}");
    assert_eq!(number_after(&status, "UNSEEN"), messages.len() as u64, "{status}");
    (messages, validity)
}

#[test]
fn every_acknowledged_message_is_there_once_after_kill_9() {
    let mut server = Server::start();
    let sent = Mutex::new(Sent::default());
    let (_, validity) = inbox(&server, ALICE);
    for (round, wanted) in ROUNDS.into_iter().enumerate() {
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (tell, sent, server) = (tell.clone(), &sent, &server);
                let name = format!("r{round}-c{client}");
                scope.spawn(move || deliver(server, &name, sent, &tell));
            }
            for _ in 0..wanted {
                told.recv_timeout(PATIENCE).expect("messages are accepted");
            }
            server.kill();
        });
        server.reap();
        server.restart();

        let sent = sent.lock().expect("nobody panics here");
        let (alice, alice_validity) = inbox(&server, ALICE);
        let (bob, _) = inbox(&server, BOB);
        assert_eq!(alice_validity, validity);
        for id in &sent.acknowledged {
            assert!(alice.contains_key(id), "{id} was acknowledged and is lost");
        }
        // One transaction a message: all of its recipients have it, or none.
        assert_eq!(alice.keys().collect::<Vec<_>>(), bob.keys().collect::<Vec<_>>());
        for (id, body) in alice.iter().chain(&bob) {
            assert!(body.ends_with(sent.begun[id].as_bytes()), "{id} is damaged");
        }
        let unacknowledged = alice.len() - sent.acknowledged.len();
        assert!(unacknowledged <= CLIENTS * (round + 1), "each client leaves one open at most");
        report(&format!(
            "crash round {round}: {} acknowledged so far, all there once; {unacknowledged} more \
             were committed before their reply was lost",
            sent.acknowledged.len(),
        ));
    }
    // Life goes on.
    let mail = message(SENDER, ALICE, "afterwards", "still alive");
    Smtp::exchange(&server).deliver(SENDER, ALICE, mail.as_bytes());
    assert!(inbox(&server, ALICE).0.contains_key("afterwards"));
}
