//! What every driver works with.

use std::sync::Arc;

use blob::BlobStore;
use env::Env;
use kv::Database;
use mail::view::ViewCache;

use crate::{
    auth::{AuthError, Authenticator},
    config::Config,
    deliver::Deliverer,
    hub::Hub,
    metrics::{AuthOutcome, Metrics},
    stop::Stopping,
    tls::Tls,
};

/// A node's parts, shared by its sessions. Cloning is one reference count.
#[derive(Clone)]
pub(crate) struct Services {
    parts: Arc<Parts>,
}

pub(crate) struct Parts {
    pub(crate) env: Env,
    pub(crate) config: Config,
    pub(crate) db: Database,
    pub(crate) blobs: BlobStore,
    pub(crate) views: ViewCache,
    pub(crate) hub: Hub,
    pub(crate) deliverer: Deliverer,
    pub(crate) auth: Authenticator,
    pub(crate) metrics: Metrics,
    pub(crate) tls: Tls,
    pub(crate) stopping: Stopping,
}

impl Services {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }
}

impl std::ops::Deref for Services {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// How a refused login is counted.
pub(crate) fn auth_outcome(error: &AuthError) -> AuthOutcome {
    match error {
        AuthError::BadCredentials | AuthError::NotAuthorized | AuthError::ChannelBinding => {
            AuthOutcome::WrongPassword
        }
        AuthError::TooManyFailures { .. } => AuthOutcome::Slowed,
        AuthError::Disabled => AuthOutcome::Disabled,
        AuthError::Malformed(_) => AuthOutcome::Aborted,
        AuthError::Busy | AuthError::Store(_) => AuthOutcome::Failed,
    }
}
