//! Where the running node's admin API is: `DATA/admin-url`.
//!
//! A hint for the command line. The store's lock tells whether a node runs; this only tells
//! where it listens.

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The file's name in the data folder.
const FILE: &str = "admin-url";

/// Writes where the API listens. Touches the disk.
///
/// # Errors
/// As the operating system reports them.
pub fn publish(data: &Path, address: SocketAddr) -> io::Result<()> {
    write_whole(&data.join(FILE), 0o644, &format!("{}\n", url(address)))
}

/// Says that nothing listens any more. Touches the disk.
///
/// # Errors
/// As the operating system reports them; a file that is not there is none.
pub fn withdraw(data: &Path) -> io::Result<()> {
    match fs::remove_file(data.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The URL of the API, where a node has written one. Touches the disk.
///
/// # Errors
/// As the operating system reports them.
pub fn find(data: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(data.join(FILE))?.trim_end().to_owned())
}

/// A listening address as one that this machine can connect to.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// Writes a small file so that others see the old one or the whole new one, and never with
/// other permission bits than `mode`.
pub(super) fn write_whole(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    // What a crash left there may have other bits.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_found_until_it_is_withdrawn() {
        let data = tempfile::tempdir().unwrap();
        assert!(find(data.path()).is_err());
        publish(data.path(), "127.0.0.1:2080".parse().unwrap()).unwrap();
        publish(data.path(), "127.0.0.1:2081".parse().unwrap()).unwrap();
        assert_eq!(find(data.path()).unwrap(), "http://127.0.0.1:2081");
        withdraw(data.path()).unwrap();
        withdraw(data.path()).unwrap();
        assert!(find(data.path()).is_err());
    }

    #[test]
    fn an_address_that_listens_everywhere_is_reached_on_loopback() {
        let check = |address: &str, expected: &str| {
            assert_eq!(url(address.parse().unwrap()), expected);
        };
        check("0.0.0.0:8080", "http://127.0.0.1:8080");
        check("[::]:8080", "http://[::1]:8080");
        check("192.0.2.1:80", "http://192.0.2.1:80");
    }
}
