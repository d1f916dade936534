//! What a development node starts with.

use mail::directory::ListKind;

use super::{Admin, AdminError, Password, accounts, domains, lists};

/// The domain of a development node.
pub const DOMAIN: &str = "example.org";

/// Its accounts.
pub const ACCOUNTS: [&str; 2] = ["alice@example.org", "bob@example.org"];

/// Which password a development node's accounts have.
#[derive(Debug, Clone)]
pub enum DevPassword {
    /// The given one, all of them.
    Given,
    /// All of them have the one that they were made with; nobody here knows it.
    Earlier,
    /// Those named were made just now, with this one. It is shown once.
    New(Password, Vec<&'static str>),
}

/// Makes the domain, the accounts and the postmaster that are missing. With `given` all accounts get it; without,
/// new ones get a random one.
///
/// # Errors
/// [`AdminError`].
pub async fn ensure(admin: &Admin, given: Option<&Password>) -> Result<DevPassword, AdminError> {
    match domains::add(admin, DOMAIN).await {
        Ok(_) | Err(AdminError::Exists(_)) => {}
        Err(error) => return Err(error),
    }
    let password = given.cloned().unwrap_or_else(|| Password::random(&admin.env));
    let mut made = Vec::new();
    for address in ACCOUNTS {
        let new = accounts::NewAccount {
            address: address.to_owned(),
            password: password.clone(),
            description: String::new(),
            quota_bytes: None,
        };
        match accounts::show(admin, address).await {
            Ok(_) if given.is_some() => accounts::set_password(admin, address, &password).await?,
            Ok(_) => {}
            Err(AdminError::Missing(_)) => {
                accounts::add(admin, &new).await?;
                made.push(address);
            }
            Err(error) => return Err(error),
        }
    }
    // RFC 5321 §4.5.1: every domain has one.
    let postmaster = format!("postmaster@{DOMAIN}");
    let target = [ACCOUNTS[0].to_owned()];
    match lists::add(admin, ListKind::Alias, &postmaster, &target).await {
        Ok(_) | Err(AdminError::Exists(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(match (given, made.is_empty()) {
        (Some(_), _) => DevPassword::Given,
        (None, true) => DevPassword::Earlier,
        (None, false) => DevPassword::New(password, made),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::memory, *};

    #[tokio::test]
    async fn the_first_start_makes_accounts_and_later_ones_keep_them() {
        let admin = memory();
        let first = ensure(&admin, None).await.unwrap();
        assert!(matches!(&first, DevPassword::New(_, made) if made == &ACCOUNTS));
        assert!(matches!(ensure(&admin, None).await.unwrap(), DevPassword::Earlier));
        accounts::remove(&admin, ACCOUNTS[1]).await.unwrap();
        let third = ensure(&admin, None).await.unwrap();
        assert!(matches!(&third, DevPassword::New(_, made) if made == &ACCOUNTS[1..]));
        let given = Password::new("given password".to_owned());
        assert!(matches!(ensure(&admin, Some(&given)).await.unwrap(), DevPassword::Given));
    }
}
