//! Names between text and wire. Text is never read as a master file's: no escapes.

use std::net::IpAddr;

use hickory_net::proto::rr::Name;

use crate::LookupError;

/// The name, absolute and in lower case. A dot at its end changes nothing.
///
/// # Errors
/// [`LookupError::BadName`] where it is empty, too long, has an empty or long label, or a byte that is
/// not a visible ASCII character.
pub(crate) fn parse(text: &str) -> Result<Name, LookupError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let printable = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\';
    if text.is_empty() || !text.bytes().all(printable) {
        return Err(LookupError::BadName);
    }
    let lower = text.to_ascii_lowercase();
    let labels = lower.split('.').map(str::as_bytes);
    if labels.clone().any(<[u8]>::is_empty) {
        return Err(LookupError::BadName);
    }
    // It checks RFC 1035 §2.3.4: 63 octets a label, 255 in all.
    let mut name = Name::from_labels(labels).map_err(|_| LookupError::BadName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// The name as text, in lower case and without a dot at its end; empty for the root. A byte that is not
/// visible, and a dot or backslash within a label, is escaped (RFC 1035 §5.1), and so no name that
/// [`parse`] takes.
pub(crate) fn text(name: &Name) -> String {
    let mut text = String::new();
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
                byte if byte.is_ascii_graphic() => text.push(char::from(byte.to_ascii_lowercase())),
                byte => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    text
}

/// The name that holds an address' names (RFC 1035 §3.5, RFC 3596 §2.5).
pub(crate) fn reverse(address: IpAddr) -> Name {
    let mut name = Name::from(address);
    name.set_fqdn(true);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        #[track_caller]
        fn check(given: &str, expected: &str) {
            assert_eq!(text(&parse(given).unwrap()), expected);
        }
        check("Example.ORG", "example.org");
        check("example.org.", "example.org");
        check("_25._tcp.mx.example.org", "_25._tcp.mx.example.org");
        check("xn--bcher-kva.example", "xn--bcher-kva.example");
        check(&format!("{}.example", "a".repeat(63)), &format!("{}.example", "a".repeat(63)));
        check("odd:name/with%signs.example", "odd:name/with%signs.example");
        assert_eq!(text(&Name::root()), "");
        assert_eq!(text(&parse("a b.example").unwrap()), "a\\032b.example");
        let odd = Name::from_labels([&b"a.b"[..], b"\0\xff\\"]).unwrap();
        assert_eq!(text(&odd), "a\\.b.\\000\\255\\\\");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = ["a".repeat(63).as_str(); 4].join(".");
        for bad in ["", ".", "..", "a..b", ".a", "a\\.b", "bücher.example", "a\0b", "a\r\nb", &long]
        {
            assert_eq!(parse(bad), Err(LookupError::BadName), "{bad:?}");
        }
        assert!(parse(&format!("{}.example", "a".repeat(64))).is_err());
    }

    #[test]
    fn addresses_have_names() {
        let reversed = |address: &str| text(&reverse(address.parse().unwrap()));
        assert_eq!(reversed("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert!(reversed("2001:db8::1").starts_with("1.0.0.0."));
        assert!(reversed("2001:db8::1").ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"));
    }
}
