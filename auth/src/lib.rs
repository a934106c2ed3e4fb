//! Verifies tokens, sessions, signatures and origins. Verification takes the time as an argument and stores nothing: this
//! crate knows no Redis, no hub, no route and no wall clock. Only the keys of `JWKS_URL` are fetched, by
//! [`token::Tokens::run`].

pub mod identity;
pub mod jwks;
mod options;
pub mod origin;
pub mod seal;
pub mod signature;
pub mod token;
