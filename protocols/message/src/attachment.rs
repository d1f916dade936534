//! Whether a message has attachments (RFC 8621 §4.1.4 leaves the rule to the server).
//!
//! Our rule: a client should offer something to download, so: what is disposed as an attachment;
//! what is not text, unless it is shown inline, belongs to the HTML around it, or is a signature
//! or a report's machine-readable part; text with a file name that is not inline; any message
//! inside the message.

use crate::structure::{Content, Part};

/// Where a part stands, as far as the rule asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Child,
    /// In a `multipart/related`, not as its first part.
    Related,
}

pub(crate) fn has_attachment(root: &Part) -> bool {
    has(root, Place::Root)
}

fn has(part: &Part, place: Place) -> bool {
    if let Content::Multipart(children) = &part.content {
        let related = part.content_type.subtype == "related";
        return children.iter().enumerate().any(|(at, child)| {
            has(child, if related && at > 0 { Place::Related } else { Place::Child })
        });
    }
    let disposition = part.disposition.as_ref().map(|disposition| disposition.kind.as_str());
    match disposition {
        Some("attachment") => return true,
        Some("inline") => return false,
        _ => {}
    }
    if matches!(part.content, Content::Message(_)) {
        return true;
    }
    let is_text = part.content_type.kind == "text";
    if place == Place::Related && part.content_id.is_some() && !is_text {
        return false;
    }
    match (part.content_type.kind.as_str(), part.content_type.subtype.as_str()) {
        ("text", _) => place != Place::Root && part.file_name().is_some(),
        ("application", "pgp-signature" | "pkcs7-signature" | "x-pkcs7-signature") => false,
        ("application", "pgp-encrypted") => false,
        ("message", "delivery-status" | "global-delivery-status") => false,
        ("message", "disposition-notification" | "global-disposition-notification") => false,
        ("message", "feedback-report") => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Limits, Scanner};

    fn check(header: &str, expected: bool) {
        for (message, place) in [
            (format!("{header}\n\nx"), "root"),
            (
                format!(
                    "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n{header}\n\nx\n--b--\n"
                ),
                "child",
            ),
        ] {
            let mut scanner = Scanner::new(Limits::default());
            scanner.push(message.as_bytes());
            assert_eq!(scanner.finish().has_attachment, expected, "{header:?} as {place}");
        }
    }

    #[test]
    fn rule() {
        check("Content-Type: text/plain", false);
        check("Content-Type: text/html", false);
        check("Content-Type: application/pdf", true);
        check("Content-Type: image/png\nContent-Disposition: inline", false);
        check("Content-Type: text/plain\nContent-Disposition: attachment; filename=x", true);
        check("Content-Type: application/pgp-signature; name=signature.asc", false);
        check("Content-Type: message/rfc822", true);
        check("Content-Type: message/delivery-status", false);
        check(
            "Content-Type: multipart/related; boundary=r\n\n--r\nContent-Type: text/html\n\n\
             --r\nContent-Type: image/png\nContent-ID: <1>\n\n--r--",
            false,
        );
    }
}
