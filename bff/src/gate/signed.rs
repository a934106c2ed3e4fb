//! The secrets that requests are signed with, and whether another application signed one that comes in.

use anyhow::bail;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use carillon_auth::signature::{ApiAuthSecrets, Verified, WebhookSecrets, has_api_auth, has_webhook};
use carillon_service::{Secret, filled};
use clap::Args;

use crate::gate::Gate;
use crate::metrics;
use crate::refusal::Refusal;

/// The options by which applications and this service know each other. An empty one is as good as none.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Applications that sign")]
pub struct SigningOptions {
    /// Secrets whsec_… of signed webhooks, separated by commas: each of them verifies requests that arrive, and all of them
    /// sign the requests to the application
    #[arg(long, env, hide_env_values = true)]
    pub webhook_secret: Option<Secret>,
    /// Secrets of the older APIAuth signature, separated by commas. Without one such signatures are not accepted
    #[arg(long, env, hide_env_values = true)]
    pub apiauth_secret: Option<Secret>,
}

/// What the options come to.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    /// Signs what goes out, and verifies what comes in.
    pub webhooks: Option<WebhookSecrets>,
    /// Verifies what comes in from applications that know nothing else.
    pub api_auth: Option<ApiAuthSecrets>,
}

impl Signing {
    /// Reads the secrets.
    ///
    /// # Errors
    /// Names every option that cannot be used, and why, and repeats no secret.
    pub fn new(options: &SigningOptions) -> anyhow::Result<Self> {
        let given = |option: &Option<Secret>| {
            option.as_ref().and_then(|secret| filled(secret.expose()).map(str::to_owned))
        };
        let webhooks = given(&options.webhook_secret).map(|text| text.parse::<WebhookSecrets>());
        let api_auth = given(&options.apiauth_secret).map(|text| text.parse::<ApiAuthSecrets>());
        match (webhooks.transpose(), api_auth.transpose()) {
            (Ok(webhooks), Ok(api_auth)) => Ok(Self { webhooks, api_auth }),
            (webhooks, api_auth) => {
                let webhooks = webhooks.err().map(|fault| format!("WEBHOOK_SECRET: {fault}"));
                let api_auth = api_auth.err().map(|fault| format!("APIAUTH_SECRET: {fault}"));
                bail!("{}", [webhooks, api_auth].into_iter().flatten().collect::<Vec<_>>().join("\n"))
            }
        }
    }

    /// Whether anything that is signed can be taken.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.webhooks.is_some() || self.api_auth.is_some()
    }
}

/// Whether a request claims to be signed.
pub(crate) fn is_signed(headers: &HeaderMap) -> bool {
    has_webhook(headers) || has_api_auth(headers)
}

impl Gate {
    /// Refuses a signed request that nothing here can verify, before its body is read.
    pub(crate) fn can_verify(&self, parts: &Parts) -> Result<(), Refusal> {
        match has_webhook(&parts.headers) {
            true if self.signing.webhooks.is_none() => Err(off("webhooks", "WEBHOOK_SECRET")),
            false if self.signing.api_auth.is_none() => Err(off("APIAuth", "APIAUTH_SECRET")),
            _ => Ok(()),
        }
    }

    /// Checks the signature of a request that claims to have one. A bad one is refused, also where anybody
    /// may publish: whoever signed meant to be checked.
    pub(crate) fn verify(&self, parts: &Parts, body: &[u8]) -> Result<Verified, Refusal> {
        let now_ms = (self.clock)();
        let Signing { webhooks, api_auth } = &self.signing;
        let verified = if has_webhook(&parts.headers) {
            let webhooks = webhooks.as_ref().ok_or_else(|| off("webhooks", "WEBHOOK_SECRET"))?;
            webhooks.verify(&parts.headers, body, now_ms)
        } else {
            let api_auth = api_auth.as_ref().ok_or_else(|| off("APIAuth", "APIAUTH_SECRET"))?;
            api_auth.verify(parts, body, now_ms)
        };
        verified.map_err(|error| refused(error.reason(), &error.to_string()))
    }

    /// Refuses a request that came before, to whichever replica.
    pub(crate) async fn use_once(&self, verified: &Verified) -> Result<(), Refusal> {
        if self.broker.first_use(&verified.replay_key(), verified.keep).await? {
            return Ok(());
        }
        Err(refused("replayed", "this signature was used before: sign each attempt anew"))
    }
}

fn off(scheme: &str, option: &str) -> Refusal {
    refused("off", &format!("{scheme} cannot be checked here: start the service with {option}"))
}

fn refused(reason: &'static str, detail: &str) -> Refusal {
    metrics::signature_refused(reason);
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid signature", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing(webhook: &str, api_auth: &str) -> anyhow::Result<Signing> {
        let secret = |text: &str| Some(text.parse().unwrap_or_else(|never| match never {}));
        Signing::new(&SigningOptions { webhook_secret: secret(webhook), apiauth_secret: secret(api_auth) })
    }

    #[test]
    fn an_empty_option_is_none_and_every_fault_is_named_without_its_secret() {
        assert!(!signing("", " ").unwrap().is_configured());
        assert!(signing("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "").unwrap().webhooks.is_some());
        assert!(signing("", "sixteen bytes and more").unwrap().api_auth.is_some());
        let error = signing("hunter2", "letmein").unwrap_err().to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert!(lines[0].starts_with("WEBHOOK_SECRET: secret 1") && lines[1].starts_with("APIAUTH_SECRET: "));
        assert!(!error.contains("hunter2") && !error.contains("letmein"));
    }
}
