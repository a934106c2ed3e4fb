use std::time::Duration;

use carillon_harness::{Process, RedisServer, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

fn shell(script: &str, env: &[(&str, &str)]) -> Process {
    Process::spawn("/bin/sh", &["-c", script], env)
}

#[tokio::test]
async fn lines_input_and_the_exit_code_are_seen() {
    let mut echo = shell(
        "echo \"I am $NAME of $USER\"; read -r line; echo \"got $line\" >&2; exit 3",
        &[("NAME", "Ada")],
    );
    assert_eq!(echo.wait_line("I am").await, "I am Ada of ", "only its own variables");
    assert!(echo.is_running());
    echo.write("a line\n");
    assert_eq!(echo.wait_exit(DEADLINE).await, 3);
    assert_eq!(echo.stderr(), ["got a line"]);
}

#[tokio::test]
async fn signals_arrive_and_a_killed_one_has_the_code_of_a_shell() {
    let mut trap = shell("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done", &[]);
    trap.wait_line("ready").await;
    trap.sigterm();
    assert_eq!(trap.wait_exit(DEADLINE).await, 0);
    assert_eq!(trap.stdout(), ["ready", "asked"]);

    let mut sleeper = shell("exec sleep 1000", &[]);
    sleeper.kill();
    assert_eq!(sleeper.wait_exit(DEADLINE).await, 137);
}

#[tokio::test]
#[should_panic(expected = "ended (4) without 'never said'")]
async fn the_end_of_a_process_ends_the_wait_for_its_lines() {
    shell("echo something else; exit 4", &[]).wait_line("never said").await;
}

/// The children of a test process that is killed, and so drops nothing, die with it.
#[tokio::test]
async fn nothing_outlives_a_test_process_that_is_killed() {
    let this = std::env::current_exe().unwrap();
    let args = ["--exact", "process::holds_a_server", "--nocapture"];
    let mut holder = Process::spawn(this.to_str().unwrap(), &args, &[("HOLD_A_SERVER", "1")]);
    let line = holder.wait_line("holding ").await;
    let addr = line.rsplit(' ').next().unwrap().to_owned();
    assert!(std::net::TcpStream::connect(&addr).is_ok());
    holder.kill();
    eventually("the server is gone", DEADLINE, async || std::net::TcpStream::connect(&addr).is_err()).await;
}

#[test]
fn holds_a_server() {
    if std::env::var_os("HOLD_A_SERVER").is_none() {
        return;
    }
    let server = RedisServer::start();
    println!("holding {}", server.addr());
    loop {
        std::thread::park();
    }
}
