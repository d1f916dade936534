//! Greeting, TLS, AUTH and the end.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};

use super::*;
use crate::auth::testing::ScramClient;

fn unbase64(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn what_is_offered_fits_the_port() {
    let world = World::new().await;
    for (protocol, hello, offers, lacks) in [
        (Protocol::Smtp, "EHLO c", &["STARTTLS", "SIZE 52428800", "DSN", "CHUNKING"][..], "AUTH"),
        (
            Protocol::Submission,
            "EHLO c",
            &["AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"],
            "STARTTLS",
        ),
        (Protocol::Lmtp, "LHLO c", &["STARTTLS", "SMTPUTF8"], "AUTH"),
    ] {
        let mut client = world.connect(protocol).await;
        let reply = client.say(hello, "250-mx.example.org").await;
        for offered in offers {
            assert!(reply.contains(offered), "{protocol:?}: no {offered} in {reply}");
        }
        assert!(!reply.contains(lacks), "{protocol:?}: {lacks} in {reply}");
    }
}

#[tokio::test]
async fn every_mechanism_logs_in() {
    let world = World::new().await;
    for plus in [false, true] {
        let mut client = world.connect(Protocol::Submission).await;
        let (header, binding) =
            if plus { ("p=tls-exporter,,", vec![7; 32]) } else { ("n,,", Vec::new()) };
        let mut scram = ScramClient::new("alice@example.org", "pencil", header, &binding);
        let name = if plus { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" };
        let first = base64(&scram.first());
        let reply = client.say(&format!("AUTH {name} {first}"), "334 ").await;
        let last = scram.last(&unbase64(reply[4..].trim_end()));
        let reply = client.say(&base64(&last), "334 ").await;
        assert!(scram.accepts(&unbase64(reply[4..].trim_end())));
        client.say("", "235 ").await;
        client.say("MAIL FROM:<alice@example.org>", "250").await;
    }
    let mut client = world.connect(Protocol::Submission).await;
    client.say("AUTH LOGIN", "334 ").await;
    client.say(&base64("alice@example.org"), "334 ").await;
    client.say("*", "501 5.7.0").await;
    client.say("AUTH LOGIN", "334 ").await;
    client.say(&base64("alice@example.org"), "334 ").await;
    client.say(&base64("pencil"), "235 ").await;
    client.say("AUTH LOGIN", "503").await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Submission).await;
    client.say(&format!("AUTH PLAIN {}", base64("\0alice@example.org\0wrong")), "535 5.7.8").await;
    client.say("MAIL FROM:<alice@example.org>", "530 5.7.0").await;
    client.say(&format!("AUTH PLAIN {}", base64("nonsense")), "501 5.5.2").await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.say(&format!("AUTH PLAIN {}", base64("\0alice@example.org\0pencil")), "5").await;
}

#[tokio::test]
async fn commands_before_the_handshake_do_not_count() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client.send(b"STARTTLS\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<alice@example.org>\r\n").await;
    client.expect_reply("220").await;
    let Client { stream, unread, serving } = client;
    assert!(unread.is_empty(), "{unread:?}");
    let mut roots = RootCertStore::empty();
    let file = world.services.config.data.join("dev-cert.pem");
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name, stream).await.unwrap();
    // A transaction would make this a bad sequence.
    tls.write_all(b"EHLO c\r\nRCPT TO:<alice@example.org>\r\nQUIT\r\n").await.unwrap();
    let mut text = String::new();
    tls.read_to_string(&mut text).await.unwrap();
    serving.await.unwrap();
    assert!(text.starts_with("250-mx.example.org"), "{text}");
    assert!(!text.contains("STARTTLS"));
    assert!(text.contains("\r\n503 5.5.1") && text.contains("\r\n221 "), "{text}");
}

#[tokio::test]
async fn a_stopping_node_finishes_the_message_in_flight() {
    let world = World::new().await;
    let idle = world.connect(Protocol::Smtp).await;
    let mut busy = world.connect(Protocol::Smtp).await;
    busy.envelope("x@remote.example", &["alice@example.org"]).await;
    busy.say("DATA", "354").await;
    busy.send(b"Subject: a\r\n\r\n").await;
    world.stop.stop();
    let mut idle = idle;
    idle.expect_reply("421 4.3.2").await;
    idle.expect_end().await;
    busy.say("text\r\n.", "250").await;
    busy.expect_reply("421 4.3.2").await;
    busy.expect_end().await;
    assert_eq!(world.inbox(world.alice).await.len(), 1);
    // Who comes now is sent away.
    let (mut ours, theirs) = tokio::io::duplex(1024);
    let transport = Transport::new(world.env.clone(), Box::new(theirs), PEER);
    serve(world.services.clone(), transport, Protocol::Smtp).await;
    let mut text = String::new();
    ours.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("421 4.3.2"), "{text}");
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let world = World::new().await;
    let mut client = world.connect(Protocol::Smtp).await;
    client
        .send(
            b"MAIL FROM:<x@remote.example>\r\nRCPT TO:<alice@example.org>\r\n\
              RCPT TO:<nobody@example.org>\r\nDATA\r\n",
        )
        .await;
    for expected in ["250 2.1.0", "250 2.1.5", "550 5.1.1", "354"] {
        client.expect_reply(expected).await;
    }
    client.send(b"Subject: a\r\n\r\n.\r\nNOOP\r\nQUIT\r\n").await;
    for expected in ["250 2.0.0", "250 2.0.0", "221"] {
        client.expect_reply(expected).await;
    }
    client.expect_end().await;
    let rendered = world.services.metrics.render();
    for line in [
        "rookery_sessions_open{protocol=\"smtp\"} 0",
        "rookery_messages_received_total{protocol=\"smtp\",outcome=\"accepted\"} 1",
        "rookery_delivery_seconds_count 1",
        "rookery_smtp_command_seconds_count{command=\"RCPT\"} 2",
    ] {
        assert!(rendered.lines().any(|found| found == line), "no {line:?} in\n{rendered}");
    }
}
