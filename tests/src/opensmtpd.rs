//! OpenSMTPD as another provider's server. Its package cannot stand beside Postfix's, so it is taken from
//! an unpacked one, and runs in a mount namespace of its own, in which its users and its fixed folders are.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{Deadline, postfix::Shown, report, smtp::Smtp};

/// Names the folder that the package was unpacked into.
const GIVEN: &str = "ROOKERY_OPENSMTPD";

/// A running OpenSMTPD; it ends when it is dropped.
#[derive(Debug)]
pub struct OpenSmtpd {
    child: Child,
    folder: TempDir,
}

impl OpenSmtpd {
    /// Starts one that takes mail for `carol` in these domains and offers STARTTLS. `None` where there is
    /// none, which is said.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(port: u16, domains: &[&str], shown: &Shown) -> Option<Self> {
        let unpacked = std::env::var_os(GIVEN)
            .map(PathBuf::from)
            .filter(|at| at.join("usr/sbin/smtpd").is_file());
        let Some(unpacked) = unpacked else {
            report(&format!("skipped: no OpenSMTPD ({GIVEN} names no folder with its package)"));
            return None;
        };
        if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|it| it.success()) {
            report("skipped: OpenSMTPD needs root and mount namespaces");
            return None;
        }
        let folder = TempDir::new().expect("the temporary folder is writable");
        let path = folder.path();
        let mode = |at: &Path, mode: u32| {
            fs::set_permissions(at, fs::Permissions::from_mode(mode)).expect("the folder is ours");
        };
        mode(path, 0o755);
        let write = |name: &str, text: &str| {
            fs::write(path.join(name), text).expect("the folder is ours");
        };
        for name in ["box", "home"] {
            fs::create_dir(path.join(name)).expect("the folder is ours");
            mode(&path.join(name), 0o777);
        }
        write("cert.pem", &shown.chain);
        write("key.pem", &shown.key);
        mode(&path.join("key.pem"), 0o600);
        let at = path.display();
        let domains: Vec<_> = domains.iter().map(|domain| format!("{domain:?}")).collect();
        write(
            "smtpd.conf",
            &format!(
                "pki shown cert \"{at}/cert.pem\"\npki shown key \"{at}/key.pem\"\n\
                 table users {{ carol = \"9903:9903:{at}/home\" }}\n\
                 listen on 127.0.0.1 port {port} tls pki shown hostname opensmtpd.test\n\
                 action keep maildir \"{at}/box\" userbase <users>\n\
                 match from any for domain {{ {} }} action keep\n",
                domains.join(", ")
            ),
        );
        write("run", &script(path, &unpacked));
        let log = fs::File::create(path.join("log")).expect("the folder is ours");
        let child = Command::new("unshare")
            .args(["-m", "sh"])
            .arg(path.join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it was just run");
        let server = Self { child, folder };
        let deadline = Deadline::usual();
        while Smtp::connect(port).is_err() {
            assert!(!deadline.is_over(), "OpenSMTPD does not answer: {}", server.log());
            std::thread::yield_now();
        }
        Some(server)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits for the first message that it delivers to `carol`.
    ///
    /// # Panics
    /// Where none comes.
    pub fn mail(&self) -> String {
        let deadline = Deadline::usual();
        loop {
            let found = fs::read_dir(self.folder.path().join("box/new"));
            let mail = found.into_iter().flatten().filter_map(Result::ok).next();
            if let Some(mail) = mail.and_then(|mail| fs::read(mail.path()).ok()) {
                return String::from_utf8_lossy(&mail).into_owned();
            }
            assert!(!deadline.is_over(), "no mail has come: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for OpenSmtpd {
    fn drop(&mut self) {
        // Its other processes end with the first.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Within its namespace: its users, and the folders that are built into it.
fn script(folder: &Path, unpacked: &Path) -> String {
    let mut users = String::new();
    for (name, id) in [("opensmtpd", 9901), ("opensmtpq", 9902), ("carol", 9903)] {
        users.push_str(&format!(
            "echo '{name}:x:{id}:{id}::/var/lib/opensmtpd/empty:/usr/sbin/nologin' >> passwd\n\
             echo '{name}:x:{id}:' >> group\n"
        ));
    }
    format!(
        "set -e\ncd {folder}\nmount --make-rprivate / || true\ncp /etc/passwd /etc/group .\n{users}\
         mount --bind passwd /etc/passwd\nmount --bind group /etc/group\n\
         for at in /var/spool /var/lib /run /usr/libexec; do mount -t tmpfs -o mode=755 none $at; done\n\
         mkdir -p /var/lib/opensmtpd/empty\nmkdir -m 711 /var/spool/smtpd\n\
         cp -a {unpacked}/usr/libexec/opensmtpd /usr/libexec/\n\
         exec {unpacked}/usr/sbin/smtpd -d -f {folder}/smtpd.conf\n",
        folder = folder.display(),
        unpacked = unpacked.display(),
    )
}
