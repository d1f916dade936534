//! Passwords: from standard input, the environment or the terminal.

use std::io::{self, BufRead, IsTerminal};

use node::admin::Password;
use zeroize::Zeroizing;

use crate::{args::PasswordArgs, error::CliError};

/// More than any password may have, so that a longer one is refused and not cut.
const LINE_BYTES_MAX: u64 = 4096;

/// The variable that may hold the password.
const VARIABLE: &str = "ROOKERY_PASSWORD";

/// Gets the password, in the order of the module's first line.
pub(crate) fn read(args: PasswordArgs) -> Result<Password, CliError> {
    if args.password_stdin {
        return first_line(io::stdin().lock());
    }
    match std::env::var(VARIABLE) {
        Ok(password) => Ok(Password::new(password)),
        Err(_) if io::stdin().is_terminal() => ask(),
        Err(_) => Err(CliError::Usage(format!(
            "no terminal to ask for a password: use --password-stdin or set {VARIABLE}"
        ))),
    }
}

fn first_line(input: impl BufRead) -> Result<Password, CliError> {
    let mut line = Zeroizing::new(String::new());
    input.take(LINE_BYTES_MAX).read_line(&mut line).map_err(CliError::Password)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    Ok(Password::new(password.to_owned()))
}

fn ask() -> Result<Password, CliError> {
    let prompt = |text| rpassword::prompt_password(text).map(Zeroizing::new);
    let first = prompt("Password: ").map_err(CliError::Password)?;
    let second = prompt("The same again: ").map_err(CliError::Password)?;
    if first != second {
        return Err(CliError::Usage("the two passwords differ".to_owned()));
    }
    Ok(Password::new(first.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_end_is_cut_off() {
        let check = |input: &str, expected: &str| {
            assert_eq!(first_line(input.as_bytes()).unwrap().reveal(), expected);
        };
        check("secret\n", "secret");
        check("secret\r\nmore\n", "secret");
        check(" two words ", " two words ");
        check("", "");
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
