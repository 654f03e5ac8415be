//! What is written to get past a list, with what becomes of it; and what is innocent, and passes.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use edgeway_filter::{Action, Filter, Message, SlowMode, Verdict, Why, WordOptions, Words};
use proptest::prelude::*;

const LIST: &str = "
# Latin
badword
ass
cunt
penis
sex
hell
fuck*
# An end that is open on both sides
*slur*
# Chinese and others that do not write words apart
傻逼
法轮功
バカ
바보
# Cyrillic
дурак
reject: worst
silent: spamlink
";

fn words() -> Words {
    Words::parse(LIST, WordOptions::default()).unwrap()
}

fn masked(text: &str) -> String {
    match words().find(text.as_bytes()) {
        None => text.to_owned(),
        Some(found) => String::from_utf8(found.mask(text.as_bytes())).unwrap(),
    }
}

#[test]
fn evasions_are_found_and_covered_where_they_stand() {
    for (written, expected) in [
        ("badword", "*******"),
        ("you BadWord!", "you *******!"),
        ("ＢＡＤＷＯＲＤ", "*******"),
        ("ｂａｄｗｏｒｄ and more", "******* and more"),
        ("b.a.d.w.o.r.d", "*.*.*.*.*.*.*"),
        ("b-a-d-word", "*-*-*-****"),
        ("b a d w o r d", "* * * * * * *"),
        ("bad'word", "***'****"),
        ("ba dw or d", "** ** ** *"),
        ("bad___word", "***___****"),
        ("bad!!!!!!word", "***!!!!!!****"),
        ("b\u{200b}a\u{200d}d\u{feff}word", "*\u{200b}*\u{200d}*\u{feff}****"),
        ("b\u{ad}adword", "*\u{ad}******"),
        ("bádwörd", "*******"),
        ("b\u{336}a\u{336}d\u{336}word", "*\u{336}*\u{336}*\u{336}****"),
        ("ⓑⓐⓓⓦⓞⓡⓓ", "*******"),
        ("𝓫𝓪𝓭𝔀𝓸𝓻𝓭", "*******"),
        ("𝖇𝖆𝖉word", "*******"),
        ("b🙂a🙂d🙂word", "*🙂*🙂*🙂****"),
        ("(badword)", "(*******)"),
        ("don't be an ass.", "don't be an ***."),
        ("fucking great", "****ing great"),
        ("F.U.C.K this", "*.*.*.* this"),
        ("f u ck", "* * **"),
        ("xslury", "x****y"),
        ("傻逼", "**"),
        ("你这个傻逼啊", "你这个**啊"),
        ("傻 逼", "* *"),
        ("傻。。。逼", "*。。。*"),
        ("傻\u{200b}逼", "*\u{200b}*"),
        ("傻■■逼", "*■■*"),
        ("傻x逼", "傻x逼"),
        ("法.轮.功", "*.*.*"),
        ("法輪功", "法輪功"),
        ("バカ", "**"),
        ("ﾊﾞｶ", "***"),
        ("バ・カ!", "*・*!"),
        ("이 바보야", "이 **야"),
        ("ДУРАК", "*****"),
        ("д у р а к", "* * * * *"),
        ("{\"text\":\"badword\"}", "{\"text\":\"*******\"}"),
        ("badword badword", "******* *******"),
    ] {
        assert_eq!(masked(written), expected, "{written}");
    }
}

#[test]
fn innocent_text_passes() {
    for text in [
        "Scunthorpe United",
        "the class passed the assessment",
        "bass, grass, assassin",
        "Middlesex and Essex and sextant",
        "hello, shell, Michelle",
        "the pen is mightier",
        "an open island",
        "as soon as Sally came",
        "he'll be back",
        "he’ll be back",
        "peninsula",
        "swordbadwords",
        "worsted",
        "我很傻，你逼我走也没用吗",
        "法国的轮船功能",
        "バス カ",
        "",
        " ",
        "......",
        "🙂🙂🙂",
        "12345",
        "https://example.com/a?b=c",
        "Straße, naïve, café",
    ] {
        assert_eq!(words().find(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn without_whole_words_parts_of_words_are_found_too() {
    let options = WordOptions { whole_words: false, ..WordOptions::default() };
    let words = Words::parse("cunt", options).unwrap();
    let text = b"Scunthorpe";
    assert_eq!(words.find(text).unwrap().mask(text), b"S****horpe");
}

#[test]
fn half_of_a_letter_is_none() {
    let words = Words::parse("*if*\n*as*", WordOptions::default()).unwrap();
    assert_eq!(words.find("ﬁf".as_bytes()), None, "the i is half of a letter");
    assert_eq!(words.find("aß".as_bytes()), None);
}

#[test]
fn what_is_no_utf8_hides_nothing() {
    let text = b"bad\xff\xfeword \x80";
    let found = words().find(text).unwrap();
    assert_eq!(found.mask(text), b"***\xff\xfe**** \x80");
}

fn judge(filter: &Filter, slow: &mut SlowMode, user: &str, text: &str, now_ms: u64) -> Verdict {
    let payload = text.as_bytes();
    let is_looked_at = true;
    filter.judge(&Message { room: "maths", user, payload, is_looked_at, now_ms }, slow)
}

#[test]
fn the_strongest_action_of_the_words_counts() {
    let filter = Filter::default();
    filter.set_words(Arc::new(words()));
    let mut slow = SlowMode::default();
    let mut judge = |text| judge(&filter, &mut slow, "ada", text, 0);
    assert_eq!(judge("hi"), Verdict::Pass);
    assert_eq!(judge("badword"), Verdict::Masked(b"*******".to_vec()));
    assert_eq!(judge("badword spamlink"), Verdict::Silent);
    assert_eq!(judge("spamlink w-o-r-s-t badword"), Verdict::Rejected(Why::Words));
    filter.set_words(Arc::default());
    assert_eq!(judge("badword"), Verdict::Pass, "another list");
}

#[test]
fn blocked_and_muted_users_are_refused_until_it_ends() {
    let filter = Filter::default();
    let mut slow = SlowMode::default();
    let mut judge = |user, now_ms| judge(&filter, &mut slow, user, "hi", now_ms);
    filter.rules(|rules| {
        rules.block("eve", Some(100), 0).unwrap();
        rules.mute("bob", Some("maths"), None, 0).unwrap();
        rules.mute("cid", Some("physics"), None, 0).unwrap();
        rules.mute("dan", None, Some(50), 0).unwrap();
    });
    assert_eq!(judge("eve", 99), Verdict::Rejected(Why::Blocked));
    assert_eq!(judge("eve", 100), Verdict::Pass);
    assert_eq!(judge("bob", 1), Verdict::Rejected(Why::Muted));
    assert_eq!(judge("cid", 1), Verdict::Pass);
    assert_eq!(judge("dan", 49), Verdict::Rejected(Why::Muted));
    assert_eq!(judge("dan", 50), Verdict::Pass);
    filter.rules(|rules| assert!(rules.unmute("bob", Some("maths")) && !rules.unmute("bob", None)));
    assert_eq!(judge("bob", 1), Verdict::Pass);
    filter.rules(|rules| rules.mute_room("maths", Some(10), 0).unwrap());
    assert_eq!(judge("ada", 9), Verdict::Rejected(Why::RoomMuted));
    assert_eq!(judge("ada", 10), Verdict::Pass);
    filter.rules(|rules| rules.configure(vec!["zoe".to_owned()], Duration::ZERO));
    assert_eq!(judge("zoe", 1), Verdict::Rejected(Why::Blocked));
    // Who is blocked sends nothing of any class; who is muted sends what is not looked at.
    let quiet =
        |user| Message { room: "maths", user, payload: b"", is_looked_at: false, now_ms: 1 };
    let mut slow = SlowMode::default();
    assert_eq!(filter.judge(&quiet("zoe"), &mut slow), Verdict::Rejected(Why::Blocked));
    assert_eq!(filter.judge(&quiet("dan"), &mut slow), Verdict::Pass);
}

#[test]
fn in_slow_mode_each_user_sends_one_message_in_a_pause() {
    let filter = Filter::default();
    filter.set_words(Arc::new(words()));
    let mut slow = SlowMode::default();
    let mut judge = |user, text, now_ms| judge(&filter, &mut slow, user, text, now_ms);
    filter.rules(|rules| rules.slow("maths", Some(Duration::from_secs(10))).unwrap());
    let too_soon = Verdict::Rejected(Why::SlowMode);
    assert_eq!(judge("ada", "worst", 1_000), Verdict::Rejected(Why::Words));
    assert_eq!(judge("ada", "hi", 1_000), Verdict::Pass, "what was rejected takes no turn");
    assert_eq!(judge("ada", "hi", 10_999), too_soon);
    assert_eq!(judge("bob", "hi", 2_000), Verdict::Pass);
    assert_eq!(judge("ada", "hi", 11_000), Verdict::Pass);
    let users: Vec<_> = (0..1_000).map(|user| user.to_string()).collect();
    for user in &users {
        assert_eq!(judge(user, "hi", 12_000), Verdict::Pass);
    }
    assert_eq!(judge("ada", "hi", 12_000), too_soon, "not forgotten among many");
    filter.rules(|rules| rules.slow("maths", None).unwrap());
    assert_eq!(judge("ada", "hi", 12_000), Verdict::Pass);
}

#[test]
fn a_bad_list_is_told_by_line() {
    for (list, line, says) in [
        ("good\n\n!!!\n", 3, "no letters"),
        (&"x".repeat(257), 1, "256 letters"),
        ("*\n", 1, "no letters"),
    ] {
        let problem = Words::parse(list, WordOptions::default()).unwrap_err();
        assert!(problem.line == line && problem.problem.contains(says), "{problem}");
    }
    assert!(Words::parse("# nothing\n", WordOptions::default()).unwrap().is_empty());
    assert!(Action::parse("delete").is_none());
}

proptest! {
    /// Whatever is written: what is covered is covered at borders of characters, and nothing else is touched.
    #[test]
    fn any_text_is_masked_without_harm(text in "\\PC{0,40}", word in "[a-z]{1,4}", at in 0usize..40) {
        let mut text = text;
        let at = (at.min(text.len())..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap();
        text.insert_str(at, &format!(" {word} "));
        let words = Words::parse(&format!("*{word}*"), WordOptions::default()).unwrap();
        let found = words.find(text.as_bytes());
        let found = found.expect("it stands there");
        let masked = String::from_utf8(found.mask(text.as_bytes())).unwrap();
        prop_assert_eq!(masked.chars().count(), text.chars().count());
        for (before, after) in text.chars().zip(masked.chars()) {
            prop_assert!(after == '*' || before == after);
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some(found) = words().find(&bytes) {
            prop_assert!(found.mask(&bytes).len() <= bytes.len());
        }
    }
}
