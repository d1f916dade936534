use super::*;

#[test]
fn step_by_step() {
    check_ready(
        settings,
        "",
        "! begin <s@y> <a@x> <b@x>
         C: MAIL FROM:<s@y>
         S: 250 ok
         C: RCPT TO:<a@x>
         S: 550 5.1.1 nobody
         C: RCPT TO:<b@x>
         S: 251 forwarded
         C: DATA
         S: 354 go
         > content Data [1]
         ! content x\\r\\n
         C: x
         ! finish
         C: .
         S: 250 2.0.0 got it
         > answered refused at RCPT 550 5.1.1 nobody, accepted 250 2.0.0 got it
         ! begin <> <a@x>
         C: MAIL FROM:<>
         S: 450 later
         > answered refused at MAIL 450 later
         ! begin <> <a@x>
         C: MAIL FROM:<>
         S: 250 ok
         C: RCPT TO:<a@x>
         S: 550 nobody
         > answered refused at RCPT 550 nobody
         ! begin <> <a@x>
         C: RSET
         S: 250 ok
         C: MAIL FROM:<>
         S: 250 ok
         C: RCPT TO:<a@x>
         S: 250 ok
         C: DATA
         S: 451 full
         > answered refused at DATA 451 full
         ! begin <> <a@x>
         C: RSET
         S: 500 no
         > answered not sent
         > failed refused at RSET: 500 no
         C: QUIT
         X:",
    );
}

#[test]
fn pipelined() {
    check_ready(
        settings,
        "PIPELINING",
        "! begin <s@y> <a@x> <b@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: RCPT TO:<b@x>
         C: DATA
         S: 250 ok
         S: 250 ok
         S: 550 nobody
         S: 354 go
         > content Data [0]
         ! finish
         C: .
         S: 552 5.3.4 empty
         > answered refused at end of content 552 5.3.4 empty, refused at RCPT 550 nobody
         ! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA
         S: 250 ok
         S: 250 ok
         S: 354 go
         > content Data [0]
         ! finish
         C: .
         S: 250 ok
         > answered accepted 250 ok",
    );
}

/// RFC 2920 §3.1: a server may ask for content though it accepted nobody.
#[test]
fn content_for_nobody_is_empty() {
    check_ready(
        settings,
        "PIPELINING",
        "! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA
         S: 250 ok
         S: 550 nobody
         S: 354 go
         C: .
         > answered refused at RCPT 550 nobody
         ! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA
         S: 554 no recipients
         S: 550 not you
         S: 503 mail first
         S: 503 mail first
         > answered refused at MAIL 550 not you
         ! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA
         S: 250 ok
         S: 550 nobody
         S: 554 no recipients
         > answered refused at RCPT 550 nobody
         ! begin <s@y> <a@x>
         C: RSET
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA",
    );
    // LMTP would have no reply to the dot.
    check_ready(
        lmtp,
        "PIPELINING",
        "! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA
         S: 250 ok
         S: 550 nobody
         S: 354 go
         > answered refused at RCPT 550 nobody
         > failed protocol violation at DATA: unexpected reply code 354
         X:",
    );
}

/// A dot alone would be an empty message to the recipient.
#[test]
fn no_content_goes_to_recipients_without_a_sender() {
    check_ready(
        settings,
        "PIPELINING",
        "! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA
         S: 550 not you
         S: 250 ok
         S: 354 go
         > answered refused at MAIL 550 not you
         > failed protocol violation at DATA: unexpected reply code 354
         X:",
    );
}

#[test]
fn refusals_worth_another_try() {
    let permanence = |at, reply: &str| {
        let mut reader = Reader::default();
        let line = format!("{reply}\r\n");
        let reply = reader.read(&mut line.as_bytes()).expect("valid").expect("whole");
        RecipientOutcome::Refused { at, response: reply.response() }.permanence()
    };
    let temporary = Some(crate::call::Permanence::Temporary);
    let permanent = Some(crate::call::Permanence::Permanent);
    assert_eq!(permanence(Stage::Rcpt, "452 later"), temporary);
    assert_eq!(permanence(Stage::Rcpt, "552 too many"), temporary);
    assert_eq!(permanence(Stage::Rcpt, "552 5.5.3 too many"), temporary);
    assert_eq!(permanence(Stage::Rcpt, "552 5.2.2 mailbox full"), permanent);
    assert_eq!(permanence(Stage::End, "552 too large"), permanent);
    assert_eq!(permanence(Stage::End, "550 no"), permanent);
    assert_eq!(RecipientOutcome::Unknown.permanence(), None);
}

#[test]
fn lmtp_answers_for_each() {
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
         S: 550 nobody
         S: 250 ok
         S: 354 go
         > content Data [0, 2]
         ! content x\\r\\n
         C: x
         ! finish
         C: .
         S: 250 for a
         S: 452 4.2.2 full
         > answered accepted 250 for a, refused at RCPT 550 nobody, refused at end of content 452 4.2.2 full
         ! begin <s@y> <a@x>
         C: MAIL FROM:<s@y>
         C: RCPT TO:<a@x>
         C: DATA",
    );
}

#[test]
fn parameters() {
    let all =
        "SIZE 1000,8BITMIME,BINARYMIME,CHUNKING,SMTPUTF8,DSN,AUTH PLAIN,MT-PRIORITY,DELIVERBY 60";
    let wish = "! begin <s@y> <r@x> notify=some orcpt=rfc822;r+2B@x size=5 8bit ret envid=a+2Bb priority=-3 by=60;R auth=u+@y";
    check_ready(
        settings,
        all,
        &format!(
            "{wish}
             C: MAIL FROM:<s@y> SIZE=5 BODY=8BITMIME RET=HDRS ENVID=a+2Bb MT-PRIORITY=-3 BY=60;R AUTH=u+2B@y
             S: 250 ok
             C: RCPT TO:<r@x> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;r+2B@x"
        ),
    );
    check_ready(
        settings,
        "8BITMIME",
        "! begin <s@y> <r@x> notify=never orcpt=rfc822;r size=5 8bit ret envid=a priority=1 by=-1;N auth=x
         C: MAIL FROM:<s@y> BODY=8BITMIME
         S: 250 ok
         C: RCPT TO:<r@x>",
    );
    check_ready(
        settings,
        all,
        "! begin <s@y> <\u{e9}@x> notify=never auth=x
         C: MAIL FROM:<s@y> SMTPUTF8 AUTH=<>
         S: 250 ok
         C: RCPT TO:<\u{e9}@x> NOTIFY=NEVER",
    );
}

#[test]
fn a_server_that_does_not_watch_the_time_is_asked_to_tell_of_delays() {
    let check = |extensions: &str, wish: &str, mail: &str, rcpt: &str| {
        check_ready(
            settings,
            extensions,
            &format!(
                "! begin <s@y> <r@x>{wish}
                 C: MAIL FROM:<s@y>{mail}
                 S: 250 ok
                 C: RCPT TO:<r@x>{rcpt}"
            ),
        );
    };
    check("DSN", " by=60;N", "", " NOTIFY=FAILURE,DELAY");
    check("DSN", " notify=some by=60;N", "", " NOTIFY=SUCCESS,DELAY");
    check("DSN", " notify=success by=60;N", "", " NOTIFY=SUCCESS,DELAY");
    check("DSN", " notify=never by=60;N", "", " NOTIFY=NEVER");
    check("DSN", "", "", "");
    check("DSN,DELIVERBY", " by=60;N", " BY=60;N", "");
    check("DSN,DELIVERBY", " notify=success by=60;N", " BY=60;N", " NOTIFY=SUCCESS");
    check("", " notify=success by=60;N", "", "");
}

#[test]
fn an_original_address_too_long_on_the_wire_is_left_out() {
    for (length, kept) in [(82, true), (83, false)] {
        let original = "\u{e9}".repeat(length);
        let shown =
            if kept { format!(" ORCPT=utf-8;{}", "\\x{E9}".repeat(length)) } else { String::new() };
        check_ready(
            settings,
            "DSN",
            &format!(
                "! begin <s@y> <r@x> orcpt=utf-8;{original}
                 C: MAIL FROM:<s@y>
                 S: 250 ok
                 C: RCPT TO:<r@x>{shown}"
            ),
        );
    }
}

#[test]
fn what_the_server_cannot_take_is_not_sent() {
    let cases = [
        ("", "<s@y>", "no recipients"),
        ("", "<s@y> <r@x> utf8", "SMTPUTF8 is not offered"),
        ("", "<\u{e9}@y> <r@x>", "SMTPUTF8 is not offered"),
        ("", "<s@y> <r@x> 8bit", "8BITMIME is not offered"),
        ("BINARYMIME", "<s@y> <r@x> binary", "BINARYMIME is not offered"),
        ("SIZE 10", "<s@y> <r@x> size=11", "larger than 10 octets"),
        // There is no TLS.
        ("REQUIRETLS", "<s@y> <r@x> requiretls", "REQUIRETLS is not offered"),
        ("", "<s@y> <r@x> by=9;R", "DELIVERBY is not offered"),
        ("DELIVERBY 10", "<s@y> <r@x> by=9;R", "DELIVERBY needs 10 seconds"),
        ("LIMITS RCPTMAX=1", "<s@y> <r@x> <q@x>", "more than 1 recipients"),
    ];
    for (extensions, wish, error) in cases {
        check_ready(settings, extensions, &format!("! begin {wish}\n> not begun: {error}"));
    }
    check_ready(
        settings,
        "SIZE 10,LIMITS MAILMAX=1",
        "! begin <s@y> <r@x> size=10
         C: MAIL FROM:<s@y> SIZE=10
         ! begin <s@y> <r@x>
         > not begun: the session can take no transaction now
         S: 550 no
         > answered refused at MAIL 550 no
         ! begin <s@y> <r@x>
         > not begun: the session has had its 1 transactions
         ! quit
         C: QUIT
         ! begin <s@y> <r@x>
         > not begun: the session can take no transaction now",
    );
}

#[test]
fn many_recipients_go_in_bounded_flights() {
    const RECIPIENTS: usize = 1000;
    let mut run = Run::new(settings());
    run.feed(b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
    let recipients = "<r@x> ".repeat(RECIPIENTS);
    run.client
        .begin(run.now, transaction(&format!("<s@y> {}", recipients.trim_end())))
        .expect("possible");
    run.drain();
    let lines = |run: &Run| run.sent.iter().filter(|octet| **octet == b'\n').count() - 1;
    let (mut answered, mut flights) = (0, 0);
    while run.events.len() < 2 {
        let unanswered = lines(&run) - answered;
        assert!((1..=FLIGHT_COMMANDS_MAX).contains(&unanswered), "{unanswered} unanswered");
        flights += 1;
        for _ in 0..unanswered {
            answered += 1;
            let done = answered == RECIPIENTS + 2;
            run.feed(if done { b"354 go\r\n" } else { b"250 ok\r\n" });
        }
    }
    assert!(flights <= 2 * RECIPIENTS / FLIGHT_COMMANDS_LOW, "{flights} flights");
    assert_eq!(lines(&run), RECIPIENTS + 2);
}
