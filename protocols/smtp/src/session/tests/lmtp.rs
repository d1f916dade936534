use super::*;

fn check_lmtp(sender: &str, script: &str) {
    let script = format!(
        "> connect
         S: 220 mx.example LMTP ready
         C: EHLO c
         S: 500 5.5.1 Unknown command
         C: HELO c
         S: 500 5.5.1 Unknown command
         C: MAIL FROM:<>
         S: 503 5.5.1 Bad sequence of commands
         C: LHLO c
         S: 250-mx.example
         S: 250-PIPELINING
         S: 250-SIZE 1000
         S: 250-8BITMIME
         S: 250-BINARYMIME
         S: 250-CHUNKING
         S: 250-SMTPUTF8
         S: 250-DSN
         S: 250-ENHANCEDSTATUSCODES
         S: 250 HELP
         C: MAIL FROM:{sender}
         > mail {sender}
         S: 250 2.1.0 Sender OK
         C: RCPT TO:<unknown@x>
         > rcpt <unknown@x>
         S: 550 5.1.1 No such recipient
         C: DATA
         S: 503 5.5.1 No valid recipients
         C: RCPT TO:<late@x>
         > rcpt <late@x>
         S: 250 2.1.5 Recipient OK
         C: RCPT TO:<b@x>
         > rcpt <b@x>
         S: 250 2.1.5 Recipient OK
         {script}
         C: QUIT
         S: 221 2.0.0 mx.example closing connection
         X:"
    );
    check(&config(Role::Lmtp), &script);
}

const DATA: &str = "C: DATA
    > begin LMTP c
    S: 354 Start mail input; end with <CRLF>.<CRLF>";

#[test]
fn each_recipient_has_a_reply() {
    let late = "S: 452 4.2.2 Mailbox full";
    let accepted = "S: 250 2.0.0 Message accepted as q1";
    let failed = "S: 451 4.3.0 Temporary failure, try again later";
    let spam = "S: 550 5.7.1 Rejected by policy";
    for (sender, first, second) in [
        ("<each@y>", late, accepted),
        ("<s@y>", accepted, accepted),
        ("<short@y>", accepted, failed),
        ("<spam@y>", spam, spam),
        ("<confused@y>", failed, failed),
    ] {
        check_lmtp(
            sender,
            &format!("{DATA}\nC: x\nC: .\n> data x\\r\\n\n> end\n{first}\n{second}"),
        );
        check_lmtp(
            sender,
            &format!(
                "C: BDAT 1\nc: x\n> begin LMTP c\nS: 250 2.0.0 Chunk received\nC: BDAT 0 LAST\n> data x\n> end\n{first}\n{second}"
            ),
        );
    }
}

#[test]
fn a_refused_message_is_refused_for_each() {
    let bare = "S: 550 5.6.11 Message contains a bare CR or LF";
    check_lmtp("<s@y>", &format!("{DATA}\nc: x\\n\\r\\n.\\r\\n\n> abort\n{bare}\n{bare}"));
    check_lmtp(
        "<s@y>",
        &format!("C: BDAT 2 LAST\nc: x\\n\n> begin LMTP c\n> abort\n{bare}\n{bare}"),
    );
    check_lmtp(
        "<s@y>",
        &format!(
            "C: BDAT 2\nc: x\\n\n> begin LMTP c\n> abort\n{bare}\nC: BDAT 2 LAST\nc: ab\nS: 503 5.5.1 Bad sequence of commands"
        ),
    );
}

#[test]
fn lhlo_is_for_lmtp_alone() {
    check(
        &exchange(),
        "> connect\nS: 220 mx.example ESMTP ready\nC: LHLO c\nS: 500 5.5.1 Unknown command",
    );
}
