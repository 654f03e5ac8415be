//! `edgeway token`: signed tokens, for those who try and for those who look for what is wrong.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use edgeway_backend::{
    auth::{Algorithm, Audience, Claims, SigningKey, inspect},
    config::Auth,
};

use crate::{
    args::not_empty,
    config::{File, Use},
    failure::{Failure, Outcome},
    output::say,
};

/// Sign and check tokens (JWT) of logins.
///
/// A server knows keys by auth.tokens.keys; who signs, usually one's own business system, has the other half.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with a key of one's own:

  openssl genpkey -algorithm ed25519 -out main.key        who signs keeps it
  openssl pkey -in main.key -pubout -out main.pem         the server gets it: [auth.tokens.keys]
                                                          main = { alg = \"EdDSA\", file = \"main.pem\" }
  edgeway token sign --alg EdDSA --key main.key --kid main --user ada --secs 3600 --room 'maths-*'
  edgeway token verify --config edgeway.toml TOKEN        would this server take it, and if not, why?")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sign(Box<Sign>),
    Verify(Verify),
    /// Print what a token says, believing nothing of it.
    Inspect {
        /// The token. [default: standard input]
        token: Option<String>,
    },
}

/// Sign a token.
#[derive(Debug, clap::Args)]
struct Sign {
    /// HS256, RS256 or EdDSA.
    #[arg(long, value_parser = algorithm)]
    alg: Algorithm,
    /// File with the private key in PEM form; for HS256 with the secret.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Name of the key in auth.tokens.keys.
    #[arg(long, value_name = "NAME", value_parser = not_empty())]
    kid: String,
    /// The user (sub).
    #[arg(long, value_parser = not_empty())]
    user: String,
    /// Seconds that it holds from now on (exp).
    #[arg(long, value_name = "N", default_value_t = 3600)]
    secs: u64,
    /// Seconds after which it begins to hold (nbf).
    #[arg(long, value_name = "N")]
    not_before_secs: Option<u64>,
    /// Who signs it (iss).
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// For whom it is (aud); may be given several times.
    #[arg(long = "audience", value_name = "NAME")]
    audiences: Vec<String>,
    /// Rooms that may be joined, * for any text; may be given several times. [default: all]
    #[arg(long = "room", value_name = "PATTERN")]
    rooms: Vec<String>,
    /// Rooms that may be spoken in; may be given several times. [default: those that may be joined]
    #[arg(long = "speak", value_name = "PATTERN")]
    speak: Vec<String>,
    /// What may be done: signal, binary, chat, im, or a right of one's own; may be given several times.
    /// [default: all]
    #[arg(long = "right", value_name = "RIGHT")]
    rights: Vec<String>,
}

/// Check a token by the keys of a config. Exit code 1 where it is refused.
#[derive(Debug, clap::Args)]
struct Verify {
    /// The config whose auth.tokens says the keys.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The token. [default: standard input]
    token: Option<String>,
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::parse(name).ok_or_else(|| format!("there are {}", Algorithm::NAMES))
}

pub fn run(args: Args) -> Outcome {
    let told = match args.command {
        Command::Sign(args) => sign(*args)?,
        Command::Verify(args) => verify(&args)?,
        Command::Inspect { token } => {
            let token = given(token)?;
            let (header, claims) =
                inspect(token.as_bytes()).context("this is no signed token (JWT)")?;
            format!("header  {header}\nclaims  {claims}\nnot verified: see `token verify`")
        }
    };
    say(&told);
    Ok(())
}

fn sign(args: Sign) -> anyhow::Result<String> {
    let bytes =
        std::fs::read(&args.key).with_context(|| format!("cannot read {}", args.key.display()))?;
    let key = SigningKey::new(args.alg, &bytes)
        .map_err(|problem| anyhow!("{}: {problem}", args.key.display()))?;
    let now = now();
    let listed = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let mut audiences = args.audiences;
    let claims = Claims {
        sub: args.user,
        exp: now.saturating_add(args.secs),
        nbf: args.not_before_secs.map(|secs| now.saturating_add(secs)),
        iss: args.issuer,
        aud: match audiences.len() {
            0 => None,
            1 => audiences.pop().map(Audience::One),
            _ => Some(Audience::Many(audiences)),
        },
        rooms: listed(args.rooms),
        speak: listed(args.speak),
        rights: listed(args.rights),
    };
    key.sign(&args.kid, &claims).context("the key cannot sign")
}

fn verify(args: &Verify) -> Result<String, Failure> {
    let settings = File::read(Some(&args.config))?.settings(Use::Up)?;
    let tokens = match &settings.backend.auth {
        Auth::Checked(checked) => checked.tokens.as_ref(),
        Auth::Development => None,
    };
    let Some(tokens) = tokens else { return Err(no_tokens(&args.config).into()) };
    let good = tokens.check(given(args.token.clone())?.as_bytes());
    let good = good.map_err(|refusal| anyhow!("refused with {}: {refusal}", refusal.code))?;
    let left = Duration::from_millis(good.expires_ms).saturating_sub(Duration::from_secs(now()));
    let claims = serde_json::to_string(&good.claims).context("cannot write the claims")?;
    Ok(format!("good: key {}, {} s left\nclaims  {claims}", good.kid, left.as_secs()))
}

fn no_tokens(config: &Path) -> anyhow::Error {
    anyhow!("{} takes no tokens: auth.mode has no \"tokens\"", config.display())
}

fn given(token: Option<String>) -> anyhow::Result<String> {
    let token = match token {
        Some(token) => token,
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        bail!("no token: give it as an argument or on standard input");
    }
    Ok(token)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
