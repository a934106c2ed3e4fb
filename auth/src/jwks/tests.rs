use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State as Held;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use carillon_harness::{Signer, eventually, free_port};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::options::IdentityOptions;
use crate::token::{Identity, TokenError, Tokens};

mod places;

const DEADLINE: Duration = Duration::from_secs(30);
const NOW_S: u64 = 1_800_000_000;
/// Fast enough for a test, and slow enough for two cores.
const PACE: Pace = Pace {
    every: Duration::from_secs(3_600),
    interval_min: Duration::from_millis(5),
    timeout: DEADLINE,
    wait_max: DEADLINE,
    waiting_max: WAITING_MAX,
    keep: KEYS_KEEP,
};

/// An identity provider: its response, and the number of requests.
#[derive(Clone)]
struct Provider(Arc<Inner>);

struct Inner {
    reply: Mutex<Reply>,
    requests: AtomicU64,
}

#[derive(Clone)]
enum Reply {
    Text(StatusCode, String),
    /// The headers, and then nothing.
    Nothing,
    MovedTo(String),
}

impl Provider {
    fn new(keys: &[&Signer]) -> Self {
        let provider =
            Self(Arc::new(Inner { reply: Mutex::new(Reply::Nothing), requests: AtomicU64::new(0) }));
        provider.publish(keys);
        provider
    }

    async fn start(&self, port: u16, tasks: &mut JoinSet<()>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/keys", get(answer)).with_state(self.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    fn set_reply(&self, reply: Reply) {
        *self.0.reply.lock().unwrap() = reply;
    }

    fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.set_reply(Reply::Text(StatusCode::OK, json!({ "keys": keys }).to_string()));
    }

    fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }
}

async fn answer(Held(provider): Held<Provider>) -> Response {
    provider.0.requests.fetch_add(1, Ordering::Relaxed);
    let reply = provider.0.reply.lock().unwrap().clone();
    match reply {
        Reply::Text(status, text) => (status, text).into_response(),
        Reply::Nothing => {
            axum::body::Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>())
                .into_response()
        }
        Reply::MovedTo(place) => axum::response::Redirect::temporary(&place).into_response(),
    }
}

/// Tokens whose keys this provider publishes, and the loop that fetches them.
fn tokens(address: SocketAddr, pace: Pace, tasks: &mut JoinSet<()>) -> Tokens {
    let jwks = Jwks::paced(format!("http://{address}/keys").parse().unwrap(), pace);
    let tokens = Tokens::with_jwks(&IdentityOptions::default(), jwks);
    let looping = tokens.clone();
    tasks.spawn(async move { looping.run(CancellationToken::new(), || ()).await.unwrap() });
    tokens
}

async fn verify(tokens: &Tokens, token: &str) -> Result<Identity, TokenError> {
    tokens.verify(token, NOW_S * 1_000, None).await
}

fn token(signer: &Signer) -> String {
    signer.token(&json!({ "user_id": "ann", "exp": NOW_S + 60 }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_valid_token_is_refused_while_the_keys_change() {
    const CHANGES: usize = 30;
    const READERS: usize = 8;
    let mut tasks = JoinSet::new();
    // Each new key is published beside the one before it, and signs from then on.
    let make = |n: usize| {
        let signer = if n.is_multiple_of(2) { Signer::ed25519() } else { Signer::p256() };
        Arc::new(signer.named(&format!("key-{n}")))
    };
    let first = make(0);
    let provider = Provider::new(&[&first]);
    let address = provider.start(0, &mut tasks).await;
    let tokens = tokens(address, PACE, &mut tasks);
    let signing = watch::Sender::new(Some(Arc::clone(&first)));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (tokens, signing) = (tokens.clone(), signing.subscribe());
        readers.spawn(async move {
            let mut checked = 0;
            loop {
                let Some(signer) = signing.borrow().clone() else { return checked };
                // Held until it is verified: a key is withdrawn only when no token of it is in flight.
                let checking = verify(&tokens, &token(&signer)).await;
                assert_eq!(checking.map(|one| one.user), Ok("ann".to_owned()));
                checked += 1;
                // A token with a known key does not wait, so this yields to the others.
                tokio::task::yield_now().await;
            }
        });
    }
    let mut before = first;
    for n in 1..=CHANGES {
        let next = make(n);
        provider.publish(&[&next, &before]);
        signing.send_replace(Some(Arc::clone(&next)));
        let unused = async || Arc::strong_count(&before) == 1;
        eventually("the tokens of the key before are checked", DEADLINE, unused).await;
        before = next;
    }
    let mut checked = 0;
    signing.send_replace(None);
    while let Some(count) = readers.join_next().await {
        checked += count.unwrap();
    }
    assert!(checked > 1_000, "{checked} were checked");
    assert!(provider.requests() > CHANGES as u64, "a new key is fetched");
    // With only the last two keys, an old one is invalid.
    let old = Signer::p256().named("key-1");
    assert_eq!(verify(&tokens, &token(&old)).await, Err(TokenError::UnknownKey));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_stay_while_the_provider_is_down_or_sends_garbage() {
    let mut tasks = JoinSet::new();
    let (known, new) = (Signer::ed25519().named("known"), Signer::rsa().named("new"));
    let provider = Provider::new(&[&known]);
    let port = free_port();
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let tokens = tokens(address, Pace { timeout: Duration::from_secs(3), ..PACE }, &mut tasks);
    assert_eq!(
        verify(&tokens, &token(&known)).await,
        Err(TokenError::KeysAway),
        "the provider does not run yet"
    );
    let mut serving = JoinSet::new();
    provider.start(port, &mut serving).await;
    // It is fetched again without a request of a token.
    let has_come = async || tokens.verify_with_known_keys(&token(&known), NOW_S * 1_000).is_ok();
    eventually("the provider has come", DEADLINE, has_come).await;
    let other = Provider::new(&[&new]);
    let elsewhere = format!("http://{}/keys", other.start(0, &mut serving).await);
    let many = json!({ "keys": vec![new.jwk(); 2_000] }).to_string();
    assert!(many.len() > JWKS_MAX_BYTES);
    let ok = |text: &str| Reply::Text(StatusCode::OK, text.to_owned());
    for reply in [
        Reply::Text(StatusCode::INTERNAL_SERVER_ERROR, json!({ "keys": [new.jwk()] }).to_string()),
        Reply::Text(StatusCode::NO_CONTENT, String::new()),
        Reply::MovedTo(elsewhere),
        ok(""),
        ok("<html>"),
        ok("[]"),
        ok(r#"{"keys":{}}"#),
        ok(r#"{"keys":[7,{"kty":"oct","kid":"new","k":"AAAA"}]}"#),
        ok(&many),
        Reply::Nothing,
    ] {
        provider.set_reply(reply);
        assert_eq!(verify(&tokens, &token(&new)).await, Err(TokenError::KeysAway));
        assert!(verify(&tokens, &token(&known)).await.is_ok());
    }
    // An unusable key does not affect the others.
    let good = json!({ "keys": [null, { "kty": "RSA", "kid": 7 }, { "kty": "AKP" }, new.jwk()] }).to_string();
    provider.set_reply(ok(&good));
    assert!(verify(&tokens, &token(&new)).await.is_ok());
    assert_eq!(verify(&tokens, &token(&known)).await, Err(TokenError::Algorithm), "it was taken back");
    serving.shutdown().await;
    // Once its name may be fetched again.
    let is_away = async || verify(&tokens, &token(&known)).await == Err(TokenError::KeysAway);
    eventually("the provider is gone", DEADLINE, is_away).await;
    assert!(verify(&tokens, &token(&new)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_a_name_and_one_of_another_kind_are_fetched_too() {
    let mut tasks = JoinSet::new();
    let (rsa, ec, other) = (Signer::rsa(), Signer::p256(), Signer::p256());
    let provider = Provider::new(&[&rsa]);
    let address = provider.start(0, &mut tasks).await;
    let tokens = tokens(address, PACE, &mut tasks);
    assert!(verify(&tokens, &token(&rsa)).await.is_ok());
    assert_eq!(verify(&tokens, &token(&ec)).await, Err(TokenError::Algorithm));
    provider.publish(&[&rsa, &ec]);
    assert!(verify(&tokens, &token(&ec)).await.is_ok(), "no key of this kind was known");
    provider.publish(&[&other]);
    assert!(verify(&tokens, &token(&other)).await.is_ok(), "none of the keys of this kind was it");
    assert_eq!(verify(&tokens, &token(&ec)).await, Err(TokenError::Signature));
    let requests = provider.requests();
    let secret = Signer::secret("a secret of at least thirty-two bytes").named("x");
    assert_eq!(verify(&tokens, &token(&secret)).await, Err(TokenError::Algorithm));
    assert_eq!(provider.requests(), requests, "a secret is never published");
}

/// Runs the loop over fetches that record their start.
fn fetching(
    jwks: &Arc<Jwks>,
    fetched: Result<Vec<Key>, String>,
    tasks: &mut JoinSet<()>,
) -> Arc<Mutex<Vec<Duration>>> {
    let (jwks, start) = (Arc::clone(jwks), Instant::now());
    let times = Arc::new(Mutex::new(Vec::new()));
    let began = Arc::clone(&times);
    tasks.spawn(async move {
        let fetch = || {
            began.lock().unwrap().push(start.elapsed());
            let fetched = fetched.clone();
            async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                fetched
            }
        };
        jwks.run_with(CancellationToken::new(), fetch).await;
    });
    times
}

fn paused() -> Arc<Jwks> {
    Arc::new(Jwks::new("http://127.0.0.1/keys").unwrap())
}

fn seconds(times: &Mutex<Vec<Duration>>) -> Vec<u64> {
    times.lock().unwrap().iter().map(Duration::as_secs).collect()
}

#[tokio::test(start_paused = true)]
async fn many_waiting_tokens_do_not_flood_the_provider() {
    let (jwks, mut tasks) = (paused(), JoinSet::new());
    let key = Key::jwk(&Signer::ed25519().named("known").jwk()).unwrap();
    let times = fetching(&jwks, Ok(vec![key]), &mut tasks);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut forged = JoinSet::new();
    for n in 0..WAITING_MAX {
        let jwks = Arc::clone(&jwks);
        // The maximum of each address.
        let from =
            Some(IpNet::from(IpAddr::from([192, 0, 2, u8::try_from(n / WAITING_PER_ADDRESS_MAX).unwrap()])));
        forged
            .spawn(async move { jwks.fetched_after_now(Some(&format!("forged-{n}")), from).await.is_some() });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    assert!(jwks.fetched_after_now(Some("one more"), None).await.is_none(), "too many wait");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    while let Some(came) = forged.join_next().await {
        assert!(came.unwrap());
    }
    assert_eq!(seconds(&times), [0, 100]);
    // A token that arrives during a fetch waits for the next one, unless the running one brings its key.
    for n in 0..10 {
        assert!(jwks.fetched_after_now(Some(&format!("again-{n}")), None).await.is_some());
    }
    assert_eq!(seconds(&times), [0, 100, 105, 110, 115, 120, 125, 130, 135, 140, 145, 150]);
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(seconds(&times)[12..], [450, 750], "now and then");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_is_queried_at_the_same_rate() {
    let (jwks, mut tasks) = (paused(), JoinSet::new());
    let times = fetching(&jwks, Err("refused".to_owned()), &mut tasks);
    for _ in 0..3 {
        assert!(jwks.fetched_after_now(Some("new"), None).await.unwrap().is_away);
    }
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    assert_eq!(seconds(&times), [0, 5, 10, 15]);
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_provider_that_is_down_stay_valid_for_a_day() {
    let (jwks, start) = (paused(), Instant::now());
    let key = Key::jwk(&Signer::ed25519().named("known").jwk()).unwrap();
    let running = Arc::clone(&jwks);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let fetch = || {
            let fetched =
                if start.elapsed() < REFRESH_EVERY { Ok(vec![key.clone()]) } else { Err("away".to_owned()) };
            async { fetched }
        };
        running.run_with(CancellationToken::new(), fetch).await;
    });
    tokio::time::sleep(KEYS_KEEP - Duration::from_secs(1)).await;
    assert_eq!(jwks.keys().len(), 1, "known keys stay valid during an outage");
    tokio::time::sleep(2 * FETCH_INTERVAL_MIN).await;
    assert!(jwks.keys().is_empty());
    assert!(jwks.fetched_after_now(Some("known"), None).await.unwrap().is_away, "a 503 and no 401");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_key_set_withdraws_all_keys() {
    let mut tasks = JoinSet::new();
    let (known, new) = (Signer::ed25519().named("known"), Signer::ed25519().named("new"));
    let provider = Provider::new(&[&known]);
    let address = provider.start(0, &mut tasks).await;
    let tokens = tokens(address, PACE, &mut tasks);
    assert!(verify(&tokens, &token(&known)).await.is_ok());
    provider.publish(&[]);
    assert_eq!(verify(&tokens, &token(&new)).await, Err(TokenError::Algorithm), "a fetch, and no outage");
    assert_eq!(verify(&tokens, &token(&known)).await, Err(TokenError::Algorithm));
    provider.publish(&[&new]);
    // Its name was missing just before, and is fetched again only after the interval.
    eventually("the key that was published", DEADLINE, async || verify(&tokens, &token(&new)).await.is_ok())
        .await;
}

#[test]
fn keys_come_by_https_or_from_this_machine() {
    for good in ["https://a.example/keys", "http://localhost:8/k", "http://127.0.0.2/k", "http://[::1]:9/k"] {
        assert!(Jwks::new(good).is_ok(), "{good}");
    }
    for wrong in ["http://a.example/keys", "http://10.0.0.1/k", "http://localhost.example/k"] {
        assert!(Jwks::new(wrong).unwrap_err().contains("use https://"), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_waits_longer_than_the_maximum() {
    let jwks = paused();
    let begun = Instant::now();
    assert!(jwks.fetched_after_now(None, None).await.is_none(), "no loop runs");
    assert_eq!(begun.elapsed(), WAIT_MAX);
    assert!(WAIT_MAX >= FETCH_INTERVAL_MIN.max(FETCH_TIMEOUT) + FETCH_TIMEOUT);
}

#[test]
fn a_set_is_bounded() {
    let key = Signer::ed25519().named("1").jwk();
    let of = |keys: usize| {
        keys_of(json!({ "keys": vec![key.clone(); keys] }).to_string().as_bytes()).unwrap().len()
    };
    assert_eq!((of(1), of(KEYS_MAX), of(KEYS_MAX + 1)), (1, KEYS_MAX, KEYS_MAX));
}
