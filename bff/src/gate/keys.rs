//! The keys of applications: their names, scopes and secrets.

use std::fmt;

use carillon_service::filled;
use secrecy::{ExposeSecret, SecretString};
use strum::{EnumString, IntoStaticStr, VariantArray};
use subtle::ConstantTimeEq;

/// Minimum bytes of a secret; a shorter one can be guessed.
const SECRET_MIN_BYTES: usize = 16;
/// Maximum bytes of a key's name.
const NAME_MAX_BYTES: usize = 64;
/// Maximum number of keys: each is compared with every key that a request sends.
pub const KEYS_MAX: usize = 64;

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Scope {
    /// Publish to any audience, and set states of users.
    Publish,
    /// Read the data of users.
    Read,
    /// Revoke tokens and sessions.
    Revoke,
}

/// One key.
#[derive(Clone)]
pub(crate) struct ApiKey {
    /// The name, for the log.
    pub(crate) name: String,
    scopes: Vec<Scope>,
    secret: SecretString,
}

impl ApiKey {
    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// The scopes, for a message.
    pub(crate) fn scopes(&self) -> String {
        self.scopes.iter().map(|scope| scope.into_str()).collect::<Vec<_>>().join(" and ")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}: {})", self.name, self.scopes())
    }
}

/// All keys of a replica.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    /// Parses the entries of API_KEY: a secret, or `name:scope+scope:secret`. Empty entries are ignored.
    ///
    /// # Errors
    /// Names each unusable entry by its place, with the reason and without its secret.
    pub fn new(entries: &[SecretString]) -> anyhow::Result<Self> {
        let (mut keys, mut faults) = (Vec::<ApiKey>::new(), Vec::new());
        let filled = entries.iter().filter_map(|entry| filled(entry.expose_secret()));
        for (number, entry) in (1..).zip(filled) {
            match key(entry, number) {
                Ok(key) if keys.iter().any(|other| other.name == key.name) => {
                    faults.push(format!("API_KEY: key {number}: another key has the name {} too", key.name));
                }
                Ok(key)
                    if keys
                        .iter()
                        .any(|other| other.secret.expose_secret() == key.secret.expose_secret()) =>
                {
                    faults.push(format!("API_KEY: key {number}: another key has the same secret"));
                }
                Ok(key) => keys.push(key),
                Err(fault) => faults.push(format!("API_KEY: key {number}: {fault}")),
            }
        }
        if keys.len() > KEYS_MAX {
            faults.push(format!("API_KEY: {} keys, at most {KEYS_MAX}", keys.len()));
        }
        if faults.is_empty() { Ok(Self(keys)) } else { anyhow::bail!("{}", faults.join("\n")) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the name of a key.
    pub(crate) fn name(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(|key| key.name.as_str())
    }

    /// Returns the key with this secret, and its index. All keys are compared in constant time, so that the time does not
    /// depend on them.
    pub(crate) fn find(&self, given: &str) -> Option<(usize, &ApiKey)> {
        let is_it = |key: &ApiKey| bool::from(given.as_bytes().ct_eq(key.secret.expose_secret().as_bytes()));
        self.0.iter().enumerate().fold(None, |found, one| if is_it(one.1) { Some(one) } else { found })
    }
}

fn key(entry: &str, number: usize) -> Result<ApiKey, String> {
    let (name, scopes, secret) = match entry.split_once(':') {
        None => (format!("key-{number}"), Scope::VARIANTS.to_vec(), entry),
        Some((name, rest)) => {
            let (scopes, secret) = rest
                .split_once(':')
                .ok_or("write name:scope+scope:secret, or a secret without a colon in it".to_owned())?;
            (name_of(name)?, scopes_of(scopes)?, secret.trim())
        }
    };
    if secret.len() < SECRET_MIN_BYTES {
        return Err(format!(
            "a secret has at least {SECRET_MIN_BYTES} bytes (a comma ends it), this one has {}: generate one with `openssl rand -hex 32`",
            secret.len()
        ));
    }
    let secret = secret.into();
    Ok(ApiKey { name, scopes, secret })
}

/// A name appears in log lines.
fn name_of(name: &str) -> Result<String, String> {
    let name = name.trim();
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(is_sign) {
        return Ok(name.to_owned());
    }
    Err(format!("a name has 1 to {NAME_MAX_BYTES} letters, digits, dots, dashes and underscores"))
}

/// The message does not repeat an unknown scope: where a secret holds colons, it may be a part of the secret.
fn scopes_of(text: &str) -> Result<Vec<Scope>, String> {
    let scopes: Result<Vec<_>, _> = text.split('+').map(|word| word.trim().parse()).collect();
    scopes.map_err(|_| "scopes are publish, read and revoke, with + between".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn keys(text: &str) -> anyhow::Result<ApiKeys> {
        let secrets: Vec<SecretString> = text.split(',').map(|text| text.into()).collect();
        ApiKeys::new(&secrets)
    }

    #[test]
    fn a_key_is_a_secret_or_has_a_name_and_scopes() {
        let text = format!(" {SECRET} ,, shop:publish:{SECRET}:2 ,ops.1: read + revoke :{SECRET}3\n");
        let all = keys(&text).unwrap();
        let found = |secret: &str| {
            let (at, key) = all.find(secret)?;
            let may: Vec<_> = Scope::VARIANTS.iter().copied().filter(|scope| key.may(*scope)).collect();
            Some((at, key.name.clone(), may))
        };
        assert_eq!(found(SECRET), Some((0, "key-1".into(), Scope::VARIANTS.to_vec())));
        assert_eq!(found(&format!("{SECRET}:2")), Some((1, "shop".into(), vec![Scope::Publish])));
        let ops = found(&format!("{SECRET}3"));
        assert_eq!(ops, Some((2, "ops.1".into(), vec![Scope::Read, Scope::Revoke])));
        for wrong in ["", "0123456789abcde", "shop", &text] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
        assert!(!format!("{all:?}").contains(SECRET));
        assert!(keys(" , ").unwrap().is_empty());
    }

    #[test]
    fn an_unusable_key_is_named_in_one_line_without_its_secret() {
        for (text, says) in [
            ("hunter2".to_owned(), "key 1: a secret has at least 16 bytes"),
            ("shop:publish:hunter2".to_owned(), "at least 16 bytes (a comma ends it), this one has 7"),
            (format!("{SECRET},hunter2"), "key 2: "),
            (format!("shop:publish+hunter2:{SECRET}"), "scopes are publish, read and revoke"),
            (format!("shop::{SECRET}"), "scopes are"),
            (format!("hunter2 x:read:{SECRET}"), "a name has"),
            (format!(":read:{SECRET}"), "a name has"),
            (format!("hunter2:{SECRET}"), "name:scope+scope:secret"),
            (format!("a:read:{SECRET},a:revoke:{SECRET}2"), "another key has the name a too"),
            (format!("{SECRET}2,key-1:read:{SECRET}"), "another key has the name key-1 too"),
            (format!("a:read:{SECRET},b:revoke:{SECRET}"), "the same secret"),
        ] {
            let error = keys(&text).unwrap_err().to_string();
            assert!(error.starts_with("API_KEY: key ") && error.contains(says), "{text}: {error}");
            assert!(error.lines().count() == 1 && !error.contains(SECRET), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(keys("a,b").unwrap_err().to_string().lines().count(), 2, "all at once");
    }
}
