//! Places of tokens that wait for a key: invented names of some do not block others.

use super::*;

#[tokio::test(start_paused = true)]
async fn invented_names_of_one_address_do_not_block_others() {
    let jwks = paused();
    let (evil, good) = ("192.0.2.1/32".parse().ok(), "192.0.2.2/32".parse().ok());
    let mut forged = JoinSet::new();
    for n in 0..WAITING_MAX {
        let jwks = Arc::clone(&jwks);
        forged
            .spawn(async move { jwks.fetched_after_now(Some(&format!("forged-{n}")), evil).await.is_some() });
    }
    for _ in 0..WAITING_MAX - WAITING_PER_ADDRESS_MAX {
        assert!(!forged.join_next().await.unwrap().unwrap(), "tokens without a place are refused at once");
    }
    let key = Key::jwk(&Signer::ed25519().named("fresh").jwk()).unwrap();
    let mut tasks = JoinSet::new();
    let times = fetching(&jwks, Ok(vec![key]), &mut tasks);
    assert!(jwks.fetched_after_now(Some("fresh"), good).await.is_some());
    while let Some(came) = forged.join_next().await {
        assert!(came.unwrap());
    }
    assert!(jwks.waiting_from.lock().is_empty());
    // An invented name is not fetched again within the interval.
    let (requests, begun) = (seconds(&times).len(), Instant::now());
    assert!(jwks.fetched_after_now(Some("forged-0"), evil).await.is_some());
    assert_eq!((begun.elapsed(), seconds(&times).len()), (Duration::ZERO, requests));
    tokio::time::sleep(FETCH_INTERVAL_MIN).await;
    assert!(jwks.fetched_after_now(Some("forged-0"), evil).await.is_some());
    assert!(seconds(&times).len() > requests, "and then it is");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_too_long_is_neither_fetched_nor_remembered() {
    let (jwks, mut tasks) = (paused(), JoinSet::new());
    let key = Key::jwk(&Signer::ed25519().named("known").jwk()).unwrap();
    let times = fetching(&jwks, Ok(vec![key]), &mut tasks);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let begun = Instant::now();
    assert!(jwks.fetched_after_now(Some(&"k".repeat(KEY_NAME_MAX_BYTES + 1)), None).await.is_some());
    assert_eq!((begun.elapsed(), seconds(&times).len()), (Duration::ZERO, 1));
    assert!(jwks.missed.lock().is_empty());
    assert!(jwks.fetched_after_now(Some(&"k".repeat(KEY_NAME_MAX_BYTES)), None).await.is_some());
    assert_eq!((seconds(&times).len(), jwks.missed.lock().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn clients_without_an_address_share_half_of_all_places() {
    let jwks = paused();
    let unknown = "0.0.0.0/0".parse().ok();
    let mut forged = JoinSet::new();
    for n in 0..=WAITING_MAX / 2 {
        let jwks = Arc::clone(&jwks);
        forged.spawn(
            async move { jwks.fetched_after_now(Some(&format!("forged-{n}")), unknown).await.is_some() },
        );
    }
    assert!(!forged.join_next().await.unwrap().unwrap(), "one more than half finds no place");
    assert_eq!(jwks.waiting.available_permits(), WAITING_MAX / 2);
}
