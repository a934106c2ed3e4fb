use carillon_harness::{Process, RedisServer};
use carillon_protocol::Audience;

use crate::{DEADLINE, claim_all};

fn with_env(env: &[(&str, &str)]) -> Process {
    Process::spawn(env!("CARGO_BIN_EXE_producer"), &[], env)
}

#[tokio::test]
async fn every_option_is_a_variable_too() {
    let server = RedisServer::shared();
    let url = server.url();
    let env = [("REDIS_URL", url.as_str()), ("INTERVAL", "2ms"), ("COUNT", "2"), ("TO", "topic:news")];
    assert_eq!(with_env(&env).wait_exit(DEADLINE).await, 0);
    let mut lines = with_env(&[("REDIS_URL", &url), ("STDIN", "1"), ("TO", "session:s")]);
    lines.write("a line\n");
    lines.close_stdin();
    assert_eq!(lines.wait_exit(DEADLINE).await, 0);

    let audiences: Vec<_> = claim_all(&server).await.into_iter().map(|one| one.to).collect();
    let news = Audience::Topic("news".into());
    assert_eq!(audiences, [news.clone(), news, Audience::Session("s".into())]);
}

#[tokio::test]
async fn a_wrong_option_is_explained() {
    for (env, explanation) in [
        (("INTERVAL", "1"), "write it like 1s, 250ms or 2m"),
        (("TO", "nobody"), "write everyone, user:ID, session:ID, topic:NAME or connection:ID"),
        (("COUNT", "0"), "0 is not in 1.."),
    ] {
        let mut producer = with_env(&[env]);
        assert_eq!(producer.wait_exit(DEADLINE).await, 2);
        let lines = producer.stderr().join("\n");
        assert!(lines.contains(explanation), "{env:?}: {lines}");
    }
    let mut producer = with_env(&[("REDIS_URL", "mysql://nowhere")]);
    assert_eq!(producer.wait_exit(DEADLINE).await, 1);
    let lines = producer.stderr();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("producer: no usable Redis URL: "), "{lines:?}");
}
