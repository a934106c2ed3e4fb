use carillon_harness::RedisServer;
use tokio::sync::{Mutex, MutexGuard};

use super::chrome::Chrome;
use super::page::{Page, State};
use crate::door::Door;
use crate::world::entry;

/// One browser at a time: with several, small machines are busy with nothing but drawing.
pub(super) static TURN: Mutex<()> = Mutex::const_new(());

/// Everything that a browser test plays on. The page goes first.
pub(crate) struct Stage {
    pub(crate) page: Page,
    pub(crate) door: Door,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Three replicas, and a page that is live.
    pub(crate) async fn new() -> Self {
        Self::over(RedisServer::start, &[]).await
    }

    /// [`Stage::new`] with the demo's sign-in.
    pub(crate) async fn of_people() -> Self {
        Self::over(
            RedisServer::start,
            &[
                "--demo-sign-in",
                "--demo-sign-in-exposed",
                "--people-send",
                "--jwt-secret",
                "a secret of at least 32 bytes here",
            ],
        )
        .await
    }

    /// [`Stage::new`] over a Redis that keeps its data when it is restarted.
    pub(crate) async fn durable() -> Self {
        Self::over(RedisServer::start_durable, &[]).await
    }

    async fn over(redis: impl FnOnce() -> RedisServer, args: &'static [&'static str]) -> Self {
        let turn = TURN.lock().await;
        let door = Door::open_with(redis(), args).await;
        let page = Page::open(Chrome::start().await, &door.url("/")).await;
        Self { page, door, _turn: turn }
    }

    /// A second browser, on the same page.
    pub(crate) async fn another(&self) -> Page {
        Page::open(Chrome::start().await, &self.door.url("/")).await
    }

    pub(crate) async fn push(&self, entries: impl IntoIterator<Item = String>) {
        self.door.world.push(entries).await;
    }

    /// Leaves a toast with the id `held` on the page, under the pointer, which is at `(x, y)` before it
    /// comes: it may be gone before a pointer reaches it.
    pub(crate) async fn hold(&self, x: i64, y: i64) {
        self.page.point_at(x, y).await;
        self.push([entry("held")]).await;
        let held = |state: &State| state.held && state.staying() == ["held"];
        self.page.until("a toast under the pointer", held).await;
    }

    /// Returns the replica of the page.
    pub(crate) async fn held_by(&self) -> usize {
        let state = self.page.until("it is live", |state| state.phase == "live").await;
        let at = self.door.bffs.iter().position(|bff| Some(&bff.name) == state.replica.as_ref());
        at.unwrap_or_else(|| panic!("the page hangs on {:?}", state.replica))
    }

    /// Fails when the console has a warning or error.
    pub(crate) async fn assert_quiet(&self) {
        assert_eq!(self.page.complaints().await, [""; 0]);
    }
}
