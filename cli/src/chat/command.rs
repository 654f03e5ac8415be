//! What a typed line means.

/// For `/help`.
pub const HELP: &str = "\
text                  say it to the room (chat: may be shed when the room is busy)
/signal TEXT          say it with high priority: never lost, kept in order
/state KEY VALUE      set the room's state: who comes later gets it too
/msg USER TEXT        tell one user, in any room or none
/who                  who is here
/stats                what this connection has done so far
/quit                 leave (also Ctrl-D)
//TEXT                say something that begins with a slash";

/// A typed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing was typed.
    Nothing,
    Chat(String),
    Signal(String),
    State {
        key: String,
        value: String,
    },
    Tell {
        user: String,
        text: String,
    },
    Who,
    Stats,
    Help,
    Quit,
    /// With what would be right.
    Wrong(String),
}

impl Command {
    pub fn parse(line: &str) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Self::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else { return Self::Chat(line.to_owned()) };
        if command.starts_with('/') {
            return Self::Chat(command.to_owned());
        }
        let (name, rest) = split(command);
        match (name, rest) {
            ("signal", text) if !text.is_empty() => Self::Signal(text.to_owned()),
            ("signal", _) => Self::Wrong("write /signal TEXT".to_owned()),
            ("state", rest) => match split(rest) {
                ("", _) => Self::Wrong("write /state KEY VALUE".to_owned()),
                (key, value) => Self::State { key: key.to_owned(), value: value.to_owned() },
            },
            ("msg", rest) => match split(rest) {
                (_, "") => Self::Wrong("write /msg USER TEXT".to_owned()),
                (user, text) => Self::Tell { user: user.to_owned(), text: text.to_owned() },
            },
            ("who", _) => Self::Who,
            ("stats", _) => Self::Stats,
            ("help", _) => Self::Help,
            ("quit", _) => Self::Quit,
            (other, _) => Self::Wrong(format!(
                "there is no /{other}; /help tells what there is (and //{other} says it)"
            )),
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).map_or((text, ""), |(first, rest)| (first, rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Command) {
        assert_eq!(Command::parse(line), expected, "{line:?}");
    }

    #[test]
    fn lines_mean_what_help_says() {
        check("  ", Command::Nothing);
        check(" hi there ", Command::Chat("hi there".into()));
        check("/signal start the quiz", Command::Signal("start the quiz".into()));
        check("/state page 7 of 9", Command::State { key: "page".into(), value: "7 of 9".into() });
        check("/state page", Command::State { key: "page".into(), value: String::new() });
        check("/msg bob  hi you", Command::Tell { user: "bob".into(), text: "hi you".into() });
        check("//shrug", Command::Chat("/shrug".into()));
        check("/who", Command::Who);
        check("/stats", Command::Stats);
        check("/help", Command::Help);
        check("/quit", Command::Quit);
    }

    #[test]
    fn what_is_wrong_is_not_sent_and_told_what_would_be_right() {
        for line in ["/signal", "/state", "/msg", "/msg bob", "/dance", "/"] {
            let Command::Wrong(told) = Command::parse(line) else { panic!("{line} is taken") };
            assert!(told.contains('/'), "{told}");
        }
    }
}
