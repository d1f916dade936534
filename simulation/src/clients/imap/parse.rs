//! Reads a server's responses (RFC 9051 §7, RFC 7162, RFC 4731).

use super::{Fetched, Status, Untagged};

/// A piece of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// An atom or a number, as it stands.
    Word(String),
    /// A quoted string or a literal.
    Text(Vec<u8>),
    /// What stands in parentheses.
    List(Vec<Value>),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::List(_) => String::new(),
        }
    }

    fn number<T: std::str::FromStr>(&self) -> Option<T> {
        match self {
            Self::Word(word) => word.parse().ok(),
            _ => None,
        }
    }
}

/// Where the first response ends, its CRLF included; `None` where it is not all there.
pub(super) fn whole(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n")?;
        let Some(length) = literal_length(&bytes[from..end]) else { return Some(end + 2) };
        from = end + 2 + length;
        if from > bytes.len() {
            return None;
        }
    }
}

/// The length of the literal that a line announces at its end.
fn literal_length(line: &[u8]) -> Option<usize> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&inner[open + 1..]).ok()?.parse().ok()
}

/// How the command of this tag ended; `None` where the response is another.
pub(super) fn tagged(response: &[u8], tag: &str) -> Option<(Status, String)> {
    let rest = response.strip_prefix(tag.as_bytes())?.strip_prefix(b" ")?;
    let text = String::from_utf8_lossy(rest);
    let (word, text) = text.split_once(' ').unwrap_or((&text, ""));
    let status = match word {
        "OK" => Status::Ok,
        "NO" => Status::No,
        _ => Status::Bad,
    };
    Some((status, text.to_owned()))
}

/// The words of a response code at the beginning of a text.
pub(super) fn code(text: &str, name: &str) -> Option<Vec<String>> {
    let (inside, _) = text.strip_prefix('[')?.split_once(']')?;
    let mut words = inside.split(' ');
    (words.next()? == name).then(|| words.map(str::to_owned).collect())
}

/// What an untagged response says.
pub(super) fn untagged(response: &[u8]) -> Untagged {
    let line = String::from_utf8_lossy(response);
    let Some(rest) = line.strip_prefix("* ") else { return Untagged::Other(line.into_owned()) };
    let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
    if matches!(word, "OK" | "NO" | "BAD" | "BYE") {
        return Untagged::Told(text.to_owned());
    }
    let values = values(&mut &response[2..]);
    understood(&values).unwrap_or_else(|| Untagged::Other(line.into_owned()))
}

fn understood(values: &[Value]) -> Option<Untagged> {
    let first = values.first()?.text();
    match first.as_str() {
        "SEARCH" => Some(Untagged::Found(values[1..].iter().filter_map(Value::number).collect())),
        "ESEARCH" => {
            let all = values.iter().position(|value| value.text() == "ALL");
            let set = all.and_then(|at| values.get(at + 1)).map(Value::text);
            Some(Untagged::Found(set.map(|set| numbers(&set)).unwrap_or_default()))
        }
        "LIST" => Some(Untagged::List { name: values.get(3)?.text() }),
        _ => {
            let number = values.first()?.number()?;
            match values.get(1)?.text().as_str() {
                "EXISTS" => Some(Untagged::Exists(number)),
                "EXPUNGE" => Some(Untagged::Expunge(number)),
                "FETCH" => match values.get(2)? {
                    Value::List(items) => Some(Untagged::Fetch(fetched(number, items))),
                    _ => None,
                },
                _ => None,
            }
        }
    }
}

fn fetched(number: u32, items: &[Value]) -> Fetched {
    let mut fetched = Fetched { number, ..Fetched::default() };
    for pair in items.chunks(2) {
        let [name, value] = pair else { break };
        let name = name.text();
        match (name.as_str(), value) {
            ("UID", value) => fetched.uid = value.number(),
            ("FLAGS", Value::List(flags)) => {
                fetched.flags = Some(flags.iter().map(Value::text).collect());
            }
            ("MODSEQ", Value::List(modseq)) => {
                fetched.modseq = modseq.first().and_then(Value::number);
            }
            (name, Value::Text(bytes)) if name.starts_with("BODY[") => {
                fetched.body = Some(bytes.clone());
            }
            _ => {}
        }
    }
    fetched
}

/// A set like `1:3,7`; what is no set is empty.
pub(super) fn numbers(set: &str) -> Vec<u32> {
    let mut all = Vec::new();
    for part in set.split(',') {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            all.extend(first..=last);
        }
    }
    all
}

/// Values up to the end or to a closing parenthesis, which is taken too.
fn values(rest: &mut &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    while let Some(byte) = rest.first() {
        match byte {
            b' ' => *rest = &rest[1..],
            b')' => {
                *rest = &rest[1..];
                break;
            }
            b'(' => {
                *rest = &rest[1..];
                values.push(Value::List(self::values(rest)));
            }
            b'"' => values.push(Value::Text(quoted(rest))),
            b'{' => values.push(Value::Text(literal(rest))),
            _ => values.push(Value::Word(word(rest))),
        }
    }
    values
}

fn quoted(rest: &mut &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'"' => break,
            b'\\' => {
                at += 1;
                text.extend(rest.get(at));
            }
            byte => text.push(*byte),
        }
        at += 1;
    }
    *rest = rest.get(at + 1..).unwrap_or_default();
    text
}

fn literal(rest: &mut &[u8]) -> Vec<u8> {
    let line = rest.windows(2).position(|pair| pair == b"\r\n").unwrap_or(rest.len());
    let length = literal_length(&rest[..line]).unwrap_or(0);
    let begin = (line + 2).min(rest.len());
    let end = (begin + length).min(rest.len());
    let text = rest[begin..end].to_vec();
    *rest = &rest[end..];
    text
}

/// An atom; what stands in brackets belongs to it, spaces and parentheses too.
fn word(rest: &mut &[u8]) -> String {
    let mut inside = false;
    let end = rest.iter().position(|byte| {
        match byte {
            b'[' => inside = true,
            b']' => inside = false,
            _ => {}
        }
        !inside && matches!(byte, b' ' | b'(' | b')')
    });
    let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = behind;
    String::from_utf8_lossy(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_with_their_literals() {
        let bytes = b"* 2 FETCH (UID 7 FLAGS (\\Seen a) MODSEQ (12) BODY[HEADER.FIELDS (SUBJECT)] \
            {14}\r\nSubject: a)\r\n\r\n)\r\n* 3 EXISTS\r\n";
        let end = whole(bytes).expect("it is all there");
        assert_eq!(&bytes[end..], b"* 3 EXISTS\r\n");
        assert_eq!(whole(&bytes[..end - 1]), None);
        let Untagged::Fetch(fetched) = untagged(&bytes[..end - 2]) else { panic!("a FETCH") };
        assert_eq!((fetched.number, fetched.uid, fetched.modseq), (2, Some(7), Some(12)));
        assert_eq!(Vec::from_iter(fetched.flags.expect("flags")), ["\\Seen", "a"]);
        assert!(fetched.body.expect("a body").starts_with(b"Subject: a)"));
    }

    #[test]
    fn what_clients_look_at_is_understood() {
        assert_eq!(untagged(b"* 3 EXISTS"), Untagged::Exists(3));
        assert_eq!(untagged(b"* 2 EXPUNGE"), Untagged::Expunge(2));
        assert_eq!(untagged(b"* SEARCH 1 5"), Untagged::Found(vec![1, 5]));
        assert_eq!(untagged(b"* SEARCH"), Untagged::Found(vec![]));
        assert_eq!(
            untagged(b"* ESEARCH (TAG \"a1\") UID ALL 1:3,7"),
            Untagged::Found(vec![1, 2, 3, 7])
        );
        assert_eq!(untagged(b"* ESEARCH (TAG \"a1\") UID"), Untagged::Found(vec![]));
        let listed = Untagged::List { name: "a b".to_owned() };
        assert_eq!(untagged(b"* LIST (\\HasNoChildren) \"/\" \"a b\""), listed);
        assert_eq!(tagged(b"a1 OK done", "a1"), Some((Status::Ok, "done".to_owned())));
        assert_eq!(tagged(b"a11 OK done", "a1"), None);
        let words = code("[APPENDUID 7 9] done", "APPENDUID");
        assert_eq!(words, Some(vec!["7".to_owned(), "9".to_owned()]));
    }
}
