//! Reports of how TLS to other domains went (RFC 8460): one a domain and day, for the whole cluster.
//!
//! One zone with one item, so one node sends them. How far it has come is in the item; a domain's counts go
//! in the transaction that enqueues its report, so a report is sent once by mail. One that is handed in over
//! HTTPS and whose counts could not be cleared then is handed in again, under the same id.
//!
//! Deliberately absent: a DKIM signature of its own. A report leaves by the queue as all mail of ours does,
//! and is signed where that signs.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use cluster::{
    ClusterError, Fence,
    work::{Done, Held, Kind, Worker, zone::Item},
};
use dns::LookupError;
use env::{BoxFuture, Timestamp};
use mail::{ModSeq, StoreError, directory::Address};
use origin::reports::{TlsFailure, TlsPolicy, TlsReport, report_addresses, tls_report_uris};
use prost::Message;

use super::{
    Parts,
    https::{Https, Url},
    schedule::later,
    sts,
    tally::{self, Day, SUCCESS},
};
use crate::{
    date,
    deliver::{self, Report},
    limits,
    services::Services,
};

const DAY_MS: i64 = 86_400_000;

/// How far a round has come.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Progress {
    /// Where the policies' sweep goes on; absent where it is done.
    #[prost(bytes = "vec", optional, tag = "1")]
    swept: Option<Vec<u8>>,
    /// Where the reports go on; absent before the first.
    #[prost(bytes = "vec", optional, tag = "2")]
    reported: Option<Vec<u8>>,
    /// Whether a report could not be sent.
    #[prost(bool, tag = "3")]
    has_failed: bool,
    /// The sweep of this round is done.
    #[prost(bool, tag = "4")]
    is_swept: bool,
}

/// What became of one domain's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// There is nothing left to do.
    Done,
    /// It may work later.
    Later,
}

/// The worker.
pub(crate) struct TlsReporter {
    parts: Parts,
}

impl TlsReporter {
    pub(crate) fn new(services: &Services) -> Self {
        Self { parts: Parts::new(services) }
    }

    /// Goes on with a round for a while. Returns when to go on, and where.
    async fn round(
        &self,
        fence: &Fence,
        mut progress: Progress,
    ) -> Result<(Timestamp, Progress), ClusterError> {
        let Parts { env, db, .. } = &self.parts;
        let end = env.monotonic() + limits::TLS_REPORT_TURN;
        let today = tally::day_of(env.wall());
        while !progress.is_swept {
            let (from, now) = (&progress.swept, env.wall());
            let sweep = |tx| async move { sts::sweep(&tx, from.clone(), now).await };
            progress.swept = db.run(sweep).await?;
            progress.is_swept = progress.swept.is_none();
            if env.monotonic() >= end {
                return Ok((env.wall(), progress));
            }
        }
        loop {
            let from = &progress.reported;
            let next = |tx| async move { tally::next(&tx, today, from.clone()).await };
            let Some((day, domain, behind)) = db.run(next).await? else { break };
            match self.report(fence, day, &domain).await {
                Ok(Sent::Later) => progress.has_failed = true,
                Ok(_) => {}
                // It goes with its day; the domains behind it must not wait for that.
                Err(ClusterError::Store(error @ StoreError::Damaged { .. })) => {
                    tracing::error!(domain, %error, "what was counted of a domain's TLS is not told");
                }
                Err(error) => return Err(error),
            }
            progress.reported = Some(behind);
            if env.monotonic() >= end {
                return Ok((env.wall(), progress));
            }
        }
        let forget = |tx| async move {
            tally::forget_before(&tx, today - limits::TLS_REPORT_DAYS);
            Ok::<_, StoreError>(())
        };
        db.run(forget).await?;
        let next = if progress.has_failed {
            later(env.wall(), limits::TLS_REPORT_PAUSE)
        } else {
            self.next_round(today)
        };
        Ok((next, Progress::default()))
    }

    /// Some time after the day's end.
    fn next_round(&self, today: i64) -> Timestamp {
        let midnight = Timestamp::from_unix_ms((today + 1).saturating_mul(DAY_MS));
        let spread = self.parts.env.random_below(limits::TLS_REPORT_SPREAD_MS);
        later(midnight, limits::TLS_REPORT_DELAY + std::time::Duration::from_millis(spread))
    }

    async fn report(&self, fence: &Fence, day: i64, domain: &str) -> Result<Sent, ClusterError> {
        let Parts { db, resolver, .. } = &self.parts;
        let found = db.run(|tx| async move { tally::day(&tx, day, domain).await }).await?;
        let uris = match resolver.txt(&format!("_smtp._tls.{domain}")).await {
            Ok(answer) => tls_report_uris(&answer.records).unwrap_or_default(),
            Err(LookupError::Temporary(_) | LookupError::Bogus) => return Ok(Sent::Later),
            Err(_) => Vec::new(),
        };
        let report = report(&self.parts.hostname, day, domain, &found);
        let packed = Bytes::from(report.to_gzip());
        let mut sent = Sent::Done;
        for url in uris.iter().filter_map(|uri| Url::parse(uri)) {
            if let Err(error) = self.hand_in(&url, packed.clone()).await {
                tracing::info!(domain, %error, "a TLS report is not taken");
                sent = Sent::Later;
            }
        }
        let addresses: Vec<_> = report_addresses(&uris)
            .into_iter()
            .filter(|to| to.bytes_max.is_none_or(|most| packed.len() as u64 <= most))
            .collect();
        if sent == Sent::Later && addresses.is_empty() {
            return Ok(Sent::Later);
        }
        let mut mails = Vec::new();
        for to in addresses.iter().filter_map(|to| Address::parse(&to.address).ok()) {
            match self.write(&report, &packed, domain, to).await {
                Ok(mail) => mails.push(mail),
                Err(error) => {
                    tracing::warn!(domain, %error, "a TLS report cannot be written");
                    return Ok(Sent::Later);
                }
            }
        }
        self.send(fence, day, domain, &mails).await?;
        tracing::info!(domain, day, mails = mails.len(), "a TLS report is on its way");
        Ok(Sent::Done)
    }

    async fn hand_in(&self, url: &Url, packed: Bytes) -> Result<(), super::https::HttpsError> {
        let Parts { env, resolver, security, config, .. } = &self.parts;
        let https = Https { env, resolver, security, port: config.https_port };
        https.hand_in(url, "application/tlsrpt+gzip", packed).await
    }

    async fn write(
        &self,
        report: &TlsReport,
        packed: &[u8],
        domain: &str,
        to: Address,
    ) -> Result<Report, deliver::DeliverError> {
        let Parts { env, blobs, signing, hostname, .. } = &self.parts;
        let unique = u128::from_le_bytes(env.random_array());
        let mail = mail(report, packed, domain, hostname, &to, env.wall(), unique);
        let mail = deliver::write_generated(env, blobs, signing, hostname, to, &mail).await?;
        // RFC 8460 §3: a report is delivered despite all that it tells of.
        Ok(mail.despite_tls())
    }

    /// Enqueues the mails and forgets what they say.
    async fn send(
        &self,
        fence: &Fence,
        day: i64,
        domain: &str,
        mails: &[Report],
    ) -> Result<(), ClusterError> {
        let Parts { env, db, announcer, .. } = &self.parts;
        let now = env.wall();
        let commit = |tx| async move {
            fence.check(&tx).await?;
            let mut changed = BTreeMap::new();
            for mail in mails {
                changed.extend(deliver::send_report(&tx, mail, now).await?);
            }
            tally::forget(&tx, day, domain);
            Ok::<_, ClusterError>(changed)
        };
        let committed = db.run_versioned(commit).await?;
        if let Some(version) = committed.versionstamp.map(|stamp| ModSeq(stamp.version())) {
            for (account, interested) in committed.value {
                announcer.changed(account, version, &interested);
            }
        }
        Ok(())
    }
}

impl Worker for TlsReporter {
    fn kind(&self) -> Kind {
        Kind::TlsReports
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let progress =
                Progress::decode(&item.payload[..]).map_err(|error| error.to_string())?;
            let round = self.round(&held.fence, progress).await;
            let (due, progress) = round.map_err(|error| error.to_string())?;
            Ok(Done::Again { due, payload: progress.encode_to_vec() })
        })
    }
}

/// One domain's day as a report.
fn report(hostname: &str, day: i64, domain: &str, found: &Day) -> TlsReport {
    let begin = Timestamp::from_unix_ms(day.saturating_mul(DAY_MS));
    let end = Timestamp::from_unix_ms((day + 1).saturating_mul(DAY_MS) - 1_000);
    let (contact, id) = (format!("postmaster@{hostname}"), format!("{day}.{domain}"));
    let mut report = TlsReport::new(hostname, &contact, &id, begin, end);
    let mut policies: BTreeMap<_, TlsPolicy> = BTreeMap::new();
    for ((policy, result, host), count) in &found.counts {
        let shown = found.policies.get(policy).cloned().unwrap_or_default();
        let entry = policies.entry(*policy).or_insert_with(|| TlsPolicy {
            policy_type: policy.as_str().to_owned(),
            policy_strings: shown.strings,
            domain: domain.to_owned(),
            mx_hosts: shown.hosts,
            ..TlsPolicy::default()
        });
        if result == SUCCESS {
            entry.successful += count;
        } else {
            entry.failed += count;
            entry.failures.push(TlsFailure {
                result_type: result.clone(),
                receiving_mx_hostname: (!host.is_empty()).then(|| host.clone()),
                failed_session_count: *count,
                ..TlsFailure::default()
            });
        }
    }
    report.policies = policies.into_values().collect();
    report
}

/// The report as a message (RFC 8460 §5.3), with what a mailbox's copy begins with.
fn mail(
    report: &TlsReport,
    packed: &[u8],
    domain: &str,
    hostname: &str,
    to: &Address,
    now: Timestamp,
    unique: u128,
) -> Vec<u8> {
    let boundary = format!("report-{unique:032x}");
    let (date, id) = (date::rfc5322(now), &report.report_id);
    let file = report.file_name(hostname, domain);
    let encoded = BASE64_STANDARD.encode(packed);
    let lines: Vec<&str> =
        (0..encoded.len()).step_by(76).map(|at| &encoded[at..encoded.len().min(at + 76)]).collect();
    // RFC 8460 §3, RFC 8689 §3: what tells that TLS fails has to arrive where it fails.
    format!(
        "{return_path}From: Mail Delivery System <postmaster@{hostname}>\r\n\
         To: <{to}>\r\n\
         Subject: Report Domain: {domain}\r\n Submitter: {hostname}\r\n Report-ID: <{id}@{hostname}>\r\n\
         Date: {date}\r\n\
         Message-ID: <{unique:032x}@{hostname}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         TLS-Required: No\r\n\
         TLS-Report-Domain: {domain}\r\n\
         TLS-Report-Submitter: {hostname}\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n\
         \tboundary=\"{boundary}\"\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\
         \r\n\
         This is an aggregate report of how TLS to the mail servers of\r\n\
         {domain} went, as seen by {hostname}.\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: application/tlsrpt+gzip\r\n\
         Content-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment;\r\n\
         \tfilename=\"{file}\"\r\n\
         \r\n\
         {lines}\r\n\
         --{boundary}--\r\n",
        return_path = deliver::RETURN_PATH,
        lines = lines.join("\r\n"),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests;
