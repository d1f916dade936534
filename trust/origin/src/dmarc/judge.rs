//! Finding the policy, and who is aligned with the author (RFC 9989 §4.4, §4.10, §5.3).

use std::collections::BTreeMap;

use dns::{LookupError, Resolver};
use env::Env;
use futures_util::future::join_all;
use message::Field;

use crate::{
    ReportsWanted,
    dmarc::{Alignment, DmarcRecord, DmarcResult, DmarcVerdict, Override, Policy, Psd},
    domain,
    limits::{AUTHOR_DOMAINS_MAX, AUTHORS_MAX, POLICY_TIME_MAX, TREE_QUERIES_MAX},
};

/// Labels that a long name is cut to (RFC 9989 §4.10).
const LABELS_AFTER_CUT: usize = 7;

/// Domains that stand behind the message, or might.
#[derive(Debug, Default)]
pub(crate) struct Authenticated {
    /// Of signatures that passed.
    pub(crate) dkim: Vec<String>,
    /// Of the envelope, if SPF passed.
    pub(crate) spf: Option<String>,
    /// Of signatures whose key could not be had.
    pub(crate) unknown_dkim: Vec<String>,
    /// Of the envelope, if SPF could not be asked.
    pub(crate) unknown_spf: Option<String>,
}

/// A domain could not be asked.
#[derive(Debug, Clone, Copy)]
struct Unknown;

/// Judges each author's domain, and gives the verdict that is worst for the message. Ends within
/// [`POLICY_TIME_MAX`].
pub(crate) async fn judge(
    env: &Env,
    resolver: &Resolver,
    fields: &[Field<'_>],
    authenticated: &Authenticated,
) -> DmarcVerdict {
    let authors = Authors::of(fields);
    if authors.are_too_many {
        // A domain that nobody has asked may want it refused.
        let (policy, disposition) = (Policy::Reject, Policy::Reject);
        let result = DmarcResult::PermError;
        return DmarcVerdict { result, policy, disposition, ..DmarcVerdict::default() };
    }
    // At once, each with a time of its own: a stranger whose servers are slow must not keep another's
    // policy from being applied.
    let verdicts = join_all(authors.domains.iter().map(|author| async {
        let judging = Box::pin(judge_author(env, resolver, author, authenticated));
        env.timeout(POLICY_TIME_MAX, judging).await.unwrap_or_else(|_| DmarcVerdict {
            result: DmarcResult::TempError,
            author_domain: author.clone(),
            ..DmarcVerdict::default()
        })
    }))
    .await;
    let Some(mut worst) = verdicts.into_iter().rev().max_by_key(badness) else {
        return DmarcVerdict { result: DmarcResult::PermError, ..DmarcVerdict::default() };
    };
    // What could not be asked may be found out another time.
    if authors.are_malformed && worst.result != DmarcResult::TempError {
        worst.result = DmarcResult::PermError;
        // No domain is told of what is no message of anybody's.
        worst.record = None;
    }
    worst
}

/// RFC 7489 §6.6.1: the strictest policy of those that do not vouch counts.
fn badness(verdict: &DmarcVerdict) -> (Policy, u8) {
    let of_result = match verdict.result {
        DmarcResult::TempError => 4,
        DmarcResult::PermError => 3,
        DmarcResult::Fail => 2,
        DmarcResult::None => 1,
        DmarcResult::Pass => 0,
    };
    (verdict.disposition, of_result)
}

async fn judge_author(
    env: &Env,
    resolver: &Resolver,
    author: &str,
    authenticated: &Authenticated,
) -> DmarcVerdict {
    let mut trees = Trees { resolver, known: BTreeMap::new() };
    let mut verdict = DmarcVerdict { author_domain: author.to_owned(), ..DmarcVerdict::default() };
    let found = async {
        let tree = trees.get(author).await?;
        let Some((policy_domain, record)) = tree.policy(author) else { return Ok(None) };
        let policy = if policy_domain == author {
            record.policy
        } else {
            below(resolver, author, &record).await?
        };
        Ok(Some((policy_domain, record, policy)))
    };
    let (policy_domain, record, policy) = match found.await {
        Ok(Some(found)) => found,
        Ok(None) => return verdict,
        Err(Unknown) => {
            verdict.result = DmarcResult::TempError;
            return verdict;
        }
    };
    let (dkim, unknown_dkim) = trees.first(record.dkim, &authenticated.dkim, author).await;
    let (spf, unknown_spf) = trees.first(record.spf, authenticated.spf.as_slice(), author).await;
    (verdict.aligned_dkim, verdict.aligned_spf) = (dkim, spf);
    verdict.result = if verdict.aligned_dkim.is_some() || verdict.aligned_spf.is_some() {
        DmarcResult::Pass
    } else if unknown_dkim.is_err()
        || unknown_spf.is_err()
        || trees.might(record.dkim, &authenticated.unknown_dkim, author).await
        || trees.might(record.spf, authenticated.unknown_spf.as_slice(), author).await
    {
        DmarcResult::TempError
    } else {
        DmarcResult::Fail
    };
    if verdict.result == DmarcResult::Fail {
        (verdict.disposition, verdict.reason) = disposition(env, policy, &record);
    }
    verdict.policy = policy;
    verdict.policy_domain = policy_domain;
    verdict.record = Some(record);
    verdict
}

/// What is done of what the policy asks for.
fn disposition(env: &Env, policy: Policy, record: &DmarcRecord) -> (Policy, Override) {
    if policy == Policy::None {
        (policy, Override::None)
    } else if record.testing {
        (policy.weaker(), Override::Testing)
    } else if env.random_below(100) >= u64::from(record.percent) {
        (policy.weaker(), Override::SampledOut)
    } else {
        (policy, Override::None)
    }
}

/// Who a message says has written it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Authors {
    /// Their domains, each once.
    domains: Vec<String>,
    /// There are several `From`s, though RFC 5322 §3.6 has one, or authors without a usable domain beside
    /// others. A reader may be shown any of them, so each counts.
    are_malformed: bool,
    /// There are more than are looked at.
    are_too_many: bool,
}

impl Authors {
    fn of(fields: &[Field<'_>]) -> Self {
        let mut found = Self::default();
        for (place, field) in fields.iter().filter(|field| field.is("From")).enumerate() {
            found.are_malformed |= place > 0;
            let authors = message::parse_addresses(field.value, AUTHORS_MAX);
            // Behind as many, groups' begins and ends among them, another domain may stand.
            found.are_too_many |= authors.len() >= AUTHORS_MAX || place >= AUTHORS_MAX;
            for author in authors.iter().filter(|author| author.is_mailbox()) {
                match domain::ascii(author.host.as_deref().unwrap_or_default()) {
                    None => found.are_malformed = true,
                    Some(domain) if found.domains.contains(&domain) => {}
                    Some(domain) => found.domains.push(domain),
                }
            }
            found.are_too_many |= found.domains.len() > AUTHOR_DOMAINS_MAX;
            if found.are_too_many {
                break;
            }
        }
        found
    }
}

/// Whether reports about `of` may go to `at` (RFC 9990 §4).
pub(crate) async fn accepts_reports(resolver: &Resolver, of: &str, at: &str) -> ReportsWanted {
    let mut trees = Trees { resolver, known: BTreeMap::new() };
    match trees.aligned(Alignment::Relaxed, at, of).await {
        Ok(Aligned::Yes) => return ReportsWanted::Yes,
        Ok(Aligned::No) => {}
        Err(Unknown) => return ReportsWanted::Unknown,
    }
    match resolver.txt(&format!("{of}._report._dmarc.{at}")).await {
        Ok(answer) => {
            let says = |text: &Vec<u8>| DmarcRecord::parse(text).is_some();
            if answer.records.iter().any(says) { ReportsWanted::Yes } else { ReportsWanted::No }
        }
        Err(LookupError::Temporary(_) | LookupError::Bogus) => ReportsWanted::Unknown,
        Err(_) => ReportsWanted::No,
    }
}

/// The policy for a domain below the record's.
async fn below(resolver: &Resolver, author: &str, record: &DmarcRecord) -> Result<Policy, Unknown> {
    let existing = record.subdomain_policy.unwrap_or(record.policy);
    let Some(missing) = record.missing_policy else { return Ok(existing) };
    match resolver.addresses(author).await {
        Err(LookupError::NoName { .. }) => Ok(missing),
        Err(LookupError::Temporary(_) | LookupError::Bogus) => Err(Unknown),
        Ok(_) | Err(LookupError::NoRecords { .. } | LookupError::BadName) => Ok(existing),
    }
}

/// The records on the way from a domain to the root, from below.
#[derive(Clone)]
struct Tree {
    start: String,
    records: Vec<(String, DmarcRecord)>,
}

impl Tree {
    /// RFC 9989 §4.10.2.
    fn organization(&self) -> &str {
        for (domain, record) in &self.records {
            match record.psd {
                Psd::No => return domain,
                Psd::Yes if *domain != self.start => {
                    let cut = self.start.len() - domain.len() - 1;
                    let from = self.start[..cut].rfind('.').map_or(0, |dot| dot + 1);
                    return &self.start[from..];
                }
                Psd::Yes | Psd::Unknown => {}
            }
        }
        // The records come from below, so the last has the fewest labels.
        self.records.last().map_or(&self.start, |(domain, _)| domain)
    }

    /// RFC 9989 §4.10.1: the author's own, the organization's, the public suffix's.
    fn policy(&self, author: &str) -> Option<(String, DmarcRecord)> {
        let of = |wanted: &str| self.records.iter().find(|(domain, _)| domain == wanted);
        let suffix = || self.records.iter().find(|(_, record)| record.psd == Psd::Yes);
        of(author).or_else(|| of(self.organization())).or_else(suffix).cloned()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aligned {
    Yes,
    No,
}

/// Walks up the tree, each made once for a message.
struct Trees<'r> {
    resolver: &'r Resolver,
    known: BTreeMap<String, Tree>,
}

impl Trees<'_> {
    async fn get(&mut self, start: &str) -> Result<Tree, Unknown> {
        if let Some(tree) = self.known.get(start) {
            return Ok(tree.clone());
        }
        let mut records = Vec::new();
        let mut at = start;
        for _ in 0..TREE_QUERIES_MAX {
            match self.resolver.txt(&format!("_dmarc.{at}")).await {
                Ok(answer) => {
                    if let Some(record) = DmarcRecord::find(&answer.records) {
                        let last = record.psd != Psd::Unknown;
                        records.push((at.to_owned(), record));
                        if last {
                            break;
                        }
                    }
                }
                Err(LookupError::Temporary(_) | LookupError::Bogus) => return Err(Unknown),
                Err(_) => {}
            }
            let labels = at.split('.').count();
            let drop = if labels > LABELS_AFTER_CUT + 1 { labels - LABELS_AFTER_CUT } else { 1 };
            let Some(rest) = at.splitn(drop + 1, '.').nth(drop) else { break };
            at = rest;
        }
        let tree = Tree { start: start.to_owned(), records };
        self.known.insert(start.to_owned(), tree.clone());
        Ok(tree)
    }

    async fn aligned(
        &mut self,
        alignment: Alignment,
        domain: &str,
        author: &str,
    ) -> Result<Aligned, Unknown> {
        if domain == author {
            return Ok(Aligned::Yes);
        }
        if alignment == Alignment::Strict {
            return Ok(Aligned::No);
        }
        let author = self.get(author).await?;
        // A stranger's domain is not asked: if it did not answer, nothing would be known of the message.
        if !domain::is_within(domain, author.organization()) {
            return Ok(Aligned::No);
        }
        let same = self.get(domain).await?.organization() == author.organization();
        Ok(if same { Aligned::Yes } else { Aligned::No })
    }

    /// The first of the domains that is aligned, and whether all were known.
    async fn first(
        &mut self,
        alignment: Alignment,
        domains: &[String],
        author: &str,
    ) -> (Option<String>, Result<(), Unknown>) {
        let mut known = Ok(());
        for domain in domains {
            match self.aligned(alignment, domain, author).await {
                Ok(Aligned::Yes) => return (Some(domain.clone()), known),
                Ok(Aligned::No) => {}
                Err(Unknown) => known = Err(Unknown),
            }
        }
        (None, known)
    }

    /// Whether one of the domains is aligned, as far as is known. Only such a one can leave open what
    /// the author's domain says: what others fail to answer must not keep a policy from being applied.
    async fn might(&mut self, alignment: Alignment, domains: &[String], author: &str) -> bool {
        let (aligned, known) = self.first(alignment, domains, author).await;
        aligned.is_some() || known.is_err()
    }
}

#[cfg(test)]
mod tests {
    use message::Fields;

    use super::*;

    #[test]
    fn every_authors_domain_is_found() {
        let of = |header: &str| Authors::of(&Fields::new(header.as_bytes()).collect::<Vec<_>>());
        let check = |header: &str, domains: &[&str], are_malformed: bool| {
            let domains = domains.iter().map(|it| (*it).to_owned()).collect();
            let expected = Authors { domains, are_malformed, are_too_many: false };
            assert_eq!(of(header), expected, "{header:?}");
        };
        check("From: x@a.example\r\n", &["a.example"], false);
        check("From: x@a.example, y@A.example\r\n", &["a.example"], false);
        check("From: x@a.example, y@b.example\r\n", &["a.example", "b.example"], false);
        check("From: x@a.example\r\nfrom: x@b.example\r\n", &["a.example", "b.example"], true);
        check("From: x@[192.0.2.1], y@b.example\r\n", &["b.example"], true);
        check("To: x@a.example\r\n", &[], false);
        let groups = |count: usize| format!("From: x@a.example{}\r\n", ", g:;".repeat(count));
        check(&groups(AUTHORS_MAX / 2 - 1), &["a.example"], false);
        let hidden = groups(AUTHORS_MAX / 2).replace("\r\n", ", y@b.example\r\n");
        assert!(of(&hidden).are_too_many, "nobody has seen who stands at its end");
        let some = |count: usize| {
            let authors: Vec<_> = (0..count).map(|at| format!("x@a{at}.example")).collect();
            format!("From: {}\r\n", authors.join(","))
        };
        assert!(!of(&some(AUTHOR_DOMAINS_MAX)).are_too_many);
        assert!(of(&some(AUTHOR_DOMAINS_MAX + 1)).are_too_many);
    }
}
