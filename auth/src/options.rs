#![allow(rustdoc::bare_urls, reason = "help texts of options, which show no markup")]

use clap::Args;
use secrecy::SecretString;

use crate::token::lifetime::TokenLifetime;

/// The options of authentication. An empty option counts as absent.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens and sign-in")]
pub struct IdentityOptions {
    /// Secrets for tokens signed with HS256, HS384 or HS512, at least 32 bytes each, separated by commas. There is no default
    #[arg(long, env, hide_env_values = true, value_delimiter = ',')]
    pub jwt_secret: Vec<SecretString>,
    /// Public keys for tokens signed with RS…, PS…, ES256, ES384 or EdDSA: a PEM text, in which `\n` may stand for a line
    /// end, or the path of a file
    #[arg(long, env)]
    pub jwt_public_key: Option<String>,
    /// URL of a JWKS with public keys: https://, or http:// on this machine. It may be given beside --jwt-public-key
    #[arg(long, env, hide_env_values = true)]
    pub jwks_url: Option<String>,
    /// Names of this service, separated by commas: a token's `aud` must contain one of them
    #[arg(long, env, value_delimiter = ',')]
    pub jwt_audience: Vec<String>,
    /// Issuers whose tokens are accepted, separated by commas: a token's `iss` must be one of them
    #[arg(long, env, value_delimiter = ',')]
    pub jwt_issuer: Vec<String>,
    /// Claim of a token that names the user
    #[arg(long, env, default_value = USER_CLAIM)]
    pub jwt_user_claim: String,
    /// Longest time that a token may be valid from its `iat`; with `none` it may be valid for ever, without an `exp`.
    /// Revocations are kept a day longer, so give all replicas the same value
    #[arg(long, env, default_value = "30d")]
    pub token_lifetime_max: TokenLifetime,
    /// Cookie that may hold a token
    #[arg(long, env)]
    pub session_cookie: Option<String>,
    /// Origins whose pages may connect, separated by commas, such as https://app.example.com; `*` allows all
    /// [default: the host that the request names]
    #[arg(long, env, value_delimiter = ',')]
    pub allowed_origins: Vec<String>,
    /// Topics that any client may read, separated by commas. `news.*` stands for all that begin with `news.`, and `*` for all
    /// but those of `presence:`
    #[arg(long, env, value_delimiter = ',')]
    pub public_topics: Vec<String>,
    /// Lets users whose token has no claim `send` send to each other, and to the topics that their token names
    #[arg(long, env, value_parser = clap::builder::FalseyValueParser::new())]
    pub people_send: bool,
}

/// The default claim that names the user.
pub(crate) const USER_CLAIM: &str = "user_id";

impl Default for IdentityOptions {
    fn default() -> Self {
        Self {
            jwt_secret: Vec::new(),
            jwt_public_key: None,
            jwks_url: None,
            jwt_audience: Vec::new(),
            jwt_issuer: Vec::new(),
            jwt_user_claim: USER_CLAIM.to_owned(),
            token_lifetime_max: TokenLifetime::default(),
            session_cookie: None,
            allowed_origins: Vec::new(),
            public_topics: Vec::new(),
            people_send: false,
        }
    }
}
