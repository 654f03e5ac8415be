//! The keyboard and the screen. At a terminal lines are edited, and what comes in is printed above
//! the prompt; in a pipe, lines are lines.

use std::io::{BufRead, IsTerminal, stdin, stdout};

use anyhow::Context;
use rustyline::{Config, DefaultEditor, ExternalPrinter, error::ReadlineError};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::command::Command;
use crate::output::{complain, say};

/// Typed and not yet sent. A pipe waits at this bound; a person is told.
const TYPED_AHEAD: usize = 16;

/// Where a person types and reads, or a script writes and reads.
pub struct Terminal {
    typed: Receiver<Command>,
    screen: Screen,
}

enum Screen {
    /// Prints above the prompt.
    Prompt(Box<dyn ExternalPrinter + Send>),
    /// Messages on standard output, notes on standard error, so that a script can tell them apart.
    Pipe,
}

impl Terminal {
    /// # Errors
    /// Where the terminal cannot be used.
    pub fn open(prompt: &str) -> anyhow::Result<Self> {
        let (typing, typed) = mpsc::channel(TYPED_AHEAD);
        if !(stdin().is_terminal() && stdout().is_terminal()) {
            // Ends with the process where nobody writes any more.
            std::thread::spawn(move || read_pipe(&typing));
            return Ok(Self { typed, screen: Screen::Pipe });
        }
        let config = Config::builder().auto_add_history(true).build();
        let mut editor = DefaultEditor::with_config(config).context("cannot use the terminal")?;
        let Ok(printer) = editor.create_external_printer() else {
            // A terminal that cannot do more than lines.
            std::thread::spawn(move || read_pipe(&typing));
            return Ok(Self { typed, screen: Screen::Pipe });
        };
        let prompt = prompt.to_owned();
        std::thread::spawn(move || read_keyboard(editor, &prompt, &typing));
        Ok(Self { typed, screen: Screen::Prompt(Box::new(printer)) })
    }

    /// The next command; none at the end of the input. Cancel-safe.
    pub async fn next(&mut self) -> Option<Command> {
        self.typed.recv().await
    }

    /// What was typed stays on the screen, so that the sender need not be shown it again.
    pub fn shows_typing(&self) -> bool {
        matches!(self.screen, Screen::Prompt(_))
    }

    /// Whether colours are seen, and wanted (<https://no-color.org>).
    pub fn has_color(&self) -> bool {
        stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Prints a message.
    pub fn print(&mut self, line: &str) {
        match &mut self.screen {
            Screen::Prompt(printer) => {
                // The prompt is gone once the keyboard's end was read: then lines are lines.
                if printer.print(format!("{line}\n")).is_err() {
                    say(line);
                }
            }
            Screen::Pipe => say(line),
        }
    }

    /// Prints what is no message.
    pub fn print_note(&mut self, line: &str) {
        match &self.screen {
            Screen::Prompt(_) => self.print(line),
            Screen::Pipe => complain(line),
        }
    }
}

fn read_pipe(typing: &Sender<Command>) {
    for line in stdin().lock().lines() {
        let Ok(line) = line else { return };
        let command = Command::parse(&line);
        let last = command == Command::Quit;
        if typing.blocking_send(command).is_err() || last {
            return;
        }
    }
}

fn read_keyboard(mut editor: DefaultEditor, prompt: &str, typing: &Sender<Command>) {
    loop {
        let command = match editor.readline(prompt) {
            Ok(line) => Command::parse(&line),
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Command::Quit,
            Err(_) => return,
        };
        let last = command == Command::Quit;
        // Never waits: the screen may be waiting for the prompt to take a line.
        if let Err(mpsc::error::TrySendError::Full(_)) = typing.try_send(command) {
            complain("* not sent: what you typed before is still on its way");
        }
        // The prompt must not come back after the last line: it would hold the terminal.
        if last || typing.is_closed() {
            return;
        }
    }
}
