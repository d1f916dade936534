//! DER (X.690), as far as certificates need it: elements one by one, nothing copied.

/// Tags (X.690 §8): SEQUENCE, OBJECT IDENTIFIER, and the context's own numbers 0 and 3.
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const CONTEXT_0: u8 = 0xa0;
pub(super) const CONTEXT_3: u8 = 0xa3;

/// The content of the element at the beginning, where it has this tag, and what follows it.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = next(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the element at the beginning, and what follows it.
pub(super) fn next(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // X.690 §8.1.3.5: so many octets of length follow. Four are 4 GiB.
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
