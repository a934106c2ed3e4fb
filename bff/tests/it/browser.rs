//! The viewer as people get it: the real build in a real Chromium, behind the front door, over three
//! replicas and a real Redis.

mod access;
mod chat;
mod chrome;
mod docs;
mod failover;
mod jobs;
mod offline;
mod outage;
mod page;
mod people;
mod sample;
mod screenshots;
mod stage;
mod text;
mod toasts;
