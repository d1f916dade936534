use super::*;

#[test]
fn greeting() {
    check(
        settings,
        "S: 220-mx.example
         S: 220 ESMTP
         C: EHLO c.example
         S: 250 mx.example
         > ready
         ! quit
         C: QUIT
         S: 221 bye
         X:",
    );
    check(
        settings,
        "S: 554 5.7.1 go away
         > failed refused at greeting: 554 5.7.1 go away
         C: QUIT
         X:",
    );
    check(
        settings,
        "S: 421 busy
         > failed the server closes the session at greeting: 421 busy
         X:",
    );
    check(
        settings,
        "S: 250 hello
         > failed protocol violation at greeting: unexpected reply code 250
         X:",
    );
    check(
        settings,
        "S: 220 hello
         C: EHLO c.example
         S: 451 4.3.0 later
         > failed refused at EHLO: 451 4.3.0 later
         C: QUIT
         X:",
    );
}

#[test]
fn an_old_server_is_told_helo() {
    check(
        settings,
        "S: 220 old
         C: EHLO c.example
         S: 502 what?
         C: HELO c.example
         S: 250 old
         > ready
         ! begin <s@y> <r@x> size=5 ret envid=1
         C: MAIL FROM:<s@y>
         S: 250 ok
         C: RCPT TO:<r@x>
         S: 250 ok
         C: DATA
         S: 354 go
         > content Data [0]
         ! content x\\r\\n
         C: x
         ! finish
         C: .
         S: 250 got it
         > answered accepted 250 got it",
    );
    check(
        lmtp,
        "S: 220 old
         C: LHLO c.example
         S: 500 what?
         > failed refused at EHLO: 500 what?
         C: QUIT
         X:",
    );
    check(
        || Settings { encryption: Encryption::Required, ..settings() },
        "S: 220 old
         C: EHLO c.example
         S: 500 what?
         C: HELO c.example
         S: 250 old
         > failed TLS is not offered
         C: QUIT
         X:",
    );
}

#[test]
fn starttls() {
    let secured = "S: 220 mx
         C: EHLO c.example
         S: 250-mx
         S: 250-REQUIRETLS
         S: 250 STARTTLS
         C: STARTTLS
         S: 220 go
         ! tls
         C: EHLO c.example
         S: 250-mx
         S: 250 SIZE 10
         > ready";
    check(settings, secured);
    check(|| Settings { encryption: Encryption::Required, ..settings() }, secured);
    // What was offered in clear is not offered any more.
    check(
        settings,
        &format!("{secured}\n! begin <> <r@x> requiretls\n> not begun: REQUIRETLS is not offered"),
    );
    let refused = "S: 220 mx
         C: EHLO c.example
         S: 250-mx
         S: 250 STARTTLS
         C: STARTTLS
         S: 454 4.7.0 no entropy";
    check(settings, &format!("{refused}\n> ready"));
    check(
        || Settings { encryption: Encryption::Required, ..settings() },
        &format!("{refused}\n> failed refused at STARTTLS: 454 4.7.0 no entropy\nC: QUIT\nX:"),
    );
    check(
        || Settings { encryption: Encryption::Never, ..settings() },
        "S: 220 mx
         C: EHLO c.example
         S: 250-mx
         S: 250 STARTTLS
         > ready",
    );
}

/// CVE-2011-0411 and its kin, from the other side.
#[test]
fn what_is_injected_behind_starttls_ends_the_session() {
    for injected in ["s: 2", "S: 250 mx", "S: 250-mx\nS: 250 AUTH PLAIN", "s: \\r\\n"] {
        check(
            settings,
            &format!(
                "S: 220 mx
                 C: EHLO c.example
                 S: 250-mx
                 S: 250 STARTTLS
                 C: STARTTLS
                 S: 220 go
                 {injected}
                 > failed protocol violation at TLS handshake: octets in clear before the TLS handshake
                 X:"
            ),
        );
    }
}

#[test]
fn implicit_tls() {
    let implicit = || Settings { encryption: Encryption::Implicit, ..settings() };
    check_ready(
        implicit,
        "REQUIRETLS,STARTTLS",
        "! begin <s@y> <r@x> requiretls
         C: MAIL FROM:<s@y> REQUIRETLS",
    );
}

#[test]
fn login_over_tls() {
    let with = |identity: &'static str, password: &'static str| {
        move || Settings {
            encryption: Encryption::Implicit,
            login: login(identity, password),
            ..settings()
        }
    };
    let hello = |mechanisms: &str| {
        format!("S: 220 mx\nC: EHLO c.example\nS: 250-mx\nS: 250 AUTH {mechanisms}")
    };
    let plain = hello("LOGIN PLAIN");
    check(with("u", "p"), &format!("{plain}\nC: AUTH PLAIN AHUAcA==\nS: 235 2.7.0 in\n> ready"));
    check(
        with("u", "p"),
        &format!(
            "{plain}
             C: AUTH PLAIN AHUAcA==
             S: 535 5.7.8 wrong
             > failed refused at AUTH: 535 5.7.8 wrong
             C: QUIT
             X:"
        ),
    );
    check(
        with("u", "p"),
        &format!(
            "{plain}
             C: AUTH PLAIN AHUAcA==
             S: 334 more
             > failed protocol violation at AUTH: unexpected reply code 334
             X:"
        ),
    );
    check(
        with("u", "p"),
        &format!(
            "{}
             C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: dQ==
             S: 334 UGFzc3dvcmQ6
             C: cA==
             S: 235 in
             > ready",
            hello("LOGIN SCRAM-SHA-256")
        ),
    );
    check(
        with("u", "p"),
        &format!("{}\n> failed no usable AUTH mechanism is offered\nC: QUIT\nX:", hello("GSSAPI")),
    );
}

#[test]
fn a_long_password_follows_the_command() {
    let password: &'static str = Box::leak("x".repeat(600).into_boxed_str());
    let encoded = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(format!("\0u\0{password}"))
    };
    check(
        || Settings { encryption: Encryption::Implicit, login: login("u", password), ..settings() },
        &format!(
            "S: 220 mx
             C: EHLO c.example
             S: 250-mx
             S: 250 AUTH PLAIN
             C: AUTH PLAIN
             s: 334 \\r\\n
             C: {encoded}
             S: 235 in
             > ready"
        ),
    );
}

#[test]
fn no_password_goes_in_clear() {
    let hello = "S: 220 mx\nC: EHLO c.example\nS: 250-mx\nS: 250 AUTH PLAIN";
    let clear = || Settings { login: login("u", "p"), ..settings() };
    check(clear, &format!("{hello}\n> failed login needs TLS\nC: QUIT\nX:"));
    check(
        || Settings { login_in_clear: LoginInClear::Allowed, ..clear() },
        &format!("{hello}\nC: AUTH PLAIN AHUAcA==\nS: 235 in\n> ready"),
    );
    assert!(login("", "p").is_none() && login("u", "").is_none() && login("u", "a\0b").is_none());
}

#[test]
fn debug_shows_no_password() {
    let settings = Settings {
        encryption: Encryption::Implicit,
        login: login("user", "hunter2"),
        ..settings()
    };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let mut client = Client::new(settings);
    client.handle_input(Duration::ZERO, b"220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n");
    let outputs: Vec<_> = std::iter::from_fn(|| client.poll_output()).collect();
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Send(octets) if octets.starts_with(b"AUTH")))
    );
    assert!(!format!("{client:?}{outputs:?}").contains("AHVzZXI"));
}
