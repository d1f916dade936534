//! This node among the others: its membership, what it hears of, and its share of the work.

use std::{sync::Arc, time::Duration};

use cluster::{
    ClusterError, Membership, Registration,
    membership::registry::{Activity, Wish},
    wake::{Ears, Heard},
    work::{Runner, RunnerSettings, Worker},
};
use env::Env;
use kv::Database;

use crate::{config::Config, hub::Hub};

/// The release that a node registers with.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What makes a process one of several.
pub(crate) struct Peers {
    pub(crate) membership: Membership,
    pub(crate) ears: Ears,
}

impl Peers {
    /// Registers the node and begins to listen; what is heard rings in `hub`.
    ///
    /// # Errors
    /// [`ClusterError`] where the store does not let it register.
    pub(crate) async fn join(
        db: &Database,
        env: &Env,
        config: &Config,
        hub: &Hub,
    ) -> Result<Self, ClusterError> {
        let registration = Registration {
            name: config.node_name(),
            release: RELEASE.to_owned(),
            address: String::new(),
            certificate: Vec::new(),
            admin_address: config.listen.http.first().map(ToString::to_string).unwrap_or_default(),
            time_to_live: Duration::from_millis(config.cluster.time_to_live_ms),
        };
        let membership = Membership::join(db.clone(), env.clone(), registration).await?;
        let hub = hub.clone();
        let hear = Arc::new(move |heard| match heard {
            Heard::Changed(account, version) => hub.ring(account, version),
            Heard::Anything => hub.ring_all(),
        });
        let ears = Ears::open(db, env, &membership, hear);
        Ok(Self { membership, ears })
    }

    /// Whether administrators want the node to stand aside.
    pub(crate) fn is_to_stand_aside(&self) -> bool {
        *self.membership.wish().borrow() == Wish::Drain
    }

    /// Waits while administrators want the node to stand aside.
    pub(crate) async fn until_wanted(&self) {
        tracing::warn!("this node is drained: it serves when it is told to (undrain)");
        self.membership.show_activity(Activity::Drained);
        // The sender goes with the membership, which is ours.
        let mut wish = self.membership.wish();
        let _wanted = wish.wait_for(|wish| *wish == Wish::Serve).await;
    }

    /// Takes a share of the work.
    pub(crate) fn work(&self, db: &Database, env: &Env, workers: Vec<Arc<dyn Worker>>) -> Runner {
        self.membership.show_activity(Activity::Serving);
        Runner::start(db, env, &self.membership, RunnerSettings::default(), workers)
    }
}
