//! Every value is read where it stands, and every mistake says where and what would be right.

use super::layers::{CENTURY, DAY, Raw, SECOND, WITHOUT_DEFAULT, split};
use super::values::{duration, size};
use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Settings of a folder with this `usher.toml`, these variables and flags; or what is said, without the folder.
fn load(text: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Settings, Vec<String>> {
    let dir = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(dir.path().join("usher.toml"), text).expect("a file can be written");
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load_with(Some(dir.path()), variables, &flags).map_err(|mistakes| {
        let folder = format!("{}/", dir.path().display());
        mistakes
            .iter()
            .map(|mistake| mistake.to_string().replace(&folder, ""))
            .collect()
    })
}

fn said(text: &str) -> Vec<String> {
    load(text, &[], Flags::default()).expect_err("the text has mistakes")
}

fn said_of(name: &str, value: &str) -> Vec<String> {
    load("", &[(name, value)], Flags::default()).expect_err("the variable is a mistake")
}

#[test]
fn the_commented_file_is_the_default() -> Outcome {
    let settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    assert_eq!(settings.mqtt, Mqtt::Embedded("127.0.0.1:1883".parse()?));
    assert_eq!(settings.http, "127.0.0.1:8080".parse()?);
    assert_eq!(settings.data, Path::new("data"));
    assert_eq!(settings.mqtt_client.share_group, None);
    assert_eq!(settings.mqtt_client.max_packet_bytes, 16 * 1024 * 1024);
    assert_eq!(settings.decode.max_payload_bytes, 256 * 1024);
    assert_eq!(
        settings.decode.earliest,
        "2001-01-01T00:00:00Z".parse::<DateTime<Utc>>()?
    );
    assert_eq!(
        settings.time,
        Time {
            delay: 2 * SECOND,
            idle: 10 * SECOND
        }
    );
    assert_eq!(settings.log.retention_age, 90 * DAY);
    assert_eq!(settings.log.retention_bytes, 20 << 30);
    assert_eq!((settings.log.queue_appends, settings.log.queue_bytes), (8192, 32 << 20));
    assert_eq!(settings.log.slow_after, 2 * SECOND);
    assert_eq!(
        settings.intake,
        Intake {
            queue: 4096,
            queue_bytes: 64 << 20,
            batch: 4096,
            recent_ids: 1_000_000
        }
    );
    assert_eq!(settings.mqtt_client.receive_maximum, 1024);
    assert_eq!(
        (settings.broker.session_queue, settings.broker.session_queue_bytes),
        (10_000, 16 << 20)
    );
    assert_eq!((settings.delivery.queue, settings.delivery.in_memory), (10_000, 50_000));
    assert_eq!(settings.query_memory, 256 << 20);
    assert_eq!((settings.privacy_k, settings.keep_cleared_alerts), (5, 1000));
    assert_eq!(settings.without_consent, Purposes::ALL);
    assert_eq!(settings.retention, RetentionSettings::default());
    assert_eq!(
        settings.public,
        PublicSettings {
            http: None,
            step: 300 * SECOND,
            measures: ["searches", "retention", "stability", "time_to_service"]
                .map(str::to_owned)
                .to_vec(),
        }
    );
    let tier = |score| settings.engagement.tier(score);
    assert_eq!(
        [tier(-1.0), tier(4.9), tier(5.0), tier(99.0)],
        ["occasional", "occasional", "regular", "devoted"]
    );
    Ok(())
}

#[test]
fn every_default_has_a_comment_and_every_setting_stands_in_the_file() {
    for key in WITHOUT_DEFAULT {
        assert!(DEFAULTS.contains(&format!("\n# {} = ", split(key).1)), "{key}");
    }
    let lines: Vec<&str> = DEFAULTS.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ")) {
        assert!(pair[0].starts_with('#'), "{} has no comment", pair[1]);
    }
    assert_eq!(
        load(DEFAULTS, &[], Flags::default()),
        Settings::load_with(None, [], &Flags::default()).map_err(|_| vec![])
    );
}

#[test]
fn later_layers_win_and_leave_the_rest() -> Outcome {
    let file = "http = \"127.0.0.1:1\"\nmqtt = \"127.0.0.1:1\"\ndata = \"file\"\n[time]\ndelay = \"10 seconds\"\n";
    let variables = [
        ("USHER_MQTT", "127.0.0.1:2"),
        ("USHER_HTTP", "localhost:2"),
        ("USHER_PRIVACY__K", "7"),
        ("USHER_PUBLIC_HTTP", "127.0.0.1:2"),
        ("USHER_PRIVACY__PUBLIC_MEASURES", "searches,requests"),
        ("USHER_LOG__RETENTION_SIZE", ""),
        ("USHER_ENGAGEMENT__TIERS", "{ a = 0, b = 1.5 }"),
        ("USHER_MQTT_CLIENT__SHARE_GROUP", "engines"),
    ];
    let flags = Flags {
        http: Some("0.0.0.0:0".to_owned()),
        public: Some("localhost:3".to_owned()),
        ..Flags::default()
    };
    let settings = load(file, &variables, flags).map_err(|said| said.join("\n"))?;
    assert_eq!(settings.http, "0.0.0.0:0".parse()?);
    assert_eq!(settings.mqtt, Mqtt::Embedded("127.0.0.1:2".parse()?));
    assert_eq!(settings.data, Path::new("file"));
    assert_eq!(
        settings.time,
        Time {
            delay: 10 * SECOND,
            idle: 10 * SECOND
        }
    );
    assert_eq!((settings.privacy_k, settings.log.retention_bytes), (7, 20 << 30));
    assert_eq!(settings.public.http, Some("127.0.0.1:3".parse()?));
    assert_eq!(settings.public.measures, ["searches", "requests"]);
    assert_eq!(settings.engagement.tier(2.0), "b");
    assert_eq!(settings.mqtt_client.share_group.as_deref(), Some("engines"));
    Ok(())
}

#[test]
fn all_mistakes_of_all_layers_are_said() {
    let text = "mqtt = \"127.0.0.1\"
htpt = \"127.0.0.1:8080\"
retention_age = \"30d\"

[log]
retention_age = 90
retention_sise = \"1GiB\"
data = \"here\"
retention_size = \"20 gigs\"

[tiem]
delay = \"2s\"

[time]
delay = \"2 fortnights\"
idle = \"2\"

[intake]
queue = 0
batch = \"many\"
";
    let flags = Flags {
        http: Some("8080".to_owned()),
        ..Flags::default()
    };
    let said = load(text, &[("USHER_PRIVACY__K", "none")], flags).expect_err("there are mistakes");
    let duration = "a duration such as \"500ms\", \"10 seconds\", \"5 minutes\", \"1h\" or \"14d\" would be right";
    assert_eq!(
        said,
        [
            "usher.toml:1:8: `127.0.0.1` is no address with a port, \"127.0.0.1:1883\" for the embedded broker or \
             \"mqtt://broker:1883\" for your own would be right",
            "usher.toml:2:1: there is no setting `htpt`, did you mean `http`?",
            "usher.toml:3:1: there is no setting `retention_age`, it belongs in section [log]",
            &format!("usher.toml:6:17: `90` has no unit of time, {duration}"),
            "usher.toml:7:1: there is no setting `retention_sise` in [log], did you mean `retention_size`?",
            "usher.toml:8:1: there is no setting `data` in [log], it belongs at the top, before the first section",
            "usher.toml:9:18: `gigs` is no unit of size, a size such as \"256KiB\", \"16MiB\" or \"20GiB\" would be \
             right",
            "usher.toml:11:2: there is no section [tiem], the nearest is [time]",
            &format!("usher.toml:15:9: `fortnights` is no unit of time, {duration}"),
            &format!("usher.toml:16:8: `2` has no unit of time, {duration}"),
            "usher.toml:19:9: `0` is no such number, a whole number from 1 to 16777216 would be right",
            "usher.toml:20:9: `many` is no such number, a whole number from 1 to 16777216 would be right",
            "$USHER_PRIVACY__K:1:1: `none` is no such number, a whole number from 1 to 1000000 would be right",
            "--http:1:1: `8080` is no address with a port, an address such as \"127.0.0.1:8080\" would be right",
        ]
    );
}

#[test]
fn values_of_the_wrong_shape_say_the_right_one() {
    assert_eq!(
        said("log = 3\n[mqtt]\nurl = \"x\"\n[[time]]\n[attic]\n"),
        [
            "usher.toml:1:1: `log` is a number, a section [log] would be right",
            "usher.toml:2:1: a table is no address with a port, \"127.0.0.1:1883\" for the embedded broker or \
             \"mqtt://broker:1883\" for your own would be right",
            "usher.toml:4:3: `time` is a list, a section [time] would be right",
            "usher.toml:5:2: there is no section [attic], there is [alerts], [broker], [checkpoint], [consent], [decode], [delivery], \
             [engagement], [fluvio], [intake], [log], [messages], [mqtt_client], [privacy], [queries], [retention], [time], [workers]",
        ]
    );
    assert_eq!(
        said("[decode]\nearliest = \"2001\"\n[engagement]\ntiers = { a = 1, b = 1 }\n[checkpoint]\nevery = \"0s\"\n"),
        [
            "usher.toml:2:12: `2001` is no instant, date, time and offset such as \"2001-01-01T00:00:00Z\" would be \
             right",
            "usher.toml:4:9: no tier begins at 0, so that somebody would be in none, a score for each, one of them 0, \
             such as { occasional = 0, regular = 5 } would be right",
            "usher.toml:6:9: `0s` is out of range, \"100ms\" to \"1day\" would be right",
        ]
    );
    assert_eq!(
        said("[decode]\nmax_payload = \"32MiB\"\n"),
        [
            "usher.toml:2:15: a payload of 33554432 bytes does not fit into a packet of 16777216, a `max_packet` in \
             [mqtt_client] that is larger would be right"
        ]
    );
    assert_eq!(
        said(
            "[mqtt_client]\nreceive_maximum = 65536\n[broker]\nsession_queue = 0\nsession_queue_size = \"1\"\n[intake]\n\
             queue_size = \"4GiB\"\n[delivery]\nin_memory = 999\n"
        ),
        [
            "usher.toml:2:19: `65536` is no such number, a whole number from 1 to 65535 would be right",
            "usher.toml:4:17: `0` is no such number, a whole number from 1 would be right",
            "usher.toml:5:22: `1` has no unit of size, a size such as \"256KiB\", \"16MiB\" or \"20GiB\" would be right",
            "usher.toml:7:14: `4GiB` is out of range, 1048576 to 4294967295 bytes would be right",
            "usher.toml:9:13: `999` is no such number, a whole number from 1000 to 16777216 would be right",
        ]
    );
    assert_eq!(
        said("[delivery]\nkeep_steps = 20000\nqueue = 10001\n"),
        [
            "usher.toml:3:9: 10001 steps may wait for the disk, and `keep_steps` in [delivery] keeps 20000 of all, a smaller \
             `queue`, or a `keep_steps` of 20001 or more, would be right"
        ]
    );
    assert_eq!(
        said("public_http = \"80\"\n[privacy]\npublic_step = \"1s\"\npublic_measures = \"a, b c\"\n"),
        [
            "usher.toml:1:15: `80` is no address with a port, an address such as \"0.0.0.0:8090\", or \"\" for none, would be \
             right",
            "usher.toml:3:15: `1s` is out of range, \"1m\" to \"1day\" would be right",
            "usher.toml:4:19: `b c` is no name of a measure, names of measures such as \"searches, retention\", or \"\" for \
             none, would be right",
        ]
    );
    assert_eq!(
        said("[consent]\nwithout_consent = [\"serviec\"]\n"),
        ["usher.toml:2:19: there is no purpose `serviec`, did you mean `service`?"]
    );
    assert_eq!(
        said("[consent]\nwithout_consent = [\"service\", \"research\"]\n"),
        [
            "usher.toml:2:19: who is not recognised can be in no service or research, `recognition` among them, or [] for \
             none, would be right"
        ]
    );
    assert_eq!(
        said("[consent]\nwithout_consent = 3\n"),
        [
            "usher.toml:2:19: `3` is no list of purposes, purposes such as [\"service\", \"recognition\"], or [] for none, \
             would be right"
        ]
    );
    assert_eq!(
        said("[retention]\nclick = \"0s\"\nidentify = \"30d\"\n"),
        [
            "usher.toml:2:9: `0s` is out of range, \"1s\" to \"100years\" would be right",
            "usher.toml:3:1: there is no setting `identify` in [retention], there is `click`, `gate`, `reply`, `rfid`, `seat`",
        ]
    );
    assert_eq!(
        said("[log]\nretention_age = \"30d\"\n[retention]\nclick = \"90d\"\n"),
        [
            "usher.toml:4:9: it is longer than the log keeps anything, `log.retention_age`, which is 30days, a shorter one, \
             \"\" for as long as the log, or a longer `retention_age` would be right"
        ]
    );
    assert_eq!(
        said("mqtt = 127.0.0.1:1883\n[privacy\n")[0],
        "usher.toml:1:8: `127.0.0.1:1883` is no value, a text goes in quotes: \"127.0.0.1:1883\""
    );
}

#[test]
fn a_variable_near_ours_is_a_mistake_and_others_are_left_alone() {
    assert_eq!(
        said_of("USHER_LOG__RETENTION_AGES", "1d"),
        ["$USHER_LOG__RETENTION_AGES:1:1: there is no such setting, did you mean `USHER_LOG__RETENTION_AGE`?"]
    );
    assert_eq!(
        said_of("USHER_TIME_IDLE", "1s"),
        ["$USHER_TIME_IDLE:1:1: there is no such setting, did you mean `USHER_TIME__IDLE`?"]
    );
    assert_eq!(
        said_of("USHER_DATADIR", "x"),
        ["$USHER_DATADIR:1:1: there is no such setting, did you mean `USHER_DATA_DIR`?"]
    );
    let others = [
        "USHER_DATA",
        "USHER_CONFIG",
        "USHER_REQUIRE_PEERS",
        "USHER_FLUVIO",
        "USHER_SPEED",
    ];
    let kubernetes = ["USHER_PORT", "USHER_SERVICE_HOST", "USHER_PORT_1883_TCP_ADDR", "MQTT"];
    let variables: Vec<_> = others
        .iter()
        .chain(&kubernetes)
        .map(|name| (*name, "nonsense"))
        .collect();
    let settings = load("", &variables, Flags::default());
    assert_eq!(settings.map(|settings| settings.data), Ok(PathBuf::from("data")));
}

#[test]
fn a_url_is_a_broker_of_ones_own_and_hides_its_password() -> Outcome {
    for url in [
        "mqtt://broker",
        "mqtts://u:p%40ss@broker.example:8883/",
        "mqtt://[::1]:1883",
        "mqtt://[fe80::1]",
    ] {
        let settings = load("", &[("USHER_MQTT", url)], Flags::default()).map_err(|said| said.join("\n"))?;
        let Mqtt::Own(broker) = &settings.mqtt else {
            panic!("{url} is a URL")
        };
        assert_eq!(broker.with_password(), url);
        assert!(!format!("{broker} {settings:?}").contains("p%40ss"));
    }
    assert_eq!(
        BrokerUrl("mqtts://u:p@q@host:1".to_owned()).to_string(),
        "mqtts://u:***@host:1"
    );
    assert_eq!(
        said_of("USHER_MQTT", "tcp://u:secret@broker:1883"),
        ["$USHER_MQTT:1:1: `tcp://` is no way to a broker, mqtt:// or mqtts:// would be right"]
    );
    for wrong in [
        "mqtt://u:secret@:1883",
        "mqtt://u:secret@b:99999",
        "mqtt://u:secret@b:0",
        "mqtt://u:secret@b/t",
        "u:secret@b:1883",
        "mqtt://fe80::1",
    ] {
        let said = said_of("USHER_MQTT", wrong).concat();
        assert!(said.contains("would be right") && !said.contains("secret"), "{said}");
    }
    Ok(())
}

#[test]
fn durations_and_sizes_are_read_as_people_write_them() {
    let time = duration(Duration::ZERO..=CENTURY);
    for (text, micros) in [
        ("500ms", 500_000),
        ("10 seconds", 10_000_000),
        ("5 minutes", 300_000_000),
        ("1h", 3_600_000_000),
        ("1h 30m", 5_400_000_000),
        ("14d", 1_209_600_000_000_u128),
        ("0s", 0),
    ] {
        assert_eq!(
            time(&Raw::Text(text)).map(|time| time.as_micros()),
            Ok(micros),
            "{text}"
        );
    }
    for text in ["", "s", "-5s", "5 5", "99999999999999999999s", "200years"] {
        assert!(time(&Raw::Text(text)).is_err(), "{text}");
    }
    let bytes = size(0..=u64::MAX);
    for (text, size) in [
        ("256KiB", 262_144),
        ("16 MiB", 16 << 20),
        ("20gib", 20 << 30),
        ("1TB", 1_000_000_000_000),
        ("512 bytes", 512),
    ] {
        assert_eq!(bytes(&Raw::Text(text)), Ok(size), "{text}");
    }
    for text in ["", "KiB", "12", "1.5GiB", "16M", "99999999TiB"] {
        assert!(bytes(&Raw::Text(text)).is_err(), "{text}");
    }
}

#[test]
fn a_folder_is_checked_with_its_place() -> Outcome {
    let dir = tempfile::tempdir()?;
    assert_eq!(check_dir(dir.path()), [], "all of it may be missing");
    std::fs::write(dir.path().join("usher.toml"), "dta = \"x\"\n")?;
    std::fs::write(dir.path().join("site.toml"), "[[site]]\n")?;
    let files: Vec<_> = check_dir(dir.path())
        .iter()
        .map(|mistake| mistake.file.file_name().map(ToOwned::to_owned))
        .collect();
    assert_eq!(files, [Some("usher.toml".into()), Some("site.toml".into())]);
    let missing = check_dir(&dir.path().join("none"));
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].wrong, "there is no such folder");
    Ok(())
}
