//! What signing costs: making keys, and signatures a second on one core.
//!
//! `cargo run -p origin --example signing --release`

#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use env::Env;
use origin::{Algorithm, Digester, DkimKey, Purpose, Signer, SigningKey};

/// Signatures of each kind.
const ROUNDS: u32 = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let env = Env::system();
    let begun = env.monotonic();
    let rsa = SigningKey::generate_rsa(&env).await.expect("a key can be made");
    println!("making an RSA key: {:?}", env.monotonic().saturating_since(begun));
    let body = "a line of a message's body\r\n".repeat(40);
    let message = format!("From: a@example.org\r\nSubject: b\r\nDate: c\r\n\r\n{body}");
    let digest = Digester::whole(Purpose::Sign, message.as_bytes());
    for key in [rsa, SigningKey::generate_ed25519(&env)] {
        let name = match key.algorithm() {
            Algorithm::RsaSha256 => "RSA",
            Algorithm::Ed25519Sha256 => "Ed25519",
        };
        let signer = Signer::new("example.org", vec![DkimKey { selector: "s".to_owned(), key }]);
        let begun = env.monotonic();
        for _ in 0..ROUNDS {
            signer.sign(&digest, env.wall()).expect("the message has an author");
        }
        let each = env.monotonic().saturating_since(begun) / ROUNDS;
        println!("signing by {name}: {each:?}");
    }
}
