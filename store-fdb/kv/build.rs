//! Tells the linker where FoundationDB's client library is, where feature `fdb` wants it.
//!
//! Looked for in the folder that `ROOKERY_FDB_LIB` names, then in the usual ones. Where it is in
//! none of them the linker says so; checking and linting need no library.

use std::path::Path;

const USUAL: [&str; 4] = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu"];

fn main() {
    println!("cargo:rerun-if-env-changed=ROOKERY_FDB_LIB");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_FDB").is_none() {
        return;
    }
    let named = std::env::var("ROOKERY_FDB_LIB").ok();
    let folders = named.iter().map(String::as_str).chain(USUAL);
    for folder in folders {
        if Path::new(folder).join("libfdb_c.so").exists() {
            println!("cargo:rustc-link-search=native={folder}");
            // So that this package's tests find it too, wherever it is.
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
            return;
        }
    }
}
