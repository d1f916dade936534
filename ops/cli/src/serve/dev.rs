//! What a node says when it is ready, and what a development node has for a first mail.

use std::net::SocketAddr;

use node::{
    admin::{
        Admin, Password,
        dev::{self, DevPassword},
    },
    config::Listen,
};

use crate::{error::CliError, output::Output};

/// The variable that may hold the accounts' password.
const VARIABLE: &str = "ROOKERY_DEV_PASSWORD";

/// Makes the development accounts.
pub(crate) async fn accounts(admin: &Admin) -> Result<DevPassword, CliError> {
    let given = std::env::var(VARIABLE).ok().map(Password::new);
    Ok(dev::ensure(admin, given.as_ref()).await?)
}

/// Prints the `ready` line, and for a development node who can log in, how to send and how to
/// read.
pub(crate) fn greet(
    output: &Output,
    listen: &Listen,
    password: Option<&DevPassword>,
) -> Result<(), CliError> {
    for line in lines(listen, password) {
        output.line(format_args!("{line}"))?;
    }
    Ok(())
}

fn lines(listen: &Listen, password: Option<&DevPassword>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(password) = password {
        lines.push(who(password));
    }
    lines.push(ready(listen));
    if let Some(password) = password {
        lines.extend(listen.smtp.first().map(send));
        lines.extend(listen.imaps.first().map(|address| read(address, password)));
    }
    lines
}

fn who(password: &DevPassword) -> String {
    let all = dev::ACCOUNTS.join(" and ");
    match password {
        DevPassword::Given => format!("accounts: {all}, with the password in {VARIABLE}"),
        DevPassword::Earlier => format!(
            "accounts: {all}, with the password shown at their first start; \
             set {VARIABLE} for a new one"
        ),
        DevPassword::New(password, made) => format!(
            "accounts: {}, with the password {} (shown only now)",
            made.join(" and "),
            password.reveal()
        ),
    }
}

fn ready(listen: &Listen) -> String {
    let ports = [
        ("SMTP", &listen.smtp),
        ("submission", &listen.submission),
        ("submissions", &listen.submissions),
        ("LMTP", &listen.lmtp),
        ("IMAP", &listen.imap),
        ("IMAPS", &listen.imaps),
        ("HTTP", &listen.http),
    ];
    let shown: Vec<String> = ports
        .iter()
        .flat_map(|(name, addresses)| addresses.iter().map(move |at| format!("{name} {at}")))
        .collect();
    format!("ready: {}", shown.join(", "))
}

fn send(smtp: &SocketAddr) -> String {
    let [alice, bob] = dev::ACCOUNTS;
    format!(
        "send: printf 'From: {bob}\\nTo: {alice}\\nSubject: hello\\n\\nHello Alice\\n' | \
         curl -sS --crlf smtp://{smtp} --mail-from {bob} --mail-rcpt {alice} -T -"
    )
}

fn read(imaps: &SocketAddr, password: &DevPassword) -> String {
    let [alice, _] = dev::ACCOUNTS;
    let user = match password {
        DevPassword::Given => format!("\"{alice}:${VARIABLE}\""),
        DevPassword::New(password, made) if made.contains(&alice) => {
            format!("{alice}:{}", password.reveal())
        }
        // curl asks for what is missing.
        DevPassword::New(..) | DevPassword::Earlier => alice.to_owned(),
    };
    format!("read: curl -sSk -u {user} 'imaps://{imaps}/INBOX;MAILINDEX=*'")
}

#[cfg(test)]
mod tests {
    use node::config::{Config, PortBase};

    use super::*;

    fn listen() -> Listen {
        Config::dev(Some("/tmp/x".into()), PortBase::default()).unwrap().listen
    }

    #[test]
    fn a_development_node_says_how_to_send_and_read() {
        let password = DevPassword::New(Password::new("pw".to_owned()), dev::ACCOUNTS.to_vec());
        let lines = lines(&listen(), Some(&password));
        assert_eq!(lines.len(), 4);
        assert!(lines[0].contains("password pw (shown only now)"), "{}", lines[0]);
        assert!(lines[1].starts_with("ready"), "{}", lines[1]);
        assert!(lines[1].contains("SMTP 127.0.0.1:2525, "), "{}", lines[1]);
        assert!(lines[2].contains("smtp://127.0.0.1:2525 "), "{}", lines[2]);
        let url = "-u alice@example.org:pw 'imaps://127.0.0.1:2993/INBOX";
        assert!(lines[3].contains(url), "{}", lines[3]);
    }

    #[test]
    fn a_given_password_is_not_shown() {
        let lines = lines(&listen(), Some(&DevPassword::Given));
        assert!(
            lines[3].contains("-u \"alice@example.org:$ROOKERY_DEV_PASSWORD\""),
            "{}",
            lines[3]
        );
    }

    #[test]
    fn a_configured_node_says_one_line() {
        let lines = lines(&Listen { imap: Vec::new(), ..Listen::default() }, None);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("ready: SMTP [::]:25, "), "{}", lines[0]);
        assert!(!lines[0].contains("IMAP ["), "{}", lines[0]);
    }
}
