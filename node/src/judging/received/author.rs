//! Whose message a report came in.

use origin::{DkimResult, DmarcResult, SpfResult, SpfVerdict, Verdicts};

use crate::judging::Findings;

/// What is known of who wrote a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Author {
    /// This domain vouches for it, that of its `From`.
    Vouched(String),
    /// Nobody does who is known.
    Unknown,
    /// Nobody has looked.
    Unjudged,
}

impl Author {
    /// What was found of a message, where it was judged.
    pub(crate) fn of(findings: Option<&Findings>) -> Self {
        match findings {
            None => Self::Unjudged,
            Some(found) => {
                vouching(&found.verdicts, &found.asked.sender).map_or(Self::Unknown, Self::Vouched)
            }
        }
    }
}

/// The author's domain, where it vouches for the message: by DMARC, or, where it has no record for
/// that, by a signature or SPF of that very domain or of one above it, whose owner has it too.
pub(super) fn vouching(verdicts: &Verdicts, sender: &SpfVerdict) -> Option<String> {
    let dmarc = &verdicts.dmarc;
    let author = Some(&dmarc.author_domain).filter(|domain| !domain.is_empty())?;
    let is_authors =
        |domain: &str| domain.contains('.') && origin::domain::is_within(author, domain);
    let vouches = match dmarc.result {
        DmarcResult::Pass => true,
        DmarcResult::None => {
            let signatures = verdicts.dkim.iter().filter(|it| it.result == DkimResult::Pass);
            let spf = Some(sender).filter(|it| it.result == SpfResult::Pass);
            signatures.map(|it| &it.domain).chain(spf.map(|it| &it.domain)).any(|it| is_authors(it))
        }
        DmarcResult::Fail | DmarcResult::TempError | DmarcResult::PermError => false,
    };
    vouches.then(|| author.clone())
}

#[cfg(test)]
mod tests {
    use origin::{DkimVerdict, DmarcVerdict};

    use super::*;

    #[test]
    fn the_authors_domain_vouches_or_nobody_does() {
        let signature = |domain: &str, result| DkimVerdict {
            result,
            reason: None,
            domain: domain.to_owned(),
            selector: String::new(),
            identity: String::new(),
            algorithm: None,
            signature_start: String::new(),
            testing: false,
        };
        let check =
            |result, dkim: &[(&str, DkimResult)], spf: (&str, SpfResult), expected: bool| {
                let dmarc = DmarcVerdict {
                    result,
                    author_domain: "mail.b.example".to_owned(),
                    ..DmarcVerdict::default()
                };
                let dkim: Vec<_> = dkim.iter().map(|(domain, it)| signature(domain, *it)).collect();
                let verdicts = Verdicts { dkim, dmarc, ..Verdicts::default() };
                let sender =
                    SpfVerdict { domain: spf.0.to_owned(), result: spf.1, ..SpfVerdict::default() };
                let expected = expected.then(|| "mail.b.example".to_owned());
                assert_eq!(vouching(&verdicts, &sender), expected, "{result:?} {spf:?}");
            };
        let (pass, fail) = (DkimResult::Pass, DkimResult::Fail);
        let nothing = ("", SpfResult::None);
        check(DmarcResult::Pass, &[], nothing, true);
        for result in [DmarcResult::Fail, DmarcResult::TempError, DmarcResult::PermError] {
            check(result, &[("mail.b.example", pass)], ("b.example", SpfResult::Pass), false);
        }
        use DmarcResult::None as NoRecord;
        check(NoRecord, &[], nothing, false);
        check(NoRecord, &[("mail.b.example", pass)], nothing, true);
        check(NoRecord, &[("evil.example", pass), ("b.example", pass)], nothing, true);
        check(NoRecord, &[("mail.b.example", fail)], nothing, false);
        for other in ["x.mail.b.example", "ail.b.example", "evil.example", "example", ""] {
            check(NoRecord, &[(other, pass)], (other, SpfResult::Pass), false);
        }
        check(NoRecord, &[], ("mail.b.example", SpfResult::Pass), true);
        check(NoRecord, &[], ("mail.b.example", SpfResult::SoftFail), false);
        let unclear = Verdicts::default();
        assert_eq!(vouching(&unclear, &SpfVerdict::default()), None);
    }
}
