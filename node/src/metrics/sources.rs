//! What is read at each scrape: the counts that the store's parts keep anyway.

use std::fmt;

use blob::{BlobStore, sweep::SweepCounts};
use cluster::{
    Membership,
    wake::Ears,
    work::{Lag, Lags},
};
use kv::Database;
use mail::view::ViewCache;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use crate::tls::Tls;

/// The parts of a node that count for themselves.
pub struct Sources {
    /// The store.
    pub db: Database,
    /// The blobs, where the node has them open.
    pub blobs: Option<BlobStore>,
    /// The views, where the node has sessions.
    pub views: Option<ViewCache>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.store(&mut encoder)?;
        if let Some(blobs) = &self.blobs {
            let counts = blobs.counts();
            counter(&mut encoder, "blob_puts", "Blobs written", None, counts.puts)?;
            counter(&mut encoder, "blob_reads", "Blob reads begun", None, counts.reads)?;
            let bytes = Some(&Unit::Bytes);
            counter(&mut encoder, "blob_written", "Blobs written", bytes, counts.bytes_written)?;
            counter(&mut encoder, "blob_read", "Blobs read", bytes, counts.bytes_read)?;
        }
        if let Some(views) = &self.views {
            let stats = views.stats();
            let held = u64::try_from(stats.views).unwrap_or(u64::MAX);
            gauge(&mut encoder, "views", "Mailbox views in memory", None, held)?;
            let help = "Memory of loaded view pages";
            gauge(&mut encoder, "view_pages", help, Some(&Unit::Bytes), stats.loaded_bytes)?;
        }
        Ok(())
    }
}

/// What the blob sweeper counts.
pub(super) struct SweepSource(pub(super) SweepCounts);

impl fmt::Debug for SweepSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SweepSource")
    }
}

impl Collector for SweepSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let swept = self.0.swept();
        let rows = [
            ("marked", "Blobs found to be needed by nobody", swept.marked),
            ("orphans", "Of those, blobs that never had a reference", swept.orphans),
            ("removed", "Blobs whose bytes were removed", swept.removed),
            ("scanned", "Stored blobs that a scan looked at", swept.scanned),
            ("scans", "Scans that came to their end", swept.scans),
            ("errors", "Calls and transactions of the sweeper that failed", swept.errors),
        ];
        counters(&mut encoder, "blob_sweep", &rows)
    }
}

/// What this node is among the others. It keeps none of the work alive: the membership ends with
/// the node.
pub(crate) struct ClusterSource {
    pub(crate) membership: Membership,
    pub(crate) ears: Ears,
    pub(crate) lags: Lags,
}

impl fmt::Debug for ClusterSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSource")
    }
}

impl Collector for ClusterSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let fence = self.membership.fence();
        let nodes = self.membership.roster().borrow().len() as u64;
        let rows = [
            ("cluster_nodes", "Nodes that are registered, as this one sees it", nodes),
            ("cluster_epoch", "This life of this node", fence.epoch().0),
            (
                "cluster_live",
                "1 while no other node can have declared this one dead",
                u64::from(fence.is_live()),
            ),
            (
                "cluster_interests",
                "Accounts whose changes this node hears of",
                self.ears.accounts() as u64,
            ),
        ];
        for (name, help, value) in rows {
            gauge(&mut encoder, name, help, None, value)?;
        }
        self.work(&mut encoder)
    }
}

/// Until when the certificates in use are good.
pub(super) struct CertificateSource(pub(super) Tls);

impl fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateSource")
    }
}

impl Collector for CertificateSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        const HELP: &str = "When the first of the certificates in use expires, seconds since 1970";
        let expiry = [("file", self.0.own_until()), ("store", self.0.stored_until())];
        let unit = Some(&Unit::Seconds);
        let mut family =
            encoder.encode_descriptor("tls_certificate_expiry", HELP, unit, MetricType::Gauge)?;
        for (source, until) in expiry {
            if let Some(until) = until {
                let labels = [("source", source)];
                ConstGauge::new(until.unix_seconds()).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl ClusterSource {
    fn work(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&Lag) -> u64;
        let lags = self.lags.read();
        let gauges: [(&str, &str, Read); 2] = [
            ("work_claimed_zones", "Zones that this node works on", |lag| lag.claimed),
            (
                "work_due_zones",
                "Zones that were due at this node's last look, as far as it looked",
                |lag| lag.due,
            ),
        ];
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (kind, lag) in &lags {
                let value = i64::try_from(read(lag)).unwrap_or(i64::MAX);
                let labels = [("kind", kind.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let counters: [(&str, &str, Read); 3] = [
            ("work_done", "Items that this node worked on with success", |lag| lag.done),
            ("work_failures", "Tries of this node that failed", |lag| lag.failed),
            ("work_lost_races", "Claims that another node was faster with", |lag| lag.lost_races),
        ];
        for (name, help, read) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (kind, lag) in &lags {
                let labels = [("kind", kind.as_str())];
                ConstCounter::new(read(lag)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Sources {
    fn store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.db.counts();
        let rows = [
            ("transactions_committed", "Transactions that wrote", counts.transactions_committed),
            (
                "transactions_read_only",
                "Transactions that only read",
                counts.transactions_read_only,
            ),
            ("conflicts", "Commits refused for a conflict", counts.conflicts),
            ("retries", "Transactions run again", counts.retries),
            ("commit_unknown", "Commits whose result is unknown", counts.commit_unknown),
            ("keys_read", "Single keys read", counts.keys_read),
            ("range_reads", "Pages of ranges read", counts.range_reads),
            ("rows_read", "Rows read in ranges", counts.rows_read),
            ("keys_written", "Keys set", counts.keys_written),
            ("keys_cleared", "Keys cleared one by one", counts.keys_cleared),
            ("ranges_cleared", "Ranges cleared", counts.ranges_cleared),
        ];
        counters(encoder, "store", &rows)?;
        let bytes = Some(&Unit::Bytes);
        let written = "Keys and values written";
        counter(encoder, "store_written", written, bytes, counts.bytes_written)?;
        counter(encoder, "store_read", "Keys and values read", bytes, counts.bytes_read)
    }
}

/// Counters without a unit: name behind the prefix, help, value.
fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    prefix: &str,
    rows: &[(&str, &str, u64)],
) -> fmt::Result {
    rows.iter().try_for_each(|(name, help, value)| {
        counter(encoder, &format!("{prefix}_{name}"), help, None, *value)
    })
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}
