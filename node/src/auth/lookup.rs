//! What one check reads from the store: account, credential, failures, in one transaction.

use std::sync::Arc;

use bytes::Bytes;
use kv::{Database, Transaction};
use mail::{
    AccountId, StoreError,
    directory::{self, Address},
    keys::account::{self, Account, Credential, ScramCredential},
};
use prost::Message;

use super::{
    AuthError, Identity,
    keys::{Network, Subject},
    limits,
    throttle::{self, Failures, Hour},
    verdicts::{Fingerprint, Verdicts},
};

/// A name as a client gave it, and the address that it is, if it is one.
#[derive(Debug, Clone)]
pub(super) struct LoginName {
    text: Arc<str>,
    address: Option<Address>,
}

impl LoginName {
    /// Prepares the name (RFC 4616 §2, RFC 5802 §5.1). One that cannot be prepared, or is no
    /// address, is a name that does not exist.
    pub(super) fn parse(name: &str) -> Self {
        let prepared = (name.len() <= limits::NAME_BYTES_MAX)
            .then(|| stringprep::saslprep(name).ok())
            .flatten();
        let address = prepared.and_then(|name| Address::parse(&name).ok());
        let text = address.as_ref().map_or(name, Address::as_str).into();
        Self { text, address }
    }

    /// The folded address, or the name as it came.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// One check of one name.
pub(super) struct Attempt {
    user: Option<User>,
    subject: Subject,
    network: Network,
    hour: Hour,
    failures: Failures,
}

struct User {
    id: AccountId,
    account: Account,
    record: Bytes,
    credential: Credential,
}

/// An id that no account has, and so no record: ids begin at 1.
const NO_ACCOUNT: AccountId = AccountId(0);

/// Reads everything at one version.
pub(super) async fn read(
    db: &Database,
    name: &LoginName,
    network: Network,
    hour: Hour,
) -> Result<Attempt, StoreError> {
    db.run(|tx| {
        let name = name.clone();
        async move { read_in(&tx, &name, network, hour).await }
    })
    .await
}

async fn read_in(
    tx: &Transaction,
    name: &LoginName,
    network: Network,
    hour: Hour,
) -> Result<Attempt, StoreError> {
    let id = match &name.address {
        Some(address) => directory::login(tx, address).await?,
        None => None,
    };
    let subject = id.map_or_else(|| Subject::unknown(name.as_str()), Subject::account);
    // The same reads whether the account exists or not: an unknown name takes no less time.
    let (account_key, credential_key) = {
        let id = id.unwrap_or(NO_ACCOUNT);
        (account::key(id), account::credential_key(id))
    };
    let (account, record, failures) = tokio::try_join!(
        async { Ok(tx.get(&account_key).await?) },
        async { Ok(tx.get(&credential_key).await?) },
        Failures::read(tx, hour, network, subject),
    )?;
    let user = match (id, account, record) {
        (Some(id), Some(account), Some(record)) => Some(User {
            id,
            account: decode("account", &account)?,
            credential: decode("credential", &record)?,
            record,
        }),
        _ => None,
    };
    Ok(Attempt { user, subject, network, hour, failures })
}

fn decode<M: Message + Default>(family: &'static str, value: &[u8]) -> Result<M, StoreError> {
    M::decode(value).map_err(|error| StoreError::Damaged { family, detail: error.to_string() })
}

impl Attempt {
    pub(super) fn failures(&self) -> Failures {
        self.failures
    }

    pub(super) fn argon2(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.credential.argon2.as_str())
    }

    pub(super) fn scram(&self) -> Option<&ScramCredential> {
        self.user.as_ref().and_then(|user| user.credential.scram_sha256.as_ref())
    }

    pub(super) fn fingerprint(&self, verdicts: &Verdicts, password: &[u8]) -> Fingerprint {
        let record = self.user.as_ref().map_or(&[][..], |user| &user.record);
        verdicts.fingerprint(self.subject.as_bytes(), record, password)
    }

    /// Lets the owner in, once the password was proved.
    pub(super) fn admit(self) -> Result<Identity, AuthError> {
        match self.user {
            // No verdict on a name that does not exist is ever right.
            None => Err(AuthError::BadCredentials),
            Some(user) if user.account.login_disabled => Err(AuthError::Disabled),
            Some(user) => Ok(Identity { account: user.id, name: user.account.name }),
        }
    }

    pub(super) async fn count_failure(&self, db: &Database) -> Result<(), StoreError> {
        throttle::record(db, self.hour, self.network, self.subject).await
    }
}
