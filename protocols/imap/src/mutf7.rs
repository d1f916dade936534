//! Modified UTF-7 (RFC 3501 §5.1.3), in which IMAP4rev1 writes names of mailboxes.

use base64::Engine;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Writes a name in modified UTF-7.
pub fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    let mut shifted = Vec::new();
    for c in name.chars() {
        if !(' '..='~').contains(&c) {
            let mut units = [0; 2];
            shifted.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
            continue;
        }
        unshift(&mut encoded, &mut shifted);
        encoded.push(c);
        if c == '&' {
            encoded.push('-');
        }
    }
    unshift(&mut encoded, &mut shifted);
    encoded
}

fn unshift(encoded: &mut String, shifted: &mut Vec<u8>) {
    if !shifted.is_empty() {
        encoded.push('&');
        BASE64.encode_string(&*shifted, encoded);
        encoded.push('-');
        shifted.clear();
    }
}

/// Reads a name in modified UTF-7. `None` for what this encoding never writes: eight-bit octets,
/// an open shift, lone surrogates, printable ASCII in a shift.
pub fn decode(encoded: &str) -> Option<String> {
    let mut name = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.find('&') {
        push_plain(&mut name, &rest[..at])?;
        let (shifted, behind) = rest[at + 1..].split_once('-')?;
        rest = behind;
        if shifted.is_empty() {
            name.push('&');
            continue;
        }
        let bytes = BASE64.decode(shifted).ok()?;
        if bytes.len() % 2 != 0 {
            return None;
        }
        let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        for c in char::decode_utf16(units) {
            let c = c.ok()?;
            // One name has one encoding, or two names would be one mailbox.
            if (' '..='~').contains(&c) {
                return None;
            }
            name.push(c);
        }
    }
    push_plain(&mut name, rest)?;
    Some(name)
}

fn push_plain(name: &mut String, text: &str) -> Option<()> {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte)).then(|| name.push_str(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(encoded: &str, name: Option<&str>) {
        assert_eq!(decode(encoded).as_deref(), name, "{encoded}");
        if let Some(name) = name {
            assert_eq!(encode(name), encoded);
        }
    }

    #[test]
    fn names_of_the_rfc() {
        check("~peter/mail/&U,BTFw-/&ZeVnLIqe-", Some("~peter/mail/台北/日本語"));
        check("Entw&APw-rfe", Some("Entwürfe"));
        check("A&-B", Some("A&B"));
        check("&2D3cqQ-", Some("💩"));
        check("&Jjo-!", Some("☺!"));
    }

    #[test]
    fn what_is_never_written_is_refused() {
        for encoded in ["&", "&Jjo", "&AGE-", "ü", "&2D0-", "&Jj-", "&A/8-", "&Jjp-"] {
            check(encoded, None);
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(name in any::<String>()) {
            prop_assert_eq!(decode(&encode(&name)), Some(name));
        }

        #[test]
        fn decoding_never_panics(encoded in "[&A-Za-z0-9+,-]{0,24}") {
            if let Some(name) = decode(&encoded) {
                prop_assert_eq!(encode(&name).len() <= encoded.len(), true);
            }
        }
    }
}
