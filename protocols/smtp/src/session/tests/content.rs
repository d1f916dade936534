use super::*;

const QUIT: &str = "C: QUIT
    S: 221 2.0.0 mx.example closing connection
    X:";

#[test]
fn data() {
    check_message(
        &exchange(),
        "<s@y>",
        &format!(
            "C: DATA
             > begin ESMTP c
             S: 354 Start mail input; end with <CRLF>.<CRLF>
             C: A: b
             C:
             C: ..dot
             C: .
             > data A: b\\r\\n\\r\\n.dot\\r\\n
             > end
             S: 250 2.0.0 Message accepted as q1
             C: DATA
             S: 503 5.5.1 Bad sequence of commands
             C: MAIL FROM:<>
             > mail <>
             S: 250 2.1.0 Sender OK
             C: DATA
             S: 503 5.5.1 No valid recipients
             C: RCPT TO:<r@x>
             > rcpt <r@x>
             S: 250 2.1.5 Recipient OK
             C: DATA x
             S: 501 5.5.4 Invalid arguments
             C: DATA
             > begin ESMTP c
             S: 354 Start mail input; end with <CRLF>.<CRLF>
             C: .
             > end
             S: 250 2.0.0 Message accepted as q1
             {QUIT}"
        ),
    );
}

/// Every end that another server might see, with a message smuggled behind it.
#[test]
fn look_alikes_of_the_end_are_refused() {
    for end in [
        "\\n.\\n",
        "\\n.\\r\\n",
        "\\r\\n.\\n",
        "\\r.\\r",
        "\\r.\\r\\n",
        "\\r\\n.\\r",
        "\\n.\\r",
        "\\r.\\n",
        "\\r\\n\\n.\\r\\n",
        "\\n\\n",
        "\\r\\r",
        "\\r",
        "\\n",
        "\\r\\r\\n.\\n",
        "\\r\\n.\\r\\r\\n",
        "\\n\\r.\\r\\n",
    ] {
        check_message(
            &exchange(),
            "<s@y>",
            &format!(
                "C: DATA
                 > begin ESMTP c
                 S: 354 Start mail input; end with <CRLF>.<CRLF>
                 c: x{end}MAIL FROM:<evil@y>\\r\\nRCPT TO:<r@x>\\r\\nDATA\\r\\ny\\r\\n.\\r\\n
                 > abort
                 S: 550 5.6.11 Message contains a bare CR or LF
                 {QUIT}"
            ),
        );
    }
}

#[test]
fn a_bare_lf_at_the_start_is_refused() {
    for start in ["\\n.\\r\\n", ".\\nx\\r\\n.\\r\\n", ".\\rx\\r\\n.\\r\\n"] {
        let rest =
            if start.ends_with("\\n.\\r\\n") && start.len() < 10 { "x\\r\\n.\\r\\n" } else { "" };
        check_message(
            &exchange(),
            "<s@y>",
            &format!(
                "C: DATA
                 > begin ESMTP c
                 S: 354 Start mail input; end with <CRLF>.<CRLF>
                 c: {start}{rest}
                 > abort
                 S: 550 5.6.11 Message contains a bare CR or LF
                 {QUIT}"
            ),
        );
    }
}

fn small() -> Config {
    let mut config = exchange();
    config.limits.message_octets_max = 20;
    config
}

#[test]
fn too_large_data() {
    let long = "x".repeat(21);
    check_message(
        &small(),
        "<s@y>",
        &format!(
            "C: DATA
             > begin ESMTP c
             S: 354 Start mail input; end with <CRLF>.<CRLF>
             C: {long}
             C: .
             > abort
             S: 552 5.3.4 Message too large
             C: MAIL FROM:<> SIZE=21
             S: 552 5.3.4 Message too large
             {QUIT}"
        ),
    );
    // A bare line ending is the stronger reason wherever it stands.
    for text in [format!("{long}\\n\\r\\n.\\r\\n"), format!("\\n{long}\\r\\n.\\r\\n")] {
        check_message(
            &small(),
            "<s@y>",
            &format!(
                "C: DATA
                 > begin ESMTP c
                 S: 354 Start mail input; end with <CRLF>.<CRLF>
                 c: {text}
                 > abort
                 S: 550 5.6.11 Message contains a bare CR or LF
                 {QUIT}"
            ),
        );
    }
    check_message(
        &small(),
        "<s@y>",
        &format!(
            "C: DATA
             > begin ESMTP c
             S: 354 Start mail input; end with <CRLF>.<CRLF>
             C: {long}{long}
             > abort
             S: 421 4.3.4 mx.example message too large, closing connection
             X:"
        ),
    );
}

#[test]
fn exactly_the_limit_fits() {
    let line = "x".repeat(18);
    check_message(
        &small(),
        "<s@y>",
        &format!(
            "C: DATA
             > begin ESMTP c
             S: 354 Start mail input; end with <CRLF>.<CRLF>
             C: {line}
             C: .
             > data {line}\\r\\n
             > end
             S: 250 2.0.0 Message accepted as q1
             {QUIT}"
        ),
    );
}

#[test]
fn refusals_of_the_driver() {
    check_message(
        &exchange(),
        "<begin@y>",
        &format!(
            "C: DATA
             > begin ESMTP c
             S: 452 4.3.1 Insufficient system storage
             C: BDAT 6
             c: QUIT\\r\\n
             S: 503 5.5.1 Bad sequence of commands
             {QUIT}"
        ),
    );
    for (sender, reply) in [
        ("<data@y>", "S: 451 4.3.0 Temporary failure, try again later"),
        ("<spam@y>", "> end\nS: 550 5.7.1 Rejected by policy"),
        ("<confused@y>", "> end\nS: 451 4.3.0 Temporary failure, try again later"),
        ("<each@y>", "> end\nS: 451 4.3.0 Temporary failure, try again later"),
    ] {
        check_message(
            &exchange(),
            sender,
            &format!(
                "C: DATA
                 > begin ESMTP c
                 S: 354 Start mail input; end with <CRLF>.<CRLF>
                 C: x
                 C: .
                 > data x\\r\\n
                 {reply}
                 {QUIT}"
            ),
        );
    }
}

#[test]
fn bdat() {
    check_message(
        &exchange(),
        "<s@y>",
        &format!(
            "C: BDAT 2
             c: a\\r
             > begin ESMTP c
             S: 250 2.0.0 Chunk received
             C: BDAT 0
             S: 250 2.0.0 Chunk received
             C: RCPT TO:<t@x>
             S: 503 5.5.1 Bad sequence of commands
             C: DATA
             S: 503 5.5.1 Bad sequence of commands
             C: bdat 5 last
             c: \\n.\\r\\nb
             > data a\\r\\n.\\r\\nb
             > end
             S: 250 2.0.0 Message accepted as q1
             C: BDAT 6 LAST
             c: QUIT\\r\\n
             S: 503 5.5.1 Bad sequence of commands
             C: MAIL FROM:<>
             > mail <>
             S: 250 2.1.0 Sender OK
             C: BDAT 6 LAST
             c: QUIT\\r\\n
             S: 503 5.5.1 No valid recipients
             C: RCPT TO:<t@x>
             > rcpt <t@x>
             S: 250 2.1.5 Recipient OK
             C: BDAT 0 LAST
             > begin ESMTP c
             > end
             S: 250 2.0.0 Message accepted as q1
             {QUIT}"
        ),
    );
}

#[test]
fn bdat_refused() {
    for (sender, octets, calls, reply) in [
        ("<begin@y>", "QUIT\\r\\n", "> begin ESMTP c", "452 4.3.1 Insufficient system storage"),
        (
            "<s@y>",
            "QUITx\\n",
            "> begin ESMTP c\n> abort",
            "550 5.6.11 Message contains a bare CR or LF",
        ),
        (
            "<s@y>",
            "QUIT\\rx",
            "> begin ESMTP c\n> abort",
            "550 5.6.11 Message contains a bare CR or LF",
        ),
        (
            "<s@y>",
            "QUITx\\r",
            "> begin ESMTP c\n> abort",
            "550 5.6.11 Message contains a bare CR or LF",
        ),
        (
            "<data@y>",
            "QUIT\\r\\n",
            "> begin ESMTP c\n> data QUIT\\r\\n",
            "451 4.3.0 Temporary failure, try again later",
        ),
    ] {
        let script = format!("C: BDAT 6 LAST\nc: {octets}\n{calls}\nS: {reply}\n{QUIT}");
        check_message(&exchange(), sender, &script);
    }
    // A chunk that fails in the middle takes the transaction along, but no octet too many.
    check_message(
        &exchange(),
        "<s@y>",
        &format!(
            "C: BDAT 3
             c: a\\nb
             > begin ESMTP c
             > abort
             S: 550 5.6.11 Message contains a bare CR or LF
             C: BDAT 6 LAST
             c: QUIT\\r\\n
             S: 503 5.5.1 Bad sequence of commands
             {QUIT}"
        ),
    );
}

#[test]
fn bdat_too_large() {
    let (first, second) = ("x".repeat(21), "x".repeat(15));
    check_message(
        &small(),
        "<s@y>",
        &format!("C: BDAT 21 LAST\nc: {first}\nS: 552 5.3.4 Message too large\n{QUIT}"),
    );
    check_message(
        &small(),
        "<s@y>",
        &format!(
            "C: BDAT 15
             c: {second}
             > begin ESMTP c
             S: 250 2.0.0 Chunk received
             C: BDAT 15 LAST
             c: {second}
             > abort
             S: 552 5.3.4 Message too large
             {QUIT}"
        ),
    );
    check_message(
        &small(),
        "<s@y>",
        &format!(
            "C: BDAT 99999999999999999999 LAST
             c: {first}{first}
             S: 421 4.3.4 mx.example message too large, closing connection
             X:"
        ),
    );
    check_message(&small(), "<s@y>", "C: BDAT x\nS: 501 5.5.4 Invalid arguments\nX:\nC: NOOP");
}

#[test]
fn binary_content() {
    check_message(
        &exchange(),
        "<s@y> BODY=BINARYMIME",
        &format!(
            "C: DATA
             S: 503 5.5.1 Bad sequence of commands
             C: BDAT 4 LAST
             c: \\n\\ra\\r
             > begin ESMTP c
             > data \\n\\ra\\r
             > end
             S: 250 2.0.0 Message accepted as q1
             {QUIT}"
        ),
    );
}

#[test]
fn a_message_cut_off_is_dropped() {
    check_message(
        &exchange(),
        "<s@y>",
        "C: DATA
         > begin ESMTP c
         S: 354 Start mail input; end with <CRLF>.<CRLF>
         C: x
         c: .
         E:
         X:",
    );
}
