//! Connections to a server in this process, on all terms.

use std::sync::Arc;

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
    match way.connect(&route, need).await {
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
    required: Result<(), &str>,
) {
    let (world, _server) = world(&zone, name, offers).await;
    let way = Way::new(&world.parts, DOMAIN);
    assert_eq!(connect(&world, &way, Need::Ordinary).await, Ok(ordinary));
    match (connect(&world, &way, Need::RequireTls).await, required) {
        (Ok(assurance), Ok(())) => assert_eq!(assurance, Assurance::Verified),
        (Err((Verdict::Failed(trouble), is_domains)), Err(words)) => {
            assert_eq!((trouble.status.as_str(), is_domains), ("5.7.30", false));
            assert!(trouble.words.contains(words), "{trouble:?}");
        }
        (found, expected) => panic!("{found:?} is not {expected:?}"),
    }
}

#[tokio::test]
async fn mail_that_requires_tls_goes_by_verified_tls_or_comes_back() {
    use Assurance::{Clear, Encrypted};
    check(signed(), HOST, Offers::RequireTls, Encrypted, Ok(())).await;
    check(signed(), HOST, Offers::StartTls, Encrypted, Err("does not offer REQUIRETLS")).await;
    check(signed(), HOST, Offers::Nothing, Clear, Err("does not offer it")).await;
    let other = "mx.example.org";
    check(signed(), other, Offers::RequireTls, Encrypted, Err("not for this name")).await;
    check(Zone::new(), HOST, Offers::RequireTls, Encrypted, Err("proves that it is a server"))
        .await;
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

/// A server that takes connections and says nothing.
async fn silent(env: &Env, last: u8, port: u16) -> Task<()> {
    let address = std::net::SocketAddr::from(([127, 0, 0, last], port));
    let listener = loop {
        // Another may have ended just now.
        match env.listen(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    env.spawn("silent", async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    })
}

#[tokio::test]
async fn servers_that_say_nothing_do_not_take_the_time_of_the_others_nor_more_than_there_is() {
    let zone = Zone::new();
    let (world, server) = world(&zone, HOST, Offers::Nothing).await;
    let port = world.parts.config.port;
    let mut others = Vec::new();
    for last in 2..5_u8 {
        let host = format!("mx{last}.example.net");
        zone.mx(DOMAIN, 5, &host).address(&host, [127, 0, 0, last]);
        others.push(silent(&world.env, last, port).await);
    }
    let way = Way::new(&world.parts, DOMAIN);
    let Parts { env, resolver, ourselves, .. } = &world.parts;
    let path = crate::settings::routes::Path::Direct;
    let route = route::by(path, env, resolver, DOMAIN, ourselves).await.unwrap();
    assert_eq!(route.hosts.last().map(String::as_str), Some(HOST));
    let time = Duration::from_secs(2);
    let found = way.connect_within(&route, Need::Ordinary, time).await;
    assert_eq!(found.map(|it| it.host.clone()).map_err(|it| it.verdict()), Ok(HOST.to_owned()));
    drop(server);
    others.push(silent(env, 1, port).await);
    let begun = env.monotonic();
    let found = way.connect_within(&route, Need::Ordinary, time).await;
    let took = env.monotonic().saturating_since(begun);
    let Err(unreached) = found else { panic!("a session") };
    assert!(unreached.trouble.words.ends_with("no session in time"), "{unreached:?}");
    assert!((time..time * 2).contains(&took), "{took:?}");
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
