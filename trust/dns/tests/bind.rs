//! Against BIND with zones that it signed itself, by NSEC and by NSEC3. Skipped where `named`,
//! `dnssec-keygen` and `dnssec-signzone` are not installed (Debian: `bind9`, `bind9-utils`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dns::{LookupError, Resolver, Security, Settings, TrustAnchors, Unavailable};
use env::Env;

const ZONE: &str = "\
$TTL 300
@ SOA ns root 1 3600 600 86400 300
@ NS ns
@ MX 10 mail
ns A 127.0.0.1
mail A 192.0.2.1
mail AAAA 2001:db8::1
_25._tcp.mail TLSA 3 1 1 0101010101010101010101010101010101010101010101010101010101010101
big TXT \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"
near CNAME mail
gone CNAME missing
far CNAME host.plain
off CNAME missing.plain
*.wild A 192.0.2.4
taken.wild TXT taken
deep.er.name A 192.0.2.5
plain NS ns.plain
ns.plain A 127.0.0.1
";

/// Delegations of the first zone alone.
const SIGNED_CHILDREN: &str = "\
child NS ns.child
ns.child A 127.0.0.1
broken NS ns.broken
ns.broken A 127.0.0.1
";

const PLAIN: &str = "\
$TTL 300
@ SOA ns root 1 3600 600 86400 300
@ NS ns
ns A 127.0.0.1
host A 192.0.2.2
back CNAME mail.nsec.
";

/// It ends when it is dropped.
struct Bind {
    child: Child,
    _folder: tempfile::TempDir,
    address: SocketAddr,
    anchors: String,
}

impl Drop for Bind {
    fn drop(&mut self) {
        // It is ours, and it may have ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Signs a zone, and gives its keys as trust anchors.
fn sign(
    folder: &Path,
    zone: &str,
    records: &str,
    keygen: &Path,
    signzone: &Path,
    more: &[&str],
) -> String {
    let big =
        format!("big TXT {}\n", "\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\" ".repeat(60));
    fs::write(folder.join(zone), format!("$ORIGIN {zone}.\n{records}{big}")).unwrap();
    let keys = |kind: &[&str]| {
        let arguments = ["-q", "-a", "ECDSAP256SHA256"];
        let made =
            run(Command::new(keygen).current_dir(folder).args(arguments).args(kind).arg(zone));
        fs::read_to_string(folder.join(format!("{}.key", made.trim()))).unwrap()
    };
    let keys = [keys(&[]), keys(&["-f", "KSK"])].concat();
    run(Command::new(signzone)
        .current_dir(folder)
        .args(["-S", "-q", "-o", zone])
        .args(more)
        .arg(zone));
    let records = keys.lines().filter(|line| !line.starts_with(';'));
    // As a zone file has them, with a time to live.
    records.map(|record| format!("{}\n", record.replacen(" IN ", " 300 IN ", 1))).collect()
}

async fn start(env: &Env) -> Option<Bind> {
    let programs = ["named", "dnssec-keygen", "dnssec-signzone"].map(find);
    let [Some(named), Some(keygen), Some(signzone)] = programs else {
        let _nobody_there =
            std::io::stderr().write_all(b"skipped: BIND and its tools are not installed\n");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // The children first: the parent takes over what they say of their keys (`-g`).
    for child in ["child.nsec", "broken.nsec"] {
        sign(path, child, PLAIN, &keygen, &signzone, &[]);
    }
    let dsset = path.join("dsset-broken.nsec.");
    let keys = fs::read_to_string(&dsset).unwrap();
    let digest = keys.trim_end().rsplit([' ', '\t']).next().unwrap();
    let other: String = digest.chars().rev().collect();
    fs::write(&dsset, keys.replace(digest, &other)).unwrap();
    let parent = format!("{ZONE}{SIGNED_CHILDREN}");
    let anchors = [
        sign(path, "nsec", &parent, &keygen, &signzone, &["-g"]),
        sign(path, "nsec3", ZONE, &keygen, &signzone, &["-3", "abcd", "-H", "0"]),
    ]
    .concat();
    let address =
        env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap().local_address().unwrap();
    let mut config = format!(
        "options {{ directory \"{}\"; listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
         recursion no; pid-file none; session-keyfile none; dnssec-validation no; }}; controls {{ }};\n",
        path.display(),
        address.port()
    );
    for zone in ["child.nsec", "broken.nsec"] {
        config.push_str(&format!("zone \"{zone}\" {{ type primary; file \"{zone}.signed\"; }};\n"));
    }
    for zone in ["nsec", "nsec3"] {
        let plain = format!("plain.{zone}");
        fs::write(path.join(&plain), format!("$ORIGIN {plain}.\n{PLAIN}")).unwrap();
        config.push_str(&format!("zone \"{zone}\" {{ type primary; file \"{zone}.signed\"; }};\n"));
        config.push_str(&format!("zone \"{plain}\" {{ type primary; file \"{plain}\"; }};\n"));
    }
    fs::write(path.join("named.conf"), config).unwrap();
    let log = fs::File::create(path.join("log")).unwrap();
    let child = Command::new(named)
        .args(["-g", "-n", "1", "-c"])
        .arg(path.join("named.conf"))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Some(Bind { child, _folder: folder, address, anchors })
}

fn resolver(env: &Env, bind: &Bind) -> Resolver {
    let settings = Settings {
        servers: vec![bind.address],
        trust_anchors: TrustAnchors::Records(bind.anchors.clone()),
        timeout: Duration::from_secs(8),
        ..Settings::default()
    };
    Resolver::new(env, &settings).unwrap()
}

/// Completes once the server answers.
async fn ready(env: &Env, bind: &Bind) {
    let begin = env.monotonic();
    loop {
        // A new one each time, because failures are remembered.
        match resolver(env, bind).mx("nsec").await {
            Ok(_) => return,
            Err(LookupError::Temporary(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert!(env.monotonic() - begin < Duration::from_secs(60), "BIND does not answer");
        env.sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn zones_that_bind_signed_are_validated() {
    let env = Env::system();
    let Some(bind) = start(&env).await else { return };
    ready(&env, &bind).await;
    let resolver = resolver(&env, &bind);
    for zone in ["nsec", "nsec3"] {
        let of = |host: &str| format!("{host}.{zone}");
        let (secure, insecure) = (Security::Secure, Security::Insecure);
        let mx = resolver.mx(zone).await.unwrap();
        assert_eq!((mx.security, mx.records[0].exchange.as_str()), (secure, &*of("mail")));
        let addresses = resolver.addresses(&of("near")).await.unwrap();
        assert_eq!((addresses.security, addresses.records.len()), (secure, 2), "{zone}");
        let tlsa = resolver.tlsa(&of("_25._tcp.mail")).await.unwrap();
        assert_eq!((tlsa.security, tlsa.records.len()), (secure, 1));
        let big = resolver.txt(&of("big")).await.unwrap();
        assert_eq!((big.security, big.records.len()), (secure, 2), "over TCP");

        let denied =
            |security| (LookupError::NoName { security }, LookupError::NoRecords { security });
        let (no_name, no_records) = denied(secure);
        let error = async |host: &str| resolver.tlsa(&of(host)).await.unwrap_err();
        assert_eq!(error("missing").await, no_name, "{zone}");
        assert_eq!(error("_25._tcp.missing").await, no_name, "{zone}");
        assert_eq!(error("gone").await, no_name, "{zone}");
        assert_eq!(error("mail").await, no_records, "{zone}");
        assert_eq!(error("near").await, no_records, "{zone}");
        assert_eq!(error("er.name").await, no_records, "{zone}: there is a name below it");
        assert_eq!(error("any.wild").await, no_records, "{zone}: by a wildcard");

        for host in ["any.wild", "a.b.wild"] {
            let found = resolver.ipv4(&of(host)).await;
            assert_eq!(found.map(|answer| answer.security), Ok(secure), "{host} in {zone}");
        }
        assert_eq!(resolver.ipv4(&of("taken.wild")).await, Err(no_records), "{zone}");

        let (no_name, no_records) = denied(insecure);
        let far = resolver.ipv4(&of("far")).await.unwrap();
        assert_eq!((far.security, far.alias_security), (insecure, secure), "{zone}");
        assert_eq!(resolver.ipv4(&of("host.plain")).await.unwrap().security, insecure);
        assert_eq!(error("off").await, no_name, "{zone}");
        assert_eq!(error("missing.plain").await, no_name, "{zone}");
        assert_eq!(error("host.plain").await, no_records, "{zone}");
        let back = resolver.ipv4(&of("back.plain")).await.unwrap();
        assert_eq!((back.security, back.canonical.as_str()), (insecure, "mail.nsec"));
    }
    // A chain of trust over a delegation, and one that breaks there.
    let child = resolver.ipv4("host.child.nsec").await.unwrap();
    assert_eq!(child.security, Security::Secure);
    let back = resolver.ipv4("back.child.nsec").await.unwrap();
    assert_eq!((back.security, back.canonical.as_str()), (Security::Secure, "mail.nsec"));
    let security = Security::Secure;
    let missing = resolver.ipv4("missing.child.nsec").await;
    assert_eq!(missing, Err(LookupError::NoName { security }));
    assert_eq!(resolver.ipv4("host.broken.nsec").await, Err(LookupError::Bogus));
    assert_eq!(resolver.ipv4("missing.broken.nsec").await, Err(LookupError::Bogus));
    // BIND refuses what it has no zone of.
    let refused = resolver.mx("elsewhere.example").await;
    assert_eq!(refused, Err(LookupError::Temporary(Unavailable::ServersFailed)));
}
