//! Signing in our domains' names: which key, for which message; and senders of mail that is forwarded.
//!
//! | file | what it does |
//! |---|---|
//! | `lifecycle.rs` | where a key goes from state to state: pure, times are parameters |
//! | `rotation.rs` | does what the lifecycle says, for one domain at a time, by whichever node |
//! | `forwarding.rs` | SRS: senders of forwarded mail, and the way back |
//! | `counts.rs` | what metrics show |
//!
//! A message is digested while it streams in; its signatures are made at its end, kept with its
//! submission, and sent in front of its stored bytes. So signing costs no second put and no read, and the
//! sender's own copy has no signature.
//!
//! Policy: the domain of the one address in `From` signs where the account may send as that address. Else the
//! domain of the envelope's sender does, which the account owns, unless that would vouch for the `From`
//! of somebody else in the same organization: then nobody signs.
//!
//! Architecture invariants:
//! - Only a key in use signs; a node hears of a change within a heartbeat, and a retired key's
//!   record stays for days.
//! - What is held of keys is bounded by [`limits::SIGNERS_HELD_MAX`].

mod counts;
mod forwarding;
pub(crate) mod lifecycle;
pub(crate) mod rotation;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cluster::dkim::{self, State};
use env::Env;
use kv::Database;
use mail::{
    AccountId, StoreError,
    directory::{self, Address},
};
use message::Fields;
use origin::{
    Digest, Digester, DkimKey, Purpose, SignError, Signer, SigningKey, domain::is_within,
};
use tokio::sync::watch;

use crate::{limits, names, settings::Settings};
pub(crate) use counts::{Counts, Signed};
use forwarding::Forwarding;
pub(crate) use forwarding::{Back, Forgery};

/// Signs. Cloning is a reference count.
#[derive(Clone)]
pub(crate) struct Signing {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    db: Database,
    settings: watch::Receiver<Arc<Settings>>,
    held: Mutex<Held>,
    forwarding: Forwarding,
    counts: Counts,
}

/// What is known of domains; `None`: it has no key in use.
#[derive(Default)]
struct Held {
    /// Tells what was read before the last change from what was read after it.
    generation: u64,
    signers: HashMap<String, Option<Arc<Signer>>>,
}

impl Signing {
    pub(crate) fn new(env: &Env, db: Database, settings: watch::Receiver<Arc<Settings>>) -> Self {
        let inner = Inner {
            env: env.clone(),
            db,
            settings,
            held: Mutex::default(),
            forwarding: Forwarding::default(),
            counts: Counts::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What metrics show.
    pub(crate) fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What signs and seals for a domain, given in A-labels; `None` where it has no key in use.
    pub(crate) async fn sealer(&self, domain: &str) -> Result<Option<Arc<Signer>>, StoreError> {
        let generation = {
            let held = self.held();
            if let Some(signer) = held.signers.get(domain) {
                return Ok(signer.clone());
            }
            held.generation
        };
        let read = |tx| async move { dkim::keys(&tx, domain).await };
        let keys = self.inner.db.run(read).await?;
        let signer = signer(domain, &keys);
        let mut held = self.held();
        if held.generation == generation {
            if held.signers.len() >= limits::SIGNERS_HELD_MAX {
                held.signers.clear();
            }
            held.signers.insert(domain.to_owned(), signer.clone());
        }
        Ok(signer)
    }

    /// The fields that go in front of a message that an account submits; empty where nobody signs.
    pub(crate) async fn submitted(
        &self,
        digest: &Digest,
        account: AccountId,
        sender: Option<&Address>,
    ) -> Result<Vec<u8>, StoreError> {
        // Of several authors, some may be others.
        let Some(author) = &author(digest.header()) else {
            self.inner.counts.signed(Signed::NotTheAuthor);
            return Ok(Vec::new());
        };
        let has_key = self.sealer(author.domain()).await?.is_some();
        let vouches = sender.is_some_and(|it| is_related(it.domain(), author.domain()));
        if Some(author) != sender && (has_key || vouches) {
            let owns = |tx| async move { directory::owns(&tx, account, author).await };
            let owns = self.inner.db.run(owns).await?;
            if owns && has_key {
                return self.signed(author.domain(), digest).await;
            }
            if vouches && !owns {
                self.inner.counts.signed(Signed::NotTheAuthor);
                return Ok(Vec::new());
            }
        }
        match sender {
            Some(sender) => self.signed(sender.domain(), digest).await,
            None => {
                self.inner.counts.signed(Signed::NoKey);
                Ok(Vec::new())
            }
        }
    }

    /// The fields that go in front of a message of this server's own, whose author is at `host`: the
    /// nearest domain at or above it signs that has a key. Empty where none has, or the store fails: such
    /// a message is worth sending all the same.
    pub(crate) async fn own(&self, message: &[u8], host: &str) -> Vec<u8> {
        let digest = Digester::whole(Purpose::Sign, message);
        let mut domain = host;
        loop {
            match self.sealer(domain).await {
                Ok(Some(_)) => return self.signed(domain, &digest).await.unwrap_or_default(),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a message of our own is not signed");
                    return Vec::new();
                }
            }
            match domain.split_once('.') {
                Some((_, above)) => domain = above,
                None => return Vec::new(),
            }
        }
    }

    /// A signature takes less than a millisecond (`trust/origin/examples/signing.rs`), so it is made
    /// where it is wanted.
    async fn signed(&self, domain: &str, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let Some(signer) = self.sealer(domain).await? else {
            self.inner.counts.signed(Signed::NoKey);
            return Ok(Vec::new());
        };
        let fields = match signer.sign(digest, self.inner.env.wall()) {
            Ok(fields) if fields.len() <= limits::PREPENDED_BYTES_MAX => fields.into_bytes(),
            Ok(_) | Err(SignError::HeaderTooLarge | SignError::NoAuthor) => Vec::new(),
            Err(error) => {
                tracing::error!(domain, %error, "a message is not signed");
                Vec::new()
            }
        };
        let outcome = if fields.is_empty() { Signed::Failed } else { Signed::Done };
        self.inner.counts.signed(outcome);
        Ok(fields)
    }

    fn forget(&self) {
        let mut held = self.held();
        held.generation += 1;
        held.signers.clear();
    }

    /// Forgets what is known of keys whenever their number of changes is another.
    pub(crate) async fn follow(self, mut version: watch::Receiver<u64>) {
        while version.changed().await.is_ok() {
            version.mark_unchanged();
            self.forget();
        }
    }
}

/// What signs with a domain's keys in use.
fn signer(domain: &str, keys: &[dkim::Key]) -> Option<Arc<Signer>> {
    let used = keys.iter().filter(|key| key.state == State::InUse);
    let read = |key: &dkim::Key| match SigningKey::from_pkcs8(&key.pkcs8) {
        Ok(read) => Some(DkimKey { selector: key.selector.clone(), key: read }),
        Err(error) => {
            tracing::error!(domain, selector = key.selector, %error, "a key cannot be used");
            None
        }
    };
    let keys: Vec<DkimKey> = used.filter_map(read).collect();
    (!keys.is_empty()).then(|| Arc::new(Signer::new(domain, keys)))
}

/// The one address of the one `From`.
fn author(header: &[u8]) -> Option<Address> {
    let mut fields = Fields::new(header).filter(|field| field.is("From"));
    let field = fields.next().filter(|_| fields.next().is_none())?;
    let entries = message::parse_addresses(field.value, limits::AUTHORS_READ);
    // Behind as many, groups' begins and ends among them, another author may stand.
    if entries.len() >= limits::AUTHORS_READ {
        return None;
    }
    let mut mailboxes = entries.into_iter().filter(message::Address::is_mailbox);
    let one = mailboxes.next().filter(|_| mailboxes.next().is_none())?;
    let domain = names::domain(&one.host?).ok()?;
    Address::parse(&format!("{}@{domain}", one.mailbox?)).ok()
}

/// Whether a signature of one domain may count for the other: relaxed alignment asks for one organizational
/// domain (RFC 9989 §4.10.2).
///
/// What that is DNS says, and it changes: whatever shares the last two labels may share it. Where an organization
/// is told apart by three, as below `co.uk`, others' authors there go unsigned more than they had to. A
/// top-level domain that is an organization is not known as one.
fn is_related(one: &str, other: &str) -> bool {
    names::last_labels(one, 2) == names::last_labels(other, 2)
        || is_within(one, other)
        || is_within(other, one)
}

#[cfg(test)]
mod tests;
