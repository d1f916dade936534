//! What every driver works with.

use std::{net::IpAddr, sync::Arc};

use blob::BlobStore;
use cluster::wake::Ears;
use dns::Resolver;
use env::Env;
use kv::{Database, RetryPolicy};
use mail::view::ViewCache;
use tokio::sync::watch;

use crate::{
    announce::Announcer,
    auth::{AuthError, Authenticator},
    config::{Config, Limits, Names},
    deliver::{Combining, Deliverer},
    guard::{Event, Guard},
    hub::Hub,
    judging::{received::Received, seen::Seen},
    limits,
    metrics::{AuthOutcome, Metrics, Protocol, Sources},
    settings::Settings,
    signing::Signing,
    stop::Stopping,
    stores::Stores,
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
    /// The same store, for whoever waits for mail to be taken ([`limits::STORE_PATIENCE`]).
    pub(crate) db_in_time: Database,
    pub(crate) blobs: BlobStore,
    pub(crate) views: ViewCache,
    pub(crate) hub: Hub,
    pub(crate) announcer: Announcer,
    /// Hears what other nodes commit.
    pub(crate) ears: Ears,
    pub(crate) deliverer: Deliverer,
    pub(crate) auth: Authenticator,
    pub(crate) metrics: Metrics,
    pub(crate) tls: Tls,
    pub(crate) stopping: Stopping,
    /// Looks up names.
    pub(crate) resolver: Resolver,
    /// What came in domains' names.
    pub(crate) seen: Seen,
    /// What others report.
    pub(crate) received: Received,
    /// Signs for our domains.
    pub(crate) signing: Signing,
    /// What is in force of the settings that all nodes share.
    pub(crate) settings: watch::Sender<Arc<Settings>>,
    /// Keeps abuse away.
    pub(crate) guard: Guard,
}

impl Services {
    /// A node's parts over its stores.
    pub(crate) fn new(
        stores: Stores,
        config: Config,
        env: Env,
        tls: Tls,
        stopping: Stopping,
        (hub, ears): (Hub, Ears),
    ) -> Result<Self, dns::SettingsError> {
        let resolver = match &config.names {
            Names::Asked => Resolver::new(&env, &config.dns.settings())?,
            Names::Given(zone) => Resolver::fixed(zone.clone()),
        };
        let Stores { db, blobs, .. } = stores;
        let cache_bytes = usize::try_from(config.limits.view_cache_bytes).unwrap_or(usize::MAX);
        let views = ViewCache::new(db.clone(), env.clone(), cache_bytes);
        let announcer = Announcer::new(db.clone(), env.clone(), hub.clone(), views.clone());
        let db_in_time = db.with_retry(RetryPolicy::within(limits::STORE_PATIENCE));
        let settings = watch::Sender::new(Arc::new(Settings::of(&config)));
        let signing = Signing::new(&env, db_in_time.clone(), settings.subscribe());
        let deliverer = Deliverer::new(
            db_in_time.clone(),
            blobs.clone(),
            env.clone(),
            announcer.clone(),
            Combining::of(&db),
            signing.clone(),
        );
        let metrics = Metrics::new(env.clone());
        metrics.watch_signing(signing.counts().clone());
        metrics.watch(Sources {
            db: db.clone(),
            blobs: Some(blobs.clone()),
            views: Some(views.clone()),
        });
        let guard = Guard::new(
            &env,
            (&db, &db_in_time),
            &resolver.for_strangers(),
            &config.hostname,
            settings.subscribe(),
            &metrics,
        );
        let parts = Parts {
            guard,
            seen: Seen::new(db.counted_apart(), env.clone()),
            received: Received::new(
                db.counted_apart(),
                blobs.clone(),
                env.clone(),
                resolver.clone(),
                metrics.clone(),
            ),
            resolver,
            deliverer,
            auth: Authenticator::new(db.clone(), env.clone()),
            stopping,
            settings,
            signing,
            config,
            blobs,
            views,
            hub,
            announcer,
            ears,
            metrics,
            tls,
            db,
            db_in_time,
            env,
        };
        Ok(Self { parts: Arc::new(parts) })
    }
}

impl Parts {
    /// The bounds that are in force now.
    pub(crate) fn limits(&self) -> Limits {
        self.settings.borrow().limits.clone()
    }

    /// Whether abuse control refuses a client. LMTP is spoken by servers of our own alone.
    pub(crate) fn blocks(&self, protocol: Protocol, peer: IpAddr) -> bool {
        protocol != Protocol::Lmtp && self.guard.blocks(peer)
    }

    /// Holds a refused login against its client, where it is one of a guesser's.
    pub(crate) fn login_failed(&self, peer: IpAddr, error: &AuthError) {
        match auth_outcome(error) {
            AuthOutcome::WrongPassword | AuthOutcome::Slowed => {
                self.guard.note(peer, Event::FailedLogin);
            }
            AuthOutcome::Success
            | AuthOutcome::Disabled
            | AuthOutcome::Aborted
            | AuthOutcome::Failed => {}
        }
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
