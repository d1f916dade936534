//! The `Date` field (RFC 5322 §3.3, with the obsolete zones and years of §4.3).

use mail_parser::DateTime;

use crate::header::unfold;

/// A date-time field's value (folded or not) as seconds since 1970-01-01T00:00:00Z; `None` if it
/// is not a date. A date without a zone is read as UTC.
pub fn parse_date(value: &[u8]) -> Option<i64> {
    let text = unfold(value);
    let mut date = DateTime::parse_rfc822(&text)
        .or_else(|| DateTime::parse_rfc822(&format!("{text} +0000")))?;
    if date.year < 1000 {
        // RFC 5322 §4.3: years of three digits count from 1900; some write them with four.
        date.year += 1900;
    }
    date.is_valid().then(|| date.to_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates() {
        for (value, expected) in [
            ("Thu, 1 Jan 1970 00:00:00 +0000", Some(0)),
            (" Fri, 21 Nov 1997\r\n 09:55:06 -0600\r\n", Some(880_127_706)),
            ("21 Nov 1997 09:55 -0600", Some(880_127_700)),
            ("Fri, 21 Nov 97 09:55:06 GMT", Some(880_106_106)),
            ("Fri, 21 Nov 1997 09:55:06 EST", Some(880_124_106)),
            ("Fri, 21 Nov 1997 09:55:06 -0600 (CST)", Some(880_127_706)),
            ("Tue, 29 Feb 2000 12:00:00 +0530", Some(951_805_800)),
            ("Fri, 21 Nov 1997 09:55:06", Some(880_106_106)),
            ("Fri, 21 Nov 097 09:55:06 GMT", Some(880_106_106)),
            ("Thu, 22 Aug 0102 12:07:35 +0800", Some(1_029_989_255)),
            ("", None),
            ("yesterday", None),
            ("Fri, 45 Nov 1997 09:55:06 GMT", None),
        ] {
            assert_eq!(parse_date(value.as_bytes()), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_taken(value in "[0-9A-Za-z ,:+()-]{0,60}|[0-9]{0,30} (Jan|Feb) [0-9]{0,30} [0-9:]{0,30} [+-][0-9]{0,30}") {
            parse_date(value.as_bytes());
        }
    }
}
