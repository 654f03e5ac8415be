//! `edgeway`: the edge in one process (`up`), its parts as processes of their own (`gateway`,
//! `backend`, `dispatch`), and what a person needs beside them (`check`, `certs`, `chat`, `user`, `token`, `key`).

mod args;
mod backend;
mod certs;
mod chat;
mod check;
mod config;
mod discovery;
mod dispatch;
mod failure;
mod flags;
mod gateway;
mod http;
mod key;
mod logging;
mod output;
mod reload;
mod serve;
mod shutdown;
mod stat;
mod token;
mod up;
mod user;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let Args { command, log } = Args::parse();
    let log = log.as_deref();
    let outcome = match command {
        Command::Up(args) => up::run(args, log),
        Command::Gateway(args) => gateway::run(args, log),
        Command::Backend(args) => backend::run(args, log),
        Command::Dispatch(args) => dispatch::run(args, log),
        Command::Check(args) => check::run(&args),
        Command::Certs(args) => certs::run(args),
        Command::Chat(args) => chat::run(args, log),
        Command::User(args) => user::run(args),
        Command::Token(args) => token::run(args),
        Command::Key(args) => key::run(args),
    };
    failure::exit_code(outcome)
}
