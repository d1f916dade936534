//! BIND, with a zone that it signed and one that it did not, or as a test says.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    Deadline,
    program::{find_server, succeed},
};

/// A DNS server; it ends when it is dropped.
#[derive(Debug)]
pub struct Bind {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Drop for Bind {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Bind {
    /// Starts one with the records of `signed`, signed, and those of `plain`; both as zone files have
    /// them, behind SOA and NS. `None` where it is not installed, which is said.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(signed: (&str, &str), plain: (&str, &str)) -> Option<Self> {
        let (named, keygen) = (find_server("named")?, find_server("dnssec-keygen")?);
        let signzone = find_server("dnssec-signzone")?;
        let folder = TempDir::new().expect("the temporary folder is writable");
        let path = folder.path();
        for (zone, records) in [signed, plain] {
            let head = "$TTL 300\n@ SOA ns root 1 3600 600 86400 300\n@ NS ns\nns A 127.0.0.1\n";
            let text = format!("$ORIGIN {zone}.\n{head}{records}");
            fs::write(path.join(zone), text).expect("the folder is ours");
        }
        let mut anchors = String::new();
        for kind in [&[][..], &["-f", "KSK"]] {
            let mut command = Command::new(&keygen);
            command
                .current_dir(path)
                .args(["-q", "-a", "ECDSAP256SHA256"])
                .args(kind)
                .arg(signed.0);
            let made = succeed(&mut command, b"");
            let key = fs::read_to_string(path.join(format!("{}.key", made.trim())));
            let key = key.expect("it has written the key that it names");
            for record in key.lines().filter(|line| !line.starts_with(';')) {
                anchors.push_str(&format!("{}\n", record.replacen(" IN ", " 300 IN ", 1)));
            }
        }
        fs::write(path.join("anchors"), anchors).expect("the folder is ours");
        let mut command = Command::new(&signzone);
        command.current_dir(path).args(["-S", "-q", "-o", signed.0, signed.0]);
        succeed(&mut command, b"");
        let clauses = format!(
            "zone \"{signed}\" {{ type primary; file \"{signed}.signed\"; }};\n\
             zone \"{plain}\" {{ type primary; file \"{plain}\"; }};\n",
            signed = signed.0,
            plain = plain.0,
        );
        Some(Self::run(&named, folder, &clauses, plain.0))
    }

    /// Starts one in a folder with these files, and these clauses of its configuration besides the options;
    /// one of them is for the zone. `None` where it is not installed, which is said.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start_with(files: &[(&str, &str)], clauses: &str, zone: &str) -> Option<Self> {
        let named = find_server("named")?;
        let folder = TempDir::new().expect("the temporary folder is writable");
        for (file, text) in files {
            fs::write(folder.path().join(file), text).expect("the folder is ours");
        }
        Some(Self::run(&named, folder, clauses, zone))
    }

    fn run(named: &Path, folder: TempDir, clauses: &str, zone: &str) -> Self {
        let (path, port) = (folder.path(), free_port());
        let config = format!(
            "options {{ directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
             recursion no; pid-file none; session-keyfile none; dnssec-validation no; }}; controls {{ }};\n\
             {clauses}",
            path.display(),
        );
        fs::write(path.join("named.conf"), config).expect("the folder is ours");
        let log = fs::File::create(path.join("log")).expect("the folder is ours");
        let child = Command::new(named)
            .args(["-g", "-n", "1", "-c"])
            .arg(path.join("named.conf"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it is installed");
        let bind = Self { child, folder, port };
        bind.wait(zone);
        bind
    }

    /// Where it listens, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder; `log` there is what it writes down.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The section of a node's configuration that makes it ask here and believe the signed zone.
    pub fn section(&self) -> String {
        let anchors = self.folder.path().join("anchors").display().to_string();
        format!("[dns]\nservers = [\"127.0.0.1:{}\"]\ntrust_anchor_file = {anchors:?}\n", self.port)
    }

    /// Waits until it answers for a zone.
    fn wait(&self, zone: &str) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        socket
            .set_read_timeout(Some(std::time::Duration::from_millis(100)))
            .expect("it is no zero");
        // RFC 1035 §4.1: one question, for the zone's SOA.
        let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in zone.split('.') {
            query.push(u8::try_from(label.len()).expect("a label is short"));
            query.extend_from_slice(label.as_bytes());
        }
        query.extend([0, 0, 6, 0, 1]);
        let deadline = Deadline::usual();
        loop {
            let mut answer = [0; 512];
            let asked = socket.send_to(&query, (Ipv4Addr::LOCALHOST, self.port));
            // The code in the header's fourth octet: 0 is an answer.
            if asked.is_ok() && matches!(socket.recv(&mut answer), Ok(12..) if answer[3] & 15 == 0)
            {
                return;
            }
            assert!(!deadline.is_over(), "BIND does not answer: {}", log(self.folder.path()));
        }
    }
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A port that was free for UDP and TCP a moment ago.
pub fn free_port() -> u16 {
    loop {
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = socket.local_addr().expect("it is bound").port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
