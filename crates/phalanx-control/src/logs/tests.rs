use serde_json::Value;

use super::*;

fn chunk(at: u64, position: u32, text: &str) -> Arc<Chunk> {
    Arc::new(Chunk {
        at,
        worker: WorkerId(position + 10),
        position: Position(position),
        generation: Generation(1),
        stream: "stdout",
        bytes: text.as_bytes().into(),
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(work)
}

fn objects(piece: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(piece).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    let json = lines.map(|line| line.strip_prefix("data: ").unwrap_or(line));
    json.map(|json| serde_json::from_str(json).unwrap())
        .collect()
}

/// The lines that a query is answered with, all of them.
fn lines(logs: &Logs, query: Query) -> Vec<String> {
    run(async {
        let mut reader = logs.read(query);
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await {
            all.extend(objects(&piece));
        }
        let text = |one: &Value| one["line"].as_str().map(str::to_owned);
        all.iter()
            .map(|one| text(one).unwrap_or_else(|| format!("missed {}", one["missed"])))
            .collect()
    })
}

#[test]
fn what_is_asked_for_is_given() {
    let logs = Logs::new("web", KEPT_BYTES);
    logs.push(chunk(1, 0, "a\nb\n"));
    logs.push(chunk(2, 1, "c\r\n\nd"));
    logs.push(chunk(3, 0, "e\n"));
    let all = Query::default();
    assert_eq!(lines(&logs, all), ["a", "b", "c", "", "d", "e"]);
    let some = |count| Query {
        lines: Some(count),
        ..all
    };
    assert_eq!(lines(&logs, some(3)), ["", "d", "e"]);
    assert_eq!(lines(&logs, some(0)), [""; 0]);
    assert_eq!(lines(&logs, some(99)).len(), 6);
    let of = |position, count| Query {
        position: Some(position),
        lines: count,
        ..all
    };
    assert_eq!(lines(&logs, of(0, None)), ["a", "b", "e"]);
    assert_eq!(lines(&logs, of(0, Some(2))), ["b", "e"]);
    let worker = Query {
        worker: Some(11),
        since: Some(2),
        ..all
    };
    assert_eq!(lines(&logs, worker), ["c", "", "d"]);
    let since = Query {
        since: Some(3),
        ..all
    };
    assert_eq!(lines(&logs, since), ["e"]);
}

#[test]
fn a_line_says_whose_it_is() {
    let logs = Logs::new("web", KEPT_BYTES);
    logs.push(chunk(7, 2, "hello \u{1b}\n"));
    let piece = run(async { logs.read(Query::default()).next().await.unwrap() });
    let expected = serde_json::json!({
        "time": 7, "app": "web", "position": 2, "worker": 12, "generation": 1,
        "stream": "stdout", "line": "hello \u{1b}",
    });
    assert_eq!(objects(&piece), [expected]);
}

#[test]
fn what_is_kept_is_bounded_in_bytes_and_in_lines() {
    let logs = Logs::new("web", 100_000);
    for number in 0..1_000 {
        logs.push(chunk(number, 0, &"x".repeat(999)));
        assert!(logs.ring().bytes <= 100_000);
    }
    assert!(lines(&logs, Query::default()).len() > 50);
    let logs = Logs::new("web", KEPT_BYTES * 8);
    for number in 0..20 {
        logs.push(chunk(number, 0, &"\n".repeat(10_000)));
    }
    let count = lines(&logs, Query::default()).len();
    assert!((50_000..=65_536).contains(&count), "{count}");
    // One that is too large for itself alone is not kept either.
    let logs = Logs::new("web", 1_000);
    logs.push(chunk(1, 0, &"x".repeat(2_000)));
    assert_eq!(logs.ring().kept.len(), 0);
}

#[test]
fn a_slow_reader_is_told_how_many_lines_it_missed_and_goes_on() {
    let logs = Logs::new("web", 10_000);
    let follow = Query {
        follow: true,
        lines: Some(0),
        ..Query::default()
    };
    run(async {
        let mut reader = logs.read(follow);
        logs.push(chunk(0, 0, "first\n"));
        let first = objects(&reader.next().await.unwrap());
        assert_eq!(first[0]["line"], "first");
        assert_eq!(first[1]["caught_up"], true);
        for number in 0..1_000 {
            logs.push(chunk(number, 0, &format!("line {number}\n")));
        }
        logs.close();
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await {
            all.extend(objects(&piece));
        }
        let missed = all[0]["missed"].as_u64().unwrap();
        assert_eq!(missed + u64::try_from(all.len()).unwrap() - 1, 1_000);
        assert_eq!(all.last().unwrap()["line"], "line 999");
    });
}

#[test]
fn who_follows_is_woken_by_what_comes_and_ends_with_the_app() {
    let logs = Logs::new("web", 0);
    let follow = Query {
        follow: true,
        ..Query::default()
    };
    run(async {
        let mut reader = logs.read(follow);
        let told = objects(&reader.next().await.unwrap());
        assert_eq!(told[0]["caught_up"], true);
        let writer = logs.clone();
        let pushed = async {
            tokio::task::yield_now().await;
            writer.close();
        };
        let (end, ()) = tokio::join!(reader.next(), pushed);
        assert_eq!(end, None);
    });
}

#[test]
fn a_query_is_written_as_it_is_read() {
    let query = Query {
        follow: true,
        lines: Some(5),
        since: Some(17),
        position: Some(1),
        worker: Some(2),
    };
    assert_eq!(
        query.text(),
        "?follow=true&lines=5&since=17&position=1&worker=2"
    );
    assert_eq!(Query::default().text(), "");
}
