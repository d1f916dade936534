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

/// The parts of a header that claim to be our findings (RFC 8601 §5), in order: those in the name that we sign
/// with, and in the node's own.
pub(crate) fn forged_in(services: &Services, header: &[u8]) -> Vec<std::ops::Range<usize>> {
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
