use std::net::TcpStream;

use carillon_harness::RedisServer;

#[test]
fn starts_stops_and_keeps_nothing() {
    let server = RedisServer::start();
    assert_eq!(server.cli(&["LPUSH", "list", "a"]), "1");
    server.stop();
    assert!(TcpStream::connect(server.addr()).is_err(), "it is gone");
    server.start_again();
    assert_eq!(server.cli(&["LLEN", "list"]), "0");
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
}

#[test]
fn a_durable_server_keeps_acknowledged_writes_until_started_empty() {
    let server = RedisServer::start_durable();
    server.run(&["SET", "key", "value"]);
    server.start_again();
    assert_eq!(server.cli(&["GET", "key"]), "value");
    server.start_again_empty();
    assert_eq!(server.cli(&["EXISTS", "key"]), "0");
}

#[test]
fn dies_when_it_is_dropped() {
    let server = RedisServer::start();
    let addr = server.addr();
    drop(server);
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn databases_of_the_shared_server_are_separate() {
    let (first, second) = (RedisServer::shared(), RedisServer::shared());
    first.run(&["SET", "key", "value"]);
    assert_eq!(second.cli(&["EXISTS", "key"]), "0");
    assert_ne!(first.url(), second.url());
}

#[test]
#[should_panic(expected = "FLUSHALL: this test needs a server of its own")]
fn commands_for_all_databases_are_refused_on_the_shared_server() {
    RedisServer::shared().run(&["FLUSHALL"]);
}

#[test]
#[should_panic(expected = "ERR wrong number of arguments")]
fn an_error_of_redis_fails_the_test() {
    RedisServer::start().run(&["GET"]);
}

#[test]
#[should_panic(expected = "redis-server ended at its start")]
fn an_option_that_redis_does_not_know_fails_the_test() {
    let _ = RedisServer::start_with(&["--no-such-option", "yes"]);
}
