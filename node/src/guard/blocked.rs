//! This node's copy of the blocks, which every connection is held against.
//!
//! It is as old as the last look: a watch tells of changes, and every
//! [`limits::BLOCKS_LOOK_PERIOD`] the node looks in any case. Blocks end by this node's clock.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, RwLock},
};

use env::{Env, Timestamp};
use kv::{Database, Transaction};
use mail::StoreError;

use super::{block, network::Network};
use crate::{limits, metrics::Metrics};

/// The copy. Cloning is one reference count.
#[derive(Clone, Default)]
pub(crate) struct Blocked {
    table: Arc<RwLock<Arc<Table>>>,
}

/// Networks, and when each is free again (milliseconds since 1970).
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    until: HashMap<Network, i64>,
    /// One network of each length, to make others of that length.
    lengths: BTreeSet<(bool, u8)>,
    samples: Vec<Network>,
}

impl Table {
    fn insert(&mut self, network: Network, until_ms: i64) {
        self.until.insert(network, until_ms);
        if self.lengths.insert((network.is_v4(), network.prefix())) {
            self.samples.push(network);
        }
    }

    fn blocks(&self, address: IpAddr, now: Timestamp) -> bool {
        let until = |sample: &Network| self.until.get(&sample.with_prefix_of(address)?);
        self.samples.iter().filter_map(until).any(|until| now.unix_ms() < *until)
    }
}

impl Blocked {
    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().expect("nothing panics while it holds the table"))
    }

    /// Whether an address is refused.
    pub(crate) fn blocks(&self, address: IpAddr, now: Timestamp) -> bool {
        let table = self.table();
        !table.samples.is_empty() && table.blocks(address, now)
    }

    fn replace(&self, table: Table) {
        *self.table.write().expect("nothing panics while it holds the table") = Arc::new(table);
    }

    /// Keeps the copy equal to the store's blocks.
    pub(crate) async fn follow(self, env: Env, db: Database, metrics: Metrics) {
        let mut held = None;
        loop {
            let watched = match look(&db).await {
                Ok((version, watch)) => {
                    if held != Some(version) {
                        match read(&db, env.wall()).await {
                            Ok(table) => {
                                metrics.guard_blocks(table.until.len());
                                self.replace(table);
                                held = Some(version);
                            }
                            Err(error) => tracing::warn!(%error, "the blocks cannot be read"),
                        }
                    }
                    Some(watch)
                }
                Err(error) => {
                    tracing::warn!(%error, "the blocks cannot be looked at");
                    None
                }
            };
            env.sleep(limits::BLOCKS_LOOK_PAUSE).await;
            let told = async {
                let told = match watched {
                    Some(watch) => watch.changed().await.is_ok(),
                    None => false,
                };
                // A watch that is lost is as good as none.
                if !told {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = told => {}
                () = env.sleep(limits::BLOCKS_LOOK_PERIOD) => {}
            }
        }
    }
}

/// The number of the last change, and what tells of the next.
async fn look(db: &Database) -> Result<(u64, kv::Watch), StoreError> {
    db.run(|tx: Transaction| async move {
        let version = block::version(&tx).await?;
        Ok((version, tx.watch(&block::state_key())))
    })
    .await
}

async fn read(db: &Database, now: Timestamp) -> Result<Table, StoreError> {
    let mut table = Table::default();
    let mut after = None;
    loop {
        let page =
            db.run(|tx: Transaction| async move {
                block::page(&tx, after, limits::BLOCKS_PER_READ).await
            })
            .await?;
        let full = page.len() >= limits::BLOCKS_PER_READ;
        after = page.last().map(|(network, _)| *network);
        for (network, block) in page.into_iter().filter(|(_, block)| block.is_in_force(now)) {
            table.insert(network, block.until_ms.unwrap_or(i64::MAX));
        }
        if !full || table.until.len() as u64 >= limits::BLOCKS_MAX {
            return Ok(table);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_held_against_networks_of_every_length() {
        let mut table = Table::default();
        for (network, until) in [
            ("192.0.2.7", 10),
            ("198.51.100.0/24", 20),
            ("2001:db8::/64", i64::MAX),
            ("10.0.0.0/8", 20),
            ("10.1.0.0/16", 5),
        ] {
            table.insert(network.parse().unwrap(), until);
        }
        let blocks = |address: &str, now| {
            table.blocks(address.parse().unwrap(), Timestamp::from_unix_ms(now))
        };
        assert!(blocks("192.0.2.7", 9) && blocks("::ffff:192.0.2.7", 9));
        assert!(!blocks("192.0.2.7", 10) && !blocks("192.0.2.8", 0));
        assert!(blocks("198.51.100.200", 19) && !blocks("198.51.101.0", 0));
        assert!(blocks("2001:db8::ffff", i64::MAX - 1) && !blocks("2001:db8:0:1::1", 0));
        assert!(blocks("10.1.2.3", 15), "the wider one still holds");
    }
}
