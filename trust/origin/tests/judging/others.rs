//! What we sign and seal, verified by dkimpy, and the other way round. Skipped where no Python has it
//! (Debian: `python3-dkim`, `python3-nacl`).

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use dns::Resolver;
use origin::{ArcResult, Digester, DkimResult, Purpose};

use crate::{
    messages::{MESSAGE, World},
    suites::report,
};

/// Reads records (name, tab, text; a line each), a blank line and a message, and prints what it finds.
const VERIFY: &str = r"
import sys, dkim
data = sys.stdin.buffer.read()
records, message = data.split(b'\n\n', 1)
table = dict(line.split(b'\t', 1) for line in records.split(b'\n'))
look = lambda name, timeout=5: table.get((name if isinstance(name, bytes) else name.encode()).rstrip(b'.'))
checked = dkim.DKIM(message, minkey=1024)
for at in range(int(sys.argv[1])):
    try:
        print('dkim', checked.verify(idx=at, dnsfunc=look))
    except dkim.ValidationError:
        print('dkim False')
print('arc', dkim.arc_verify(message, dnsfunc=look)[0])
";

/// Reads a key (PEM) and a message, and prints the message as it is signed.
const SIGN: &str = r"
import sys, dkim
data = sys.stdin.buffer.read()
key, message = data.split(b'\n\n', 1)
for header in (b'simple', b'relaxed'):
    for body in (b'simple', b'relaxed'):
        field = dkim.sign(message, b'other', b'example.org', key, canonicalize=(header, body))
        message = field + message
sys.stdout.buffer.write(message)
";

/// A Python that has dkimpy.
fn python() -> Option<PathBuf> {
    let has = |python: &PathBuf| {
        let mut import = Command::new(python);
        import.args(["-c", "import dkim, nacl"]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].map(PathBuf::from).into_iter().find(has);
    if found.is_none() {
        report("skipped: no Python with dkimpy");
    }
    found
}

fn run(python: &PathBuf, script: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(python)
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[tokio::test]
async fn another_program_verifies_what_we_sign_and_seal() {
    let Some(python) = python() else { return };
    let world = World::new();
    let signer = world.signer("example.org").await;
    let now = world.env.wall();
    let mut message =
        MESSAGE.replace("\r\n\r\nShall", "\r\n\r\n  Tabs\t and  blanks \r\n\r\nShall");
    let digest = Digester::whole(Purpose::Sign, message.as_bytes());
    message = format!("{}{message}", signer.sign(&digest, now).unwrap());
    for _ in 0..3 {
        let chain = world.verdicts(&message).await.arc;
        let digest = Digester::whole(Purpose::Sign, message.as_bytes());
        let told = ["spf=pass smtp.mailfrom=a@example.org".to_owned()];
        let sealed = signer.seal(&digest, &chain, "example.org", &told, now).unwrap().unwrap();
        message = format!("{sealed}{message}");
    }
    let resolver = Resolver::fixed(world.zone.clone());
    let mut input = Vec::new();
    for selector in ["r", "e"] {
        let name = format!("{selector}._domainkey.example.org");
        let record = resolver.txt(&name).await.unwrap().records.remove(0);
        input.extend([name.as_bytes(), b"\t", &record, b"\n"].concat());
    }
    input.extend(b"\n");
    let good = run(&python, VERIFY, &["2"], &[&input, message.as_bytes()].concat());
    let told = String::from_utf8(good).unwrap();
    assert_eq!(told, "dkim True\ndkim True\narc b'pass'\n");
    let changed = message.replace("Shall we", "Shall I");
    let bad = run(&python, VERIFY, &["2"], &[&input, changed.as_bytes()].concat());
    assert_eq!(String::from_utf8(bad).unwrap(), "dkim False\ndkim False\narc b'fail'\n");
}

#[tokio::test]
async fn we_verify_what_another_program_signs() {
    let Some(python) = python() else { return };
    let world = World::new();
    let key = origin::SigningKey::generate_rsa(&world.env).await.unwrap();
    world.zone.txt("other._domainkey.example.org", key.record());
    let input = [pem(&key.to_pkcs8()).as_bytes(), b"\n", MESSAGE.as_bytes()].concat();
    let signed = String::from_utf8(run(&python, SIGN, &[], &input)).unwrap();
    let found = world.verdicts(&signed).await;
    let results: Vec<_> = found.dkim.iter().map(|it| it.result).collect();
    assert_eq!(results, [DkimResult::Pass; 4], "{signed}");
    assert_eq!(found.arc.result, ArcResult::None);
}

/// RFC 7468.
fn pem(pkcs8: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(pkcs8);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
    format!("{begin}\n{}\n{end}\n", lines.join("\n"))
}
