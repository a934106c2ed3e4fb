use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::link::{Broken, Direction, Link, carry};

/// Maximum connections at a time; more are refused.
const CONNECTIONS_MAX: usize = 1_024;

/// A network between a client and a server that can be broken on purpose. It forwards TCP to its target, and each method
/// below changes its behaviour from then on. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    state: Mutex<State>,
    accepted: AtomicU64,
    lost_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// The behaviour of new connections; `None` refuses them.
    new: Option<Link>,
    open: HashMap<u64, watch::Sender<Link>>,
}

impl Shared {
    fn target(&self) -> SocketAddr {
        *self.target.lock()
    }
}

impl Proxy {
    /// Starts a proxy on a free port that forwards everything to `target`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port for the proxy");
        let addr = listener.local_addr().expect("the address of the proxy");
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            state: Mutex::new(State { new: Some(Link::Pass), open: HashMap::new() }),
            accepted: AtomicU64::new(0),
            lost_bytes: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Self { addr, shared, _stop: stop.drop_guard() }
    }

    /// Returns its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends new connections to another server, like an address that has moved. Open connections stay at the old one.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Forwards everything again. Connections that were swallowed, or lost replies, are cut: the rest of their streams is
    /// useless.
    pub fn pass(&self) {
        self.set(Some(Link::Pass), |link| if link == Link::Pass { link } else { Link::Cut });
    }

    /// Keeps all connections open and accepts new ones, but forwards nothing.
    pub fn black_hole(&self) {
        self.set(Some(Link::Swallow), |_| Link::Swallow);
    }

    /// Keeps the current connections open and forwards nothing on them, like a router that has forgotten them; new ones
    /// work.
    pub fn black_hole_current(&self) {
        self.set(Some(Link::Pass), |_| Link::Swallow);
    }

    /// Resets new connections. Existing ones stay as they are; see [`Proxy::cut`].
    pub fn refuse(&self) {
        self.set(None, |link| link);
    }

    /// Resets all current connections. New ones work as before.
    pub fn cut(&self) {
        let new = self.shared.state.lock().new;
        self.set(new, |_| Link::Cut);
    }

    /// Forwards requests to the server, and only this many more bytes of each connection's replies: commands are executed,
    /// and their replies are lost.
    pub fn lose_replies_after(&self, bytes: usize) {
        let link = Link::LoseReplies { after_bytes: bytes };
        self.set(Some(link), |current| if current == Link::Swallow { Link::Cut } else { link });
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.shared.state.lock().open.len()
    }

    /// The number of connections accepted so far, without refused ones.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// The number of bytes swallowed or lost so far.
    pub fn lost_bytes(&self) -> u64 {
        self.shared.lost_bytes.load(Ordering::SeqCst)
    }

    fn set(&self, new: Option<Link>, current: impl Fn(Link) -> Link) {
        let mut state = self.shared.state.lock();
        state.new = new;
        for link in state.open.values() {
            link.send_modify(|link| *link = if *link == Link::Cut { Link::Cut } else { current(*link) });
        }
    }
}

impl Shared {
    /// Returns the behaviour of the connection `id`, now and later; `None` when it is refused.
    fn admit(&self, id: u64) -> Option<watch::Receiver<Link>> {
        let mut state = self.state.lock();
        let link = state.new.filter(|_| state.open.len() < CONNECTIONS_MAX)?;
        let (sender, receiver) = watch::channel(link);
        state.open.insert(id, sender);
        self.accepted.fetch_add(1, Ordering::SeqCst);
        Some(receiver)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    for id in 0.. {
        let client = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = client else { continue };
        let Some(link) = shared.admit(id) else {
            let _ = client.set_zero_linger();
            continue;
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connect(client, link, &shared) => {}
            }
            shared.state.lock().open.remove(&id);
        });
    }
}

/// Runs one connection, until both sides have closed or it is cut.
async fn connect(mut client: TcpStream, link: watch::Receiver<Link>, shared: &Shared) {
    let mut cut = link.clone();
    let mut server = None;
    let result = tokio::select! {
        _ = cut.wait_for(|link| *link == Link::Cut) => Err(Broken),
        result = forward(&mut client, &mut server, link, shared) => result,
    };
    if result.is_err() {
        for socket in server.iter().chain([&client]) {
            let _ = socket.set_zero_linger();
        }
    }
}

async fn forward(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    link: watch::Receiver<Link>,
    shared: &Shared,
) -> Result<(), Broken> {
    let swallowed = *link.borrow() == Link::Swallow;
    if swallowed {
        // Such a connection never forwards anything, since there is no server.
        return carry(Direction::Requests, client, tokio::io::sink(), link, &shared.lost_bytes).await;
    }
    let server = server.insert(TcpStream::connect(shared.target()).await.map_err(|_| Broken)?);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let lost = &shared.lost_bytes;
    tokio::try_join!(
        carry(Direction::Requests, client_read, server_write, link.clone(), lost),
        carry(Direction::Replies, server_read, client_write, link, lost),
    )
    .map(drop)
}
