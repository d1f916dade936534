//! What senders hear of their messages, and what servers are told to tell them.

use std::sync::{Arc, OnceLock};

use cluster::work::zone::Item;

use super::*;
use crate::deliver::outbound::{Body, ReturnContent, Submission};

/// What a sender asks for.
#[derive(Clone, Copy, Default)]
struct Asked {
    notify: Option<&'static str>,
    ret: Option<ReturnContent>,
}

fn asking(asked: Asked) -> impl FnOnce(&mut Submission) {
    move |submission| {
        submission.envelope_id = Some("QQ+2B1".to_owned());
        submission.return_content = asked.ret.unwrap_or(ReturnContent::Unspecified);
        for recipient in &mut submission.recipients {
            recipient.notify = asked.notify.map(str::to_owned);
            recipient.original = Some("rfc822;first+2Bperson@example.com".to_owned());
        }
    }
}

/// The one report that a message comes to, if any: each part of it.
async fn report(world: &World) -> Option<String> {
    let mut texts = world.texts().await;
    texts.retain(|(record, _)| record.sender.is_empty());
    assert!(texts.len() < 2, "{texts:?}");
    texts.pop().map(|(_, text)| text)
}

/// Sends one message, with delays told at once, until its first try is over.
async fn tried(manner: Manner, change: impl FnOnce(&mut Submission)) -> (World, Mx) {
    let mx = Mx::start(&Env::system(), manner).await;
    let world = world_with(mx.port, |outbound| outbound.delay_notice_seconds = 0).await;
    world.submit_as(1, &recipients(1), change).await;
    let runner = world.work(LONG);
    world.reach(DOMAIN, |queued| queued.iter().all(|(_, it)| it.tries > 0)).await;
    runner.stop().await;
    (world, mx)
}

fn refuses() -> Manner {
    Manner { rcpt: |_, _| "550 5.1.1 who", ..Manner::default() }
}

fn puts_off() -> Manner {
    Manner { rcpt: |_, _| "450 4.2.1 later", ..Manner::default() }
}

#[tokio::test]
async fn a_sender_hears_of_what_it_asked_for_and_of_nothing_else() {
    let takes = Manner::default;
    let failed = Some("Action: failed\r\nStatus: 5.1.1\r\n");
    let delayed = Some("Action: delayed\r\nStatus: 4.2.1\r\n");
    let relayed = Some("Action: relayed\r\nStatus: 2.0.0\r\n");
    for (manner, notify, expected) in [
        (refuses(), None, failed),
        (refuses(), Some("FAILURE"), failed),
        (refuses(), Some("SUCCESS,DELAY"), None),
        (refuses(), Some("NEVER"), None),
        (puts_off(), None, delayed),
        (puts_off(), Some("DELAY"), delayed),
        (puts_off(), Some("SUCCESS,FAILURE"), None),
        (puts_off(), Some("NEVER"), None),
        (takes(), None, None),
        (takes(), Some("SUCCESS"), relayed),
        (takes(), Some("FAILURE,DELAY"), None),
        (takes(), Some("NEVER"), None),
    ] {
        let (world, _mx) = tried(manner, asking(Asked { notify, ret: None })).await;
        let report = report(&world).await;
        match expected {
            None => assert_eq!(report, None, "{notify:?}"),
            Some(expected) => {
                let report = report.unwrap_or_else(|| panic!("{notify:?}: no report"));
                for part in [
                    expected,
                    "Original-Envelope-Id: QQ+1\r\n",
                    "Original-Recipient: rfc822; first+person@example.com\r\n",
                    "Final-Recipient: rfc822; r0@example.net\r\n",
                ] {
                    assert!(report.contains(part), "{notify:?}: no {part} in {report}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_knows_reports_is_told_what_the_sender_asked_for() {
    let knows = || Manner { offers: vec!["DSN"], ..Manner::default() };
    let notify = Some("SUCCESS,DELAY");
    let (world, mx) =
        tried(knows(), asking(Asked { notify, ret: Some(ReturnContent::Headers) })).await;
    assert_eq!(
        mx.letters()[0].envelope,
        [
            "MAIL FROM:<a@example.org> RET=HDRS ENVID=QQ+2B1",
            "RCPT TO:<r0@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2Bperson@example.com",
        ]
    );
    assert_eq!(report(&world).await, None, "it is the server's to tell");
    let (_world, mx) =
        tried(knows(), asking(Asked { notify: Some("NEVER"), ret: Some(ReturnContent::Full) }))
            .await;
    let envelope = mx.letters()[0].envelope.concat();
    assert!(envelope.contains(" RET=FULL ") && envelope.contains(" NOTIFY=NEVER "), "{envelope}");
}

#[tokio::test]
async fn what_comes_back_of_a_message_is_what_was_asked_for() {
    let header = "Content-Type: text/rfc822-headers\r\n\r\nSubject: 1\r\n\r\n--";
    let whole = "Content-Type: message/rfc822\r\n\r\nSubject: 1\r\n\r\nhello\r\n\r\n--";
    for (manner, ret, expected) in [
        (refuses(), Some(ReturnContent::Full), whole),
        (refuses(), Some(ReturnContent::Headers), header),
        (refuses(), None, header),
        // RFC 3461 §4.3: all of it where it failed.
        (puts_off(), Some(ReturnContent::Full), header),
    ] {
        let (world, _mx) = tried(manner, asking(Asked { notify: None, ret })).await;
        let report = report(&world).await.unwrap();
        assert!(report.contains(expected), "{ret:?}: {report}");
    }
    // Nobody takes such a message here, so it fails; and it could not be part of a report.
    let (world, _mx) = tried(Manner::default(), |submission| {
        submission.body = Body::BinaryMime;
        submission.return_content = ReturnContent::Full;
    })
    .await;
    let report = report(&world).await.unwrap();
    assert!(report.contains("Status: 5.6.3\r\n") && report.contains(header), "{report}");
    assert!(report.contains("is binary"), "{report}");
}

#[tokio::test]
async fn a_report_of_what_requires_tls_requires_it_too() {
    let zone = Zone::new();
    zone.secure(DOMAIN);
    let mx = Mx::start(&Env::system(), Manner::default()).await;
    let world = world_of(zone, mx.port, |_| {}).await;
    world
        .submit_as(1, &recipients(1), |submission| {
            submission.handling.tls = TlsWish::Required;
            submission.return_content = ReturnContent::Full;
        })
        .await;
    let runner = world.work(LONG);
    emptied(&world).await;
    runner.stop().await;
    let texts = world.texts().await;
    let [(record, text)] = &texts[..] else { panic!("{texts:?}") };
    assert!(record.require_tls && record.sender.is_empty(), "{record:?}");
    assert!(text.contains("Status: 5.7.10\r\n"), "{text}");
    // RFC 8689 §5: as if RET=HDRS had been asked for.
    assert!(!text.contains("hello"), "{text}");
    let (world, _mx) = tried(refuses(), |_| {}).await;
    assert!(world.texts().await.iter().all(|(record, _)| !record.require_tls));
}

#[tokio::test]
async fn a_report_says_by_when_its_sender_wanted_the_message_delivered() {
    let at = Timestamp::from_unix_ms(Env::system().wall().unix_ms() + 3_600_000);
    let by = Deadline { at, late: smtp::Late::Notify, trace: smtp::Trace::No };
    let (world, _mx) =
        tried(refuses(), |submission| submission.handling.deliver_by = Some(by)).await;
    let line = format!("Deliver-By-Date: {}\r\n", crate::date::rfc5322(at));
    let report = report(&world).await.unwrap();
    assert!(report.contains(&line), "{line} is not in {report}");
}

fn owes(queued: &[(Item, OutboundItem)]) -> bool {
    queued.iter().any(|(_, item)| !item.owed.is_empty())
}

#[tokio::test]
async fn a_success_that_cannot_be_told_now_is_told_later_and_nothing_is_sent_again() {
    let faults = Arc::new(OnceLock::<blob::BlobFaultHandle>::new());
    let away = Arc::clone(&faults);
    let break_blobs = move || {
        let all = BlobFaults { refused: BlobFaults::ALWAYS, ..BlobFaults::default() };
        away.get().unwrap().set(all);
    };
    let manner = Manner {
        // One has it, one does not, and the bytes for both reports are away.
        rcpt: |_, to| if to.starts_with("r0") { "250 ok" } else { "550 5.1.1 who" },
        meanwhile: Some(Arc::new(break_blobs)),
        ..Manner::default()
    };
    let mx = Mx::start(&Env::system(), manner).await;
    let world = world_at(mx.port).await;
    assert!(faults.set(world.sender.parts.blobs.faults()).is_ok());
    let notify = Some("SUCCESS,FAILURE");
    world.submit_as(1, &recipients(2), asking(Asked { notify, ret: None })).await;
    let runner = world.work(LONG);
    let left = world.reach(DOMAIN, owes).await;
    let [(item, message)] = &left[..] else { panic!("{left:?}") };
    let named = |list: &[_]| -> Vec<String> {
        list.iter()
            .map(|it: &crate::deliver::outbound::OutboundRecipient| it.address.clone())
            .collect()
    };
    assert_eq!(named(&message.owed), ["r0@example.net"]);
    assert_eq!(named(&message.recipients), ["r1@example.net"]);
    faults.get().unwrap().set(BlobFaults::default());
    let (now, due, id) = (world.env.wall(), item.due.unix_ms(), item.id.clone());
    let id = &id;
    let retry =
        |tx| async move { orders::give(&tx, DOMAIN, id, orders::Action::Retry, due, now).await };
    world.parts.db.run(retry).await.unwrap();
    emptied(&world).await;
    runner.stop().await;
    let report = report(&world).await.unwrap();
    let first = report.find("Final-Recipient: rfc822; r0@example.net\r\nAction: relayed\r\n");
    let second = report.find("Final-Recipient: rfc822; r1@example.net\r\nAction: failed\r\n");
    assert!(first.is_some() && second.is_some(), "{report}");
    assert!(report.contains("Remote-MTA: dns; mx.example.net\r\n"), "{report}");
    assert_eq!(mx.letters().len(), 1, "it came once");
}
