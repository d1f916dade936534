//! What a node counts, in Prometheus's terms.
//!
//! Every name begins with `rookery_` and ends with its unit; label values are enums or literals
//! of this program, never a client's, so the number of series has a bound. Counting is a few
//! atomic additions and never waits for a scrape.
//!
//! Deliberately absent: anything per account, domain or address.

mod labels;
mod sources;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use blob::sweep::SweepCounts;
use env::{Env, Monotonic};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use labels::{
    ActionLabels, CommandLabels, OutcomeLabels, ProtocolLabels, ReceivedLabels, RefusedLabels,
    ReportLabels, TlsLabels, VerdictLabels,
};
pub use labels::{
    AuthOutcome, GuardAction, Outcome, Protocol, RefusedReason, ReportOutcome, ReportReceived,
    Sent, TlsOutcome, TlsPolicyLabel,
};
pub(crate) use sources::ClusterSource;
pub use sources::Sources;
use sources::{CertificateSource, SweepSource};

use crate::tls::Tls;

/// Seconds: from a cached read to a client's patience.
const SECONDS_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Seconds: from a server that is quick to one that comes back after days.
const OUTBOUND_SECONDS_BUCKETS: [f64; 13] = [
    0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0,
];

/// Bytes: from a short note to the largest attachment.
const BYTES_BUCKETS: [f64; 9] = [
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// The node's metrics. Cloning is one reference count.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    begun: Monotonic,
    registry: Mutex<Registry>,
    sessions_open: Family<ProtocolLabels, Gauge>,
    sessions: Family<ProtocolLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    messages: Family<OutcomeLabels, Counter>,
    message_bytes: Family<ProtocolLabels, Histogram>,
    delivery_seconds: Histogram,
    imap_command_seconds: Family<CommandLabels, Histogram>,
    smtp_command_seconds: Family<CommandLabels, Histogram>,
    auth: Family<labels::AuthLabels, Counter>,
    outbound: Family<labels::SentLabels, Counter>,
    outbound_seconds: Histogram,
    outbound_tls: Family<TlsLabels, Counter>,
    verdicts: Family<VerdictLabels, Counter>,
    judged: Family<ActionLabels, Counter>,
    dmarc_reports: Family<ReportLabels, Counter>,
    reports_received: Family<ReceivedLabels, Counter>,
    uptime: Gauge<f64, std::sync::atomic::AtomicU64>,
    guard: Family<labels::GuardLabels, Counter>,
    guard_blocks: Gauge,
    guard_tarpitted: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// An open session; counts as open until it is dropped.
#[derive(Debug)]
#[must_use = "the session counts as closed when this is dropped"]
pub struct SessionGuard {
    open: Gauge,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.open.dec();
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS_BUCKETS)
}

fn bytes() -> Histogram {
    Histogram::new(BYTES_BUCKETS)
}

impl Metrics {
    /// A node's metrics, all at zero.
    pub fn new(env: Env) -> Self {
        let inner = Inner {
            begun: env.monotonic(),
            env,
            registry: Mutex::new(Registry::with_prefix("rookery")),
            sessions_open: Family::default(),
            sessions: Family::default(),
            refused: Family::default(),
            messages: Family::default(),
            message_bytes: Family::new_with_constructor(bytes),
            delivery_seconds: seconds(),
            imap_command_seconds: Family::new_with_constructor(seconds),
            smtp_command_seconds: Family::new_with_constructor(seconds),
            auth: Family::default(),
            outbound: Family::default(),
            outbound_seconds: Histogram::new(OUTBOUND_SECONDS_BUCKETS),
            outbound_tls: Family::default(),
            verdicts: Family::default(),
            judged: Family::default(),
            dmarc_reports: Family::default(),
            reports_received: Family::default(),
            uptime: Gauge::default(),
            guard: Family::default(),
            guard_blocks: Gauge::default(),
            guard_tarpitted: Gauge::default(),
        };
        inner.begin();
        inner.register();
        Self { inner: Arc::new(inner) }
    }

    /// Adds what is read from the store at each scrape.
    pub fn watch(&self, sources: Sources) {
        self.registry().register_collector(Box::new(sources));
    }

    /// Adds what the blob sweeper has done.
    pub fn watch_sweeper(&self, counts: SweepCounts) {
        self.registry().register_collector(Box::new(SweepSource(counts)));
    }

    /// Adds what this node is among the others.
    pub(crate) fn watch_cluster(&self, source: ClusterSource) {
        self.registry().register_collector(Box::new(source));
    }

    /// Adds what is counted of signing.
    pub(crate) fn watch_signing(&self, counts: crate::signing::Counts) {
        self.registry().register_collector(Box::new(counts));
    }

    /// Adds until when certificates are good.
    pub(crate) fn watch_certificates(&self, tls: Tls) {
        self.registry().register_collector(Box::new(CertificateSource(tls)));
    }

    /// A session begins.
    pub fn session(&self, protocol: Protocol) -> SessionGuard {
        let labels = ProtocolLabels { protocol };
        self.inner.sessions.get_or_create(&labels).inc();
        let open = self.inner.sessions_open.get_or_create_owned(&labels);
        open.inc();
        SessionGuard { open }
    }

    /// A connection was closed before its session began.
    pub fn connection_refused(&self, protocol: Protocol, reason: RefusedReason) {
        self.inner.refused.get_or_create(&RefusedLabels { protocol, reason }).inc();
    }

    /// A message's transfer ended.
    pub fn message_received(&self, protocol: Protocol, outcome: Outcome) {
        self.inner.messages.get_or_create(&OutcomeLabels { protocol, outcome }).inc();
    }

    /// The size of a message that was taken in.
    pub fn message_bytes(&self, protocol: Protocol, bytes: u64) {
        let labels = ProtocolLabels { protocol };
        // A histogram's sum is a float; sizes stay far below where that loses bytes.
        #[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
        self.inner.message_bytes.get_or_create(&labels).observe(bytes as f64);
    }

    /// Time from a message's last byte to its commit.
    pub fn delivery_seconds(&self, time: Duration) {
        self.inner.delivery_seconds.observe(time.as_secs_f64());
    }

    /// An IMAP command was executed.
    pub fn imap_command(&self, command: &'static str, time: Duration) {
        let labels = CommandLabels { command };
        self.inner.imap_command_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// An SMTP or LMTP command was executed.
    pub fn smtp_command(&self, command: &'static str, time: Duration) {
        let labels = CommandLabels { command };
        self.inner.smtp_command_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// An attempt to authenticate ended.
    pub fn auth(&self, outcome: AuthOutcome) {
        self.inner.auth.get_or_create(&labels::AuthLabels { outcome }).inc();
    }

    /// A try to send a message to a recipient has ended.
    pub(crate) fn outbound(&self, outcome: Sent) {
        self.inner.outbound.get_or_create(&labels::SentLabels { outcome }).inc();
    }

    /// Time from when a message was to leave, or was accepted, until another server had it.
    pub(crate) fn outbound_seconds(&self, time: Duration) {
        self.inner.outbound_seconds.observe(time.as_secs_f64());
    }

    /// It was seen what comes of TLS to another server.
    pub fn outbound_tls(&self, policy: TlsPolicyLabel, outcome: TlsOutcome) {
        self.inner.outbound_tls.get_or_create(&TlsLabels { policy, outcome }).inc();
    }

    /// What one method found of a message.
    pub fn verdict(&self, method: &'static str, result: &'static str) {
        self.inner.verdicts.get_or_create(&VerdictLabels { method, result }).inc();
    }

    /// What was done with a message that was judged.
    pub fn judged(&self, action: &'static str) {
        self.inner.judged.get_or_create(&ActionLabels { action }).inc();
    }

    /// What became of telling a domain what came in its name.
    pub fn dmarc_report(&self, outcome: ReportOutcome) {
        self.inner.dmarc_reports.get_or_create(&ReportLabels { outcome }).inc();
    }

    /// What became of a report that somebody sent.
    pub fn report_received(&self, outcome: ReportReceived) {
        self.inner.reports_received.get_or_create(&ReceivedLabels { outcome }).inc();
    }

    /// Abuse control did something.
    pub(crate) fn guard(&self, action: GuardAction) {
        self.inner.guard.get_or_create(&labels::GuardLabels { action }).inc();
    }

    /// So many networks are blocked.
    pub(crate) fn guard_blocks(&self, count: usize) {
        self.inner.guard_blocks.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The replies of so many connections wait, or have waited.
    pub(crate) fn guard_tarpitted(&self, count: u64) {
        self.inner.guard_tarpitted.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Everything, in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let up = self.inner.env.monotonic().saturating_since(self.inner.begun);
        self.inner.uptime.set(up.as_secs_f64());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry())
            .expect("writing to a string does not fail");
        text
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.inner.registry.lock().expect("nothing panics while it holds the registry")
    }
}

impl Inner {
    /// Shows what alerts are about from the start: a counter's first step is seen only from zero.
    fn begin(&self) {
        for outcome in Sent::ALL {
            drop(self.outbound.get_or_create(&labels::SentLabels { outcome: *outcome }));
        }
        for (policy, outcome) in TlsPolicyLabel::ALL
            .iter()
            .flat_map(|policy| TlsOutcome::ALL.iter().map(|outcome| (*policy, *outcome)))
        {
            drop(self.outbound_tls.get_or_create(&TlsLabels { policy, outcome }));
        }
        for action in GuardAction::ALL {
            drop(self.guard.get_or_create(&labels::GuardLabels { action: *action }));
        }
        for outcome in ReportOutcome::ALL {
            drop(self.dmarc_reports.get_or_create(&ReportLabels { outcome: *outcome }));
        }
    }

    fn register(&self) {
        let mut registry = self.registry.lock().expect("the registry is new");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "Which release runs", Info::new(version));
        registry.register_with_unit(
            "uptime",
            "Time since the start",
            Unit::Seconds,
            self.uptime.clone(),
        );
        registry.register("sessions_open", "Open sessions", self.sessions_open.clone());
        registry.register("sessions", "Sessions begun", self.sessions.clone());
        registry.register(
            "connections_refused",
            "Connections closed before their session began",
            self.refused.clone(),
        );
        registry.register("messages_received", "Messages transferred", self.messages.clone());
        registry.register_with_unit(
            "message_size",
            "Sizes of the messages taken in",
            Unit::Bytes,
            self.message_bytes.clone(),
        );
        registry.register_with_unit(
            "delivery",
            "Time from a message's last byte to its commit",
            Unit::Seconds,
            self.delivery_seconds.clone(),
        );
        registry.register_with_unit(
            "imap_command",
            "Time to execute an IMAP command",
            Unit::Seconds,
            self.imap_command_seconds.clone(),
        );
        registry.register_with_unit(
            "smtp_command",
            "Time to execute an SMTP or LMTP command",
            Unit::Seconds,
            self.smtp_command_seconds.clone(),
        );
        registry.register("auth_attempts", "Attempts to authenticate", self.auth.clone());
        registry.register(
            "outbound_recipients",
            "Tries to send a message to a recipient elsewhere, by what became of them",
            self.outbound.clone(),
        );
        registry.register_with_unit(
            "outbound",
            "Time from a message's acceptance, or from when it was to leave, until another server had it",
            Unit::Seconds,
            self.outbound_seconds.clone(),
        );
        registry.register(
            "outbound_tls_sessions",
            "Sessions with other servers, by what became of TLS",
            self.outbound_tls.clone(),
        );
        registry.register(
            "judging_verdicts",
            "What was found of messages from other servers",
            self.verdicts.clone(),
        );
        registry.register(
            "judged_messages",
            "What was done with messages from other servers that were judged",
            self.judged.clone(),
        );
        registry.register(
            "dmarc_reports",
            "Domains that were to be told what came in their name",
            self.dmarc_reports.clone(),
        );
        registry.register(
            "reports_received",
            "Reports that came to addresses that are set for it",
            self.reports_received.clone(),
        );
        registry.register("guard_actions", "What abuse control did", self.guard.clone());
        registry.register(
            "guard_blocks",
            "Networks that were blocked at this node's last look",
            self.guard_blocks.clone(),
        );
        registry.register(
            "guard_tarpitted",
            "Open connections whose replies are held back",
            self.guard_tarpitted.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render();
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "no {line:?} in:\n{text}");
        }
    }

    #[test]
    fn sessions_count_while_their_guard_lives() {
        let metrics = Metrics::new(Env::system());
        let first = metrics.session(Protocol::Imap);
        let second = metrics.clone().session(Protocol::Imap);
        check(&metrics, &["rookery_sessions_open{protocol=\"imap\"} 2"]);
        drop(first);
        drop(second);
        check(
            &metrics,
            &[
                "rookery_sessions_open{protocol=\"imap\"} 0",
                "rookery_sessions_total{protocol=\"imap\"} 2",
            ],
        );
    }

    #[test]
    fn names_carry_their_units() {
        let metrics = Metrics::new(Env::system());
        metrics.connection_refused(Protocol::Smtp, RefusedReason::AddressLimit);
        metrics.message_received(Protocol::Lmtp, Outcome::Accepted);
        metrics.message_bytes(Protocol::Lmtp, 2000);
        metrics.delivery_seconds(Duration::from_millis(3));
        metrics.imap_command("FETCH", Duration::from_millis(700));
        metrics.smtp_command("DATA", Duration::from_secs(60));
        metrics.auth(AuthOutcome::WrongPassword);
        metrics.outbound_tls(TlsPolicyLabel::MtaSts, TlsOutcome::Refused);
        check(
            &metrics,
            &[
                "rookery_connections_refused_total{protocol=\"smtp\",reason=\"address_limit\"} 1",
                "rookery_messages_received_total{protocol=\"lmtp\",outcome=\"accepted\"} 1",
                "rookery_message_size_bytes_sum{protocol=\"lmtp\"} 2000.0",
                "rookery_delivery_seconds_bucket{le=\"0.005\"} 1",
                "rookery_delivery_seconds_bucket{le=\"0.0025\"} 0",
                "rookery_imap_command_seconds_bucket{le=\"1.0\",command=\"FETCH\"} 1",
                "rookery_smtp_command_seconds_bucket{le=\"10.0\",command=\"DATA\"} 0",
                "rookery_smtp_command_seconds_count{command=\"DATA\"} 1",
                "rookery_auth_attempts_total{outcome=\"wrong_password\"} 1",
                "rookery_outbound_tls_sessions_total{policy=\"mta_sts\",outcome=\"refused\"} 1",
                concat!("rookery_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
                "# EOF",
            ],
        );
    }

    #[tokio::test]
    async fn the_stores_counts_are_read_at_the_scrape() {
        let metrics = Metrics::new(Env::system());
        let db = kv::Database::memory(Env::system());
        metrics.watch(Sources { db: db.clone(), blobs: None, views: None });
        check(&metrics, &["rookery_store_transactions_committed_total 0"]);
        db.run(async |tx: kv::Transaction| {
            tx.set(b"k", b"v");
            Ok::<_, kv::Error>(())
        })
        .await
        .unwrap();
        check(
            &metrics,
            &["rookery_store_transactions_committed_total 1", "rookery_store_keys_written_total 1"],
        );
    }
}
