use super::*;

fn error(text: &str) -> String {
    format!("{:#}", Profiles::parse(text).unwrap_err())
}

#[test]
fn the_built_in_profiles_are_valid_and_give_a_reason() {
    let profiles = Profiles::load(None).unwrap();
    for name in [
        "clean",
        "wifi-busy",
        "4g",
        "3g",
        "edge",
        "lift",
        "train",
        "classroom-congested",
        "satellite",
        "lossy-1",
        "lossy-5",
        "lossy-10",
        "lossy-20",
        "udp-blocked",
        "udp-blocked-midway",
        "handover",
        "handover-dying",
        "nat-rebind",
        "burst-60",
        "burst-200",
        "bufferbloat",
        "blackout-6s",
        "bottleneck-5m",
    ] {
        assert!(profiles.get(name).unwrap().reason.len() > 20, "{name}");
    }
}

#[test]
fn a_direction_has_its_own_values_over_those_of_both() {
    let profiles = Profiles::parse(
        r#"
        [x]
        reason = "a test"
        both = { delay = "50ms", loss = "1%" }
        up = { loss = "2%", rate = "1Mbit/s", queue = "1s" }
        "#,
    )
    .unwrap();
    let profile = profiles.get("x").unwrap();
    assert_eq!(profile.up.delay, Duration::from_millis(50));
    assert!((profile.up.loss - 0.02).abs() < 1e-12);
    assert!((profile.down.loss - 0.01).abs() < 1e-12);
    assert!(profile.up.bottleneck.is_some());
    assert!(profile.down.bottleneck.is_none());
}

#[test]
fn a_users_file_adds_profiles_and_replaces_those_of_the_same_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "[mine]\nreason = \"my flat\"\n[clean]\nreason = \"cleaner\"\n";
    std::fs::write(file.path(), text).unwrap();
    let profiles = Profiles::load(Some(file.path())).unwrap();
    assert_eq!(profiles.get("mine").unwrap().reason, "my flat");
    assert_eq!(profiles.get("clean").unwrap().reason, "cleaner");
    assert!(profiles.get("4g").is_ok());
}

#[test]
fn a_mistake_is_told_with_its_line_and_what_would_be_right() {
    let said = error("[x]\nreason = \"a\"\nboth.dealy = \"50ms\"\n");
    assert!(said.contains("line 3") && said.contains("dealy") && said.contains("delay"), "{said}");
    let said = error("[x]\nreason = \"a\"\nboth.delay = \"50\"\n");
    assert!(said.contains("line 3") && said.contains("no unit of time"), "{said}");
    let said = error("[x]\nboth.delay = \"50ms\"\n");
    assert!(said.contains("reason"), "{said}");
}

#[test]
fn all_that_does_not_fit_together_is_told_at_once() {
    let said = error(
        r#"
        [x]
        reason = " "
        both = { rate = "1Mbit/s" }
        up = { queue = "100B" }
        blackouts = [{ when = { at = "1s", every = "5s", stagger = "2s" }, lasts = "4s" }]
        hand_overs = [{ when = { at = "1s" }, old_path = "dying" }]
        udp_blocks = [{ when = { at = "1s", every = "5s" } }]
        "#,
    );
    for part in [
        "x.reason: must say",
        "x.up.queue: must hold a packet",
        "x.down: rate and queue",
        "x.blackouts[0]: lasts and stagger",
        "x.hand_overs[0]: lasts and loss",
        "x.udp_blocks[0]: what has no end",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_names_there_are() {
    let said = Profiles::load(None).unwrap().get("5g").unwrap_err().to_string();
    assert!(said.contains("\"5g\"") && said.contains("4g, "), "{said}");
}
