//! Senders of mail that comes from elsewhere and goes elsewhere: rewritten to the forwarder (SRS), so
//! that SPF passes there, and bounces find their way back.
//!
//! A sender that is too long to be written out in an address is kept in the store, for all nodes, and the address
//! has a token of it; of such there is a bound a day and domain ([`limits::SRS_TOKENS_PER_DAY_MAX`]).
//!
//! Only a bounce, whose own sender is null, goes back, at most [`limits::SRS_BOUNCES_PER_MINUTE`] of them
//! on a node: a rewritten address is in the world's logs, and is no open relay to its original.
//!
//! What leaves here passes SPF in our name. So a stranger's message that only claims to be from us is not sent on
//! ([`Signing::forgery`]): elsewhere it would be found to be ours.

use std::sync::{Arc, Mutex, PoisonError};

use cluster::srs::tokens::{self, Kept};
use env::Monotonic;
use mail::{StoreError, directory::Address};
use origin::{DmarcResult, Original, SpfResult, Srs, SrsError, domain::is_within};
use zeroize::Zeroizing;

use super::{Signing, counts::Rewritten};
use crate::{judging::Findings, limits, settings::SrsDomain};

type Secrets = Arc<Vec<Zeroizing<Vec<u8>>>>;

/// What a node knows of the secrets, and how much has gone back.
#[derive(Default)]
pub(super) struct Forwarding {
    secrets: Mutex<Option<(Monotonic, Secrets)>>,
    gone_back: Mutex<GoneBack>,
}

#[derive(Default)]
struct GoneBack {
    since: Option<Monotonic>,
    count: u64,
}

/// Where mail to a rewritten address goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Back {
    /// It is no rewritten address.
    NotRewritten,
    /// To this address.
    To(String),
    /// Nowhere: it was made up, or is too old, or this is no bounce.
    Refused,
    /// Nowhere for now: too much goes back.
    TooMany,
}

/// Whether a message that is to be sent on claims to be from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Forgery {
    /// Not that anybody could tell.
    None,
    /// It does, and whether it is could not be found out.
    Unknown,
    /// It does, and is not.
    Found,
}

impl Signing {
    /// Whether a judged message claims to be from us and is not, so that an alias of `alias_domain` must not
    /// send it elsewhere.
    pub(crate) async fn forgery(
        &self,
        sender: Option<&Address>,
        alias_domain: &str,
        findings: &Findings,
    ) -> Result<Forgery, StoreError> {
        let domain = self.srs_domain(alias_domain).unwrap_or_else(|| alias_domain.to_owned());
        let dmarc = &findings.verdicts.dmarc;
        let (author, asked) = (dmarc.author_domain.as_str(), dmarc.policy_domain.as_str());
        let of_sender = match (findings.asked.sender.result, sender) {
            (SpfResult::Pass, _) | (_, None) => Forgery::None,
            // A signature of the sender's own domain shows as well whose it is.
            (_, Some(sender)) if dmarc.result == DmarcResult::Pass && sender.domain() == author => {
                Forgery::None
            }
            (_, Some(sender)) if !self.has_one_of(&[sender.domain()]).await? => Forgery::None,
            (SpfResult::TempError, _) => Forgery::Unknown,
            _ => Forgery::Found,
        };
        let of_author = match dmarc.result {
            DmarcResult::None | DmarcResult::Pass => Forgery::None,
            _ if findings.decision.is_sealed || author.is_empty() => Forgery::None,
            // RFC 9989 §4.10.2: the rewritten sender may be of one organization with the author, and vouch.
            _ if !is_within(&domain, author)
                && !is_within(author, &domain)
                && !is_within(&domain, asked)
                && !self.has_one_of(&[author, asked]).await? =>
            {
                Forgery::None
            }
            DmarcResult::TempError => Forgery::Unknown,
            DmarcResult::Fail | DmarcResult::PermError => Forgery::Found,
        };
        let worst = of_sender.max(of_author);
        if worst != Forgery::None {
            self.inner.counts.rewritten(Rewritten::Withheld);
        }
        Ok(worst)
    }

    /// Whose addresses senders become where an alias of `alias_domain` sends mail on; `None`: nobody's.
    fn srs_domain(&self, alias_domain: &str) -> Option<String> {
        match &self.inner.settings.borrow().signing.srs_domain {
            SrsDomain::Off => None,
            SrsDomain::Alias => Some(alias_domain.to_owned()),
            SrsDomain::Named(domain) => Some(domain.clone()),
        }
    }

    async fn has_one_of(&self, domains: &[&str]) -> Result<bool, StoreError> {
        let look = |tx| async move {
            for domain in domains.iter().filter(|domain| !domain.is_empty()) {
                if mail::directory::is_local(&tx, domain).await? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.inner.db.run(look).await
    }

    /// The sender that mail from `sender` goes on with, where an alias of `alias_domain` sends it elsewhere.
    pub(crate) async fn forwarded(
        &self,
        sender: &str,
        alias_domain: &str,
    ) -> Result<String, StoreError> {
        let Some(domain) = self.srs_domain(alias_domain) else { return Ok(sender.to_owned()) };
        if sender.is_empty() {
            return Ok(String::new());
        }
        let (_, host) = sender.rsplit_once('@').unwrap_or_default();
        let host = &host.to_ascii_lowercase();
        // Servers of ours may send for our domains; what strangers send for them is no forgery, or not here.
        if self.has_one_of(&[host.as_str()]).await? {
            return Ok(sender.to_owned());
        }
        let srs = Srs::new(&domain, self.secrets().await?.to_vec());
        let forwarded = match srs.forward(sender, self.inner.env.wall()) {
            Err(SrsError::TooLong) => self.stored(&srs, sender).await?,
            forwarded => forwarded,
        };
        let (outcome, sender) = match forwarded {
            Ok(rewritten) => (Rewritten::Forward, rewritten),
            Err(error) => {
                tracing::debug!(%error, "a forwarded message keeps its sender");
                (Rewritten::Left, sender.to_owned())
            }
        };
        self.inner.counts.rewritten(outcome);
        Ok(sender)
    }

    /// The sender that stands for one that is too long, which is kept; [`SrsError::TooLong`] where too many are.
    async fn stored(
        &self,
        srs: &Srs,
        sender: &str,
    ) -> Result<Result<String, SrsError>, StoreError> {
        let (address, token) = match srs.forward_stored(sender, self.inner.env.wall()) {
            Ok(stored) => stored,
            Err(error) => return Ok(Err(error)),
        };
        let (token, most) = ((token.day, token.id.as_str()), limits::SRS_TOKENS_PER_DAY_MAX);
        let domain = srs.domain();
        let keep = |tx| async move { tokens::keep(&tx, token, sender, domain, most).await };
        Ok(match self.inner.db.run(keep).await? {
            Kept::Yes => Ok(address),
            Kept::TooMany => Err(SrsError::TooLong),
        })
    }

    /// Where mail to an address goes that is from `sender`; `None` is the null sender, who alone writes
    /// to rewritten addresses.
    pub(crate) async fn back(
        &self,
        address: &str,
        sender: Option<&Address>,
    ) -> Result<Back, StoreError> {
        let back = match (self.original(address).await?, sender) {
            // Anybody who knows the address could send through us.
            (Back::To(_), Some(_)) => Back::Refused,
            (Back::To(_), None) if !self.may_go_back() => Back::TooMany,
            (back, _) => back,
        };
        match back {
            Back::NotRewritten => {}
            Back::To(_) => self.inner.counts.rewritten(Rewritten::Back),
            Back::Refused | Back::TooMany => self.inner.counts.rewritten(Rewritten::Refused),
        }
        Ok(back)
    }

    /// Whom a report about a message from `sender` goes to: whoever stands behind a rewritten address of
    /// ours.
    pub(crate) async fn reports_to(&self, sender: &str) -> Result<String, StoreError> {
        Ok(match self.original(sender).await? {
            Back::To(original) => original,
            Back::NotRewritten | Back::Refused | Back::TooMany => sender.to_owned(),
        })
    }

    async fn original(&self, address: &str) -> Result<Back, StoreError> {
        let Some((_, domain)) = address.rsplit_once('@').filter(|_| looks_rewritten(address))
        else {
            return Ok(Back::NotRewritten);
        };
        let srs = Srs::new(domain, self.secrets().await?.to_vec());
        Ok(match srs.reverse(address, self.inner.env.wall()) {
            Ok(Original::Address(original)) => Back::To(original),
            Ok(Original::Stored(token)) => {
                let (token, domain) = ((token.day, token.id.as_str()), srs.domain());
                let look = |tx| async move { tokens::sender(&tx, token, domain).await };
                self.inner.db.run(look).await?.map_or(Back::Refused, Back::To)
            }
            Err(SrsError::NotOurs) => Back::NotRewritten,
            Err(_) => Back::Refused,
        })
    }

    async fn secrets(&self) -> Result<Secrets, StoreError> {
        let now = self.inner.env.monotonic();
        let held = {
            let held = self.inner.forwarding.secrets.lock();
            held.unwrap_or_else(PoisonError::into_inner).clone()
        };
        let period = cluster::srs::LOOK_PERIOD;
        if let Some((_, secrets)) = held.filter(|(read, _)| now.saturating_since(*read) < period) {
            return Ok(secrets);
        }
        let secrets = Arc::new(cluster::srs::secrets(&self.inner.db, &self.inner.env).await?);
        let held = self.inner.forwarding.secrets.lock();
        *held.unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::clone(&secrets)));
        Ok(secrets)
    }

    fn may_go_back(&self) -> bool {
        let now = self.inner.env.monotonic();
        let gone = self.inner.forwarding.gone_back.lock();
        let mut gone = gone.unwrap_or_else(PoisonError::into_inner);
        let minute = limits::SRS_BOUNCES_PERIOD;
        if gone.since.is_none_or(|since| now.saturating_since(since) >= minute) {
            *gone = GoneBack { since: Some(now), count: 0 };
        }
        gone.count += 1;
        gone.count <= limits::SRS_BOUNCES_PER_MINUTE
    }
}

/// Told without a secret: nearly all addresses are not.
fn looks_rewritten(address: &str) -> bool {
    let mark = address.as_bytes().get(..5).unwrap_or_default();
    let name = mark.get(..4).unwrap_or_default();
    (name.eq_ignore_ascii_case(b"SRS0") || name.eq_ignore_ascii_case(b"SRS1"))
        && matches!(mark.last(), Some(b'=' | b'+' | b'-'))
}
