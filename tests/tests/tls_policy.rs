//! TLS to other providers: Postfix as their server, BIND with a zone that it signed, a web server for their
//! policies; and routes that a setting names. What a domain demands of its server's certificate decides
//! whether mail goes there.

use std::net::Ipv4Addr;

use base64::{Engine, prelude::BASE64_STANDARD};
use blackbox::{
    Deadline,
    bind::{Bind, free_port},
    http,
    imap::Imap,
    message,
    names::Names,
    opensmtpd::OpenSmtpd,
    postfix::{Postfix, Shown},
    server::{ALICE, PASSWORD, Server},
    smtp::Smtp,
    web::Web,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};

/// An authority that the node believes.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are no bad names");
        params.distinguished_name.push(rcgen::DnType::CommonName, "black box authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys are made");
        Self(CertifiedIssuer::self_signed(params, key).expect("it signs itself"))
    }

    fn certificate(&self) -> &rcgen::Certificate {
        self.0.as_ref()
    }

    /// A certificate for these names, and its key.
    fn issue(&self, names: &[&str]) -> (Shown, KeyPair) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("they are names");
        let key = KeyPair::generate().expect("keys are made");
        let certificate = params.signed_by(&key, &self.0).expect("the authority signs");
        let chain = format!("{}{}", certificate.pem(), self.certificate().pem());
        (Shown { chain, key: key.serialize_pem() }, key)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for so many messages in INBOX and reads them.
fn reports(imap: &mut Imap, count: usize) -> Vec<String> {
    imap.ok("SELECT INBOX");
    let deadline = Deadline::usual();
    loop {
        let found = imap.ok("UID SEARCH ALL").search();
        if found.len() >= count {
            return found
                .into_iter()
                .map(|uid| String::from_utf8_lossy(&imap.body(uid)).into_owned())
                .collect();
        }
        assert!(!deadline.is_over(), "{} of {count} reports have come", found.len());
        imap.ok("NOOP");
    }
}

fn submit(server: &Server, to: &str) {
    let mail = message(ALICE, to, to, "hello\r\n");
    Smtp::submission(server, ALICE, PASSWORD).deliver(ALICE, to, mail.as_bytes());
}

fn metrics(server: &Server) -> String {
    http::get(server, "/metrics").body
}

/// The other providers: every domain's mail is Postfix's, whose certificate has some of the names.
struct World {
    authority: Authority,
    bind: Bind,
    web: Web,
    shown: Shown,
    port: u16,
    folder: tempfile::TempDir,
}

const SENT: [&str; 4] = ["ee.signed.test", "ta.signed.test", "plain.test", "sts.plain.test"];
const KEPT: [&str; 3] = ["wrong.signed.test", "stscert.plain.test", "stsmx.plain.test"];

impl World {
    /// `None` where a program is missing.
    fn new() -> Option<Self> {
        if !Postfix::is_here() {
            return None;
        }
        let authority = Authority::new();
        let (shown, key) =
            authority.issue(&["mx.plain.test", "mx.signed.test", "mxta.signed.test"]);
        let port = free_port();
        let other = KeyPair::generate().expect("keys are made");
        let signed = format!(
            "ee MX 10 mx\nta MX 10 mxta\nwrong MX 10 mxwrong\n\
             mx A 127.0.0.1\nmxta A 127.0.0.1\nmxwrong A 127.0.0.1\n\
             _{port}._tcp.mx TLSA 3 1 0 {}\n_{port}._tcp.mxta TLSA 2 0 0 {}\n\
             _{port}._tcp.mxwrong TLSA 3 1 0 {}\n",
            hex(&key.subject_public_key_info()),
            hex(authority.certificate().der()),
            hex(&other.subject_public_key_info()),
        );
        let mut plain =
            "@ MX 10 mx\nmx A 127.0.0.1\nother A 127.0.0.1\nsts MX 10 mx\nstscert MX 10 other\n\
             stsmx MX 10 mx\n"
                .to_owned();
        let policies = [
            ("sts", "mx.plain.test"),
            ("stscert", "other.plain.test"),
            ("stsmx", "gone.plain.test"),
        ];
        let hosts = policies.map(|(domain, _)| format!("mta-sts.{domain}.plain.test"));
        let (page, _) = authority.issue(&hosts.each_ref().map(String::as_str));
        let web = Web::start(&page);
        for ((domain, mx), host) in policies.iter().zip(&hosts) {
            plain.push_str(&format!(
                "_mta-sts.{domain} TXT \"v=STSv1; id=1\"\nmta-sts.{domain} A 127.0.0.1\n"
            ));
            let text = format!("version: STSv1\r\nmode: enforce\r\nmx: {mx}\r\nmax_age: 86400\r\n");
            web.publish(host, "/.well-known/mta-sts.txt", &text);
        }
        let bind = Bind::start(("signed.test", &signed), ("plain.test", &plain))?;
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        std::fs::write(folder.path().join("roots.pem"), authority.certificate().pem())
            .expect("the folder is ours");
        Some(Self { authority, bind, web, shown, port, folder })
    }

    fn postfix(&self) -> Postfix {
        let domains = [&SENT[..], &KEPT[..]].concat();
        Postfix::start(self.port, &domains, &self.shown)
    }

    /// A node that sends to them.
    fn server(&self, outbound: &str) -> Server {
        let roots = self.folder.path().join("roots.pem").display().to_string();
        Server::start_shared(&format!(
            "{}[outbound]\nport = {}\nhttps_port = {}\ntls_roots = {roots:?}\n\
             retry_seconds_min = 1\nretry_seconds_max = 1\n{outbound}",
            self.bind.section(),
            self.port,
            self.web.port,
        ))
    }
}

#[test]
fn mail_goes_where_certificates_are_as_demanded_and_nowhere_else() {
    let Some(world) = World::new() else { return };
    let postfix = world.postfix();
    let server = world.server("expire_seconds = 8\ndelay_notice_seconds = 3600\n");
    for domain in SENT.iter().chain(&KEPT) {
        submit(&server, &format!("carol@{domain}"));
    }
    submit(&server, "nobody@ee.signed.test");
    for domain in SENT {
        let mail = postfix.mail(&format!("Delivered-To: carol@{domain}"));
        assert!(mail.contains("(using TLSv1.3 with cipher "), "{mail}");
        assert!(mail.contains("hello\n"), "{mail}");
    }
    let told = reports(&mut server.imap(ALICE), 1 + KEPT.len());
    let of = |address: &str| {
        let field = format!("Final-Recipient: rfc822; {address}\r\n");
        let report = told.iter().find(|report| report.contains(&field));
        report.unwrap_or_else(|| panic!("no report of {address} in {told:#?}"))
    };
    assert!(of("nobody@ee.signed.test").contains("Status: 5.1.1\r\n"));
    let why = [
        "does not match the domain's TLSA records",
        "the certificate is not for this name",
        "does not name it as a server of the domain",
    ];
    for (domain, why) in KEPT.iter().zip(why) {
        let report = of(&format!("carol@{domain}"));
        // Tried until its end, and given up.
        assert!(report.contains("Status: 5.4.7\r\n") && report.contains(why), "{report}");
        assert!(!postfix.log().contains(&format!("carol@{domain}")), "{}", postfix.log());
    }
    assert_eq!(postfix.mails().len(), SENT.len());
    let metrics = metrics(&server);
    for labels in [
        "policy=\"dane\",outcome=\"verified\"",
        "policy=\"dane\",outcome=\"refused\"",
        "policy=\"mta_sts\",outcome=\"verified\"",
        "policy=\"mta_sts\",outcome=\"refused\"",
        "policy=\"none\",outcome=\"encrypted\"",
    ] {
        let name = format!("rookery_outbound_tls_sessions_total{{{labels}}}");
        assert!(metrics.contains(&name), "no {name} in {metrics}");
    }
    let found = server.cli(&["fsck"]);
    assert!(found.contains("0 findings"), "{found}");
}

#[test]
fn what_waited_for_postfix_and_for_a_better_certificate_leaves_in_the_end() {
    let Some(mut world) = World::new() else { return };
    let server = world.server("expire_seconds = 3600\ndelay_notice_seconds = 1\n");
    // Nobody is there.
    submit(&server, "carol@ee.signed.test");
    let mut imap = server.imap(ALICE);
    let told = reports(&mut imap, 1);
    assert!(told[0].contains("Action: delayed\r\nStatus: 4.4.1\r\n"), "{}", told[0]);
    // Somebody is there, and he is another.
    let good = std::mem::replace(&mut world.shown, world.authority.issue(&["mx.signed.test"]).0);
    let another = world.postfix();
    submit(&server, "carol@sts.plain.test");
    let told = reports(&mut imap, 2);
    let words = "the certificate is not for this name";
    assert!(told[1].contains("Status: 4.7.5\r\n") && told[1].contains(words), "{}", told[1]);
    assert_eq!(another.mails().len(), 0);
    drop(another);
    world.shown = good;
    let postfix = world.postfix();
    for domain in ["ee.signed.test", "sts.plain.test"] {
        let mail = postfix.mail(&format!("Delivered-To: carol@{domain}"));
        assert!(mail.contains("(using TLSv1.3 with cipher "), "{mail}");
    }
    assert_eq!(postfix.mails().len(), 2, "each once");
}

/// The first certificate of a PEM file, as it is on the wire.
fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().skip_while(|line| !line.starts_with("-----BEGIN CERT")).skip(1);
    let text: String = lines.take_while(|line| !line.starts_with("-----END")).collect();
    BASE64_STANDARD.decode(text).expect("a certificate in PEM")
}

#[test]
fn a_message_has_a_say_of_its_own_about_tls() {
    let there = Server::start_configured();
    for domain in ["good.signed.test", "wrong.signed.test"] {
        there.cli(&["domain", "add", domain]);
        there.cli(&["alias", "add", &format!("carol@{domain}"), ALICE]);
    }
    let pem = std::fs::read_to_string(there.certificate()).expect("it shows a certificate");
    let (port, other) = (there.ports.smtp, KeyPair::generate().expect("keys are made"));
    let signed = format!(
        "good MX 10 mx\nwrong MX 10 mxwrong\nmx A 127.0.0.1\nmxwrong A 127.0.0.1\n\
         _{port}._tcp.mx TLSA 3 0 0 {}\n_{port}._tcp.mxwrong TLSA 3 1 0 {}\n",
        hex(&der(&pem)),
        hex(&other.subject_public_key_info()),
    );
    let zones = (("signed.test", signed.as_str()), ("plain.test", ""));
    let Some(bind) = Bind::start(zones.0, zones.1) else { return };
    let here = Server::start_shared(&format!(
        "{}[outbound]\nport = {port}\nretry_seconds_min = 3600\nretry_seconds_max = 3600\n",
        bind.section(),
    ));
    let submit = |parameter: &str, domain: &str, field: &str| {
        let to = format!("carol@{domain}");
        let mut smtp = Smtp::submission(&here, ALICE, PASSWORD);
        smtp.expect(&format!("MAIL FROM:<{ALICE}>{parameter}"), 250);
        smtp.expect(&format!("RCPT TO:<{to}>"), 250);
        let mail = format!("{field}{}", message(ALICE, &to, "say", "hello\r\n"));
        let reply = smtp.data(mail.as_bytes());
        assert_eq!(reply.code, 250, "{reply}");
    };
    let mut imap = there.imap(ALICE);
    submit(" REQUIRETLS", "good.signed.test", "");
    let required = reports(&mut imap, 1).remove(0);
    assert!(required.contains("with ESMTPS id"), "{required}");
    // The certificate is another than the domain says: what is as usual waits, what waives TLS goes.
    submit("", "wrong.signed.test", "");
    submit("", "wrong.signed.test", "TLS-Required: No\r\n");
    let waived = reports(&mut imap, 2).remove(1);
    assert!(waived.contains("\r\nTLS-Required: No\r\n"), "{waived}");
    let deadline = Deadline::usual();
    loop {
        let left = here.cli(&["queue", "list", "--json"]);
        if left.lines().count() == 1 && left.contains("does not match the domain's TLSA records") {
            break;
        }
        assert!(!deadline.is_over(), "{left}");
    }
    assert_eq!(reports(&mut imap, 2).len(), 2);
}

/// Debian 12's OpenSMTPD, unpacked, offers STARTTLS and has failed in every handshake that we tried. Either way mail
/// reaches it where nothing is demanded, and a demand is a demand.
#[test]
fn opensmtpd_gets_mail_however_its_tls_is_unless_it_has_to_be_good() {
    let Some(world) = World::new() else { return };
    let domains = [&SENT[..], &KEPT[..]].concat();
    let Some(other) = OpenSmtpd::start(world.port, &domains, &world.shown) else { return };
    let server = world.server("expire_seconds = 3600\ndelay_notice_seconds = 1\n");
    submit(&server, "carol@stscert.plain.test");
    submit(&server, "carol@plain.test");
    let mail = other.mail();
    assert!(mail.contains("for <carol@plain.test>"), "{mail}");
    let told = reports(&mut server.imap(ALICE), 1);
    assert!(told[0].contains("Status: 4.7.5\r\n"), "{}", told[0]);
    assert!(!other.log().contains("carol@stscert"), "{}", other.log());
}

#[test]
fn mail_goes_the_way_that_a_setting_names() {
    let there = Server::start_configured();
    there.cli(&["domain", "add", "example.net"]);
    there.cli(&["alias", "add", "carol@example.net", ALICE]);
    let names = Names::start();
    names.address("localhost", Ipv4Addr::LOCALHOST);
    // The other provider's own server is nowhere.
    let roots = there.certificate().display().to_string();
    let sections = names.sections(9, &format!("tls_roots = {roots:?}\n"));
    let here = Server::start_shared(&sections);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{PASSWORD}\n")).expect("the folder is ours");
    let set = |value: &str| here.cli(&["cluster", "settings", "set", "route.example.net", value]);
    set(&format!(
        "smarthost localhost:{} user={ALICE} secret={}",
        there.ports.submission,
        secret.display()
    ));
    let shown = here.cli(&["cluster", "settings", "get"]);
    assert!(shown.contains("smarthost localhost:") && !shown.contains(PASSWORD), "{shown}");
    submit(&here, "carol@example.net");
    let mut imap = there.imap(ALICE);
    let mails = reports(&mut imap, 1);
    assert!(mails[0].contains("with ESMTPSA id"), "{}", mails[0]);

    set(&format!(
        "smarthost localhost:{} tls=implicit user={ALICE} secret={}",
        there.ports.submissions,
        secret.display()
    ));
    submit(&here, "carol@example.net");
    let mails = reports(&mut imap, 2);
    assert!(mails[1].contains("with ESMTPSA id"), "{}", mails[1]);

    set(&format!("lmtp 127.0.0.1:{}", there.ports.lmtp));
    submit(&here, "carol@example.net");
    let mails = reports(&mut imap, 3);
    assert!(mails[2].contains("with LMTP"), "{}", mails[2]);

    set("local");
    submit(&here, "carol@example.net");
    let told = reports(&mut here.imap(ALICE), 1);
    let whole = told.join("\n");
    assert!(whole.contains("Status: 5.1.2\r\n"), "{whole}");
}
