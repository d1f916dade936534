//! Real mail, 8-bit, broken and odd as it arrived: it comes out as it went in, and everything
//! that is told about it can be parsed.
//!
//! The corpus is not part of the project; without it beside the checkout this is skipped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use blackbox::{
    imap::number_after,
    program::{find, python, succeed},
    report,
    server::{ALICE, Server},
    smtp::Smtp,
    workspace,
};

/// Every so-many-th message is taken: about 430 of all kinds.
const STEP: usize = 14;

/// The longest line that SMTP has to take (RFC 5321 §4.5.3.1.6), without its end.
const LINE_BYTES_MAX: usize = 998;

/// The corpus' messages, as files in an unpacked folder; `None` where it is not here.
fn corpus() -> Option<(tempfile::TempDir, Vec<PathBuf>)> {
    let archive = workspace::root().parent()?.join("shared/corpus/spamassassin.tar.xz");
    if !archive.is_file() {
        report("skipped: no ../shared/corpus beside the checkout");
        return None;
    }
    let tar = find("tar")?;
    find("xz")?;
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    succeed(Command::new(tar).arg("-xJf").arg(archive).arg("-C").arg(folder.path()), b"");
    let mut files = Vec::new();
    walk(folder.path(), &mut files);
    files.sort();
    Some((folder, files))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it was just unpacked") {
        let path = entry.expect("it was just unpacked").path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The message with CRLF; a CR that stands elsewhere stays as it is.
fn with_crlf(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + message.len() / 32);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                bytes.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
                bytes.extend_from_slice(b"\r\n");
            }
            None => {
                bytes.extend_from_slice(line);
                bytes.extend_from_slice(b"\r\n");
            }
        }
    }
    bytes
}

/// The message without `Return-Path`: the final delivery takes it away and adds the only one
/// (RFC 5321 §4.4).
fn without_return_path(message: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(message.len());
    let mut rest = message;
    let mut keeps = true;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        if line == b"\r\n" {
            break;
        }
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            keeps = !line.to_ascii_lowercase().starts_with(b"return-path:");
        }
        if keeps {
            kept.extend_from_slice(line);
        }
        rest = after;
    }
    kept.extend_from_slice(rest);
    kept
}

/// What a server may refuse: a CR alone, and a line that is too long.
fn may_be_refused(message: &[u8]) -> bool {
    let mut lines = message.split(|byte| *byte == b'\n');
    lines.any(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.contains(&b'\r') || line.len() > LINE_BYTES_MAX
    })
}

/// The lines around the first that differs from the end.
fn difference(got: &[u8], sent: &[u8]) -> (String, String) {
    let same = got.iter().rev().zip(sent.iter().rev()).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let end = (bytes.len() - same + 40).min(bytes.len());
        let start = (bytes.len() - same).saturating_sub(80);
        String::from_utf8_lossy(&bytes[start..end]).into_owned()
    };
    (around(got), around(sent))
}

#[test]
fn real_mail_comes_out_as_it_went_in() {
    let Some((_folder, files)) = corpus() else { return };
    assert!(files.len() > 6000, "{} files", files.len());
    let server = Server::start();
    let mut lmtp = Smtp::lmtp(&server);
    let mut sent = Vec::new();
    let mut refused = 0;
    for file in files.iter().step_by(STEP) {
        let message = with_crlf(&fs::read(file).expect("it was just unpacked"));
        lmtp.expect("MAIL FROM:<sender@elsewhere.example> BODY=8BITMIME", 250);
        lmtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
        let reply = lmtp.data(&message);
        if reply.code == 250 {
            sent.push((file, without_return_path(&message)));
        } else {
            assert!(may_be_refused(&message), "{}: {reply}", file.display());
            refused += 1;
        }
    }
    let mut imap = server.imap(ALICE);
    imap.ok("EXAMINE INBOX");
    let uids = imap.ok("UID SEARCH ALL").search();
    assert_eq!(uids.len(), sent.len());
    let shown = imap.ok("UID FETCH 1:* (RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE INTERNALDATE)");
    let sizes: Vec<u64> = shown
        .untagged
        .iter()
        .filter(|line| line.text.contains("FETCH ("))
        .map(|line| number_after(&line.text, "RFC822.SIZE"))
        .collect();
    assert_eq!(sizes.len(), sent.len());
    for ((uid, size), (file, message)) in uids.iter().zip(&sizes).zip(&sent) {
        let body = imap.body(*uid);
        if !body.ends_with(message) {
            panic!("{} is not what it was: {:?}", file.display(), difference(&body, message));
        }
        assert_eq!(body.len() as u64, *size, "{}", file.display());
        let answer = imap.ok(&format!("UID FETCH {uid} (BODY.PEEK[HEADER] BODY.PEEK[TEXT])"));
        let literals = &answer.untagged[0].literals;
        assert!(literals.concat() == body, "{}: header and text are not the whole", file.display());
    }
    python(&server, "parse.py", &[&sent.len().to_string()]);
    report(&format!(
        "corpus: {} real messages unchanged, {refused} refused for a bare CR or a long line",
        sent.len()
    ));
}
