//! What an ended epoch leaves behind: its claims go back, and nothing is told to it any more.
//!
//! In bounded transactions, each harmless where others do the same at once. The epoch's mark goes
//! last, so whoever finds it goes on where somebody stopped.

use env::{
    Env, Timestamp,
    probe::{self, Planted},
};
use kv::Database;
use mail::{
    StoreError,
    interest::{self, Remaining},
};

use super::registry;
use crate::{
    Epoch, limits,
    work::{self, Kind, zone::Again},
};

/// Settles what an ended epoch held. The work that it had claimed is due again as it was.
///
/// # Errors
/// [`StoreError`]; what is left is settled by the next call.
pub(super) async fn settle(env: &Env, db: &Database, epoch: Epoch) -> Result<u64, StoreError> {
    let listener = epoch.into();
    let mut returned = 0;
    loop {
        let now = env.wall();
        let some = db.run(move |tx| async move { return_claims(&tx, epoch, now).await }).await?;
        returned += some as u64;
        if some < limits::CLAIMS_PER_TRANSACTION {
            break;
        }
    }
    // Interests before the inbox: a commit that read an interest is over before it is gone.
    while db.run(move |tx| async move { interest::forget_interests(&tx, listener).await }).await?
        == Remaining::Some
    {}
    while db
        .run(move |tx| async move {
            let remaining = interest::forget_inbox(&tx, listener).await?;
            if remaining == Remaining::None {
                registry::forget_ended(&tx, epoch);
            }
            Ok::<_, StoreError>(remaining)
        })
        .await?
        == Remaining::Some
    {}
    Ok(returned)
}

async fn return_claims(
    tx: &kv::Transaction,
    epoch: Epoch,
    now: Timestamp,
) -> Result<usize, StoreError> {
    if probe::planted(Planted::KeepDeadClaims) {
        return Ok(0);
    }
    let claims = registry::claims_of(epoch).limit(limits::CLAIMS_PER_TRANSACTION);
    let claims = tx.range(claims).collect().await?;
    for claim in &claims {
        type Claim = (u64, String, u64, u64, String);
        let (_, _, _, kind, zone): Claim = kv::tuple::unpack(&claim.key)
            .map_err(|_| StoreError::damaged("claim", "a key without its zone"))?;
        let passed_over = probe::planted(Planted::PassOverUnknownKinds)
            && !Kind::ALL.iter().any(|known| *known as u64 == kind);
        if !passed_over {
            work::zone::hand_back(tx, kind, &zone, epoch, Again::AsItWas).await?;
            if probe::planted(Planted::TrustOwnClock) {
                work::zone::hide_until(tx, kind, &zone, now).await?;
            }
        }
        tx.clear(&claim.key);
    }
    Ok(claims.len())
}
