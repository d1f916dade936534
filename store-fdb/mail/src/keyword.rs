//! Keywords: the flags of an email, in JMAP's spelling (RFC 8621 §4.1.1).
//!
//! IMAP's `\Seen`, `\Answered`, `\Flagged` and `\Draft` are `$seen`, `$answered`, `$flagged` and
//! `$draft`. `\Deleted` is not a keyword: it belongs to one mailbox's copy, not to the email.

use std::{fmt, sync::Arc};

use crate::limits;

/// One keyword, lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyword(Arc<str>);

impl Keyword {
    /// `\Seen`.
    pub const SEEN: &'static str = "$seen";
    /// `\Answered`.
    pub const ANSWERED: &'static str = "$answered";
    /// `\Flagged`.
    pub const FLAGGED: &'static str = "$flagged";
    /// `\Draft`.
    pub const DRAFT: &'static str = "$draft";

    /// Checks and folds a keyword.
    ///
    /// # Errors
    /// RFC 8621 §4.1.1: 1 to 255 characters of `%x21-%x7e` except `( ) { ] % * " \`.
    pub fn new(text: &str) -> Result<Self, KeywordError> {
        if text.is_empty() || text.len() > limits::KEYWORD_BYTES_MAX {
            return Err(KeywordError::Length);
        }
        let allowed = |b: u8| (0x21..=0x7e).contains(&b) && !b"(){]%*\"\\".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(KeywordError::Character);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The keyword's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeywordError {
    /// Empty, or over 255 bytes.
    #[error("a keyword has 1 to 255 characters")]
    Length,
    /// A character that RFC 8621 §4.1.1 does not allow.
    #[error("a keyword holds printable ASCII except ( ) {{ ] % * \" \\")]
    Character,
}

/// A set of keywords, sorted, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct KeywordSet(Arc<[Keyword]>);

impl KeywordSet {
    /// Whether `keyword` (in lower case) is in the set.
    pub fn contains(&self, keyword: &str) -> bool {
        self.0.binary_search_by(|held| held.as_str().cmp(keyword)).is_ok()
    }

    /// Whether the email has been read.
    pub fn is_seen(&self) -> bool {
        self.contains(Keyword::SEEN)
    }

    /// Number of keywords.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keywords in order.
    pub fn iter(&self) -> impl Iterator<Item = &Keyword> {
        self.0.iter()
    }

    /// Both sets' keywords.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).cloned().collect()
    }

    /// The keywords that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|keyword| !other.contains(keyword.as_str())).cloned().collect()
    }

    /// From a stored record, whose keywords were checked when they were written.
    pub(crate) fn from_record(keywords: &[String]) -> Self {
        keywords.iter().map(|text| Keyword(text.as_str().into())).collect()
    }

    pub(crate) fn to_record(&self) -> Vec<String> {
        self.iter().map(|keyword| keyword.as_str().to_owned()).collect()
    }
}

impl FromIterator<Keyword> for KeywordSet {
    fn from_iter<I: IntoIterator<Item = Keyword>>(keywords: I) -> Self {
        let mut keywords: Vec<Keyword> = keywords.into_iter().collect();
        keywords.sort_unstable();
        keywords.dedup();
        Self(keywords.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keywords: &[&str]) -> KeywordSet {
        keywords.iter().map(|text| Keyword::new(text).unwrap()).collect()
    }

    #[test]
    fn keywords_fold_case_and_refuse_what_jmap_refuses() {
        assert_eq!(Keyword::new("$Seen").unwrap().as_str(), "$seen");
        assert_eq!(Keyword::new(""), Err(KeywordError::Length));
        assert_eq!(Keyword::new(&"a".repeat(256)), Err(KeywordError::Length));
        for bad in ["a b", "a(", "a{", "a]", "a%", "a*", "a\"", "a\\", "é"] {
            assert_eq!(Keyword::new(bad), Err(KeywordError::Character), "{bad}");
        }
    }

    #[test]
    fn sets_are_sorted_and_have_no_duplicates() {
        let both = set(&["b", "$seen", "B"]);
        assert_eq!(both.len(), 2);
        assert!(both.is_seen() && both.contains("b") && !both.contains("c"));
        assert_eq!(both.difference(&set(&["b"])), set(&["$seen"]));
        assert_eq!(set(&["a"]).union(&set(&["b"])), set(&["b", "a"]));
    }
}
