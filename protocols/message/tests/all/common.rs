//! What the test programs share: scanning in pieces, and what is true of every scan.

use message::{Content, Limits, Part, Scanned, Scanner, TransferDecoder};

/// Scans a message in pieces of the given lengths, repeated.
pub(crate) fn scan_in(bytes: &[u8], lengths: &[usize], limits: Limits) -> Scanned {
    let mut scanner = Scanner::new(limits);
    let mut rest = bytes;
    for &length in lengths.iter().cycle() {
        let (piece, after) = rest.split_at(length.clamp(1, rest.len().max(1)).min(rest.len()));
        scanner.push(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    scanner.finish()
}

/// Scans a message in one piece, with the default limits.
pub(crate) fn scan(bytes: &[u8]) -> Scanned {
    scan_in(bytes, &[usize::MAX], Limits::default())
}

/// Asserts what is true of every scan of `bytes`; returns the number of parts.
pub(crate) fn assert_sound(bytes: &[u8], scanned: &Scanned) -> usize {
    let root = &scanned.structure.root;
    assert_eq!(scanned.size, bytes.len() as u64);
    assert_eq!((root.header.start, root.body.end), (0, scanned.size));
    assert!(bytes.starts_with(&scanned.header_block));
    assert!(scanned.header_block.len() as u64 <= root.header.end);
    for field in &scanned.header_index.fields {
        let raw = &scanned.header_block[field.offset as usize..(field.offset + field.len) as usize];
        assert!(raw.starts_with(field.name.as_bytes()), "{field:?}");
    }
    assert!(scanned.preview.chars().count() <= 256);
    assert_part(bytes, root)
}

fn assert_part(bytes: &[u8], part: &Part) -> usize {
    assert!(part.header.start <= part.header.end, "{part:?}");
    assert_eq!(part.header.end, part.body.start, "{part:?}");
    assert!(part.body.start <= part.body.end, "{part:?}");
    let body = &bytes[part.body.start as usize..part.body.end as usize];
    let lf = body.iter().filter(|byte| **byte == b'\n').count() as u64;
    let open_line = u64::from(!body.is_empty() && !body.ends_with(b"\n"));
    assert_eq!(part.lines, lf + open_line, "{part:?} {body:?}");
    let kind = part.content_type.kind.as_str();
    let is_message =
        part.content_type.is("message", "rfc822") || part.content_type.is("message", "global");
    match &part.content {
        Content::Leaf => {
            assert!(kind != "multipart" && !is_message, "{part:?}");
            let mut decoded = body.to_vec();
            if let Some(mut decoder) = TransferDecoder::new(&part.transfer_encoding) {
                decoded.clear();
                decoder.push(body, &mut decoded);
                decoder.finish(&mut decoded);
            }
            assert_eq!(part.decoded_size, decoded.len() as u64, "{part:?}");
            1
        }
        Content::Multipart(children) => {
            assert_eq!(kind, "multipart");
            assert!(!children.is_empty());
            let mut at = part.body.start;
            let mut parts = 1;
            for child in children {
                assert!(child.header.start >= at && child.body.end <= part.body.end, "{part:?}");
                at = child.body.end;
                parts += assert_part(bytes, child);
            }
            parts
        }
        Content::Message(message) => {
            assert!(is_message, "{part:?}");
            assert_eq!(message.root.header.start, part.body.start);
            assert_eq!(message.root.body.end, part.body.end);
            1 + assert_part(bytes, &message.root)
        }
    }
}

/// `kind/subtype` of every part, depth first.
pub(crate) fn types(part: &Part) -> Vec<String> {
    let mut out = vec![format!("{}/{}", part.content_type.kind, part.content_type.subtype)];
    match &part.content {
        Content::Leaf => {}
        Content::Multipart(children) => out.extend(children.iter().flat_map(types)),
        Content::Message(message) => out.extend(types(&message.root)),
    }
    out
}
