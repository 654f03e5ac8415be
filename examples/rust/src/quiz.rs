//! What a quiz is: its question, its answers, its log, and who has sent what. No I/O, no gRPC, no clock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    AckStatus, Class, ErrorCode, Rest, Seq, Text,
    frame::{Ack, Deliver, History, Page, Send, page_flag},
    limits,
};

const CHOICES_MAX: usize = 10;
const QUESTION_BYTES: usize = 4096;

/// What is kept for who comes late or falls behind, by class.
const LOG_MESSAGES: usize = 1000;
const LOG_BYTES: usize = 1024 * 1024;

/// Devices whose last message id is remembered, so that a repeat is known for one.
const SENDERS_MAX: usize = 20_000;

/// Remarks of a quiz in a second; more are flicker.
const REMARKS_PER_SECOND: u32 = 5;

/// A message or request that may not be.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) detail: String,
}

pub(crate) fn refuse<T>(code: ErrorCode, detail: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { code, detail: detail.into() })
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Device {
    pub(crate) user: String,
    pub(crate) device: String,
}

/// The deliveries of one class: numbered without holes, the latest of them kept.
#[derive(Debug)]
struct Log {
    head: Seq,
    kept: VecDeque<Bytes>,
    bytes: usize,
}

impl Log {
    fn append(&mut self, frame: Bytes) {
        self.head = self.head.next();
        self.bytes += frame.len();
        self.kept.push_back(frame);
        while self.kept.len() > LOG_MESSAGES || self.bytes > LOG_BYTES {
            self.bytes -= self.kept.pop_front().map_or(0, |frame| frame.len());
        }
    }

    fn page(&self, asked: &History) -> Page {
        let Seq { epoch, counter: last } = self.head;
        let first = last - self.kept.len() as u64 + 1;
        // Positions of another epoch are of an earlier run, of which nothing is left.
        let same = asked.after.epoch == epoch;
        let wanted = if same { asked.after.counter.saturating_add(1) } else { 1 };
        let begin = wanted.max(first);
        let lost = begin > wanted || !(same || asked.after.epoch == 0);
        let most = match asked.limit {
            0 => limits::PAGE_MESSAGES,
            limit => limit.min(limits::PAGE_MESSAGES),
        };
        let mut messages = BytesMut::new();
        let mut upto = begin - 1;
        let skip = usize::try_from(begin - first).unwrap_or(usize::MAX);
        for frame in self.kept.iter().skip(skip).take(usize::try_from(most).unwrap_or(usize::MAX)) {
            if !messages.is_empty() && messages.len() + frame.len() > limits::PAGE_BYTES {
                break;
            }
            messages.extend_from_slice(frame);
            upto += 1;
        }
        let more = upto < last;
        let upto = if more { Seq::new(epoch, upto) } else { self.head.max(asked.after) };
        Page {
            request: asked.request,
            group: asked.group,
            class: asked.class,
            flags: if more { page_flag::MORE } else { 0 }
                | if lost { page_flag::TRUNCATED } else { 0 },
            upto,
            head: self.head.max(upto),
            messages: Rest(messages.freeze()),
        }
    }
}

/// What became of a message.
pub(crate) struct Outcome {
    pub(crate) ack: Ack,
    /// For all members: its position, and the frame that all of them read.
    pub(crate) publish: Option<(Seq, Bytes)>,
}

/// One quiz.
#[derive(Debug)]
pub(crate) struct Quiz {
    group: u64,
    signals: Log,
    remarks: Log,
    /// The last id of each sender, with the turn in which it was used, so that the one that has been
    /// silent for longest is forgotten first.
    last: HashMap<(Device, Class), (u64, u64)>,
    turns: BTreeMap<u64, (Device, Class)>,
    turn: u64,
    /// The latest delivery of each key, for who comes late.
    state: BTreeMap<&'static str, Bytes>,
    choices: usize,
    answers: HashMap<String, usize>,
    /// Remarks in the second that is, and those that were thinned out in all.
    second: (u64, u32),
    shed: u64,
}

impl Quiz {
    pub(crate) fn new(group: u64, epoch: u64) -> Self {
        let log = || Log { head: Seq::new(epoch, 0), kept: VecDeque::new(), bytes: 0 };
        Self {
            group,
            signals: log(),
            remarks: log(),
            last: HashMap::new(),
            turns: BTreeMap::new(),
            turn: 0,
            state: BTreeMap::new(),
            choices: 0,
            answers: HashMap::new(),
            second: (0, 0),
            shed: 0,
        }
    }

    pub(crate) const fn group(&self) -> u64 {
        self.group
    }

    pub(crate) fn last_id(&self, device: &Device, class: Class) -> u64 {
        self.last.get(&(device.clone(), class)).map_or(0, |(id, _)| *id)
    }

    /// For `Joined`: heads and last ids. A class that a quiz does not have is 0-0.
    pub(crate) fn classes(&self, device: &Device) -> Vec<(Seq, u64)> {
        let heads = Class::ALL.map(|class| (self.head(class), self.last_id(device, class)));
        heads.to_vec()
    }

    pub(crate) fn head(&self, class: Class) -> Seq {
        match class {
            Class::Signal => self.signals.head,
            Class::Binary => Seq::ZERO,
            Class::Chat => self.remarks.head,
        }
    }

    pub(crate) fn state(&self) -> Bytes {
        let mut all = BytesMut::new();
        self.state.values().for_each(|frame| all.extend_from_slice(frame));
        all.freeze()
    }

    pub(crate) fn page(&self, asked: &History) -> Result<Page, Refused> {
        match asked.class {
            Class::Signal => Ok(self.signals.page(asked)),
            Class::Chat => Ok(self.remarks.page(asked)),
            Class::Binary => refuse(ErrorCode::BadRequest, "a quiz has no strokes"),
        }
    }

    /// A message of a member.
    ///
    /// # Errors
    /// It may not be: its id is not used up then.
    pub(crate) fn send(
        &mut self,
        from: &Device,
        send: &Send,
        now_ms: u64,
    ) -> Result<Outcome, Refused> {
        let last = self.last_id(from, send.class);
        if send.id <= last {
            return Ok(self.unpublished(send, AckStatus::Duplicate, 0));
        }
        // A signal that is missing will come again; chat may have been shed on its way.
        if send.class == Class::Signal && send.id != last + 1 {
            return Ok(self.unpublished(send, AckStatus::OutOfOrder, last + 1));
        }
        let payload = &send.payload.0;
        if payload.len() > limits::PAYLOAD_BYTES {
            return refuse(ErrorCode::TooLarge, "a payload may have 60 KiB");
        }
        let (key, payload) = match send.class {
            Class::Signal => self.command(&from.user, payload)?,
            Class::Binary => return refuse(ErrorCode::Forbidden, "a quiz has no strokes"),
            Class::Chat => ("", payload.clone()),
        };
        self.remember(from, send.class, send.id);
        if send.class == Class::Chat && !self.may_remark(now_ms) {
            self.shed += 1;
            return Ok(self.unpublished(send, AckStatus::Shed, 0));
        }
        let seq = self.head(send.class).next();
        let deliver = Deliver {
            group: self.group,
            class: send.class,
            seq,
            time_ms: now_ms,
            expires_ms: 0,
            shed: if send.class == Class::Chat { self.shed } else { 0 },
            sender: Text::from(from.user.as_str()),
            key: Text::from_static(key),
            payload: Rest(payload),
        };
        let frame = deliver.to_bytes();
        let Outcome { ack, .. } = self.unpublished(send, AckStatus::Accepted, 0);
        let ack = Ack { seq, ..ack };
        // First the log, then the members: whoever falls behind finds it there.
        if send.class == Class::Signal {
            self.signals.append(frame.clone());
            self.state.insert(key, frame.clone());
        } else {
            self.remarks.append(frame.clone());
        }
        Ok(Outcome { ack, publish: Some((seq, frame)) })
    }

    /// A message that members do not see.
    const fn unpublished(&self, send: &Send, status: AckStatus, expected: u64) -> Outcome {
        let (group, class, id) = (self.group, send.class, send.id);
        let ack = Ack { group, class, id, status, seq: Seq::ZERO, expected };
        Outcome { ack, publish: None }
    }

    fn remember(&mut self, from: &Device, class: Class, id: u64) {
        self.turn += 1;
        let who = (from.clone(), class);
        if let Some((_, turn)) = self.last.insert(who.clone(), (id, self.turn)) {
            self.turns.remove(&turn);
        }
        self.turns.insert(self.turn, who);
        if self.turns.len() > SENDERS_MAX
            && let Some((_, silent)) = self.turns.pop_first()
        {
            self.last.remove(&silent);
        }
    }

    /// Does what a signal says; what is delivered for it: the key of state and the payload.
    fn command(&mut self, user: &str, payload: &[u8]) -> Result<(&'static str, Bytes), Refused> {
        let Ok(text) = std::str::from_utf8(payload) else {
            return refuse(ErrorCode::BadRequest, "a command is text");
        };
        match text.split_once(' ').unwrap_or((text, "")) {
            ("ask", rest) => {
                let choices = rest.split('|').skip(1).count();
                if rest.len() > QUESTION_BYTES {
                    return refuse(ErrorCode::TooLarge, "a question may have 4096 bytes");
                }
                if !(2..=CHOICES_MAX).contains(&choices) {
                    return refuse(ErrorCode::BadRequest, "ask QUESTION|CHOICE|CHOICE, 2 to 10");
                }
                self.choices = choices;
                self.answers.clear();
                self.state.remove("tally");
                Ok(("question", Bytes::copy_from_slice(rest.as_bytes())))
            }
            ("answer", rest) => {
                let choice = rest.parse().ok().filter(|n| (1..=self.choices).contains(n));
                let Some(choice) = choice else {
                    let detail = match self.choices {
                        0 => "there is no question".to_owned(),
                        n => format!("answer 1 to {n}"),
                    };
                    return refuse(ErrorCode::BadRequest, detail);
                };
                self.answers.insert(user.to_owned(), choice);
                let count = |n| self.answers.values().filter(|choice| **choice == n).count();
                let counts: Vec<_> = (1..=self.choices).map(|n| count(n).to_string()).collect();
                Ok(("tally", counts.join(" ").into()))
            }
            _ => refuse(ErrorCode::BadRequest, "commands are: ask, answer, end"),
        }
    }

    fn may_remark(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.second.1 <= REMARKS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(log: &Log, after: Seq, limit: u64) -> (u64, Seq, usize) {
        let page = log.page(&History { after, limit, ..History::default() });
        (page.flags, page.upto, page.messages.0.len())
    }

    #[test]
    fn pages_say_what_is_lost_and_where_they_end() {
        let mut log = Log { head: Seq::new(5, 0), kept: VecDeque::new(), bytes: 0 };
        assert_eq!(ask(&log, Seq::ZERO, 0), (0, Seq::new(5, 0), 0));
        for _ in 0..1500 {
            log.append(Bytes::from_static(&[0; 10]));
        }
        let both = page_flag::MORE | page_flag::TRUNCATED;
        assert_eq!(ask(&log, Seq::ZERO, 3), (both, Seq::new(5, 503), 30));
        assert_eq!(ask(&log, Seq::new(5, 500), 0), (page_flag::MORE, Seq::new(5, 700), 2000));
        assert_eq!(ask(&log, Seq::new(5, 1499), 0), (0, Seq::new(5, 1500), 10));
        assert_eq!(ask(&log, Seq::new(5, 1500), 0), (0, Seq::new(5, 1500), 0));
        assert_eq!(ask(&log, Seq::new(4, 9), 1), (both, Seq::new(5, 501), 10));
    }

    #[test]
    fn a_message_counts_once_and_one_that_is_refused_does_not_use_up_its_id() {
        let mut quiz = Quiz::new(7, 1);
        let ann = Device { user: "ann".into(), device: "phone".into() };
        let mut send = |id, text: &'static str| {
            let payload = Rest(Bytes::from_static(text.as_bytes()));
            let send = Send { group: 7, id, payload, ..Send::default() };
            quiz.send(&ann, &send, 0).map(|o| (o.ack.status, o.ack.expected, o.publish.is_some()))
        };
        assert!(send(1, "answer 1").is_err());
        assert_eq!(send(1, "ask 2+2?|3|4").unwrap(), (AckStatus::Accepted, 0, true));
        assert_eq!(send(1, "ask 2+2?|3|4").unwrap(), (AckStatus::Duplicate, 0, false));
        assert_eq!(send(3, "answer 2").unwrap(), (AckStatus::OutOfOrder, 2, false));
        assert_eq!(send(2, "answer 2").unwrap(), (AckStatus::Accepted, 0, true));
    }

    #[test]
    fn remarks_are_thinned_and_counted() {
        let mut quiz = Quiz::new(7, 1);
        let ann = Device { user: "ann".into(), device: "phone".into() };
        let mut delivered = Vec::new();
        for id in 1..=8 {
            let send = Send { group: 7, class: Class::Chat, id, ..Send::default() };
            let outcome = quiz.send(&ann, &send, id * 200).unwrap();
            delivered.extend(outcome.publish.map(|(seq, _)| seq.counter));
        }
        // 1,000 ms begin with the fifth.
        assert_eq!(delivered, (1..=8).collect::<Vec<_>>());
        for id in 9..=20 {
            let send = Send { group: 7, class: Class::Chat, id, ..Send::default() };
            quiz.send(&ann, &send, 1900).unwrap();
        }
        assert_eq!((quiz.head(Class::Chat).counter, quiz.shed), (9, 11));
    }
}
