//! What a store needs that another program has put back: `fdbrestore`, a snapshot of a disk.
//!
//! UIDs that were given out since the snapshot are given out again, so every mailbox gets a new
//! UIDVALIDITY ([`mail::uid_validity`]) before anybody sees it. `rookery restore` does that by itself.

use std::time::Duration;

use ::cluster::membership::registry;
use env::Timestamp;
use mail::{
    StoreError,
    uid_validity::{self, RenewError, Renewed},
};

use super::Admin;

/// How much longer than its time-to-live a node's heartbeat must have stood still.
const MARGIN: Duration = Duration::from_secs(1);

/// Why mailboxes keep their UIDVALIDITYs, or some of them.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    /// Clients may see the store.
    #[error("these nodes run on the store: {0}; end them first")]
    InUse(String),
    /// Begun, and to be begun anew.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// The store failed before anything was done.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Gives every mailbox of a store of a snapshot that is at most `age` old a new UIDVALIDITY. Waits
/// first for as long as the heartbeat of a node that runs could stand still.
///
/// # Errors
/// [`RestoredError`].
pub async fn renew_uid_validities(
    admin: &Admin,
    age: Duration,
    progress: impl FnMut(Renewed) + Send,
) -> Result<Renewed, RestoredError> {
    let running = running(admin).await?;
    if !running.is_empty() {
        return Err(RestoredError::InUse(running.join(", ")));
    }
    let now = admin.env.wall();
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let made = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(age_ms));
    Ok(uid_validity::renew(&admin.db, made, now, progress).await?)
}

/// Nodes whose hearts beat. The snapshot's own nodes are registered too, and do not.
async fn running(admin: &Admin) -> Result<Vec<String>, StoreError> {
    let look = || admin.db.run(|tx| async move { registry::registered(&tx).await });
    let before = look().await?;
    let longest = before.iter().map(|(_, node)| node.beat.time_to_live_ms).max();
    let Some(longest) = longest else { return Ok(Vec::new()) };
    let patience = Duration::from_millis(longest).min(::cluster::limits::TIME_TO_LIVE_MAX);
    admin.env.sleep(patience + MARGIN).await;
    let beats = |(epoch, node): &(_, registry::Registered)| {
        let was = before.iter().find(|(known, _)| known == epoch);
        was.is_none_or(|(_, was)| was.beat.count != node.beat.count)
    };
    let after = look().await?;
    Ok(after.into_iter().filter(beats).map(|(_, node)| node.record.name).collect())
}
