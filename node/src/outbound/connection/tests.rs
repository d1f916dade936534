//! A message's end behind a server that takes nothing for a while.

use std::{
    cell::Cell,
    path::PathBuf,
    pin::pin,
    task::{Context, Waker},
};

use blob::BlobStore;
use smtp::{
    ForwardPath, ReversePath,
    client::{Recipient, RecipientOutcome},
};
use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;

/// Bytes that lie between client and server: what does not fit waits.
const WINDOW: usize = 512;

/// Reads the client's command, and says this to it.
async fn say(server: &mut DuplexStream, expected: &str, reply: &[u8]) {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(server.read_u8().await.unwrap());
    }
    assert!(line.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&line));
    server.write_all(reply).await.unwrap();
}

/// A session that is open, and the server's end of it.
async fn open(env: &Env, security: &Security) -> (Connection, DuplexStream) {
    let (client, mut server) = tokio::io::duplex(WINDOW);
    let call = Call {
        address: "127.0.0.1:25".parse().unwrap(),
        source: None,
        host: "mx.example.net".to_owned(),
        helo: HeloName::parse("mx.example.org").unwrap(),
        dialect: Dialect::Smtp,
        encryption: Encryption::Never,
        login: None,
        demand: Demand::Nothing,
        need: Need::Ordinary,
        timeouts: Timeouts::default(),
    };
    let serving = async {
        server.write_all(b"220 mx\r\n").await.unwrap();
        say(&mut server, "EHLO", b"250 mx\r\n").await;
    };
    let (opened, ()) =
        tokio::join!(Connection::greet(env, security, Box::new(client), call), serving);
    (opened.unwrap(), server)
}

fn transaction() -> Transaction {
    let recipient = Recipient::new(ForwardPath::parse("<r@example.net>").unwrap());
    Transaction::new(ReversePath::Null, vec![recipient])
}

/// What is not read by the server, of a message that fills the window: its end waits. `is_ours` tells
/// whether the claim lasts once the server reads on. What it reads then, and what the client finds.
async fn check(is_ours: bool) -> (Vec<u8>, Result<Outcome, SendError>) {
    let env = Env::system();
    let security = Security::new(&env, PathBuf::new());
    let (mut connection, mut server) = open(&env, &security).await;
    let blobs = BlobStore::embedded(kv::LargeValues::memory(env.clone()), env.clone());
    let blobs = blobs.await.unwrap();
    let line = "x".repeat(WINDOW - 2) + "\r\n";
    let blob = blobs.put(line.as_bytes()).await.unwrap();
    let content = Content::new(&[], blobs.read(blob, 0..u64::MAX).await.unwrap());
    let (may_end, asked) = (Cell::new(true), Cell::new(0));
    let fence = || {
        asked.set(asked.get() + 1);
        may_end.get()
    };
    let mut sending = pin!(connection.send(&security, transaction(), content, fence));
    let dialogue = async {
        say(&mut server, "MAIL", b"250 ok\r\n").await;
        say(&mut server, "RCPT", b"250 ok\r\n").await;
        say(&mut server, "DATA", b"354 go on\r\n").await;
    };
    tokio::select! {
        biased;
        _ = &mut sending => panic!("it is over"),
        () = dialogue => {}
    }
    // Once the end is made, and once before it would be written.
    while asked.get() < 2 {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sending.as_mut().poll(&mut cx).is_pending());
        tokio::task::yield_now().await;
    }
    may_end.set(is_ours);
    let mut read = Vec::new();
    let reading = async {
        let mut buffer = [0; WINDOW];
        loop {
            let count = server.read(&mut buffer).await.unwrap();
            read.extend_from_slice(&buffer[..count]);
            if count == 0 {
                break;
            }
            if read.ends_with(b"\r\n.\r\n") {
                server.write_all(b"250 taken\r\n").await.unwrap();
                break;
            }
        }
    };
    let (sent, ()) = tokio::join!(sending, reading);
    (read, sent)
}

#[tokio::test]
async fn an_end_that_waits_leaves_only_while_the_claim_lasts() {
    let (read, sent) = check(true).await;
    let outcome = sent.unwrap();
    assert!(matches!(outcome.recipients[..], [RecipientOutcome::Accepted(_)]), "{outcome:?}");
    assert!(read.ends_with(b"x\r\n.\r\n"));
    let (read, sent) = check(false).await;
    assert!(matches!(sent, Err(SendError::Unclaimed)), "{sent:?}");
    assert_eq!(read.len(), WINDOW, "nothing of the end");
}
