//! What came out: for people as a few lines, for programs as one JSON object.

use std::{
    io::{self, Write},
    sync::atomic::Ordering,
    time::Duration,
};

use serde::Serialize;

use crate::{
    BenchError,
    args::CommonArgs,
    failure::Counted,
    histogram::Histogram,
    load::{Run, Span},
};

/// For whom the report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Person,
    Program,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    /// `smtp`, `lmtp`, `imap`.
    pub(crate) protocol: &'static str,
    /// `deliver`, or one of IMAP's.
    pub(crate) workload: &'static str,
    /// What [`Report::items`] counts.
    pub(crate) item: &'static str,
}

/// A run's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) protocol: &'static str,
    pub(crate) workload: &'static str,
    /// The server, HOST:PORT.
    pub(crate) target: String,
    pub(crate) connections: Connections,
    /// Milliseconds since 1970, when what is measured began.
    pub(crate) started_unix_ms: i64,
    /// To the end of the last measured operation.
    pub(crate) elapsed_seconds: f64,
    /// That succeeded.
    pub(crate) operations: u64,
    pub(crate) operations_per_second: f64,
    /// What `items` counts: `deliveries`, `messages`.
    pub(crate) item: &'static str,
    pub(crate) items: u64,
    pub(crate) items_per_second: f64,
    /// Of messages sent or of answers received.
    pub(crate) bytes: u64,
    pub(crate) bytes_per_second: f64,
    /// Of operations that succeeded; `None` where none did.
    pub(crate) latency_ms: Option<Latency>,
    /// By kind, those while opening and warming up included.
    pub(crate) errors: Vec<Counted>,
}

/// Connections of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Connections {
    pub(crate) asked: u32,
    /// Before the load began.
    pub(crate) opened: u64,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Latency {
    fn new(histogram: &Histogram) -> Option<Self> {
        let quantile = |per_mille| histogram.quantile(per_mille).map(ms);
        Some(Self {
            min: ms(histogram.min()?),
            mean: ms(histogram.mean()?),
            p50: quantile(500)?,
            p90: quantile(900)?,
            p95: quantile(950)?,
            p99: quantile(990)?,
            p999: quantile(999)?,
            max: ms(histogram.max()?),
        })
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Report {
    pub(crate) fn new(subject: Subject, common: &CommonArgs, run: &Run, span: Span) -> Self {
        let Subject { protocol, workload, item } = subject;
        let elapsed_seconds = span.elapsed.as_secs_f64();
        let [operations, items, bytes] =
            [&run.succeeded, &run.items, &run.bytes].map(|counter| counter.load(Ordering::Relaxed));
        let per_second = |count: u64| {
            if elapsed_seconds > 0.0 { count as f64 / elapsed_seconds } else { 0.0 }
        };
        Self {
            protocol,
            workload,
            target: format!("{}:{}", common.host, common.port),
            connections: Connections {
                asked: common.connections,
                opened: run.opened.load(Ordering::Relaxed),
            },
            started_unix_ms: span.started_unix_ms,
            elapsed_seconds,
            operations,
            operations_per_second: per_second(operations),
            item,
            items,
            items_per_second: per_second(items),
            bytes,
            bytes_per_second: per_second(bytes),
            latency_ms: Latency::new(&run.latency),
            errors: run.failures.counted(),
        }
    }

    /// Prints it on standard output.
    ///
    /// # Errors
    /// Where nobody reads.
    pub(crate) fn print(&self, reader: Reader) -> io::Result<()> {
        let text = match reader {
            Reader::Person => self.text(),
            Reader::Program => {
                serde_json::to_string(self).expect("reports have string keys only") + "\n"
            }
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Whether the run is a result.
    ///
    /// # Errors
    /// Where nothing succeeded, or more errors came than are allowed.
    pub(crate) fn verdict(&self, errors_max: u64) -> Result<(), BenchError> {
        let errors = self.errors.iter().map(|counted| counted.count).sum();
        if self.operations == 0 {
            Err(BenchError::NothingSucceeded)
        } else if errors > errors_max {
            Err(BenchError::TooManyErrors { errors, allowed: errors_max })
        } else {
            Ok(())
        }
    }

    fn text(&self) -> String {
        let Connections { asked, opened } = self.connections;
        let mut text = format!(
            "{} {} at {}: {opened} of {asked} connections\n\
             operations  {} in {:.2} s: {:.1}/s\n",
            self.protocol,
            self.workload,
            self.target,
            self.operations,
            self.elapsed_seconds,
            self.operations_per_second,
        );
        if self.items > 0 {
            let (items, rate) = (self.items, self.items_per_second);
            text += &format!("{:<10}  {items}: {rate:.1}/s\n", self.item);
        }
        let megabytes = self.bytes_per_second / 1e6;
        text += &format!("bytes       {}: {megabytes:.2} MB/s\n", self.bytes);
        if let Some(latency) = &self.latency_ms {
            let Latency { min, mean, p50, p90, p95, p99, p999, max } = latency;
            text += &format!(
                "latency ms  min {min:.3}  mean {mean:.3}  p50 {p50:.3}  p90 {p90:.3}  \
                 p95 {p95:.3}  p99 {p99:.3}  p99.9 {p999:.3}  max {max:.3}\n"
            );
        }
        if self.errors.is_empty() {
            text += "errors      none\n";
        }
        for Counted { kind, count, first } in &self.errors {
            text += &format!("errors      {count} {kind}, the first: {first}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let latency = Latency {
            min: 0.5,
            mean: 1.0,
            p50: 1.0,
            p90: 2.0,
            p95: 2.5,
            p99: 3.0,
            p999: 4.0,
            max: 5.0,
        };
        Report {
            protocol: "lmtp",
            workload: "deliver",
            target: "127.0.0.1:24".to_owned(),
            connections: Connections { asked: 2, opened: 2 },
            started_unix_ms: 1_700_000_000_000,
            elapsed_seconds: 2.0,
            operations: 10,
            operations_per_second: 5.0,
            item: "deliveries",
            items: 20,
            items_per_second: 10.0,
            bytes: 1000,
            bytes_per_second: 500.0,
            latency_ms: Some(latency),
            errors: vec![Counted { kind: "5xx", count: 3, first: "550 no".to_owned() }],
        }
    }

    #[test]
    fn programs_find_every_figure() {
        assert_eq!(
            serde_json::to_value(report()).unwrap(),
            serde_json::json!({
                "protocol": "lmtp",
                "workload": "deliver",
                "target": "127.0.0.1:24",
                "connections": {"asked": 2, "opened": 2},
                "started_unix_ms": 1_700_000_000_000_u64,
                "elapsed_seconds": 2.0,
                "operations": 10,
                "operations_per_second": 5.0,
                "item": "deliveries",
                "items": 20,
                "items_per_second": 10.0,
                "bytes": 1000,
                "bytes_per_second": 500.0,
                "latency_ms": {
                    "min": 0.5, "mean": 1.0, "p50": 1.0, "p90": 2.0, "p95": 2.5, "p99": 3.0,
                    "p999": 4.0, "max": 5.0,
                },
                "errors": [{"kind": "5xx", "count": 3, "first": "550 no"}],
            })
        );
        let none = Report { latency_ms: None, ..report() };
        assert!(serde_json::to_value(none).unwrap()["latency_ms"].is_null());
    }

    #[test]
    fn people_find_every_figure() {
        let text = report().text();
        for part in [
            "lmtp deliver at 127.0.0.1:24: 2 of 2 connections\n",
            "operations  10 in 2.00 s: 5.0/s\n",
            "deliveries  20: 10.0/s\n",
            "p99 3.000  p99.9 4.000  max 5.000\n",
            "errors      3 5xx, the first: 550 no\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn errors_and_emptiness_are_no_result() {
        let check = |report: Report, max| report.verdict(max).map_err(|error| error.to_string());
        assert_eq!(check(report(), 3), Ok(()));
        assert_eq!(check(report(), 2), Err("3 errors, and --errors-max allows 2".to_owned()));
        let nothing = Report { operations: 0, ..report() };
        assert!(check(nothing, 3).unwrap_err().starts_with("nothing succeeded"));
    }
}
