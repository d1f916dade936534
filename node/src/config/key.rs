//! From a place in the file to the key that stands there, and back.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The full name of the key whose name or value spans `place`. A place without extent is the
/// file itself, as for a key that is missing.
pub(super) fn name_at(text: &str, place: &Range<usize>) -> Option<String> {
    if place.is_empty() {
        return None;
    }
    // The recovering parser, so that a syntax error further down hides no names.
    let (table, _errors) = DeTable::parse_recoverable(text);
    let mut path = Vec::new();
    descend(table.get_ref(), place, &mut path);
    match path.as_slice() {
        [] => bare_key(text.get(place.clone())?),
        path => Some(path.join(".")),
    }
}

/// A key that stands twice is once in no table, but the place is its name.
fn bare_key(text: &str) -> Option<String> {
    let is_bare = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    is_bare.then(|| text.to_owned())
}

fn descend(table: &DeTable<'_>, place: &Range<usize>, path: &mut Vec<String>) {
    let spans = |outer: Range<usize>| outer.contains(&place.start) && outer.end >= place.end;
    for (name, value) in table {
        let is_name = spans(name.span());
        let inner = match value.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
        // A `[table]`'s span is its header alone, so its content is looked at in any case.
        let before = path.len();
        path.push(name.get_ref().to_string());
        if is_name {
            return;
        }
        if let Some(inner) = inner {
            descend(inner, place, path);
            if path.len() > before + 1 {
                return;
            }
        }
        if spans(value.span()) {
            return;
        }
        path.truncate(before);
    }
}

/// Where the value of a key begins; where the file leaves it out, its table's header, or the
/// file's begin.
pub(super) fn offset_of(text: &str, key: &str) -> usize {
    let (root, _errors) = DeTable::parse_recoverable(text);
    let mut offset = 0;
    let mut table = root.get_ref();
    for name in key.split('.') {
        let Some((found, value)) = table.iter().find(|(found, _)| found.get_ref() == name) else {
            break;
        };
        match value.get_ref() {
            DeValue::Table(inner) => {
                offset = found.span().start;
                table = inner;
            }
            _ => return value.span().start,
        }
    }
    offset
}
