//! Tag lists (RFC 6376 §3.2), as signatures, key records and policies are written. Of a policy what is
//! broken is skipped; a signature or a key that is broken anywhere is none.

use crate::limits::TAGS_MAX;

/// A tag list, in its order.
#[derive(Debug)]
pub(crate) struct Tags<'a> {
    list: Vec<(&'a str, &'a str)>,
}

/// The text is no tag list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoTags;

impl<'a> Tags<'a> {
    /// Reads a list; blanks around names and values are dropped, folds within values are kept.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, NoTags> {
        let text = std::str::from_utf8(text).map_err(|_| NoTags)?.trim_ascii();
        let text = text.strip_suffix(';').unwrap_or(text);
        let mut list: Vec<(&str, &str)> = Vec::new();
        for tag in text.split(';') {
            let (name, value) = one(tag).ok_or(NoTags)?;
            // RFC 6376 §3.2: a name that occurs twice makes all of it invalid.
            let twice = list.iter().any(|(other, _)| *other == name);
            if twice || list.len() == TAGS_MAX {
                return Err(NoTags);
            }
            list.push((name, value));
        }
        Ok(Self { list })
    }

    /// Reads what can be read of a list: what is no tag is skipped, and of a name that occurs several times
    /// the first counts. An empty list is one whose first piece is no tag, since all that it says hangs on that.
    pub(crate) fn parse_lenient(text: &'a [u8]) -> Self {
        let mut list: Vec<(&str, &str)> = Vec::new();
        for (place, tag) in text.split(|byte| *byte == b';').enumerate() {
            match std::str::from_utf8(tag).ok().and_then(one) {
                Some((name, _)) if list.iter().any(|(other, _)| *other == name) => {}
                Some(_) if list.len() == TAGS_MAX => break,
                Some(tag) => list.push(tag),
                None if place == 0 => break,
                None => {}
            }
        }
        Self { list }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.list.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The value without any blanks.
    pub(crate) fn compact(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        Some(value.chars().filter(|at| !at.is_ascii_whitespace()).collect())
    }

    /// The first tag.
    pub(crate) fn first(&self) -> Option<(&'a str, &'a str)> {
        self.list.first().copied()
    }
}

/// One tag, without the blanks around its name and its value.
fn one(tag: &str) -> Option<(&str, &str)> {
    let (name, value) = tag.split_once('=')?;
    let (name, value) = (name.trim_ascii(), value.trim_ascii());
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let named = name.starts_with(|first: char| first.is_ascii_alphabetic());
    (named && name.bytes().all(known)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let tags = Tags::parse(b" v=1; b = a b\r\n\tc ;empty=; q=a=b;\r\n").unwrap();
        assert_eq!(tags.first(), Some(("v", "1")));
        assert_eq!(tags.get("b"), Some("a b\r\n\tc"));
        assert_eq!(tags.compact("b").unwrap(), "abc");
        assert_eq!(tags.get("empty"), Some(""));
        assert_eq!(tags.get("q"), Some("a=b"));
        assert_eq!(tags.get("V"), None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in ["", ";", "a", "a=1;;b=2", "a=1; a=2", "=1", "1a=1", "a b=1", "a-b=1"] {
            assert!(Tags::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Tags::parse(b"a=\xff").is_err());
        let many: String = (0..100).map(|number| format!("a{number}=1;")).collect();
        assert!(Tags::parse(many.as_bytes()).is_err());
    }
    #[test]
    fn what_is_broken_is_skipped_where_it_may_be() {
        let tags = Tags::parse_lenient(b"v=1;; a ; b=2; a-b=3; c=\xff; b=4; d=5;").list;
        assert_eq!(tags, [("v", "1"), ("b", "2"), ("d", "5")]);
        for none in [&b""[..], b";v=1", b"a; v=1", b"\xff=1; v=1"] {
            assert_eq!(Tags::parse_lenient(none).first(), None, "{none:?}");
        }
        let many: String = (0..100).map(|number| format!("a{number}=1;")).collect();
        assert_eq!(Tags::parse_lenient(many.as_bytes()).list.len(), TAGS_MAX);
    }
}
