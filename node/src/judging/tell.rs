//! Tells domains, once a day, what came in their name (RFC 9990): one report a domain for the whole
//! cluster.
//!
//! One zone of [`Kind::DmarcReports`] has one item, which comes once a day and walks over the days that are
//! over. What is told of a domain is cleared in the transaction that puts the report into the queue, and
//! only as it was read: so nothing is told twice, by whichever node, and what is not told stays for the next
//! day, up to [`limits::DMARC_SEEN_DAYS`]. Of [`limits::DMARC_DOMAINS_AT_ONCE`] domains at once it is asked who
//! wants to be told, because strangers' servers answer as slowly as they like; reports are written and sent
//! one by one, so that memory holds one. What is too old goes at the begin of each turn, however long
//! the walk takes.
//!
//! A report goes to the addresses that the record names, as far as they want reports about that domain
//! (RFC 9990 §4) and take its size (RFC 7489 §6.2). Its sender wants no word of its failure.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use cluster::work::{Done, Held, Kind, Worker, zone::Item};
use env::{BoxFuture, Timestamp};
use futures_util::future::join_all;
use mail::{StoreError, directory::Address};
use origin::{
    ReportsWanted,
    reports::{AggregateReport, ReportAddress, ReportMetadata, report_addresses},
};
use prost::Message;

use super::{
    authserv_id, judge, received,
    seen::{self, Forgotten, OfDomain, PublishedRecord},
};
use crate::{
    date,
    deliver::{self, Report},
    limits,
    metrics::ReportOutcome,
    services::Services,
    settings::judging::Switch,
    upkeep,
};

const DAY_SECONDS: i64 = 86_400;

/// Characters of a line of base64 (RFC 2045 §6.8).
const LINE_CHARS: usize = 76;

/// How far the walk has come.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Walked {
    /// The last domain that was looked at; absent before the first.
    #[prost(string, optional, tag = "1")]
    domain: Option<String>,
    /// Its day.
    #[prost(int64, tag = "2")]
    day: i64,
}

/// Who tells.
pub(crate) struct Teller {
    services: Services,
    db: kv::Database,
}

impl Teller {
    pub(crate) fn new(services: &Services) -> Self {
        Self { services: services.clone(), db: upkeep::background(services) }
    }

    /// Tells some domains. Returns when to go on, and where.
    pub(crate) async fn walk(
        &self,
        mut walked: Walked,
        now: Timestamp,
    ) -> Result<(Timestamp, Walked), StoreError> {
        let env = &self.services.env;
        let end = env.monotonic() + limits::DMARC_REPORTS_TURN;
        let last_day = seen::day_of(before(now, limits::DMARC_REPORT_DELAY)) - 1;
        self.forget_old(now).await?;
        loop {
            let after = walked.domain.take().map(|domain| (walked.day, domain));
            let (after, most) = (&after, limits::DMARC_DOMAINS_AT_ONCE);
            let next =
                |tx| async move { seen::next_domains(&tx, after.clone(), last_day, most).await };
            let domains = self.db.run(next).await?;
            let Some((day, last)) = domains.last().cloned() else {
                return Ok((self.next_time(now), Walked::default()));
            };
            let asking = domains.iter().map(|(day, domain)| self.ask(*day, domain));
            let asked = join_all(asking).await;
            for ((day, domain), asked) in domains.iter().zip(asked) {
                let told = match asked {
                    Ok(wants) => self.tell(*day, domain, wants, now).await,
                    Err(error) => Err(error),
                };
                // One domain's trouble is not the others'.
                if let Err(error) = told {
                    tracing::warn!(%domain, %error, "a domain is not told what came in its name");
                    self.services.metrics.dmarc_report(ReportOutcome::Failed);
                }
            }
            walked = Walked { domain: Some(last), day };
            if env.monotonic() >= end {
                return Ok((now, walked));
            }
        }
    }

    /// What nobody could be told goes, and what others told long ago.
    async fn forget_old(&self, now: Timestamp) -> Result<(), StoreError> {
        let day = seen::day_of(now) - limits::DMARC_SEEN_DAYS;
        let forget = |tx| async move {
            seen::forget_before(&tx, day);
            received::forget_before(&tx, seen::day_of(now) - limits::RECEIVED_REPORT_DAYS);
            Ok::<_, StoreError>(())
        };
        self.db.run(forget).await
    }

    /// Tomorrow, some time after the day is over.
    fn next_time(&self, now: Timestamp) -> Timestamp {
        let spread = self.services.env.random_below(limits::DMARC_REPORT_SPREAD.as_secs());
        let delay = limits::DMARC_REPORT_DELAY.as_secs() + spread;
        let midnight = (seen::day_of(now) + 1) * DAY_SECONDS;
        Timestamp::from_unix_seconds(midnight + i64::try_from(delay).unwrap_or(DAY_SECONDS))
    }

    /// Who is to be told; as [`Teller::who_wants`].
    async fn ask(&self, day: i64, domain: &str) -> Result<Vec<(ReportAddress, bool)>, String> {
        let read = |tx| async move { seen::published(&tx, day, domain).await };
        let published = self.db.run(read).await.map_err(|error: StoreError| error.to_string())?;
        match published {
            Some(published) => Ok(self.who_wants(domain, &published).await),
            None => Ok(Vec::new()),
        }
    }

    async fn tell(
        &self,
        day: i64,
        domain: &str,
        wants: Vec<(ReportAddress, bool)>,
        now: Timestamp,
    ) -> Result<(), String> {
        if wants.is_empty() {
            return Ok(());
        }
        let read = |tx| async move { seen::read(&tx, day, domain).await };
        let found = self.db.run(read).await.map_err(|error: StoreError| error.to_string())?;
        let Some(found) = found else { return Ok(()) };
        let to: Vec<ReportAddress> =
            wants.into_iter().filter_map(|(to, wants)| wants.then_some(to)).collect();
        let (mut reports, mut outcome) = (Vec::new(), ReportOutcome::Unwanted);
        if !to.is_empty() {
            let written = self.write(day, domain, &found, &to, now).await?;
            outcome =
                if written.is_empty() { ReportOutcome::TooLarge } else { ReportOutcome::Sent };
            reports = written;
        }
        if self.send(day, domain, &found, &reports).await? == Forgotten::Done {
            self.services.metrics.dmarc_report(outcome);
            tracing::info!(
                domain,
                day,
                addresses = reports.len(),
                outcome = outcome.as_str(),
                "DMARC report"
            );
        }
        Ok(())
    }

    /// Who is named, and whether they want it. Empty where that cannot be found out now, and nothing
    /// is to be done.
    async fn who_wants(
        &self,
        domain: &str,
        published: &PublishedRecord,
    ) -> Vec<(ReportAddress, bool)> {
        let named = report_addresses(&published.report_to);
        if self.services.settings.borrow().judging.send_reports == Switch::Off {
            return named.into_iter().map(|address| (address, false)).collect();
        }
        let judge = &judge(&self.services);
        let asking = named.into_iter().map(|address| async move {
            let wants = judge.accepts_reports(domain, address.domain()).await;
            (address, wants)
        });
        let answers = join_all(asking).await;
        let anybody = answers.iter().any(|(_, wants)| *wants == ReportsWanted::Yes);
        if !anybody && answers.iter().any(|(_, wants)| *wants == ReportsWanted::Unknown) {
            return Vec::new();
        }
        answers.into_iter().map(|(to, wants)| (to, wants == ReportsWanted::Yes)).collect()
    }

    /// A message for each address that takes its size.
    async fn write(
        &self,
        day: i64,
        domain: &str,
        found: &OfDomain,
        to: &[ReportAddress],
        now: Timestamp,
    ) -> Result<Vec<Report>, String> {
        let services = &self.services;
        let settings = services.settings.borrow().judging.clone();
        let hostname = &services.config.hostname;
        let from = match settings.reports_from.as_str() {
            "" => format!("postmaster@{hostname}"),
            set => set.to_owned(),
        };
        let from = Address::parse(&from).map_err(|error| error.to_string())?;
        let organization = match settings.reports_organization.as_str() {
            "" => authserv_id(services),
            set => set.to_owned(),
        };
        let metadata = ReportMetadata {
            organization,
            email: from.to_string(),
            id: report_id(day, domain),
            begin: Timestamp::from_unix_seconds(day * DAY_SECONDS),
            end: Timestamp::from_unix_seconds((day + 1) * DAY_SECONDS - 1),
            errors: match found.left_out {
                0 => Vec::new(),
                more => vec![format!("{more} more messages that went otherwise are left out")],
            },
            ..ReportMetadata::default()
        };
        let mut report = AggregateReport::new(metadata, found.published.policy(domain));
        report.rows.clone_from(&found.rows);
        let packed = report.to_gzip();
        let mut written = Vec::new();
        for address in to {
            let fits = address.bytes_max.is_none_or(|most| packed.len() as u64 <= most);
            let Ok(recipient) = Address::parse(&address.address) else { continue };
            if !fits || packed.len() > limits::DMARC_REPORT_BYTES_MAX {
                continue;
            }
            let unique = u128::from_le_bytes(services.env.random_array());
            let text = compose(&report, &packed, &from, &recipient, hostname, (now, unique));
            let written_one = deliver::write_message(
                &services.env,
                &services.blobs,
                &services.signing,
                &from,
                recipient,
                text.as_bytes(),
            );
            written.push(written_one.await.map_err(|error| error.to_string())?);
        }
        Ok(written)
    }

    /// Sends reports and forgets what they tell, or neither.
    async fn send(
        &self,
        day: i64,
        domain: &str,
        found: &OfDomain,
        reports: &[Report],
    ) -> Result<Forgotten, String> {
        let now = self.services.env.wall();
        let sending = self.db.run_versioned(|tx| async move {
            let mut changed = BTreeMap::new();
            let forgotten = seen::forget(&tx, day, domain, found).await?;
            if forgotten == Forgotten::Done {
                for report in reports {
                    changed.extend(deliver::send_report(&tx, report, now).await?);
                }
            }
            Ok::<_, StoreError>((forgotten, changed))
        });
        let committed = sending.await.map_err(|error| error.to_string())?;
        let (forgotten, changed) = committed.value;
        if let Some(stamp) = committed.versionstamp {
            for (account, interested) in changed {
                let version = mail::ModSeq(stamp.version());
                self.services.announcer.changed(account, version, &interested);
            }
        }
        Ok(forgotten)
    }
}

impl Worker for Teller {
    fn kind(&self) -> Kind {
        Kind::DmarcReports
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, _held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let walked = Walked::decode(&item.payload[..]).map_err(|error| error.to_string())?;
            let walk = self.walk(walked, self.services.env.wall()).await;
            let (due, walked) = walk.map_err(|error| error.to_string())?;
            Ok(Done::Again { due, payload: walked.encode_to_vec() })
        })
    }
}

fn before(now: Timestamp, time: std::time::Duration) -> Timestamp {
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(now.unix_ms().saturating_sub(time))
}

/// Tells a day's report on a domain from all others of ours.
fn report_id(day: i64, domain: &str) -> String {
    let hash = blake3::hash(domain.as_bytes());
    let hash = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes"));
    format!("{day}-{hash:016x}")
}

/// The report's message (RFC 9990 §3.5.2), below the `Return-Path` that a mailbox of ours sees.
fn compose(
    report: &AggregateReport,
    packed: &[u8],
    from: &Address,
    to: &Address,
    hostname: &str,
    (now, unique): (Timestamp, u128),
) -> String {
    let domain = &report.policy.domain;
    let (file, id) = (report.file_name(hostname), &report.metadata.id);
    let boundary = format!("report-{unique:032x}");
    let encoded = STANDARD.encode(packed);
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / LINE_CHARS * 2 + 2);
    for line in encoded.as_bytes().chunks(LINE_CHARS) {
        lines.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        lines.push_str("\r\n");
    }
    let date = date::rfc5322(now);
    format!(
        "From: <{from}>\r\n\
         To: <{to}>\r\n\
         Subject: Report Domain: {domain}\r\n\
         \x20Submitter: {hostname}\r\n\
         \x20Report-ID: <{id}>\r\n\
         Date: {date}\r\n\
         Message-ID: <{unique:032x}@{hostname}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\
         \r\n\
         This is a DMARC aggregate report on mail from {domain}.\r\n\
         --{boundary}\r\n\
         Content-Type: application/gzip; name=\"{file}\"\r\n\
         Content-Disposition: attachment; filename=\"{file}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\
         \r\n\
         {lines}\
         --{boundary}--\r\n"
    )
}
