use super::*;
use crate::config::{DeliverByOffer, FutureRelease, Offer};
use crate::handling::{DateTime, DeliverBy, Hold, HoldSeconds, Priority, RequireTls};

fn offering(tls: TlsState) -> Config {
    Config {
        tls,
        extensions: Extensions {
            require_tls: Offer::Yes,
            priority: Offer::Yes,
            deliver_by: Some(DeliverByOffer { seconds_min: 60 }),
            future_release: Some(FutureRelease {
                interval_max: HoldSeconds::new(3600).expect("valid"),
                until_max: DateTime::parse("2026-11-23T06:00:00Z").expect("valid"),
            }),
        },
        ..exchange()
    }
}

/// [`check`] behind an answer to EHLO with all of these extensions.
fn check_offering(tls: TlsState, require_tls: &str, script: &str) {
    check(
        &offering(tls),
        &format!(
            "> connect
             S: 220 mx.example ESMTP ready
             C: EHLO c
             S: 250-mx.example
             S: 250-PIPELINING
             S: 250-SIZE 1000
             S: 250-8BITMIME
             S: 250-BINARYMIME
             S: 250-CHUNKING
             S: 250-SMTPUTF8
             S: 250-DSN
             S: 250-ENHANCEDSTATUSCODES
             {require_tls}
             S: 250-MT-PRIORITY
             S: 250-DELIVERBY 60
             S: 250-FUTURERELEASE 3600 2026-11-23T06:00:00Z
             S: 250 HELP
             {script}"
        ),
    );
}

#[test]
fn parameters_within_what_is_offered() {
    let accepted = |parameters: &str| {
        format!(
            "C: MAIL FROM:<s@y> {parameters}
             > mail <s@y>
             S: 250 2.1.0 Sender OK"
        )
    };
    for parameters in [
        "REQUIRETLS MT-PRIORITY=-9 BY=60;R HOLDFOR=3600",
        "BY=-5;NT HOLDUNTIL=2026-11-23T06:00:00Z",
        "holduntil=2026-11-23T07:00:00+01:00",
    ] {
        let tls = TlsState::Active(tls_info());
        check_offering(tls, "S: 250-REQUIRETLS", &accepted(parameters));
    }
}

#[test]
fn parameters_beyond_what_is_offered() {
    let refused = |parameter: &str, reply: &str| {
        check_offering(
            TlsState::Absent,
            "",
            &format!("C: MAIL FROM:<s@y> {parameter}\nS: {reply}"),
        );
    };
    for parameter in ["BY=59;R", "HOLDFOR=3601", "HOLDUNTIL=2026-11-23T06:00:01Z"] {
        refused(parameter, "501 5.5.4 Parameter beyond what is offered");
    }
    for parameter in [
        "MT-PRIORITY=10",
        "MT-PRIORITY",
        "BY=0;R",
        "HOLDFOR=0",
        "HOLDUNTIL=tomorrow",
        "HOLDFOR=5 HOLDUNTIL=2026-11-23T05:00:00Z",
        "BY=60;R BY=60;R",
    ] {
        refused(parameter, "501 5.5.4 Invalid arguments");
    }
    // RFC 8689 §2: there is no TLS.
    refused("REQUIRETLS", "555 5.5.4 Parameter not recognized");
    check_offering(
        TlsState::Active(tls_info()),
        "S: 250-REQUIRETLS",
        "C: MAIL FROM:<s@y> REQUIRETLS=yes\nS: 501 5.5.4 Invalid arguments",
    );
}

#[test]
fn a_driver_is_told_how_to_handle_a_message() {
    let mut session = Session::new(offering(TlsState::Active(tls_info())));
    let line = "MAIL FROM:<s@y> REQUIRETLS MT-PRIORITY=4 BY=120;RT HOLDFOR=60\r\n";
    session.handle_reply(Duration::ZERO, Reply::Accepted);
    let input = format!("EHLO c\r\n{line}");
    let _ = session.handle_input(Duration::ZERO, input.as_bytes());
    let mail = std::iter::from_fn(|| session.poll_output())
        .find_map(|output| match output {
            Output::Call(Call::Mail(mail)) => Some(mail),
            _ => None,
        })
        .expect("a transaction");
    assert_eq!(mail.require_tls, RequireTls::Yes);
    assert_eq!(mail.priority, Priority::new(4));
    assert_eq!(mail.deliver_by, DeliverBy::parse("120;RT"));
    assert_eq!(mail.hold, HoldSeconds::new(60).map(Hold::For));
}
