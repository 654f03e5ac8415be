//! Reading a topic by programs that know nothing of Edgeway.

use std::process::Command;

use crate::{Kafka, find::run};

/// A message as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its key.
    pub key: String,
    /// Its partition.
    pub partition: u32,
    /// Its place there.
    pub offset: u64,
    /// What it says.
    pub value: String,
}

impl Kafka {
    /// Makes a topic.
    ///
    /// # Panics
    /// Where that fails.
    pub fn create_topic(&self, topic: &str) {
        let mut create = self.program.java("org.apache.kafka.tools.TopicCommand");
        create.args(["--bootstrap-server", &self.address(), "--create", "--topic", topic]);
        run(&mut create).unwrap();
    }

    /// All messages of a topic up to its present end, those of a partition in their order: by `kcat`
    /// where it is installed, else by Kafka's console consumer. None where there is no such topic.
    ///
    /// # Panics
    /// Where neither can read.
    #[must_use]
    pub fn consume(&self, topic: &str) -> Vec<Message> {
        match self.consumer() {
            "kcat" => self.by_kcat(topic),
            _ => self.by_console(topic),
        }
    }

    /// The program that [`Self::consume`] reads by.
    #[must_use]
    pub fn consumer(&self) -> &'static str {
        let has_kcat = Command::new("kcat").arg("-V").output().is_ok();
        if has_kcat { "kcat" } else { "Kafka's console consumer" }
    }

    fn by_kcat(&self, topic: &str) -> Vec<Message> {
        let mut kcat = Command::new("kcat");
        kcat.args(["-C", "-q", "-e", "-o", "beginning", "-f", "%p\t%o\t%k\t%s\n"]);
        kcat.args(["-b", &self.address(), "-t", topic]);
        match run(&mut kcat) {
            Ok(output) => parse(&String::from_utf8(output.stdout).unwrap(), "", ""),
            Err(told) if told.to_lowercase().contains("unknown topic") => Vec::new(),
            Err(told) => panic!("{told}"),
        }
    }

    fn by_console(&self, topic: &str) -> Vec<Message> {
        let mut console = self.program.java("org.apache.kafka.tools.consumer.ConsoleConsumer");
        console.args(["--bootstrap-server", &self.address(), "--topic", topic]);
        // It ends when nothing has come for so long.
        console.args(["--from-beginning", "--timeout-ms", "10000"]);
        for property in ["print.key=true", "print.partition=true", "print.offset=true"] {
            console.args(["--property", property]);
        }
        let output = console.output().unwrap();
        parse(&String::from_utf8(output.stdout).unwrap(), "Partition:", "Offset:")
    }
}

fn parse(text: &str, partition: &str, offset: &str) -> Vec<Message> {
    let line = |line: &str| {
        let mut fields = line.splitn(4, '\t');
        let mut field = || fields.next().unwrap_or_else(|| panic!("no message: {line}"));
        Message {
            partition: field().strip_prefix(partition).unwrap().parse().unwrap(),
            offset: field().strip_prefix(offset).unwrap().parse().unwrap(),
            key: field().to_owned(),
            value: field().to_owned(),
        }
    };
    text.lines().map(line).collect()
}
