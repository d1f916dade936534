//! IMAP section numbers to parts and byte ranges (RFC 9051 §6.4.5.1).

use std::ops::Range;

use crate::structure::{Content, Part, Structure};

/// What of a part a section means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionText {
    /// `BODY[]` or `BODY[1.2]`: the whole message, or a part's body.
    Whole,
    /// `HEADER`: the header of the message, or of the message that the part is.
    Header,
    /// `TEXT`: the body of the message, or of the message that the part is.
    Text,
    /// `MIME`: the part's own header; not without a part number.
    Mime,
}

/// The part with that number; `root` for an empty path, `None` if there is no such part.
///
/// A message that is no multipart has one part, 1, which is its body. The parts of a message
/// inside a message are numbered below the part that holds it.
pub fn lookup<'a>(root: &'a Part, path: &[u32]) -> Option<&'a Part> {
    let mut part = root;
    // A message's root has no number of its own: part 1 of a message without multiparts is the
    // root again, this time with a number.
    let mut numbered = false;
    for &number in path {
        if numbered && let Content::Message(message) = &part.content {
            part = &message.root;
            numbered = false;
        }
        match &part.content {
            Content::Multipart(children) => {
                let index = usize::try_from(number).ok()?.checked_sub(1)?;
                part = children.get(index)?;
            }
            Content::Leaf | Content::Message(_) if !numbered && number == 1 => {}
            Content::Leaf | Content::Message(_) => return None,
        }
        numbered = true;
    }
    Some(part)
}

/// The range of a section in the whole message; `None` if there is no such section.
pub fn resolve(structure: &Structure, part: &[u32], what: SectionText) -> Option<Range<u64>> {
    let root = &structure.root;
    if part.is_empty() {
        return match what {
            SectionText::Whole => Some(root.header.start..root.body.end),
            SectionText::Header => Some(root.header.clone()),
            SectionText::Text => Some(root.body.clone()),
            SectionText::Mime => None,
        };
    }
    let found = lookup(root, part)?;
    match (what, &found.content) {
        (SectionText::Whole, _) => Some(found.body.clone()),
        (SectionText::Mime, _) => Some(found.header.clone()),
        (SectionText::Header, Content::Message(message)) => Some(message.root.header.clone()),
        (SectionText::Text, Content::Message(message)) => Some(message.root.body.clone()),
        (SectionText::Header | SectionText::Text, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Scanner};

    /// The example of RFC 9051 §6.4.5.1 in small, every piece with its name in it.
    const MESSAGE: &str = "Subject: top\n\
        Content-Type: multipart/mixed; boundary=a\n\n\
        --a\nX: 1\n\none\n\
        --a\nContent-Type: message/rfc822\nX: 2\n\n\
        Subject: two\n\ntwo text\n\
        --a\nContent-Type: message/rfc822\nX: 3\n\n\
        Subject: three\nContent-Type: multipart/mixed; boundary=b\n\n\
        --b\nX: 3.1\n\nthree one\n\
        --b\nContent-Type: multipart/alternative; boundary=c\nX: 3.2\n\n\
        --c\n\nthree two one\n--c--\n--b--\n--a--\n";

    fn check(message: &str, part: &[u32], what: SectionText, expected: Option<&str>) {
        let mut scanner = Scanner::new(Limits::default());
        scanner.push(message.as_bytes());
        let range = resolve(&scanner.finish().structure, part, what);
        let found = range.map(|range| &message[range.start as usize..range.end as usize]);
        assert_eq!(found, expected, "{part:?} {what:?}");
    }

    #[test]
    fn sections_of_a_multipart() {
        use SectionText::{Header, Mime, Text, Whole};
        let check = |part: &[u32], what, expected| check(MESSAGE, part, what, expected);
        check(&[], Whole, Some(MESSAGE));
        check(&[], Header, Some("Subject: top\nContent-Type: multipart/mixed; boundary=a\n\n"));
        check(&[], Mime, None);
        check(&[1], Whole, Some("one"));
        check(&[1], Mime, Some("X: 1\n\n"));
        check(&[1], Header, None);
        check(&[1], Text, None);
        check(&[1, 1], Whole, None);
        check(&[2], Whole, Some("Subject: two\n\ntwo text"));
        check(&[2], Header, Some("Subject: two\n\n"));
        check(&[2], Text, Some("two text"));
        check(&[2], Mime, Some("Content-Type: message/rfc822\nX: 2\n\n"));
        check(&[2, 1], Whole, Some("two text"));
        check(&[2, 1], Mime, Some("Subject: two\n\n"));
        check(&[2, 1, 1], Whole, None);
        check(&[2, 2], Whole, None);
        check(&[3, 1], Whole, Some("three one"));
        check(&[3, 1], Mime, Some("X: 3.1\n\n"));
        check(&[3, 2], Whole, Some("--c\n\nthree two one\n--c--"));
        check(&[3, 2, 1], Whole, Some("three two one"));
        check(&[3, 2, 2], Whole, None);
        check(&[4], Whole, None);
        check(&[0], Whole, None);
        check(&[u32::MAX], Whole, None);
    }

    #[test]
    fn sections_of_a_message_without_multipart() {
        use SectionText::{Header, Mime, Text, Whole};
        check("A: b\n\nx", &[1], Whole, Some("x"));
        check("A: b\n\nx", &[1], Mime, Some("A: b\n\n"));
        check("A: b\n\nx", &[], Text, Some("x"));
        check("A: b\n\nx", &[1, 1], Whole, None);
        check("A: b\n\nx", &[2], Whole, None);
        let forward = "Content-Type: message/rfc822\n\nB: c\n\ny";
        check(forward, &[1], Whole, Some("B: c\n\ny"));
        check(forward, &[1], Header, Some("B: c\n\n"));
        check(forward, &[1, 1], Whole, Some("y"));
        check(forward, &[1, 1, 1], Whole, None);
    }
}
