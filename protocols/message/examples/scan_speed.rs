//! Measures the scanner: `cargo run --release -p message --example scan_speed`.
//!
//! Prints MB/s for a 64 MiB part in each transfer encoding, pushed in 64 KiB pieces.
#![expect(clippy::print_stdout, reason = "it is a command line program")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::hint::black_box;
use std::time::Instant;

use message::{Limits, Scanner};

fn main() {
    for (encoding, line) in [
        ("8bit", "A line of text as people write it, with words and a few more of them.\r\n"),
        ("base64", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\r\n"),
        ("quoted-printable", "A line of t=65xt as people write it, =C3=BCber and a few more.=\r\n"),
    ] {
        let head = format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
             Content-Type: text/plain\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        );
        let body = line.repeat((64 << 20) / line.len());
        let started = Instant::now();
        let mut scanner = Scanner::new(Limits::default());
        scanner.push(head.as_bytes());
        for piece in body.as_bytes().chunks(64 << 10) {
            scanner.push(piece);
        }
        let scanned = black_box(scanner.finish());
        let seconds = started.elapsed().as_secs_f64();
        println!("{encoding}: {:.0} MB/s", scanned.size as f64 / 1e6 / seconds);
    }
}
