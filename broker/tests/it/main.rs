//! The broker against a real Redis server and against its in-memory engine: one suite, two engines.
#![allow(clippy::unwrap_used, reason = "a test")]

mod attempts;
mod bench;
mod claiming;
mod clocks;
mod echo;
mod full;
mod history;
mod hostile;
mod jobs;
mod ledger;
mod listening;
mod once;
mod outage;
mod outbox;
mod presence;
mod random;
mod redis_only;
mod revocations;
mod room;
mod state;
mod tls;
mod workers;

/// Makes a test of each function, once for each engine.
#[macro_export]
macro_rules! on_both_engines {
    ($($name:ident),* $(,)?) => {
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::bench::Bench::redis(concat!(module_path!(), "::", stringify!($name))).await).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::bench::Bench::memory()).await;
            })*
        }
    };
}
