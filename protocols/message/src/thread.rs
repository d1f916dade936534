//! What threads are made by: message ids and the base subject (RFC 5256 §2.1).

use crate::encoded_word::decode_encoded_words;
use crate::header::{Fields, first, unfold};
use crate::limits::{BASE_SUBJECT_BYTES_MAX, MESSAGE_ID_BYTES_MAX, REFERENCES_MAX};

/// The inputs of threading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Threading {
    /// The message's id without its angle brackets.
    pub message_id: Option<String>,
    /// The ids of `References`, then those of `In-Reply-To` that are not among them, oldest first,
    /// without angle brackets, each once. Over the limit the ones after the first are left out.
    pub references: Vec<String>,
    /// See [`base_subject`]; empty without a subject.
    pub base_subject: String,
}

impl Threading {
    /// Reads a header block.
    pub(crate) fn new(block: &[u8]) -> Self {
        Self {
            message_id: first(block, "Message-ID").and_then(message_id),
            references: references(block),
            base_subject: first(block, "Subject")
                .map(|value| base_subject(&unfold(value)))
                .unwrap_or_default(),
        }
    }
}

/// The ids of a field like `References`: what stands in angle brackets, without them, blanks
/// removed. Words between them, as old mailers write in `In-Reply-To`, are passed over.
pub fn message_ids(value: &[u8]) -> Vec<String> {
    let mut ids = Vec::new();
    let mut rest = value;
    while let Some(open) = memchr::memchr(b'<', rest) {
        rest = &rest[open + 1..];
        let Some(close) = memchr::memchr(b'>', rest) else { break };
        // An open bracket without its close belongs to no id.
        let start = memchr::memrchr(b'<', &rest[..close]).map_or(0, |at| at + 1);
        let mut id = unfold(&rest[start..close]);
        id.retain(|c| !c.is_whitespace());
        if (1..=MESSAGE_ID_BYTES_MAX).contains(&id.len()) {
            ids.push(id);
        }
        rest = &rest[close + 1..];
    }
    ids
}

/// The id of a `Message-ID` field, of mailers that omit the brackets too.
fn message_id(value: &[u8]) -> Option<String> {
    if let Some(id) = message_ids(value).into_iter().next() {
        return Some(id);
    }
    let text = unfold(value);
    let id = text.split_whitespace().next()?.trim_matches(['<', '>']);
    (1..=MESSAGE_ID_BYTES_MAX).contains(&id.len()).then(|| id.to_owned())
}

fn references(block: &[u8]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for name in ["References", "In-Reply-To"] {
        for field in Fields::new(block).filter(|field| field.is(name)) {
            for id in message_ids(field.value) {
                if ids.contains(&id) {
                    continue;
                }
                if ids.len() == REFERENCES_MAX {
                    ids.remove(1);
                }
                ids.push(id);
            }
        }
    }
    ids
}

/// The base subject (RFC 5256 §2.1) of an unfolded `Subject`: encoded words decoded, blanks
/// collapsed, reply and forward marks and list tags removed, in lower case.
pub fn base_subject(subject: &str) -> String {
    let cut = floor_char_boundary(subject, BASE_SUBJECT_BYTES_MAX);
    let decoded = decode_encoded_words(&subject[..cut]);
    let collapsed = decoded.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let mut base = collapsed.as_str();
    loop {
        base = strip_trailers(base);
        base = strip_leaders(base);
        match base.strip_prefix("[fwd:").and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => base = inner.trim(),
            None => return base.to_owned(),
        }
    }
}

fn floor_char_boundary(text: &str, max: usize) -> usize {
    (0..=max.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// RFC 5256 §2.1 step 2: `(fwd)` and blanks at the end.
fn strip_trailers(mut text: &str) -> &str {
    loop {
        text = text.trim_end();
        match text.strip_suffix("(fwd)") {
            Some(rest) => text = rest,
            None => return text,
        }
    }
}

/// RFC 5256 §2.1 steps 3 to 5.
fn strip_leaders(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if let Some(rest) = strip_leader(text) {
            text = rest;
            continue;
        }
        match strip_blob(text) {
            Some(rest) if !rest.is_empty() => text = rest,
            _ => return text,
        }
    }
}

/// `subj-leader` without its blanks: list tags, then a reply or forward mark.
fn strip_leader(mut text: &str) -> Option<&str> {
    while let Some(rest) = strip_blob(text) {
        text = rest;
    }
    let rest = ["re", "fwd", "fw"].iter().find_map(|mark| text.strip_prefix(mark))?.trim_start();
    strip_blob(rest).unwrap_or(rest).strip_prefix(':')
}

/// `subj-blob`: a tag in square brackets, and the blanks after it.
fn strip_blob(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    inner[end..].strip_prefix(']').map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base_subjects() {
        for (subject, expected) in [
            ("Hello", "hello"),
            ("Re: Hello", "hello"),
            ("RE: re: Fwd: FW :  Hello \t World", "hello world"),
            ("[list] Re: [list] Hello (fwd) (fwd) ", "hello"),
            ("Re[2]: Hello", "hello"),
            ("re [x] : Hello", "hello"),
            ("[Fwd: [Fwd: Re: Hello]]", "hello"),
            ("[a] [b]", "[b]"),
            ("[only]", "[only]"),
            ("Reply: x", "reply: x"),
            ("=?utf-8?Q?Re:_Gr=C3=9C=C3=9Fe?=", "grüße"),
            ("Re:", ""),
            ("[fwd:]", ""),
            ("[unclosed re: x", "[unclosed re: x"),
            ("", ""),
        ] {
            assert_eq!(base_subject(subject), expected, "{subject:?}");
        }
    }

    #[test]
    fn ids() {
        for (value, expected) in [
            ("<a@b> <c@d>", vec!["a@b", "c@d"]),
            ("<a@\r\n b>", vec!["a@b"]),
            ("Your message of Mon <a@b> \"x\"", vec!["a@b"]),
            ("<<a@b>>", vec!["a@b"]),
            ("<> <a", vec![]),
            ("a@b", vec![]),
        ] {
            assert_eq!(message_ids(value.as_bytes()), expected, "{value:?}");
        }
        assert_eq!(message_id(b" a@b \r\n").as_deref(), Some("a@b"));
        assert_eq!(message_id(b" <a@b> (x)\r\n").as_deref(), Some("a@b"));
        assert_eq!(message_id(b" \r\n"), None);
    }

    #[test]
    fn references_come_in_order_and_once() {
        let threading = Threading::new(
            b"In-Reply-To: <c@x> <b@x>\r\nReferences: <a@x>\r\n\t<b@x> <a@x>\r\nMessage-ID: <d@x>\r\n",
        );
        assert_eq!(threading.references, ["a@x", "b@x", "c@x"]);
        assert_eq!(threading.message_id.as_deref(), Some("d@x"));
        assert_eq!(threading.base_subject, "");
    }

    #[test]
    fn references_keep_the_first_and_the_newest() {
        let ids: String = (0..300).map(|n| format!("<{n}@x> ")).collect();
        let found = Threading::new(format!("References: {ids}\r\n").as_bytes()).references;
        assert_eq!(found.len(), REFERENCES_MAX);
        assert_eq!((found[0].as_str(), found[1].as_str()), ("0@x", "201@x"));
        assert_eq!(found[REFERENCES_MAX - 1], "299@x");
    }

    proptest! {
        #[test]
        fn a_reply_has_the_base_of_its_subject(subject in "[\\[\\]a-z:() ]{0,40}|\\PC{0,40}") {
            let base = base_subject(&subject);
            prop_assert_eq!(base_subject(&format!("Re: {subject}")), base.clone());
            prop_assert_eq!(base_subject(&format!("{subject} (fwd)")), base);
        }
    }
}
