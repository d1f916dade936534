//! Postfix as another provider's server: its own configuration, queue and mailbox in a temporary folder, a
//! port of loopback's. The system's own Postfix is not touched.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    Deadline,
    program::{find_server, run},
    report,
    smtp::Smtp,
};

/// Where Debian has its programs.
const DAEMONS: &str = "/usr/lib/postfix/sbin";

const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
";

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The certificate, and its issuers'.
    pub chain: String,
    /// The key.
    pub key: String,
}

/// A running Postfix; it ends when it is dropped.
#[derive(Debug)]
pub struct Postfix {
    child: Child,
    folder: TempDir,
    program: PathBuf,
}

impl Postfix {
    /// Whether it can be run here; says so where not.
    pub fn is_here() -> bool {
        let is_root = fs::metadata("/proc/self")
            .is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
        if !is_root {
            report("skipped: Postfix needs root");
        }
        let has_daemons = Path::new(DAEMONS).join("master").is_file();
        if !has_daemons {
            report("skipped: no Postfix on this machine");
        }
        is_root && has_daemons && find_server("postfix").is_some()
    }

    /// Starts one that takes mail for `carol` in these domains, and knows nobody else.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(port: u16, domains: &[&str], shown: &Shown) -> Self {
        let program = find_server("postfix").expect("it was looked for");
        let folder = TempDir::new().expect("the temporary folder is writable");
        let path = folder.path();
        // Its processes run as a user of their own.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, open).expect("the folder is ours");
        let (user, group) = user();
        for name in ["conf", "queue", "data", "mail"] {
            fs::create_dir(path.join(name)).expect("the folder is ours");
        }
        for name in ["data", "mail"] {
            chown(path.join(name), Some(user), Some(group)).expect("we are root");
        }
        let write = |name: &str, text: &str| {
            fs::write(path.join(name), text).expect("the folder is ours");
        };
        write("cert.pem", &shown.chain);
        write("key.pem", &shown.key);
        write("conf/users", "/^carol@/ box/\n");
        write("conf/master.cf", &format!("{port} inet n - n - - smtpd\n{SERVICES}"));
        let at = path.display();
        let temporary = std::env::temp_dir();
        write(
            "conf/main.cf",
            &format!(
                "compatibility_level = 3.6\nqueue_directory = {at}/queue\ndata_directory = {at}/data\n\
                 command_directory = /usr/sbin\ndaemon_directory = {DAEMONS}\n\
                 maillog_file = {at}/log\nmaillog_file_prefixes = {temporary}\n\
                 myhostname = postfix.test\nmydestination =\nalias_maps =\nalias_database =\n\
                 inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
                 default_transport = error\nrelay_transport = error\n\
                 smtpd_relay_restrictions = reject_unauth_destination\n\
                 virtual_mailbox_domains = {domains}\nvirtual_mailbox_maps = regexp:{at}/conf/users\n\
                 virtual_mailbox_base = {at}/mail\nvirtual_minimum_uid = 1\n\
                 virtual_uid_maps = static:{user}\nvirtual_gid_maps = static:{group}\n\
                 smtpd_tls_cert_file = {at}/cert.pem\nsmtpd_tls_key_file = {at}/key.pem\n\
                 smtpd_tls_security_level = may\nsmtpd_tls_received_header = yes\n",
                temporary = temporary.display(),
                domains = domains.join(", "),
            ),
        );
        let child = Command::new(&program)
            .arg("-c")
            .arg(path.join("conf"))
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        let postfix = Self { child, folder, program };
        let deadline = Deadline::usual();
        while Smtp::connect(port).is_err() {
            assert!(!deadline.is_over(), "Postfix does not answer: {}", postfix.log());
            std::thread::yield_now();
        }
        postfix
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// All messages that it has delivered to `carol`.
    pub fn mails(&self) -> Vec<String> {
        let folder = self.folder.path().join("mail/box/new");
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let read = |entry: fs::DirEntry| fs::read(entry.path()).ok();
        entries.filter_map(read).map(|mail| String::from_utf8_lossy(&mail).into_owned()).collect()
    }

    /// Waits for the message with this in it.
    ///
    /// # Panics
    /// Where none comes.
    pub fn mail(&self, part: &str) -> String {
        let deadline = Deadline::usual();
        loop {
            if let Some(mail) = self.mails().into_iter().find(|mail| mail.contains(part)) {
                return mail;
            }
            assert!(!deadline.is_over(), "no {part} in {:#?}\n{}", self.mails(), self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // It knows its processes; ours is the first of them.
        let mut stop = Command::new(&self.program);
        run(stop.arg("-c").arg(self.folder.path().join("conf")).arg("abort"), b"");
        let _ended = self.child.wait();
    }
}

/// The ids of the user that Postfix runs as.
fn user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("every system has it");
    let line = users.lines().find(|line| line.starts_with("postfix:"));
    let mut fields = line.expect("its package makes it").split(':').skip(2);
    let mut id = || fields.next().and_then(|id| id.parse().ok()).expect("ids are numbers");
    (id(), id())
}
