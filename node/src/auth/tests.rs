//! Logins from end to end, over the memory engine and virtual time.

use std::{net::IpAddr, time::Duration};

use super::{
    testing::{ELSEWHERE, HOME, ScramClient, World},
    *,
};

const NAME: &str = "user@example.org";

fn tls() -> ChannelBinding {
    ChannelBinding::Tls { exporter: Some([7; 32]), end_point: Some(vec![9; 32]) }
}

/// A step or an outcome, in short.
fn told(step: Step) -> String {
    match step {
        Step::Challenge(text) => format!("+ {}", String::from_utf8(text).unwrap()),
        Step::Done(identity) => format!("done {}", identity.name),
        Step::Failed(error) => format!("failed: {error}"),
    }
}

fn short(result: Result<Identity, AuthError>) -> String {
    told(match result {
        Ok(identity) => Step::Done(identity),
        Err(error) => Step::Failed(error),
    })
}

/// Plays a dialogue: each pair is what the client sends, and what it is told.
async fn check(world: &World, mechanism: &str, dialogue: &[(Option<&str>, &str)]) {
    let mut exchange = world.auth.begin(mechanism, HOME, &tls()).unwrap();
    for (input, expected) in dialogue {
        let step = exchange.step(input.map(str::as_bytes)).await;
        assert_eq!(told(step), *expected, "{mechanism} {input:?}");
    }
}

#[tokio::test]
async fn plain_dialogues() {
    let world = World::new().await;
    let bad = "failed: unknown name or wrong password";
    let parts = "failed: malformed authentication: PLAIN takes three parts";
    let empty = "failed: malformed authentication: PLAIN takes a name and a password";
    let other = "failed: logging in as somebody else is not allowed";
    let done = "done user@example.org";
    for (message, expected) in [
        ("\0user@example.org\0pencil", done),
        ("\0User@Example.ORG\0pencil", done),
        ("\0alias@example.org\0pencil", done),
        ("user@example.org\0user@example.org\0pencil", done),
        ("alias@example.org\0alias@example.org\0pencil", done),
        ("user@example.org\0alias@example.org\0pencil", done),
        ("other@example.org\0user@example.org\0pencil", other),
        ("other@example.org\0user@example.org\0wrong", bad),
        ("\0user@example.org\0wrong", bad),
        ("\0nobody@example.org\0pencil", bad),
        ("\0user\0pencil", bad),
        ("\0user@example.org\0", empty),
        ("\0\0pencil", empty),
        ("", parts),
        ("user@example.org\0pencil", parts),
        ("\0user@example.org\0pen\0cil", parts),
    ] {
        check(&world, "PLAIN", &[(Some(message), expected)]).await;
        check(&world, "PLAIN", &[(None, "+ "), (Some(message), expected)]).await;
    }
    let long = format!("\0{NAME}\0{}", "x".repeat(limits::PASSWORD_BYTES_MAX + 1));
    check(&world, "PLAIN", &[(Some(&long), bad)]).await;
    let over = "x".repeat(limits::RESPONSE_BYTES_MAX + 1);
    let too_long = "failed: malformed authentication: the response is too long";
    check(&world, "PLAIN", &[(Some(&over), too_long)]).await;
    let ended = "failed: malformed authentication: the response does not belong here";
    check(&world, "PLAIN", &[(Some("\0user@example.org\0pencil"), done), (Some(""), ended)]).await;
}

#[tokio::test]
async fn login_dialogues() {
    let world = World::new().await;
    let done = "done user@example.org";
    let (user, pass) = ("+ Username:", "+ Password:");
    let malformed = "failed: malformed authentication: LOGIN takes a name in UTF-8";
    check(&world, "LOGIN", &[(None, user), (Some(NAME), pass), (Some("pencil"), done)]).await;
    check(&world, "LOGIN", &[(Some(""), user), (Some(NAME), pass), (Some("pencil"), done)]).await;
    check(&world, "LOGIN", &[(Some(NAME), pass), (Some("pencil"), done)]).await;
    check(&world, "LOGIN", &[(None, user), (Some(""), malformed)]).await;
    let bad = "failed: unknown name or wrong password";
    check(&world, "LOGIN", &[(Some(NAME), pass), (Some(""), bad)]).await;
    check(&world, "LOGIN", &[(Some(NAME), pass), (Some("pencil2"), bad)]).await;
}

#[test]
fn mechanisms_fit_the_channel() {
    assert_eq!(mechanisms(&ChannelBinding::None), ["SCRAM-SHA-256"]);
    assert_eq!(mechanisms(&tls()), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]);
    let unbound = ChannelBinding::Tls { exporter: None, end_point: None };
    assert_eq!(mechanisms(&unbound), ["SCRAM-SHA-256", "PLAIN", "LOGIN"]);
}

#[tokio::test]
async fn only_what_the_channel_carries_begins() {
    let world = World::new().await;
    let begins =
        |name: &str, channel: &ChannelBinding| world.auth.begin(name, HOME, channel).is_some();
    assert!(begins("SCRAM-SHA-256-PLUS", &tls()));
    assert!(!begins("SCRAM-SHA-256-PLUS", &ChannelBinding::None));
    assert!(!begins("SCRAM-SHA-1", &tls()) && !begins("CRAM-MD5", &tls()) && !begins("", &tls()));
}

/// Runs SCRAM to its end; what the server said last, and whether it proved itself.
async fn scram(
    world: &World,
    mechanism: &str,
    peer: IpAddr,
    mut client: ScramClient,
) -> (String, bool) {
    let mut exchange = world.auth.begin(mechanism, peer, &tls()).unwrap();
    let first = match exchange.step(Some(client.first().as_bytes())).await {
        Step::Challenge(message) => String::from_utf8(message).unwrap(),
        other => return (told(other), false),
    };
    let last = client.last(&first);
    let server_final = match exchange.step(Some(last.as_bytes())).await {
        Step::Challenge(message) => String::from_utf8(message).unwrap(),
        other => return (told(other), false),
    };
    let proved = client.accepts(&server_final);
    let said = told(exchange.step(Some(b"")).await);
    (if proved { said } else { format!("{server_final} {said}") }, proved)
}

#[tokio::test]
async fn scram_dialogues() {
    let world = World::new().await;
    let bad = "e=invalid-proof failed: unknown name or wrong password";
    let unbound = "failed: channel binding does not match";
    let unequal = "e=channel-bindings-dont-match failed: channel binding does not match";
    let misfit = "failed: malformed authentication: \
                  the channel binding flag does not fit the mechanism";
    let other = "failed: logging in as somebody else is not allowed";
    let (plain, plus) = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS");
    let (exporter, end_point) = (&[7; 32][..], &[9; 32][..]);
    for (mechanism, name, password, header, binding, expected) in [
        (plain, NAME, "pencil", "n,,", &[][..], "done user@example.org"),
        (plain, "alias@example.org", "pencil", "n,,", &[], "done user@example.org"),
        (plain, NAME, "pencil", "n,a=user@example.org,", &[], "done user@example.org"),
        (plain, NAME, "pencil", "n,a=other@example.org,", &[], other),
        (plain, NAME, "wrong", "n,,", &[], bad),
        (plain, "nobody@example.org", "pencil", "n,,", &[], bad),
        (plain, NAME, "pencil", "y,,", &[], unbound),
        (plain, NAME, "pencil", "p=tls-exporter,,", exporter, misfit),
        (plus, NAME, "pencil", "p=tls-exporter,,", exporter, "done user@example.org"),
        (plus, NAME, "pencil", "p=tls-server-end-point,,", end_point, "done user@example.org"),
        (plus, NAME, "wrong", "p=tls-exporter,,", exporter, bad),
        (plus, NAME, "pencil", "p=tls-exporter,,", end_point, unequal),
        (plus, NAME, "pencil", "p=tls-server-end-point,,", exporter, unequal),
        (plus, NAME, "pencil", "p=tls-unique,,", exporter, unbound),
        (plus, NAME, "pencil", "n,,", &[], misfit),
        (plus, NAME, "pencil", "y,,", &[], misfit),
    ] {
        let client = ScramClient::new(name, password, header, binding);
        let (said, proved) = scram(&world, mechanism, HOME, client).await;
        assert_eq!(said, expected, "{mechanism} {name} {password} {header}");
        assert_eq!(proved, expected.starts_with("done"), "{expected}");
    }
}

#[tokio::test]
async fn scram_ends_with_an_empty_response_alone() {
    let world = World::new().await;
    let mut client = ScramClient::new(NAME, "pencil", "n,,", b"");
    let mut exchange = world.auth.begin("SCRAM-SHA-256", HOME, &tls()).unwrap();
    assert_eq!(told(exchange.step(None).await), "+ ");
    let Step::Challenge(first) = exchange.step(Some(client.first().as_bytes())).await else {
        panic!("no challenge");
    };
    let last = client.last(std::str::from_utf8(&first).unwrap());
    let Step::Challenge(server_final) = exchange.step(Some(last.as_bytes())).await else {
        panic!("no signature");
    };
    assert!(client.accepts(std::str::from_utf8(&server_final).unwrap()));
    let refused = "failed: malformed authentication: the response does not belong here";
    assert_eq!(told(exchange.step(Some(b"x")).await), refused);
    assert_eq!(told(exchange.step(Some(b"")).await), refused);
}

#[tokio::test]
async fn an_unknown_name_has_a_stable_salt_and_a_fresh_nonce() {
    let world = World::new().await;
    let mut challenges = Vec::new();
    for name in ["nobody@example.org", "nobody@example.org", "NOBODY@example.org", "x@example.org"]
    {
        let mut exchange = world.auth.begin("SCRAM-SHA-256", HOME, &ChannelBinding::None).unwrap();
        let first = ScramClient::new(name, "pencil", "n,,", b"").first();
        let told = told(exchange.step(Some(first.as_bytes())).await);
        let (nonce, rest) = told.split_once(',').unwrap();
        assert!(rest.ends_with(",i=15000"), "{rest}");
        challenges.push((nonce.to_owned(), rest.to_owned()));
    }
    assert_eq!(challenges[0].1, challenges[1].1);
    assert_eq!(challenges[0].1, challenges[2].1);
    assert_ne!(challenges[0].1, challenges[3].1);
    assert_ne!(challenges[0].0, challenges[1].0);
}

/// Fails once with a new password, and returns how long the answer took.
async fn fail(world: &World, name: &str, peer: IpAddr, guess: u64) -> Duration {
    let mut since = Duration::ZERO;
    world.clock.take_slept(&mut since);
    let guess = format!("guess {guess}");
    let result = world.auth.check_password(name, guess.as_bytes(), peer).await;
    assert!(matches!(result, Err(AuthError::BadCredentials)), "{result:?}");
    world.clock.take_slept(&mut since)
}

/// Counts failures as another node would.
async fn fail_elsewhere(world: &World, peer: IpAddr, subject: keys::Subject, times: u64) {
    let hour = Hour::at(world.auth.shared.env.wall());
    for _ in 0..times {
        throttle::record(&world.db, hour, Network::of(peer), subject).await.unwrap();
    }
}

#[tokio::test]
async fn failures_are_slowed_alike_for_known_and_unknown_names() {
    let world = World::new().await;
    for name in [NAME, "nobody@example.org"] {
        let mut delays = Vec::new();
        for guess in 0..7 {
            delays.push(fail(&world, name, HOME, guess).await.as_secs());
        }
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 15], "{name}");
    }
    assert_eq!(fail(&world, NAME, ELSEWHERE, 0).await, Duration::from_secs(2), "a known guess");
    assert_eq!(fail(&world, NAME, ELSEWHERE, 100).await, Duration::ZERO, "a new one elsewhere");
    // An alias is no fresh start.
    assert_eq!(fail(&world, "alias@example.org", HOME, 101).await, limits::DELAY_MAX);
}

#[tokio::test]
async fn a_pair_over_its_limit_is_refused_and_nobody_else() {
    let world = World::new().await;
    let owner = keys::Subject::account(world.account);
    fail_elsewhere(&world, ELSEWHERE, owner, limits::PAIR_FAILURES_MAX).await;
    let refused = world.auth.check_password(NAME, b"pencil", ELSEWHERE).await;
    let Err(AuthError::TooManyFailures { retry_after }) = refused else {
        panic!("{refused:?}");
    };
    assert!(retry_after <= Duration::from_secs(3600) && !retry_after.is_zero());
    let client = || ScramClient::new(NAME, "pencil", "n,,", b"");
    let (said, _) = scram(&world, "SCRAM-SHA-256", ELSEWHERE, client()).await;
    assert_eq!(said, "failed: too many failed logins");

    // The owner is elsewhere, and does not even wait.
    let mut since = Duration::ZERO;
    world.clock.take_slept(&mut since);
    let result = world.auth.check_password(NAME, b"pencil", HOME).await;
    assert_eq!(short(result), "done user@example.org");
    assert_eq!(scram(&world, "SCRAM-SHA-256", HOME, client()).await.0, "done user@example.org");
    assert_eq!(world.clock.take_slept(&mut since), Duration::ZERO);
    // Another guesser does wait: the account's failures are counted over all networks.
    let third = "203.0.113.9".parse().unwrap();
    assert_eq!(fail(&world, NAME, third, 0).await, limits::DELAY_MAX);
    // Other accounts are still open to the network.
    fail(&world, "nobody@example.org", ELSEWHERE, 0).await;

    // The refusal ends by itself.
    world.clock.advance(Duration::from_secs(2 * 3600));
    let result = world.auth.check_password(NAME, b"pencil", ELSEWHERE).await;
    assert_eq!(short(result), "done user@example.org");
}

#[tokio::test]
async fn a_network_over_its_limit_is_refused_for_every_name() {
    let world = World::new().await;
    let near = "2001:db8::1".parse().unwrap();
    let same = "2001:db8::ffff:2".parse().unwrap();
    let far = "2001:db8:0:1::1".parse().unwrap();
    for guess in 0..limits::NETWORK_FAILURES_MAX {
        let subject = keys::Subject::unknown(&guess.to_string());
        fail_elsewhere(&world, near, subject, 1).await;
    }
    for peer in [near, same] {
        let refused = world.auth.check_password(NAME, b"pencil", peer).await;
        assert!(matches!(refused, Err(AuthError::TooManyFailures { .. })), "{refused:?}");
    }
    let result = world.auth.check_password(NAME, b"pencil", far).await;
    assert_eq!(short(result), "done user@example.org");
}

#[tokio::test]
async fn scram_failures_count_too_and_the_last_allowed_proof_is_refused_when_late() {
    let world = World::new().await;
    let mut since = Duration::ZERO;
    for expected in [0, 0, 1, 2] {
        let client = ScramClient::new(NAME, "wrong", "n,,", b"");
        scram(&world, "SCRAM-SHA-256", HOME, client).await;
        assert_eq!(world.clock.take_slept(&mut since).as_secs(), expected);
    }
    // A challenge taken before the limit is of no use after it.
    let mut client = ScramClient::new(NAME, "pencil", "n,,", b"");
    let mut exchange = world.auth.begin("SCRAM-SHA-256", HOME, &tls()).unwrap();
    let Step::Challenge(first) = exchange.step(Some(client.first().as_bytes())).await else {
        panic!("no challenge");
    };
    let owner = keys::Subject::account(world.account);
    fail_elsewhere(&world, HOME, owner, limits::PAIR_FAILURES_MAX).await;
    let last = client.last(std::str::from_utf8(&first).unwrap());
    let said = told(exchange.step(Some(last.as_bytes())).await);
    assert_eq!(said, "failed: too many failed logins");
}

#[tokio::test]
async fn a_proof_of_a_password_that_was_changed_meanwhile_is_refused() {
    let world = World::new().await;
    let mut client = ScramClient::new(NAME, "pencil", "n,,", b"");
    let mut exchange = world.auth.begin("SCRAM-SHA-256", HOME, &tls()).unwrap();
    let Step::Challenge(first) = exchange.step(Some(client.first().as_bytes())).await else {
        panic!("no challenge");
    };
    world.set_password("crayon").await;
    let last = client.last(std::str::from_utf8(&first).unwrap());
    assert_eq!(told(exchange.step(Some(last.as_bytes())).await), "+ e=invalid-proof");
    let bad = "failed: unknown name or wrong password";
    assert_eq!(told(exchange.step(Some(b"")).await), bad);
}

#[tokio::test]
async fn repeating_one_wrong_password_locks_nobody_out() {
    let world = World::new().await;
    fail(&world, NAME, HOME, 1).await;
    for _ in 0..2 * limits::PAIR_FAILURES_MAX {
        assert_eq!(fail(&world, NAME, HOME, 1).await, limits::REPEAT_DELAY);
    }
    let result = world.auth.check_password(NAME, b"pencil", HOME).await;
    assert_eq!(short(result), "done user@example.org");
}

#[tokio::test]
async fn a_changed_credential_counts_at_once() {
    let world = World::new().await;
    let login = async |password: &str| {
        short(world.auth.check_password(NAME, password.as_bytes(), HOME).await)
    };
    let (done, bad) = ("done user@example.org", "failed: unknown name or wrong password");
    assert_eq!(login("pencil").await, done);
    assert_eq!(login("pencil").await, done, "remembered");
    assert_eq!(login("crayon").await, bad);
    world.set_password("crayon").await;
    assert_eq!(login("pencil").await, bad);
    assert_eq!(login("crayon").await, done);
    world.disable().await;
    assert_eq!(login("crayon").await, "failed: the account is disabled");
    assert_eq!(login("pencil").await, bad, "only who knows the password learns that");
    let client = ScramClient::new(NAME, "crayon", "n,,", b"");
    let (said, _) = scram(&world, "SCRAM-SHA-256", HOME, client).await;
    assert_eq!(said, "failed: the account is disabled");
}

#[tokio::test]
async fn a_remembered_password_runs_no_hash() {
    let world = World::new().await;
    world.auth.check_password(NAME, b"pencil", HOME).await.unwrap();
    // All turns are taken, so whatever must be hashed waits in vain.
    let turns = u32::try_from(limits::VERIFICATIONS_MAX).unwrap();
    let taken = Arc::clone(&world.auth.shared.verifications).acquire_many_owned(turns).await;
    world.auth.check_password(NAME, b"pencil", HOME).await.unwrap();
    let busy = world.auth.check_password(NAME, b"crayon", HOME).await;
    assert!(matches!(busy, Err(AuthError::Busy)), "{busy:?}");
    drop(taken);
    world.clock.advance(limits::VERDICT_TIME);
    world.auth.check_password(NAME, b"pencil", HOME).await.unwrap();
}

#[tokio::test]
async fn a_credential_without_scram_keys_takes_passwords_alone() {
    let world = World::new().await;
    let mut credential = new_credential(&Env::system(), "pencil").await.unwrap();
    credential.scram_sha256 = None;
    world.set_credential(&credential).await;
    let client = ScramClient::new(NAME, "pencil", "n,,", b"");
    let (said, _) = scram(&world, "SCRAM-SHA-256", HOME, client).await;
    assert_eq!(said, "e=invalid-proof failed: unknown name or wrong password");
    world.auth.check_password(NAME, b"pencil", HOME).await.unwrap();
}

#[tokio::test]
async fn a_failure_that_cannot_be_counted_is_not_told() {
    let world = World::new().await;
    let env = Env::new(world.clock.clone());
    // Reads pass, and every write is refused.
    let faults = kv::Faults { conflict: kv::Probability::ALWAYS, ..kv::Faults::default() };
    let retry = kv::RetryPolicy { time_max: Duration::ZERO, ..Default::default() };
    let db = world.db.handle_with_faults(env.clone(), faults).with_retry(retry);
    let auth = Authenticator::new(db, env);
    let result = auth.check_password(NAME, b"pencil", HOME).await;
    assert_eq!(short(result), "done user@example.org");
    // The second time too: nothing uncounted was remembered.
    for name in [NAME, NAME, "nobody@example.org", "nobody@example.org"] {
        let result = auth.check_password(name, b"wrong", HOME).await;
        assert!(matches!(result, Err(AuthError::Store(_))), "{result:?}");
    }
}

#[tokio::test]
async fn sweeping_takes_old_counters_alone() {
    let world = World::new().await;
    let subjects = 600;
    for name in 0..subjects {
        let subject = keys::Subject::unknown(&name.to_string());
        fail_elsewhere(&world, HOME, subject, 1).await;
    }
    // One of the network, two of each subject: more than one transaction sweeps.
    world.clock.advance(Duration::from_secs(2 * 3600));
    assert_eq!(world.auth.sweep().await.unwrap(), 0, "late clocks may still read them");
    fail(&world, NAME, HOME, 0).await;
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.auth.sweep().await.unwrap(), 1 + 2 * subjects);
    assert_eq!(world.auth.sweep().await.unwrap(), 0);
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?}", tls());
    assert_eq!(shown, "Tls");
}
