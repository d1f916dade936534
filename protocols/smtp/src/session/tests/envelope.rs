use super::*;

#[test]
fn commands_without_mail() {
    check(
        &exchange(),
        "> connect
         S: 220 mx.example ESMTP ready
         C: NOOP anything
         S: 250 2.0.0 OK
         C: HELP
         S: 214 2.0.0 See RFC 5321
         C: VRFY someone
         S: 252 2.5.0 Cannot verify, but will take mail and try to deliver
         C: VRFY
         S: 501 5.5.4 Invalid arguments
         C: EXPN list
         S: 502 5.5.1 Command not implemented
         C: XYZZY
         S: 500 5.5.1 Unknown command
         C:
         S: 500 5.5.1 Unknown command
         c: NO\\nOP\\r\\n
         S: 500 5.5.2 Malformed command line
         C: RSET
         S: 250 2.0.0 OK
         C: RSET x
         S: 501 5.5.4 Invalid arguments
         C: EHLO
         S: 501 5.5.4 Invalid arguments
         C: EHLO a b
         S: 501 5.5.4 Invalid arguments
         C: MAIL FROM:<>
         S: 503 5.5.1 Bad sequence of commands
         C: RCPT TO:<r@x>
         S: 503 5.5.1 Bad sequence of commands
         C: DATA
         S: 503 5.5.1 Bad sequence of commands
         C: HELO c
         S: 250 mx.example
         C: MAIL FROM:<> SIZE=1
         S: 555 5.5.4 Parameter not recognized
         C: MAIL FROM:<>
         > mail <>
         S: 250 2.1.0 Sender OK
         C: QUIT x
         S: 501 5.5.4 Invalid arguments
         C: quit
         S: 221 2.0.0 mx.example closing connection
         X:
         C: NOOP",
    );
}

#[test]
fn paths() {
    check_message(
        &exchange(),
        "<s@y>",
        "C: MAIL FROM:<>
         S: 503 5.5.1 Bad sequence of commands
         C: RCPT TO:<unknown@x>
         > rcpt <unknown@x>
         S: 550 5.1.1 No such recipient
         C: RCPT TO:<full@x>
         > rcpt <full@x>
         S: 452 4.2.2 Mailbox full
         C: RCPT TO:<stuffed@x>
         > rcpt <stuffed@x>
         S: 552 5.2.2 Mailbox full
         C: RCPT TO:<relay@x>
         > rcpt <relay@x>
         S: 550 5.7.1 Relaying denied
         C: RCPT TO:<broken@x>
         > rcpt <broken@x>
         S: 451 4.3.0 Temporary failure, try again later
         C: RCPT TO:<postmaster>
         > rcpt <Postmaster>
         S: 250 2.1.5 Recipient OK
         C: RCPT TO:<@a.example,@b:\"q l\"@[IPv6:::1]>
         > rcpt <\"q l\"@[IPv6:::1]>
         S: 250 2.1.5 Recipient OK
         C: RCPT TO:<r@x> NOTIFY=SUCCESS ORCPT=rfc822;r+2Bq@x
         > rcpt <r@x>
         S: 250 2.1.5 Recipient OK
         C: RCPT TO:<r@x> NOTIFY=SOMETIMES
         S: 501 5.5.4 Invalid arguments
         C: RCPT TO:<r@x> X=1
         S: 555 5.5.4 Parameter not recognized
         C: RCPT TO:<>
         S: 501 5.1.3 Bad recipient address syntax
         C: RCPT TO:r@x
         S: 501 5.1.3 Bad recipient address syntax
         C: RCPT <r@x>
         S: 501 5.5.4 Invalid arguments
         C: RCPT TO:<\u{e9}@x>
         S: 553 5.6.7 Address needs SMTPUTF8
         C: RSET
         > reset
         S: 250 2.0.0 OK
         C: MAIL FROM:<a b@y>
         S: 501 5.1.7 Bad sender address syntax
         C: MAIL FROM:<\u{e9}@y>
         S: 553 5.6.7 Address needs SMTPUTF8
         C: MAIL FROM:<s@y> BODY=8BITMIME RET=FULL ENVID=e+2B
         > mail <s@y>
         S: 250 2.1.0 Sender OK
         C: HELO again
         > reset
         S: 250 mx.example
         C: MAIL FROM:<down@y>
         > mail <down@y>
         S: 421 4.3.2 mx.example shutting down
         X:",
    );
}

/// RFC 2920 §3.1: RCPT and DATA are on their way before the reply to MAIL is seen.
#[test]
fn a_flight_behind_a_refused_mail_is_no_flood() {
    let mut config = exchange();
    config.limits.errors_max = 2;
    config.limits.recipients_max = 3;
    let greeting = "> connect\nS: 220 mx.example ESMTP ready\nC: HELO c\nS: 250 mx.example";
    let flight = |refusal: &str, recipients: usize| {
        let rcpt = "C: RCPT TO:<r@x>\nS: 503 5.5.1 Bad sequence of commands\n".repeat(recipients);
        format!("{refusal}\n{rcpt}")
    };
    let by_driver = "C: MAIL FROM:<unknown@y>\n> mail <unknown@y>\nS: 550 5.1.1 No such recipient";
    let by_session = "C: MAIL FROM:<y>\nS: 501 5.1.7 Bad sender address syntax";
    let data = "C: DATA\nS: 503 5.5.1 Bad sequence of commands";
    let whole = flight(by_driver, 3);
    check(
        &config,
        &format!("{greeting}\n{whole}{data}\n{whole}{data}\n{}{data}", flight(by_session, 3)),
    );
    // More than can be a flight, and what belongs to none.
    let goodbye = "S: 421 4.7.0 mx.example too many errors, closing connection\nX:";
    check(&config, &format!("{greeting}\n{}{goodbye}", flight(by_driver, 6)));
    let noop = "C: NOOP\nS: 250 2.0.0 OK\n";
    let stray = flight("", 2);
    check(&config, &format!("{greeting}\n{by_driver}\n{noop}{stray}\n{goodbye}"));
}

#[test]
fn smtputf8() {
    check_message(
        &exchange(),
        "<\u{e9}@B\u{dc}CHER.example> SMTPUTF8".replace("B\u{dc}CHER", "b\u{fc}cher").as_str(),
        "C: RCPT TO:<\u{e8}@x>
         > rcpt <\u{e8}@x>
         S: 250 2.1.5 Recipient OK
         C: DATA
         > begin UTF8SMTP c
         S: 354 Start mail input; end with <CRLF>.<CRLF>
         C: .
         > end
         S: 250 2.0.0 Message accepted as q1",
    );
}

#[test]
fn limits() {
    let mut config = exchange();
    config.limits.recipients_max = 1;
    check_message(&config, "<s@y>", "C: RCPT TO:<r@x>\nS: 452 4.5.3 Too many recipients");

    let greeting = "> connect\nS: 220 mx.example ESMTP ready";
    let goodbye = "S: 421 4.7.0 mx.example too many errors, closing connection\nX:\nC: NOOP";
    config.limits.errors_max = 2;
    let unknown = "C: X\nS: 500 5.5.1 Unknown command";
    check(&config, &format!("{greeting}\n{unknown}\n{unknown}\n{goodbye}"));

    config.limits.idle_commands_max = 2;
    let noop = "C: NOOP\nS: 250 2.0.0 OK";
    check(&config, &format!("{greeting}\n{noop}\n{noop}\n{goodbye}"));

    let mut config = exchange();
    config.limits.refusals_max = 2;
    let refused = "C: RCPT TO:<unknown@x>\n> rcpt <unknown@x>\nS: 550 5.1.1 No such recipient";
    check_message(&config, "<s@y>", &format!("{refused}\n{refused}\n{goodbye}"));
}

#[test]
fn an_overlong_line_is_skipped() {
    let most = "x".repeat(COMMAND_LINE_OCTETS_MAX - 7);
    let greeting = "> connect\nS: 220 mx.example ESMTP ready";
    check(
        &exchange(),
        &format!(
            "{greeting}
             C: NOOP {most}
             S: 250 2.0.0 OK
             C: NOOP {most}x
             S: 500 5.5.2 Command line too long
             c: {most}{most}\\nNOOP\\nx\\rRSET\\r\\n
             S: 500 5.5.2 Command line too long
             C: NOOP
             S: 250 2.0.0 OK"
        ),
    );
}

#[test]
fn pipelined_replies_come_in_few_pieces() {
    let mut session = Session::new(exchange());
    let mut run = Run::default();
    run.serve(&mut session);
    run.feed(&mut session, b"EHLO c\r\n");
    run.sends = 0;
    run.feed(&mut session, b"MAIL FROM:<s@y>\r\nRCPT TO:<a@x>\r\nRCPT TO:<unknown@x>\r\nDATA\r\n");
    assert_eq!(run.sends, 1);
    run.feed(&mut session, b"x\r\n.\r\nMAIL FROM:<s@y>\r\nRCPT TO:<a@x>\r\nNOOP\r\n");
    assert_eq!(run.sends, 3, "the message's reply goes out at once");
}

#[test]
fn what_came_before_the_end_is_answered() {
    check(
        &exchange(),
        "> connect
         S: 220 mx.example ESMTP ready
         C: HELO c
         S: 250 mx.example
         C: MAIL FROM:<s@y>
         > mail <s@y>
         S: 250 2.1.0 Sender OK
         c: RCPT TO:<r@x>
         E:
         X:",
    );
}
