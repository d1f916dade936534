//! Mail from other servers is judged by what its domains say in DNS: it is marked, put with the junk or
//! refused, and what others report is kept.
//!
//! The signatures were made once, over the messages that [`message`] and [`noise`] make; these tests use
//! no code of the server's.

use std::{net::Ipv4Addr, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use blackbox::{
    Deadline, http, message,
    names::Names,
    noise,
    program::{find, run},
    report,
    server::{ALICE, BOB, Server},
    smtp::Smtp,
};

const AUTHOR: &str = "ann@author.example";
const STRANGER: &str = "eve@stranger.example";

/// The author's key, at `s._domainkey.author.example`.
const KEY: &str = "v=DKIM1; k=ed25519; p=/IF8HEcxCBIoRsroT1pl8MSQ3lJAbOfQBaukr6izJ50=";

/// Over [`message`] from the author to alice with the id `signed` and the body `hello`.
const SIGNATURE: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n\
    \td=author.example; s=s; t=1767268800; h=from: from: reply-to:\r\n\
    \tsubject: subject: date: date: message-id: to: to: cc:\r\n\
    \tcontent-type; bh=WPC6oj2yrlBU0c0lmfSgxNyb0nZCD2frnnGRJKrUiI4=;\r\n\
    \tb=0jnFmCs8v9bbyknSRzffguEBF3P0HkAu19gjMxwQQNo+09FmqLLdgUJ+K5EfGoGr\r\n\
    \t 6uyTA0pSIiqK+9QZAhNGAA==\r\n";

/// The same with the id `large` and [`LARGE_BYTES`] of noise.
const LARGE_SIGNATURE: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n\
    \td=author.example; s=s; t=1767268800; h=from: from: reply-to:\r\n\
    \tsubject: subject: date: date: message-id: to: to: cc:\r\n\
    \tcontent-type; bh=+8EFNN3Q+jPWRPSGaAe9TF6iYIcpUWOtgDba+xtvqZA=;\r\n\
    \tb=+y9k4vCSuVPuY+X76hB9RO3L6R0DrgQZzP2NA3quZZn4fao9nj/r5Mehn0nObTiN\r\n\
    \t URt6A2tZzoOv+epjuT0NBA==\r\n";

const LARGE_BYTES: usize = 10_000_000;

/// How much resident memory may grow while a large message is judged: less than its size. Seen: up to 6.5
/// megabytes; the allocator takes four at a time.
const GROWTH_MAX: u64 = 9_500_000;

/// A server that judges everybody, and what it is told of names.
fn start(settings: &[(&str, &str)]) -> (Server, Names) {
    let names = Names::start();
    names.text("author.example", "v=spf1 ip4:127.0.0.1 -all");
    names.text("stranger.example", "v=spf1 ip4:192.0.2.1 -all");
    names.text("s._domainkey.author.example", KEY);
    names.text("_dmarc.author.example", "v=DMARC1; p=reject");
    names.text("_dmarc.suspicious.example", "v=DMARC1; p=quarantine");
    names.address("client.blackbox.test", Ipv4Addr::LOCALHOST);
    let mut server = Server::stopped(&names.sections(25, ""));
    server.cli(&["domain", "add", "example.org"]);
    for address in [ALICE, BOB] {
        server.cli(&["account", "add", address, "--password-stdin"]);
    }
    let judge_all = [("judging.trusted_networks", "none")];
    for (name, value) in judge_all.iter().chain(settings) {
        server.cli(&["cluster", "settings", "set", name, value]);
    }
    server.restart();
    (server, names)
}

/// The last message in a mailbox of alice's.
#[track_caller]
fn last(server: &Server, mailbox: &str) -> String {
    let mut imap = server.imap(ALICE);
    imap.ok(&format!("SELECT {mailbox}"));
    let uids = imap.ok("UID SEARCH ALL").search();
    let body = imap.body(*uids.last().expect("there is a message"));
    String::from_utf8(body).expect("the messages are text")
}

/// The names of a message's fields, in order.
fn fields(message: &str) -> Vec<&str> {
    let (header, _) = message.split_once("\r\n\r\n").expect("a header ends");
    let begins = |line: &&str| !line.starts_with([' ', '\t']);
    header.split("\r\n").filter(begins).filter_map(|line| Some(line.split_once(':')?.0)).collect()
}

#[track_caller]
fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

fn signed() -> String {
    format!("{SIGNATURE}{}", message(AUTHOR, ALICE, "signed", "hello"))
}

#[test]
fn what_domains_say_stands_below_the_trace() {
    let (server, _names) = start(&[]);
    let mut smtp = Smtp::exchange(&server);
    let forged = format!(
        "Authentication-Results: other.example; spf=fail (forged)\r\n\
         Authentication-Results: mx.blackbox.test; dmarc=pass (forged)\r\n{}",
        signed()
    );
    smtp.deliver(AUTHOR, ALICE, forged.as_bytes());
    let found = last(&server, "INBOX");
    assert_eq!(
        fields(&found)[..5],
        ["Return-Path", "Received", "Authentication-Results", "DKIM-Signature", "From"],
        "{found}"
    );
    has(
        &found,
        &[
            "spf=pass smtp.mailfrom=ann@author.example",
            "dkim=pass header.d=author.example header.i=@author.example header.s=s",
            "dmarc=pass header.from=author.example",
        ],
    );
    assert!(!found.contains("forged"), "{found}");
    // Not from where the author's domain sends, but signed.
    smtp.deliver(STRANGER, ALICE, signed().as_bytes());
    has(&last(&server, "INBOX"), &["spf=fail smtp.mailfrom=eve@stranger.example", "dmarc=pass"]);
    let metrics = http::get(&server, "/metrics").body;
    has(
        &metrics,
        &[
            "rookery_judging_verdicts_total{method=\"spf\",result=\"pass\"} 1",
            "rookery_judging_verdicts_total{method=\"dkim\",result=\"pass\"} 2",
            "rookery_judged_messages_total{action=\"mark\"} 2",
        ],
    );
    assert!(server.log().contains("dkim=pass"), "the log names the verdicts");
}

#[test]
fn what_an_authors_domain_does_not_vouch_for_is_refused() {
    let (server, _names) = start(&[]);
    let mut smtp = Smtp::exchange(&server);
    let changed = signed().replace("hello", "hello, pay this");
    smtp.envelope(STRANGER, &[ALICE]);
    let reply = smtp.data(changed.as_bytes());
    assert_eq!((reply.code, &reply.lines[0][..6]), (550, "5.7.26"), "{reply}");
    // The session goes on, and suspicion is not refusal.
    let suspicious = message("x@suspicious.example", ALICE, "junk", "hello");
    smtp.deliver(STRANGER, ALICE, suspicious.as_bytes());
    has(&last(&server, "Junk"), &["dmarc=fail (p=quarantine dis=quarantine)"]);
    let found = server.imap(ALICE).ok("STATUS INBOX (MESSAGES)");
    assert!(found.find("MESSAGES 0").is_some(), "{found:?}");
    let checked = server.cli(&["fsck"]);
    assert!(checked.contains("0 findings"), "{checked}");
}

#[test]
fn settings_hold_for_all_recipients_or_for_a_domains() {
    let (server, _names) = start(&[
        ("judging.spf_fail", "reject"),
        ("judging.dmarc_reject", "mark"),
        ("judging.dkim_fail", "quarantine"),
    ]);
    let mut smtp = Smtp::exchange(&server);
    smtp.envelope(STRANGER, &[ALICE]);
    let reply = smtp.data(message(STRANGER, ALICE, "spf", "hello").as_bytes());
    assert_eq!((reply.code, &reply.lines[0][..6]), (550, "5.7.23"), "{reply}");
    smtp.deliver("", ALICE, signed().replace("hello", "goodbye").as_bytes());
    has(&last(&server, "Junk"), &["dkim=fail", "dmarc=fail (p=reject dis=quarantine)"]);
    let shown = server.cli(&["cluster", "settings", "get"]);
    has(&shown, &["judging.dmarc_quarantine", "judging.when_unknown"]);
    server.cli(&["cluster", "settings", "set", "judging.spf_fail.example.org", "mark"]);
    let shown = server.cli(&["cluster", "settings", "get"]);
    has(&shown, &["judging.spf_fail.example.org"]);
}

#[test]
fn a_large_message_is_judged_without_being_held() {
    let (server, _names) = start(&[]);
    let mail = message(AUTHOR, ALICE, "large", &noise(LARGE_BYTES));
    let right = format!("{LARGE_SIGNATURE}{mail}");
    let wrong = format!("{right}One more line\r\n");
    let mut smtp = Smtp::exchange(&server);
    // Its buffers are there from now on.
    smtp.deliver(AUTHOR, BOB, signed().as_bytes());
    drop(server.imap(ALICE));
    for (mail, result) in [(&right, "dkim=pass"), (&wrong, "dkim=fail")] {
        server.reset_peak();
        let before = server.memory("VmRSS");
        smtp.deliver(AUTHOR, ALICE, mail.as_bytes());
        if let (Some(before), Some(peak)) = (before, server.memory("VmHWM")) {
            let growth = peak.saturating_sub(before);
            report(&format!("10 MB judged, {result}: {:.1} MB growth", growth as f64 / 1e6));
            assert!(growth < GROWTH_MAX, "{result}: {growth} bytes");
        }
        let found = last(&server, "INBOX");
        has(&found[..2_000], &[result, "spf=pass smtp.mailfrom"]);
        assert_eq!(fields(&found)[2], "Authentication-Results");
        assert!(found.ends_with(mail.as_str()), "the message is not what was sent");
    }
}

const RECEIVER: &str = "d@receiver.example";

const REPORTS_TO: &str = "dmarc@example.org";

/// A server that keeps reports, and knows who sends some.
fn start_for_reports() -> (Server, Names) {
    let (server, names) = start(&[("reports.addresses", REPORTS_TO)]);
    names.text("receiver.example", "v=spf1 ip4:127.0.0.1 -all");
    server.cli(&["alias", "add", REPORTS_TO, BOB]);
    (server, names)
}

/// A message with one part that may be a report.
fn report_mail(content_type: &str, encoding: &str, report: &str) -> String {
    format!(
        "From: {RECEIVER}\r\nTo: {REPORTS_TO}\r\nSubject: Report\r\nMIME-Version: 1.0\r\n\
         Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{report}\r\n"
    )
}

/// An aggregate report with these records.
fn aggregate(id: &str, records: &str) -> String {
    format!(
        "<feedback><report_metadata><org_name>Receiver Inc</org_name>\
         <email>{RECEIVER}</email><report_id>{id}</report_id><date_range>\
         <begin>1767225600</begin><end>1767311999</end></date_range></report_metadata>\
         <policy_published><domain>example.org</domain><p>none</p></policy_published>\
         {records}</feedback>"
    )
}

const RECORD: &str = "<record><row><source_ip>192.0.2.44</source_ip><count>12</count>\
    <policy_evaluated><disposition>none</disposition><dkim>fail</dkim><spf>fail</spf>\
    </policy_evaluated></row><identifiers><header_from>example.org</header_from></identifiers>\
    </record>";

/// Waits until so many reports came to that.
#[track_caller]
fn wait_for_reports(server: &Server, outcome: &str, count: usize) {
    let sample = format!("rookery_reports_received_total{{outcome=\"{outcome}\"}} {count}\n");
    let deadline = Deadline::usual();
    while !http::get(server, "/metrics").body.contains(&sample) {
        assert!(!deadline.is_over(), "no {sample:?}\n{}", server.log());
    }
}

#[test]
fn reports_of_others_are_kept_and_shown() {
    let (server, _names) = start_for_reports();
    let mail = report_mail("application/xml; name=\"r.xml\"", "8bit", &aggregate("77", RECORD));
    let mut smtp = Smtp::exchange(&server);
    // Another mail server writes the address as it likes.
    smtp.deliver(RECEIVER, "DMARC@example.org", mail.as_bytes());
    wait_for_reports(&server, "aggregate", 1);
    let listed = server.cli(&["reports", "list", "--json"]);
    has(
        &listed,
        &[
            "\"kind\":\"aggregate\"",
            "\"from\":\"Receiver Inc\"",
            "\"vouched_by\":\"receiver.example\"",
            "\"domain\":\"example.org\"",
            "\"messages\":12,\"failed\":12",
        ],
    );
    has(&server.cli(&["reports", "list"]), &["Receiver Inc", "1 Jan 2026"]);
    let id = listed.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let shown = server.cli(&["reports", "show", id.expect("a report has an id")]);
    has(&shown, &["192.0.2.44", "Receiver Inc", "77", "receiver.example"]);

    // The same, which anybody may write.
    let forged = report_mail("application/xml", "8bit", &aggregate("78", RECORD));
    smtp.deliver(STRANGER, REPORTS_TO, forged.as_bytes());
    wait_for_reports(&server, "unvouched", 1);
    assert_eq!(server.cli(&["reports", "list", "--json"]).lines().count(), 1);
    assert!(server.cli(&["fsck"]).contains("0 findings"));
}

#[test]
fn reports_of_tls_and_of_failures_are_kept_and_shown() {
    let (server, _names) = start_for_reports();
    let mut smtp = Smtp::exchange(&server);
    // The shape of RFC 8460's appendix B.
    let tls = "{\"organization-name\":\"Receiver Inc\",\"date-range\":{\
        \"start-datetime\":\"2026-01-01T00:00:00Z\",\"end-datetime\":\"2026-01-01T23:59:59Z\"},\
        \"contact-info\":\"d@receiver.example\",\"report-id\":\"5065427c\",\"policies\":[{\
        \"policy\":{\"policy-type\":\"sts\",\"policy-domain\":\"example.org\"},\
        \"summary\":{\"total-successful-session-count\":5326,\"total-failure-session-count\":303},\
        \"failure-details\":[{\"result-type\":\"certificate-expired\",\
        \"sending-mta-ip\":\"192.0.2.45\",\"failed-session-count\":303}]}]}";
    let mail = report_mail("application/tlsrpt+json", "8bit", tls);
    smtp.deliver(RECEIVER, REPORTS_TO, mail.as_bytes());
    wait_for_reports(&server, "tls", 1);
    // The shape of RFC 5965's appendix B.
    let failure = "--b\r\nContent-Type: text/plain\r\n\r\nA message failed.\r\n\
        --b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: auth-failure\r\n\
        User-Agent: Receiver/1\r\nVersion: 1\r\nOriginal-Mail-From: <x@example.org>\r\n\
        Source-IP: 192.0.2.46\r\nReported-Domain: example.org\r\nAuth-Failure: dkim\r\n\
        Reporting-MTA: dns; mx.receiver.example\r\n\r\n\
        --b\r\nContent-Type: text/rfc822-headers\r\n\r\nFrom: x@example.org\r\n\r\n--b--";
    let of_failure = "multipart/report; report-type=feedback-report; boundary=b";
    smtp.deliver(RECEIVER, REPORTS_TO, report_mail(of_failure, "7bit", failure).as_bytes());
    wait_for_reports(&server, "failure", 1);
    let listed = server.cli(&["reports", "list", "--json"]);
    let of = |kind: &str| {
        let is = |line: &&str| line.contains(&format!("\"kind\":\"{kind}\""));
        listed.lines().find(is).unwrap_or_else(|| panic!("no {kind} in {listed}")).to_owned()
    };
    let shown = |line: &str| {
        let id = line.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        server.cli(&["reports", "show", id.expect("a report has an id")])
    };
    let tls = of("tls");
    has(&tls, &["\"domain\":\"example.org\"", "\"messages\":5629,\"failed\":303"]);
    has(&shown(&tls), &["certificate-expired", "192.0.2.45", "5065427c", "1 Jan 2026"]);
    let failure = of("failure");
    has(&failure, &["\"from\":\"dns; mx.receiver.example\"", "\"messages\":1,\"failed\":1"]);
    has(&shown(&failure), &["auth-failure", "192.0.2.46", "x@example.org"]);
    // In the mailbox it is as any other message.
    let found = server.imap(BOB).ok("STATUS INBOX (MESSAGES)");
    assert!(found.find("MESSAGES 2").is_some(), "{found:?}");
}

/// Bytes that memory may grow by while a report is read that its sender has crafted for that. Unpacked it has
/// twice as many.
const REPORT_GROWTH_MAX: u64 = 16_000_000;

#[test]
fn a_crafted_report_takes_bounded_memory() {
    let (server, _names) = start_for_reports();
    let Some(gzip) = find("gzip") else {
        report("skipped: gzip is not installed");
        return;
    };
    let empty = "<dkim/>".repeat(50);
    let many = format!(
        "<record><row><source_ip>192.0.2.1</source_ip></row><auth_results>{empty}</auth_results></record>"
    );
    let long = format!("<record><row><source_ip>{}</source_ip></row></record>", "1".repeat(60_000));
    let mut smtp = Smtp::exchange(&server);
    // Its buffers, and what reads reports, are there from now on.
    let small = report_mail("application/xml", "8bit", &aggregate("small", RECORD));
    smtp.deliver(RECEIVER, REPORTS_TO, small.as_bytes());
    for _ in 0..3 {
        let other = message(RECEIVER, BOB, "other", &noise(200_000));
        smtp.deliver(RECEIVER, BOB, other.as_bytes());
    }
    // Asking the server again and again would take memory too; its log tells when it is done.
    let wait_until_read = |count: usize| {
        let deadline = Deadline::usual();
        while server.log().matches("report received").count() < count {
            assert!(!deadline.is_over(), "{count} reports are not read");
            std::thread::yield_now();
        }
    };
    wait_until_read(1);
    for (place, row) in [RECORD, &many, &long].into_iter().enumerate() {
        let rows = row.repeat(31_000_000 / row.len());
        let mut packing = Command::new(&gzip);
        packing.arg("-9c");
        let packed = run(&mut packing, aggregate(&place.to_string(), &rows).as_bytes()).stdout;
        assert!(packed.len() < 500_000, "{} bytes", packed.len());
        let encoded = STANDARD.encode(packed);
        let lines: Vec<&str> = encoded
            .as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        let mail =
            report_mail("application/gzip; name=\"r.xml.gz\"", "base64", &lines.join("\r\n"));
        server.reset_peak();
        let before = server.memory("VmRSS");
        smtp.deliver(RECEIVER, REPORTS_TO, mail.as_bytes());
        wait_until_read(place + 2);
        if let (Some(before), Some(peak)) = (before, server.memory("VmHWM")) {
            let growth = peak.saturating_sub(before);
            report(&format!(
                "31 MB of {} bytes a row: {:.1} MB growth",
                row.len(),
                growth as f64 / 1e6
            ));
            assert!(growth < REPORT_GROWTH_MAX, "{growth} bytes");
        }
    }
    assert_eq!(server.cli(&["reports", "list", "--json"]).lines().count(), 4);
}
