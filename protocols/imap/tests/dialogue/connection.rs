//! IDLE, time, shutdown, limits, streaming, and drivers at fault.

use std::time::Duration;

use bytes::Bytes;
use imap::command::*;
use imap::response::*;
use imap::*;

use crate::peer::*;

/// What a driver must not do, and what the client sees of it.
fn check_fault(replies: fn(&Call) -> Vec<Reply>, output: &str) {
    let mut peer = Peer::new(config(), replies);
    peer.input(b"l LOGIN u p\r\ns SELECT INBOX\r\n");
    peer.run.output.clear();
    peer.input(b"a FETCH 1 BODY[]\r\n");
    assert_eq!(peer.run.output, output.replace('\n', "\r\n"));
    assert!(peer.run.closed);
    assert_eq!(peer.session.phase(), Phase::Logout);
}

#[test]
fn a_driver_at_fault_closes_the_connection() {
    fn literal(call: &Call, after: Vec<Reply>) -> Vec<Reply> {
        let Call::Fetch(fetch) = call else {
            return plain(call);
        };
        let item = fetch.items[0].literal_item().expect("a section");
        let begin =
            vec![Reply::FetchBegin(seq(1)), Reply::FetchLiteral(FetchLiteral { item, length: 3 })];
        begin.into_iter().chain(after).collect()
    }
    check_fault(
        |call| literal(call, vec![Reply::FetchData("ab".into()), Reply::FetchEnd]),
        "* 1 FETCH (BODY[] {3}\nab",
    );
    check_fault(
        |call| literal(call, vec![Reply::FetchData("abcd".into())]),
        "* 1 FETCH (BODY[] {3}\n",
    );
    check_fault(
        |call| literal(call, vec![Reply::Done(Completion::ok())]),
        "* 1 FETCH (BODY[] {3}\n",
    );
    check_fault(
        |call| match call {
            Call::Fetch(_) => vec![Reply::Untagged(Response::Expunge(seq(1)))],
            call => plain(call),
        },
        "* BYE [SERVERBUG] Internal error\n",
    );
    check_fault(
        |call| match call {
            Call::Fetch(_) => vec![Reply::AppendReady],
            call => plain(call),
        },
        "* BYE [SERVERBUG] Internal error\n",
    );
}

#[test]
fn idle() {
    let calls = check(
        plain,
        "a IDLE\ndone\nb IDLE\nc NOOP\nd NOOP",
        "+ idling
a OK IDLE completed
+ idling
b BAD Expected DONE
d OK NOOP completed",
    );
    assert_eq!(calls[..2], [Call::IdleBegin, Call::IdleEnd]);

    let mut peer = Peer::new(config(), plain);
    let exists = || vec![Response::Exists(3)];
    let expunge = || vec![Response::Exists(3), Response::Expunge(seq(1))];
    assert!(peer.session.handle_event(exists()).is_err());
    peer.input(b"l LOGIN u p\r\ns SELECT INBOX\r\n");
    assert_eq!(peer.session.handle_event(expunge()), Err(EventRefused(expunge())));
    assert_eq!(peer.session.handle_event(exists()), Ok(()));
    peer.input(b"i IDLE\r\n");
    assert!(peer.session.is_idle() && peer.session.may_expunge());
    peer.run.output.clear();
    assert_eq!(peer.session.handle_event(expunge()), Ok(()));
    peer.pump();
    assert_eq!(peer.run.output, "* 3 EXISTS\r\n* 1 EXPUNGE\r\n");
}

#[test]
fn silence_ends_the_session() {
    let mut peer = Peer::new(config(), plain);
    peer.session.handle_timeout(START + limits::PREAUTH_TIMEOUT - Duration::from_secs(1));
    peer.input(b"a NOOP\r\nl LOGIN u p\r\n");
    // The login restarted the timer, so this is not the end yet.
    let later = START + limits::PREAUTH_TIMEOUT;
    peer.session.handle_timeout(later);
    assert_eq!(peer.session.poll_output(), Some(Output::WakeAt(later + limits::AUTOLOGOUT)));
    peer.session.handle_timeout(later + limits::AUTOLOGOUT - Duration::from_secs(1));
    peer.pump();
    assert!(!peer.run.closed);
    peer.session.handle_timeout(later + limits::AUTOLOGOUT);
    peer.pump();
    assert!(peer.run.closed);
    assert!(peer.run.output.ends_with("* BYE Autologout; the client was silent for too long\r\n"));

    let mut stranger = Peer::new(config(), plain);
    stranger.input(b"a NOOP\r\n");
    stranger.session.handle_timeout(START + limits::PREAUTH_TIMEOUT);
    stranger.pump();
    assert!(stranger.run.closed);
}

#[test]
fn a_call_is_never_timed_out() {
    let mut peer = Peer::new(config(), |call| match call {
        Call::Noop => vec![],
        call => plain(call),
    });
    peer.input(b"l LOGIN u p\r\nn NOOP\r\n");
    let far = START + 10 * limits::AUTOLOGOUT;
    peer.session.handle_timeout(far);
    peer.session.handle_shutdown("Going down");
    peer.pump();
    assert!(!peer.run.closed && peer.session.has_call());
    peer.session.handle_reply(Reply::Done(Completion::ok()));
    peer.pump();
    assert!(peer.run.output.ends_with("n OK NOOP completed\r\n* BYE Going down\r\n"));
    assert!(peer.run.closed);
}

#[test]
fn long_commands_are_refused_with_their_literals() {
    let mut peer = Peer::new(config(), plain);
    let long = "x".repeat(limits::COMMAND_BYTES_PREAUTH_MAX);
    for input in [
        format!("a LOGIN {long} {{9+}}\r\nb LOGOUT\n\r\nc NOOP\r\n"),
        format!("a LOGIN u {{{}+}}\r\n{long} {{9+}}\r\nb LOGOUT\n\r\nc NOOP\r\n", long.len()),
        format!("a LOGIN u {{{}}}\r\nc NOOP\r\n", long.len()),
    ] {
        for piece in [1, 7, 1000, input.len()] {
            peer.run.output.clear();
            input.as_bytes().chunks(piece).for_each(|piece| peer.input(piece));
            let mut lines = peer.run.output.lines();
            assert!(lines.next().is_some_and(|line| line.starts_with("a BAD The ")));
            assert_eq!(lines.next(), Some("c OK NOOP completed"));
            assert_eq!((lines.next(), peer.session.buffered_len()), (None, 0));
        }
    }
    let endless = format!("a LOGIN u {{{}+}}\r\n", limits::DRAIN_BYTES_MAX + 1);
    peer.input(endless.as_bytes());
    assert!(peer.run.closed);
}

#[test]
fn streamed_octets_are_neither_copied_nor_gathered() {
    let mut peer = Peer::new(config(), |call| match call {
        Call::Fetch(_) => vec![],
        call => plain(call),
    });
    peer.input(b"l LOGIN u p\r\ns SELECT INBOX\r\na FETCH 1:* (UID BODY[])\r\n");
    let send = |session: &mut Session, reply| {
        session.handle_reply(reply);
        std::iter::from_fn(|| session.poll_output()).collect::<Vec<_>>()
    };
    let session = &mut peer.session;
    assert_eq!(send(session, Reply::FetchBegin(seq(1))), []);
    assert_eq!(send(session, Reply::FetchItem(FetchItem::Uid(uid(9)))), []);
    let section = Rfc822Part::Full.section();
    let item = LiteralItem::Section { section, origin: None };
    let length = 3 * limits::SEND_COPY_MAX as u64;
    assert_eq!(send(session, Reply::FetchLiteral(FetchLiteral { item, length })), []);
    let octets = Bytes::from(vec![b'x'; length as usize]);
    let sent = send(session, Reply::FetchData(octets.clone()));
    let [Output::Send(head), Output::Send(body)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(head, "* 1 FETCH (UID 9 BODY[] {6144}\r\n");
    assert_eq!(body.as_ptr(), octets.as_ptr());
    assert_eq!(send(session, Reply::FetchEnd), []);
    assert_eq!(send(session, Reply::Flush), [Output::Send(")\r\n".into())]);

    // Small responses go out in sends of some size, and the rest with the command's end.
    let mut sent = Vec::new();
    let count = 2 * limits::SEND_BYTES / 22;
    for number in 10..10 + count as u32 {
        let items = vec![FetchItem::Flags(vec![])];
        let update = FetchUpdate { seq: seq(number), items };
        sent.extend(send(session, Reply::Untagged(Response::Fetch(update))));
    }
    assert!((1..=2).contains(&sent.len()), "{}", sent.len());
    let last = send(session, Reply::Done(Completion::ok()));
    let [Output::Send(last)] = &last[..] else { panic!("{last:?}") };
    assert!(last.ends_with(b" FETCH (FLAGS ())\r\na OK FETCH completed\r\n"));
}

#[test]
fn shutdown() {
    let mut idle = Peer::new(config(), plain);
    idle.input(b"l LOGIN u p\r\ni IDLE\r\n");
    idle.session.handle_shutdown("Back soon");
    idle.pump();
    assert!(idle.run.closed && idle.run.output.ends_with("+ idling\r\n* BYE Back soon\r\n"));

    // Between the pieces of a message there is nothing worth waiting for.
    let mut append = Peer::new(config(), |call| match call {
        Call::AppendBegin(_) => vec![],
        call => plain(call),
    });
    append.input(b"l LOGIN u p\r\na APPEND x {5}\r\n");
    append.session.handle_shutdown("Back soon");
    append.pump();
    assert!(!append.run.closed);
    append.session.handle_reply(Reply::AppendReady);
    append.pump();
    assert!(append.run.closed && append.run.output.ends_with("\r\n* BYE Back soon\r\n"));

    let mut gone = Peer::new(config(), plain);
    gone.session.handle_eof();
    gone.pump();
    assert!(gone.run.closed && gone.run.output.is_empty());
}
