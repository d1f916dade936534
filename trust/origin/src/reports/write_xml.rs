//! Writing aggregate reports (RFC 9990, appendix A).

use quick_xml::escape::escape;

use crate::{
    Policy,
    reports::{AggregateReport, DkimAuth, PolicyReason, Row, SpfAuth},
};

pub(super) fn write(report: &AggregateReport) -> String {
    let mut xml = Xml("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned());
    xml.0.push_str("<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n");
    xml.text("version", "1.0");
    xml.element("report_metadata", |xml| {
        let metadata = &report.metadata;
        xml.text("org_name", &metadata.organization);
        xml.text("email", &metadata.email);
        xml.optional("extra_contact_info", metadata.contact.as_deref());
        xml.text("report_id", &metadata.id);
        xml.element("date_range", |xml| {
            xml.text("begin", &metadata.begin.unix_seconds().to_string());
            xml.text("end", &metadata.end.unix_seconds().to_string());
        });
        for error in &metadata.errors {
            xml.text("error", error);
        }
    });
    xml.element("policy_published", |xml| {
        let policy = &report.policy;
        xml.text("domain", &policy.domain);
        xml.text("adkim", policy.dkim.as_str());
        xml.text("aspf", policy.spf.as_str());
        xml.text("p", policy.policy.as_str());
        xml.optional("sp", policy.subdomain_policy.map(Policy::as_str));
        xml.optional("np", policy.missing_policy.map(Policy::as_str));
        xml.optional("pct", policy.percent.map(|percent| percent.to_string()).as_deref());
        xml.text("testing", if policy.testing { "y" } else { "n" });
    });
    for row in &report.rows {
        xml.element("record", |xml| write_row(xml, row));
    }
    xml.0.push_str("</feedback>\n");
    xml.0
}

fn write_row(xml: &mut Xml, row: &Row) {
    xml.element("row", |xml| {
        xml.text("source_ip", &row.source.to_string());
        xml.text("count", &row.count.to_string());
        xml.element("policy_evaluated", |xml| {
            xml.text("disposition", row.disposition.as_str());
            xml.text("dkim", row.dkim.as_str());
            xml.text("spf", row.spf.as_str());
            for PolicyReason { kind, comment } in &row.reasons {
                xml.element("reason", |xml| {
                    xml.text("type", kind);
                    xml.optional("comment", comment.as_deref());
                });
            }
        });
    });
    xml.element("identifiers", |xml| {
        xml.optional("envelope_to", row.envelope_to.as_deref());
        xml.optional("envelope_from", row.envelope_from.as_deref());
        xml.text("header_from", &row.header_from);
    });
    xml.element("auth_results", |xml| {
        for DkimAuth { domain, selector, result, comment } in &row.auth_dkim {
            xml.element("dkim", |xml| {
                xml.text("domain", domain);
                xml.optional("selector", selector.as_deref());
                xml.text("result", result);
                xml.optional("human_result", comment.as_deref());
            });
        }
        for SpfAuth { domain, scope, result } in &row.auth_spf {
            xml.element("spf", |xml| {
                xml.text("domain", domain);
                xml.optional("scope", scope.as_deref());
                xml.text("result", result);
            });
        }
    });
}

struct Xml(String);

impl Xml {
    fn element(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name}>\n"));
        inner(self);
        self.0.push_str(&format!("</{name}>\n"));
    }

    fn text(&mut self, name: &str, text: &str) {
        // XML 1.0 §2.2: most control characters cannot be said at all.
        let clean: String = text.chars().filter(|at| !at.is_control()).collect();
        self.0.push_str(&format!("<{name}>{}</{name}>\n", escape(clean)));
    }

    fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }
}
