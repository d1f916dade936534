use super::*;

#[test]
fn each_command_has_its_time() {
    let timed_out = |stage| format!("> failed timed out at {stage}\nX:");
    check(settings, &format!("! pass 100\n! timeout 200\n{}", timed_out("greeting")));
    check(
        settings,
        &format!("! pass 200\nS: 220 mx\nC: EHLO c.example\n! timeout 300\n{}", timed_out("EHLO")),
    );
    check(
        settings,
        &format!(
            "S: 220 mx
             C: EHLO c.example
             S: 250-mx
             S: 250 STARTTLS
             C: STARTTLS
             S: 220 go
             ! timeout 120
             {}",
            timed_out("TLS handshake")
        ),
    );
    let steps = [
        ("", 300, "MAIL"),
        ("! pass 50\nS: 250 ok\nC: RCPT TO:<r@x>", 300, "RCPT"),
        ("! pass 299\nS: 250 ok\nC: DATA", 120, "DATA"),
        ("S: 354 go\n> content Data [0]\n! pass 5000\n! content x\\r\\nC: x", 180, "content"),
        ("! sent\n! pass 5000\n! finish\nC: .", 600, "end of content"),
    ];
    for last in 0..steps.len() {
        let before: Vec<_> =
            steps[..=last].iter().map(|step| step.0.replace("\\r\\nC", "\\r\\n\nC")).collect();
        let (_, seconds, stage) = steps[last];
        let outcome = if stage == "end of content" { "unknown" } else { "not sent" };
        check_ready(
            settings,
            "",
            &format!(
                "! begin <s@y> <r@x>
                 C: MAIL FROM:<s@y>
                 {}
                 ! timeout {seconds}
                 > answered {outcome}
                 {}",
                before.join("\n"),
                timed_out(stage)
            ),
        );
    }
    check_ready(settings, "", "! pass 9999\n! quit\nC: QUIT\n! timeout 10\nX:");
}

#[test]
fn nothing_is_waited_for_between_transactions() {
    let mut run = Run::new(settings());
    run.feed(b"220 mx\r\n250 mx\r\n");
    for hours in 1..10 {
        run.now = Duration::from_secs(hours * 3600);
        run.client.handle_timeout(run.now);
        run.drain();
    }
    assert_eq!(run.events, ["ready"]);
    run.client.begin(run.now, transaction("<s@y> <r@x>")).expect("possible");
    run.drain();
    assert_eq!(run.wake, Some(run.now + Duration::from_secs(300)));
}

/// Octets that drip in are no reply.
#[test]
fn a_reply_begun_does_not_stop_the_clock() {
    let mut run = Run::new(settings());
    for second in 0..300 {
        run.now = Duration::from_secs(second);
        run.feed(b"2");
        if run.closed {
            break;
        }
        run.client.handle_timeout(run.now);
        run.drain();
    }
    run.now = Duration::from_secs(300);
    run.client.handle_timeout(run.now);
    run.drain();
    assert_eq!(run.events, ["failed timed out at greeting"]);
}
