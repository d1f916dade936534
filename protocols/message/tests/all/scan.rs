//! The scanner on one message at a time: every edge of MIME framing, at every split.

use crate::common::{assert_sound, scan, scan_in, types};
use message::{Content, Coverage, Limits, Part, Scanned, TransferEncoding};

/// The tree as `type "body"` of the leaves, nested by brackets.
fn show(message: &str, part: &Part) -> String {
    let name = format!("{}/{}", part.content_type.kind, part.content_type.subtype);
    match &part.content {
        Content::Leaf => {
            format!("{name} {:?}", &message[part.body.start as usize..part.body.end as usize])
        }
        Content::Multipart(children) => {
            let inner: Vec<_> = children.iter().map(|child| show(message, child)).collect();
            format!("{name} [{}]", inner.join(", "))
        }
        Content::Message(nested) => format!("{name} ({})", show(message, &nested.root)),
    }
}

/// Scans a message as it is and with CRLF, whole, octet by octet and at every split in two.
fn check(message: &str, expected: &str) -> Scanned {
    for message in [message.to_owned(), message.replace('\n', "\r\n")] {
        let whole = scan(message.as_bytes());
        assert_sound(message.as_bytes(), &whole);
        let shown = show(&message, &whole.structure.root).replace("\\r\\n", "\\n");
        assert_eq!(shown, expected, "{message:?}");
        for split in 1..message.len() {
            let lengths = [split, message.len()];
            assert_eq!(scan_in(message.as_bytes(), &lengths, Limits::default()), whole);
        }
        assert_eq!(scan_in(message.as_bytes(), &[1], Limits::default()), whole);
    }
    scan(message.as_bytes())
}

const MIXED: &str = "Content-Type: multipart/mixed; boundary=b\n\n";

fn mixed(body: &str) -> String {
    format!("{MIXED}{body}")
}

#[test]
fn simple_messages() {
    check("A: b\n\nbody\n", "text/plain \"body\\n\"");
    check("", "text/plain \"\"");
    check("\n", "text/plain \"\"");
    check("\nbody", "text/plain \"body\"");
    check("A: b", "text/plain \"\"");
    check("A: b\n", "text/plain \"\"");
    check("A: b\n\n", "text/plain \"\"");
    check("A: b\n\n--b\n--\n-\n", "text/plain \"--b\\n--\\n-\\n\"");
}

#[test]
fn framing() {
    let check = |body: &str, expected: &str| check(&mixed(body), expected);
    check(
        "preamble\n--b\n\none\n--b\nContent-Type: a/b\n\ntwo\n\n--b--\nepilogue\n--b\n\nno\n",
        "multipart/mixed [text/plain \"one\", a/b \"two\\n\"]",
    );
    check("--b\n\none", "multipart/mixed [text/plain \"one\"]");
    check("--b\n\none\n", "multipart/mixed [text/plain \"one\\n\"]");
    check("--b\n\none\n--b--", "multipart/mixed [text/plain \"one\"]");
    check("--b \t\n\none\n--b--  \n", "multipart/mixed [text/plain \"one\"]");
    check(
        "--b\n\none\n--bx\n--b-\n--b--x\n -b\n--b--\n",
        "multipart/mixed [text/plain \"one\\n--bx\\n--b-\\n--b--x\\n -b\"]",
    );
    check(
        "--b\n--b\n\n--b\n\n\n--b--",
        "multipart/mixed [text/plain \"\", text/plain \"\", text/plain \"\"]",
    );
    check("--b\nX: y\n--b--", "multipart/mixed [text/plain \"\"]");
    check("--b\n", "multipart/mixed [text/plain \"\"]");
    check("--b\n\none\n--b", "multipart/mixed [text/plain \"one\"]");
    check("--b", "text/plain \"--b\"");
    check("no parts at all\n", "text/plain \"no parts at all\\n\"");
    check("--b--\n", "text/plain \"--b--\\n\"");
}

#[test]
fn nesting() {
    let inner = |boundary: &str| {
        format!("--b\nContent-Type: multipart/alternative; boundary=\"{boundary}\"\n\n")
    };
    // An inner boundary that the outer one is a prefix of, and the other way round.
    check(
        &mixed(&format!("{}--bb\n\none\n--bb\n\ntwo\n--bb--\n--b\n\nthree\n--b--\n", inner("bb"))),
        "multipart/mixed [multipart/alternative [text/plain \"one\", text/plain \"two\"], text/plain \"three\"]",
    );
    check(
        "Content-Type: multipart/mixed; boundary=bb\n\n--bb\nContent-Type: multipart/x; boundary=b\n\n--b\n\none\n--bb\n\ntwo\n--bb--\n",
        "multipart/mixed [multipart/x [text/plain \"one\"], text/plain \"two\"]",
    );
    // The inner multipart is not closed.
    check(
        &mixed(&format!("{}--i\n\none\n--b\n\ntwo\n--b--", inner("i"))),
        "multipart/mixed [multipart/alternative [text/plain \"one\"], text/plain \"two\"]",
    );
    // One boundary for both.
    check(
        &mixed(&format!("{}--b\n\none\n--b--\n--b\n\ntwo\n--b--", inner("b"))),
        "multipart/mixed [multipart/alternative [text/plain \"one\"], text/plain \"two\"]",
    );
    // An inner multipart without parts keeps its text.
    check(&mixed(&format!("{}text\n--b--", inner("i"))), "multipart/mixed [text/plain \"text\"]");
    check(
        "Content-Type: multipart/mixed\n\n--b\n\none\n--b--\n",
        "text/plain \"--b\\n\\none\\n--b--\\n\"",
    );
}

#[test]
fn messages_in_messages() {
    let scanned = check(
        &mixed("--b\nContent-Type: message/rfc822\n\nSubject: in\nFrom: a@x\n\nbody\n--b--\n"),
        "multipart/mixed [message/rfc822 (text/plain \"body\")]",
    );
    let Content::Multipart(children) = &scanned.structure.root.content else { panic!("multipart") };
    let Content::Message(nested) = &children[0].content else { panic!("message") };
    assert_eq!(nested.envelope.subject.as_deref(), Some("in"));
    assert_eq!(nested.envelope.sender[0].host.as_deref(), Some("x"));
    assert_eq!(children[0].lines, 4);

    check("Content-Type: message/global\n\nA: b\n\nx", "message/global (text/plain \"x\")");
    check("Content-Type: message/rfc822\n", "message/rfc822 (text/plain \"\")");
    check(
        &mixed("--b\nContent-Type: message/rfc822\n\nSubject: x\n--b\n\ny\n--b--"),
        "multipart/mixed [message/rfc822 (text/plain \"\"), text/plain \"y\"]",
    );
    check(
        &mixed("--b\nContent-Type: message/rfc822\n--b\n\ny\n--b--"),
        "multipart/mixed [message/rfc822 (text/plain \"\"), text/plain \"y\"]",
    );
    check(
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nQTogYg==",
        "application/octet-stream \"QTogYg==\"",
    );
    check(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: a\n\none\n--b\nContent-Type: text/plain\n\ntwo\n--b--",
        "multipart/digest [message/rfc822 (text/plain \"one\"), text/plain \"two\"]",
    );
}

#[test]
fn encodings_and_sizes() {
    let message = mixed(
        "--b\nContent-Transfer-Encoding: base64\n\nZm9v\nYg==\n--b\n\
         Content-Transfer-Encoding: quoted-printable\n\na=3D=\nb \n--b--\n",
    );
    let scanned = scan(message.as_bytes());
    let Content::Multipart(children) = &scanned.structure.root.content else { panic!("multipart") };
    assert_eq!(children[0].transfer_encoding, TransferEncoding::Base64);
    assert_eq!(children.iter().map(|part| part.decoded_size).collect::<Vec<_>>(), [4, 3]);
    assert_eq!(children.iter().map(Part::size).collect::<Vec<_>>(), [9, 8]);
    assert_eq!(children.iter().map(|part| part.lines).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn text_facts() {
    let facts = |text: &[u8]| scan(text).text_facts;
    let clean = facts(b"A: b\r\n\r\nabc\r\n");
    assert_eq!((clean.lines, clean.max_line_len), (3, 4));
    assert!(!clean.has_8bit && !clean.has_nul && !clean.has_bare_cr && !clean.has_bare_lf);
    assert!(facts(b"\r\n\xFF").has_8bit);
    assert!(facts(b"\r\n\0").has_nul);
    assert!(facts(b"\r\na\nb").has_bare_lf);
    for bare in [&b"\r\na\rb"[..], b"a\r", b"a\r\r\n"] {
        let found = facts(bare);
        assert!(found.has_bare_cr && !found.has_bare_lf, "{bare:?}");
    }
    assert_eq!(facts(b"\r\nabcdef").max_line_len, 6);
}

#[test]
fn previews() {
    let preview = |message: &str| scan(message.as_bytes()).preview;
    assert_eq!(preview("A: b\n\nHello\n\n  you\n"), "Hello you");
    let html = "--b\nContent-Type: text/html\n\n<p>H<b>i</b></p>\n";
    let plain = "--b\n\nplain\n";
    let blank = "--b\n\n \n";
    let attached = "--b\nContent-Disposition: attachment\n\nattached\n";
    let forwarded = "--b\nContent-Type: message/rfc822\n\nA: b\n\nforwarded\n";
    assert_eq!(preview(&mixed(&format!("{html}{plain}"))), "plain");
    assert_eq!(preview(&mixed(&format!("{blank}{html}"))), "Hi");
    assert_eq!(preview(&mixed(&format!("{attached}{forwarded}"))), "forwarded");
    assert_eq!(preview(&mixed(&format!("{forwarded}{html}"))), "Hi");
    assert_eq!(preview(&mixed("there is no part")), "there is no part");
}

#[test]
fn over_the_depth_limit_a_part_is_opaque() {
    let mut message = String::new();
    for level in 0..100 {
        message += &format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n");
    }
    message += "\nx\n";
    let scanned = scan(message.as_bytes());
    assert_sound(message.as_bytes(), &scanned);
    let found = types(&scanned.structure.root);
    assert_eq!(found.len(), message::limits::DEPTH_MAX);
    assert_eq!(found.last().map(String::as_str), Some("application/octet-stream"));

    let message = "Content-Type: message/rfc822\n\n".repeat(100);
    let scanned = scan(message.as_bytes());
    assert_sound(message.as_bytes(), &scanned);
    assert_eq!(types(&scanned.structure.root).len(), message::limits::DEPTH_MAX);
}

#[test]
fn over_the_part_limit_the_rest_has_no_parts() {
    let message = mixed(&"--b\n\nx\n".repeat(3 * message::limits::PARTS_MAX));
    let scanned = scan(message.as_bytes());
    assert_eq!(assert_sound(message.as_bytes(), &scanned), message::limits::PARTS_MAX);
    assert_eq!(scanned.structure.root.body.end, message.len() as u64);
}

#[test]
fn over_the_header_limit_the_beginning_counts() {
    let fill = format!("X: {}\n", "y".repeat(1_000)).repeat(300);
    let message = format!("Subject: s\n{fill}Content-Type: text/html\n\nbody\n");
    let scanned = scan(message.as_bytes());
    assert_sound(message.as_bytes(), &scanned);
    assert_eq!(scanned.header_block.len(), message::limits::TOP_HEADER_BYTES_MAX);
    assert_eq!(scanned.structure.envelope.subject.as_deref(), Some("s"));
    assert_eq!(scanned.structure.root.header_coverage, Coverage::Truncated);
    assert_eq!(scanned.header_index.coverage, Coverage::Truncated);
    assert_eq!(types(&scanned.structure.root), ["text/plain"]);
    assert_eq!(scanned.structure.root.body, message.len() as u64 - 5..message.len() as u64);

    // All inner headers together are bounded too.
    let part = format!("--b\nContent-Type: a/b\n{}\nx\n", "X: y\n".repeat(2_000));
    let message = mixed(&part.repeat(200));
    let scanned = scan(message.as_bytes());
    assert_sound(message.as_bytes(), &scanned);
    let found = types(&scanned.structure.root);
    assert_eq!(found.len(), 201);
    assert_eq!((found[1].as_str(), found[200].as_str()), ("a/b", "text/plain"));
}

/// Whatever a header repeats, the scan takes linear time (a quadratic one takes minutes here) and
/// what it keeps is bounded.
#[test]
fn hostile_headers() {
    let names = ["From", "To", "Subject", "References", "Content-Type: a/b", "Date", "Message-ID"];
    let pieces = [
        "(",
        ")",
        "<",
        ">",
        "\"",
        "[",
        ":",
        ";",
        ",",
        "@",
        "=?",
        "=?,",
        "=?a?q?,",
        "=?a?q?x?=",
        "<a",
        "<a@b>",
        "a@b,",
        "\\",
        "a b ",
        ";a=b",
        ";a*0*=",
        ";a=\"",
        "[a]",
        "re:",
        "=?a?q?x?= ",
        "a:",
        "\n ",
        "'",
        "%",
        "(a",
    ];
    for name in names {
        for piece in pieces {
            let separator = if name.contains(':') { "; x=" } else { ": " };
            let value = piece.repeat(250_000 / piece.len());
            let message = format!("{name}{separator}{value}\n\nbody");
            let scanned = scan(message.as_bytes());
            assert_sound(message.as_bytes(), &scanned);
            let envelope = &scanned.structure.envelope;
            assert!(envelope.from.len() + envelope.to.len() <= message::limits::ADDRESSES_MAX + 1);
            assert!(scanned.threading.references.len() <= message::limits::REFERENCES_MAX);
        }
    }
}
