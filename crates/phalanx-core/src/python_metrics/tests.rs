use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::exposition::{Format, encode};

/// A file as the library writes it. Samples have a name, labels as JSON, a value and its time.
fn file(metric: &str, samples: &[(&str, serde_json::Value, f64, f64)]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for (name, labels, value, at) in samples {
        let key = json!([metric, name, labels, "Helps"]).to_string();
        bytes.extend(i32::try_from(key.len()).unwrap().to_ne_bytes());
        bytes.extend(key.as_bytes());
        let spaces = 8 - (key.len() + 4) % 8;
        bytes.extend(std::iter::repeat_n(b' ', spaces));
        bytes.extend(value.to_ne_bytes());
        bytes.extend(at.to_ne_bytes());
    }
    let used = i32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&used.to_ne_bytes());
    // The file is longer than what is used of it.
    bytes.resize(bytes.len() + 64, 0);
    bytes
}

fn read(name: &str, bytes: &[u8], labels: &[(&str, &str)]) -> Figures {
    let mut figures = Figures::default();
    let name = FileName::parse(name).unwrap();
    figures.read(name, bytes, labels).unwrap();
    figures
}

fn gauge(mode: &str, process: u32, value: f64, at: f64) -> Figures {
    let bytes = file("g", &[("g", json!({}), value, at)]);
    let position = process.to_string();
    let name = format!("gauge_{mode}_{process}.db");
    read(&name, &bytes, &[("position", &position)])
}

fn samples(figures: &Figures) -> Vec<String> {
    let text = encode(&figures.families(), Format::Text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn counters_of_all_processes_are_added_and_stay() {
    let of = |value| {
        let samples = [("hits_total", json!({"path": "/"}), value, 0.0)];
        read("counter_7.db", &file("hits", &samples), &[])
    };
    let mut all = of(2.0).lasting();
    all.merge(&of(3.0));
    assert_eq!(
        encode(&all.families(), Format::Text),
        "# HELP hits_total Helps\n# TYPE hits_total counter\nhits_total{path=\"/\"} 5\n"
    );
}

#[test]
fn classes_are_added_up_and_the_count_is_that_of_the_last() {
    let samples_of = |scale: f64| {
        let class = |end: &str, count: f64| ("t_bucket", json!({"le": end}), count * scale, 0.0);
        let samples = [
            ("t_sum", json!({}), 10.5 * scale, 0.0),
            class("+Inf", 3.0),
            class("10.0", 2.0),
            class("9.5", 1.0),
        ];
        read("histogram_7.db", &file("t", &samples), &[])
    };
    let mut all = samples_of(1.0);
    all.merge(&samples_of(2.0).lasting());
    assert_eq!(
        samples(&all),
        [
            "t_bucket{le=\"9.5\"} 3",
            "t_bucket{le=\"10.0\"} 9",
            "t_bucket{le=\"+Inf\"} 18",
            "t_sum 31.5",
            "t_count 18"
        ]
    );
}

#[test]
fn a_gauge_is_merged_by_its_mode_and_that_of_the_living_goes() {
    for (mode, living, with_dead) in [
        ("sum", "g 7", "g 8"),
        ("livesum", "g 7", "g 7"),
        ("min", "g 2", "g 1"),
        ("livemin", "g 2", "g 2"),
        ("max", "g 5", "g 5"),
        ("livemax", "g 5", "g 5"),
        ("mostrecent", "g 2", "g 1"),
        ("livemostrecent", "g 2", "g 2"),
    ] {
        let mut all = gauge(mode, 1, 5.0, 100.0);
        all.merge(&gauge(mode, 2, 2.0, 200.0));
        assert_eq!(samples(&all), [living], "{mode}");
        let mut with = gauge(mode, 3, 1.0, 300.0).lasting();
        with.merge(&all);
        assert_eq!(samples(&with), [with_dead], "{mode}");
    }
    for mode in ["all", "liveall"] {
        let mut all = gauge(mode, 1, 5.0, 0.0);
        all.merge(&gauge(mode, 2, 2.0, 0.0));
        // Of two at one position the first stays.
        all.merge(&gauge(mode, 2, 9.0, 0.0));
        assert_eq!(
            samples(&all),
            ["g{position=\"1\"} 5", "g{position=\"2\"} 2"]
        );
        assert!(all.lasting().is_empty());
    }
}

#[test]
fn a_label_of_the_application_keeps_its_name() {
    let bytes = file("g", &[("g", json!({"position": "left"}), 1.0, 0.0)]);
    let figures = read("gauge_all_1.db", &bytes, &[("position", "0")]);
    assert_eq!(
        samples(&figures),
        ["g{phalanx_position=\"0\",position=\"left\"} 1"]
    );
}

#[test]
fn what_has_no_valid_name_is_left_out() {
    for (metric, sample, labels) in [
        ("phalanx_x", "phalanx_x", json!({})),
        ("a b", "a b", json!({})),
        ("a", "b", json!({})),
        ("a", "a", json!({"b c": "1"})),
        ("a", "a", json!({"b": "x".repeat(2000)})),
    ] {
        let bytes = file(metric, &[(sample, labels, 1.0, 0.0)]);
        assert!(read("counter_1.db", &bytes, &[]).is_empty(), "{metric}");
    }
    // The same name of another kind.
    let mut all = read(
        "counter_1.db",
        &file("g", &[("g", json!({}), 1.0, 0.0)]),
        &[],
    );
    all.merge(&gauge("sum", 1, 5.0, 0.0));
    assert_eq!(samples(&all), ["g 1"]);
}

#[test]
fn only_the_library_s_names_are_read() {
    let process = |name| FileName::parse(name).map(FileName::process);
    assert_eq!(process("counter_12.db"), Some("12"));
    assert_eq!(process("gauge_livesum_w1.db"), Some("w1"));
    assert_eq!(
        FileName::parse("gauge_all_3.db").unwrap().to_string(),
        "gauge_all_3.db"
    );
    for other in [
        "counter_12",
        "gauge_12.db",
        "gauge_some_1.db",
        "x_1.db",
        "counter.db",
        "",
    ] {
        assert_eq!(process(other), None, "{other}");
    }
}

#[test]
fn there_is_an_end_to_the_series() {
    let many: Vec<_> = (0..SERIES_MAX + 10)
        .map(|number| ("x_total", json!({"n": number}), 1.0, 0.0))
        .collect();
    let figures = read("counter_1.db", &file("x", &many), &[]);
    assert_eq!(samples(&figures).len(), SERIES_MAX);
}

fn sound() -> Vec<u8> {
    let samples: Vec<_> = (0..20)
        .map(|number| ("x_total", json!({"n": "y".repeat(number)}), 1.0, 0.0))
        .collect();
    file("x", &samples)
}

proptest! {
    /// Whatever is in a file, reading ends, and what is written as families is text.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400), used in any::<i32>(), length in any::<i32>()) {
        let mut bytes = bytes;
        for (at, number) in [(0, used), (8, length)] {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
        }
        for name in ["counter_1.db", "histogram_1.db", "summary_1.db", "gauge_all_1.db"] {
            let mut figures = Figures::default();
            figures.read(FileName::parse(name).unwrap(), &bytes, &[("position", "0")]).ok();
            prop_assert!(encode(&figures.families(), Format::OpenMetrics).ends_with("# EOF\n"));
        }
    }

    /// A sound file with some bytes changed, or cut off: no panic, and no more series than it had.
    #[test]
    fn a_corrupt_file_gives_at_most_what_it_had(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20), cut in any::<prop::sample::Index>()) {
        let mut bytes = sound();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let mut figures = Figures::default();
        figures.read(FileName::parse("counter_1.db").unwrap(), &bytes, &[]).ok();
        prop_assert!(samples(&figures).len() <= 20);
    }

    /// What is cut off takes nothing with it that came before.
    #[test]
    fn a_file_that_is_cut_off_gives_what_is_left(cut in any::<prop::sample::Index>()) {
        let whole = sound();
        let cut = cut.index(whole.len() + 1);
        let mut figures = Figures::default();
        let end = figures.read(FileName::parse("counter_1.db").unwrap(), &whole[..cut], &[]);
        let used = whole.len() - 64;
        prop_assert_eq!(end.is_ok(), cut >= used || cut < 4);
        let entries = Entries::of(&whole).map(|entry| entry.unwrap());
        let mut at = 8;
        let fits = entries.filter(|(key, _)| { at = (at + 4 + key.len()) / 8 * 8 + 24; at <= cut });
        prop_assert_eq!(samples(&figures).len(), fits.count());
    }
}
