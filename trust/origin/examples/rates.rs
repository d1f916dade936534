//! How fast one core digests, signs, seals and judges: `cargo run --release -p origin --example rates`.

#![expect(clippy::print_stdout, reason = "it is what the program is for")]
#![expect(clippy::unwrap_used, reason = "what fails here ends the measurement")]

use dns::{Resolver, Zone};
use env::Env;
use origin::{Digester, DkimKey, Judge, Purpose, Signer, SigningKey, SpfVerdict};

const ROUNDS: u32 = 1_000;

fn told(env: &Env, what: &str, begin: env::Monotonic) {
    let each = (env.monotonic() - begin) / ROUNDS;
    println!(
        "{what}: {:.1} µs, {:.0} a second",
        each.as_secs_f64() * 1e6,
        1.0 / each.as_secs_f64()
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let env = Env::system();
    let rsa = SigningKey::generate_rsa(&env).await.unwrap();
    let keys = [("r", rsa), ("e", SigningKey::generate_ed25519(&env))];
    let zone = Zone::new();
    zone.txt("example.org", "v=spf1 include:spf.example.net mx a -all")
        .txt("spf.example.net", "v=spf1 ip4:192.0.2.0/24 -all")
        .txt("_dmarc.example.org", "v=DMARC1; p=reject");
    for (selector, key) in &keys {
        zone.txt(&format!("{selector}._domainkey.example.org"), key.record());
    }
    let judge = Judge::new(&env, Resolver::fixed(zone), "mx.example.net");
    let body = "A line of text as people write them, of about seventy characters.\r\n".repeat(60);
    let message = format!(
        "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: Lunch\r\n\
         Date: Mon, 1 Jan 2024 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n{body}"
    );
    println!("a message of {} bytes", message.len());

    let line = body.as_bytes();
    let begin = env.monotonic();
    let mut digester = Digester::new(Purpose::Sign);
    digester.write(b"From: ann@example.org\r\n\r\n");
    let mut bytes = 0;
    while bytes < 256 << 20 {
        digester.write(line);
        bytes += line.len();
    }
    let _digest = digester.finish();
    let seconds = (env.monotonic() - begin).as_secs_f64();
    println!("digesting: {:.0} MB a second", bytes as f64 / 1e6 / seconds);

    let mut signed = Vec::new();
    for (selector, key) in keys {
        let key = DkimKey { selector: selector.to_owned(), key };
        let name = key.key.algorithm().as_str();
        let signer = Signer::new("example.org", vec![key]);
        let begin = env.monotonic();
        let mut fields = String::new();
        for _ in 0..ROUNDS {
            let digest = Digester::whole(Purpose::Sign, message.as_bytes());
            fields = signer.sign(&digest, env.wall()).unwrap();
        }
        told(&env, &format!("signing, {name}"), begin);
        signed.push((name, format!("{fields}{message}")));
    }
    for (name, message) in signed {
        let begin = env.monotonic();
        for _ in 0..ROUNDS {
            let digest = Digester::whole(Purpose::Judge, message.as_bytes());
            judge.judge_message(&SpfVerdict::default(), &digest).await;
        }
        told(&env, &format!("judging, one signature, {name}"), begin);
    }
    let connection = judge.judge_connection("192.0.2.1".parse().unwrap(), "example.org").await;
    let begin = env.monotonic();
    for _ in 0..ROUNDS {
        judge.judge_sender(&connection, "ann@example.org").await;
    }
    told(&env, "SPF, two records", begin);
}
