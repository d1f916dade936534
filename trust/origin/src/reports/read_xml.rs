//! Reading aggregate reports. It goes by the names of elements alone: reports in use are of several
//! namespaces, orders and drafts.
//!
//! Invariant: whatever is read, less than [`REPORT_KEPT_BYTES_MAX`] is kept of rows, and beside them a row
//! and a token are in memory.

use std::{
    io::{self, BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr},
};

use env::Timestamp;
use quick_xml::{Reader, escape::resolve_xml_entity, events::Event};

use crate::{
    Alignment, Policy,
    limits::{
        REPORT_DEPTH_MAX, REPORT_KEPT_BYTES_MAX, REPORT_ROWS_MAX, REPORT_TEXT_BYTES_MAX,
        REPORT_TOKEN_BYTES_MAX,
    },
    reports::{
        AggregateReport, DkimAuth, Evaluated, PolicyReason, PublishedPolicy, ReportError,
        ReportMetadata, Row, SpfAuth, failure::truncate,
    },
};

/// Reasons, signatures and errors of one place that are kept; more are left out.
const LIST_MAX: usize = 50;

/// Rows that are kept where there is nothing else in them.
const ROWS_KEPT_MAX: usize = REPORT_KEPT_BYTES_MAX / size_of::<Row>();

pub(super) fn read(bytes: impl Read) -> Result<AggregateReport, ReportError> {
    let inner = BufReader::new(bytes);
    let mut reader = Reader::from_reader(Tokens { inner, left: REPORT_TOKEN_BYTES_MAX });
    let mut reading = Reading::default();
    let mut token = Vec::new();
    loop {
        token.clear();
        reader.get_mut().left = REPORT_TOKEN_BYTES_MAX;
        match reader.read_event_into(&mut token).map_err(|_| ReportError::Malformed)? {
            Event::Start(element) => reading.open(element.local_name().as_ref())?,
            Event::Empty(element) => {
                reading.open(element.local_name().as_ref())?;
                reading.close();
            }
            Event::End(_) => reading.close(),
            Event::Text(text) => reading.text(&String::from_utf8_lossy(&text)),
            Event::CData(text) => reading.text(&String::from_utf8_lossy(&text)),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|_| ReportError::Malformed)?;
                match (reference.resolve_char_ref(), resolve_xml_entity(&name)) {
                    (Ok(Some(character)), _) => reading.text(character.encode_utf8(&mut [0; 4])),
                    (_, Some(text)) => reading.text(text),
                    // Entities of its own are how a small document becomes a large one.
                    _ => return Err(ReportError::Malformed),
                }
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    reading.finish()
}

/// Fails in the middle of a token that is too long.
struct Tokens<R> {
    inner: BufReader<R>,
    /// Bytes that the token may still have.
    left: usize,
}

impl<R: Read> Read for Tokens<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for Tokens<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let bytes = self.inner.fill_buf()?;
        Ok(&bytes[..bytes.len().min(self.left)])
    }

    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount);
        self.inner.consume(amount);
    }
}

#[derive(Default)]
struct Reading {
    /// Names of the elements that are open, joined by slashes.
    path: String,
    depth: usize,
    text: String,
    seen: Seen,
    metadata: ReportMetadata,
    policy: PublishedPolicy,
    rows: Vec<Row>,
    /// Bytes that the rows take.
    kept: usize,
    left_out: u64,
    row: PartialRow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Seen {
    #[default]
    Nothing,
    Metadata,
}

/// A row of which not all has been read.
struct PartialRow {
    source: Option<IpAddr>,
    row: Row,
}

impl Default for PartialRow {
    fn default() -> Self {
        let row = Row {
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            count: 0,
            disposition: Policy::None,
            dkim: Evaluated::Fail,
            spf: Evaluated::Fail,
            reasons: Vec::new(),
            header_from: String::new(),
            envelope_from: None,
            envelope_to: None,
            auth_dkim: Vec::new(),
            auth_spf: Vec::new(),
        };
        Self { source: None, row }
    }
}

impl Reading {
    fn open(&mut self, name: &[u8]) -> Result<(), ReportError> {
        self.depth += 1;
        if self.depth > REPORT_DEPTH_MAX || name.len() > REPORT_TEXT_BYTES_MAX {
            return Err(ReportError::Malformed);
        }
        self.path.push('/');
        self.path.push_str(&String::from_utf8_lossy(name));
        self.text.clear();
        let row = &mut self.row.row;
        match self.path.as_str() {
            "/feedback/record" => self.row = PartialRow::default(),
            "/feedback/record/row/policy_evaluated/reason" => push(&mut row.reasons),
            "/feedback/record/auth_results/dkim" => push(&mut row.auth_dkim),
            "/feedback/record/auth_results/spf" => push(&mut row.auth_spf),
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        let mut end = text.len().min(REPORT_TEXT_BYTES_MAX.saturating_sub(self.text.len()));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(&text[..end]);
    }

    fn close(&mut self) {
        let mut text = std::mem::take(&mut self.text).trim().to_owned();
        truncate(&mut text);
        let path = std::mem::take(&mut self.path);
        match path.strip_prefix("/feedback/") {
            Some("record") => self.close_row(),
            Some(inner) => match inner.split_once('/') {
                Some(("report_metadata", name)) => self.take_metadata(name, text),
                Some(("policy_published", name)) => self.take_policy(name, &text),
                Some(("record", name)) => self.take_row(name, text),
                _ => {}
            },
            None => {}
        }
        self.depth -= 1;
        let end = path.rfind('/').unwrap_or(0);
        self.path = path;
        self.path.truncate(end);
    }

    fn take_metadata(&mut self, name: &str, text: String) {
        self.seen = Seen::Metadata;
        let metadata = &mut self.metadata;
        let time = |text: &str| Timestamp::from_unix_seconds(text.parse().unwrap_or(0));
        match name {
            "org_name" => metadata.organization = text,
            "email" => metadata.email = text,
            "extra_contact_info" => metadata.contact = some(text),
            "report_id" => metadata.id = text,
            "date_range/begin" => metadata.begin = time(&text),
            "date_range/end" => metadata.end = time(&text),
            "error" if metadata.errors.len() < LIST_MAX => metadata.errors.push(text),
            _ => {}
        }
    }

    fn take_policy(&mut self, name: &str, text: &str) {
        let policy = &mut self.policy;
        let alignment = match text {
            "s" => Alignment::Strict,
            _ => Alignment::Relaxed,
        };
        match name {
            "domain" => policy.domain = text.to_ascii_lowercase(),
            "adkim" => policy.dkim = alignment,
            "aspf" => policy.spf = alignment,
            "p" => policy.policy = Policy::parse(text).unwrap_or_default(),
            "sp" => policy.subdomain_policy = Policy::parse(text),
            "np" => policy.missing_policy = Policy::parse(text),
            "pct" => policy.percent = text.parse().ok(),
            "testing" => policy.testing = text == "y",
            _ => {}
        }
    }

    fn take_row(&mut self, name: &str, text: String) {
        let row = &mut self.row.row;
        let evaluated = match text.as_str() {
            "pass" => Evaluated::Pass,
            _ => Evaluated::Fail,
        };
        match name {
            "row/source_ip" => self.row.source = text.parse().ok(),
            "row/count" => row.count = text.parse().unwrap_or(0),
            "row/policy_evaluated/disposition" => {
                row.disposition = Policy::parse(&text).unwrap_or_default();
            }
            "row/policy_evaluated/dkim" => row.dkim = evaluated,
            "row/policy_evaluated/spf" => row.spf = evaluated,
            "row/policy_evaluated/reason/type" => last(&mut row.reasons, |it| it.kind = text),
            "row/policy_evaluated/reason/comment" => {
                last(&mut row.reasons, |it| it.comment = some(text));
            }
            "identifiers/header_from" => row.header_from = text.to_ascii_lowercase(),
            "identifiers/envelope_from" => row.envelope_from = Some(text),
            "identifiers/envelope_to" => row.envelope_to = some(text),
            "auth_results/dkim/domain" => last(&mut row.auth_dkim, |it| it.domain = text),
            "auth_results/dkim/selector" => last(&mut row.auth_dkim, |it| it.selector = some(text)),
            "auth_results/dkim/result" => last(&mut row.auth_dkim, |it| it.result = text),
            "auth_results/dkim/human_result" => {
                last(&mut row.auth_dkim, |it| it.comment = some(text));
            }
            "auth_results/spf/domain" => last(&mut row.auth_spf, |it| it.domain = text),
            "auth_results/spf/scope" => last(&mut row.auth_spf, |it| it.scope = some(text)),
            "auth_results/spf/result" => last(&mut row.auth_spf, |it| it.result = text),
            _ => {}
        }
    }

    fn close_row(&mut self) {
        let PartialRow { source, mut row } = std::mem::take(&mut self.row);
        let kept = self.kept.saturating_add(bytes(&row));
        match source {
            Some(source) if self.rows.len() < REPORT_ROWS_MAX && kept <= REPORT_KEPT_BYTES_MAX => {
                row.source = source;
                // All there may be: a list that grows is in memory twice, and what it was is not given back at once.
                self.rows.reserve_exact(if self.rows.is_empty() { ROWS_KEPT_MAX } else { 0 });
                self.rows.push(row);
                self.kept = kept;
            }
            _ => self.left_out += 1,
        }
    }

    fn finish(self) -> Result<AggregateReport, ReportError> {
        if self.depth > 0 || self.seen == Seen::Nothing || self.policy.domain.is_empty() {
            return Err(ReportError::Malformed);
        }
        Ok(AggregateReport {
            metadata: self.metadata,
            policy: self.policy,
            rows: self.rows,
            rows_left_out: self.left_out,
        })
    }
}

/// Bytes that a row takes, its lists' spare room included.
fn bytes(row: &Row) -> usize {
    fn some(text: &Option<String>) -> usize {
        text.as_ref().map_or(0, String::capacity)
    }
    let reasons = row.reasons.iter().map(|it| it.kind.capacity() + some(&it.comment));
    let dkim = row.auth_dkim.iter().map(|it| {
        it.domain.capacity() + some(&it.selector) + it.result.capacity() + some(&it.comment)
    });
    let spf =
        row.auth_spf.iter().map(|it| it.domain.capacity() + some(&it.scope) + it.result.capacity());
    size_of::<Row>()
        + size_of::<PolicyReason>() * row.reasons.capacity()
        + size_of::<DkimAuth>() * row.auth_dkim.capacity()
        + size_of::<SpfAuth>() * row.auth_spf.capacity()
        + reasons.chain(dkim).chain(spf).sum::<usize>()
        + row.header_from.capacity()
        + some(&row.envelope_from)
        + some(&row.envelope_to)
}

fn push<T: Default>(list: &mut Vec<T>) {
    if list.len() < LIST_MAX {
        list.push(T::default());
    }
}

fn last<T>(list: &mut [T], change: impl FnOnce(&mut T)) {
    if let Some(last) = list.last_mut() {
        change(last);
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        limits,
        reports::{Report, ReportKind},
    };

    fn report() -> AggregateReport {
        let metadata = ReportMetadata {
            organization: "Ours & <Theirs>".to_owned(),
            email: "dmarc@b.example".to_owned(),
            contact: Some("https://b.example/".to_owned()),
            id: "42".to_owned(),
            begin: Timestamp::from_unix_seconds(1_000),
            end: Timestamp::from_unix_seconds(87_399),
            errors: vec!["a \"b\"".to_owned()],
        };
        let policy = PublishedPolicy {
            domain: "example.org".to_owned(),
            policy: Policy::Reject,
            subdomain_policy: Some(Policy::Quarantine),
            percent: Some(50),
            testing: true,
            dkim: Alignment::Strict,
            ..PublishedPolicy::default()
        };
        let mut report = AggregateReport::new(metadata, policy);
        for number in 1..=3u8 {
            let mut row = PartialRow::default().row;
            row.source = [192, 0, 2, number].into();
            row.count = u64::from(number);
            row.disposition = Policy::Quarantine;
            row.spf = Evaluated::Pass;
            row.header_from = "mail.example.org".to_owned();
            row.envelope_from = Some(String::new());
            push(&mut row.reasons);
            row.reasons[0].kind = "sampled_out".to_owned();
            push(&mut row.auth_dkim);
            row.auth_dkim[0].result = "fail".to_owned();
            row.auth_dkim[0].comment = Some("body hash did not verify".to_owned());
            push(&mut row.auth_spf);
            row.auth_spf[0].scope = Some("mfrom".to_owned());
            report.rows.push(row);
        }
        report
    }

    #[test]
    fn what_is_made_is_read() {
        let packed = report().to_gzip();
        let read =
            ReportKind::of("application/gzip", Some("a!b!1!2.xml.gz")).unwrap().parse(&packed);
        assert_eq!(read, Ok(Report::Aggregate(report())));
        assert_eq!(
            report().file_name("mx.b.example"),
            "mx.b.example!example.org!1000!87399!42.xml.gz"
        );
    }

    #[test]
    fn what_others_write_is_read() {
        let xml = r#"<?xml version="1.0"?><!DOCTYPE feedback><d:feedback xmlns:d="urn:x">
          <!-- a comment --><d:report_metadata><d:org_name><![CDATA[A & B]]></d:org_name><d:report_id>7&#x41;&amp;</d:report_id>
          <d:date_range><d:begin> 5 </d:begin><d:end>x</d:end></d:date_range></d:report_metadata>
          <d:policy_published><d:domain>Example.ORG</d:domain><d:p>REJECT</d:p><d:fo/></d:policy_published>
          <d:record><d:row><d:source_ip>2001:db8::1</d:source_ip><d:count>2</d:count></d:row>
          <d:auth_results><d:spf/><d:dkim><d:domain>one</d:domain></d:dkim><d:dkim><d:domain>two</d:domain></d:dkim></d:auth_results></d:record>
          <d:record><d:row><d:source_ip>nowhere</d:source_ip></d:row></d:record></d:feedback>"#;
        let report = read(xml.as_bytes()).unwrap();
        assert_eq!(
            (report.metadata.organization.as_str(), report.metadata.id.as_str()),
            ("A & B", "7A&")
        );
        assert_eq!(
            (report.metadata.begin.unix_seconds(), report.policy.policy),
            (5, Policy::Reject)
        );
        let domains: Vec<_> =
            report.rows[0].auth_dkim.iter().map(|it| it.domain.as_str()).collect();
        assert_eq!((domains, report.rows.len(), report.rows_left_out), (vec!["one", "two"], 1, 1));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let lol = "<!DOCTYPE a [<!ENTITY b \"cc\"><!ENTITY d \"&b;&b;\">]>";
        let wrap = |inner: &str| {
            format!(
                "{lol}<feedback><report_metadata><org_name>{inner}</org_name></report_metadata><policy_published><domain>a</domain></policy_published></feedback>"
            )
        };
        assert!(read(wrap("fine").as_bytes()).is_ok());
        assert!(read(wrap("&d;").as_bytes()).is_err(), "entities of its own");
        assert!(read(wrap(&"<x>".repeat(100)).as_bytes()).is_err());
        for bad in
            ["", "text", "<feedback>", "<feedback></feedback>", "<a></b>", "<html><body/></html>"]
        {
            assert_eq!(read(bad.as_bytes()), Err(ReportError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn floods_are_bounded() {
        let row = "<record><row><source_ip>192.0.2.1</source_ip></row><auth_results/></record>";
        let many = row.repeat(REPORT_ROWS_MAX + 10);
        let dkim = "<dkim/>".repeat(10_000);
        let long = "x".repeat(REPORT_TOKEN_BYTES_MAX - 100);
        let xml = format!(
            "<feedback><report_metadata><email>{long}</email></report_metadata><policy_published>\
             <domain>a</domain></policy_published><record><row><source_ip>192.0.2.1</source_ip></row>\
             <auth_results>{dkim}</auth_results></record>{many}</feedback>"
        );
        let report = read(xml.as_bytes()).unwrap();
        let rows = report.rows.len();
        assert!((5_000..REPORT_ROWS_MAX).contains(&rows), "{rows}");
        assert_eq!((rows as u64) + report.rows_left_out, REPORT_ROWS_MAX as u64 + 11);
        assert_eq!(report.rows[0].auth_dkim.len(), LIST_MAX);
        assert_eq!(report.metadata.email.len(), REPORT_TEXT_BYTES_MAX);
    }

    /// Few bytes, packed, that were to become many in memory.
    #[test]
    fn what_is_kept_of_a_crafted_report_is_bounded() {
        let text = "x".repeat(REPORT_TEXT_BYTES_MAX);
        let entry = format!("<dkim><domain>{text}</domain><selector>{text}</selector></dkim>");
        let lists = ["<reason/>", "<dkim/>", "<spf/>"].map(|it| it.repeat(LIST_MAX));
        for (evaluated, results) in [
            (lists[0].clone(), lists[1].clone() + &lists[2]),
            (String::new(), entry.repeat(3)),
            (String::new(), String::new()),
        ] {
            let row = format!(
                "<record><row><source_ip>192.0.2.1</source_ip><count>1</count><policy_evaluated>\
                 {evaluated}</policy_evaluated></row><auth_results>{results}</auth_results></record>"
            );
            let head = "<feedback><report_metadata><org_name>a</org_name></report_metadata>\
                <policy_published><domain>a</domain></policy_published>";
            let count = (limits::REPORT_UNPACKED_BYTES_MAX - 1_000) / row.len();
            let rows = std::iter::repeat_n(row.as_bytes(), count);
            let bytes: Vec<u8> = std::iter::once(head.as_bytes())
                .chain(rows)
                .chain(std::iter::once(b"</feedback>".as_slice()))
                .flatten()
                .copied()
                .collect();
            let packed = crate::reports::gzip(&bytes);
            let read = ReportKind::Aggregate.parse(&packed).unwrap();
            let Report::Aggregate(report) = read else { panic!("{read:?}") };
            let kept: usize = report.rows.iter().map(super::bytes).sum();
            assert!(kept <= REPORT_KEPT_BYTES_MAX, "{kept}");
            assert!(report.rows.len() > 100, "{}", report.rows.len());
            assert_eq!(report.rows.len() as u64 + report.rows_left_out, count as u64);
            assert!(report.rows.capacity() * size_of::<Row>() <= REPORT_KEPT_BYTES_MAX);
        }
    }

    #[test]
    fn a_token_without_end_is_let_go() {
        let report = |inner: String| {
            format!(
                "<feedback><report_metadata><org_name>a</org_name>{inner}</report_metadata>\
                 <policy_published><domain>a</domain></policy_published></feedback>"
            )
        };
        let long = "x".repeat(REPORT_TOKEN_BYTES_MAX + 1);
        assert!(read(report(format!("<email>{}</email>", &long[..1_000])).as_bytes()).is_ok());
        for inner in [
            format!("<email>{long}</email>"),
            format!("<email><![CDATA[{long}]]></email>"),
            format!("<!-- {long} -->"),
            format!("<email a=\"{long}\"/>"),
            format!("<{long}/>"),
            format!("<?x {long}?>"),
            format!("&{long};"),
        ] {
            let read = read(report(inner).as_bytes());
            assert_eq!(read, Err(ReportError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(cut in 0usize..2000, at in 0usize..2000, byte: u8) {
            let mut bytes = report().to_xml().into_bytes();
            bytes.truncate(cut);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _unwanted = read(&bytes[..]);
        }
    }
}
