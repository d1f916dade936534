//! Failure reports: what `message/feedback-report` says (RFC 5965 §3, RFC 6591 §3, RFC 9991).

use std::net::IpAddr;

use message::Fields;

use crate::{limits::REPORT_TEXT_BYTES_MAX, reports::ReportError};

/// Values of one field that may come several times; more are left out.
const VALUES_MAX: usize = 100;

/// What became of one message, or of several that are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureReport {
    /// `abuse`, `fraud`, `auth-failure`, …, in lower case.
    pub feedback_type: String,
    /// The program that made it.
    pub user_agent: String,
    /// The envelope's sender.
    pub mail_from: Option<String>,
    /// The envelope's recipients.
    pub recipients: Vec<String>,
    /// When it came, as it is written.
    pub arrival_date: Option<String>,
    /// Where it came from.
    pub source: Option<IpAddr>,
    /// The domains that are thought responsible.
    pub reported_domains: Vec<String>,
    /// Who reports.
    pub reporting_host: Option<String>,
    /// How many messages it is about.
    pub incidents: u64,
    /// What failed: `dkim`, `spf`, `dmarc`, …
    pub auth_failure: Option<String>,
    /// What was done with it: `delivered`, `spam`, `policy`, `reject`, …
    pub delivery_result: Option<String>,
    /// `d=` of the signature.
    pub dkim_domain: Option<String>,
    /// `s=` of the signature.
    pub dkim_selector: Option<String>,
    /// What was aligned: `none`, `dkim`, `spf` or both.
    pub identity_alignment: Option<String>,
    /// What was found.
    pub authentication_results: Vec<String>,
}

impl FailureReport {
    /// Reads the report's part.
    ///
    /// # Errors
    /// [`ReportError::Malformed`] where it does not say of what type it is.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let mut report = Self { incidents: 1, ..Self::default() };
        for field in Fields::new(bytes) {
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            let mut value = message::unfold(field.value);
            truncate(&mut value);
            report.take(&name, value);
        }
        if report.feedback_type.is_empty() { Err(ReportError::Malformed) } else { Ok(report) }
    }

    fn take(&mut self, name: &str, value: String) {
        let several = |list: &mut Vec<String>, value| {
            if list.len() < VALUES_MAX {
                list.push(value);
            }
        };
        match name {
            "feedback-type" => self.feedback_type = value.to_ascii_lowercase(),
            "user-agent" => self.user_agent = value,
            "original-mail-from" => self.mail_from = Some(value),
            "original-rcpt-to" => several(&mut self.recipients, value),
            "arrival-date" | "received-date" => self.arrival_date = Some(value),
            "source-ip" => self.source = value.parse().ok(),
            "reported-domain" => several(&mut self.reported_domains, value.to_ascii_lowercase()),
            "reporting-mta" => self.reporting_host = Some(value),
            "incidents" => self.incidents = value.parse().unwrap_or(1),
            "auth-failure" => self.auth_failure = Some(value),
            "delivery-result" => self.delivery_result = Some(value),
            "dkim-domain" => self.dkim_domain = Some(value),
            "dkim-selector" => self.dkim_selector = Some(value),
            "identity-alignment" => self.identity_alignment = Some(value),
            "authentication-results" => several(&mut self.authentication_results, value),
            _ => {}
        }
    }
}

/// Cuts a text to what is kept of one.
pub(super) fn truncate(text: &mut String) {
    let mut end = text.len().min(REPORT_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let text =
            b"Feedback-Type: auth-failure\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n\
            Original-Mail-From: <a@b.example>\r\nOriginal-Rcpt-To: <c@d.example>\r\n\
            Source-IP: 192.0.2.1\r\nReported-Domain: Example.ORG\r\nAuth-Failure: dmarc\r\n\
            Authentication-Results: mx.d.example;\r\n dmarc=fail\r\nIncidents: 7\r\n\
            Delivery-Result: reject\r\nIdentity-Alignment: none\r\n";
        let report = FailureReport::parse(text).unwrap();
        assert_eq!(report.feedback_type, "auth-failure");
        assert_eq!(report.source, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(
            (report.incidents, report.reported_domains.as_slice()),
            (7, &["example.org".to_owned()][..])
        );
        assert_eq!(report.authentication_results, ["mx.d.example; dmarc=fail"]);
        assert_eq!(FailureReport::parse(b"Version: 1\r\n"), Err(ReportError::Malformed));
    }

    #[test]
    fn floods_are_bounded() {
        let long = format!("Feedback-Type: abuse\r\n{}", "Reported-Domain: é\r\n".repeat(10_000));
        assert_eq!(
            FailureReport::parse(long.as_bytes()).unwrap().reported_domains.len(),
            VALUES_MAX
        );
        let wide = format!("Feedback-Type: abuse\r\nUser-Agent: {}\r\n", "é".repeat(10_000));
        let agent = FailureReport::parse(wide.as_bytes()).unwrap().user_agent;
        assert!(agent.len() <= REPORT_TEXT_BYTES_MAX);
    }
}
