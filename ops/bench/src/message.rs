//! Messages, prepared once; each sent one gets a number of its own in its Message-ID.
//!
//! A template is the message as it goes over the wire, with line ends as CRLF, dot-stuffed and with
//! the final dot for SMTP and LMTP (RFC 5321 §4.5.2), plain for IMAP. Sending one is a copy and
//! a few digits.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{BenchError, limits, pattern::scattered};

/// Digits of the run's and of the message's number, in base 16.
const DIGITS: usize = 16;

/// For which protocol a message is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Dot-stuffed, with the final dot.
    Dots,
    /// As it is; its length is told before it.
    Counted,
}

/// A message but for its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// Up to behind the last place of the number; copied for each message.
    head: Vec<u8>,
    /// The rest; the same for all.
    rest: Vec<u8>,
    /// Where in `head` the number stands.
    places: Vec<usize>,
    /// Whether all of it is ASCII.
    pub(crate) charset: Charset,
}

/// Which bytes a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    Ascii,
    /// Worth telling the server (RFC 6152).
    EightBit,
}

impl Template {
    /// The length of the message.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.rest.len()
    }

    /// Appends the numbered beginning to `out`, and what follows it too where that is small; gives
    /// what is still to be sent.
    pub(crate) fn write<'a>(&'a self, number: u64, out: &mut Vec<u8>) -> &'a [u8] {
        let start = out.len();
        out.extend_from_slice(&self.head);
        for place in &self.places {
            let place = start + place;
            out[place..place + DIGITS].copy_from_slice(&hex(number));
        }
        if self.rest.len() <= limits::COPIED_BYTES_MAX {
            out.extend_from_slice(&self.rest);
            &[]
        } else {
            &self.rest
        }
    }

    /// A message of `size` bytes, a little more after dot-stuffing's final dot.
    pub(crate) fn synthetic(size: u64, run: u64, framing: Framing) -> Self {
        let mut header = Draft::new(run);
        header.text("From: Bench <bench@bench.invalid>\r\nTo: Bench <bench@bench.invalid>\r\n");
        header.text("Subject: load ");
        header.place();
        header.text("\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMIME-Version: 1.0\r\n");
        header.text("Content-Type: text/plain; charset=us-ascii\r\n\r\n");
        let body = usize::try_from(size).expect("the arguments bound it") - header.head.len();
        header.into_template(filler(body, run), framing)
    }

    /// A message of somebody's, without its Message-ID and an mbox's `From ` line.
    pub(crate) fn of(message: &[u8], run: u64, framing: Framing) -> Self {
        Draft::new(run).into_template(without_id(message), framing)
    }
}

struct Draft {
    head: Vec<u8>,
    places: Vec<usize>,
}

impl Draft {
    fn new(run: u64) -> Self {
        let mut draft = Self { head: Vec::new(), places: Vec::new() };
        draft.text("Message-ID: <");
        draft.head.extend_from_slice(&hex(run));
        draft.text(".");
        draft.place();
        draft.text("@bench.invalid>\r\n");
        draft
    }

    fn text(&mut self, text: &str) {
        self.head.extend_from_slice(text.as_bytes());
    }

    fn place(&mut self) {
        self.places.push(self.head.len());
        self.head.extend_from_slice(&[b'0'; DIGITS]);
    }

    fn into_template(self, rest: Vec<u8>, framing: Framing) -> Template {
        let charset = if rest.is_ascii() { Charset::Ascii } else { Charset::EightBit };
        let rest = match framing {
            Framing::Dots => stuffed(&rest),
            Framing::Counted => rest,
        };
        Template { head: self.head, rest, places: self.places, charset }
    }
}

fn hex(number: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        let value = (number >> (4 * index)) & 15;
        *digit = b"0123456789abcdef"[usize::try_from(value).expect("it is below 16")];
    }
    digits
}

/// Lines of words that look like chance, so that no server can shrink them to nothing.
fn filler(bytes: usize, seed: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 80);
    let mut turn = 0;
    while text.len() < bytes {
        for _ in 0..4 {
            text.extend_from_slice(&hex(scattered(turn, seed)));
            text.push(b' ');
            turn += 1;
        }
        text.truncate(text.len() - 1);
        text.extend_from_slice(b"\r\n");
    }
    text.truncate(bytes.saturating_sub(2));
    // The cut may have left half a line end.
    if text.last() == Some(&b'\r') {
        text.pop();
        text.push(b'.');
    }
    text.extend_from_slice(&b"\r\n"[..bytes.min(2)]);
    text
}

/// With CRLF at every line's end, without the Message-ID field.
fn without_id(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32);
    let mut in_header = true;
    let mut in_id = false;
    for (index, line) in message.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if in_header {
            if index == 0 && line.starts_with(b"From ") {
                continue;
            }
            let folded = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
            if !folded {
                const ID: &[u8] = b"message-id:";
                in_id = line.get(..ID.len()).is_some_and(|name| name.eq_ignore_ascii_case(ID));
            }
            in_header = !line.is_empty();
            if in_id {
                continue;
            }
        }
        // A bare CR within a line is an error to many servers, and to nobody's profit.
        out.extend(line.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// RFC 5321 §4.5.2: a dot more where a line begins with one, and the final line.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Every message of a folder and its folders, in the order of their names.
///
/// # Errors
/// Where the folder cannot be read, holds nothing, or too much.
pub(crate) fn folder(path: &Path, run: u64, framing: Framing) -> Result<Vec<Template>, BenchError> {
    let mut files = Vec::new();
    collect(path, limits::FOLDER_DEPTH_MAX, &mut files)?;
    files.sort_unstable();
    let mut bytes = 0;
    let mut templates = Vec::with_capacity(files.len());
    for file in files {
        let message = fs::read(&file).map_err(|source| unreadable(&file, source))?;
        bytes += u64::try_from(message.len()).expect("usize fits");
        if bytes > limits::FOLDER_BYTES_MAX {
            let max = limits::FOLDER_BYTES_MAX;
            return Err(BenchError::Usage(format!("{} has over {max} bytes", path.display())));
        }
        templates.push(Template::of(&message, run, framing));
    }
    if templates.is_empty() {
        return Err(BenchError::Usage(format!("{} holds no file", path.display())));
    }
    Ok(templates)
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), BenchError> {
    let failed = |source| unreadable(path, source);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir() && depth > 0 {
            collect(&entry.path(), depth - 1, files)?;
        }
        if files.len() > limits::FOLDER_FILES_MAX {
            let max = limits::FOLDER_FILES_MAX;
            return Err(BenchError::Usage(format!("{} has over {max} files", path.display())));
        }
    }
    Ok(())
}

fn unreadable(path: &Path, source: std::io::Error) -> BenchError {
    BenchError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(template: &Template, number: u64) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let rest = template.write(number, &mut out);
        out.extend_from_slice(rest);
        out.split_off(6)
    }

    #[test]
    fn a_made_message_has_its_size_and_its_number() {
        for size in [400, 401, 402, 465, 466, 467, 468, 10_000, 200_000] {
            let template = Template::synthetic(size, 1, Framing::Counted);
            let message = whole(&template, 0xabc);
            assert_eq!(message.len() as u64, size);
            assert_eq!(template.len() as u64, size);
            let text = String::from_utf8(message).unwrap();
            assert!(
                text.starts_with(
                    "Message-ID: <0000000000000001.0000000000000abc@bench.invalid>\r\n"
                )
            );
            assert!(text.contains("\r\nSubject: load 0000000000000abc\r\n"), "{text}");
            assert!(text.ends_with("\r\n"));
            assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
            assert_eq!(text.matches('\r').count(), text.matches("\r\n").count());
            let dots = Template::synthetic(size, 1, Framing::Dots);
            assert!(whole(&dots, 0xabc).ends_with(b"\r\n.\r\n"));
        }
    }

    #[test]
    fn other_peoples_messages_keep_all_but_their_id() {
        let message = b"From x@y Mon\nSubject: a\nMessage-Id: <1@x>\n\t(folded)\nTo: b\n\n\
            .dot\nMessage-ID: in the body\nno end";
        let counted = Template::of(message, 0, Framing::Counted);
        let text = String::from_utf8(whole(&counted, 5)).unwrap();
        let (id, rest) = text.split_once("\r\n").unwrap();
        assert_eq!(id, "Message-ID: <0000000000000000.0000000000000005@bench.invalid>");
        assert_eq!(
            rest,
            "Subject: a\r\nTo: b\r\n\r\n.dot\r\nMessage-ID: in the body\r\nno end\r\n"
        );
        let dots = whole(&Template::of(message, 0, Framing::Dots), 5);
        assert!(
            String::from_utf8(dots)
                .unwrap()
                .ends_with("\r\n..dot\r\nMessage-ID: in the body\r\nno end\r\n.\r\n")
        );
        let eight = Template::of("Subject: \u{fc}\n\nb".as_bytes(), 0, Framing::Counted);
        assert_eq!((eight.charset, counted.charset), (Charset::EightBit, Charset::Ascii));
    }

    #[test]
    fn folders_are_read_with_their_folders() {
        let made = tempfile::tempdir().unwrap();
        assert!(matches!(folder(made.path(), 0, Framing::Dots), Err(BenchError::Usage(_))));
        fs::create_dir(made.path().join("a")).unwrap();
        fs::write(made.path().join("a/1"), "Subject: one\n\n1").unwrap();
        fs::write(made.path().join("b"), "Subject: two\n\n2").unwrap();
        let found = folder(made.path(), 0, Framing::Dots).unwrap();
        assert_eq!(found.len(), 2);
        assert!(String::from_utf8(whole(&found[0], 0)).unwrap().contains("one"));
        assert!(matches!(
            folder(&made.path().join("none"), 0, Framing::Dots),
            Err(BenchError::File { .. })
        ));
    }
}
