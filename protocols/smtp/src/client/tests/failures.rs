use super::*;

const BEGUN: &str = "! begin <s@y> <a@x> <b@x>
     C: MAIL FROM:<s@y>
     C: RCPT TO:<a@x>
     C: RCPT TO:<b@x>
     C: DATA
     S: 250 ok
     S: 550 nobody
     S: 250 ok
     S: 354 go
     > content Data [1]";

fn check_begun(script: &str) {
    check_ready(settings, "PIPELINING", &format!("{BEGUN}\n{script}"));
}

#[test]
fn a_lost_reply_leaves_the_message_unknown() {
    check_begun(
        "! content x\\r\\n
         C: x
         ! finish
         C: .
         ! closed
         > answered refused at RCPT 550 nobody, unknown
         > failed connection closed at end of content
         X:",
    );
    check_begun(
        "! finish
         C: .
         s: 250 almost
         ! closed
         > answered refused at RCPT 550 nobody, unknown
         > failed connection closed at end of content
         X:",
    );
    check_begun(
        "! finish
         C: .
         S: 354 what?
         > answered refused at RCPT 550 nobody, unknown
         > failed protocol violation at end of content: unexpected reply code 354
         X:",
    );
    check_begun(
        "! finish
         C: .
         ! abort
         > answered refused at RCPT 550 nobody, unknown
         X:",
    );
}

#[test]
fn without_an_end_the_message_is_not_sent() {
    check_begun(
        "! content x\\r\\n
         C: x
         ! closed
         > answered refused at RCPT 550 nobody, not sent
         > failed connection closed at content
         X:",
    );
    check_begun(
        "! content x\\r\\n
         C: x
         ! abort
         > answered refused at RCPT 550 nobody, not sent
         X:
         ! finish
         ! closed",
    );
    check_begun(
        "! quit
         > answered refused at RCPT 550 nobody, not sent
         X:",
    );
    check_ready(
        settings,
        "",
        "! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         ! closed
         > answered not sent
         > failed connection closed at MAIL
         X:",
    );
}

/// What the driver did not take was not sent, whatever the caller said.
#[test]
fn an_end_not_taken_was_not_sent() {
    let mut run = Run::new(settings());
    run.feed(b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
    run.client.begin(run.now, transaction("<s@y> <a@x>")).expect("possible");
    run.feed(b"250 ok\r\n250 ok\r\n354 go\r\n");
    run.client.content(run.now, Bytes::from_static(b"x\r\n"));
    run.client.finish(run.now);
    run.sent.clear();
    run.client.handle_closed(run.now);
    run.drain();
    assert_eq!(run.sent, b"");
    assert_eq!(
        run.events[2..],
        ["answered not sent", "failed connection closed at end of content"]
    );
}

#[test]
fn the_server_closes() {
    let closing = "> failed the server closes the session at";
    check_ready(
        settings,
        "",
        &format!("S: 421 4.3.2 bye\n{closing} no command: 421 4.3.2 bye\nX:"),
    );
    check_ready(
        settings,
        "PIPELINING",
        &format!(
            "! begin <s@y> <a@x> <b@x>
             C: MAIL FROM:<s@y>
             C: RCPT TO:<a@x>
             C: RCPT TO:<b@x>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: 421 bye
             > answered refused at RCPT 421 bye, refused at RCPT 421 bye
             {closing} RCPT: 421 bye
             X:"
        ),
    );
    check_begun(&format!(
        "! content x\\r\\n
         C: x
         S: 421 4.4.2 too slow
         > answered refused at RCPT 550 nobody, refused at content 421 4.4.2 too slow
         {closing} content: 421 4.4.2 too slow
         X:"
    ));
    check_begun(&format!(
        "! finish
         C: .
         S: 421 disk full
         > answered refused at RCPT 550 nobody, refused at end of content 421 disk full
         {closing} end of content: 421 disk full
         X:"
    ));
    check_ready(settings, "", "! quit\nC: QUIT\nS: 421 bye\nX:");
    check_ready(settings, "", "! quit\nC: QUIT\n! closed\nX:");
}

#[test]
fn lmtp_closes_amid_its_verdicts() {
    check_ready(
        lmtp,
        "PIPELINING",
        "! begin <s@y> <a@x> <b@x> <c@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: RCPT TO:<b@x>
         C: RCPT TO:<c@x>
         C: DATA
         S: 250 ok
         S: 250 ok
         S: 250 ok
         S: 250 ok
         S: 354 go
         > content Data [0, 1, 2]
         ! finish
         C: .
         S: 250 for a
         S: 421 bye
         > answered accepted 250 for a, refused at end of content 421 bye, unknown
         > failed the server closes the session at end of content: 421 bye
         X:",
    );
}

#[test]
fn replies_to_nothing() {
    let violation = "> failed protocol violation at";
    let ready = |script: &str| check_ready(settings, "", script);
    ready(&format!("S: 250 ok\n{violation} no command: reply without a command\nX:"));
    ready(&format!(
        "! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         S: 299 ok
         C: RCPT TO:<a@x>
         S: 299 ok
         C: DATA
         S: 354 go
         > content Data [0]
         S: 250 ok
         > answered not sent
         {violation} content: reply without a command
         X:"
    ));
    check_begun(&format!(
        "! content x\\r\\n
         C: x
         S: 552 too much
         > answered refused at RCPT 550 nobody, refused at content 552 too much
         {violation} content: reply without a command
         X:"
    ));
    ready(&format!("s: hello\\r\\n\n{violation} no command: malformed reply\nX:"));
    ready(&format!(
        "! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         S: 354 go
         > answered not sent
         {violation} MAIL: unexpected reply code 354
         X:"
    ));
}

#[test]
fn replies_ahead_of_their_commands() {
    let mut run = Run::new(settings());
    run.feed(b"220 mx\r\n250 mx\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n");
    assert_eq!(
        run.events,
        ["ready", "failed protocol violation at no command: reply without a command"]
    );
}
