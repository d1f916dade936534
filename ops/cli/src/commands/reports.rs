//! `rookery reports …`

use node::admin::reports::{self, ReportDetail, ReportInfo};

use super::{all_pages, remote_page, with_backend};
use crate::{
    args::{Group, ReportsCommand},
    backend::Backend,
    error::CliError,
    output::{Output, Row},
};

impl Row for ReportInfo {
    const HEADER: &'static [&'static str] =
        &["ID", "KIND", "FROM", "DOMAIN", "DAYS", "MESSAGES", "FAILED"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.kind.clone(),
            self.from.clone(),
            self.domain.clone(),
            days(self),
            self.messages.to_string(),
            self.failed.to_string(),
        ]
    }
}

/// From when to when, as people write days.
fn days(report: &ReportInfo) -> String {
    let day = |ms: i64| {
        let date = node::date::rfc5322(env::Timestamp::from_unix_ms(ms));
        // `Mon, 1 Jan 2024 …`
        date.split_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" ")
    };
    match (report.begin_ms, report.end_ms) {
        (0, 0) => "-".to_owned(),
        (begin, end) if day(begin) == day(end) => day(begin),
        (begin, end) => format!("{} to {}", day(begin), day(end)),
    }
}

pub(crate) fn run(group: Group<ReportsCommand>) -> Result<(), CliError> {
    with_backend(&group.target, |backend, output| match &group.command {
        ReportsCommand::List => all_pages::<ReportInfo>(output, |query| match backend {
            Backend::Direct(direct) => direct.run(reports::list(&direct.admin, query)),
            Backend::Remote(remote) => remote_page(remote, "reports", query),
        }),
        ReportsCommand::Show { id } => show(backend, output, id),
    })
}

fn show(backend: &Backend, output: &Output, id: &str) -> Result<(), CliError> {
    let report: ReportDetail = match backend {
        Backend::Direct(direct) => direct.run(reports::show(&direct.admin, id))?,
        Backend::Remote(remote) => remote.get(&["reports", id], &[])?,
    };
    let details = serde_json::to_string_pretty(&report.details);
    let fields = [
        ("id", report.info.id.clone()),
        ("kind", report.info.kind.clone()),
        ("from", report.info.from.clone()),
        ("vouched by", report.info.vouched_by.clone()),
        ("their id", report.their_id.clone()),
        ("domain", report.info.domain.clone()),
        ("days", days(&report.info)),
        ("messages", report.info.messages.to_string()),
        ("failed", report.info.failed.to_string()),
        ("rows left out", report.left_out.to_string()),
    ];
    output.fields(&fields, &report)?;
    output.remark(format_args!("{}", details.expect("it was read as JSON")))
}
