//! Senders of mail that comes from elsewhere and goes elsewhere: rewritten to the forwarder (SRS), so
//! that SPF passes there, and bounces find their way back.
//!
//! Only a bounce, whose own sender is null, goes back, at most [`limits::SRS_BOUNCES_PER_MINUTE`] of them
//! on a node: a rewritten address is in the world's logs, and is no open relay to its original.

use std::sync::{Arc, Mutex, PoisonError};

use env::Monotonic;
use mail::{StoreError, directory::Address};
use origin::{Srs, SrsError};
use zeroize::Zeroizing;

use super::{Signing, counts::Rewritten};
use crate::{limits, settings::SrsDomain};

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

impl Signing {
    /// The sender that mail from `sender` goes on with, where an alias of `alias_domain` sends it elsewhere.
    pub(crate) async fn forwarded(
        &self,
        sender: &str,
        alias_domain: &str,
    ) -> Result<String, StoreError> {
        let settings = self.inner.settings.borrow().signing.srs_domain.clone();
        let domain = match &settings {
            SrsDomain::Off => return Ok(sender.to_owned()),
            SrsDomain::Alias => alias_domain,
            SrsDomain::Named(domain) => domain,
        };
        if sender.is_empty() {
            return Ok(String::new());
        }
        let (_, host) = sender.rsplit_once('@').unwrap_or_default();
        let host = &host.to_ascii_lowercase();
        let is_ours = |tx| async move { mail::directory::is_local(&tx, host).await };
        // Servers of ours may send for our domains.
        if self.inner.db.run(is_ours).await? {
            return Ok(sender.to_owned());
        }
        let srs = Srs::new(domain, self.secrets().await?.to_vec());
        let (outcome, sender) = match srs.forward(sender, self.inner.env.wall()) {
            Ok(rewritten) => (Rewritten::Forward, rewritten),
            Err(error) => {
                tracing::debug!(%error, "a forwarded message keeps its sender");
                (Rewritten::Left, sender.to_owned())
            }
        };
        self.inner.counts.rewritten(outcome);
        Ok(sender)
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
            Ok(original) => Back::To(original),
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
