//! The `producer` program.

use std::process::ExitCode;

use carillon_broker::Broker;
use carillon_producer::{Options, push_lines};
use carillon_service::{init_logs, options, run, stop_on_signals};

fn main() -> ExitCode {
    let options: Options = options();
    run(async move {
        init_logs();
        let stop = stop_on_signals();
        let broker = Broker::redis(&options.redis_url, options.namespace.clone().unwrap_or_default())?;
        if options.stdin {
            push_lines(&broker, &options.config.to, tokio::io::stdin(), &stop).await
        } else {
            carillon_producer::run(&broker, &options.config, &stop).await
        }
    })
}
