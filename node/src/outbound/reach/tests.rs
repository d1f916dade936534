//! Connections to a server in this process, on all terms.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dns::Zone;
use env::{Env, Stream, Task};
use kv::Subspace;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::outbound::{route, testing::World};

const DOMAIN: &str = "example.net";
const HOST: &str = "mx.example.net";

/// What a server offers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offers {
    Nothing,
    StartTls,
    RequireTls,
}

/// A server's side of a session up to its end, which is the client's QUIT or hanging up.
async fn serve(stream: Stream, acceptor: TlsAcceptor, offers: Offers) -> std::io::Result<()> {
    let mut stream = stream;
    stream.write_all(b"220 mx.example.net ESMTP\r\n").await?;
    let mut encrypted = false;
    loop {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).await?;
            line.push(byte[0]);
        }
        let verb = String::from_utf8_lossy(&line).split_whitespace().next().unwrap().to_owned();
        let answer: &[u8] = match verb.as_str() {
            "EHLO" if encrypted && offers == Offers::RequireTls => {
                b"250-mx.example.net\r\n250 REQUIRETLS\r\n"
            }
            "EHLO" if !encrypted && offers != Offers::Nothing => {
                b"250-mx.example.net\r\n250 STARTTLS\r\n"
            }
            "EHLO" => b"250 mx.example.net\r\n",
            "STARTTLS" => {
                stream.write_all(b"220 go ahead\r\n").await?;
                stream = Box::new(acceptor.accept(stream).await?);
                encrypted = true;
                continue;
            }
            _ => return stream.write_all(b"221 bye\r\n").await,
        };
        stream.write_all(answer).await?;
    }
}

/// A node that knows a domain with one server, whose certificate is for `name`.
async fn world(zone: &Zone, name: &str, offers: Offers) -> (World, Task<()>) {
    let env = Env::system();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![made.der().clone()];
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, der)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_address().unwrap().port();
    let task = env.spawn("server", async move {
        loop {
            let connection = listener.accept().await.unwrap();
            // The client's to end.
            let _ended = serve(connection.stream, acceptor.clone(), offers).await;
        }
    });
    zone.mx(DOMAIN, 10, HOST).address(HOST, [127, 0, 0, 1]);
    let world = World::new(zone.clone(), |config, folder| {
        let roots = folder.path().join("roots.pem");
        std::fs::write(&roots, made.pem()).unwrap();
        config.outbound.tls_roots = roots;
        config.outbound.port = port;
    });
    (world.await, task)
}

async fn connect(world: &World, way: &Way<'_>, need: Need) -> Result<Assurance, (Verdict, bool)> {
    let Parts { env, resolver, ourselves, .. } = &world.parts;
    let path = crate::settings::routes::Path::Direct;
    let route = route::by(path, env, resolver, DOMAIN, ourselves).await.unwrap();
    match way.connect(&route, need, &[]).await {
        Ok(connection) => {
            let assurance = connection.assurance();
            connection.close(&world.parts.security).await;
            Ok(assurance)
        }
        Err(unreached) => {
            let is_domains = unreached.is_domains();
            Err((unreached.verdict(), is_domains))
        }
    }
}

fn signed() -> Zone {
    let zone = Zone::new();
    zone.secure(DOMAIN);
    zone
}

/// What becomes of a connection for ordinary mail, and for mail that requires TLS.
async fn check(
    zone: Zone,
    name: &str,
    offers: Offers,
    ordinary: Assurance,
    required: Result<(), (&str, &str)>,
) {
    let (world, _server) = world(&zone, name, offers).await;
    let way = Way::new(&world.parts, DOMAIN);
    assert_eq!(connect(&world, &way, Need::Ordinary).await, Ok(ordinary));
    match (connect(&world, &way, Need::RequireTls).await, required) {
        (Ok(assurance), Ok(())) => assert_eq!(assurance, Assurance::Verified),
        (Err((Verdict::Failed(trouble), is_domains)), Err((status, words))) => {
            assert_eq!((trouble.status.as_str(), is_domains), (status, false));
            assert!(trouble.words.contains(words), "{trouble:?}");
        }
        (found, expected) => panic!("{found:?} is not {expected:?}"),
    }
}

#[tokio::test]
async fn mail_that_requires_tls_goes_by_verified_tls_or_comes_back() {
    use Assurance::{Clear, Encrypted};
    check(signed(), HOST, Offers::RequireTls, Encrypted, Ok(())).await;
    let check_refused = async |zone, name, offers, ordinary, status, words| {
        check(zone, name, offers, ordinary, Err((status, words))).await;
    };
    let words = "does not offer REQUIRETLS";
    check_refused(signed(), HOST, Offers::StartTls, Encrypted, "5.7.30", words).await;
    let words = "does not offer it";
    check_refused(signed(), HOST, Offers::Nothing, Clear, "5.7.10", words).await;
    let (other, words) = ("mx.example.org", "not for this name");
    check_refused(signed(), other, Offers::RequireTls, Encrypted, "5.7.10", words).await;
    let words = "proves that it is a server";
    check_refused(Zone::new(), HOST, Offers::RequireTls, Encrypted, "5.7.30", words).await;
}

#[tokio::test]
async fn where_nobody_answers_what_requires_tls_waits_and_others_are_not_in_its_trouble() {
    let (world, server) = world(&signed(), HOST, Offers::RequireTls).await;
    drop(server);
    let way = Way::new(&world.parts, DOMAIN);
    // The listener goes with its task.
    while connect(&world, &way, Need::Ordinary).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let (verdict, is_domains) = connect(&world, &way, Need::RequireTls).await.unwrap_err();
    assert!(matches!(verdict, Verdict::Deferred(_)) && !is_domains, "{verdict:?}");
    let (verdict, is_domains) = connect(&world, &way, Need::Ordinary).await.unwrap_err();
    assert!(matches!(verdict, Verdict::Deferred(_)) && is_domains, "{verdict:?}");
}

/// A server that takes connections and says nothing, or greets each after so long.
async fn slow(env: &Env, last: u8, port: u16, after: Option<Duration>) -> Task<()> {
    let address = std::net::SocketAddr::from(([127, 0, 0, last], port));
    let listener = loop {
        // Another may have ended just now.
        match env.listen(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let own = env.clone();
    env.spawn("slow", async move {
        let mut held = Vec::new();
        loop {
            let mut stream = listener.accept().await.unwrap().stream;
            let greeting = own.clone();
            held.push(own.spawn("greeting", async move {
                let Some(after) = after else { return std::future::pending().await };
                greeting.sleep(after).await;
                let mut heard = [0; 512];
                // Whoever does not wait for it is gone.
                for line in ["220 slow ESMTP\r\n", "250 slow\r\n", "221 bye\r\n"] {
                    let said = stream.write_all(line.as_bytes()).await;
                    if said.is_err() || stream.read(&mut heard).await.is_err() {
                        return;
                    }
                }
            }));
        }
    })
}

/// Servers of the domain before the usual one, each of which behaves so.
async fn worlds_of_slow(after: &[Option<Duration>]) -> (World, Task<()>, Vec<Task<()>>) {
    let zone = Zone::new();
    let (world, server) = world(&zone, HOST, Offers::Nothing).await;
    let mut others = Vec::new();
    for (preference, after) in after.iter().enumerate() {
        let last = u8::try_from(preference + 2).unwrap();
        let host = format!("mx{last}.example.net");
        zone.mx(DOMAIN, u16::from(last), &host).address(&host, [127, 0, 0, last]);
        others.push(slow(&world.env, last, world.parts.config.port, *after).await);
    }
    (world, server, others)
}

async fn direct(world: &World) -> route::Route {
    let Parts { env, resolver, ourselves, .. } = &world.parts;
    let path = crate::settings::routes::Path::Direct;
    route::by(path, env, resolver, DOMAIN, ourselves).await.unwrap()
}

#[tokio::test]
async fn servers_that_say_nothing_do_not_hide_the_others_and_are_waited_for_as_long_as_is_their_right()
 {
    let (world, server, mut others) = worlds_of_slow(&[None, None, None]).await;
    let env = &world.env;
    let mut way = Way::new(&world.parts, DOMAIN);
    let route = direct(&world).await;
    assert_eq!(route.hosts.last().map(String::as_str), Some(HOST));
    let time = Duration::from_secs(1);
    let found = way.connect_within(&route, Need::Ordinary, &[], time).await;
    assert_eq!(found.map(|it| it.host.clone()).map_err(|it| it.verdict()), Ok(HOST.to_owned()));
    drop(server);
    others.push(slow(env, 1, world.parts.config.port, None).await);
    // All are called within their time, and each has its own for the greeting.
    way.timeouts.greeting = Duration::from_secs(2);
    let begun = env.monotonic();
    let found = way.connect_within(&route, Need::Ordinary, &[], time).await;
    let took = env.monotonic().saturating_since(begun);
    let Err(unreached) = found else { panic!("a session") };
    assert!(unreached.trouble.words.ends_with("timed out at greeting"), "{unreached:?}");
    assert!((way.timeouts.greeting..way.timeouts.greeting * 3).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_greeting_that_comes_after_the_next_server_was_called_is_taken() {
    let late = Duration::from_millis(700);
    let (world, server, _others) = worlds_of_slow(&[Some(late), None]).await;
    drop(server);
    let way = Way::new(&world.parts, DOMAIN);
    let route = direct(&world).await;
    let time = Duration::from_secs(1);
    let found = way.connect_within(&route, Need::Ordinary, &[], time).await;
    let first = Ok("mx2.example.net".to_owned());
    assert_eq!(found.map(|it| it.host.clone()).map_err(|it| it.verdict()), first);
}

#[tokio::test]
async fn connections_come_from_the_addresses_that_are_named_for_their_family() {
    let env = Env::system();
    let zone = Zone::new();
    let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_address().unwrap().port();
    zone.mx(DOMAIN, 10, HOST).address(HOST, [127, 0, 0, 1]);
    let named = ["127.0.0.7", "127.0.0.8", "::1"].map(|it| it.parse::<IpAddr>().unwrap());
    let world = World::new(zone, |config, _| {
        config.outbound.port = port;
        config.outbound.source_addresses = named.to_vec();
    });
    let world = world.await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let _task = env.spawn("server", async move {
        loop {
            let connection = listener.accept().await.unwrap();
            // It hangs up: who came is all that is wanted.
            tell.send(connection.peer.ip()).unwrap();
        }
    });
    let way = Way::new(&world.parts, DOMAIN);
    let route = direct(&world).await;
    let mut seen = std::collections::BTreeSet::new();
    // That one of two never comes is less likely than one in 10^18.
    for _ in 0..64 {
        assert!(way.connect(&route, Need::Ordinary, &[]).await.is_err());
        seen.insert(told.recv().await.unwrap());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), named[..2]);
}

#[tokio::test]
async fn mail_goes_over_ipv6() {
    let zone = Zone::new();
    let (world, server) = world(&zone, HOST, Offers::Nothing).await;
    drop(server);
    // Only this one answers, and only where AAAA is looked up.
    let port = world.parts.config.port;
    let listener = world.env.listen(SocketAddr::new("::1".parse().unwrap(), port)).await.unwrap();
    zone.address(HOST, "::1".parse::<IpAddr>().unwrap());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let _task = world.env.spawn("server", async move {
        let connection = listener.accept().await.unwrap();
        tell.send(connection.peer).unwrap();
        let mut stream = connection.stream;
        let mut heard = [0; 512];
        for line in ["220 six ESMTP\r\n", "250 six\r\n", "221 bye\r\n"] {
            stream.write_all(line.as_bytes()).await.unwrap();
            let _ended = stream.read(&mut heard).await.unwrap();
        }
    });
    let way = Way::new(&world.parts, DOMAIN);
    assert_eq!(connect(&world, &way, Need::Ordinary).await, Ok(Assurance::Clear));
    assert_eq!(told.recv().await.unwrap().ip(), "::1".parse::<IpAddr>().unwrap());
}

#[tokio::test]
async fn sessions_are_counted_where_the_domain_wants_reports() {
    for (wants, rows) in [(false, 0), (true, 1)] {
        let zone = Zone::new();
        if wants {
            zone.txt("_smtp._tls.example.net", "v=TLSRPTv1; rua=mailto:tls@example.net");
        }
        let (world, _server) = world(&zone, HOST, Offers::Nothing).await;
        let way = Way::new(&world.parts, DOMAIN);
        for _ in 0..3 {
            connect(&world, &way, Need::Ordinary).await.unwrap();
        }
        way.conclude().await;
        way.conclude().await;
        let found = world.rows(Subspace::TlsReport).await;
        assert_eq!(found.len(), rows);
        assert!(found.iter().all(|row| row.value[..] == 3_u64.to_le_bytes()));
    }
}

#[tokio::test]
async fn a_wrong_certificate_is_counted_under_its_policy_and_nothing_goes_there() {
    let zone = signed();
    zone.txt("_smtp._tls.example.net", "v=TLSRPTv1; rua=mailto:tls@example.net");
    let (world, _server) = world(&zone, HOST, Offers::StartTls).await;
    let port = world.parts.config.port;
    let tlsa = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
    zone.tlsa(&format!("_{port}._tcp.{HOST}"), tlsa);
    let way = Way::new(&world.parts, DOMAIN);
    // What wants no TLS goes there, with what TLS there is, and is not counted.
    assert_eq!(connect(&world, &way, Need::Nothing).await, Ok(Assurance::Encrypted));
    let (verdict, is_domains) = connect(&world, &way, Need::Ordinary).await.unwrap_err();
    let Verdict::Deferred(trouble) = verdict else { panic!("{verdict:?}") };
    assert_eq!((trouble.status.as_str(), is_domains), ("4.7.5", true));
    assert!(trouble.words.contains("does not match the domain's TLSA records"), "{trouble:?}");
    way.conclude().await;
    let day = tally::day_of(world.env.wall());
    let read = |tx| async move { tally::day(&tx, day, DOMAIN).await };
    let found = world.parts.db.run(read).await.unwrap();
    let key = (Policy::Tlsa, "validation-failure".to_owned(), HOST.to_owned());
    assert_eq!(found.counts, [(key, 1)].into());
    let line = format!("3 1 1 {}", "07".repeat(32));
    assert_eq!(found.policies[&Policy::Tlsa].strings, [line]);
}
