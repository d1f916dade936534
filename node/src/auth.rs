//! Who a client is: passwords, SASL, and the slowing of those who guess.
//!
//! [`Authenticator`] checks a password ([`Authenticator::check_password`]) or runs a SASL
//! exchange ([`Authenticator::begin`], [`Exchange::step`]) for the SMTP and IMAP drivers alike.
//!
//! Standards: RFC 4422 (SASL), RFC 4616 (PLAIN), draft-murchison-sasl-login (LOGIN), RFC 5802 and
//! RFC 7677 (SCRAM-SHA-256 and -PLUS), RFC 5929 and RFC 9266 (channel bindings), RFC 4013
//! (SASLprep), RFC 9106 (Argon2id).
//!
//! Invariants:
//! - An unknown name and a wrong password give the same answer, after the same work and with the
//!   same reads.
//! - Every check reads the account's credential from the store; a changed password counts at
//!   once, on every node.
//! - A failure is counted in the store before it is told. Failures are counted by all nodes
//!   together (module `throttle` says how, and whom it may refuse).
//! - A password stands in zeroed memory only, and in no error, log or `Debug`.
//!
//! Whether a mechanism may be used without TLS is the protocol session's decision.
//!
//! Deliberately absent: OAuth, client certificates, application passwords, ANONYMOUS.

mod channel;
mod credential;
mod exchange;
mod keys;
pub mod limits;
mod lookup;
mod scram;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod verdicts;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use env::Env;
use kv::Database;
use mail::{AccountId, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

pub use channel::ChannelBinding;
pub use credential::{CredentialError, new_credential};
pub use exchange::{Exchange, Step};

use credential::Secret;
use keys::Network;
use lookup::{Attempt, LoginName};
use scram::Mechanism as ScramMechanism;
use throttle::Hour;
use verdicts::{Verdict, Verdicts};

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: AccountId,
    /// Its primary address, whatever alias the client logged in with.
    pub name: String,
}

/// Why nobody has logged in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No such account, or the wrong password; which of them is told nobody.
    #[error("unknown name or wrong password")]
    BadCredentials,
    /// Too many failures from this network, on this account or in all. Nothing was checked.
    #[error("too many failed logins")]
    TooManyFailures {
        /// About when to try again.
        retry_after: Duration,
    },
    /// The password was right, and the account may not log in.
    #[error("the account is disabled")]
    Disabled,
    /// The password was right, and the client asked to act as somebody else.
    #[error("logging in as somebody else is not allowed")]
    NotAuthorized,
    /// The client broke the mechanism's rules.
    #[error("malformed authentication: {0}")]
    Malformed(&'static str),
    /// RFC 5802 §6: the channel binding is not that of this connection, or is missing where it
    /// was offered. Somebody may be reading along.
    #[error("channel binding does not match")]
    ChannelBinding,
    /// Too many logins at once, or the node is ending. Temporary.
    #[error("too busy to check a login")]
    Busy,
    /// The store failed. Temporary, unless a record is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The mechanisms to offer on a connection, strongest first. Without TLS none that shows the
/// password to whoever reads along; a session that takes them all the same offers `PLAIN` and
/// `LOGIN` too, which [`Authenticator::begin`] supports on any channel.
pub fn mechanisms(channel: &ChannelBinding) -> Vec<&'static str> {
    let mut offered = Vec::with_capacity(4);
    if channel.is_available() {
        offered.push(ScramMechanism::Plus.name());
    }
    offered.push(ScramMechanism::Plain.name());
    if matches!(channel, ChannelBinding::Tls { .. }) {
        offered.extend(["PLAIN", "LOGIN"]);
    }
    offered
}

/// Checks logins. Clones share everything.
#[derive(Clone)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

struct Shared {
    db: Database,
    env: Env,
    verdicts: Verdicts,
    verifications: Arc<Semaphore>,
    proofs: Arc<Semaphore>,
    /// Makes the salts of names that do not exist; drawn at random where nobody has given one.
    salt_key: OnceLock<Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    /// An authenticator over a store. One a process: the bounds are its own.
    pub fn new(db: Database, env: Env) -> Self {
        let shared = Shared {
            verdicts: Verdicts::new(&env),
            verifications: Arc::new(Semaphore::new(limits::VERIFICATIONS_MAX)),
            proofs: Arc::new(Semaphore::new(limits::PROOFS_MAX)),
            salt_key: OnceLock::new(),
            db,
            env,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes the salts of names that do not exist from this, as all nodes do: what a name's salt is
    /// must not depend on whom a client asks. To be called before anybody logs in.
    pub fn share_salt_key(&self, key: Zeroizing<[u8; 32]>) {
        // Later it would change what was answered.
        let _late = self.shared.salt_key.set(key);
    }

    fn salt_key(&self) -> &[u8; 32] {
        let env = &self.shared.env;
        self.shared.salt_key.get_or_init(|| Zeroizing::new(env.random_array()))
    }

    /// Checks a name and a password, as LOGIN, PLAIN and HTTP basic authentication bring them.
    ///
    /// A failed check answers late: see module `throttle`.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn check_password(
        &self,
        name: &str,
        password: &[u8],
        peer: IpAddr,
    ) -> Result<Identity, AuthError> {
        if password.len() > limits::PASSWORD_BYTES_MAX {
            return Err(AuthError::BadCredentials);
        }
        let name = LoginName::parse(name);
        let network = Network::of(peer);
        let password = credential::prepare_attempt(password);

        let attempt = self.look_up(&name, network).await?;
        let fingerprint = attempt.fingerprint(&self.shared.verdicts, &password);
        match self.shared.verdicts.recall(fingerprint, self.shared.env.monotonic()) {
            Some(Verdict::Right) => return attempt.admit(),
            Some(Verdict::Wrong) => {
                // The same guess again tells a guesser nothing, so it is not counted: a
                // forgotten device with an old password locks nobody out.
                let delay = attempt.failures().delay().max(limits::REPEAT_DELAY);
                self.shared.env.sleep(delay).await;
                return Err(AuthError::BadCredentials);
            }
            None => {}
        }

        let permit = self.turn(&self.shared.verifications).await?;
        // Again, and with the permit in hand: what was counted meanwhile counts for this one.
        let attempt = self.look_up(&name, network).await?;
        let fingerprint = attempt.fingerprint(&self.shared.verdicts, &password);
        let (verdict, permit) = self.verify(&attempt, password, permit).await?;
        if verdict == Verdict::Wrong {
            self.count_failure(&attempt, permit).await?;
        }
        let now = self.shared.env.monotonic();
        self.shared.verdicts.remember(fingerprint, verdict, now);
        match verdict {
            Verdict::Right => attempt.admit(),
            Verdict::Wrong => Err(self.hold_back(&attempt).await),
        }
    }

    /// Begins a SASL exchange. `None` where the mechanism, in upper case, is unknown or cannot be
    /// spoken on this channel.
    pub fn begin(
        &self,
        mechanism: &str,
        peer: IpAddr,
        channel: &ChannelBinding,
    ) -> Option<Exchange> {
        Exchange::new(self.clone(), mechanism, peer, channel)
    }

    /// Removes old failure counters from the store, and returns how many. Once an hour, from any
    /// node.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed stays removed.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        throttle::sweep(&self.shared.db, Hour::at(self.shared.env.wall())).await
    }

    /// Reads what the check needs; refuses whoever failed too often.
    async fn look_up(&self, name: &LoginName, network: Network) -> Result<Attempt, AuthError> {
        let hour = Hour::at(self.shared.env.wall());
        let attempt = lookup::read(&self.shared.db, name, network, hour).await?;
        match attempt.failures().refused(hour) {
            Some(retry_after) => Err(AuthError::TooManyFailures { retry_after }),
            None => Ok(attempt),
        }
    }

    async fn turn(&self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, AuthError> {
        let turn = Arc::clone(turns).acquire_owned();
        match self.shared.env.timeout(limits::VERIFICATION_WAIT, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(env::Elapsed) => Err(AuthError::Busy),
        }
    }

    /// Verifies where it may block. The permit goes along: the memory is in use until the work
    /// ends, even where nobody waits for it any more.
    async fn verify(
        &self,
        attempt: &Attempt,
        password: Secret,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Verdict, OwnedSemaphorePermit), AuthError> {
        let hash = attempt.argon2().map(str::to_owned);
        let work = move || (credential::verify(hash.as_deref(), &password), permit);
        self.shared.env.run_blocking(work).await.map_err(|_| AuthError::Busy)
    }

    /// Counts a failure, then gives the turn back. A failure that could not be counted is not
    /// told: a broken store would make guesses free.
    async fn count_failure(
        &self,
        attempt: &Attempt,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), AuthError> {
        attempt.count_failure(&self.shared.db).await?;
        drop(permit);
        Ok(())
    }

    /// Holds the answer to a counted failure back.
    async fn hold_back(&self, attempt: &Attempt) -> AuthError {
        self.shared.env.sleep(attempt.failures().delay()).await;
        AuthError::BadCredentials
    }
}
