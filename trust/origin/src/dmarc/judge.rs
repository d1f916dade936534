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
    limits::{
        ALIGNMENT_TIME_MAX, AUTHOR_DOMAINS_MAX, AUTHORS_MAX, TREE_QUERIES_MAX, TREE_TIME_MAX,
    },
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
/// [`crate::limits::POLICY_TIME_MAX`].
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
    let judging = authors
        .domains
        .iter()
        .map(|author| Box::pin(judge_author(env, resolver, author, authenticated)));
    let verdicts = join_all(judging).await;
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
fn badness(verdict: &DmarcVerdict) -> (Policy, u8, Policy) {
    let of_result = match verdict.result {
        DmarcResult::TempError => 4,
        DmarcResult::PermError => 3,
        DmarcResult::Fail => 2,
        DmarcResult::None => 1,
        DmarcResult::Pass => 0,
    };
    (verdict.disposition, of_result, verdict.policy)
}

async fn judge_author(
    env: &Env,
    resolver: &Resolver,
    author: &str,
    authenticated: &Authenticated,
) -> DmarcVerdict {
    let mut trees = Trees { env, resolver, known: BTreeMap::new() };
    let mut verdict = DmarcVerdict { author_domain: author.to_owned(), ..DmarcVerdict::default() };
    let (policy_domain, record) = match trees.get(author).await.policy(author) {
        Ok(Some(found)) => found,
        Ok(None) => return verdict,
        Err(Unknown) => {
            verdict.result = DmarcResult::TempError;
            return verdict;
        }
    };
    let policy = match policy_domain == author {
        true => record.policy,
        false => below(env, resolver, author, &record).await,
    };
    // Whoever was not found to be aligned by then may be.
    verdict.result = DmarcResult::TempError;
    let aligning = trees.align(&record, authenticated, &mut verdict);
    let _late = env.timeout(ALIGNMENT_TIME_MAX, aligning).await;
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
pub(crate) async fn accepts_reports(
    env: &Env,
    resolver: &Resolver,
    of: &str,
    at: &str,
) -> ReportsWanted {
    let mut trees = Trees { env, resolver, known: BTreeMap::new() };
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

/// The policy for a domain below the record's. One that does not answer exists, as far as is known: somebody has
/// handed it to servers that are out of reach.
async fn below(env: &Env, resolver: &Resolver, author: &str, record: &DmarcRecord) -> Policy {
    let existing = record.subdomain_policy.unwrap_or(record.policy);
    let Some(missing) = record.missing_policy else { return existing };
    match env.timeout(TREE_TIME_MAX, resolver.addresses(author)).await {
        Ok(Err(LookupError::NoName { .. })) => missing,
        Ok(_) | Err(_) => existing,
    }
}

/// The records on the way from a domain to the root, from below.
///
/// A domain that could not be asked counts as one without a record, as long as there is another that speaks
/// for the author: whoever writes a message chooses its author's domain, and may choose one below
/// somebody's that is never answered.
#[derive(Clone)]
struct Tree {
    start: String,
    records: Vec<(String, DmarcRecord)>,
    /// Domains that could not be asked.
    unasked: Vec<String>,
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
    fn policy(&self, author: &str) -> Result<Option<(String, DmarcRecord)>, Unknown> {
        let organization = self.organization();
        let of = |wanted: &str| self.records.iter().find(|(domain, _)| domain == wanted);
        if let Some(found) = of(author).or_else(|| of(organization)) {
            return Ok(Some(found.clone()));
        }
        let suffix = self.records.iter().find(|(_, record)| record.psd == Psd::Yes);
        // A suffix does not speak for an organization that may have a record of its own.
        match suffix.filter(|_| !self.unasked.iter().any(|it| it == organization)) {
            Some(found) => Ok(Some(found.clone())),
            None if self.unasked.is_empty() => Ok(None),
            None => Err(Unknown),
        }
    }

    /// Whether a record that could not be asked for may make domains below `parent` another
    /// organization than `other`.
    fn may_part(&self, parent: &str, other: &str) -> bool {
        let is_between = |it: &String| it != parent && domain::is_within(it, parent);
        self.unasked.iter().any(|it| is_between(it) && !domain::is_within(other, it))
    }
}

/// The names that a walk asks, from below (RFC 9989 §4.10).
fn way_up(start: &str) -> Vec<&str> {
    let mut way = vec![start];
    let mut at = start;
    while way.len() < TREE_QUERIES_MAX {
        let labels = at.split('.').count();
        let drop = if labels > LABELS_AFTER_CUT + 1 { labels - LABELS_AFTER_CUT } else { 1 };
        let Some(rest) = at.splitn(drop + 1, '.').nth(drop) else { break };
        at = rest;
        way.push(at);
    }
    way
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aligned {
    Yes,
    No,
}

/// Walks up the tree, each made once for a message.
struct Trees<'r> {
    env: &'r Env,
    resolver: &'r Resolver,
    known: BTreeMap<String, Tree>,
}

impl Trees<'_> {
    /// Whether the author's domain vouches, into the verdict.
    async fn align(
        &mut self,
        record: &DmarcRecord,
        authenticated: &Authenticated,
        verdict: &mut DmarcVerdict,
    ) {
        let author = &verdict.author_domain;
        let (dkim, unknown_dkim) = self.first(record.dkim, &authenticated.dkim, author).await;
        let (spf, unknown_spf) = self.first(record.spf, authenticated.spf.as_slice(), author).await;
        let result = if dkim.is_some() || spf.is_some() {
            DmarcResult::Pass
        } else if unknown_dkim.is_err()
            || unknown_spf.is_err()
            || self.might(record.dkim, &authenticated.unknown_dkim, author).await
            || self.might(record.spf, authenticated.unknown_spf.as_slice(), author).await
        {
            DmarcResult::TempError
        } else {
            DmarcResult::Fail
        };
        (verdict.aligned_dkim, verdict.aligned_spf, verdict.result) = (dkim, spf, result);
    }

    async fn get(&mut self, start: &str) -> Tree {
        if let Some(tree) = self.known.get(start) {
            return tree.clone();
        }
        let (env, resolver) = (self.env, self.resolver);
        let asking = way_up(start).into_iter().map(|at| async move {
            let name = format!("_dmarc.{at}");
            (at, env.timeout(TREE_TIME_MAX, resolver.txt(&name)).await)
        });
        let answers = join_all(asking).await;
        let mut tree = Tree { start: start.to_owned(), records: Vec::new(), unasked: Vec::new() };
        for (at, answer) in answers {
            match answer {
                Ok(Ok(answer)) => {
                    let Some(record) = DmarcRecord::find(&answer.records) else { continue };
                    let is_last = record.psd != Psd::Unknown;
                    tree.records.push((at.to_owned(), record));
                    if is_last {
                        break;
                    }
                }
                Ok(Err(LookupError::Temporary(_) | LookupError::Bogus)) | Err(_) => {
                    tree.unasked.push(at.to_owned());
                }
                Ok(Err(_)) => {}
            }
        }
        self.known.insert(start.to_owned(), tree.clone());
        tree
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
        let tree = self.get(author).await;
        if tree.records.is_empty() && !tree.unasked.is_empty() {
            return Err(Unknown);
        }
        let organization = tree.organization();
        // A stranger's domain is not asked: if it did not answer, nothing would be known of the message.
        if !domain::is_within(domain, organization) {
            // An organization further up may have both; a domain above the author's is no stranger.
            let is_above = domain.contains('.') && domain::is_within(author, domain);
            let may_be_one = tree.unasked.iter().any(|it| domain::is_within(domain, it));
            return if is_above && may_be_one { Err(Unknown) } else { Ok(Aligned::No) };
        }
        let other = self.get(domain).await;
        match other.organization() == organization {
            true if other.may_part(organization, author) => Err(Unknown),
            true if tree.may_part(organization, domain) => Err(Unknown),
            true => Ok(Aligned::Yes),
            false if other.unasked.is_empty() => Ok(Aligned::No),
            false => Err(Unknown),
        }
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
