//! Where incoming mail is from, and what follows from it.
//!
//! Mail from other servers is judged by [`origin::Judge`]; what is done with it is a pure function of
//! the findings and the settings ([`decide`]). A message that our users submit, that comes by LMTP or from a
//! network that is trusted is not judged.
//!
//! | file | what it does |
//! |---|---|
//! | `decide.rs` | from findings to an action |
//! | `client.rs` | asks about a client and a sender while the message comes |
//! | `findings.rs` | what was found of one message |
//! | `seen.rs` | counts what came in domains' names |
//! | `tell.rs` | tells those domains, once a day |
//! | `received.rs` | keeps what others report of mail in our name |
//!
//! Deliberately absent: failure reports (RFC 9991). They carry what somebody's mail says, or whom it is
//! for, to whoever publishes a record; RFC 9991 §7 leaves it to receivers, and we send none.

mod client;
mod decide;
mod findings;
pub(crate) mod received;
pub(crate) mod seen;
pub(crate) mod tell;

use origin::Judge;
use smtp::Refusal;

pub(crate) use client::Asking;
pub(crate) use findings::Findings;

use crate::services::Services;

/// The name that findings are signed with.
fn authserv_id(services: &Services) -> String {
    let set = services.settings.borrow().judging.authserv_id.clone();
    if set.is_empty() { services.config.hostname.clone() } else { set }
}

/// Who judges.
pub(crate) fn judge(services: &Services) -> Judge {
    Judge::new(&services.env, services.resolver.clone(), &authserv_id(services))
}

/// Whose findings a message may bring along in `Authentication-Results`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brought {
    /// Anybody's: it comes from a server of ours, which may have judged it.
    All,
    /// Not what is in our name: it comes from a network that is trusted.
    Others,
    /// Nobody's: whoever reads the message cannot tell what another of our nodes said from what
    /// a stranger made up (RFC 8601 §5 lets a border remove all).
    None,
}

/// The parts of a header that claim to be findings and are to go (RFC 8601 §5), in order.
pub(crate) fn forged_in(
    services: &Services,
    brought: Brought,
    header: &[u8],
) -> Vec<std::ops::Range<usize>> {
    match brought {
        Brought::All => Vec::new(),
        Brought::Others => in_our_name(services, header),
        Brought::None => message::Fields::new(header)
            .filter(|field| field.is("Authentication-Results"))
            .map(|field| field.offset..field.offset + field.raw.len())
            .collect(),
    }
}

/// What is in the name that we sign with, and in the node's own.
fn in_our_name(services: &Services, header: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (judge, hostname) = (judge(services), &services.config.hostname);
    let mut ranges = judge.forged_in(header);
    if judge.hostname() != hostname {
        let own = Judge::new(&services.env, services.resolver.clone(), hostname);
        ranges.extend(own.forged_in(header));
        ranges.sort_by_key(|range| range.start);
        ranges.dedup();
    }
    ranges
}

/// Counts what was found of a message that was taken, or refused for that.
pub(crate) fn count(services: &Services, findings: &Findings) {
    for (method, result) in findings.results_by_method() {
        services.metrics.verdict(method, result);
    }
    if findings.decision.refusal == Some(Refusal::OriginUnknown) {
        // It comes again, and is told of then.
        services.metrics.judged("defer");
        return;
    }
    services.seen.note(findings);
    services.metrics.judged(findings.decision.action.as_str());
}
