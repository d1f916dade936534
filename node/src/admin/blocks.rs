//! Networks that no node talks to.

use cluster::settings;
use kv::Transaction;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError, Page, PageQuery};
use crate::{
    guard::{
        block::{self, Block, Cause, Lasting, Put, Removed},
        network::Network,
    },
    limits::{BLOCK_PREFIX_MIN_V4, BLOCK_PREFIX_MIN_V6, BLOCK_REASON_BYTES_MAX},
    settings::Settings,
};

/// A block, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Such as `192.0.2.1` or `2001:db8::/64`.
    pub network: String,
    /// Whether it is refused now; one that is over is remembered for some days.
    pub in_force: bool,
    /// When it began, milliseconds since 1970.
    pub since_ms: i64,
    /// When it ends; `None` where it has to be removed.
    pub until_ms: Option<i64>,
    /// How many there were in a row, this one included.
    pub strikes: u32,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub by: String,
}

/// A block to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBlock {
    /// An address or a network.
    pub network: String,
    /// How long it lasts; until it is removed without.
    pub seconds: Option<u64>,
    /// Why, for people.
    pub reason: Option<String>,
}

impl BlockInfo {
    fn new(admin: &Admin, network: Network, block: Block) -> Self {
        Self {
            network: network.to_string(),
            in_force: block.is_in_force(admin.env.wall()),
            since_ms: block.since_ms,
            until_ms: block.until_ms,
            strikes: block.strikes,
            reason: block.reason,
            by: block.by,
        }
    }
}

/// One page of the blocks, in the order of their networks, those that are over and remembered
/// included.
///
/// # Errors
/// [`AdminError::Page`].
pub async fn list(admin: &Admin, query: &PageQuery) -> Result<Page<BlockInfo>, AdminError> {
    let after = query.after.as_deref().map(str::parse::<Network>).transpose();
    let after = after.map_err(|error| AdminError::Page(error.0))?;
    let rows = query.rows();
    let read = |tx: Transaction| async move { block::page(&tx, after, rows).await };
    let found = admin.db.run(read).await?;
    let next = found.last().filter(|_| found.len() == rows);
    let next = next.map(|(network, _)| network.to_string());
    let info = |(network, block)| BlockInfo::new(admin, network, block);
    Ok(Page { items: found.into_iter().map(info).collect(), next })
}

/// Blocks a network; one that is blocked already from now on as asked.
///
/// # Errors
/// [`AdminError::Network`], [`AdminError::WideNetwork`], [`AdminError::TrustedNetwork`],
/// [`AdminError::BlockReason`], [`AdminError::ManyBlocks`].
pub async fn add(admin: &Admin, new: &NewBlock, by: &str) -> Result<BlockInfo, AdminError> {
    let network: Network = new.network.parse()?;
    let least = if network.is_v4() { BLOCK_PREFIX_MIN_V4 } else { BLOCK_PREFIX_MIN_V6 };
    if network.prefix() < least {
        return Err(AdminError::WideNetwork(network.to_string()));
    }
    let reason = new.reason.clone().unwrap_or_default();
    if reason.len() > BLOCK_REASON_BYTES_MAX {
        return Err(AdminError::BlockReason);
    }
    let lasts = new.seconds.map_or(Lasting::ForGood, Lasting::Seconds);
    let cause = &Cause { reason, by: by.to_owned(), lasts };
    let now = admin.env.wall();
    let put = |tx: Transaction| async move {
        let set = settings::current(&tx).await?;
        let rules = Settings::default().changed(&set.values).guard;
        if let Some(trusted) = rules.trusted.iter().find(|it| it.covers(network)) {
            return Err(AdminError::TrustedNetwork(network.to_string(), trusted.to_string()));
        }
        match block::put(&tx, network, cause, &rules.block, now).await? {
            Put::Blocked(block) => Ok(block),
            Put::InForce | Put::Full => Err(AdminError::ManyBlocks(rules.block.count_max)),
        }
    };
    let block = admin.db.run(put).await?;
    Ok(BlockInfo::new(admin, network, block))
}

/// Ends a block, and forgets it.
///
/// # Errors
/// [`AdminError::Network`], [`AdminError::Missing`] where there is none.
pub async fn remove(admin: &Admin, network: &str) -> Result<(), AdminError> {
    let network: Network = network.parse()?;
    admin
        .run(async |tx, run| {
            let removed = match block::remove(&tx, network).await? {
                Removed::Yes => Ok(()),
                Removed::Unknown => Err(AdminError::Missing(format!("a block of {network}"))),
            };
            run.settle(removed, |error| matches!(error, AdminError::Missing(_)))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::super::tests::memory;
    use super::*;

    fn new(network: &str, seconds: Option<u64>) -> NewBlock {
        NewBlock { network: network.to_owned(), seconds, reason: Some("a test".to_owned()) }
    }

    #[tokio::test]
    async fn blocks_come_and_go() {
        let admin = memory();
        let made = add(&admin, &new("192.0.2.9/24", None), "me").await.unwrap();
        assert_eq!((made.network.as_str(), made.until_ms), ("192.0.2.0/24", None));
        let made = add(&admin, &new("2001:db8::1", Some(60)), "me").await.unwrap();
        assert_eq!(made.until_ms, Some(made.since_ms + 60_000));
        let again = add(&admin, &new("2001:db8::1", Some(90)), "me").await.unwrap();
        assert_eq!((again.until_ms, again.strikes), (Some(again.since_ms + 90_000), 1));
        let query = PageQuery { limit: Some(1), ..PageQuery::default() };
        let page = list(&admin, &query).await.unwrap();
        assert_eq!(page.items[0].network, "192.0.2.0/24");
        let query = PageQuery { after: page.next, ..query };
        let page = list(&admin, &query).await.unwrap();
        assert_eq!(page.items, [again]);
        remove(&admin, "192.0.2.0/24").await.unwrap();
        let error = remove(&admin, "192.0.2.0/24").await.unwrap_err().to_string();
        assert_eq!(error, "a block of 192.0.2.0/24 does not exist");
    }

    #[tokio::test]
    async fn what_must_not_be_blocked_is_not() {
        let admin = memory();
        for (network, expected) in [
            ("nonsense", "is not an address"),
            ("10.0.0.0/7", "too large"),
            ("2000::/3", "too large"),
        ] {
            let error = add(&admin, &new(network, None), "me").await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (name, value) in
            [("guard.trusted_networks", "10.0.0.0/8"), ("guard.block.count_max", "1")]
        {
            super::super::cluster::change_setting(&admin, name, Some(value), "me").await.unwrap();
        }
        let error = add(&admin, &new("10.1.0.0/16", None), "me").await.unwrap_err().to_string();
        assert_eq!(error, "10.1.0.0/16 is trusted: guard.trusted_networks has 10.0.0.0/8");
        add(&admin, &new("192.0.2.1", None), "me").await.unwrap();
        let error = add(&admin, &new("192.0.2.2", None), "me").await.unwrap_err().to_string();
        assert!(error.contains("1 blocks already"), "{error}");
    }
}
