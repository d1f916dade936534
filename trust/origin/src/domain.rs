//! Domains as they are compared: A-labels in lower case.

/// The domain in A-labels and lower case, without a dot at its end; `None` where it is none.
pub(crate) fn ascii(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let lower = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(text).ok()?
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (lower.len() <= 253 && lower.split('.').all(label)).then_some(lower)
}

/// Whether `domain` is `parent` or below it; nothing is below no domain. Both are in lower case.
pub fn is_within(domain: &str, parent: &str) -> bool {
    let above = domain.strip_suffix(parent).filter(|_| !parent.is_empty());
    above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_compared_by_labels() {
        assert!(is_within("example.org", "example.org"));
        assert!(is_within("a.b.example.org", "example.org"));
        assert!(!is_within("badexample.org", "example.org"));
        assert!(!is_within("org", "example.org"));
        assert!(!is_within("example.org", "") && !is_within("", ""));
    }

    #[test]
    fn domains_are_made_ascii() {
        assert_eq!(ascii("Example.ORG.").as_deref(), Some("example.org"));
        assert_eq!(ascii("bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        for bad in ["", ".", "a..b", "a b", "[192.0.2.1]", "a@b"] {
            assert_eq!(ascii(bad), None, "{bad:?}");
        }
    }
}
