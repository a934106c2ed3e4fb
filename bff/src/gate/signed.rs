//! The secrets that requests are signed with, and the verification of requests that applications signed.

use anyhow::bail;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use carillon_auth::signature::{ApiAuthSecrets, Verified, WebhookSecrets, has_api_auth, has_webhook};
use carillon_service::filled;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use crate::gate::Gate;
use crate::metrics;
use crate::refusal::Refusal;

/// The options for signatures between applications and this service. An empty option counts as absent.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Applications that sign")]
pub struct SigningOptions {
    /// Secrets whsec_… of signed webhooks, separated by commas: each of them verifies requests that arrive, and all of them
    /// sign the requests to the application
    #[arg(long, env, hide_env_values = true)]
    pub webhook_secret: Option<SecretString>,
    /// Secrets of the older APIAuth signature, separated by commas. Without one such signatures are not accepted
    #[arg(long, env, hide_env_values = true)]
    pub apiauth_secret: Option<SecretString>,
}

/// The parsed secrets.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    /// Signs requests to the application, and verifies requests of applications.
    pub webhooks: Option<WebhookSecrets>,
    /// Verifies requests of applications that use only the older signature.
    pub api_auth: Option<ApiAuthSecrets>,
}

impl Signing {
    /// Parses the secrets.
    ///
    /// # Errors
    /// Names every unusable option, with the reason and without its secret.
    pub fn new(options: &SigningOptions) -> anyhow::Result<Self> {
        let given = |option: &Option<SecretString>| {
            option.as_ref().and_then(|secret| filled(secret.expose_secret()).map(str::to_owned))
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

    /// Whether any signature can be verified.
    pub fn is_configured(&self) -> bool {
        self.webhooks.is_some() || self.api_auth.is_some()
    }
}

/// Whether a request carries a signature.
pub(crate) fn is_signed(headers: &HeaderMap) -> bool {
    has_webhook(headers) || has_api_auth(headers)
}

impl Gate {
    /// Refuses a signed request whose kind of signature is not configured, before its body is read.
    pub(crate) fn can_verify(&self, parts: &Parts) -> Result<(), Refusal> {
        match has_webhook(&parts.headers) {
            true if self.signing.webhooks.is_none() => Err(not_configured("webhook", "WEBHOOK_SECRET")),
            false if self.signing.api_auth.is_none() => Err(not_configured("APIAuth", "APIAUTH_SECRET")),
            _ => Ok(()),
        }
    }

    /// Verifies the signature of a request. A bad one is refused even where publishing is open: a client that signs expects
    /// verification.
    pub(crate) fn verify(&self, parts: &Parts, body: &[u8]) -> Result<Verified, Refusal> {
        let now_ms = (self.clock)();
        let Signing { webhooks, api_auth } = &self.signing;
        let verified = if has_webhook(&parts.headers) {
            let webhooks = webhooks.as_ref().ok_or_else(|| not_configured("webhook", "WEBHOOK_SECRET"))?;
            webhooks.verify(&parts.headers, body, now_ms)
        } else {
            let api_auth = api_auth.as_ref().ok_or_else(|| not_configured("APIAuth", "APIAUTH_SECRET"))?;
            api_auth.verify(parts, body, now_ms)
        };
        verified.map_err(|error| refused(error.reason(), &error.to_string()))
    }

    /// Refuses a request whose signature was used before, on any replica.
    pub(crate) async fn use_once(&self, verified: &Verified) -> Result<(), Refusal> {
        if self.broker.first_use(&verified.replay_key(), verified.keep).await? {
            return Ok(());
        }
        Err(refused("replayed", "this signature was used before: sign each attempt again"))
    }
}

fn not_configured(scheme: &str, option: &str) -> Refusal {
    refused("off", &format!("{scheme} signatures are not configured: start the service with {option}"))
}

fn refused(reason: &'static str, detail: &str) -> Refusal {
    metrics::signature_refused(reason);
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid signature", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing(webhook: &str, api_auth: &str) -> anyhow::Result<Signing> {
        let secret = |text: &str| Some(text.into());
        Signing::new(&SigningOptions { webhook_secret: secret(webhook), apiauth_secret: secret(api_auth) })
    }

    #[test]
    fn an_empty_option_is_absent_and_every_fault_is_named_without_its_secret() {
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
