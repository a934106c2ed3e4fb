use std::net::SocketAddr;

use axum::Router;
use carillon_service::Tasks;
use tokio::net::TcpListener;

/// A server with the routes of a test, until it is dropped.
pub(crate) struct Server {
    addr: SocketAddr,
    tasks: Tasks,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tasks = Tasks::default();
        let stop = tasks.stop().clone();
        tasks.spawn("server", async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                served = axum::serve(listener, router).into_future() => Ok(served?),
            }
        });
        Self { addr, tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}
