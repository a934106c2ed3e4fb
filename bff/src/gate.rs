//! Who makes a request, and what they may do: tokens, sessions, keys, signatures, origins and revocations. Knows no socket and
//! no route.

pub(crate) mod app;
pub(crate) mod asker;
pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod cors;
pub mod demo;
pub mod identity;
pub mod jwks;
pub(crate) mod keys;
pub(crate) mod local;
pub mod origin;
pub(crate) mod revocations;
pub mod seal;
pub(crate) mod session_key;
pub(crate) mod sessions;
pub mod signature;
pub mod signed;
pub mod token;
