//! Replicas as processes, over a real Redis server, seen from their ports.
#![allow(clippy::unwrap_used, reason = "a test")]

mod api;
mod asked;
mod browser;
mod compose;
mod contract;
mod corpus;
mod cors;
mod crowd;
mod dead;
mod door;
mod feeds;
mod frames;
mod jobs;
mod limits;
mod measure;
mod messages;
mod metrics;
mod notify;
mod outage;
mod own;
mod pages;
mod people;
mod presence;
mod profiles;
mod race;
mod resume;
mod shutdown;
mod signed;
mod slow;
mod speaking;
mod sse;
mod sticky;
mod upstream;
mod viewer;
mod world;
