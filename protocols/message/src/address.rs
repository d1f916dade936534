//! Address lists (RFC 5322 §3.4, with the obsolete syntax of §4.4) in IMAP's terms.
//!
//! Our own parser, because IMAP sends names as they are in the header: encoded words stay
//! encoded (use [`crate::decode_encoded_words`] to show them). It never fails; what is no address
//! becomes a name without one. Source routes are dropped: IMAP's `addr-adl` is always NIL.

use crate::limits::ENCODED_WORD_BYTES_MAX;
use crate::text::header_text;

/// One entry of an address list, as in RFC 9051 §7.5.2.
///
/// - A mailbox has `mailbox` and `host`; where the header has none of them they are empty strings.
/// - The start of a group has its name in `mailbox` and no `host`.
/// - The end of a group has nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The display name, quotes removed, encoded words kept; else the last comment.
    pub name: Option<String>,
    /// The local part, quotes removed; or a group's name.
    pub mailbox: Option<String>,
    /// The domain as written; `None` marks a group's start or end.
    pub host: Option<String>,
}

impl Address {
    fn group_start(name: &[u8]) -> Self {
        Self { name: None, mailbox: Some(header_text(name)), host: None }
    }

    /// The marker of a group's end.
    pub const GROUP_END: Self = Self { name: None, mailbox: None, host: None };

    /// Whether this is an address and not a group's start or end.
    pub fn is_mailbox(&self) -> bool {
        self.host.is_some()
    }
}

/// Parses a field's value (folded or not); takes at most `entries_max` entries, and possibly one
/// more that ends an open group.
pub fn parse_addresses(value: &[u8], entries_max: usize) -> Vec<Address> {
    let mut parser = Parser { lexer: Lexer { rest: value }, group: Group::Outside };
    let mut out = Vec::new();
    while out.len() < entries_max {
        let Some(entry) = parser.next_entry() else { break };
        out.push(entry);
    }
    if parser.group == Group::Inside {
        out.push(Address::GROUP_END);
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Outside,
    Inside,
}

/// A lexical token and whether blanks or a comment preceded it.
struct Token {
    kind: Kind,
    gap: Gap,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    None,
    Blank,
}

enum Kind {
    /// An atom (dots included), the content of a quoted string, or a domain literal.
    Word(Vec<u8>),
    Comment(Vec<u8>),
    Special(u8),
}

struct Lexer<'a> {
    rest: &'a [u8],
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<Token> {
        let trimmed = self.rest.trim_ascii_start();
        let gap = if trimmed.len() < self.rest.len() { Gap::Blank } else { Gap::None };
        self.rest = trimmed;
        let kind = match *self.rest.first()? {
            b'"' => Kind::Word(self.delimited(b'"')),
            b'(' => Kind::Comment(self.comment()),
            b'[' => {
                let mut literal = vec![b'['];
                literal.extend(self.delimited(b']'));
                literal.push(b']');
                Kind::Word(literal)
            }
            special if is_special(special) => {
                self.rest = &self.rest[1..];
                Kind::Special(special)
            }
            _ => Kind::Word(self.atom()),
        };
        Some(Token { kind, gap })
    }

    /// What stands between the first octet and `close`, quoted pairs resolved; without a `close`,
    /// all that is left.
    fn delimited(&mut self, close: u8) -> Vec<u8> {
        let mut content = Vec::new();
        let mut at = 1;
        while let Some(&byte) = self.rest.get(at) {
            at += 1;
            match byte {
                b'\\' => {
                    content.extend(self.rest.get(at));
                    at += 1;
                }
                _ if byte == close => break,
                _ => content.push(byte),
            }
        }
        self.rest = &self.rest[at.min(self.rest.len())..];
        content
    }

    /// A comment's content; nested parentheses stay in it.
    fn comment(&mut self) -> Vec<u8> {
        let mut content = Vec::new();
        let mut depth = 1usize;
        let mut at = 1;
        while let Some(&byte) = self.rest.get(at) {
            at += 1;
            match byte {
                b'\\' => {
                    content.extend(self.rest.get(at));
                    at += 1;
                    continue;
                }
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            content.push(byte);
        }
        self.rest = &self.rest[at.min(self.rest.len())..];
        content
    }

    fn atom(&mut self) -> Vec<u8> {
        let len = encoded_word_len(self.rest).unwrap_or_else(|| {
            let end = |byte: &u8| byte.is_ascii_whitespace() || is_special(*byte);
            self.rest.iter().position(end).unwrap_or(self.rest.len())
        });
        let (atom, rest) = self.rest.split_at(len);
        self.rest = rest;
        atom.to_vec()
    }
}

/// Characters that end an atom. Neither a dot (mailers leave names like `J. Doe` unquoted) nor a
/// backslash does.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'<' | b'>' | b'@' | b',' | b';' | b':' | b'"' | b'[')
}

/// The length of the encoded word at the start: mailers leave commas and the like unencoded in
/// it (RFC 2047 §5 forbids them), which must not cut it.
fn encoded_word_len(text: &[u8]) -> Option<usize> {
    let inner = text.strip_prefix(b"=?")?;
    let inner = &inner[..inner.len().min(ENCODED_WORD_BYTES_MAX)];
    let end = inner.iter().position(u8::is_ascii_whitespace).unwrap_or(inner.len());
    let inner = &inner[..end];
    let charset = memchr::memchr(b'?', inner)?;
    if !matches!(inner.get(charset + 1)?, b'b' | b'B' | b'q' | b'Q')
        || *inner.get(charset + 2)? != b'?'
    {
        return None;
    }
    let body = charset + 3;
    let close = memchr::memmem::find(&inner[body..], b"?=")?;
    Some(2 + body + close + 2)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    group: Group,
}

/// What was read of an entry before its end or its `<`.
#[derive(Default)]
struct Items {
    /// Words and `@`, each with the gap before it.
    words: Vec<(Vec<u8>, Gap)>,
    /// Where in `words` the last `@` is.
    at: Option<usize>,
    comment: Option<Vec<u8>>,
}

impl Parser<'_> {
    /// The next mailbox or group marker.
    fn next_entry(&mut self) -> Option<Address> {
        let mut items = Items::default();
        loop {
            let before = self.lexer.rest;
            let Some(token) = self.lexer.next() else {
                return (!items.words.is_empty()).then(|| items.into_bare());
            };
            match token.kind {
                Kind::Comment(comment) => items.comment = Some(comment),
                Kind::Special(b'<') => return Some(self.angle(items)),
                Kind::Special(b',') if items.words.is_empty() => {}
                Kind::Special(b',') => return Some(items.into_bare()),
                Kind::Special(b';') if !items.words.is_empty() => {
                    self.lexer.rest = before;
                    return Some(items.into_bare());
                }
                Kind::Special(b';') if self.group == Group::Inside => {
                    self.group = Group::Outside;
                    return Some(Address::GROUP_END);
                }
                Kind::Special(b':') if self.group == Group::Outside => {
                    self.group = Group::Inside;
                    return Some(Address::group_start(&join_phrase(&items.words)));
                }
                other => items.push(other, token.gap),
            }
        }
    }

    /// The address after a `<`, and the comments and the comma that follow its `>`.
    fn angle(&mut self, mut before: Items) -> Address {
        let mut inner = Items::default();
        while let Some(token) = self.lexer.next() {
            match token.kind {
                Kind::Special(b'>') => break,
                // RFC 5322 §4.4: a route ends with a colon; it is dropped.
                Kind::Special(b':') => inner = Items::default(),
                other => inner.push(other, token.gap),
            }
        }
        loop {
            let rest = self.lexer.rest;
            match self.lexer.next().map(|token| token.kind) {
                Some(Kind::Comment(comment)) => before.comment = Some(comment),
                Some(Kind::Special(b',')) | None => break,
                Some(_) => {
                    self.lexer.rest = rest;
                    break;
                }
            }
        }
        let at = inner.at.unwrap_or(inner.words.len());
        let host = inner.words.get(at + 1..).unwrap_or_default();
        Address {
            name: name(&before.words, before.comment),
            mailbox: Some(header_text(&concat(&inner.words[..at]))),
            host: Some(header_text(&concat(host))),
        }
    }
}

impl Items {
    /// Takes a word or an `@`; any other special character separates words and means nothing.
    fn push(&mut self, kind: Kind, gap: Gap) {
        match kind {
            Kind::Word(word) => self.words.push((word, gap)),
            Kind::Special(b'@') => {
                self.at = Some(self.words.len());
                self.words.push((b"@".to_vec(), gap));
            }
            Kind::Comment(_) | Kind::Special(_) => {}
        }
    }

    /// An entry without angle brackets: an address with stray words around it, or no address.
    fn into_bare(mut self) -> Address {
        let Some(at) = self.at else {
            // A single word is a local part, more are a name.
            let mailbox = if self.words.len() == 1 { self.words.pop() } else { None };
            return Address {
                name: name(&self.words, self.comment),
                mailbox: Some(mailbox.map(|(word, _)| header_text(&word)).unwrap_or_default()),
                host: Some(String::new()),
            };
        };
        let mut start = at.saturating_sub(1);
        while start > 0 && self.words[start].1 == Gap::None {
            start -= 1;
        }
        let tail = (at + 2).min(self.words.len());
        let glued = self.words[tail..].iter().take_while(|(_, gap)| *gap == Gap::None).count();
        let end = tail + glued;
        let mailbox = header_text(&concat(&self.words[start..at]));
        let host = header_text(&concat(&self.words[at + 1..end]));
        self.words.drain(start..end);
        Address { name: name(&self.words, self.comment), mailbox: Some(mailbox), host: Some(host) }
    }
}

fn name(words: &[(Vec<u8>, Gap)], comment: Option<Vec<u8>>) -> Option<String> {
    let phrase = if words.is_empty() { comment? } else { join_phrase(words) };
    let name = header_text(phrase.trim_ascii());
    (!name.is_empty()).then_some(name)
}

/// Words with one blank where there were blanks.
fn join_phrase(words: &[(Vec<u8>, Gap)]) -> Vec<u8> {
    let mut phrase = Vec::new();
    for (word, gap) in words {
        if *gap == Gap::Blank && !phrase.is_empty() {
            phrase.push(b' ');
        }
        phrase.extend_from_slice(word);
    }
    phrase
}

fn concat(words: &[(Vec<u8>, Gap)]) -> Vec<u8> {
    words.iter().flat_map(|(word, _)| word).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `name|mailbox|host`, `-` for what is absent.
    fn check(value: &str, expected: &[&str]) {
        let show = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        let found: Vec<String> = parse_addresses(value.as_bytes(), 100)
            .iter()
            .map(|a| format!("{}|{}|{}", show(&a.name), show(&a.mailbox), show(&a.host)))
            .collect();
        assert_eq!(found, expected, "{value:?}");
    }

    #[test]
    fn mailboxes() {
        check("joe@example.com", &["-|joe|example.com"]);
        check(" Joe Q. Public <john.q@example.com>\r\n", &["Joe Q. Public|john.q|example.com"]);
        check("\"Doe, \\\"J\\\"\" <j@x>, <k@y>", &["Doe, \"J\"|j|x", "-|k|y"]);
        check("pete(his account)@silly.test(host)", &["host|pete|silly.test"]);
        check("a@b (Joe (the) Doe)", &["Joe (the) Doe|a|b"]);
        check("<a@b> (Joe), c@d", &["Joe|a|b", "-|c|d"]);
        check("\"john doe\"@x, j@[192.0.2.1]", &["-|john doe|x", "-|j|[192.0.2.1]"]);
        check("Joe <@a,@b:joe@c>", &["Joe|joe|c"]);
        check("a@x,,b@y,", &["-|a|x", "-|b|y"]);
        check("", &[]);
    }

    #[test]
    fn encoded_words_stay_encoded() {
        check("=?utf-8?Q?J=C3=B6?= <j@x>", &["=?utf-8?Q?J=C3=B6?=|j|x"]);
        check("=?utf-8?Q?Doe,_(J)?= <j@x>, k@y", &["=?utf-8?Q?Doe,_(J)?=|j|x", "-|k|y"]);
        check("=?broken, k@y", &["-|=?broken|", "-|k|y"]);
    }

    #[test]
    fn groups() {
        check("undisclosed-recipients:;", &["-|undisclosed-recipients|-", "-|-|-"]);
        check(
            "A Group: Ed <e@x>, joe@y; c@z",
            &["-|A Group|-", "Ed|e|x", "-|joe|y", "-|-|-", "-|c|z"],
        );
        check("open: a@b", &["-|open|-", "-|a|b", "-|-|-"]);
    }

    #[test]
    fn what_is_no_address() {
        check("root", &["-|root|"]);
        check("Joe Public", &["Joe Public||"]);
        check("Joe joe@x.com", &["Joe|joe|x.com"]);
        check("joe@x.com Joe P", &["Joe P|joe|x.com"]);
        check("Joe <>", &["Joe||"]);
        check("Joe <joe@x", &["Joe|joe|x"]);
        check("Joe <joe>", &["Joe|joe|"]);
        check("@x", &["-||x"]);
        check("a@", &["-|a|"]);
        check("a@b@c", &["-|a@b|c"]);
        check("a@x; b@y", &["-|a|x", "-|b|y"]);
        check("\"open", &["-|open|"]);
    }

    #[test]
    fn raw_8bit_survives() {
        let found = parse_addresses(b"J\xFCrgen <j@x>", 10);
        assert_eq!(found[0].name.as_deref(), Some("Jürgen"));
    }

    #[test]
    fn entries_are_bounded() {
        assert_eq!(parse_addresses(&b"a@b,".repeat(50), 10).len(), 10);
        assert_eq!(parse_addresses(b"g: a@b, c@d;", 2).len(), 3);
    }

    proptest! {
        #[test]
        fn anything_is_taken(value in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(&b" \t\r\n()<>@,;:\"[]\\=?aB.\xFC\0"[..]),
                any::<u8>(),
            ],
            0..80,
        )) {
            let mut depth = 0i32;
            for entry in parse_addresses(&value, 100) {
                match (&entry.mailbox, &entry.host) {
                    (Some(_), None) => depth += 1,
                    (None, None) => depth -= 1,
                    (mailbox, _) => prop_assert!(mailbox.is_some()),
                }
                prop_assert!((0..=1).contains(&depth));
            }
            prop_assert_eq!(depth, 0);
        }
    }
}
